"""Where the eyes look, when they blink, and how the lids follow."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..latents import EXPRESSIONS
from .chance import happens, uniform
from .prosody import RATE, smooth
from .visemes import weight_columns

_DEGREE = math.pi / 180.0
MAX_EYE = (30.0 * _DEGREE, 20.0 * _DEGREE)
"""How far the eyes turn in the head: yaw, pitch."""
_AWAY_SHARE = 0.45
_AWAY_DEGREES = (7.5, 4.0)
_NEAR_DEGREES = (0.8, 0.5)
_AWAY_SECONDS, _NEAR_SECONDS = 0.55, 1.3
_FIXATION_RANGE = (0.25, 4.0)
_SACCADE_SECONDS = 0.012
BLINK_SECONDS = 3.5
"""Mean interval between blinks."""
_BLINK_SHAPE = 2.5
_SHORTEST_INTERVAL = 0.5
_CLOSING, _OPENING = 0.04, 0.08
_LID_PER_RADIAN = 2.0
_TURN_PER_RADIAN = 1.2


def fixations(count: int, generator: Generator) -> Tensor:
    """Where the eyes look relative to the main direction at 100 Hz, (yaw, pitch) radians, [count, 2].

    Most of the time near the main direction, in between short glances elsewhere.
    """
    offsets = torch.zeros(count, 2)
    start, away = 0, False
    while start < count:
        typical = _AWAY_SECONDS if away else _NEAR_SECONDS
        seconds = typical * math.exp(0.5 * float(torch.randn((), generator=generator)))
        end = start + int(min(max(seconds, _FIXATION_RANGE[0]), _FIXATION_RANGE[1]) * RATE)
        scale = torch.tensor(_AWAY_DEGREES if away else _NEAR_DEGREES) * _DEGREE
        offsets[start:end] = scale * torch.randn(2, generator=generator).clamp(-2.0, 2.0)
        start, away = end, happens(_AWAY_SHARE, generator)
    return smooth(offsets, _SACCADE_SECONDS * RATE)


def blink_times(
    seconds: float, pauses: list[float], gaze_shifts: list[float], generator: Generator, rate: float = 1.0
) -> list[float]:
    """Times of the deepest closure of every blink.

    Args:
        seconds: length of the clip.
        pauses: times at which speech stops; a blink that would fall near one often waits for it.
        gaze_shifts: times of large gaze shifts, which often come with a blink.
        rate: factor of the blink rate.
    """
    mean = BLINK_SECONDS / rate
    # a gamma variable of shape 5/2 is half a chi-square variable with five degrees of freedom
    gamma = 0.5 * torch.randn(int(4 * seconds / mean) + 8, 5, generator=generator).square().sum(dim=1)
    intervals = (gamma / _BLINK_SHAPE * mean).clamp_min(_SHORTEST_INTERVAL)
    start = uniform(0.0, mean, generator)
    times = (start + intervals.cumsum(0) - intervals[0]).tolist()
    moved = []
    for time in times:
        near = [p for p in (*pauses, *gaze_shifts) if abs(p - time) < 0.6]
        if near and happens(0.6, generator):
            time = min(near, key=lambda p: abs(p - time)) + 0.06
        if time < seconds and (not moved or time - moved[-1] > _SHORTEST_INTERVAL):
            moved.append(time)
    return moved


def blinks(times: list[float], count: int, generator: Generator) -> Tensor:
    """Closure of the lids at 100 Hz, 0 open to 1 closed, [count]."""
    clock = (torch.arange(count) + 0.5) / RATE
    closure = torch.zeros(count)
    for time in times:
        depth, pace = torch.rand(2, generator=generator).tolist()
        after = clock - time
        width = torch.where(after < 0, _CLOSING, _OPENING) * (0.85 + 0.3 * pace)
        # the lids stay shut for 40 ms, so that a frame of 25 per second shows it
        after = (after.abs() - 0.02).clamp_min(0.0)
        closure = torch.maximum(closure, (0.9 + 0.1 * depth) * torch.exp(-0.5 * (after / width) ** 2))
    return closure


def eye_in_head(target: Tensor, head: Tensor) -> Tensor:
    """Rotation of the eyes in the head that makes them look at `target`.

    Args:
        target: gaze in the camera's frame, (yaw, pitch) radians, [..., 2].
        head: (yaw, pitch, …) of the head, [..., >= 2].

    Returns:
        [..., 2], limited to ±30° and ±20°.
    """
    limit = target.new_tensor(MAX_EYE)
    return torch.maximum(torch.minimum(target - head[..., :2], limit), -limit)


def lids(eye: Tensor, closure: Tensor) -> Tensor:
    """Expression weights of the lids and the skin around the eyes.

    Args:
        eye: rotation in the head, (yaw, pitch) radians, [T, 2].
        closure: of a blink, [T].

    Returns:
        [T, 57].
    """
    weights = torch.zeros(len(eye), len(EXPRESSIONS))
    yaw, pitch = eye.unbind(-1)
    open_share = 1.0 - closure
    weights[:, list(weight_columns("eyeBlink"))] = closure[:, None]
    weights[:, list(weight_columns("eyeSquint"))] = 0.15 * closure[:, None]
    down = (_LID_PER_RADIAN * pitch.clamp_min(0.0) * open_share)[:, None]
    weights[:, list(weight_columns("eyeLookDown"))] = down
    weights[:, list(weight_columns("eyeLookUp"))] = (_LID_PER_RADIAN * (-pitch).clamp_min(0.0) * open_share)[:, None]
    # positive yaw looks to the picture's left, the person's right: the left eye turns in, the right one out
    inwards, outwards = weight_columns("eyeLookIn"), weight_columns("eyeLookOut")
    for column, turn in (
        (inwards[0], yaw), (outwards[1], yaw), (outwards[0], -yaw), (inwards[1], -yaw),
    ):  # fmt: skip
        weights[:, column] = _TURN_PER_RADIAN * turn.clamp_min(0.0)
    return weights.clamp(0.0, 1.0)
