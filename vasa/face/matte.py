"""The person's matte: which pixels of a crop show the person (head, hair, neck, clothes, glasses).

A small U-Net beside the face model, trained on rendered people, whose masks are exact. Pasting back and alpha output
use it. Not in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import NormAct, ResBlock, resize_pictures

MATTE_SIZE = 128
"""Edge of the picture it looks at and of the matte it gives, pixels."""


class UpBlock(nn.Module):
    """Twice the resolution: narrowed before it is enlarged, joined by the skip, one convolution of 3x3."""

    def __init__(self, c_in: int, c_out: int, group_width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = NormAct(c_out, group_width)
        self.conv = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest") + skip
        return x + self.conv(self.norm(x))


class PersonMatte(nn.Module):
    """Pictures [B, 3, S, S] in [0, 1], S >= 128 -> logits [B, 1, 128, 128] of showing the person."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64), group_width: int = 8) -> None:
        super().__init__()
        g = group_width
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1, bias=False)
        self.downs = nn.ModuleList(ResBlock(a, b, g) for a, b in zip(widths, widths[1:] + widths[-1:], strict=True))
        deep, shallow = widths[-1:] + widths[:0:-1], widths[::-1]
        self.ups = nn.ModuleList(UpBlock(a, b, g) for a, b in zip(deep, shallow, strict=True))
        self.norm = NormAct(widths[0], g)
        self.head = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.pixel_unshuffle(resize_pictures(pictures, MATTE_SIZE) * 2 - 1, 2)
        x = self.stem(x)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(F.avg_pool2d(x, 2))
        for up in self.ups:
            x = up(x, skips.pop())
        return F.pixel_shuffle(self.head(self.norm(x)), 2).float()

    @torch.inference_mode()
    def matte(self, pictures: Tensor) -> Tensor:
        """Share of the person in every pixel, [B, 1, 128, 128] in [0, 1] on the CPU."""
        device = self.head.weight.device
        return torch.sigmoid(self(pictures.to(device, torch.float32))).cpu()
