"""Does the face do what the controls ask? Sweeps of gaze, distance and emotion, read off decoded frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..controls import Controls
from ..face.reader import Reading
from ..latents import DYNAMICS, EMOTIONS, Motion
from ..pipeline import Vasa
from ..synthetic.emotions import EMOTION_SHAPES
from .clips import RATE, Spoken
from .people import Talker, read, watch

YAWS_DEGREES = (-20.0, -10.0, 0.0, 10.0, 20.0)
PITCHES_DEGREES = (-12.0, -6.0, 0.0, 6.0, 12.0)
DISTANCES = (0.8, 0.9, 1.0, 1.15, 1.3)
EMOTION_WEIGHTS = (0.0, 0.5, 1.0)
_EVERY = 4
_SETTLED = 6
"""The first frames are left out: motion starts from nowhere."""
_LEAST_SEEN = 0.3
_EYE = DYNAMICS.index("eyeYaw")


@dataclass(frozen=True)
class Sweep:
    """The answers to a control that was swept, for several faces.

    Attributes:
        requested: [levels].
        measured: read off decoded frames, [faces, levels].
        generated: the same taken from the motion itself, [faces, levels].
        rendered: the same read off true pictures of that motion, [faces, levels]; None where they were not asked for.
    """

    requested: Tensor
    measured: Tensor
    generated: Tensor
    rendered: Tensor | None = None

    @property
    def slope(self) -> float:
        """Answer per request in the decoded frames, over what the reader makes of a slope in true pictures.

        A reader that hardly sees the quantity in those either cannot be corrected; its own word counts then.
        """
        raw = slope(self.requested, self.measured)
        if self.rendered is None:
            return raw
        true, made = (slope(self.requested, answers) for answers in (self.rendered, self.generated))
        return raw * made / true if true > _LEAST_SEEN * made > 0 else raw


def slope(requested: Tensor, measured: Tensor) -> float:
    """Least-squares slope, every face with an offset of its own, [levels] and [faces, levels]."""
    x = requested - requested.mean()
    y = measured - measured.mean(1, keepdim=True)
    return float((y * x).sum() / (x.square().sum() * len(y)))


def is_monotone(measured: Tensor) -> bool:
    """Whether the mean over the faces rises at every step, [faces, levels]."""
    return bool((measured.mean(0).diff() > 0).all())


def sweep(
    pipe: Vasa, talkers: Sequence[Talker], speech: Sequence[Spoken], settings: Sequence[Controls],
    requested: Tensor, answer: Callable[[Tensor, Tensor], Tensor], against_truth: bool = False,
) -> Sweep:  # fmt: skip
    """Let every talker say the same under every setting.

    Args:
        pipe: the model.
        talkers: faces.
        speech: what each of them says.
        settings: controls, one per level.
        requested: what `answer` should give, [levels].
        answer: (head_pose [n, 6], dynamics [n, 59]) of the frames of a clip -> the quantity, a scalar.
        against_truth: also render the motions truly and read these pictures.
    """
    measured, generated, rendered = [], [], []
    for talker, spoken in zip(talkers, speech, strict=True):
        takes = [perform(pipe, talker, spoken, controls) for controls in settings]
        measured.append(torch.stack([answer(seen.head_pose, seen.dynamics) for _, seen in takes]))
        generated.append(torch.stack([answer(motion.head_pose, motion.facial_dynamics) for motion, _ in takes]))
        if against_truth:
            true = [read(pipe, talker.truth(motion.head_pose, motion.facial_dynamics)) for motion, _ in takes]
            rendered.append(torch.stack([answer(seen.head_pose, seen.dynamics) for seen in true]))
    columns = (torch.stack(column) for column in (measured, generated))
    return Sweep(requested, *columns, torch.stack(rendered) if rendered else None)


def perform(pipe: Vasa, talker: Talker, spoken: Spoken, controls: Controls) -> tuple[Motion, Reading]:
    """One window of motion, and what is read off every fourth of its frames."""
    samples = round(pipe.config.motion.window / pipe.fps * RATE)
    motion = pipe.generate(spoken.waveform[:samples], talker.face, controls)
    some = motion[slice(_SETTLED, None, _EVERY)]
    return some, watch(pipe, talker.face, some)


def gaze_sweep(pipe: Vasa, talkers: Sequence[Talker], speech: Sequence[Spoken], axis: int, seed: int) -> Sweep:
    """Gaze in the camera's frame, head and eyes together; median, since glances leave the main direction.

    Args:
        pipe, talkers, speech: as for `sweep`.
        axis: 0 yaw, 1 pitch.
        seed: of the motion, the same at every level.
    """
    levels = [math.radians(degrees) for degrees in (YAWS_DEGREES, PITCHES_DEGREES)[axis]]
    settings = [Controls(gaze=(level, 0.0) if axis == 0 else (0.0, level), seed=seed) for level in levels]

    def answer(head_pose: Tensor, dynamics: Tensor) -> Tensor:
        return (head_pose[:, axis] + dynamics[:, _EYE + axis]).median()

    return sweep(pipe, talkers, speech, settings, torch.tensor(levels), answer, against_truth=True)


def distance_sweep(pipe: Vasa, talkers: Sequence[Talker], speech: Sequence[Spoken], seed: int) -> Sweep:
    """Logarithm of the distance, which is that of the scale with the other sign."""
    settings = [Controls(distance=distance, seed=seed) for distance in DISTANCES]

    def answer(head_pose: Tensor, _: Tensor) -> Tensor:
        return -head_pose[:, 5].mean()

    return sweep(pipe, talkers, speech, settings, torch.tensor(DISTANCES).log(), answer)


def emotion_sweep(pipe: Vasa, talkers: Sequence[Talker], speech: Sequence[Spoken], emotion: int, seed: int) -> Sweep:
    """How strongly an emotion's shape shows: the expression's projection on it, 1 at full intensity."""
    shape = EMOTION_SHAPES[emotion] / EMOTION_SHAPES[emotion].square().sum()
    settings = [Controls(emotion={EMOTIONS[emotion]: weight}, seed=seed) for weight in EMOTION_WEIGHTS]

    def answer(_: Tensor, dynamics: Tensor) -> Tensor:
        return (dynamics[:, : len(shape)] @ shape).mean()

    return sweep(pipe, talkers, speech, settings, torch.tensor(EMOTION_WEIGHTS), answer, against_truth=True)


def name_emotions(
    pipe: Vasa, talkers: Sequence[Talker], speech: Sequence[Spoken], seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Which emotion the reader names in clips at full weight.

    The name is that of the largest mean log-probability over the clip's frames.

    Returns:
        Asked for -> for every talker the names off decoded frames and off true pictures of the same motion.
    """
    named: dict[str, list[tuple[str, str]]] = {}
    for emotion in EMOTIONS:
        for number, (talker, spoken) in enumerate(zip(talkers, speech, strict=True)):
            controls = Controls(emotion={emotion: 1.0}, seed=seed + number)
            motion, seen = perform(pipe, talker, spoken, controls)
            true = read(pipe, talker.truth(motion.head_pose, motion.facial_dynamics))
            names = (EMOTIONS[int(reading.emotion.mean(0).argmax())] for reading in (seen, true))
            named.setdefault(emotion, []).append(tuple(names))
    return named
