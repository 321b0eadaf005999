"""Where an engine's frames are shown: alone, in the picture the portrait was cut from, or cut out with alpha."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import load_matte
from .face.texture import texture_of
from .io.alpha import PngFolderWriter, foreground, refined, writer_for
from .io.face import Crop, crop_square, upright
from .io.paste import SOFTNESS, PasteBack
from .io.video import VideoWriter
from .latents import FaceLatents

DETAIL_SIZE = 1024
"""Largest edge at which the portrait's own texture is carried into pasted frames, pixels."""


class Screen:
    """Turns frames of the crop into the pictures that are written.

    Attributes:
        latents: what to decode: the portrait's latents, with a larger picture of the portrait for the detail path
            when frames are pasted back, so that what the model only moves keeps the original's resolution.
        batch_size: how many such frames to decode at a time, at most.

    Args:
        size: edge of the engine's frames, pixels.
        latents: the portrait's latents.
        pixels: the picture, [3, H, W].
        framed: the crop of it that was encoded.
        paste_back: show the frames in the picture instead of alone.
        lock: with `paste_back`: outside the person the original pixels stay.
        softness: width of the soft border, in crop edges.
        alpha: add the person's matte as a fourth channel.
    """

    def __init__(
        self,
        size: int,
        latents: FaceLatents,
        pixels: Tensor,
        framed: Crop,
        *,
        paste_back: bool = False,
        lock: bool = True,
        softness: float = SOFTNESS,
        alpha: bool = False,
    ) -> None:
        self.alpha = alpha
        self.latents, self.batch_size = latents, 1 << 16
        self.paste: PasteBack | None = None
        self._size = (size, size)
        self._matte = load_matte().matte if alpha or (paste_back and lock) else None
        if paste_back:
            self.paste = PasteBack(pixels, framed, lock, softness, self._matte)
            # H.264 needs even sizes: of an odd picture the last row or column is left out
            self._size = (pixels.shape[2] // 2 * 2, pixels.shape[1] // 2 * 2)
            self.latents, detail = sharpened(latents, pixels, framed, size)
            self.batch_size = max(1, 2 * (512 // detail) ** 2 if detail > size else self.batch_size)

    @property
    def shows_all(self) -> bool:
        """Whether `show` gives the frames as they are."""
        return self.paste is None and not self.alpha

    def writer(
        self,
        path: str | os.PathLike,
        fps: float,
        audio: tuple[Tensor | Iterator[np.ndarray], int] | None,
        metadata: dict[str, Any],
    ) -> VideoWriter | PngFolderWriter:
        """The writer that takes what `show` yields.

        Raises:
            InputError: the output's ending does not fit, or it cannot be written.
        """
        kind = writer_for(path, self.alpha)
        if self.paste is None or self.alpha:
            return kind(path, self._size, fps, audio, metadata)
        left, top, _, _ = self.paste.rectangle
        return kind(path, self._size, fps, audio, metadata, backdrop=(self.paste.original, left, top))

    def show(self, frames: Tensor) -> Iterator[Tensor]:
        """Frames of the crop, [n, 3, S, S] -> what is written, in pieces of [m, 3 or 4, h, w]."""
        if self.paste is None:
            yield self._cut_out(frames) if self.alpha else frames
            return
        # one by one: a pasted frame may have tens of megapixels
        for frame in frames.split(1):
            if self.alpha:
                width, height = self._size
                alpha = self.paste.alpha(frame)
                pictures = foreground(self.paste.compose(frame), alpha)
                yield torch.cat([pictures, alpha], dim=1)[:, :, :height, :width]
            else:
                yield self.paste.patches(frame)

    def _cut_out(self, frames: Tensor) -> Tensor:
        frames = frames.float().cpu()
        alpha = refined(self._matte(frames), frames)
        return torch.cat([foreground(frames, alpha), alpha], dim=1)


def sharpened(latents: FaceLatents, pixels: Tensor, framed: Crop, size: int) -> tuple[FaceLatents, int]:
    """Latents whose portrait shows the crop at the picture's own resolution, as far as `DETAIL_SIZE`.

    The detail path says where each pixel comes from in the portrait; from a larger portrait it brings finer texture.
    What the model paints itself (mouth, lids, what was hidden) stays as fine as its own frames.

    Returns:
        The latents and the edge of the frames they decode to; the latents themselves where there is nothing to gain.
    """
    left, top, edge = framed.square
    detail = min(-(-edge // size) * size, DETAIL_SIZE // size * size)
    if detail <= size or latents.texture is None:
        return latents, size
    portrait = crop_square(upright(pixels, framed.quarter_turns), left, top, edge, detail)
    portrait = portrait[None].to(latents.portrait)
    return replace(latents, portrait=portrait, texture=texture_of(portrait)), detail
