"""What is painted on a face: lips, lids and lashes, brows, beards, hair roots.

Every function takes a face tile [3, TILE, TILE] with the positions of its texels on the mean head, and
returns it painted over.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .chance import choose, happens, uniform
from .complexion import blend, grain, noise
from .surface_map import TILE, SurfaceMap

_LIPSTICKS = (
    (0.70, 0.10, 0.14), (0.55, 0.08, 0.16), (0.80, 0.30, 0.34), (0.62, 0.26, 0.24), (0.86, 0.42, 0.46),
    (0.36, 0.09, 0.14), (0.75, 0.22, 0.12),
)  # fmt: skip
_SHADOWS = (
    (0.42, 0.28, 0.24), (0.30, 0.26, 0.30), (0.45, 0.30, 0.42), (0.26, 0.34, 0.44), (0.62, 0.42, 0.30),
    (0.16, 0.14, 0.15),
)  # fmt: skip


def paint_lips(tile: Tensor, surface: SurfaceMap, generator: Generator, tone: Tensor, lipstick: float) -> Tensor:
    """Natural lips, a little redder and darker than the skin, or `lipstick` of an opacity 0..1."""
    red = uniform(0.0, 1.0, generator)
    factor = torch.tensor([0.96 - 0.06 * red, 0.82 - 0.17 * red, 0.83 - 0.15 * red])
    colour = tone**0.95 * factor * uniform(0.86, 1.04, generator)
    if lipstick:
        chosen = torch.tensor(choose(_LIPSTICKS, generator)) * (0.9 + 0.35 * (tone.mean() - 0.5))
        colour = torch.lerp(colour, chosen, lipstick)
    light = tile.mean(0, keepdim=True)
    smooth = F.interpolate(F.avg_pool2d(light[None], 16), size=light.shape[1:], mode="bicubic")[0]
    relief = (light / smooth.clamp(min=0.02)).clamp(0.82, 1.12)
    columns = noise(generator, (8, 220), tile.shape[1:])
    lips = colour[:, None, None] * relief * (1 + 0.03 * columns)
    edge = uniform(0.06, 0.13, generator) if not lipstick else 0.05
    grown = uniform(-0.06, 0.05, generator)
    mask = torch.sigmoid((grown - surface.lip_distance) / edge)
    rim = 0.25 * torch.exp(-((surface.lip_distance / 0.2) ** 2))
    tile = blend(tile, tone * torch.tensor([0.78, 0.65, 0.62]), rim)
    return blend(tile, lips.clamp(0.01, 0.98), mask * uniform(0.88, 0.98, generator))


def paint_lids(tile: Tensor, surface: SurfaceMap, generator: Generator, makeup: float) -> Tensor:
    """Lash lines and tired lids on everyone; `makeup` 0..1 adds eyeliner, mascara and eyeshadow."""
    distance, upper = surface.lid_distance, surface.upper_lid
    x, y, _ = surface.position[:, :, :TILE]
    dark = torch.tensor([0.09, 0.06, 0.05])
    around = torch.exp(-((distance / 0.75) ** 2))
    tile = tile * (1 - uniform(0.02, 0.20, generator) * around[None] * torch.tensor([0.7, 1.0, 0.9])[:, None, None])
    bag = torch.exp(-(((distance - 0.7) / 0.4) ** 2)) * (1 - upper)
    tile = tile * (1 - uniform(0.0, 0.14, generator) * bag[None] * torch.tensor([0.8, 1.0, 0.7])[:, None, None])
    if makeup:
        colour = torch.tensor(choose(_SHADOWS, generator))
        reach = uniform(0.35, 0.8, generator)
        tile = blend(
            tile,
            colour,
            makeup * uniform(0.1, 0.7, generator) * upper * torch.exp(-((distance / reach) ** 2)),
        )
    width = uniform(0.0, 0.05, generator) + 0.10 * makeup
    line = torch.sigmoid((width - distance) / 0.035) * upper
    line = line + 0.45 * torch.exp(-(((distance - 0.02) / 0.06) ** 2)) * (1 - upper)
    tile = blend(tile, dark, (line * (uniform(0.6, 0.9, generator) + 0.3 * makeup)).clamp(0, 0.96))
    sway = 1.2 * grain(generator, surface.chart[:, :TILE], 0.3)
    comb = torch.sin(x * uniform(34, 48, generator) + sway + y * 3)
    length = uniform(0.05, 0.14, generator) + 0.14 * makeup
    strokes = torch.sigmoid((comb - 0.25) * 5) * torch.exp(-((distance.clamp(min=0) / length) ** 2))
    strokes = strokes * (0.2 + 0.8 * upper) * (distance > -0.05)
    return blend(tile, dark, strokes * (uniform(0.15, 0.5, generator) + 0.4 * makeup) * 0.9)


def paint_brows(tile: Tensor, surface: SurfaceMap, generator: Generator, colour: Tensor, density: float) -> Tensor:
    """Two brows of hair strokes along the brow landmarks.

    Args:
        colour: [3].
        density: 0 (bare) to 1 (opaque).
    """
    position = surface.position[:, :, :TILE]
    curve = surface.landmarks[22:27].clone()
    arch = uniform(-0.25, 0.3, generator)
    lift = uniform(-0.35, 0.15, generator)
    curve[:, 1] += lift + arch * torch.tensor([0.0, 0.35, 1.0, 0.75, -0.2])
    curve[0, 0] += uniform(-0.35, 0.25, generator)
    along, across = _along(position, curve)
    thick = uniform(0.20, 0.42, generator) * (1.05 - 0.75 * along.clamp(0, 1) ** uniform(1.2, 2.6, generator))
    shape = torch.sigmoid((thick - across.abs()) / 0.075)
    shape = shape * torch.sigmoid((along + 0.02) * 30) * torch.sigmoid((1.05 - along) * 22)
    shape = shape * torch.sigmoid((position[2] - 4.0) * 2)
    slant = uniform(1.0, 2.6, generator)
    lean = along * 5.2 - across * slant * (1 - along.clamp(0, 1))
    strokes = _strokes(generator, lean * uniform(4.5, 7.0, generator), across * 1.4)
    opacity = density * shape * (0.50 + 0.5 * strokes)
    return blend(tile, colour, opacity.clamp(0, 0.96))


def paint_beard(tile: Tensor, surface: SurfaceMap, generator: Generator, colour: Tensor, style: str) -> Tensor:
    """Facial hair: "stubble", "moustache", "goatee", "sideburns" or "full"."""
    position = surface.position[:, :, :TILE]
    x, y, z = position
    marks = surface.landmarks
    wobble = 0.18 * noise(generator, 24, tile.shape[1:])[0]
    nose, mouth, chin = marks[33, 1], marks[66, 1], marks[8, 1]
    off_lips = torch.sigmoid((surface.lip_distance - 0.10 + 0.3 * wobble) / 0.06)
    top = nose - 0.35 - 0.06 * x**2
    moustache = torch.sigmoid((top - y) * 9) * torch.sigmoid((y - mouth + 0.4 + 0.1 * x.abs()) * 5)
    moustache = moustache * torch.sigmoid((uniform(2.2, 3.1, generator) - x.abs() + wobble) * 6) * (x.abs() > 0.08)
    soul = torch.sigmoid((0.55 - x.abs() + wobble) * 8) * torch.sigmoid((mouth - 0.9 - y) * 5)
    round_chin = torch.sigmoid((mouth - 1.3 - 0.10 * x**2 * 0 - y + wobble) * 4) * torch.sigmoid((2.9 - x.abs()) * 3)
    goatee = torch.maximum(soul, round_chin) * torch.sigmoid((y - chin + 2.2) * 1.5)
    cheek_line = mouth + uniform(-0.8, 1.2, generator) + 0.085 * (x.abs() - 2.5).clamp(min=0) ** 2
    jaw = torch.sigmoid((cheek_line - y + 1.5 * wobble) * 2.4) * torch.sigmoid((x.abs() - 1.9) * 3)
    jaw = torch.maximum(jaw, torch.maximum(soul, round_chin))
    bottom = chin - uniform(0.6, 2.4, generator) + 0.55 * (marks[8, 2] - z).clamp(min=0)
    jaw = jaw * torch.sigmoid((y - bottom.clamp(max=chin + 3.5)) * 1.6)
    side = torch.exp(-(((z - marks[[1, 15], 2].mean() - 0.2) / 0.8) ** 2)) * torch.sigmoid((y - marks[2, 1]) * 2)
    side = side * torch.sigmoid((marks[45, 1] + 2.5 - y) * 2) * torch.sigmoid((x.abs() - 5.5) * 3)
    jaw = jaw * torch.sigmoid((z - marks[[1, 15], 2].mean() + 0.8) * 1.5)
    full = torch.maximum(torch.maximum(jaw, moustache), side)
    mask = {
        "moustache": moustache,
        "goatee": torch.maximum(moustache, goatee),
        "sideburns": side,
        "full": full,
        "stubble": full,
    }[style]
    strokes = _strokes(generator, x * 9 + wobble * 6, y * 2.2 - z * 1.2)
    patches = torch.sigmoid(noise(generator, 14, tile.shape[1:])[0] * 1.5 + 2.4)
    if style == "stubble":
        grain = torch.sigmoid((torch.randn(tile.shape[1:], generator=generator) - 0.1) * 2)
        opacity = mask * off_lips * patches * (0.25 + 0.75 * grain) * uniform(0.18, 0.48, generator)
    else:
        opacity = mask * off_lips * patches * (0.42 + 0.58 * strokes) * uniform(0.70, 0.97, generator)
    shade = 1 + 0.35 * (strokes - 0.5)
    return blend(tile, colour[:, None, None] * shade, opacity.clamp(0, 0.97))


def paint_scalp(skin: Tensor, surface: SurfaceMap, generator: Generator, colour: Tensor, density: float) -> Tensor:
    """Hair roots on both tiles [3, TILE, 2 TILE]: 0 is bald, 0.3 shaved, 0.9 what lies under hair."""
    rough = torch.randn(skin.shape[1:], generator=generator) + noise(generator, (160, 320), skin.shape[1:])[0]
    opacity = surface.scalp * density * (0.6 + 0.4 * torch.sigmoid(1.4 * rough))
    return blend(skin, colour, opacity.clamp(0, 0.97))


def beard_style(generator: Generator) -> str:
    """A random kind of facial hair."""
    return choose(("stubble", "stubble", "moustache", "goatee", "full", "full", "sideburns"), generator)


def _along(position: Tensor, curve: Tensor) -> tuple[Tensor, Tensor]:
    """Place of mirrored texels along (0..1) and across (cm, up positive) a polyline [N, 3] from the front."""
    x, y = position[0].abs(), position[1]
    best = torch.full_like(x, torch.inf)
    along, across = torch.zeros_like(x), torch.zeros_like(x)
    pieces = len(curve) - 1
    for i in range(pieces):
        a, step = curve[i, :2], curve[i + 1, :2] - curve[i, :2]
        raw = ((x - a[0]) * step[0] + (y - a[1]) * step[1]) / step.square().sum()
        low, high = (-math.inf if i == 0 else 0.0), (math.inf if i == pieces - 1 else 1.0)
        t = raw.clamp(low, high)
        dx, dy = x - a[0] - t * step[0], y - a[1] - t * step[1]
        gap = dx.square() + dy.square()
        closer = gap < best
        best = torch.where(closer, gap, best)
        along = torch.where(closer, (i + t) / pieces, along)
        across = torch.where(closer, gap.sqrt() * torch.sign(dy), across)
    return along, across


def _strokes(generator: Generator, u: Tensor, v: Tensor) -> Tensor:
    """Hair strokes in 0..1: noise that changes fast along u and slowly along v (texels of any picture)."""
    texture = noise(generator, (64, 256), (256, 512))
    grid = torch.stack([u / 32.0 % 2.0 - 1.0, v / 8.0 % 2.0 - 1.0], dim=-1)
    found = F.grid_sample(texture[None], grid[None], mode="bilinear", padding_mode="reflection", align_corners=False)
    return torch.sigmoid(found[0, 0] * 2.2)


def wants_makeup(generator: Generator, masculine: float) -> float:
    """Strength of cosmetics, 0 for most masculine faces."""
    return uniform(0.2, 1.0, generator) if happens(0.55 * (1 - masculine) + 0.03, generator) else 0.0
