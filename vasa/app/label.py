"""A visible label in the picture."""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TEXT = "AI-generated"


def with_label(frames: Tensor, size: tuple[int, int] | None = None, origin: tuple[int, int] = (0, 0)) -> Tensor:
    """Frames [n, 3, h, w] with "AI-generated" in the lower left corner of the video.

    Args:
        size: (width, height) of the video, where the frames are only a part of it.
        origin: (left, top) of that part.
    """
    height, width = frames.shape[2:]
    left, top = origin
    sheet = _sheet(*(size or (width, height)))[:, top : top + height, left : left + width].to(frames)
    return torch.lerp(frames, sheet[:1].expand_as(frames[:1]), sheet[1:])


@functools.lru_cache(maxsize=8)
def _sheet(width: int, height: int) -> Tensor:
    """Colour and opacity of the label, [2, H, W]."""
    size = max(9, round(min(width, height) / 18))
    font = ImageFont.load_default(size)
    ink, plate = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    left, top, right, bottom = (int(value) for value in ImageDraw.Draw(ink).textbbox((0, 0), TEXT, font=font))
    pad = max(2, size // 3)
    x, y = pad, height - (bottom - top) - 3 * pad
    box = (x, y, x + right - left + 2 * pad, y + bottom - top + 2 * pad)
    ImageDraw.Draw(plate).rounded_rectangle(box, radius=pad, fill=150)
    ImageDraw.Draw(ink).text((x + pad - left, y + pad - top), TEXT, font=font, fill=255)
    opacity = np.maximum(np.asarray(plate), np.asarray(ink))
    return torch.from_numpy(np.stack([np.asarray(ink), opacity])).float() / 255
