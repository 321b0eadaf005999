"""Blinks as events in time, a function of seed and time alone, so that any stretch of a stream can be asked for."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

CLOSING, OPENING = 0.08, 0.16
"""Seconds from open to closed lids and back."""
SHORTEST_PAUSE = 0.4
"""Seconds between two drawn blinks, at least."""


def blink_times(per_minute: float, seed: int, start: float, stop: float) -> list[float]:
    """Drawn blinks whose lids are shut within start .. stop, ascending, seconds.

    Time is cut into slots of the mean pause with one blink somewhere in each: irregular, yet the rate is exact, and no
    blink depends on one before it.

    Args:
        per_minute: mean rate; 0 gives none.
        seed: another seed, other times.
        start, stop: seconds.
    """
    if per_minute <= 0:
        return []
    slot = 60.0 / per_minute
    first, last = math.floor(start / slot) - 1, math.ceil(stop / slot)
    times = [(k + _share(seed, k) * (1 - SHORTEST_PAUSE / slot)) * slot for k in range(max(first, 0), last + 1)]
    return [time for time in times if start <= time < stop]


def closure(times: list[float], num_frames: int, fps: float, start: int = 0) -> Tensor:
    """How far the lids are closed in every frame, 0 to 1, [T].

    Every blink is fully shut in one frame, the one that shows its instant.

    Args:
        times: instants of full closure, seconds.
        num_frames: T.
        fps: frames per second.
        start: index of the first frame.
    """
    closed = torch.zeros(num_frames)
    frames = torch.arange(start, start + num_frames)
    for time in times:
        offset = (frames - math.floor(time * fps + 1e-6)) / fps
        shut = torch.where(offset < 0, 1 + offset / CLOSING, 1 - offset / OPENING)
        closed = torch.maximum(closed, shut.clamp(0, 1))
    return closed


def _share(seed: int, k: int) -> float:
    """A number in [0, 1) drawn for slot k."""
    return random.Random((seed << 40) + k).random()
