"""Every control swept over several faces and clips: its effect in the decoded frames, and what else it moves.

Letters: `F` faces, `L` levels, `Q` quantities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..controls import Blink, Controls, HeadPose
from ..latents import DYNAMICS, EMOTIONS, EXPRESSIONS
from ..pipeline import Vasa
from ..synthetic.emotions import EMOTION_SHAPES, MOUTH
from .clips import RATE
from .controls import is_monotone, slope
from .motion_quality import blink_peaks
from .people import Talker, blink_of, read, watch

EVERY = 2
"""Every second frame is decoded and read; a blink lasts six."""
SETTLED = 6
"""Frames left out at the beginning: motion starts from nowhere."""
RENDERED = 6
"""True pictures are rendered of every sixth of these frames, too few to count blinks."""
SHOWN = EMOTIONS.index("surprised")
"""The emotion whose brows and lids show how strong an expression is."""
_EYE = DYNAMICS.index("eyeYaw")
_JAW = DYNAMICS.index("jawOpen")
Source = Literal["frames", "motion", "truth"]
"""Where a quantity is taken from: read off decoded frames, the motion itself, read off true pictures of that motion."""


@dataclass(frozen=True)
class Take:
    """What one clip shows, T frames at `fps`.

    Attributes:
        head_pose: [T, 6].
        dynamics: [T, 59].
        opening: of the mouth, [T]; the unit is that of the judge.
        shut: closure that stands for shut lids.
        fps: frames per second.
    """

    head_pose: Tensor
    dynamics: Tensor
    opening: Tensor
    shut: float
    fps: float


def _median_degrees(take: Take, column: int, with_eyes: bool) -> float:
    angle = take.head_pose[:, column]
    return float((angle + take.dynamics[:, _EYE + column] if with_eyes else angle).median().rad2deg())


def _movement(take: Take) -> float:
    return float(take.head_pose[:, :3].var(0).sum().sqrt().rad2deg())


def _blinks(take: Take) -> float:
    return 60 * take.fps * len(blink_peaks(blink_of(take.dynamics) / take.shut)) / len(take.dynamics)


def _expression(take: Take) -> float:
    return _projection(take, torch.where(MOUTH, 0.0, EMOTION_SHAPES[SHOWN]))


def _projection(take: Take, shape: Tensor) -> float:
    return float((take.dynamics[:, : len(EXPRESSIONS)] @ shape).mean() / shape.square().sum())


def _mouth(take: Take) -> float:
    low, high = take.opening.quantile(torch.tensor([0.05, 0.95]))
    return float(high - low)


QUANTITIES: dict[str, Callable[[Take], float]] = {
    "gaze yaw": lambda take: _median_degrees(take, 0, True),
    "gaze pitch": lambda take: _median_degrees(take, 1, True),
    "distance": lambda take: -float(take.head_pose[:, 5].mean()),
    "head yaw": lambda take: _median_degrees(take, 0, False),
    "head pitch": lambda take: _median_degrees(take, 1, False),
    "head roll": lambda take: _median_degrees(take, 2, False),
    "head movement": _movement,
    "blinks": _blinks,
    "expression": _expression,
    "mouth": _mouth,
    **{
        name: (lambda take, shape=EMOTION_SHAPES[number]: _projection(take, shape))
        for number, name in enumerate(EMOTIONS)
        if number
    },
}
"""What is read off a clip: angles in degrees, logarithm of the distance, blinks a minute, weights."""


@dataclass(frozen=True)
class Lever:
    """A control and how it is swept.

    Attributes:
        name: of the control.
        quantity: what it should move, one of `QUANTITIES`.
        levels: what is asked for.
        setting: controls for a level.
        requested: what the quantity should be for a level, up to an offset; in its own unit.
        relative: the quantity is measured in units of its mean at level 1.
    """

    name: str
    quantity: str
    levels: tuple[float, ...]
    setting: Callable[[float], Controls]
    requested: Callable[[float], float] = float
    relative: bool = False


@dataclass(frozen=True)
class Response:
    """What a control did.

    Attributes:
        lever: the control.
        requested: [L].
        measured: off the decoded frames, [F, L, Q].
        generated: the same off the motion, [F, L, Q].
        rendered: the same off true pictures of that motion, [F, L, Q], NaN for blinks; None where none were rendered.
    """

    lever: Lever
    requested: Tensor
    measured: Tensor
    generated: Tensor
    rendered: Tensor | None = None

    def answers(self, source: Source) -> Tensor:
        """All quantities, [F, L, Q].

        Raises:
            ValueError: true pictures, where none were rendered.
        """
        found = {"frames": self.measured, "motion": self.generated, "truth": self.rendered}[source]
        if found is None:
            raise ValueError("no true pictures were rendered")
        return found

    def curve(self, source: Source = "frames") -> Tensor:
        """The control's own quantity, in units of `requested`, [F, L]."""
        answers = self.answers(source)[..., list(QUANTITIES).index(self.lever.quantity)]
        if not self.lever.relative:
            return answers
        return answers / answers[:, self.lever.levels.index(1.0)].mean().abs().clamp_min(1e-9)

    def slope(self, source: Source = "frames") -> float:
        """Answer per request, 1 is exact."""
        return slope(self.requested, self.curve(source))

    @property
    def monotone(self) -> bool:
        """Whether the mean over the faces rises from level to level."""
        return is_monotone(self.curve())

    def effects(self, source: Source = "frames") -> Tensor:
        """Change of every quantity from the first level to the last along the fitted line, [Q]."""
        span = self.requested[-1] - self.requested[0]
        columns = self.answers(source).unbind(-1)
        return torch.tensor([slope(self.requested, column) for column in columns]) * span


def levers(base: Controls) -> list[Lever]:
    """Every control, with the levels it is swept over; all else as in `base`."""

    def turned(axis: int) -> Callable[[float], Controls]:
        return lambda degrees: replace(base, head_pose=HeadPose(_on_axis(axis, degrees, 3)))

    def looking(axis: int) -> Callable[[float], Controls]:
        return lambda degrees: replace(base, gaze=_on_axis(axis, degrees, 2))

    surprised = replace(base, emotion={EMOTIONS[SHOWN]: 0.5})
    factors = (0.0, 0.5, 1.0, 1.5)
    return [
        Lever("gaze, yaw", "gaze yaw", (-20.0, -10.0, 0.0, 10.0, 20.0), looking(0)),
        Lever("gaze, pitch", "gaze pitch", (-12.0, -6.0, 0.0, 6.0, 12.0), looking(1)),
        Lever("distance", "distance", (0.8, 0.9, 1.0, 1.15, 1.3), lambda d: replace(base, distance=d), math.log),
        Lever("head pose, yaw", "head yaw", (-30.0, -15.0, 0.0, 15.0, 30.0), turned(0)),
        Lever("head pose, pitch", "head pitch", (-20.0, -10.0, 0.0, 10.0, 20.0), turned(1)),
        Lever("head pose, roll", "head roll", (-20.0, -10.0, 0.0, 10.0, 20.0), turned(2)),
        Lever(
            "head amplitude", "head movement", (0.0, 0.5, 1.0, 1.5, 2.0),
            lambda factor: replace(base, head_pose=HeadPose(amplitude=factor)), relative=True,
        ),
        Lever("blink rate", "blinks", (0.0, 15.0, 30.0, 45.0), lambda rate: replace(base, blink=Blink(rate))),
        Lever(
            "expression", "expression", factors, lambda factor: replace(surprised, expression=factor), relative=True,
        ),
        Lever("mouth", "mouth", factors, lambda factor: replace(base, mouth=factor), relative=True),
        *(
            Lever(f"emotion, {name}", name, (0.0, 0.5, 1.0), lambda w, name=name: replace(base, emotion={name: w}))
            for name in EMOTIONS[1:]
        ),
    ]  # fmt: skip


def study(
    pipe: Vasa,
    talkers: Sequence[Talker],
    speech: Sequence[Tensor],
    base: Controls,
    names: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    against_truth: bool = False,
) -> list[Response]:
    """Sweep the controls.

    Args:
        pipe: the model.
        talkers: F faces.
        speech: what each of them says, [N] at 16 kHz.
        base: all other controls; every level has the same seed.
        names: only these levers; default all.
        progress: progress(stage, done, total), counting clips.
        against_truth: also render the motions truly and read these pictures.
    """
    chosen = [lever for lever in levers(base) if names is None or lever.name in names]
    total, done = sum(len(lever.levels) for lever in chosen) * len(talkers), 0
    kept: dict[tuple[int, str], Tensor] = {}
    found = []
    for lever in chosen:
        rows = []
        for face, (talker, waveform) in enumerate(zip(talkers, speech, strict=True)):
            for level in lever.levels:
                controls = lever.setting(level)
                key = face, str(controls.to_json())
                if key not in kept:
                    kept[key] = _performed(pipe, talker, waveform, controls, against_truth)
                rows.append(kept[key])
                done += 1
                if progress is not None:
                    progress("controls", done, total)
        answers = torch.stack(rows).unflatten(0, (len(talkers), len(lever.levels)))
        requested = torch.tensor([lever.requested(level) for level in lever.levels])
        found.append(Response(lever, requested, *answers.unbind(2)))
    return found


def _performed(pipe: Vasa, talker: Talker, waveform: Tensor, controls: Controls, against_truth: bool) -> Tensor:
    """All quantities of one clip, off the decoded frames, off the motion, and off true pictures, [2 or 3, Q]."""
    motion = pipe.generate(waveform, talker.face, controls)[slice(SETTLED, None, EVERY)]
    fps = pipe.fps / EVERY
    shut = max(talker.lids_closed, 0.1)
    seen = watch(pipe, talker.face, motion)
    jaw = motion.facial_dynamics[:, _JAW]
    takes = [
        Take(seen.head_pose, seen.dynamics, seen.mouth_opening, shut, fps),
        Take(motion.head_pose, motion.facial_dynamics, jaw, 1.0, fps),
    ]
    if against_truth:
        some = motion[slice(None, None, RENDERED)]
        true = read(pipe, talker.truth(some.head_pose, some.facial_dynamics))
        takes.append(Take(true.head_pose, true.dynamics, true.mouth_opening, shut, fps / RENDERED))
    answers = torch.tensor([[take_off(take) for take_off in QUANTITIES.values()] for take in takes])
    answers[2:, list(QUANTITIES).index("blinks")] = math.nan
    return answers


def _on_axis(axis: int, degrees: float, axes: int) -> tuple[float, ...]:
    return tuple(math.radians(degrees) if i == axis else 0.0 for i in range(axes))


def clip_of(waveform: Tensor, seconds: float) -> Tensor:
    """The beginning of a sound, repeated where it is too short, [seconds * 16000]."""
    count = round(seconds * RATE)
    return waveform.repeat(math.ceil(count / len(waveform)))[:count]
