"""Where a video comes from: an invisible mark in its frames, its metadata, and a C2PA signature if there is one.

The mark says one thing only, "made by vasa": a fixed pattern of faint light and dark patches, laid over the luma of
every frame. It survives encoding and scaling to some degree and copying to any other container; it does not survive
somebody who wants it gone. What was measured is in docs/app.md.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .io.paste import PasteBack
from .io.video import read_manifest, read_video
from .signature import read_signature

KEY = 0x76617361
"""Seed of the pattern."""
TILE = 256
"""The pattern repeats after so many pixels in both directions."""
CELL = 4
"""Edge of a patch, pixels."""
STRENGTH = 1.5 / 255
"""Root mean square of the mark in RGB, before it bows to the picture: 44.6 dB."""
FAINTEST, STRONGEST = 0.55, 2.2
"""The mark's strength in flat and in busy parts of the picture, relative to `STRENGTH`."""
ALIGNED_SCORE, MOVED_SCORE = 5.5, 7.0
"""Standard deviations that count as found: at the place where we put the mark, and at any other place or size."""
SCALES = (1.0, 0.5, 0.75, 1.25, 1.5, 2.0)
"""Sizes of the video, relative to the original, at which the mark is looked for."""
SURE_SCORE = 10.0
"""At which the rest of the video need not be looked at."""
OTHER_SIZES_EVERY = 5
MAX_FRAMES = 250
_REC709 = (0.2126, 0.7152, 0.0722)


@functools.cache
def pattern(key: int = KEY) -> Tensor:
    """The mark's tile: patches of mean 0 and variance 1 with soft edges, [TILE, TILE] float32."""
    cells = TILE // CELL
    generator = torch.Generator().manual_seed(key)
    signs = torch.ones(cells * cells)
    signs[torch.randperm(cells * cells, generator=generator)[: cells * cells // 2]] = -1
    ring = F.pad(signs.view(1, 1, cells, cells), (2,) * 4, mode="circular")
    tile = F.interpolate(ring, scale_factor=CELL, mode="bicubic", align_corners=False)[0, 0]
    tile = tile[2 * CELL : -2 * CELL, 2 * CELL : -2 * CELL]
    return (tile - tile.mean()) / tile.std()


def mark(frames: Tensor, origin: tuple[int, int] = (0, 0), key: int = KEY) -> Tensor:
    """Lay the presence mark over frames; too faint to see.

    Args:
        frames: RGB or RGBA in [0, 1], [n, 3 or 4, H, W]; alpha stays as it is.
        origin: (left, top) of these pixels in the whole video, for frames that are laid over a larger picture.
        key: seed of the pattern.

    Returns:
        Frames of the same shape, float32.
    """
    frames = frames.float()
    colour = frames[:, :3]
    height, width = frames.shape[2:]
    tile = pattern(key).to(frames.device).roll((-origin[1], -origin[0]), (0, 1))
    sheet = tile.repeat(-(-height // TILE), -(-width // TILE))[:height, :width]
    colour = (colour + STRENGTH * _tolerance(luma(colour)) * sheet).clamp(0, 1)
    return torch.cat([colour, frames[:, 3:]], dim=1) if frames.shape[1] > 3 else colour


def marked(pictures: Tensor, paste: PasteBack | None = None, key: int = KEY) -> Tensor:
    """Frames as a `vasa.screen.Screen` gives them, with the mark where the engine drew.

    Args:
        pictures: [n, 3 or 4, h, w].
        paste: if `pictures` are its patches: where they equal the original picture, bit by bit, they stay so.
    """
    if paste is None or pictures.shape[1] > 3:
        return mark(pictures, key=key)
    left, top, width, height = paste.rectangle
    original = paste.original[:, top : top + height, left : left + width].to(pictures)
    changed = (pictures != original).any(1, keepdim=True)
    return torch.where(changed, mark(pictures, (left, top), key), pictures)


def luma(colour: Tensor) -> Tensor:
    """[n, 3, H, W] -> [n, 1, H, W]."""
    weights = torch.tensor(_REC709, device=colour.device).view(1, 3, 1, 1)
    return (colour * weights).sum(1, keepdim=True)


def _tolerance(picture: Tensor) -> Tensor:
    """How strong the mark may be in each place: weak on smooth skin and walls, stronger where there is texture."""
    if min(picture.shape[2:]) < 2 * CELL:
        return torch.full_like(picture, FAINTEST)
    mean = F.avg_pool2d(picture, CELL, ceil_mode=True)
    square = F.avg_pool2d(picture * picture, CELL, ceil_mode=True)
    texture = (square - mean * mean).clamp(min=0).sqrt()
    texture = F.avg_pool2d(texture, 3, 1, 1, count_include_pad=False)
    strength = (FAINTEST + 40 * texture).clamp(max=STRONGEST)
    return F.interpolate(strength, size=picture.shape[2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Mark:
    """What the detector saw.

    Attributes:
        found: whether the mark is there.
        score: how far the pattern stands out, in standard deviations of what chance gives in the same video.
        scale: size of the video relative to the marked original.
        shift: (right, down) by which the pattern is displaced, pixels of the original, each < `TILE`.
        frames: how many frames were looked at.
    """

    found: bool
    score: float
    scale: float
    shift: tuple[int, int]
    frames: int


def find_mark(frames: Iterator[Tensor], key: int = KEY, max_frames: int = MAX_FRAMES) -> Mark:
    """Look for the mark in frames [3, H, W], RGB in [0, 1].

    What the frames show is largely removed by a high pass and by normalising its strength; the rest is averaged over
    time, folded to one tile and compared with the pattern at all shifts. How much agreement chance gives is read off
    the shifts that fit least, in this very video, so that no assumption about the picture is needed.
    """
    tiles: dict[float, Tensor] = {}
    count = 0
    for frame in islice(frames, max_frames):
        picture = luma(frame[None].float())
        # other sizes are dear and rarely needed
        for scale in SCALES if count % OTHER_SIZES_EVERY == 0 else SCALES[:1]:
            size = [round(edge / scale) for edge in picture.shape[2:]]
            if min(size) < 8 * CELL or max(size) > 4096:
                continue
            here = picture
            if scale != 1:
                here = F.interpolate(picture, size=size, mode="bicubic", antialias=True, align_corners=False)
            tile = folded(residual(here)[0, 0])
            tiles[scale] = tiles[scale] + tile if scale in tiles else tile
        count += 1
        if count % 25 == 0 and 1.0 in tiles and (score := float(scores(tiles[1.0], key)[0, 0])) > SURE_SCORE:
            return Mark(True, score, 1.0, (0, 0), count)
    best = Mark(False, 0.0, 1.0, (0, 0), count)
    for scale, tile in tiles.items():
        found = scores(tile, key)
        if scale == 1 and float(found[0, 0]) >= ALIGNED_SCORE:
            return Mark(True, float(found[0, 0]), 1.0, (0, 0), count)
        peak = int(found.argmax())
        score = float(found.view(-1)[peak])
        if score > best.score:
            best = Mark(score >= MOVED_SCORE, score, scale, (peak % TILE, peak // TILE), count)
    return best


def residual(picture: Tensor) -> Tensor:
    """What is left of a picture when its content is taken away: even noise with the mark in it."""
    smooth = F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    around = F.avg_pool2d(picture, 4 * CELL + 1, 1, 2 * CELL, count_include_pad=False)
    band = smooth - around
    level = F.avg_pool2d(band.abs(), 4 * CELL + 1, 1, 2 * CELL, count_include_pad=False)
    return (band / (level + 1 / 255)).clamp(-2, 2)


def folded(noise: Tensor) -> Tensor:
    """All tiles of a frame [H, W] on one, [TILE, TILE]."""
    height, width = noise.shape
    padded = F.pad(noise, (0, -width % TILE, 0, -height % TILE))
    return padded.view(-(-height // TILE), TILE, -(-width // TILE), TILE).sum((0, 2))


def scores(tile: Tensor, key: int) -> Tensor:
    """Agreement of a folded residual with the pattern at every shift (down, right), in standard deviations."""
    expected = residual(pattern(key)[None, None].repeat(1, 1, 3, 3))[0, 0, TILE : 2 * TILE, TILE : 2 * TILE]
    spectrum = torch.fft.rfft2(tile) * torch.fft.rfft2(expected).conj()
    agreement = torch.fft.irfft2(spectrum, s=(TILE, TILE))
    agreement = agreement - agreement.median()
    spread = 1.4826 * agreement.abs().median()
    return agreement / spread.clamp(min=1e-12)


@dataclass(frozen=True)
class Report:
    """Everything a file says about its origin.

    Attributes:
        mark: what the detector saw.
        manifest: what the metadata says, None where it is missing or somebody else's.
        c2pa: "Trusted", "Valid", "Invalid" and so on, as the C2PA library says; None where nothing is signed or the
            library is not installed.
        c2pa_issuer: who signed.
        notices: sentences the user should see.
    """

    mark: Mark
    manifest: dict[str, Any] | None
    c2pa: str | None
    c2pa_issuer: str | None
    notices: tuple[str, ...] = ()

    @property
    def made_by_vasa(self) -> bool:
        """Whether anything in the file says so. Not proof: metadata can be typed in by anybody."""
        says_so = self.manifest is not None and str(self.manifest.get("generator", "")).startswith("vasa ")
        return self.mark.found or says_so


def verify(path: str | os.PathLike, *, trust: str | os.PathLike | None = None, max_frames: int = MAX_FRAMES) -> Report:
    """Read the mark, the manifest and the C2PA signature of a video.

    Args:
        path: local video file.
        trust: PEM file with root certificates to be trusted for C2PA.
        max_frames: frames of the beginning in which the mark is looked for.

    Raises:
        InputError: missing file, or not a video.
    """
    found = find_mark(read_video(path).frames, max_frames=max_frames)
    try:
        manifest = read_manifest(path)
    except InputError:
        manifest = None
    notices = []
    state = issuer = None
    try:
        state, issuer = read_signature(path, trust)
    except ImportError:
        notices.append('C2PA signatures were not looked at; install them with pip install "vasa[provenance]"')
    return Report(found, manifest, state, issuer, tuple(notices))
