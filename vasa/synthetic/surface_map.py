"""Where on the head every texel of the skin lies.

Make-up, brows, beards and blotches are formulas of a point on the mean head, in centimetres, so that they sit
in the same place whatever the texture layout is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .person import HeadPack

TILE = 512


@dataclass(frozen=True)
class SurfaceMap:
    """The mean head seen from its texture.

    Attributes:
        position: [3, TILE, 2 TILE] cm, face tile | back-of-head tile; the nearest known point off the layout.
        inside: [TILE, 2 TILE] bool, texels that a triangle covers.
        lip_distance: [TILE, TILE] signed distance to the lips' edge on the face tile, negative inside, cm.
        lid_distance: [TILE, TILE] distance to the lids' edges on the face tile, cm, negative behind them.
        upper_lid: [TILE, TILE] 0 below that eye's corners to 1 above them.
        landmarks: [68, 3] cm.
        hairline: [V] height of every vertex above the hairline, cm.
        scalp: [TILE, 2 TILE] 0 (skin) to 1 (hairy) for every texel.
        chart: [TILE, 2 TILE, 2] centimetres around and down the head, without seams on the face; noise drawn
            in it has the same grain everywhere.
    """

    position: Tensor
    inside: Tensor
    lip_distance: Tensor
    lid_distance: Tensor
    upper_lid: Tensor
    landmarks: Tensor
    hairline: Tensor
    scalp: Tensor
    chart: Tensor


_CACHE: WeakIdKeyDictionary = WeakIdKeyDictionary()


def surface_map(pack: HeadPack) -> SurfaceMap:
    """The map of a pack's mean head, computed once per pack."""
    if pack.neutral not in _CACHE:
        _CACHE[pack.neutral] = _build(pack)
    return _CACHE[pack.neutral]


def _build(pack: HeadPack) -> SurfaceMap:
    landmarks = pack.neutral[pack.landmarks]
    tiles = []
    for material in ("M_Face", "M_BackHead"):
        own = pack.face_material == pack.materials.index(material)
        tiles.append(rasterise_uv(pack.face_uv[own], pack.neutral[pack.faces[own]]))
    position = torch.cat([fill_holes(values, known) for values, known in tiles], dim=2)
    inside = torch.cat([t[1] for t in tiles], dim=1)
    outline = landmarks[48:60]
    x, y, z = position[:, :, :TILE]
    lips = _polygon_distance(torch.stack([x, y], dim=-1), outline[:, :2])
    lips = torch.where(z > landmarks[48:60, 2].min() - 2.5, lips, lips.abs() + 3.0)
    lids, upper = _lids(pack, position[:, :, :TILE], landmarks)
    scalp = torch.sigmoid(2.5 * hairline_distance(position.permute(1, 2, 0), landmarks))
    scalp = scalp * (position[2] - 4 < position[1])
    x, y, z = position
    chart = torch.stack([torch.atan2(x, z + 2.0) * 9.0, y + 0.7 * z], dim=-1)
    return SurfaceMap(
        position,
        inside,
        lips,
        lids,
        upper,
        landmarks,
        hairline_distance(pack.neutral, landmarks),
        scalp,
        chart,
    )


def _lids(pack: HeadPack, position: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the lids' edges, and whether a texel is above the eye.

    The face mesh ends behind the edge that one sees: its open edges are moved out to the lid landmarks.
    """
    faces = pack.faces[pack.face_material == pack.materials.index("M_Face")]
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values
    edges, uses = edges.unique(dim=0, return_counts=True)
    a, b = pack.neutral[edges[uses == 1]].unbind(1)
    rim = torch.cat([torch.lerp(a, b, w) for w in (0.0, 0.25, 0.5, 0.75)])
    distance = torch.full(position.shape[1:], 2.5)
    upper = torch.zeros(position.shape[1:])
    x, y, _ = position
    for first in (36, 42):
        eye = landmarks[first : first + 6]
        middle = eye.mean(0)
        own = rim[(rim - middle).norm(dim=1) < 2.5]
        own = own if len(own) else eye
        margin = torch.cdist(eye, own).amin(1)
        near = (position - middle[:, None, None]).norm(dim=0) < 4.0
        slope = (eye[3, 1] - eye[0, 1]) / (eye[3, 0] - eye[0, 0])
        above = torch.sigmoid((y - eye[0, 1] - (x - eye[0, 0]) * slope) * 6)
        upper = torch.where(near, above, upper)
        edge = torch.lerp(margin[4:].mean(), margin[1:3].mean(), above[near])
        distance[near] = torch.minimum(distance[near], torch.cdist(position[:, near].T, own).amin(1) - edge)
    return distance, upper


def hairline_distance(points: Tensor, landmarks: Tensor) -> Tensor:
    """Height above the hairline of points [..., 3] on the mean head, cm; negative on face, ears and neck.

    The hairline runs over the forehead 0.37 face heights above the brows, down the temples in front of the
    ears and around the nape.
    """
    x, y, z = points.unbind(-1)
    brow = landmarks[17:27, 1].mean()
    top = brow + 0.37 * (brow - landmarks[8, 1])
    temple = landmarks[[0, 16]].mean(0)
    half_width = landmarks[16, 0]
    forward = z - temple[2]
    front = y - top + 0.8 * (x / half_width) ** 2 + 1.2 * ((x.abs() / half_width - 0.45) / 0.4).clamp(0, 1) ** 2
    side = torch.minimum(1.0 + 0.30 * (y - temple[1]) - forward, y - temple[1] + 0.8)
    nape = torch.minimum(y - landmarks[2, 1] + 2.0, -4.4 - forward)
    ear = torch.sigmoid((x.abs() - 1.03 * half_width) * 8) * torch.sigmoid((brow + 2.1 - y) * 4)
    ear = ear * torch.sigmoid((forward + 6.8) * 5)
    return torch.maximum(torch.maximum(front, side), nape) - 12.0 * ear


def rasterise_uv(uv: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Spread the corner values of triangles over a texture tile.

    Args:
        uv: corners in [0, 1], origin at the top left, [F, 3, 2].
        values: [F, 3, 3].

    Returns:
        [3, TILE, TILE], zero where no triangle is, and where one is, [TILE, TILE] bool.
    """
    corners, points = uv.double() * TILE - 0.5, values.double()
    low = corners.amin(1).ceil().clamp(0, TILE - 1).long()
    high = corners.amax(1).floor().clamp(0, TILE - 1).long()
    span = (high - low + 1).clamp(min=0)
    count = span[:, 0] * span[:, 1]
    owner = torch.repeat_interleave(torch.arange(len(count)), count)
    step = torch.arange(len(owner)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    column = low[owner, 0] + step % span[owner, 0]
    row = low[owner, 1] + step // span[owner, 0]
    a, b, c = corners[owner].unbind(1)
    p = torch.stack([column, row], dim=1).double()
    area = _cross(b - a, c - a)
    wb, wc = _cross(p - a, c - a) / area, _cross(b - a, p - a) / area
    weights = torch.stack([1 - wb - wc, wb, wc], dim=1)
    keep = (weights > -1e-6).all(1)
    where = row[keep] * TILE + column[keep]
    flat = torch.zeros(TILE * TILE, 3, dtype=torch.float64)
    flat[where] = (weights[keep, :, None] * points[owner[keep]]).sum(1)
    inside = torch.zeros(TILE * TILE, dtype=torch.bool)
    inside[where] = True
    inside = inside.view(TILE, TILE)
    return flat.T.reshape(3, TILE, TILE).float(), inside


def fill_holes(image: Tensor, known: Tensor) -> Tensor:
    """Fill unknown texels of [C, N, N], N a power of 2, from known ones near them."""
    weight = known[None].float()
    image = image * weight
    levels = [(image, weight)]
    while levels[-1][0].shape[-1] > 1:
        levels.append(tuple(torch.nn.functional.avg_pool2d(t[None], 2)[0] for t in levels[-1]))
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-6)
    for values, weights in reversed(levels[:-1]):
        coarse = torch.nn.functional.interpolate(filled[None], size=values.shape[-2:], mode="nearest")[0]
        filled = torch.where(weights > 0, values / weights.clamp(min=1e-6), coarse)
    return filled


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _polygon_distance(points: Tensor, polygon: Tensor) -> Tensor:
    """Signed distance of [..., 2] points to a closed polygon [N, 2], negative inside."""
    nearest = torch.full(points.shape[:-1], torch.inf)
    crossings = torch.zeros(points.shape[:-1], dtype=torch.long)
    for a, b in zip(polygon, polygon.roll(-1, 0), strict=True):
        along = ((points - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1)
        nearest = torch.minimum(nearest, (points - a - along[..., None] * (b - a)).norm(dim=-1))
        spans = (a[1] > points[..., 1]) != (b[1] > points[..., 1])
        cut = a[0] + (points[..., 1] - a[1]) / (b[1] - a[1] + 1e-9) * (b[0] - a[0])
        crossings += spans & (points[..., 0] < cut)
    return torch.where(crossings % 2 == 1, -nearest, nearest)
