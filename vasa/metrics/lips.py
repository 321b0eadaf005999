"""Do the lips follow the sound, close where they must, and rest in silence?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..synthetic.phones import VISEMES, Segment
from ..synthetic.visemes import JAW_OPEN, articulate
from .clips import Clip, Spoken, frame_times, frames_of

SHIFT_SECONDS = 0.5
CLOSED_SHARE = 0.2
"""Lips count as closed up to this share of the way from closed lips to the person's own "ah"."""
_PAUSE, _MARGIN = 0.3, 0.15
_MBP = VISEMES.index("MBP")


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of two curves [T]; 0 where one of them does not move."""
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    norm = first.norm() * second.norm()
    return float(first @ second / norm) if norm > 1e-9 else 0.0


def shifted_correlation(first: Tensor, second: Tensor, frames: int) -> float:
    """Correlation of `first` with `second` delayed by `frames` (negative: advanced), over what they share."""
    if frames < 0:
        return shifted_correlation(second, first, -frames)
    return correlation(first[frames:], second[: len(second) - frames])


def true_jaw(spoken: Spoken, frames: int, fps: float) -> Tensor:
    """jawOpen of an average speaker saying the same phones, [T]."""
    return articulate(spoken.segments, frames, fps, 1.0, Generator().manual_seed(0))[:, JAW_OPEN]


def lip_sync(clips: Sequence[Clip], lag: int = 0) -> list[float]:
    """Correlation of the jaw opening that was read with the true curve, per clip, until its speech ends."""
    return [shifted_correlation(*_curves(clip), lag) for clip in clips]


def wrong_sync(clips: Sequence[Clip]) -> list[float]:
    """The same against the true curve of the next clip."""
    found = []
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        read, truth = _curves(clip)[0], _curves(other)[1]
        shared = min(len(read), len(truth))
        found.append(correlation(read[:shared], truth[:shared]))
    return found


def shifted_sync(clips: Sequence[Clip]) -> list[float]:
    """The same against the curve half a second early and late, mean of both."""
    found = []
    for clip in clips:
        frames = round(SHIFT_SECONDS * clip.motion.fps)
        found.append(sum(shifted_correlation(*_curves(clip), way * frames) for way in (-1, 1)) / 2)
    return found


def best_lag(clips: Sequence[Clip], farthest: int = 5) -> int:
    """Frames by which the mouth comes late (positive) where the median correlation is largest."""
    return max(range(-farthest, farthest + 1), key=lambda lag: float(torch.tensor(lip_sync(clips, lag)).median()))


def _curves(clip: Clip) -> tuple[Tensor, Tensor]:
    frames = len(clip.jaw)
    spoken = min(frames, frames_of(clip.spoken.speech_end, clip.motion.fps))
    return clip.jaw[:spoken], true_jaw(clip.spoken, frames, clip.motion.fps)[:spoken]


def closures(clip: Clip, delay: float = 0.0) -> list[bool]:
    """Whether the lips were seen closed at each p, b and m.

    Args:
        clip: a clip.
        delay: looks this many seconds too late; tells how often lips are closed by chance.
    """
    talker, fps = clip.talker, clip.motion.fps
    limit = talker.lips_closed + CLOSED_SHARE * (talker.lips_open - talker.lips_closed)
    times = frame_times(len(clip.opening), fps) - delay
    found = []
    for segment in clip.spoken.segments:
        there = (times >= segment.start - 0.5 / fps) & (times <= segment.end + 0.5 / fps)
        if segment.viseme == _MBP and there.any():
            found.append(bool(clip.opening[there].min() <= limit))
    return found


def resting(segments: Sequence[Segment], frames: int, fps: float) -> Tensor:
    """Frames well inside pauses of at least 0.3 s, [T] bool."""
    times = frame_times(frames, fps)
    rest = torch.zeros(frames, dtype=torch.bool)
    for begin, end in _silences(segments):
        if end - begin >= _PAUSE:
            rest |= (times >= begin + _MARGIN) & (times <= end - _MARGIN)
    return rest


def _silences(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    """Neighbouring stretches of silence as one."""
    found: list[tuple[float, float]] = []
    for segment in segments:
        if segment.phone != "sil":
            continue
        if found and segment.start - found[-1][1] < 1e-3:
            found[-1] = (found[-1][0], segment.end)
        else:
            found.append((segment.start, segment.end))
    return found


def silent_opening(clip: Clip) -> Tensor:
    """How far the mouth stands open in pauses, over its 95th percentile in speech, one value per frame."""
    rest = resting(clip.spoken.segments, len(clip.opening), clip.motion.fps)
    above = clip.opening - clip.talker.lips_closed
    talking = above[: frames_of(clip.spoken.speech_end, clip.motion.fps)]
    return above[rest].clamp_min(0) / talking.quantile(0.95).clamp_min(1e-3)
