"""What a head that moves uncovers: the portrait without its person, and where it no longer stands. Not in the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PERSON = 0.1
"""A pixel shows the person from this share on: hair is wider than any matte."""
_MARGIN = 1 / 64
"""And so do pixels as near as this share of the picture's edge."""
_RIM, _SOFT = 1 / 128, 3 / 128
"""An outline is widened by the first share of the edge, and blurred by the second, twice, as what a decoder says is."""


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


def outline(person: Tensor, size: int) -> Tensor:
    """Where a portrait shows its person, with and without the rim, as softly as a decoder tells it.

    Args:
        person: share of the person in every pixel, [B, 1, s, s].
        size: of the portrait.

    Returns:
        [B, 2, size, size] float32 in [0, 1].
    """
    rim, soft = (max(round(person.shape[-1] * share), 1) for share in (_RIM, _SOFT))
    person = person.float()
    both = torch.cat([F.max_pool2d(person, 2 * rim + 1, 1, rim), person], dim=1)
    for _ in range(2):
        both = F.avg_pool2d(both, 2 * soft + 1, 1, soft, count_include_pad=False)
    return F.interpolate(both, size=(size, size), mode="bilinear")


def agreement(uncovered: Tensor, outline: Tensor, flow: Tensor) -> Tensor:
    """Whether a pixel and the place it is said to come from can show the same: both the person, or both what is behind.

    Where a head has turned away from, hair and ears would stay, half transparent, for the place itself is found there
    and half trusted. All agrees while the shares of the person differ by less than a third, nothing from two thirds on.

    Args:
        uncovered: share of the background in every pixel, [B, 1, H, W].
        outline: `outline` of the portrait, [B, 2, S, S].
        flow: where the pixels come from in the portrait, [B, 2, H, W] in [-1, 1].

    Returns:
        [B, 1, H, W] in [0, 1], without gradients: a share of the background that serves the picture tints faces.
    """
    uncovered, flow = uncovered.detach(), flow.detach().movedim(1, -1)
    there = F.grid_sample(outline.float(), flow, padding_mode="border", align_corners=True)
    wide, person = there.split(1, dim=1)
    differ = (uncovered + wide - 1).clamp_min(0) + (1 - uncovered - person).clamp_min(0)
    return (2 - 3 * differ).clamp(0, 1)


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
