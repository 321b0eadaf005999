"""Random poses and faces of one person: pictures to learn a face from, not a clip."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..geometry import AVERAGE_LOG_SCALE, turn_about_neck
from ..latents import EXPRESSIONS
from .chance import choose, happens, uniform
from .complexion import pick
from .emotions import EMOTION_SHAPES, sample_emotion
from .eyes import lids
from .person import FrameLabels
from .visemes import VISEME_SHAPES, weight_columns

_POSE_LIMIT = torch.tensor([0.61, 0.38, 0.31])
_POSE_DEVIATION = torch.tensor([0.26, 0.15, 0.11])
_CALM_DEVIATION = torch.tensor([0.09, 0.06, 0.04])
_GAZE_LIMIT = torch.tensor([0.436, 0.262])
_SHIFT_LIMIT = 0.2
_DISTANCE_LIMIT, _DISTANCE_SHARE = 0.26, 0.35
_CALM_SHARE = 0.25


def sample_labels(
    generator: Generator, frames: int, pose_range: float = 1.0, calm_share: float | Tensor = _CALM_SHARE
) -> FrameLabels:
    """Draw frames of one person under one camera.

    Args:
        generator: CPU generator.
        frames: T.
        pose_range: factor of the head's rotations; 1 reaches yaw +-35, pitch +-22, roll +-18 degrees.
        calm_share: share of frames that look like a usual portrait, almost frontal, hardly any expression; a tensor
            [T] gives each frame its own chance.

    Returns:
        Labels of T frames: t within +-0.2, log_s around the average framing with +-20 % between people and
        +-6 % between frames, but a third of the lively ones within +-26 %, as far as the distance may be asked for;
        gaze within +-25 by +-15 degrees with lids that follow.
    """
    calm = torch.rand(frames, generator=generator) < calm_share
    deviation = torch.where(calm[:, None], _CALM_DEVIATION, _POSE_DEVIATION)
    angles = torch.randn(frames, 3, generator=generator) * deviation
    angles = torch.maximum(torch.minimum(angles, _POSE_LIMIT), -_POSE_LIMIT) * pose_range
    size = AVERAGE_LOG_SCALE + (0.1 * torch.randn((), generator=generator)).clamp(-0.2, 0.2)
    near = (0.03 * torch.randn(frames, generator=generator)).clamp(-0.06, 0.06)
    far = (2 * torch.rand(frames, generator=generator) - 1) * _DISTANCE_LIMIT
    moves = (torch.rand(frames, generator=generator) < _DISTANCE_SHARE) & ~calm
    sizes = size + torch.where(moves, far, near)
    place = torch.tensor([0.07, 0.06]) * torch.randn(2, generator=generator)
    still = torch.cat([torch.zeros(frames, 3), place.expand(frames, 2), sizes[:, None]], dim=1)
    turned = turn_about_neck(still, angles)
    swing = uniform(0.3, 1.1, generator)
    shift = place + swing * (turned[:, 3:5] - place) + 0.02 * torch.randn(frames, 2, generator=generator)
    head_pose = torch.cat([angles, shift.clamp(-_SHIFT_LIMIT, _SHIFT_LIMIT), sizes[:, None]], dim=1)
    rows = [sample_face(generator, bool(c)) for c in calm]
    body = 0.015 * torch.randn(frames, 2, generator=generator)
    return FrameLabels(head_pose, torch.stack(rows), body)


def sample_face(generator: Generator, calm: bool = False) -> Tensor:
    """Expression and gaze of one frame, [59]: speech, an emotion, random shapes or rest, and blinks."""
    weights = torch.zeros(len(EXPRESSIONS))
    kind = pick((0.1, 0.1, 0.0, 1.0) if calm else (0.42, 0.24, 0.24, 0.10), generator)
    if kind == 0:
        weights = _speech(generator)
    elif kind == 1:
        weights = sample_emotion(generator) @ EMOTION_SHAPES * (0.35 if calm else uniform(0.5, 1.1, generator))
    elif kind == 2:
        weights = _random_shapes(generator)
    if calm:
        weights = weights * 0.35
    elif happens(0.35, generator):
        weights = weights + _brows(generator)
    weights = weights * (1 + 0.12 * torch.randn(len(EXPRESSIONS), generator=generator)).clamp(0.6, 1.4)
    look = _gaze(generator, calm)
    weights = weights + lids(look[None], torch.zeros(1))[0]
    weights = _blink(weights, generator, 0.02 if calm else 0.18)
    return torch.cat([_plausible(weights), look])


def _gaze(generator: Generator, calm: bool) -> Tensor:
    """Where the eyes turn in the head, [2]; a third of the frames looks straight ahead."""
    if happens(0.7 if calm else 0.3, generator):
        return 0.035 * torch.randn(2, generator=generator)
    look = torch.randn(2, generator=generator) * torch.tensor([0.20, 0.11])
    return torch.maximum(torch.minimum(look, _GAZE_LIMIT), -_GAZE_LIMIT)


def _speech(generator: Generator) -> Tensor:
    """A moment of speech: a blend of two visemes, articulated more or less, over a trace of emotion."""
    first, second = (choose(VISEME_SHAPES, generator) for _ in range(2))
    weights = torch.lerp(first, second, uniform(0.0, 0.5, generator)) * uniform(0.7, 1.5, generator)
    if happens(0.4, generator):
        weights = weights + 0.5 * uniform(0.0, 1.0, generator) * sample_emotion(generator) @ EMOTION_SHAPES
    return weights


def _random_shapes(generator: Generator) -> Tensor:
    """A few ARKit shapes at random, one side only now and then."""
    weights = torch.zeros(len(EXPRESSIONS))
    for _ in range(choose(range(4), generator) + 1):
        name = choose(EXPRESSIONS, generator)
        if name.startswith(("eyeLook", "mouthClose", "eyeBlink")):
            continue
        strength = uniform(0.15, 1.0, generator)
        sided = name.endswith(("_L", "_R")) and happens(0.65, generator)
        columns = weight_columns(name[:-2]) if sided else (EXPRESSIONS.index(name),)
        weights[list(columns)] = strength
    if happens(0.5, generator):
        weights[EXPRESSIONS.index("jawOpen")] = uniform(0.0, 0.7, generator)
    return weights


def _brows(generator: Generator) -> Tensor:
    """Raised or lowered brows, sometimes only one."""
    weights = torch.zeros(len(EXPRESSIONS))
    shapes = choose((("browInnerUp", "browOuterUp"), ("browDown",), ("browInnerUp",), ("browOuterUp",)), generator)
    for name in shapes:
        left, right = weight_columns(name)
        weights[[left, right]] = uniform(0.2, 0.9, generator)
        if happens(0.15, generator):
            weights[left if happens(0.5, generator) else right] *= uniform(0.0, 0.5, generator)
    return weights


def _blink(weights: Tensor, generator: Generator, probability: float) -> Tensor:
    """Closed, half closed or winking lids."""
    left, right = weight_columns("eyeBlink")
    amount = torch.full((2,), uniform(0.0, 0.08, generator))
    if happens(probability, generator):
        amount[:] = 1.0 if happens(0.55, generator) else uniform(0.25, 0.85, generator)
        if happens(0.12, generator):
            amount[choose(range(2), generator)] *= uniform(0.0, 0.4, generator)
    weights = weights.clone()
    weights[left], weights[right] = amount
    return weights


def _plausible(weights: Tensor) -> Tensor:
    """Clamp to [0, 1] and keep shapes that fight each other from adding up."""
    weights = weights.clamp(0.0, 1.0)
    for side in "LR":
        blink, down, squint, wide = (
            EXPRESSIONS.index(f"{n}_{side}") for n in ("eyeBlink", "eyeLookDown", "eyeSquint", "eyeWide")
        )
        closed = weights[blink]
        weights[wide] = weights[wide] * (1 - closed)
        weights[down] = weights[down] * (1 - closed)
        weights[squint] = weights[squint] * (1 - 0.7 * closed)
    for one, other in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        a, b = EXPRESSIONS.index(one), EXPRESSIONS.index(other)
        shared = torch.minimum(weights[a], weights[b])
        weights[a], weights[b] = weights[a] - shared, weights[b] - shared
    return weights
