"""Cutting and joining motion: splice, loop, re-time, smooth the pose, exchange pose and dynamics.

Every function returns a new motion. Where two motions meet they are first brought to one frame rate and about one
rest (`vasa/motion/place.py`), so that a hand-over is about movement and not about two portraits.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..latents import POSE, Motion
from .diffusion import FACE_FADE
from .place import place

SPEEDS = (0.1, 10.0)


def splice(first: Motion, second: Motion, overlap: int = 25, names: tuple[str, ...] = ()) -> Motion:
    """One motion after the other, the end of the first faded into the start of the second.

    The pose fades over the whole overlap, the face (whose movements are quick, and would be doubled by a long fade)
    over its middle `FACE_FADE` frames. Outside the overlap every frame is exactly the original's, if both have the
    same rate and rest.

    Args:
        first: [T1, ...].
        second: [T2, ...]; brought to the first's frame rate and rest.
        overlap: frames in which both are mixed; 0 is a hard cut.
        names: meaning of the dynamics channels, as in `place`.

    Returns:
        T1 + T2 - overlap frames.

    Raises:
        InputError: motions of different backends or channels, one relative and one absolute, or an overlap longer
            than either.
    """
    second = match(second, first, names)
    if not 0 <= overlap <= min(len(first), len(second)):
        raise InputError(
            f"an overlap of {overlap} frames does not fit motions of {len(first)} and {len(second)} frames; "
            "give a shorter one"
        )
    a, b = first.vectors, second.vectors
    mixed = _crossfade(a[len(a) - overlap :], b[:overlap])
    return _with(first, torch.cat([a[: len(a) - overlap], mixed, b[overlap:]]))


def loop(motion: Motion, overlap: int = 25, times: int = 1) -> Motion:
    """A motion whose last frame leads into its first: its end is faded into its beginning.

    Args:
        motion: [T, ...].
        overlap: frames that end and beginning share.
        times: how often the loop is repeated in the result.

    Returns:
        times * (T - overlap) frames, to be played again and again.

    Raises:
        InputError: fewer than two overlaps of motion.
    """
    if not 0 <= overlap <= len(motion) // 2:
        raise InputError(
            f"a loop with {overlap} shared frames needs at least {2 * overlap} frames, the motion has {len(motion)}; "
            "give a smaller overlap"
        )
    x = motion.vectors
    end = len(x) - overlap
    once = torch.cat([_crossfade(x[end:], x[:overlap]), x[overlap:end]])
    return _with(motion, once.repeat(times, 1))


def retime(motion: Motion, fps: float | None = None, total: int | None = None, *, speed: float = 1.0) -> Motion:
    """The same course at another frame rate or speed, linearly interpolated; beyond its end the last frame holds.

    Args:
        motion: [T, ...].
        fps: wanted frames per second; default the motion's.
        total: wanted number of frames; default all of the motion.
        speed: 2 plays it in half the time.
    """
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise InputError(f"speed must be between {SPEEDS[0]} and {SPEEDS[1]:.0f}, got {speed}")
    fps = motion.fps if fps is None else fps
    stride = motion.fps * speed / fps
    if total is None:
        total = max(1, math.ceil(len(motion) / stride - 1e-6))
    return at_times(motion, torch.arange(total, dtype=torch.float64) * stride, fps)


def at_times(motion: Motion, position: Tensor, fps: float) -> Motion:
    """The motion at fractional frames `position` [N], linearly interpolated and held at both ends, called `fps`."""
    vectors = motion.vectors
    position = position.clamp(0, len(vectors) - 1)
    before = position.floor().long()
    after = (before + 1).clamp(max=len(vectors) - 1)
    share = (position - before).to(vectors)[:, None]
    before, after = before.to(vectors.device), after.to(vectors.device)
    return replace(_with(motion, torch.lerp(vectors[before], vectors[after], share)), fps=fps)


def smooth_pose(motion: Motion, seconds: float = 0.12) -> Motion:
    """Calm the head; the face keeps every movement.

    Args:
        motion: [T, ...].
        seconds: standard deviation of the Gaussian in time.
    """
    return replace(motion, head_pose=smoothed(motion.head_pose, seconds * motion.fps))


def smoothed(curves: Tensor, frames: float) -> Tensor:
    """Gaussian mean along the first axis, [T, C]; `frames` is its standard deviation. The ends are mirrored."""
    radius = min(math.ceil(3 * frames), len(curves) - 1)
    if radius < 1:
        return curves
    offset = torch.arange(-radius, radius + 1, device=curves.device)
    kernel = torch.exp(-0.5 * (offset / frames) ** 2)
    kernel = (kernel / kernel.sum()).to(curves)
    padded = F.pad(curves.T[None], (radius, radius), mode="reflect")
    return F.conv1d(padded, kernel.expand(curves.shape[1], 1, -1), groups=curves.shape[1])[0].T


def swap(pose_from: Motion, dynamics_from: Motion, names: tuple[str, ...] = ()) -> Motion:
    """The head of one motion with the face of another (VASA-1, Figure 5).

    Args:
        pose_from: head pose, frame rate adapted. A single frame keeps the head still; where it is the shorter one it
            goes there and back.
        dynamics_from: face; its length and rate are the result's, since lips belong to a sound.
        names: meaning of the dynamics channels, as in `place`.

    Raises:
        InputError: motions of different backends or channels.
    """
    check_alike(pose_from, dynamics_from)
    poses = there_and_back(retime(pose_from, dynamics_from.fps), len(dynamics_from))
    if pose_from.rest is not None:
        dynamics_from = place(dynamics_from, pose_from.rest, names)
    return replace(dynamics_from, head_pose=poses.head_pose.to(dynamics_from.head_pose), rest=pose_from.rest)


def there_and_back(motion: Motion, total: int) -> Motion:
    """`total` frames of a motion that turns round at either end; a single frame is held."""
    period = max(2 * (len(motion) - 1), 1)
    index = torch.arange(total, device=motion.head_pose.device) % period
    index = torch.minimum(index, period - index) % len(motion)
    return _with(motion, motion.vectors[index])


def cut(motion: Motion, start: int, stop: int) -> Motion:
    """Frames start .. stop - 1.

    Raises:
        InputError: not frames of this motion.
    """
    check_frames(motion, start, stop)
    return motion[start:stop]


def check_frames(motion: Motion, start: int, stop: int) -> None:
    """Raise InputError unless start .. stop is a stretch of the motion."""
    if not 0 <= start < stop <= len(motion):
        raise InputError(
            f"frames {start}..{stop} are not a stretch of the motion, which has frames 0..{len(motion)}; "
            "give START..STOP, the second not included"
        )


def check_alike(first: Motion, second: Motion) -> None:
    """Raise InputError unless both speak the same backend's dynamics."""
    ours, theirs = ((m.backend, m.facial_dynamics.shape[-1]) for m in (first, second))
    if ours != theirs:
        raise InputError(
            f"the motions do not fit together: one has {ours[1]} dynamics channels of the backend {ours[0]!r}, "
            f"the other {theirs[1]} of {theirs[0]!r}; use motions of one model"
        )


def match(motion: Motion, like: Motion, names: tuple[str, ...] = ()) -> Motion:
    """A motion at the frame rate and about the rest of another; `names` as in `place`.

    Raises:
        InputError: different backends or channels, or one of them is absolute and the other is not.
    """
    check_alike(like, motion)
    if (motion.rest is None) != (like.rest is None):
        raise InputError(
            "one of the motions is absolute and the other is about a rest pose; a head cannot be handed over between "
            "them, make both the same way"
        )
    if motion.fps != like.fps:
        motion = retime(motion, like.fps)
    if like.rest is not None:
        motion = place(motion, like.rest, names)
    return motion


def _crossfade(leaving: Tensor, coming: Tensor) -> Tensor:
    """Mix two stretches of one length, [N, M]: all of the first at the start, all of the second at the end."""
    n, channels = leaving.shape
    frame = torch.arange(n, device=leaving.device, dtype=torch.float32)[:, None] + 0.5 - n / 2
    lengths = torch.full((channels,), float(min(n, FACE_FADE)), device=leaving.device)
    lengths[: len(POSE)] = float(n)
    # frame 0 of a loop follows the frame before `leaving`, hence half a frame from either end
    share = (1 + torch.sin(torch.pi * (frame / lengths.clamp(min=1)).clamp(-0.5, 0.5))) / 2
    return torch.lerp(leaving, coming.to(leaving), share)


def _with(motion: Motion, vectors: Tensor) -> Motion:
    return Motion.from_vectors(vectors, motion.fps, motion.backend, motion.rest)
