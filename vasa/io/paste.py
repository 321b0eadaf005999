"""An animated crop back into the picture it was cut from.

Every frame is blended into the original at the original's own resolution. With the background locked, the blend's
weight is one on the person (where the person was in the portrait and where the frame shows the person now, so that
the old head never looks out from behind the new one) and exactly zero a short way outside: there the original pixels
stay, bit by bit, in every frame. Only the crop's rectangle is computed; the rest of the picture is never touched.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .alpha import refined
from .face import Crop, upright

Matte = Callable[[Tensor], Tensor]
"""Crops [n, 3, S, S] in [0, 1] -> share of the person in each pixel, [n, 1, s, s] in [0, 1], any s."""

SOFTNESS = 0.04
"""Default width of the soft border, in crop edges."""
BORDER = 0.1
"""Width over which a frame fades out towards the crop's own edge, in crop edges: shoulders are cut there."""
REGION_SIZE = 256
"""Edge of the maps in which regions are grown and softened."""
_STRIP = 256
"""Rows that are blended at a time."""
_CHANGED = (0.02, 0.08)
"""Mean colour difference from which on a pixel counts as a little, and as wholly, changed."""


class PasteBack:
    """Frames of a crop, blended into the picture.

    Attributes:
        rectangle: (left, top, width, height) of the part that changes, in pixels of `original`; outside of it every
            composed frame is the original, whatever the settings.

    Args:
        original: RGB in [0, 1], [3, H, W].
        framed: what `vasa.io.face.portrait_crop` cut out of it.
        lock: keep the original pixels outside the person; without it the whole square is pasted, softly.
        softness: width of the soft border in crop edges, 0.005 .. 0.2.
        matte: finds the person in a crop. Without one, the person is taken to be what changes between the portrait's
            crop and a frame, which suits engines that leave the background alone.

    Raises:
        InputError: softness out of range, or a crop that misses the picture.
    """

    def __init__(
        self,
        original: Tensor,
        framed: Crop,
        lock: bool = True,
        softness: float = SOFTNESS,
        matte: Matte | None = None,
    ) -> None:
        if not 0.005 <= softness <= 0.2:
            raise InputError(f"expected a softness between 0.005 and 0.2 of the crop, got {softness}")
        self.original = original
        self.lock = lock
        self.softness = softness
        self._matte = matte
        self._turns = framed.quarter_turns
        self._portrait = framed.picture[None].float().cpu()
        turned = upright(original, self._turns)
        left, top, self._edge = framed.square
        height, width = turned.shape[1:]
        if left >= width or top >= height or left + self._edge <= 0 or top + self._edge <= 0:
            raise InputError(f"the crop lies outside the {width}x{height} picture; cut it from this picture")
        square = _turned((left, top, self._edge, self._edge), width, height, -self._turns)
        self.rectangle = _even_inside(square, *original.shape[:0:-1])
        x, y, w, h = _turned(self.rectangle, *original.shape[:0:-1], self._turns)
        self._patch = turned[:, y : y + h, x : x + w].float().cpu()
        self._cut = (x - left, x - left + w, y - top, y - top + h)
        """Columns from, to and rows from, to of the rectangle in the square; the rectangle may be a pixel wider."""
        self._fade = _fade_to_edges((top > 0, top + self._edge < height), (left > 0, left + self._edge < width))
        self._old = None if matte is None else self._person(self._portrait)

    def compose(self, frames: Tensor) -> Tensor:
        """Whole pictures, [n, 3, H, W] float32 in [0, 1], from frames of the crop, [n, 3, S, S], any S."""
        left, top, width, height = self.rectangle
        pictures = self.original.float().cpu()[None].repeat(len(frames), 1, 1, 1)
        pictures[:, :, top : top + height, left : left + width] = self.patches(frames)
        return pictures

    def patches(self, frames: Tensor) -> Tensor:
        """The part of each picture inside `rectangle`, [n, 3, height, width] float32 in [0, 1]."""
        frames = frames.float().cpu()
        weights, pasted = self._rows_of(self.weights(frames)), self._rows_of(frames)
        patches = self._patch.expand(len(frames), -1, -1, -1).clone()
        # in strips: a crop may have ten megapixels
        for start in range(0, patches.shape[2], _STRIP):
            weight = weights(start, start + _STRIP)
            if weight.any():
                ground = self._patch[:, start : start + _STRIP]
                blended = torch.lerp(ground, pasted(start, start + _STRIP), weight).clamp(0, 1)
                # The original's own bits where the weight is zero: a lerp could differ in the last one.
                patches[:, :, start : start + _STRIP] = torch.where(weight > 0, blended, ground)
        return torch.rot90(patches, -self._turns, (2, 3))

    def alpha(self, frames: Tensor) -> Tensor:
        """The person's matte in whole pictures, [n, 1, H, W] float32 in [0, 1].

        Outside the crop the person is not known; the matte fades out towards the crop's edge as the frames do.
        """
        left, top, width, height = self.rectangle
        alpha = torch.zeros(len(frames), 1, *self.original.shape[1:])
        frames = frames.float().cpu()
        person = self._person(frames)
        if self._matte is not None:
            person = refined(person, resized(frames, 2 * REGION_SIZE))
        patch = self._rows_of(person * resized(self._fade, person.shape[-1]))(0, 1 << 31)
        alpha[:, :, top : top + height, left : left + width] = torch.rot90(patch.clamp(0, 1), -self._turns, (2, 3))
        return alpha

    def weights(self, frames: Tensor) -> Tensor:
        """How much of each frame is shown, in the crop, [n, 1, REGION_SIZE, REGION_SIZE].

        1 on the person, where it was and where it is; exactly 0 a little way outside.
        """
        if not self.lock:
            return self._fade.expand(len(frames), 1, -1, -1)
        person = self._person(frames)
        if self._old is not None:
            person = torch.maximum(person, self._old)
        return widened(person, max(1, round(self.softness * REGION_SIZE / 2))) * self._fade

    def _person(self, frames: Tensor) -> Tensor:
        if self._matte is not None:
            return resized(self._matte(frames), REGION_SIZE)
        difference = (resized(frames, REGION_SIZE) - resized(self._portrait, REGION_SIZE)).abs().mean(1, keepdim=True)
        difference = F.avg_pool2d(difference, 9, 1, 4, count_include_pad=False)
        low, high = _CHANGED
        return ((difference - low) / (high - low)).clamp(0, 1)

    def _rows_of(self, maps: Tensor) -> Callable[[int, int], Tensor]:
        """Maps of the square, [n, c, s, s], at the picture's resolution, as a function of rows of the rectangle."""
        x0, x1, y0, y1 = self._cut
        if maps.shape[-1] >= self._edge:
            full = resized(maps, self._edge)[:, :, max(y0, 0) : y1, max(x0, 0) : x1]
            # where evenness makes the rectangle a pixel wider than the square, nothing is shown
            beyond = (max(-x0, 0), max(x1 - self._edge, 0), max(-y0, 0), max(y1 - self._edge, 0))
            full = F.pad(full, beyond)
            return lambda start, end: full[:, :, start:end]
        wide = _enlarged(maps, torch.arange(x0, x1), self._edge, 3)
        return lambda start, end: _enlarged(wide, torch.arange(y0 + start, min(y0 + end, y1)), self._edge, 2)


def widened(person: Tensor, radius: int) -> Tensor:
    """A matte grown and softened: 1 wherever the person is, falling to exactly 0 `2 * radius` pixels outside.

    Args:
        person: [n, 1, h, w] in [0, 1].
        radius: pixels.
    """
    grown = F.max_pool2d(person, 2 * radius + 1, 1, radius)
    solid = ((grown - 0.1) / 0.4).clamp(0, 1)
    # averages of zeros and ones may miss 1 by a rounding error
    return (F.avg_pool2d(F.pad(solid, (radius,) * 4, mode="replicate"), 2 * radius + 1, 1) * (1 + 1e-5)).clamp(max=1)


def resized(maps: Tensor, size: int) -> Tensor:
    """[n, c, s, s] -> [n, c, size, size] float32; averages when shrinking."""
    if maps.shape[-1] == size:
        return maps.float()
    shrinks = maps.shape[-1] > size
    return F.interpolate(maps.float(), size=(size, size), mode="bilinear", antialias=shrinks)


def _enlarged(maps: Tensor, pixels: Tensor, edge: int, axis: int) -> Tensor:
    """Some of the `edge` pixels to which an axis is enlarged, linearly, as `resized` does."""
    size = maps.shape[axis]
    position = ((pixels.clamp(0, edge - 1) + 0.5) * (size / edge) - 0.5).clamp(0, size - 1)
    low = position.floor().long()
    share = (position - low).reshape([-1 if dim == axis else 1 for dim in range(4)])
    high = (low + 1).clamp(max=size - 1)
    return torch.lerp(maps.index_select(axis, low), maps.index_select(axis, high), share)


def _fade_to_edges(rows: tuple[bool, bool], columns: tuple[bool, bool]) -> Tensor:
    """1 in the middle, 0 at those edges of the crop behind which the picture goes on, [1, 1, R, R]."""
    position = (torch.arange(REGION_SIZE) + 0.5) / REGION_SIZE
    shares = []
    for before, after in (rows, columns):
        distance = torch.ones(REGION_SIZE)
        if before:
            distance = torch.minimum(distance, position)
        if after:
            distance = torch.minimum(distance, 1 - position)
        share = (distance / BORDER).clamp(0, 1)
        share = share * share * (3 - 2 * share)
        # the outermost cells are 0, so that enlarging the map leaves no weight on the very edge
        shares.append(torch.where(distance < 1 / REGION_SIZE, 0, share))
    return (shares[0][:, None] * shares[1][None])[None, None]


def _even_inside(rectangle: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """A rectangle widened to even borders, which video codecs need, and cut to the picture."""
    x, y, w, h = rectangle
    x0, y0 = max(x // 2 * 2, 0), max(y // 2 * 2, 0)
    x1, y1 = min((x + w + 1) // 2 * 2, width), min((y + h + 1) // 2 * 2, height)
    return x0, y0, x1 - x0, y1 - y0


def _turned(rectangle: tuple[int, int, int, int], width: int, height: int, turns: int) -> tuple[int, int, int, int]:
    """Where a rectangle of a picture lies once the picture was given `turns` anticlockwise quarter turns."""
    x, y, w, h = rectangle
    for _ in range(turns % 4):
        x, y, w, h = y, width - x - w, h, w
        width, height = height, width
    return x, y, w, h
