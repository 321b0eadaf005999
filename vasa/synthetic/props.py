"""Glasses, hats, headbands and earrings: small meshes that ride on the head.

Lengths are centimetres in the pack's axes; every function takes the person's own neutral head [V, 3] and
returns meshes placed on it.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from .chance import choose, happens, uniform
from .complexion import noise, pick
from .person import HairMesh, HeadPack

_METALS = ((0.72, 0.66, 0.50), (0.62, 0.62, 0.64), (0.12, 0.12, 0.13), (0.55, 0.38, 0.26))
_PLASTICS = (
    (0.05, 0.05, 0.06),
    (0.20, 0.12, 0.08),
    (0.36, 0.22, 0.12),
    (0.10, 0.14, 0.24),
    (0.42, 0.08, 0.10),
)
_FABRICS = (
    (0.15, 0.16, 0.20), (0.45, 0.42, 0.38), (0.20, 0.28, 0.42), (0.50, 0.16, 0.15), (0.75, 0.72, 0.66),
    (0.24, 0.32, 0.24), (0.60, 0.48, 0.24), (0.30, 0.20, 0.26),
)  # fmt: skip


def glasses(pack: HeadPack, head: Tensor, generator: Generator) -> HairMesh:
    """Two rims, a bridge and two temples of a random shape and colour."""
    marks = head[pack.landmarks]
    eyes = torch.stack([marks[36:42].mean(0), marks[42:48].mean(0)])
    half = (eyes[1, 0] - eyes[0, 0]) / 2
    width, height = half * uniform(0.62, 0.80, generator), half * uniform(0.44, 0.70, generator)
    power = choose((2.0, 2.6, 4.0), generator)
    thin = happens(0.55, generator)
    radius = uniform(0.05, 0.09, generator) if thin else uniform(0.11, 0.20, generator)
    colour = choose((_METALS if thin else _PLASTICS), generator)
    depth = float(torch.maximum(eyes[:, 2].max() + 1.1, marks[27, 2] + 0.15))
    drop = uniform(-0.45, 0.1, generator)
    turn = torch.linspace(0, 2 * math.pi, 37)[:-1]
    ring = torch.stack(
        [
            width * turn.cos().sign() * turn.cos().abs() ** (2 / power),
            height * turn.sin().sign() * turn.sin().abs() ** (2 / power),
        ],
        dim=1,
    )
    pieces = []
    for side, eye in zip((-1, 1), eyes, strict=True):
        x = eye[0] + side * 0.08 * half + ring[:, 0]
        bend = 0.055 * (x.abs() - 1.0).clamp(min=0) ** 1.7
        rim = torch.stack([x, eye[1] + drop + ring[:, 1], depth - bend], dim=1)
        pieces.append(_tube(rim, radius, closed=True))
        outer = rim[(rim[:, 0] * side + 0.2 * rim[:, 1]).argmax()]
        ear = marks[16 if side > 0 else 0]
        hinge = outer + torch.tensor([0.35 * side, 0.05, -0.4])
        temple = torch.stack([outer, hinge, torch.lerp(hinge, ear, 0.5), ear + torch.tensor([0.0, 0.4, -0.6]), ear])
        temple[2:, 0] = side * (temple[2:, 0].abs() + torch.tensor([0.55, 0.75, 0.6]))
        temple[2, 1], temple[3, 1], temple[4, 1] = outer[1] * 0.9 + ear[1] * 0.1, ear[1] + 0.6, ear[1] + 0.2
        temple[4, 2] = ear[2] - 3.5
        pieces.append(_tube(temple, radius * 0.9))
    inner = eyes[:, 0] + torch.tensor([1.0, -1.0]) * (width - 0.08 * half)
    level = eyes[:, 1].mean() + drop + height * uniform(0.1, 0.5, generator)
    across = torch.linspace(0, 1, 7)
    bridge = torch.stack(
        [
            torch.lerp(inner[0], inner[1], across),
            level + 0.9 * across * (1 - across),
            torch.full((7,), depth + 0.02),
        ],
        dim=1,
    )
    pieces.append(_tube(bridge, radius))
    return _merge(pieces, _plain(colour, generator))


def skin_faces(pack: HeadPack) -> Tensor:
    """Triangles of face and back of the head, [n, 3]."""
    names = [pack.materials.index(name) for name in ("M_Face", "M_BackHead") if name in pack.materials]
    return pack.faces[torch.isin(pack.face_material, torch.tensor(names))]


def dome(pack: HeadPack, head: Tensor) -> tuple[Tensor, Tensor]:
    """Centre [3] and radii [3] of an ellipsoid around the skull above the brows."""
    centre, skull = _skull(pack, head)
    low, high = skull.amin(0), skull.amax(0)
    radii = torch.stack([(high[0] - low[0]) / 2, high[1] - centre[1], (high[2] - low[2]) / 2])
    spread = ((skull - centre) / radii).norm(dim=1)
    return centre, radii * spread.amax().clamp(1.0, 1.12)


def _skull(pack: HeadPack, head: Tensor) -> tuple[Tensor, Tensor]:
    """A point inside the skull at brow height, [3], and the skin above the ears, [n, 3]."""
    brow = head[pack.landmarks[17:27], 1].mean()
    skin = head[skin_faces(pack).unique()]
    skull = skin[skin[:, 1] > brow + 1.5]
    skull = skull[skull[:, 0].abs() < 1.06 * head[pack.landmarks[[0, 16]], 0].abs().mean()]
    low, high = skull.amin(0), skull.amax(0)
    return torch.stack([(low[0] + high[0]) / 2, brow - 0.5, (low[2] + high[2]) / 2]), skull


def hat(pack: HeadPack, head: Tensor, generator: Generator) -> tuple[HairMesh, float]:
    """A beanie, cap or brimmed hat, and how far above the brows its front edge sits (cm)."""
    kind = pick((4.0, 3.0, 2.0), generator)
    edge = uniform(0.8, 2.8, generator)
    loose = uniform(1.03, 1.09, generator)
    top = (uniform(1.0, 1.25, generator), uniform(0.95, 1.05, generator), uniform(1.0, 1.3, generator))[kind]
    pieces = [_band(pack, head, edge, None, loose, top)]
    centre, radii = dome(pack, head)
    if kind == 0:
        pieces.append(_band(pack, head, edge - 0.1, edge + uniform(1.2, 2.2, generator), loose + 0.025, 1.0))
    else:
        turn = torch.linspace(-1.25, 1.25, 25) if kind == 1 else torch.linspace(-math.pi, math.pi, 49)
        reach = uniform(3.5, 5.5, generator) if kind == 1 else uniform(3.0, 6.0, generator)
        taper = (turn.cos().clamp(min=0) ** 0.5) if kind == 1 else torch.ones_like(turn)
        rows = []
        for step in (0.0, 0.5, 1.0):
            out = loose * 0.98 + step * taper * reach / float(radii[2])
            level = head[pack.landmarks[17:27], 1].mean() + edge - 0.35 * (1 - turn.cos()) * 2 - step * taper * 0.9
            x, z = centre[0] + radii[0] * out * turn.sin(), centre[2] + radii[2] * out * turn.cos()
            rows.append(torch.stack([x, level, z], dim=1))
        pieces.append(_sheet(torch.stack(rows)))
    return _merge(pieces, _cloth(generator)), edge


def headband(pack: HeadPack, head: Tensor, generator: Generator) -> HairMesh:
    """A strip of cloth around the forehead or over the hair."""
    edge = uniform(2.2, 4.2, generator)
    return _merge([_band(pack, head, edge, edge + uniform(0.7, 2.4, generator), 1.06, 1.0)], _cloth(generator))


def earrings(pack: HeadPack, head: Tensor, generator: Generator) -> HairMesh | None:
    """Studs, drops or hoops under both ear lobes; None when the head has no ears."""
    half_width = pack.neutral[pack.landmarks[16], 0]
    nose, chin = pack.neutral[pack.landmarks[33], 1], pack.neutral[pack.landmarks[8], 1]
    ears = (pack.neutral[:, 0].abs() > 1.045 * half_width) & (pack.neutral[:, 1] > (nose + chin) / 2)
    ears &= pack.neutral[:, 2] < pack.neutral[pack.landmarks[16], 2]
    if not ears.any():
        return None
    kind = choose(range(3), generator)
    radius, drop = uniform(0.22, 0.42, generator), uniform(0.2, 2.2, generator)
    pieces = []
    for side in (-1, 1):
        own = (ears & (pack.neutral[:, 0] * side > 0)).nonzero()[:, 0]
        lobe = head[own[pack.neutral[own, 1].argmin()]] + torch.tensor([0.15 * side, 0.25, 0.1])
        if kind == 0:
            pieces.append(_ball(lobe, radius))
        elif kind == 1:
            wire = torch.stack([lobe, lobe - torch.tensor([0.0, drop, 0.0])])
            pieces += [_tube(wire, 0.06), _ball(wire[1] - torch.tensor([0.0, radius, 0.0]), radius * 1.2)]
        else:
            turn = torch.linspace(0, 2 * math.pi, 25)[:-1]
            size = 0.5 + 0.6 * drop
            hoop = torch.stack([0.15 * side * turn.cos(), size * (turn.cos() - 1), size * turn.sin()], dim=1)
            pieces.append(_tube(lobe + hoop, 0.09, closed=True))
    gold = choose((*_METALS[:2], (0.90, 0.87, 0.82), (0.15, 0.30, 0.45), (0.55, 0.10, 0.15)), generator)
    return _merge(pieces, _plain(gold, generator))


def _band(pack: HeadPack, head: Tensor, low: float, high: float | None, loose: float, top: float) -> tuple:
    """A zone around the skull from `low` cm above the brows (lower behind) to `high`, or to the crown."""
    centre, skull = _skull(pack, head)
    brow = head[pack.landmarks[17:27], 1].mean()
    turn = torch.linspace(-math.pi, math.pi, 49)
    lowered = 1.6 * (1 - turn.cos()) / 2
    size = (skull - centre).norm(dim=1).mean()
    start = ((brow + low - lowered - centre[1]) / size).clamp(-0.9, 0.99).asin()
    stop = torch.full_like(start, math.pi / 2)
    if high is not None:
        stop = ((brow + high - lowered - centre[1]) / size).clamp(-0.9, 0.99).asin()
    rows = []
    for step in torch.linspace(0, 1, 12 if high is None else 4):
        angle = torch.lerp(start, stop, step)
        ray = torch.stack([turn.sin() * angle.cos(), angle.sin(), turn.cos() * angle.cos()], dim=1)
        radius = _reach(ray, skull - centre)
        stretch = torch.stack([torch.ones(()), torch.lerp(torch.ones(()), torch.tensor(top), step), torch.ones(())])
        rows.append(centre + loose * radius[:, None] * ray * stretch + 0.25 * ray)
    return _sheet(torch.stack(rows))


def _reach(rays: Tensor, points: Tensor) -> Tensor:
    """Distance from the origin to a cloud of points [n, 3] along unit vectors [R, 3], smoothed."""
    far = points.norm(dim=1)
    near = torch.exp(40 * (rays @ (points / far[:, None]).T - 1))
    return (near @ far) / near.sum(1).clamp(min=1e-6)


def skull_distance(points: Tensor, pack: HeadPack, head: Tensor) -> tuple[Tensor, Tensor]:
    """Centre [3] of the skull, and how far points [n, 3] are from it; 1 is on the scalp, [n]."""
    centre, skull = _skull(pack, head)
    away = points - centre
    length = away.norm(dim=1).clamp(min=1e-3)
    return centre, length / _reach(away / length[:, None], skull - centre)


def _sheet(grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles over a [R, C, 3] grid of points."""
    rows, columns = grid.shape[:2]
    index = torch.arange(rows * columns).view(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([b, d, c], -1).view(-1, 3)])
    u = torch.linspace(0.02, 0.98, columns).expand(rows, columns)
    v = torch.linspace(0.98, 0.02, rows)[:, None].expand(rows, columns)
    return grid.reshape(-1, 3), faces, torch.stack([u, v], -1).reshape(-1, 2)[faces]


def _tube(path: Tensor, radius: float, closed: bool = False, sides: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """A round wire along points [N, 3]."""
    ahead, behind = path.roll(-1, 0), path.roll(1, 0)
    if not closed:
        ahead[-1], behind[0] = path[-1], path[0]
    tangent = torch.nn.functional.normalize(ahead - behind, dim=1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(tangent)
    up = torch.where(tangent[:, 2:].abs() > 0.9, torch.tensor([0.0, 1.0, 0.0]).expand_as(tangent), up)
    first = torch.nn.functional.normalize(torch.linalg.cross(tangent, up), dim=1)
    second = torch.linalg.cross(tangent, first)
    turn = torch.linspace(0, 2 * math.pi, sides + 1)
    grid = path[:, None] + radius * (first[:, None] * turn.cos()[:, None] + second[:, None] * turn.sin()[:, None])
    return _sheet(torch.cat([grid, grid[:1]]) if closed else grid)


def _ball(centre: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    turn, tilt = torch.linspace(-math.pi, math.pi, 13), torch.linspace(-math.pi / 2, math.pi / 2, 8)[:, None]
    grid = torch.stack([turn.sin() * tilt.cos(), tilt.sin().expand(8, 13), turn.cos() * tilt.cos()], dim=-1)
    return _sheet(centre + radius * grid)


def _merge(pieces: list[tuple[Tensor, Tensor, Tensor]], texture: Tensor) -> HairMesh:
    start, faces = 0, []
    for vertices, triangles, _ in pieces:
        faces.append(triangles + start)
        start += len(vertices)
    return HairMesh(torch.cat([p[0] for p in pieces]), torch.cat(faces), torch.cat([p[2] for p in pieces]), texture)


def _plain(colour: tuple[float, float, float], generator: Generator) -> Tensor:
    """An opaque texture of one colour, slightly uneven."""
    shade = 1 + 0.08 * noise(generator, 8, (32, 32))
    return torch.cat([(torch.tensor(colour)[:, None, None] * shade).clamp(0, 1), torch.ones(1, 32, 32)])


def _cloth(generator: Generator) -> Tensor:
    """Plain, knitted, striped or patterned fabric, opaque."""
    colour = torch.tensor(choose(_FABRICS, generator))[:, None, None]
    other = torch.tensor(choose(_FABRICS, generator))[:, None, None]
    row = torch.arange(128.0)[:, None].expand(128, 128)
    column = row.T
    kind = choose(range(4), generator)
    if kind == 0:
        mask = torch.zeros(128, 128)
    elif kind == 1:
        mask = 0.35 * (torch.sin(column * 1.2) * 0.5 + 0.5)
    elif kind == 2:
        mask = (torch.sin(row * uniform(0.15, 0.6, generator)) > 0.2).float()
    else:
        mask = torch.sigmoid(noise(generator, 12, (128, 128))[0] * 4)
    fabric = torch.lerp(colour.expand(3, 128, 128), other.expand(3, 128, 128), mask)
    fabric = fabric * (1 + 0.05 * noise(generator, 64, (128, 128)))
    return torch.cat([fabric.clamp(0.02, 0.98), torch.ones(1, 128, 128)])
