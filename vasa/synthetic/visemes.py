"""From timed phones to mouth shapes.

Every viseme has a target for the jaw and one for the lips. Neighbours blend by dominance (Cohen and
Massaro 1993): a segment's weight is its strength inside it and falls exponentially outside. Lips that
must meet (p, b, m) are forced together afterwards, since a blend alone leaves them ajar.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..latents import EXPRESSIONS
from .phones import VISEMES, Segment
from .prosody import smooth

_TARGETS = {
    "sil": "",
    "AA": "jawOpen .55 mouthLowerDown .15",
    "AH": "jawOpen .35 mouthLowerDown .08",
    "AE": "jawOpen .40 mouthStretch .28 mouthLowerDown .12",
    "EH": "jawOpen .28 mouthStretch .28 mouthLowerDown .1",
    "IH": "jawOpen .15 mouthStretch .25 mouthLowerDown .1",
    "EE": "jawOpen .08 mouthStretch .45 mouthSmile .3 mouthLowerDown .3 mouthUpperUp .15",
    "Y": "jawOpen .10 mouthStretch .3 mouthLowerDown .15",
    "AO": "jawOpen .35 mouthFunnel .5",
    "OH": "jawOpen .22 mouthFunnel .6 mouthPucker .2",
    "UH": "jawOpen .14 mouthFunnel .35",
    "ER": "jawOpen .14 mouthFunnel .35 mouthPucker .2",
    "OO": "jawOpen .08 mouthPucker .85 mouthFunnel .15",
    "W": "jawOpen .04 mouthPucker .95",
    "R": "jawOpen .08 mouthFunnel .4 mouthPucker .25",
    "MBP": "jawOpen .05 mouthPress .5 mouthRollLower .3 mouthRollUpper .25 mouthClose .05",
    "FV": "jawOpen .06 mouthRollLower .6 mouthUpperUp .22",
    "TH": "jawOpen .14 mouthLowerDown .15",
    "TDN": "jawOpen .10 mouthLowerDown .12",
    "L": "jawOpen .18 mouthLowerDown .12",
    "KG": "jawOpen .16 mouthLowerDown .1",
    "SZ": "jawOpen .03 mouthStretch .25 mouthLowerDown .35 mouthUpperUp .2",
    "SH": "jawOpen .06 jawForward .1 mouthFunnel .6 mouthUpperUp .15 mouthLowerDown .2",
}
_LIP_STRENGTH = {
    "sil": 0.6, "MBP": 6.0, "FV": 5.0, "SH": 3.0, "OO": 3.2, "W": 3.5, "OH": 2.0, "AO": 2.0, "SZ": 1.5,
    "EE": 1.5, "ER": 1.5, "R": 1.2, "KG": 0.35, "TDN": 0.45, "TH": 0.6, "L": 0.5,
}  # fmt: skip
_JAW_STRENGTH = {
    "sil": 1.0, "AA": 2.2, "AE": 2.0, "AO": 1.8, "EH": 1.6, "AH": 1.0, "IH": 1.0, "MBP": 1.5, "SZ": 2.0,
    "SH": 2.0, "FV": 1.3, "TH": 1.5, "TDN": 1.2, "L": 1.05, "KG": 0.9, "W": 1.8, "R": 1.5,
}  # fmt: skip
_USUAL_STRENGTH = 1.2
_PASSIVE = frozenset({"hh", "q"})
"""Phones made in the throat: the mouth already has the shape of what follows."""
_PASSIVE_STRENGTH = 0.08
_LONG_PAUSE, _PAUSE_STRENGTH = 0.2, 2.0
"""A pause longer than this (s) closes the mouth with this strength; people leave it ajar in shorter ones."""

_JAW_TAU, _LIP_TAU, _FAST_LIP_TAU = 0.055, 0.06, 0.045
_FAST = frozenset({"MBP", "FV"})
_STEPS = 4
_SMOOTH_SECONDS = 0.02
_CLOSURE_RAMP = 0.035
_CLOSED = "mouthPress .4 mouthRollLower .2 mouthRollUpper .2"
_CLOSE_PER_JAW = 0.77
"""mouthClose that brings the lips back together, per jawOpen (the ratio of their lip distances)."""
_PARTS_LIPS = ("mouthLowerDown", "mouthUpperUp", "mouthFunnel", "mouthStretch", "mouthShrugUpper")


def weight_columns(name: str) -> tuple[int, ...]:
    """Columns of an expression: one, or the left and the right one of a sided name given without its side.

    >>> [EXPRESSIONS[i] for i in weight_columns("mouthSmile")]
    ['mouthSmile_L', 'mouthSmile_R']
    """
    if name in EXPRESSIONS:
        return (EXPRESSIONS.index(name),)
    return (EXPRESSIONS.index(f"{name}_L"), EXPRESSIONS.index(f"{name}_R"))


def named_weights(text: str) -> Tensor:
    """[57] weights from "name value name value …"; a name without side sets both sides."""
    weights = torch.zeros(len(EXPRESSIONS))
    words = text.split()
    for name, value in zip(words[::2], words[1::2], strict=True):
        weights[list(weight_columns(name))] = float(value)
    return weights


VISEME_SHAPES = torch.stack([named_weights(_TARGETS[name]) for name in VISEMES])
"""Targets of the classes, [23, 57]."""

_JAW_COLUMNS = [i for i, name in enumerate(EXPRESSIONS) if name.startswith("jaw")]
JAW_OPEN = EXPRESSIONS.index("jawOpen")
_MOUTH_CLOSE = EXPRESSIONS.index("mouthClose")
_OPENING_COLUMNS = [column for name in _PARTS_LIPS for column in weight_columns(name)]


def articulate(
    segments: Sequence[Segment], num_frames: int, fps: float, gain: float | Tensor, generator: Generator
) -> Tensor:
    """Expression weights of a speaking mouth.

    Args:
        segments: timed phones; silence means rest.
        num_frames: T; frame k shows the time (k + 1/2) / fps.
        gain: how widely the speaker articulates, 0.8 (mumbling) to 1.6, one number or [T].
        generator: draws the speaker's asymmetry and how fully each phone is articulated.

    Returns:
        [T, 57] in [0, 1].
    """
    if not segments:
        return torch.zeros(num_frames, len(EXPRESSIONS))
    visemes = torch.tensor([segment.viseme for segment in segments])
    starts, ends = (
        torch.tensor([getattr(s, side) for s in segments], dtype=torch.float32) for side in ("start", "end")
    )
    fullness = (0.1 * torch.randn(len(segments), generator=generator)).exp()
    targets = VISEME_SHAPES[visemes] * fullness[:, None]

    step = 1.0 / (fps * _STEPS)
    times = (torch.arange(num_frames * _STEPS) + 0.5) * step
    outside = ((times[:, None] - 0.5 * (starts + ends)).abs() - 0.5 * (ends - starts)).clamp_min(0.0)
    tau = torch.tensor([_FAST_LIP_TAU if VISEMES[v] in _FAST else _LIP_TAU for v in visemes.tolist()])
    weights = _blend(_strengths(segments, _LIP_STRENGTH), outside / tau, targets)
    jaw = _blend(_strengths(segments, _JAW_STRENGTH), outside / _JAW_TAU, targets)
    weights[:, _JAW_COLUMNS] = jaw[:, _JAW_COLUMNS]
    weights = smooth(weights, max(1.0, _SMOOTH_SECONDS / step))

    frames = weights.view(num_frames, _STEPS, -1)[:, _STEPS // 2 - 1 : _STEPS // 2 + 1].mean(dim=1)

    gain = torch.as_tensor(gain, dtype=torch.float32)
    frames = frames * (gain[:, None] if gain.ndim else gain) * _asymmetry(generator)
    return close_lips(frames.clamp(0.0, 1.0), segments, fps)


def close_lips(weights: Tensor, segments: Sequence[Segment], fps: float) -> Tensor:
    """Pull jaw and lips together during p, b and m, whatever else the face does, [T, 57] -> [T, 57].

    `articulate` has done it for its own curves; do it again after adding an emotion.
    """
    times = (torch.arange(len(weights)) + 0.5) / fps
    closure = lip_closure(segments, times, fps)
    weights = weights.clone()
    opening = 1.0 - closure
    weights[:, JAW_OPEN] *= 0.2 + 0.8 * opening
    weights[:, _OPENING_COLUMNS] *= opening[:, None]
    weights = torch.maximum(weights, closure[:, None] * named_weights(_CLOSED))
    together = _CLOSE_PER_JAW * closure * weights[:, JAW_OPEN]
    weights[:, _MOUTH_CLOSE] = torch.maximum(weights[:, _MOUTH_CLOSE], together)
    return weights


def lip_closure(segments: Sequence[Segment], times: Tensor, fps: float) -> Tensor:
    """1 while the lips must touch, with short ramps, at `times` (s), [n] -> [n].

    It lasts at least one frame of `fps`, so that some frame shows it.
    """
    closed = torch.zeros_like(times)
    for segment in segments:
        if VISEMES[segment.viseme] != "MBP":
            continue
        # a plosive's last quarter is its release; a nasal stays closed to its end
        end = segment.end if segment.phone == "m" else segment.end - 0.25 * (segment.end - segment.start)
        centre, half = 0.5 * (segment.start + end), max(0.5 * (end - segment.start) - 0.01, 0.51 / fps)
        distance = ((times - centre).abs() - half).clamp_min(0.0)
        closed = torch.maximum(closed, 0.5 + 0.5 * torch.cos(torch.pi * (distance / _CLOSURE_RAMP).clamp(0.0, 1.0)))
    return closed


def _strengths(segments: Sequence[Segment], table: dict[str, float]) -> Tensor:
    """How strongly each segment insists on its target, [S]."""
    strengths = []
    for segment in segments:
        strength = table.get(VISEMES[segment.viseme], _USUAL_STRENGTH)
        if segment.phone in _PASSIVE:
            strength = _PASSIVE_STRENGTH
        elif segment.phone == "sil" and segment.end - segment.start > _LONG_PAUSE:
            strength = _PAUSE_STRENGTH
        strengths.append(strength)
    return torch.tensor(strengths)


def _blend(strengths: Tensor, distance: Tensor, targets: Tensor) -> Tensor:
    """Dominance-weighted mean of the targets, [n, 57]; far from every segment the nearest one wins."""
    share = torch.softmax(strengths.log() - distance, dim=1)
    return share @ targets


def _asymmetry(generator: Generator) -> Tensor:
    """Factors that make one side of the mouth move a little more, [57]."""
    lean = float((0.06 * torch.randn((), generator=generator)).clamp(-0.15, 0.15))
    factors = torch.ones(len(EXPRESSIONS))
    for column, name in enumerate(EXPRESSIONS):
        if name.startswith("mouth") and name[-2:] in ("_L", "_R"):
            factors[column] = 1.0 + (lean if name.endswith("_L") else -lean)
    return factors
