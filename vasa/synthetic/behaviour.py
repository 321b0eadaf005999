"""What a talking person does: mouth, head, eyes, lids, brows and mood, drawn to fit a waveform.

This is our model of people, not a recording of people. Frame k shows the time (k + 1/2) / fps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..geometry import AVERAGE_LOG_SCALE, turn_about_neck
from ..latents import EMOTIONS, EXPRESSIONS
from .chance import happens, uniform
from .emotions import EMOTION_LIVELINESS, EMOTION_PITCH, EMOTION_SHAPES, MOUTH
from .eyes import blink_times, blinks, eye_in_head, fixations, lids
from .head_motion import move_head, wander
from .phones import Segment
from .prosody import RATE, Prosody, prosody, smooth
from .visemes import articulate, close_lips, named_weights

_SAMPLE_RATE = 16_000
_DEGREE = math.pi / 180.0
MAIN_GAZE = (20.0 * _DEGREE, 12.0 * _DEGREE)
DISTANCES = (0.8, 1.3)
_HEAD_SHARE = (0.3, 0.4)
_CHANGES = 0.25
"""Share of the clips whose main gaze, or distance, changes once."""
_BROWS = named_weights("browInnerUp .6 browOuterUp .8")
_IDLE = ("browInnerUp .25", "mouthSmile .12", "browDown .2", "eyeSquint .15")
_NEUTRAL_SHARE = 0.3
_MOUTH_WHILE_SPEAKING = 0.6
_PAUSE = 0.25


@dataclass(frozen=True)
class Behaviour:
    """A clip of T frames.

    Attributes:
        head_pose: [T, 6] (yaw, pitch, roll, t_x, t_y, log_s).
        dynamics: [T, 59], expression weights in [0, 1] and eye-in-head rotation (radians).
        emotion: weights over `vasa.latents.EMOTIONS`, sums to 1; neutral is what the others leave, [8].
        gaze: main direction in the camera's frame (yaw, pitch), radians, [T, 2]; short glances leave it.
        distance: head distance, 1 = average, [T, 1]; log_s follows it up to 1.5 % of sway.
        visemes: class of every frame, [T] int64.
        fps: frames per second.
    """

    head_pose: Tensor
    dynamics: Tensor
    emotion: Tensor
    gaze: Tensor
    distance: Tensor
    visemes: Tensor
    fps: float


def behave(
    waveform: Tensor,
    segments: Sequence[Segment],
    generator: Generator,
    *,
    fps: float = 25.0,
    emotion: Tensor | None = None,
    gaze: tuple[float, float] | None = None,
    distance: float | None = None,
    energy: float | None = None,
    articulation: float | None = None,
    said: Prosody | None = None,
) -> Behaviour:
    """Draw one of the many ways to say something.

    Args:
        waveform: [N] float32, 16 kHz.
        segments: its phones.
        generator: CPU generator; draws whatever is not given, and all movement.
        emotion: weights over `EMOTIONS`, [8]. Default: neutral in 30 %, else one emotion at 0.3 to 1.
        gaze: main direction in the camera's frame (yaw, pitch), radians; constant over the clip if given.
        distance: 1 = average; constant over the clip if given. Default: 0.8 to 1.3.
        energy: amount of head movement, 0.4 to 1.3.
        articulation: how widely the mouth opens, 0.85 to 1.5.
        said: prosody of the waveform, for who draws several clips of it. Default: found anew.

    Returns:
        ceil(N / 16000 · fps) frames.
    """
    num_frames = math.ceil(waveform.shape[0] / _SAMPLE_RATE * fps)
    count = math.ceil(num_frames / fps * RATE)
    said = _extend(prosody(waveform) if said is None else said, count)
    starts, stops = _pauses(segments)
    speaking = _speaking(segments, count)

    emotion = _draw_emotion(generator) if emotion is None else emotion.float()
    energy = uniform(0.4, 1.3, generator) if energy is None else energy
    energy *= float(emotion @ EMOTION_LIVELINESS)
    articulation = uniform(0.85, 1.5, generator) if articulation is None else articulation
    main = _main_gaze(gaze, count, generator)
    log_distance = _log_distance(distance, count, generator)

    head, glances = move_head(said, speaking, starts, energy, generator), fixations(count, generator)
    target = main + glances
    share = uniform(*_HEAD_SHARE, generator)
    turn = head.turn.clone()
    # the head follows the main direction partly, and glances a little and later
    turn[:, :2] += share * smooth(main, 0.2 * RATE) + 0.15 * smooth(_later(glances, 0.1), 0.2 * RATE)
    turn[:, :2] += torch.randn(2, generator=generator) * torch.tensor([2.0, 1.5]) * _DEGREE
    turn[:, 1] += emotion @ EMOTION_PITCH

    shifts = (torch.nonzero(glances.diff(dim=0).norm(dim=1) > 1.5 * _DEGREE)[:, 0] / RATE).tolist()
    closing = blink_times(num_frames / fps, stops, shifts, generator, rate=uniform(0.7, 1.4, generator))
    closure = _at_frames(blinks(closing, count, generator), num_frames, fps)
    turn_frames = _at_frames(turn, num_frames, fps)
    eye = eye_in_head(_at_frames(target, num_frames, fps), turn_frames)

    loud = _at_frames(smooth(said.loudness, 0.08 * RATE), num_frames, fps)
    weights = articulate(segments, num_frames, fps, articulation * (0.4 + 0.85 * loud), generator)
    speaking_frames = _at_frames(speaking, num_frames, fps)
    face = _mood(emotion, count, generator) + _brows(said, count, generator)
    face = _at_frames(face, num_frames, fps)
    face[:, MOUTH] *= (1.0 - (1.0 - _MOUTH_WHILE_SPEAKING) * speaking_frames)[:, None]
    face[:, EXPRESSIONS.index("eyeWide_L")] *= 1.0 - closure
    face[:, EXPRESSIONS.index("eyeWide_R")] *= 1.0 - closure
    weights = (weights + face + lids(eye, closure)).clamp(0.0, 1.0)
    weights = close_lips(weights, segments, fps)

    log_distance = _at_frames(log_distance, num_frames, fps)
    return Behaviour(
        head_pose=_pose(turn_frames, head.sway, head.approach, log_distance, num_frames, fps),
        dynamics=torch.cat([weights, eye], dim=1),
        emotion=emotion,
        gaze=_at_frames(main, num_frames, fps),
        distance=log_distance.exp()[:, None],
        visemes=visemes_of_frames(segments, num_frames, fps),
        fps=fps,
    )


def visemes_of_frames(segments: Sequence[Segment], num_frames: int, fps: float) -> Tensor:
    """Viseme class at every frame's time, silence outside the segments, [T] int64."""
    classes = torch.zeros(num_frames, dtype=torch.int64)
    times = (torch.arange(num_frames) + 0.5) / fps
    for segment in segments:
        classes[(times >= segment.start) & (times < segment.end)] = segment.viseme
    return classes


def _later(curve: Tensor, seconds: float) -> Tensor:
    """The curve delayed, its first value held, [n, c]."""
    steps = round(seconds * RATE)
    return torch.cat([curve[:1].expand(steps, -1), curve])[: len(curve)]


def _at_frames(curve: Tensor, num_frames: int, fps: float) -> Tensor:
    """Read a 100 Hz curve at the frames' times by linear interpolation, [n, …] -> [T, …]."""
    position = ((torch.arange(num_frames) + 0.5) / fps * RATE - 0.5).clamp(0, len(curve) - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(curve) - 1)
    part = (position - low).view(-1, *[1] * (curve.ndim - 1))
    return curve[low] + (curve[high] - curve[low]) * part


def _extend(said: Prosody, count: int) -> Prosody:
    """The same prosody, exactly `count` values long."""
    missing = count - len(said.loudness)
    if missing <= 0:
        return Prosody(said.loudness[:count], said.pitch[:count], said.voiced[:count], said.accents, said.strengths)
    loudness, pitch, voiced = (F.pad(c, (0, missing)) for c in (said.loudness, said.pitch, said.voiced))
    return Prosody(loudness, pitch, voiced, said.accents, said.strengths)


def _pauses(segments: Sequence[Segment]) -> tuple[list[float], list[float]]:
    """Times at which speech resumes, and stops, around silences of a quarter of a second."""
    silent = [s for s in segments if s.phone == "sil" and s.end - s.start > _PAUSE]
    return [s.end for s in silent], [s.start for s in silent]


def _speaking(segments: Sequence[Segment], count: int) -> Tensor:
    """1 in speech, 0 in pauses, with soft edges, [count]."""
    speaking = torch.zeros(count)
    for segment in segments:
        if segment.phone != "sil" or segment.end - segment.start < _PAUSE:
            speaking[int(segment.start * RATE) : int(segment.end * RATE) + 1] = 1.0
    return smooth(speaking, 0.15 * RATE)


def _draw_emotion(generator: Generator) -> Tensor:
    emotion = torch.zeros(len(EMOTIONS))
    if not happens(_NEUTRAL_SHARE, generator):
        kind = int(torch.randint(1, len(EMOTIONS), (1,), generator=generator))
        emotion[kind] = uniform(0.3, 1.0, generator)
    emotion[0] = 1.0 - emotion.sum()
    return emotion


def _main_gaze(gaze: tuple[float, float] | None, count: int, generator: Generator) -> Tensor:
    """Main direction at 100 Hz, [count, 2]: the camera in a third of the clips, one change in a quarter."""
    if gaze is not None:
        return torch.tensor(gaze, dtype=torch.float32).expand(count, 2).clone()
    directions = (2.0 * torch.rand(2, 2, generator=generator) - 1.0) * torch.tensor(MAIN_GAZE)
    straight, changes, when = torch.rand(3, generator=generator).tolist()
    if straight < 0.33:
        directions[0] = 0.0
    main = directions[0].expand(count, 2).clone()
    if changes < _CHANGES:
        main[int((0.2 + 0.6 * when) * count) :] = directions[1]
    return smooth(main, 0.02 * RATE)


def _log_distance(distance: float | None, count: int, generator: Generator) -> Tensor:
    """Logarithm of the distance at 100 Hz, [count]: constant, or one slow step in a quarter of the clips."""
    if distance is not None:
        return torch.full((count,), math.log(distance))
    low, high = (math.log(d) for d in DISTANCES)
    first, second = (low + (high - low) * torch.rand(2, generator=generator)).tolist()
    changes, when = torch.rand(2, generator=generator).tolist()
    curve = torch.full((count,), first)
    if changes < _CHANGES:
        curve[int((0.2 + 0.6 * when) * count) :] = second
    return smooth(curve, 0.4 * RATE)


def _mood(emotion: Tensor, count: int, generator: Generator) -> Tensor:
    """The emotion's face with a slowly varying intensity, plus small idle movements, [count, 57]."""
    intensity = (1.0 + wander(count, 1.5, 0.12, generator)).clamp(0.5, 1.4)
    face = (emotion @ EMOTION_SHAPES) * intensity
    idle = wander(count, 2.0, 0.5, generator, channels=len(_IDLE)).clamp_min(0.0)
    return face + idle @ torch.stack([named_weights(shape) for shape in _IDLE])


def _brows(said: Prosody, count: int, generator: Generator) -> Tensor:
    """Brows rise on some stressed syllables, [count, 57]."""
    gain = uniform(0.1, 0.5, generator)
    times = (torch.arange(count) + 0.5) / RATE
    rise = torch.zeros(count)
    for time, strength in zip(said.accents.tolist(), said.strengths.tolist(), strict=True):
        if happens(0.45, generator):
            rise += gain * strength * torch.exp(-0.5 * ((times - time) / 0.13) ** 2)
    return rise.clamp(max=1.0)[:, None] * _BROWS


def _pose(turn: Tensor, sway: Tensor, approach: Tensor, log_distance: Tensor, num_frames: int, fps: float) -> Tensor:
    """Turn a frontal head about its neck, [T, 6]; only the body's sway moves the neck."""
    still = torch.zeros(num_frames, 6)
    still[:, 3:5] = _at_frames(sway, num_frames, fps)
    still[:, 5] = AVERAGE_LOG_SCALE - log_distance + _at_frames(approach, num_frames, fps)
    return turn_about_neck(still, turn)
