"""What the user asks for, one object everywhere: Python, JSON, command line, nodes, app, the video's metadata.

Angles are radians here and degrees in JSON (`vasa/controls.schema.json`, docs/controls.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .blinks import blink_times, closure
from .errors import InputError
from .latents import EMOTIONS
from .timeline import MAX_TIME, Key, Track, checked, is_number, number

__all__ = ["Blink", "ControlCurves", "Controls", "HeadPose", "Key", "Track"]

SAMPLERS: tuple[str, ...] = ("ddim", "dpm++")
GUIDED: tuple[str, ...] = ("audio", "gaze", "distance", "emotion")
"""Conditions that can be guided."""
ANGLES: dict[str, dict[str, float]] = {
    "gaze": {"yaw": 30.0, "pitch": 30.0},
    "head_pose.offset": {"yaw": 30.0, "pitch": 20.0, "roll": 20.0},
}
"""Largest angles to either side, degrees."""
RANGES: dict[str, tuple[float, float]] = {
    "distance": (0.5, 2.0),
    "emotion": (0.0, 1.0),
    "head_pose.amplitude": (0.0, 2.0),
    "blink.rate": (0.0, 60.0),
    "blink.at": (0.0, MAX_TIME),
    "expression": (0.0, 2.0),
    "mouth": (0.0, 2.0),
    "guidance": (0.0, 5.0),
    "steps": (1, 1000),
    "seed": (0, 2**63 - 1),
}

Angles2 = tuple[float, float]
Angles3 = tuple[float, float, float]


@dataclass(frozen=True)
class HeadPose:
    """How the head moves beyond what the generator makes of the speech.

    Attributes:
        offset: turn (yaw, pitch, roll) that is added, radians, within ±30°, ±20°, ±20°; constant or `Track`.
        amplitude: factor of the movement about the portrait's resting pose, 0 (still) .. 2; constant or `Track`.
    """

    offset: Angles3 | Track = (0.0, 0.0, 0.0)
    amplitude: float | Track = 1.0

    def __post_init__(self) -> None:
        _keep(self, offset=checked("head_pose.offset", self.offset, _angles_of("head_pose.offset")))
        _keep(self, amplitude=checked("head_pose.amplitude", self.amplitude, _number_of("head_pose.amplitude")))


@dataclass(frozen=True)
class Blink:
    """When the lids close.

    Attributes:
        rate: blinks a minute, 0 .. 60, in place of the generator's own; None: as generated.
        at: instants at which the lids are shut in any case, seconds, ascending.
    """

    rate: float | None = None
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rate is not None:
            _keep(self, rate=_number_of("blink.rate", " a minute")("blink.rate", self.rate))
        if isinstance(self.at, str) or not hasattr(self.at, "__iter__"):
            raise InputError(f"blink.at must be a list of times in seconds, got {self.at!r}")
        times = tuple(_number_of("blink.at", " seconds")("a time of blink.at", time) for time in self.at)
        for before, after in zip(times, times[1:], strict=False):
            if after <= before:
                raise InputError(f"blink.at must be in ascending time, but {after:g} s follows {before:g} s")
        _keep(self, at=times)


@dataclass(frozen=True)
class Controls:
    """Control signals of a clip. What says "constant or `Track`" may change over time.

    Attributes:
        gaze: main gaze direction (yaw, pitch) in radians, in the camera's frame, within ±30°; positive yaw looks to
            the left of the picture, positive pitch down. Default: into the camera. Constant or `Track`.
        distance: head distance, 1 = as in the portrait, 0.5 .. 2. Constant or `Track`.
        emotion: weight per name of `vasa.latents.EMOTIONS`, 0 .. 1. Default: neutral. Constant or `Track` of dicts.
        guidance: guidance scale per condition (VASA-1, Eq. 2), 0 .. 5. Paper: audio 0.5, gaze 1.0;
            audio 0.2 is the default, see docs/decisions.md.
        steps: denoising steps per window, 1 .. 1000.
        seed: random seed.
        head_pose: `HeadPose`.
        blink: `Blink`.
        expression: factor of the expressions beside the mouth, 0 .. 2. Constant or `Track`.
        mouth: factor of the mouth's movement, 0 .. 2. Constant or `Track`.
        sampler: "ddim" or "dpm++", which comes closer in few steps.

    Raises:
        InputError: a value out of range, of another type, not finite, or an unknown name; names the control, in a
            track the time, and the range.
    """

    gaze: Angles2 | Track = (0.0, 0.0)
    distance: float | Track = 1.0
    emotion: dict[str, float] | Track = field(default_factory=dict)
    guidance: dict[str, float] = field(default_factory=lambda: {"audio": 0.2, "gaze": 1.0})
    steps: int = 25
    seed: int = 0
    head_pose: HeadPose = field(default_factory=HeadPose)
    blink: Blink = field(default_factory=Blink)
    expression: float | Track = 1.0
    mouth: float | Track = 1.0
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        for name, check in (
            ("gaze", _angles_of("gaze")), ("distance", _number_of("distance")), ("emotion", _weights),
            ("expression", _number_of("expression")), ("mouth", _number_of("mouth")),
        ):  # fmt: skip
            _keep(self, **{name: checked(name, getattr(self, name), check)})
        for name, kind in (("head_pose", HeadPose), ("blink", Blink)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"{name} must be a {kind.__name__}, got {getattr(self, name)!r}")
        _keep(self, guidance=_named("guidance", self.guidance, GUIDED, RANGES["guidance"]))
        for name in ("steps", "seed"):
            value, (low, high) = getattr(self, name), RANGES[name]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
        if self.sampler not in SAMPLERS:
            raise InputError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")

    @classmethod
    def from_json(cls, source: str | bytes | dict[str, Any]) -> Controls:
        """Read the JSON of docs/controls.md.

        Raises:
            InputError: broken JSON, an unknown key, or a value the controls refuse.
        """
        from .controls_json import parse

        return parse(source)

    @classmethod
    def from_file(cls, path: str | Path) -> Controls:
        """Read a JSON file.

        Raises:
            InputError: as for `from_json`, naming the file; or no such file.
        """
        from .controls_json import read_file

        return read_file(Path(path))

    def to_json(self) -> dict[str, Any]:
        """Every control, as `from_json` reads it: plain lists, dicts and numbers, angles in degrees."""
        from .controls_json import written

        return written(self)

    def curves(self, num_frames: int, fps: float = 25.0, start: int = 0) -> ControlCurves:
        """The controls as one value per frame.

        Frame k has the values of time k / fps, whatever stretch is asked for: pieces equal the whole.

        Args:
            num_frames: T.
            fps: frames per second.
            start: index of the first frame.
        """
        times = torch.arange(start, start + num_frames, dtype=torch.float64) / fps
        weights = _sampled(self.emotion, times, lambda named: [named.get(name, 0.0) for name in EMOTIONS])
        others = weights[:, 1:].sum(1)
        neutral = torch.where(others + weights[:, 0] == 0, torch.ones(()), torch.maximum(weights[:, 0], 1 - others))
        weights = torch.cat([neutral[:, None], weights[:, 1:]], dim=1)
        end = (start + num_frames) / fps + 1
        shut = [time for time in self.blink.at if start / fps - 1 <= time < end]
        if self.blink.rate is not None:
            shut += blink_times(self.blink.rate, self.seed, max(0.0, start / fps - 1), end)
        return ControlCurves(
            gaze=_sampled(self.gaze, times, list),
            distance=_sampled(self.distance, times, _alone).log(),
            emotion=weights / weights.sum(1, keepdim=True),
            given={},
            head_offset=_sampled(self.head_pose.offset, times, list),
            head_amplitude=_sampled(self.head_pose.amplitude, times, _alone),
            expression=_sampled(self.expression, times, _alone),
            mouth=_sampled(self.mouth, times, _alone),
            closure=closure(shut, num_frames, fps, start)[:, None],
            own_blinks=torch.full((num_frames, 1), float(self.blink.rate is None)),
        )


@dataclass(frozen=True)
class ControlCurves:
    """Controls per frame: what conditions the generator, and what `vasa.motion.shape.shape` does to its motion.

    Attributes:
        gaze: radians, [T, 2].
        distance: natural logarithm, [T, 1].
        emotion: sums to 1, [T, 8].
        given: condition name -> False where the condition is withheld altogether.
        head_offset: (yaw, pitch, roll) to add, radians, [T, 3].
        head_amplitude: factor of the head's movement, [T, 1].
        expression, mouth: factors, [T, 1].
        closure: how far the lids are closed by drawn and forced blinks, 0 .. 1, [T, 1].
        own_blinks: 1 where the generated blinks stay, 0 where only `closure` counts, [T, 1].
    """

    gaze: Tensor
    distance: Tensor
    emotion: Tensor
    given: dict[str, bool]
    head_offset: Tensor
    head_amplitude: Tensor
    expression: Tensor
    mouth: Tensor
    closure: Tensor
    own_blinks: Tensor

    def __len__(self) -> int:
        return self.gaze.shape[0]


def _keep(owner: object, **values: Any) -> None:
    """Set attributes of a frozen dataclass that is being made."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


def _sampled(value: Any, times: Tensor, numbers_of: Any) -> Tensor:
    track = value if isinstance(value, Track) else Track((Key(0.0, value),))
    return track.sample(times, numbers_of)


def _alone(value: float) -> list[float]:
    return [value]


def _number_of(name: str, unit: str = ""):
    return lambda where, value: number(where, value, *RANGES[name], unit)


def _angles_of(name: str):
    limits = ANGLES[name]

    def check(where: str, value: Any) -> tuple[float, ...]:
        if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != len(limits):
            raise InputError(f"{where} must be {len(limits)} angles ({', '.join(limits)}), got {value!r}")
        for (axis, limit), angle in zip(limits.items(), value, strict=True):
            degrees = math.degrees(angle) if is_number(angle) else angle
            number(f"{where}: {axis}", degrees, -limit, limit, "°")
        return tuple(float(angle) for angle in value)

    return check


def _weights(where: str, value: Any) -> dict[str, float]:
    return _named(where, value, EMOTIONS, RANGES["emotion"])


def _named(where: str, value: Any, names: tuple[str, ...], limits: tuple[float, float]) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be weights by name, one of {', '.join(names)}, got {value!r}")
    for name in value:
        if name not in names:
            raise InputError(f"{where} has the unknown name {name!r}; choose among {', '.join(names)}")
    return {name: number(f"{where}: {name}", weight, *limits) for name, weight in value.items()}
