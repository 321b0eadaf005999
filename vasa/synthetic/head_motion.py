"""How a head moves while its owner talks: drift, nods on accents, new postures after pauses, sway."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .chance import happens, uniform
from .prosody import RATE, Prosody, smooth

_DEGREE = math.pi / 180.0
_SMOOTH_SECONDS = 0.1
_DRIFT = {"yaw": (1.3, 5.0), "pitch": (0.9, 3.0), "roll": (1.2, 2.0)}
"""Time constant (s) and standard deviation (degrees) of the slow wandering."""
_POSTURE_DEGREES = (3.0, 1.6, 1.4)
_POSTURE_SECONDS = 0.2
_NOD_DEGREES = 3.0
_NOD_SECONDS = 0.1
_NOD_DELAY = 0.04
_SWAY = (2.0, 0.012)
_APPROACH = (3.0, 0.015)
_STILL_SHARE = 0.55
"""Share of the drift that remains while nobody speaks."""


@dataclass(frozen=True)
class HeadMotion:
    """Movement about the mean posture at 100 Hz.

    Attributes:
        turn: (yaw, pitch, roll) radians, [n, 3].
        sway: picture-plane drift of the body, unit-cube lengths, [n, 2].
        approach: change of log s, [n].
    """

    turn: Tensor
    sway: Tensor
    approach: Tensor


def wander(count: int, tau: float, sigma: float, generator: Generator, channels: int = 1) -> Tensor:
    """Ornstein-Uhlenbeck noise at 100 Hz without its jitter (nothing of note above 4 Hz), [count, channels].

    Args:
        tau: time constant, seconds.
        sigma: standard deviation.
    """
    decay = math.exp(-1.0 / (tau * RATE))
    # the noise is filtered as a convolution, long enough for the memory to fade
    memory = int(5 * tau * RATE)
    noise = torch.randn(count + memory, channels, generator=generator) * sigma * math.sqrt(1.0 - decay**2)
    kernel = decay ** torch.arange(memory, -1, -1.0)
    drift = torch.nn.functional.conv1d(noise.T[:, None], kernel[None, None])[:, 0].T
    return smooth(drift, _SMOOTH_SECONDS * RATE)


def move_head(said: Prosody, speaking: Tensor, pauses: list[float], energy: float, generator: Generator) -> HeadMotion:
    """Draw the head movement of one clip.

    Args:
        said: prosody at 100 Hz, n values.
        speaking: 1 while speech goes on, 0 in pauses, smoothed, [n].
        pauses: times (s) at which speech resumes after a pause.
        energy: 0.4 (hardly moves) to 1.3 (lively).
        generator: draws everything else.
    """
    count = len(speaking)
    drift = torch.cat(
        [wander(count, tau, energy * degrees * _DEGREE, generator) for tau, degrees in _DRIFT.values()], dim=1
    )
    coupling = 0.25 * float(torch.randn((), generator=generator))
    drift[:, 2] += coupling * drift[:, 0]
    drift *= (_STILL_SHARE + (1.0 - _STILL_SHARE) * speaking)[:, None]
    turn = drift + _postures(count, pauses, energy, generator) + _nods(said, count, energy, generator)
    sway = wander(count, *_SWAY, generator, channels=2) * torch.tensor([1.0, 0.6])
    return HeadMotion(turn, sway, wander(count, *_APPROACH, generator)[:, 0])


def _postures(count: int, pauses: list[float], energy: float, generator: Generator) -> Tensor:
    """A new mean posture now and then when speech resumes, [n, 3]."""
    scale = torch.tensor(_POSTURE_DEGREES) * _DEGREE * energy
    steps = torch.zeros(count, 3)
    steps[:] = scale * torch.randn(3, generator=generator)
    for time in pauses:
        draw = torch.randn(3, generator=generator)
        if happens(0.6, generator):
            steps[max(0, int((time - 0.1) * RATE)) :] = scale * draw
    return smooth(steps, _POSTURE_SECONDS * RATE)


def _nods(said: Prosody, count: int, energy: float, generator: Generator) -> Tensor:
    """Strokes on stressed syllables: mostly down, sometimes sideways, after a small lift, [n, 3]."""
    gain = energy * uniform(0.3, 1.3, generator) * _NOD_DEGREES * _DEGREE
    times = (torch.arange(count) + 0.5) / RATE
    turn = torch.zeros(count, 3)
    for time, strength in zip(said.accents.tolist(), said.strengths.tolist(), strict=True):
        taken, kind, side = torch.rand(3, generator=generator).tolist()
        if taken > 0.7:
            continue
        direction = torch.tensor([0.0, 1.0, 0.0])
        if kind < 0.12:
            direction = torch.tensor([0.8 if side < 0.5 else -0.8, 0.2, 0.0])
        elif kind < 0.22:
            direction = torch.tensor([0.0, 0.4, 0.7 if side < 0.5 else -0.7])
        peak = time + _NOD_DELAY
        stroke = torch.exp(-0.5 * ((times - peak) / _NOD_SECONDS) ** 2)
        lift = torch.exp(-0.5 * ((times - peak + 0.28) / (1.2 * _NOD_SECONDS)) ** 2)
        turn += gain * strength * (stroke - 0.35 * lift)[:, None] * direction
    return turn
