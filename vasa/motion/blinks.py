"""Blinks, drawn as events over generated motion.

A blink is rare and short, and the generator learns it last. Where the dynamics code names its channels, the lids can be
moved directly, at a rate the user asks for. Not in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..latents import Motion

CLOSING, OPENING = 0.08, 0.16
"""Seconds from open to closed lids and back."""
_REGULARITY = 4.0
"""Shape of the gamma-distributed pauses between blinks; 1 would be fully random."""


def blink_closure(num_frames: int, fps: float, per_minute: float, generator: torch.Generator) -> Tensor:
    """How far the lids are closed in every frame, 0 to 1, [T].

    Args:
        num_frames: T.
        fps: frames per second.
        per_minute: mean rate of blinks; 0 gives none.
        generator: draws the times.
    """
    closure = torch.zeros(num_frames)
    if per_minute <= 0:
        return closure
    mean = 60.0 / per_minute
    frames = (torch.arange(num_frames) + 0.5) / fps
    time = 0.0
    while time < num_frames / fps:
        # a gamma variate of integer shape is a sum of exponentials
        draws = -torch.rand(int(_REGULARITY), generator=generator).clamp_min(1e-6).log()
        time += max(0.4, float(draws.sum()) * mean / _REGULARITY)
        # the instant of full closure falls on a frame, so that no blink stays half open
        peak = frames[min(num_frames - 1, round(time * fps))]
        offset = frames - peak
        rise = 1 + offset / CLOSING
        fall = 1 - offset / OPENING
        closure = torch.maximum(closure, torch.where(offset < 0, rise, fall).clamp(0, 1))
    return closure


def with_blinks(motion: Motion, names: tuple[str, ...], per_minute: float, seed: int) -> Motion:
    """Close the lids of a motion now and then; where it blinks by itself, the stronger closure holds.

    Args:
        motion: [T, ...].
        names: what the dynamics channels mean; without "eyeBlink_L" and "eyeBlink_R" nothing is changed.
        per_minute: mean rate of blinks.
        seed: of the clip.
    """
    lids = [names.index(name) for name in ("eyeBlink_L", "eyeBlink_R") if name in names]
    if not lids or per_minute <= 0:
        return motion
    generator = torch.Generator().manual_seed(seed + 1)
    closure = blink_closure(len(motion), motion.fps, per_minute, generator).to(motion.facial_dynamics)
    dynamics = motion.facial_dynamics.clone()
    dynamics[:, lids] = torch.maximum(dynamics[:, lids], closure[:, None])
    return Motion(motion.head_pose, dynamics, motion.fps, motion.backend)
