"""Likeness and sharpness of pictures where the truth is known.

Letters: `N` pictures, `S` pixels per edge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..face.texture import brightness
from ..synthetic.person import PARTS

FACE_PARTS = ("skin", "lips", "mouth", "eye")
_WORST_ERROR = 1e-10


def foreground(part: Tensor, size: int) -> Tensor:
    """1 where the picture shows the person, 0 on the background, [N, S', S'] indices -> [N, 1, S, S]."""
    return _enlarged(part > 0, size)


def face_area(part: Tensor, size: int) -> Tensor:
    """1 on skin, lips, mouth and eyes, away from their outer border, [N, S', S'] -> [N, 1, S, S].

    The border is left out because the step from face to background would outweigh everything inside.
    """
    wanted = torch.tensor([PARTS.index(name) for name in FACE_PARTS], device=part.device)
    inside = torch.isin(part.long(), wanted)[:, None].float()
    shrunk = -F.max_pool2d(-inside, 3, stride=1, padding=1)
    return _enlarged(shrunk[:, 0] > 0, size)


def _enlarged(mask: Tensor, size: int) -> Tensor:
    return F.interpolate(mask[:, None].float(), size=(size, size))


def psnr(pictures: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Peak signal-to-noise ratio inside a mask, -10 log10(mean squared error), of every picture in dB.

    Args:
        pictures, truth: [N, 3, S, S] in [0, 1].
        mask: weights of the pixels, [N, 1, S, S].

    Returns:
        [N], at most 100.
    """
    error = ((pictures - truth).square() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3))).clamp_min(1)
    return -10 * error.clamp_min(_WORST_ERROR).log10()


def gradient_energy(pictures: Tensor, mask: Tensor) -> Tensor:
    """Mean squared brightness gradient (central differences) inside a mask, [N, 3, S, S] -> [N]."""
    grey = brightness(pictures)[:, 0]
    across = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]) / 2
    down = (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]) / 2
    inner = mask[:, 0, 1:-1, 1:-1]
    return ((across.square() + down.square()) * inner).sum((1, 2)) / inner.sum((1, 2)).clamp_min(1)


def sharpness(pictures: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Gradient energy over that of the truth, of every picture; 1 is as sharp, below is softer, [N]."""
    return gradient_energy(pictures, mask) / gradient_energy(truth, mask).clamp_min(1e-9)
