"""Sliding windows: motion of any length from windows of W frames, K carried over (VASA-1, section 3.2).

Each window hears the same stretch of sound whether the clip is known whole or arrives piece by piece: K previous
frames with some context before, the window, and the plan's look-ahead. A window begins with `overlap` frames that
were given before, which stay as they are and lead it on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import AudioEncoder
from ..controls import ControlCurves
from ..graphs import EXCLUSIVE, graphs_wanted
from ..latents import POSE
from .conditions import Conditions, nothing_empty
from .diffusion import frame_noise, sample
from .gaze import told
from .plan import SMOOTHING, WindowPlan
from .sound import SoundBuffer
from .transformer import Denoiser


@dataclass(frozen=True)
class MotionState:
    """What one window hands to the next.

    Attributes:
        frame: index of the next frame to generate.
        motion: the last frames given, normalised, [1, H, M]; None before the first window.
    """

    frame: int = 0
    motion: Tensor | None = None

    def back_at(self, frame: int) -> MotionState:
        """The state when only the frames before `frame` had been given."""
        if frame == self.frame or self.motion is None:
            return self
        kept = self.motion.shape[1] - (self.frame - frame)
        return MotionState(frame, self.motion[:, :kept] if frame > 0 else None)


def sound_of(
    encoder: AudioEncoder,
    sound: Tensor | SoundBuffer,
    start: int,
    length: int,
    context: int,
    fps: float,
    heard: int | None = None,
) -> Tensor:
    """Features of frames start .. start + length, computed from them and `context` frames around; silence outside.

    Args:
        encoder: the audio encoder.
        sound: mono 16 kHz, [N], or a buffer of it.
        start: first frame, may be negative.
        length: frames.
        context: frames on either side.
        fps: frames per second.
        heard: frames from `start` on of which the sound is known, instead of length + context; features of frames
            beyond are 0.

    Returns:
        [1, length, A].
    """
    rate = encoder.config.sample_rate
    heard = length + context if heard is None else heard
    first, last = round((start - context) * rate / fps), round((start + heard) * rate / fps)
    buffer = sound if isinstance(sound, SoundBuffer) else SoundBuffer(sound)
    features = encoder(buffer.piece(first, last)[None], context + heard)[:, context : context + length]
    return F.pad(features, (0, 0, 0, length - features.shape[1]))


def next_window(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    sound: Tensor | SoundBuffer,
    curves: Callable[[range], ControlCurves],
    state: MotionState,
    plan: WindowPlan,
    *,
    scales: dict[str, float],
    steps: int,
    seed: int,
    sampler: str = "ddim",
    progress: Callable[[], None] | None = None,
) -> tuple[Tensor, MotionState]:
    """Generate one window.

    Args:
        denoiser: H.
        encoder: the audio encoder.
        sound: at least up to `plan.span(...).needs`; silence beyond its end.
        curves: conditions of a range of frames.
        state: what the window before handed over.
        plan: how the sound is cut.
        scales: guidance scale per condition.
        steps: denoising steps, where the plan names none.
        seed: of the session.
        sampler: "ddim" or "dpm++".
        progress: called after every denoising step.

    Returns:
        New motion in physical units, [1, kept, M], and the next call's state.
    """
    k, fps = denoiser.config.num_previous, denoiser.config.fps
    span = plan.span(state.frame, k)
    frames = range(span.start, span.start + span.length)
    features = sound_of(encoder, sound, span.start - k, k + span.length, plan.context, fps, k + span.heard)
    given = curves(frames)
    empty = nothing_empty(1, features.device)
    empty["previous"] = torch.full_like(empty["previous"], not span.has_past)
    for name, is_given in given.given.items():
        empty[name] = torch.full_like(empty[name], not is_given)
    known = None if state.motion is None else state.motion[:, -span.known :].clone()
    past = features.new_zeros(1, k, denoiser.mean.numel())
    if span.has_past:
        past = state.motion[:, -span.known - k : -span.known].clone()
    conditions = Conditions(
        audio=features[:, k:],
        heard=(torch.arange(span.length) < span.heard).to(features)[None],
        gaze=told(given.gaze, scales)[None].to(features),
        distance=given.distance[None].to(features),
        emotion=given.emotion[None].to(features),
        previous_motion=past,
        previous_audio=features[:, :k],
        empty=empty,
    )
    with EXCLUSIVE if graphs_wanted((features,)) else contextlib.nullcontext():
        x_0 = sample(
            denoiser,
            conditions,
            span.length,
            scales={name: s for name, s in scales.items() if given.given.get(name, True) and name in denoiser.guided},
            steps=plan.steps or steps,
            noise=frame_noise(seed, frames, denoiser.mean.numel())[None],
            known=known,
            sampler=sampler,
            progress=progress,
        )
    new = calm(x_0, getattr(denoiser, "pose_channels", len(POSE)))[:, span.known : span.known + span.kept]
    history = new if state.motion is None else torch.cat([state.motion, new], dim=1)
    longest = k + plan.overlap + 2 * max(plan.hop, plan.first or plan.window)
    state = MotionState(state.frame + span.kept, history[:, -longest:])
    return denoiser.denormalise(new), state


def calm(motion: Tensor, pose_channels: int = len(POSE)) -> Tensor:
    """Smooth the head's pose over 7 frames (binomial); lips and lids stay as sharp as they are, [B, T, M].

    Heads have next to no movement above 5 Hz; what a generator adds there is seen as a tremor.

    Args:
        motion: normalised.
        pose_channels: how many of its leading channels are the head's pose.
    """
    kernel = motion.new_tensor([1.0, 6, 15, 20, 15, 6, 1]) / 64
    pose = F.pad(motion[..., :pose_channels].transpose(1, 2), (SMOOTHING, SMOOTHING), mode="replicate")
    pose = F.conv1d(pose, kernel.expand(pose_channels, 1, 7), groups=pose_channels).transpose(1, 2)
    return torch.cat([pose, motion[..., pose_channels:]], dim=-1)
