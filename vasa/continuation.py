"""A clip that goes on from a motion that is already there, without a jump where the two meet. Not in the paper.

The last frames of the given motion become what a window before would have handed over. What the generator cannot know
of them (a head turned and lids closed by controls, frames out of its range) is an offset at the join; it fades out
behind it, as the offset between two windows does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .controls import Controls
from .errors import InputError
from .latents import POSE, FaceLatents, Motion
from .motion.diffusion import FACE_FADE, POSE_FADE
from .motion.edit import at_times
from .motion.plan import SMOOTHING, WindowPlan
from .motion.windows import MotionState, calm


@dataclass(frozen=True)
class Continuation:
    """What a clip needs to know of the motion before it.

    Attributes:
        past: the state that a session begins in; its frame is the number of known frames.
        offset: the given motion's last frame minus what the session would have shown there, [M].
    """

    past: MotionState
    offset: Tensor

    def joined(self, vectors: Tensor) -> Tensor:
        """The clip, [T, M], with the offset faded out over its beginning."""
        lengths = torch.full_like(self.offset, FACE_FADE)
        lengths[: len(POSE)] = POSE_FADE
        frame = torch.arange(1, len(vectors) + 1, device=vectors.device)[:, None]
        fade = (1 + torch.cos(torch.pi * (frame / lengths.to(vectors.device)).clamp(max=1))) / 2
        return vectors + self.offset.to(vectors) * fade


@torch.inference_mode()
def continue_from(engine: Any, motion: Motion, face: FaceLatents, controls: Controls, plan: WindowPlan) -> Continuation:
    """Let the next clip of a face begin where a motion ends.

    Args:
        engine: `Vasa`, or one of the same interface.
        motion: [T, ...] at any frame rate, made for this or another portrait, or read from a video.
        face: the portrait of the next clip.
        controls: of the next clip.
        plan: how its sound is cut.

    Raises:
        InputError: no frames, several motions at once, one of another engine, or an engine that cannot take it up.
    """
    _check(engine, motion)
    generator = engine.generator_for(face)
    last = _last_frames(engine.adopted(motion, face), engine.fps, plan, generator.config.num_previous)
    known = engine.drawable(last, face).to(generator.mean.device)
    low, high = (limit[: known.shape[-1]] for limit in (generator.low, generator.high))  # what motion files hold
    known = generator.normalise(known.clamp(low, high))[None]
    poses = getattr(generator, "pose_channels", len(POSE))
    # no more than a window of this plan draws beyond what it gives
    ahead = _swung_out(known[..., :poses])[:, : plan.window - plan.overlap - plan.hop]
    end = torch.cat([ahead, known[:, -1:, poses:].expand(-1, ahead.shape[1], -1)], dim=2)
    smoothed = calm(torch.cat([known, end], dim=1), poses)[:, known.shape[1] - 1]
    drawn = engine.placed(generator.denormalise(smoothed), face)
    shown = engine.shaped(drawn, controls.curves(1, engine.fps, -1), face).vectors
    return Continuation(MotionState(known.shape[1], known, ahead), last.vectors[-1].to(shown) - shown[0])


def _swung_out(pose: Tensor) -> Tensor:
    """Where a head goes that slows down evenly to rest, the frames that smoothing looks ahead, [1, H, P] -> [1, A, P].

    What really came next is not known of a motion that was cut; without these frames the first new one would be
    smoothed with others than the last known one was.
    """
    speed = pose[:, -1:] - pose[:, -2:-1] if pose.shape[1] > 1 else torch.zeros_like(pose)
    slower = torch.arange(SMOOTHING, 0, -1, device=pose.device)[:, None] / (SMOOTHING + 1)
    return pose[:, -1:] + speed * slower.cumsum(0)


def _last_frames(motion: Motion, fps: float, plan: WindowPlan, num_previous: int) -> Motion:
    """The end of a motion at the model's frame rate: its very last frame and as many before it as a window looks at."""
    stride = motion.fps / fps
    there = int((len(motion) - 1) / stride + 1e-6) + 1
    full = plan.overlap + num_previous
    # with fewer there is no past, and more known frames than an overlap would leave a window no room
    count = min(there, full + SMOOTHING) if there >= full else min(there, plan.overlap)
    position = len(motion) - 1 - stride * torch.arange(count - 1, -1, -1, dtype=torch.float64)
    return at_times(motion, position, fps)


def _check(engine: Any, motion: Motion) -> None:
    if motion.head_pose.dim() != 2 or len(motion) == 0:
        raise InputError(
            f"expected one previous motion of at least one frame, got head poses {list(motion.head_pose.shape)}"
        )
    if motion.backend != engine.backend:
        raise InputError(
            f"the previous motion was made for the backend {motion.backend!r}, the model is {engine.backend!r}; "
            "continue it with the model that made it"
        )
    channels, ours = motion.facial_dynamics.shape[-1], engine.config.face.dynamics_dim
    if channels != ours:
        raise InputError(
            f"the previous motion has {channels} dynamics channels, the model has {ours}; "
            "continue it with the model that made it"
        )
