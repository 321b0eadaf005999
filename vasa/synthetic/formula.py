"""A head made of formulas alone, in the arrays of an asset pack: for tests and for users without a pack.

A structured grid of rows (crown to shoulders) and columns (around the head) carries the skin. Along the mouth
and the eyes a row is duplicated: the upper copy belongs to the faces above, the lower one to those below, so
that lips and lids open. Eyeballs, a mouth cavity, a tongue and two strips of teeth are separate parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..latents import EXPRESSIONS
from .formula_shapes import JAW_MOVES, Skin, expression_modes, identity_modes, lid_opening
from .person import HeadPack

MOUTH_Y, EYE_Y, EYE_X = -3.4, 3.5, 3.1
MOUTH_HALF_WIDTH, EYE_HALF_WIDTH = 2.7, 1.5
BALL_RADIUS = 1.5

_COLUMNS = 96
# Heights of the rows: (from, to, number); mouth and eyes lie exactly on a row.
_BANDS = ((14.3, 6.0, 14), (6.0, EYE_Y, 9), (EYE_Y, 1.0, 9), (1.0, -1.4, 7), (-1.4, MOUTH_Y, 9),
          (MOUTH_Y, -5.6, 9), (-5.6, -9.0, 9), (-9.0, -19.0, 11))  # fmt: skip
# Height, half-width, front and back of the head's cross-sections, cm.
_SECTIONS = (
    (14.3, 0.3, 1.2, -0.6), (13.8, 3.0, 4.0, -3.4), (12.5, 5.4, 6.6, -6.0), (9.5, 7.4, 9.2, -8.4),
    (5.5, 7.8, 10.0, -9.0), (2.0, 7.5, 9.6, -8.3), (-1.0, 7.1, 9.9, -6.8), (-3.4, 6.6, 10.2, -5.6),
    (-6.0, 5.6, 10.0, -4.8), (-7.6, 5.0, 9.3, -4.5), (-8.6, 4.9, 7.4, -4.5), (-10.0, 5.0, 6.0, -4.6),
    (-13.0, 5.3, 4.6, -5.4), (-15.0, 7.6, 4.8, -6.2), (-17.0, 10.5, 5.6, -6.9), (-19.0, 12.0, 6.4, -7.4),
)  # fmt: skip
# Bumps of the front: x, y, width, height, forward (cm); each also at -x.
_BUMPS = (
    (0.0, 3.6, 0.75, 1.8, 0.9), (0.0, 1.5, 0.85, 1.5, 1.5), (0.0, 0.4, 0.8, 0.75, 1.0),
    (1.05, -0.2, 0.55, 0.6, 0.65), (3.1, 3.4, 1.6, 1.2, -0.7), (2.8, 5.6, 2.2, 0.7, 0.35),
    (4.2, 1.0, 1.6, 1.3, 0.45), (0.0, -2.8, 1.6, 0.5, 0.5), (0.0, -4.0, 1.5, 0.55, 0.55),
    (0.0, -5.0, 1.4, 0.45, -0.3), (0.0, -6.7, 1.6, 1.0, 0.5),
)  # fmt: skip
# iBUG landmarks: x, y of the right half and the middle; the rest mirrors.
_JAW = (
    (-7.3, 3.6),
    (-7.2, 1.1),
    (-7.0, -0.1),
    (-6.6, -2.3),
    (-5.7, -4.5),
    (-4.3, -6.2),
    (-3.05, -6.9),
    (-1.5, -7.3),
)
_MIDDLE = ((0.0, -7.5), (0.0, 3.7), (0.0, 2.6), (0.0, 1.8), (0.0, 0.4))
_BROW = ((-5.7, 5.0), (-5.0, 5.7), (-3.8, 6.2), (-2.7, 6.0), (-1.5, 5.9))


@dataclass(frozen=True)
class _Part:
    """A piece of the mesh: vertices [n, 3], faces [f, 3], uv [n, 2], material of each face or of all."""

    vertices: Tensor
    faces: Tensor
    uv: Tensor
    material: Tensor | int


_MATERIALS = ("M_Face", "M_BackHead", "M_GumsTongue", "M_ScleraLeft", "M_ScleraRight", "M_Teeth")


@cache
def formula_pack() -> HeadPack:
    """The formula head as an asset pack: three plain skins, no hair meshes."""
    skin, grid = _skin()
    flat, sides, face_uv, material = grid
    parts = [
        _ball(1), _ball(-1), _cavity(), _tongue(), _teeth(upper=True), _teeth(upper=False),
    ]  # fmt: skip
    vertices, faces, uvs, materials = [skin.position], [flat], [face_uv], [material]
    jaws = [torch.zeros(len(skin.position))]
    first = len(skin.position)
    for part, jaw in zip(parts, (0.0, 0.0, None, 1.0, 0.0, 1.0), strict=True):
        vertices.append(part.vertices)
        faces.append(part.faces + first)
        uvs.append(part.uv[part.faces])
        materials.append(torch.full((len(part.faces),), part.material))
        # The floor of the mouth goes with the jaw, its roof stays.
        floor = ((MOUTH_Y - part.vertices[:, 1]) / 1.0).clamp(0, 1)
        jaws.append(floor if jaw is None else torch.full((len(part.vertices),), jaw))
        first += len(part.vertices)
    neutral = torch.cat(vertices)
    rigid = torch.cat(jaws)
    expression = torch.zeros(len(EXPRESSIONS), len(neutral), 3)
    expression[:, : len(skin.position)] = expression_modes(skin)
    expression[:, len(skin.position) :] = _inner_modes(rigid[len(skin.position) :])
    eye = torch.zeros(len(neutral), dtype=torch.bool)
    eye[len(skin.position) : len(skin.position) + 2 * len(parts[0].vertices)] = True
    return HeadPack(
        neutral=neutral,
        identity=identity_modes(neutral, eye),
        expression=expression,
        faces=torch.cat(faces),
        face_uv=torch.cat(uvs),
        face_material=torch.cat(materials),
        materials=_MATERIALS,
        landmarks=_landmarks(skin.position, sides),
        skins={name: _plain_skin(tone, seed) for seed, (name, tone) in enumerate(_TONES.items())},
        hair={},
    )


_TONES = {
    "formula_fair": (0.86, 0.67, 0.57),
    "formula_tan": (0.70, 0.50, 0.38),
    "formula_dark": (0.42, 0.28, 0.21),
}


def _plain_skin(tone: tuple[float, float, float], seed: int) -> Tensor:
    """One colour with soft blotches, [3, 512, 1024]."""
    generator = torch.Generator().manual_seed(seed)
    blotches = sum(
        torch.nn.functional.interpolate(torch.randn(1, 1, n, 2 * n, generator=generator), (512, 1024), mode="bicubic")
        for n in (16, 48)
    )[0]
    return (torch.tensor(tone)[:, None, None] * (1 + 0.025 * blotches)).clamp(0, 1)


def _interpolated(y: Tensor) -> Tensor:
    """Half-width, front and back at heights y, monotone cubic between the sections, [n, 3]."""
    table = torch.tensor(_SECTIONS).flip(0)
    knots, values = table[:, 0].contiguous(), table[:, 1:]
    slopes = (values[1:] - values[:-1]) / (knots[1:] - knots[:-1])[:, None]
    inner = torch.where(slopes[1:] * slopes[:-1] > 0, (slopes[1:] + slopes[:-1]) / 2, torch.zeros_like(slopes[1:]))
    tangents = torch.cat([slopes[:1], inner, slopes[-1:]])
    i = torch.searchsorted(knots, y.contiguous()).clamp(1, len(knots) - 1)
    width = (knots[i] - knots[i - 1])[:, None]
    t = ((y - knots[i - 1]) / width[:, 0])[:, None]
    start, end = values[i - 1], values[i]
    return (
        (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * width * tangents[i - 1]
        + (3 * t**2 - 2 * t**3) * end + (t**3 - t**2) * width * tangents[i]
    )  # fmt: skip


def _skin() -> tuple[Skin, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The grid with doubled lines: the skin, and (faces, side of each vertex, face uv, face material)."""
    bands = [torch.linspace(start, end, count + 1)[:-1] for start, end, count in _BANDS]
    heights = torch.cat([*bands, torch.tensor([_BANDS[-1][1]])])
    turn = torch.linspace(-1, 1, _COLUMNS + 1)[:-1]
    # Columns are denser at the front.
    azimuth = math.pi * (0.55 * turn + 0.45 * turn**3)
    half, front, back = _interpolated(heights).unbind(1)
    x = half[:, None] * azimuth.sin().sign() * azimuth.sin().abs() ** 0.9
    middle = (front + back) / 2 - 0.5
    reach = torch.where(azimuth.cos() > 0, (front - middle)[:, None], (middle - back)[:, None])
    z = middle[:, None] + reach * azimuth.cos().sign() * azimuth.cos().abs() ** 0.85
    y = heights[:, None].expand_as(x)
    facing = azimuth.cos().clamp(min=0) ** 0.5
    for bump_x, bump_y, width, height, forward in _BUMPS:
        for at in {bump_x, -bump_x}:
            z = z + forward * facing * torch.exp(-(((x - at) / width) ** 2) - ((y - bump_y) / height) ** 2)
    ears = torch.exp(-(((azimuth.abs() - 1.75) / 0.16) ** 2))[None] * torch.exp(-(((y - 1.8) / 2.2) ** 4))
    x = x + 1.1 * ears * azimuth.sign()
    # Lids lie on the balls.
    for at in (EYE_X, -EYE_X):
        distance = (x - at) ** 2 + (y - EYE_Y) ** 2
        ball = _ball_centre(1)[2] + ((BALL_RADIUS + 0.18) ** 2 - distance).clamp(min=0).sqrt()
        near = (distance < (BALL_RADIUS + 0.1) ** 2) & (azimuth.cos() > 0)
        z = torch.where(near, torch.maximum(z, ball), z)

    rows = len(heights)
    mouth_row, eye_row = (int((heights - level).abs().argmin()) for level in (MOUTH_Y, EYE_Y))
    index = torch.arange(rows * _COLUMNS).view(rows, _COLUMNS)
    position = torch.stack([x, y, z], dim=-1).view(-1, 3)
    side = torch.where(heights > MOUTH_Y, 1, -1)[:, None].expand(rows, _COLUMNS).reshape(-1)
    lid_side = torch.where(heights > EYE_Y, 1, -1)[:, None].expand(rows, _COLUMNS).reshape(-1)
    below = {}
    for row, opened in (
        (mouth_row, x[mouth_row].abs() < MOUTH_HALF_WIDTH),
        (eye_row, (x[eye_row].abs() - EYE_X).abs() < EYE_HALF_WIDTH),
    ):
        opened = (opened & (azimuth.cos() > 0)).nonzero().squeeze(1)
        doubled = index[row].clone()
        doubled[opened] = len(position) + torch.arange(len(opened))
        below[row] = doubled
        position = torch.cat([position, position[index[row, opened]]])
        # The grid's own vertex is the upper copy, the added one the lower copy.
        side[index[mouth_row]], lid_side[index[eye_row]] = 1, 1
        side = torch.cat([side, torch.full((len(opened),), -1 if row == mouth_row else 1)])
        lid_side = torch.cat([lid_side, torch.full((len(opened),), -1)])
    upper = torch.stack([below.get(row, index[row]) for row in range(rows - 1)])
    lower = index[1:]
    a, b = upper, upper.roll(-1, 1)
    c, d = lower, lower.roll(-1, 1)
    faces = torch.stack([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)], dim=2).view(-1, 3)

    # The face tile covers the front 220 degrees, the other tile the rest.
    column = torch.arange(_COLUMNS)
    left = azimuth
    right = torch.cat([azimuth[1:], torch.tensor([math.pi])])
    is_back = ((left + right) / 2).abs() > 1.92
    level = (heights[0] - heights) / (heights[0] - heights[-1]) * 0.98 + 0.01

    def across(angle: Tensor) -> Tensor:
        ahead = 0.5 + angle / 4.1
        behind = 0.5 + (torch.remainder(angle, 2 * math.pi) - math.pi) / 2.8
        return torch.where(is_back, behind, ahead).clamp(0.01, 0.99)

    u0, u1 = across(left).expand(rows - 1, -1), across(right - 1e-4 * is_back).expand(rows - 1, -1)
    v0, v1 = level[:-1, None].expand(-1, _COLUMNS), level[1:, None].expand(-1, _COLUMNS)
    corner = [torch.stack(pair, -1) for pair in ((u0, v0), (u0, v1), (u1, v0), (u1, v1))]
    uv_a, uv_c, uv_b, uv_d = corner
    uv = torch.stack([torch.stack([uv_a, uv_c, uv_b], -2), torch.stack([uv_b, uv_c, uv_d], -2)], dim=2).view(-1, 3, 2)
    material = is_back[column].long().expand(rows - 1, -1)[..., None].expand(-1, -1, 2).reshape(-1)
    closed = Skin(position, side, lid_side)
    opened = Skin(position + lid_opening(closed), side, lid_side)
    return opened, (faces, torch.stack([side, lid_side]), uv, material)


def _ball_centre(side: int) -> tuple[float, float, float]:
    return side * EYE_X, EYE_Y, 7.65


def _grid_part(points: Tensor, material: str, flip: bool = False) -> _Part:
    """A rectangular grid of points [r, c, 3] as a mesh."""
    rows, columns = points.shape[:2]
    index = torch.arange(rows * columns).view(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = torch.cat([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)]).view(-1, 3)
    v, u = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    return _Part(
        points.reshape(-1, 3), faces.flip(1) if flip else faces, torch.stack([u, v], -1).view(-1, 2),
        _MATERIALS.index(material),
    )  # fmt: skip


def _ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], rows: int, columns: int
) -> Tensor:
    polar = torch.linspace(0.02, math.pi - 0.02, rows)[:, None]
    around = torch.linspace(-math.pi, math.pi, columns)[None]
    unit = torch.stack([polar.sin() * around.sin(), polar.cos().expand(-1, columns), polar.sin() * around.cos()], -1)
    return torch.tensor(centre) + torch.tensor(radii) * unit


def _ball(side: int) -> _Part:
    points = _ellipsoid(_ball_centre(side), (BALL_RADIUS,) * 3, 13, 21)
    return _grid_part(points, "M_ScleraLeft" if side > 0 else "M_ScleraRight")


def _cavity() -> _Part:
    """A bag behind the lips, seen from within."""
    polar = torch.linspace(0.05, math.pi - 0.05, 11)[:, None]
    around = torch.linspace(math.pi / 2, 1.5 * math.pi, 15)[None]
    unit = torch.stack([polar.sin() * around.sin(), polar.cos().expand(-1, 15), polar.sin() * around.cos()], -1)
    points = torch.tensor([0.0, -3.5, 9.2]) + torch.tensor([3.0, 2.0, 5.0]) * unit
    return _grid_part(points, "M_GumsTongue", flip=True)


def _tongue() -> _Part:
    return _grid_part(_ellipsoid((0.0, -4.5, 7.3), (1.8, 0.6, 2.2), 9, 17), "M_GumsTongue")


def _teeth(upper: bool) -> _Part:
    """A curved strip."""
    around = torch.linspace(-1.25, 1.25, 17)
    edge = (-2.0, -3.3) if upper else (-3.5, -4.7)
    wide = 2.35 if upper else 2.15
    rows = [
        torch.stack(
            [wide * around.sin(), torch.full_like(around, y), 7.9 + (1.9 if upper else 1.7) * around.cos()],
            -1,
        )
        for y in torch.linspace(*edge, 4).tolist()
    ]
    return _grid_part(torch.stack(rows), "M_Teeth")


def _inner_modes(jaw: Tensor) -> Tensor:
    """Jaw movements of tongue, teeth and cavity, [57, n, 3]."""
    modes = torch.zeros(len(EXPRESSIONS), len(jaw), 3)
    for name, move in JAW_MOVES.items():
        modes[EXPRESSIONS.index(name)] = jaw[:, None] * torch.tensor(move)
    return modes


def _landmarks(position: Tensor, sides: Tensor) -> Tensor:
    """[68] the skin vertex nearest to each iBUG landmark, on the right side of lid and lip lines."""
    left_half = [(-x, y) for x, y in reversed(_JAW)]
    eye = ((-1.45, 0, 1), (-0.6, 0, 1), (0.5, 0, 1), (1.45, 0, 1), (0.5, 0, -1), (-0.6, 0, -1))
    lip = ((-2.7, 0, 0), (-1.7, 0.6, 0), (-0.8, 0.95, 0), (0, 0.9, 0), (0.8, 0.95, 0), (1.7, 0.6, 0),
           (2.7, 0, 0), (1.7, -0.75, 0), (0.9, -1.0, 0), (0, -1.05, 0), (-0.9, -1.0, 0),
           (-1.7, -0.75, 0))  # fmt: skip
    inner = ((-2.3, 1), (-1.0, 1), (0, 1), (1.0, 1), (2.3, 1), (1.0, -1), (0, -1), (-1.0, -1))
    wanted = [(*p, 0, 0) for p in (*_JAW, _MIDDLE[0], *left_half, *_BROW, *[(-x, y) for x, y in reversed(_BROW)])]
    wanted += [(*p, 0, 0) for p in _MIDDLE[1:]]
    wanted += [(x, -1.1, 0, 0) for x in (-1.4, -0.6, 0.0, 0.6, 1.4)]
    for at in (-EYE_X, EYE_X):
        wanted += [(at + x, EYE_Y, 0, s) for x, _, s in eye]
    wanted += [(x, MOUTH_Y + y, 0, 0) for x, y, _ in lip] + [(x, MOUTH_Y, s, 0) for x, s in inner]
    table = torch.tensor(wanted)
    # Opened lids have left their line: they are looked up by column, in the row they came from.
    side, lid_side = sides
    distance = (position[None, :, 0] - table[:, None, 0]) ** 2 + (position[None, :, 1] - table[:, None, 1]) ** 2
    on_line = position[:, 1].sub(MOUTH_Y).abs() < 1e-3
    wrong = (table[:, 2:3] != 0) & ((side != table[:, 2:3]) | ~on_line)
    height = position[None, :, 1] - EYE_Y
    rim = (table[:, 3:4] != 0) & ((lid_side != table[:, 3:4]) | (height.abs() > 0.75))
    distance = distance + 1e6 * (wrong | rim | (position[:, 2] < 2.0))
    # Among the vertices of a lid the one nearest to the opening is its rim.
    return distance.argmin(1)
