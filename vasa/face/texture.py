"""What pictures take from the portrait: its pixels, and their fine structure apart from them. Not in the paper.

Two things soften a picture that is warped and blended. Sampling between pixels averages them: on a grid twice as fine,
filled by a sharper filter once, it averages less. And where the portrait is trusted by m, blending leaves m of the
warped amplitude, that is m^2 of its energy, though m of it is expected. What is painted instead is smooth and cannot
make up for it, so fine structure is blended by about sqrt(m), as noise is by Heitz and Neyret (High-Performance
By-Example Noise using a Histogram-Preserving Blending Operator, 2018); by a little more, since sampling has taken some.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import resize_pictures

_LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (BT.601)."""
_COARSE = 32
"""Edge of the picture whose details are not fine structure."""
_SHARE = 0.35
"""Fine structure is blended by m to this power; faces of unseen people then have about 0.8 of the true energy."""
_LARGE = 512
"""Portraits above this edge are not made larger; their pixels are finer than what the network sees anyway."""


def brightness(picture: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 1, H, W]."""
    return (picture * picture.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def texture_of(portrait: Tensor) -> Tensor:
    """A portrait and the fine structure of its brightness, to be sampled with corners aligned.

    Args:
        portrait: [B, 3, S, S] in [0, 1].

    Returns:
        [B, 4, 2 S - 1, 2 S - 1] float32, every second pixel that of the portrait; [B, 4, S, S] if that is large.
    """
    portrait, size = portrait.float(), portrait.shape[-1]
    coarse = resize_pictures(portrait, min(_COARSE, size))
    fine = portrait - F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    texture = torch.cat([portrait, brightness(fine)], dim=1)
    if size > _LARGE:
        return texture
    return F.interpolate(texture, size=(2 * size - 1, 2 * size - 1), mode="bicubic", align_corners=True)


def blend(painted: Tensor, warped: Tensor, mask: Tensor, gain: Tensor | None = None) -> Tensor:
    """painted (1 - m) + (warped m + fine structure (m^0.35 - m)) gain.

    Args:
        painted: [B, 3, H, W] in [0, 1].
        warped: texture, where it belongs, [B, 4, H, W].
        mask: m, share of the portrait, [B, 1, H, W] in [0, 1].
        gain: brightness of the warped pixels over the portrait's, [B, 3, H, W].
    """
    pixels, fine = warped.split([3, 1], dim=1)
    # what the power adds where the portrait is wrong would teach the mask to avoid it
    share = mask.detach()
    missing = (share**_SHARE - share) * fine
    if gain is None:
        return torch.lerp(painted, pixels, mask) + missing
    return torch.lerp(painted, pixels * gain, mask).addcmul_(gain, missing)
