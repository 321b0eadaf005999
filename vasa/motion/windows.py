"""Sliding windows: motion of any length from windows of W frames, K carried over (VASA-1, section 3.2).

Each window hears the same stretch of sound whether the clip is known whole or arrives piece by piece: K previous
frames with some context before, the window, and the plan's look-ahead. A window begins with `overlap` frames that
were given before, which stay as they are and lead it on. The head's path is settled `SMOOTHING` frames further, so that
what is given is smoothed by one filter throughout and no seam is left in it.
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
from .diffusion import Known, frame_noise, sample
from .gaze import told
from .plan import SMOOTHING, WindowPlan
from .sound import SoundBuffer
from .transformer import Denoiser

_LOW_PASS = (0.2094, 0.18794, 0.13366, 0.07031, 0.02091, -0.00412, -0.00886, -0.00454)
"""Half of a symmetric filter for 25 frames per second, by least squares: 0.98 at 0.5 Hz, 0.93 at 1 Hz, 0.7 at 2 Hz,
0.37 at 3 Hz, at most 0.004 from 5 Hz on."""


@dataclass(frozen=True)
class MotionState:
    """What one window hands to the next.

    Attributes:
        frame: index of the next frame to generate.
        motion: the last frames given, normalised and not smoothed, [1, H, M]; None before the first window.
        ahead: the head's pose in the frames that follow, [1, A, P]; None before the first window.
    """

    frame: int = 0
    motion: Tensor | None = None
    ahead: Tensor | None = None

    def back_at(self, frame: int) -> MotionState:
        """The state when only the frames before `frame` had been given."""
        if frame == self.frame or self.motion is None:
            return self
        if frame == 0:
            return MotionState()
        kept = self.motion.shape[1] - (self.frame - frame)
        head = torch.cat([self.motion[..., : self.ahead.shape[2]], self.ahead], dim=1)
        return MotionState(frame, self.motion[:, :kept], head[:, kept : kept + SMOOTHING])


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

    An encoder that hears in pieces of `stride` frames is given some frames more before, so that its pieces begin at
    multiples of it, wherever the window begins.

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
    before = context + (start - context) % stride_of(encoder)
    first, last = round((start - before) * rate / fps), round((start + heard) * rate / fps)
    buffer = sound if isinstance(sound, SoundBuffer) else SoundBuffer(sound)
    features = encoder(buffer.piece(first, last)[None], before + heard)[:, before : before + length]
    return F.pad(features, (0, 0, 0, length - features.shape[1]))


def stride_of(encoder: AudioEncoder) -> int:
    """Frames of a piece of sound that the encoder hears at a time; 1 where it does not cut it."""
    return getattr(encoder, "stride", 1)


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
    poses = getattr(denoiser, "pose_channels", len(POSE))
    known, past = None, features.new_zeros(1, k, denoiser.mean.numel())
    if state.motion is not None:
        leading = state.motion[:, -span.known :]
        known = Known(torch.cat([leading[..., :poses], state.ahead], dim=1), leading[..., poses:].clone())
    if span.has_past:
        past = calm(state.motion, poses)[:, -span.known - k : -span.known].clone()
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
    path = x_0 if state.motion is None else torch.cat([state.motion[:, : -span.known], x_0], dim=1)
    end = path.shape[1] - span.length + span.known + span.kept
    new = calm(path, poses)[:, end - span.kept : end]
    longest = k + plan.overlap + SMOOTHING + 2 * max(plan.hop, plan.first or plan.window)
    history = path[:, max(0, end - longest) : end]
    state = MotionState(state.frame + span.kept, history, path[:, end : end + SMOOTHING, :poses])
    return denoiser.denormalise(new), state


def calm(motion: Tensor, pose_channels: int = len(POSE)) -> Tensor:
    """Smooth the head's pose over 15 frames; lips and lids stay as sharp as they are, [B, T, M].

    Heads have next to no movement above 5 Hz; what a generator adds there is seen as a tremor.

    Args:
        motion: normalised.
        pose_channels: how many of its leading channels are the head's pose.
    """
    kernel = motion.new_tensor([*reversed(_LOW_PASS[1:]), *_LOW_PASS])
    pose = F.pad(motion[..., :pose_channels].transpose(1, 2), (SMOOTHING, SMOOTHING), mode="replicate")
    pose = F.conv1d(pose, kernel.expand(pose_channels, 1, -1), groups=pose_channels).transpose(1, 2)
    return torch.cat([pose, motion[..., pose_channels:]], dim=-1)
