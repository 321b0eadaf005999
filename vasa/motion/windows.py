"""Sliding windows: a clip of any length from windows of W frames, K carried over (VASA-1, section 3.2).

Each window sees the same stretch of sound whether the clip is known whole or arrives piece by piece: K previous
frames, the window, and `context` frames on both sides for the audio encoder. A window begins with `overlap` frames
of the one before, which stay as they are and lead it on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import AudioEncoder
from ..controls import ControlCurves, Controls
from .conditions import Conditions, nothing_empty
from .diffusion import sample
from .transformer import Denoiser


@dataclass(frozen=True)
class WindowPlan:
    """How a clip is cut.

    Attributes:
        window: frames generated at a time, at most the model's W.
        overlap: frames of it that the window before has already given, at least 1.
        context: frames of sound around a window that the audio encoder also hears (0.4 s at 25 fps).
    """

    window: int = 50
    overlap: int = 10
    context: int = 10

    def count(self, num_frames: int) -> int:
        """Windows that a clip of `num_frames` frames takes."""
        return 1 + max(0, math.ceil((num_frames - self.window) / (self.window - self.overlap)))


@dataclass(frozen=True)
class MotionState:
    """What one window hands to the next.

    Attributes:
        motion: the last K + overlap frames, normalised, [1, K + O, M]; None before the first window.
        frame: index of the next frame to generate.
    """

    motion: Tensor | None = None
    frame: int = 0


def sound_of(encoder: AudioEncoder, waveform: Tensor, start: int, length: int, context: int, fps: float) -> Tensor:
    """Features of frames start .. start + length, computed from them and `context` frames around; silence outside.

    Args:
        encoder: the audio encoder.
        waveform: [N] mono 16 kHz.
        start: first frame, may be negative.
        length: frames.
        context: frames on either side.
        fps: frames per second.

    Returns:
        [1, length, A].
    """
    rate = encoder.config.sample_rate
    first, last = round((start - context) * rate / fps), round((start + length + context) * rate / fps)
    piece = waveform[max(first, 0) : max(last, 0)]
    piece = F.pad(piece, (max(0, min(-first, last - first)), 0))
    piece = F.pad(piece, (0, last - first - piece.shape[0]))
    features = encoder(piece[None], length + 2 * context)
    return features[:, context : context + length]


def next_window(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    waveform: Tensor,
    curves: ControlCurves,
    controls: Controls,
    state: MotionState,
    plan: WindowPlan,
    generator: torch.Generator,
    progress: Callable[[], None] | None = None,
) -> tuple[Tensor, MotionState]:
    """Generate one window.

    Returns:
        New motion in physical units, [1, window - overlap, M] (the first: [1, window, M]), and the next call's state.
    """
    k, fps = denoiser.config.num_previous, denoiser.config.fps
    overlap = 0 if state.motion is None else plan.overlap
    start = state.frame - overlap
    sound = sound_of(encoder, waveform, start - k, k + plan.window, plan.context, fps)
    empty = nothing_empty(1, sound.device)
    if state.motion is None:
        past = sound.new_zeros(1, k, denoiser.mean.numel())
        empty["previous"] = torch.ones_like(empty["previous"])
    else:
        past = state.motion[:, :k]
    for name, given in curves.given.items():
        empty[name] = torch.full_like(empty[name], not given)
    frames = slice(start, start + plan.window)
    conditions = Conditions(
        audio=sound[:, k:],
        heard=sound.new_ones(1, plan.window),
        gaze=curves.at(curves.gaze, frames).to(sound.device),
        distance=curves.at(curves.distance, frames).to(sound.device),
        emotion=curves.at(curves.emotion, frames).to(sound.device),
        previous_motion=past,
        previous_audio=sound[:, :k],
        empty=empty,
    )
    scales = {name: s for name, s in controls.guidance.items() if curves.given.get(name, True)}
    x_0 = sample(
        denoiser,
        conditions,
        plan.window,
        scales=scales,
        steps=controls.steps,
        generator=generator,
        known=None if state.motion is None else state.motion[:, k:],
        progress=progress,
    )
    x_0 = torch.cat([x_0[:, :overlap], calm(x_0)[:, overlap:]], dim=1)
    carried = x_0 if state.motion is None else torch.cat([state.motion[:, :k], x_0], dim=1)
    new = x_0[:, overlap:]
    return denoiser.denormalise(new), MotionState(carried[:, -(k + plan.overlap) :], state.frame + new.shape[1])


def calm(motion: Tensor) -> Tensor:
    """Smooth the head's pose over 7 frames (binomial); lips and lids stay as sharp as they are, [B, T, M].

    Heads have next to no movement above 5 Hz; what a generator adds there is seen as a tremor.
    """
    kernel = motion.new_tensor([1.0, 6, 15, 20, 15, 6, 1]) / 64
    pose = F.pad(motion[..., :6].transpose(1, 2), (3, 3), mode="replicate")
    pose = F.conv1d(pose, kernel.expand(6, 1, 7), groups=6).transpose(1, 2)
    return torch.cat([pose, motion[..., 6:]], dim=-1)


def generate(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    waveform: Tensor,
    curves: ControlCurves,
    controls: Controls,
    num_frames: int,
    plan: WindowPlan,
    progress: Callable[[], None] | None = None,
) -> Iterator[Tensor]:
    """Motion of a whole clip, window by window, [1, <= window, M] each; the pieces sum to `num_frames` frames."""
    generator = torch.Generator().manual_seed(controls.seed)
    state = MotionState()
    while state.frame < num_frames:
        left = num_frames - state.frame
        motion, state = next_window(denoiser, encoder, waveform, curves, controls, state, plan, generator, progress)
        yield motion[:, :left]
