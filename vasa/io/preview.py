"""A picture with its faces drawn in: what was found, how they are counted, and what the model would see."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .face import Crop, FaceBox

PREVIEW_SIDE = 1600
"""Longest side of the picture in a preview, pixels."""
_INSET = 0.4
"""Edge of the chosen crop beside it, in heights of the preview."""
_FACE, _CHOSEN, _OTHER, _BESIDE = (255, 210, 0), (0, 200, 90), (140, 140, 140), (128, 128, 128)


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
    scale = _scale(image)
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
    sheet = Image.new("RGB", (canvas.width + edge, max(canvas.height, edge)), _BESIDE)
    sheet.paste(canvas, (0, 0))
    sheet.paste(_to_pillow(crops[chosen].picture).resize((edge, edge), Image.Resampling.LANCZOS), (canvas.width, 0))
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float() / 255


def face_at(x: float, y: float, image: Tensor, boxes: list[FaceBox]) -> int | None:
    """Which face is meant by a place in `draw_faces`'s picture: the nearest, if it is no more than its own edge away.

    Args:
        x, y: the place, in pixels of the preview.
        image, boxes: what was drawn.

    Returns:
        Index into `boxes`, or None.
    """
    scale = _scale(image)
    away = [math.dist((x / scale, y / scale), box.centre) / box.size for box in boxes]
    nearest = min(range(len(boxes)), key=away.__getitem__, default=None)
    return nearest if nearest is not None and away[nearest] <= 1 else None


def _scale(image: Tensor) -> float:
    """From pixels of the picture to pixels of its preview."""
    return min(1.0, PREVIEW_SIDE / max(image.shape[1:]))


def _to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _scaled(x: float, y: float, size: float, scale: float) -> tuple[float, float, float, float]:
    return x * scale, y * scale, (x + size) * scale, (y + size) * scale
