"""A picture with its faces drawn in: what was found, how they are counted, and what the model would see."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .face import Crop, FaceBox

PREVIEW_SIDE = 1600
"""Longest side of the picture in a preview, pixels."""
_INSET = 0.4
"""Edge of the chosen crop beside it, in heights of the preview."""
_FACE, _CHOSEN, _OTHER = (255, 210, 0), (0, 200, 90), (140, 140, 140)


def draw_faces(image: Tensor, boxes: list[FaceBox], crops: list[Crop], chosen: int = 0) -> Tensor:
    """Face boxes in yellow with their numbers, crops in grey, the chosen one in green and once more at the right.

    Args:
        image: the picture as the boxes see it (turned upright), RGB in [0, 1], [3, H, W].
        boxes: faces, in the order in which they are counted; empty where a crop was given by hand.
        crops: their squares.
        chosen: index into `crops`.

    Returns:
        [3, h, w] in [0, 1].
    """
    canvas = _to_pillow(image)
    scale = min(1.0, PREVIEW_SIDE / max(canvas.size))
    if scale < 1:
        canvas = canvas.resize([max(1, round(side * scale)) for side in canvas.size], Image.Resampling.LANCZOS)
    width = max(2, max(canvas.size) // 300)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(14, max(canvas.size) // 30))
    for index, crop in enumerate(crops):
        left, top, edge = crop.square
        colour = _CHOSEN if index == chosen else _OTHER
        draw.rectangle(_scaled(left, top, edge, scale), outline=colour, width=width)
    for index, box in enumerate(boxes):
        draw.rectangle(_scaled(box.x, box.y, box.size, scale), outline=_FACE, width=width)
        place = (box.x * scale + width + 1, box.y * scale + width)
        draw.text(place, str(index), fill=_FACE, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    edge = max(64, round(_INSET * canvas.height))
    sheet = Image.new("RGB", (canvas.width + edge, max(canvas.height, edge)), (255, 255, 255))
    sheet.paste(canvas, (0, 0))
    sheet.paste(_to_pillow(crops[chosen].picture).resize((edge, edge), Image.Resampling.LANCZOS), (canvas.width, 0))
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float() / 255


def _to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _scaled(x: float, y: float, size: float, scale: float) -> tuple[float, float, float, float]:
    return x * scale, y * scale, (x + size) * scale, (y + size) * scale
