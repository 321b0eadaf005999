"""What the user asks for, one object everywhere: gaze, distance, emotion, guidance, steps, seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import InputError
from .latents import EMOTIONS

MAX_GAZE = 0.6
"""Largest gaze angle, radians (about 34 degrees)."""
DISTANCES = (0.5, 2.0)


@dataclass(frozen=True)
class Controls:
    """Control signals of a clip.

    Attributes:
        gaze: main gaze direction (yaw, pitch) in radians, in the camera's frame; positive yaw looks to the left of
            the picture, positive pitch down. Default: into the camera.
        distance: head distance, 1 = as in the portrait, 0.5 .. 2. Default 1.
        emotion: weight per name of `vasa.latents.EMOTIONS`, 0 .. 1. Default: neutral.
        guidance: guidance scale per condition (VASA-1, Eq. 2), 0 .. 5. Paper: audio 0.5, gaze 1.0.
        blinks: mean number of blinks a minute that are laid over the motion, 0 .. 60; default 0: as generated.
        steps: denoising steps per window.
        seed: random seed.

    Raises:
        InputError: a value out of range or an unknown name.
    """

    gaze: tuple[float, float] = (0.0, 0.0)
    distance: float = 1.0
    emotion: dict[str, float] = field(default_factory=dict)
    guidance: dict[str, float] = field(default_factory=lambda: {"audio": 0.5, "gaze": 1.0})
    blinks: float = 0.0
    steps: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.gaze) != 2 or not all(abs(float(g)) <= MAX_GAZE for g in self.gaze):
            raise InputError(f"gaze must be two angles within ±{MAX_GAZE:.1f} rad (±34 degrees), got {self.gaze}")
        if not DISTANCES[0] <= float(self.distance) <= DISTANCES[1]:
            raise InputError(f"distance must be between {DISTANCES[0]} and {DISTANCES[1]}, got {self.distance}")
        for name, weight in self.emotion.items():
            if name not in EMOTIONS:
                raise InputError(f"unknown emotion {name!r}; choose among {', '.join(EMOTIONS)}")
            if not 0 <= float(weight) <= 1:
                raise InputError(f"emotion {name} must be between 0 and 1, got {weight}")
        for name, scale in self.guidance.items():
            if name not in ("audio", "gaze", "distance", "emotion"):
                raise InputError(f"unknown guidance {name!r}; choose among audio, gaze, distance, emotion")
            if not 0 <= float(scale) <= 5:
                raise InputError(f"guidance {name} must be between 0 and 5, got {scale}")
        if not 0 <= float(self.blinks) <= 60:
            raise InputError(f"blinks must be between 0 and 60 a minute, got {self.blinks}")
        if not 1 <= int(self.steps) <= 1000:
            raise InputError(f"steps must be between 1 and 1000, got {self.steps}")

    def curves(self, num_frames: int) -> ControlCurves:
        """The controls as one value per frame."""
        weights = torch.tensor([float(self.emotion.get(name, 0.0)) for name in EMOTIONS])
        if weights.sum() == 0:
            weights[0] = 1.0
        weights[0] = max(float(weights[0]), 1.0 - float(weights[1:].sum()))
        return ControlCurves(
            gaze=torch.tensor(self.gaze, dtype=torch.float32).expand(num_frames, 2),
            distance=torch.tensor([float(self.distance)]).log().expand(num_frames, 1),
            emotion=(weights / weights.sum()).expand(num_frames, len(EMOTIONS)),
            given={},
        )


@dataclass(frozen=True)
class ControlCurves:
    """Per-frame conditions.

    Attributes:
        gaze: [T, 2] radians.
        distance: natural logarithm, [T, 1].
        emotion: [T, 8], sums to 1.
        given: condition name -> False where the condition is withheld altogether.
    """

    gaze: Tensor
    distance: Tensor
    emotion: Tensor
    given: dict[str, bool]

    def at(self, curve: Tensor, frames: slice) -> Tensor:
        """A stretch of a curve, [1, L, C]; beyond its end the last value holds."""
        index = torch.arange(frames.start, frames.stop).clamp(0, curve.shape[0] - 1)
        return curve[index.to(curve.device)][None]
