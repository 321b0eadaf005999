"""What a head that moves uncovers: the portrait without its person, and where it no longer stands. Not in the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PERSON = 0.1
"""A pixel shows the person from this share on: hair is wider than any matte."""
_MARGIN = 1 / 64
"""And so do pixels as near as this share of the picture's edge."""
_SAME, _OTHER = 0.2, 0.5
"""Two shares of the background that differ by less than the first mean the same, by more than the second another."""


def behind(picture: Tensor, person: Tensor) -> Tensor:
    """The picture with its surroundings spread over the person (pull-push; Gortler et al., The Lumigraph, 1996).

    Args:
        picture: [B, 3, S, S] in [0, 1].
        person: share of the person in every pixel, [B, 1, s, s].

    Returns:
        [B, 3, S, S] float32; the picture itself where no person is.
    """
    size = picture.shape[-1]
    person = F.interpolate(person.float(), size=(size, size), mode="bilinear")
    reach = round(size * _MARGIN)
    known = 1 - F.max_pool2d((person > _PERSON).float(), 2 * reach + 1, 1, reach)
    # grows fourfold with every halving and must stay next to nothing, as the person's colours would come back
    return _spread(picture.float(), known.clamp_min(1e-12))


def agreement(uncovered: Tensor, own: Tensor, flow: Tensor) -> Tensor:
    """Whether a pixel and the place it is said to come from show the same: both the person, or both what is behind.

    Where a head has turned away from, hair and ears would stay, half transparent, for the place itself is found there
    and half trusted. Both shares are the decoder's own, so that its errors cancel and a still head loses nothing.

    Args:
        uncovered: share of the background in every pixel, [B, 1, H, W].
        own: the same of the portrait itself, [B, 1, H', W'].
        flow: where the pixels come from in the portrait, [B, 2, H, W] in [-1, 1].

    Returns:
        [B, 1, H, W] in [0, 1], without gradients: a share of the background that serves the picture tints faces.
    """
    uncovered, flow = uncovered.detach(), flow.detach().movedim(1, -1)
    there = F.grid_sample(own.float(), flow, padding_mode="border", align_corners=True)
    return ((_OTHER - (uncovered - there).abs()) / (_OTHER - _SAME)).clamp(0, 1)


def _spread(picture: Tensor, known: Tensor) -> Tensor:
    size = picture.shape[-1]
    if size == 1:
        return picture
    smaller = max(size // 2, 1)
    weight = F.adaptive_avg_pool2d(known, smaller)
    coarse = F.adaptive_avg_pool2d(picture * known, smaller) / weight
    # a coarse pixel is known as soon as one of its fine ones is
    coarse = _spread(coarse, (4 * weight).clamp(max=1.0))
    return torch.lerp(F.interpolate(coarse, size=(size, size), mode="bilinear"), picture, known)
