"""Skin colour and what time does to it: tone, blotches, pores, freckles, moles, wrinkles.

Colours are sRGB; every function takes and returns a face tile (or face tile | back-of-head tile) [3, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .chance import uniform
from .surface_map import TILE, SurfaceMap

_TONES = (
    (0.945, 0.795, 0.725), (0.905, 0.725, 0.625), (0.825, 0.630, 0.505),
    (0.700, 0.500, 0.375), (0.520, 0.350, 0.255), (0.345, 0.225, 0.165),
)  # fmt: skip
_INTERIOR = (0.46, 0.20, 0.18)


def pick(odds: tuple[float, ...], generator: Generator) -> int:
    """An index with the given relative odds."""
    return int(torch.multinomial(torch.tensor(odds), 1, generator=generator))


def noise(generator: Generator, cells: int | tuple[int, int], size: tuple[int, int], channels: int = 1) -> Tensor:
    """Smooth noise of about unit deviation, [channels, *size], with `cells` random knots per axis."""
    cells = (cells, cells) if isinstance(cells, int) else cells
    knots = torch.randn(1, channels, *cells, generator=generator)
    smooth = F.interpolate(knots, size=size, mode="bicubic" if max(cells) < 160 else "bilinear", align_corners=False)
    return smooth[0] * 1.25


def grain(generator: Generator, chart: Tensor, cell: float) -> Tensor:
    """Noise of about unit deviation with knots `cell` cm apart on the skin, [H, W] for a chart [H, W, 2]."""
    knots = torch.randn(1, 1, 192, 192, generator=generator) * 1.25
    place = chart * (2 / (192 * cell))
    return F.grid_sample(knots, place[None], padding_mode="reflection", align_corners=False)[0, 0]


def sample_tone(generator: Generator) -> Tensor:
    """A human skin colour: a point between neighbouring anchors, lightness +-6 %, warmth +-3 %, [3]."""
    anchors = torch.tensor(_TONES)
    place = (len(_TONES) - 1.001) * uniform(0.0, 1.0, generator) ** 1.3
    tone = torch.lerp(anchors[int(place)], anchors[int(place) + 1], place % 1.0)
    warmth = uniform(-0.03, 0.03, generator)
    tone = tone * uniform(0.94, 1.06, generator) * torch.tensor([1 + warmth, 1 + 0.25 * warmth, 1 - warmth])
    return tone.clamp(0.05, 0.96)


def recolour(skin: Tensor, tone: Tensor, surface: SurfaceMap, detail: float = 0.9) -> Tensor:
    """Give a skin a new tone: its own light-and-dark pattern around the new colour.

    The pattern keeps little of its own hue, which is what turns recoloured skins green or grey.

    Args:
        skin: [3, TILE, 2 TILE].
        tone: [3].
        detail: strength of the pattern.
    """
    x, y, z = surface.position
    cheek = (x.abs() > 2) & (x.abs() < 5.5) & (y > -2) & (y < 2) & (z > 6) & surface.inside
    pattern = (skin.clamp(min=0.02) / skin[:, cheek].mean(1)[:, None, None]).log()
    light = pattern.mean(0, keepdim=True)
    pattern = detail * light.clamp(-1.5, 0.45) + 0.45 * (pattern - light).clamp(-0.35, 0.35)
    colour = tone[:, None, None] * pattern.exp()
    interior = ((z > 2) & (x.abs() < 5.5) & (y > -7.5) & (y < 6.0))[:, TILE:]
    colour[:, :, TILE:][:, interior] = torch.tensor(_INTERIOR)[:, None]
    return colour.clamp(0.01, 0.98)


def blend(tile: Tensor, colour: Tensor, opacity: Tensor) -> Tensor:
    """Paint a colour [3] or picture [3, H, W] over a tile with opacity [H, W] or a number."""
    colour = colour if colour.dim() == 3 else colour[:, None, None]
    return tile + (colour - tile) * opacity


def spot(position: Tensor, centre: Tensor, radius: tuple[float, float, float]) -> Tensor:
    """A soft ellipsoid around a point and its mirror image, [H, W] in 0..1."""
    x, y, z = position
    cx, cy, cz = centre.tolist()
    rx, ry, rz = radius
    return torch.exp(-(((x.abs() - abs(cx)) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2))


def tint(tile: Tensor, surface: SurfaceMap, generator: Generator, blush: float) -> Tensor:
    """Flushed nose, cheeks, chin and ears, uneven blotches; `blush` 0..1 adds rouge."""
    position, marks, chart = surface.position[:, :, :TILE], surface.landmarks, surface.chart[:, :TILE]
    red = 0.5 * spot(position, marks[30], (1.3, 1.2, 2.0)) + 0.35 * spot(position, marks[8], (1.6, 1.4, 3.0))
    cheek = marks[[2, 14]].mean(0) + torch.tensor([4.6, 0.6, 3.8])
    red = red + 0.6 * spot(position, cheek, (1.9, 1.4, 3.5)) + 0.5 * torch.sigmoid((position[0].abs() - 7.7) * 5)
    blotch = grain(generator, chart, 2.2) + 0.6 * grain(generator, chart, 0.5)
    amount = red * uniform(0.02, 0.13, generator)
    amount = amount + (blotch + 0.6).clamp(-0.6, 1.8) * uniform(0.002, 0.012, generator)
    tile = tile * torch.stack([1 + 0.1 * amount, 1 - amount, 1 - 0.85 * amount])
    if blush:
        rouge = torch.tensor([0.80, 0.30, 0.30]) * tile.mean((1, 2)).max().clamp(0.45, 1.0) * 1.1
        place = cheek + torch.tensor([uniform(-0.4, 0.6, generator), uniform(0.0, 1.0, generator), 0.0])
        tile = blend(tile, rouge, blush * spot(position, place, (2.1, 1.0, 3.5)))
    return tile


def pores(tile: Tensor, chart: Tensor, generator: Generator, strength: float) -> Tensor:
    """Fine-grained lightness noise."""
    fine = grain(generator, chart, 0.11) + 0.6 * torch.randn(tile.shape[1:], generator=generator)
    return tile * (1 + strength * fine.clamp(-2.5, 2.5))


def freckles(tile: Tensor, surface: SurfaceMap, generator: Generator, strength: float) -> Tensor:
    """Small brown specks over nose and cheeks."""
    x, y, z = surface.position[:, :, :TILE]
    zone = torch.exp(-(((y - 1.2) / 2.6) ** 2) - (x / 6.0) ** 4) * torch.sigmoid((z - 5.5) * 1.2)
    size, dense = uniform(0.10, 0.17, generator), uniform(2.0, 2.7, generator)
    specks = torch.sigmoid((grain(generator, surface.chart[:, :TILE], size) - dense + 0.9 * zone) * 4) * zone
    return tile * (1 - strength * specks * torch.tensor([0.30, 0.48, 0.56])[:, None, None])


def moles(tile: Tensor, surface: SurfaceMap, generator: Generator, count: int) -> Tensor:
    """A few dark round marks anywhere on the front of the face."""
    position = surface.position[:, :, :TILE]
    front = ((position[2] > 5) & (position[1] > -8) & surface.inside[:, :TILE]).nonzero()
    for _ in range(count):
        row, column = front[int(uniform(0, len(front) - 1, generator))]
        distance = (position - position[:, row, column][:, None, None]).norm(dim=0)
        mark = torch.sigmoid((uniform(0.06, 0.16, generator) - distance) * 28)
        tile = blend(tile, tile[:, row, column] * torch.tensor([0.42, 0.33, 0.30]), mark * uniform(0.4, 0.9, generator))
    return tile


def wrinkles(tile: Tensor, surface: SurfaceMap, generator: Generator, age: float) -> Tensor:
    """Forehead lines, frown lines, crow's feet, bags and smile folds; `age` 0..1 is their depth."""
    marks, chart = surface.landmarks, surface.chart[:, :TILE]
    x, y, z = surface.position[:, :, :TILE]
    wave = grain(generator, chart, 2.6)
    depth = torch.sigmoid(1.5 * grain(generator, chart, 1.2))
    front = torch.sigmoid((z - 5.5) * 1.5)
    brow = marks[17:27, 1].mean()
    forehead = torch.exp(-(((y - brow - 2.6) / 1.5) ** 2)) * torch.exp(-((x / 4.2) ** 4)) * front
    rows = torch.sin((y + 0.05 * x**2 * uniform(0.2, 0.8, generator) + 0.16 * wave) * uniform(6.0, 8.5, generator))
    crease = 0.9 * depth * forehead * _line(rows)
    frown = torch.exp(-(((y - brow + 0.1) / 0.9) ** 2)) * torch.exp(-(((x.abs() - 0.65 + 0.1 * wave) / 0.11) ** 2))
    crease = crease + 0.7 * frown * front * uniform(0.0, 1.0, generator)
    outer = marks[45]
    dx, dy = x.abs() - outer[0], y - outer[1]
    fan = torch.sin(torch.atan2(dy, dx + 0.5) * 9 + wave)
    feet = torch.exp(-(((dx - 1.0) / 0.7) ** 2) - (dy / 1.1) ** 2)
    crease = crease + 0.6 * feet * _line(fan)
    under = marks[[46, 47]].mean(0) + torch.tensor([0.0, -0.9, 0.0])
    arc = y - under[1] - 0.11 * (x.abs() - under[0]) ** 2 + 0.06 * wave
    crease = crease + 0.55 * torch.exp(-((arc / 0.13) ** 2) - ((x.abs() - under[0]) / 1.4) ** 2) * front
    wing, corner = marks[35], marks[54]
    along = ((wing[1] + 0.4 - y) / (wing[1] - corner[1] + 1.4)).clamp(-0.2, 1.4)
    fold = x.abs() - (wing[0] + 0.35 + (corner[0] - wing[0] + 0.75) * along.clamp(min=0) ** 0.8) + 0.08 * wave
    ends = torch.sigmoid((along - 0.02) * 22) * torch.sigmoid((1.12 - along) * 11)
    crease = crease + 0.65 * torch.exp(-((fold / 0.16) ** 2)) * ends * front
    shade = 1 - age * crease.clamp(0, 1)[None] * torch.tensor([0.30, 0.36, 0.38])[:, None, None]
    coarse = grain(generator, chart, 0.25) + grain(generator, chart, 0.6)
    return tile * shade * (1 + 0.014 * age * coarse.clamp(-2, 2))


def _line(phase: Tensor) -> Tensor:
    """Narrow dark bands at the crests of a wave."""
    return torch.exp(-(((1 - phase) / 0.35) ** 2))
