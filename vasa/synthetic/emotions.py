"""What eight emotions do to the face, and to the head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..latents import EMOTIONS, EXPRESSIONS
from .visemes import named_weights

_SHAPES = {
    "neutral": "",
    "happy": "mouthSmile .75 cheekSquint .55 cheekRaiser .35 eyeSquint .25 mouthDimple .2 mouthUpperUp .12 "
    "browOuterUp .1",
    "sad": "mouthFrown .65 browInnerUp .75 browDown .15 mouthShrugLower .35 eyeSquint .2 eyeLookDown .15 mouthPress .1",
    "angry": "browDown .95 noseSneer .25 eyeSquint .4 mouthPress .5 mouthFrown .35 mouthRollLower .15 "
    "jawForward .15 eyeWide .15",
    "surprised": "browInnerUp .85 browOuterUp .85 eyeWide .75 jawOpen .16 mouthFunnel .12",
    "fearful": "browInnerUp .8 browOuterUp .35 browDown .3 eyeWide .7 mouthStretch .45 mouthFrown .2 jawOpen .06",
    "disgusted": "noseSneer .8 mouthUpperUp .3 browDown .45 eyeSquint .4 mouthFrown .35 cheekSquint .35 "
    "mouthShrugLower .15",
    "contempt": "mouthSmile_L .55 mouthDimple_L .5 mouthPress .2 eyeSquint .2 browDown_L .15 browOuterUp_R .3",
}
EMOTION_SHAPES = torch.stack([named_weights(_SHAPES[name]) for name in EMOTIONS])
"""Expression weights at full intensity, [8, 57], in the order of `vasa.latents.EMOTIONS`."""

_POSTURES = {
    "sad": (0.09, 0.65), "angry": (0.05, 1.15), "surprised": (-0.05, 1.05), "fearful": (-0.04, 0.85),
    "disgusted": (-0.03, 0.9), "contempt": (-0.06, 0.75), "happy": (-0.01, 1.15),
}  # fmt: skip
EMOTION_PITCH = torch.tensor([_POSTURES.get(name, (0.0, 1.0))[0] for name in EMOTIONS])
"""How far the head hangs (positive) or rises at full intensity, radians, [8]."""
EMOTION_LIVELINESS = torch.tensor([_POSTURES.get(name, (0.0, 1.0))[1] for name in EMOTIONS])
"""Factor of the amount of head movement at full intensity, [8]."""
MOUTH = torch.tensor([name.startswith(("mouth", "jaw")) for name in EXPRESSIONS])
"""Which expressions shape the mouth, [57] bool."""


def sample_emotion(generator: Generator) -> Tensor:
    """Random emotion weights, [8] summing to 1: a tenth calm, most one emotion, some a mixture of two."""
    weights = torch.zeros(len(EMOTIONS))
    draw = torch.rand(4, generator=generator).tolist()
    if draw[0] < 0.1:
        weights[0] = 1.0
        return weights
    first, second = (torch.randperm(len(EMOTIONS) - 1, generator=generator)[:2] + 1).tolist()
    intensity = 0.25 + 0.75 * draw[1]
    share = draw[2] * 0.5 if draw[3] < 0.25 else 0.0
    weights[first] += intensity * (1 - share)
    weights[second] += intensity * share
    weights[0] = 1 - intensity
    return weights


def emotion_of(dynamics: Tensor) -> Tensor:
    """Which emotion an expression shows, by its likeness to the emotions' shapes; weights [B, 8] that sum to 1."""
    expression = dynamics[..., : EMOTION_SHAPES.shape[1]]
    shapes = EMOTION_SHAPES.to(expression)
    likeness = F.cosine_similarity(expression[..., None, :], shapes[1:], dim=-1)
    strength = (expression @ shapes[1:].T) / shapes[1:].square().sum(-1)
    scores = 10 * likeness * strength.clamp(0, 1)
    return torch.cat([torch.full_like(scores[..., :1], 2.0), scores], dim=-1).softmax(-1)
