"""A batched triangle rasteriser in plain torch, for the CPU and for GPUs alike.

Triangles become scan rows, rows become exact pixel spans, spans become fragments; one `scatter_reduce` keeps
the nearest fragment of every pixel. Several pictures, of different meshes if need be, are drawn in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NOTHING = torch.iinfo(torch.int64).max
# Neighbouring triangles round their common edge differently; an overlap this wide (in pixels) leaves no
# cracks, and the depth test settles who owns a pixel that both cover.
_OVERLAP = 1e-3
# Triangles of less area (square pixels, doubled) are edge-on: their depth would be guesswork.
_SLIVER = 1e-3


@dataclass(frozen=True)
class Fragments:
    """The nearest surface of every covered pixel.

    Attributes:
        pixel: [P] int64, index into the flattened [B, H, W] pixels, ascending.
        triangle: [P] int64, index into the triangles given to `rasterise`.
        weights: [P, 3] perspective-correct barycentric weights at the pixel's centre.
    """

    pixel: Tensor
    triangle: Tensor
    weights: Tensor


AlphaTest = Callable[[Tensor, Tensor], Tensor]
"""(triangle [n], weights [n, 3]) -> keep [n] bool."""


def rasterise(
    position: Tensor,
    inverse_depth: Tensor,
    triangles: Tensor,
    picture: Tensor,
    pictures: int,
    size: int,
    two_sided: Tensor,
    tested: Tensor | None = None,
    alpha_test: AlphaTest | None = None,
) -> Fragments:
    """Draw triangles into `pictures` square pictures.

    Args:
        position: [N, 2] vertex positions in pixels (x right, y down; integers are pixel centres).
        inverse_depth: [N] one over the distance from the camera, positive.
        triangles: [K, 3] vertex indices; front faces are counter-clockwise as seen in the picture.
        picture: [K] which picture a triangle belongs to.
        pictures: number of pictures B.
        size: height and width of a picture in pixels.
        two_sided: [K] bool, triangles to draw whichever way they face.
        tested: [K] bool, triangles whose fragments have to pass `alpha_test`.
        alpha_test: decides over single fragments, before visibility.

    Returns:
        The nearest fragment of each covered pixel.
    """
    corner_x = position[:, 0].contiguous().index_select(0, triangles.flatten()).view(-1, 3)
    corner_y = position[:, 1].contiguous().index_select(0, triangles.flatten()).view(-1, 3)
    x0, x1, x2 = corner_x.unbind(1)
    y0, y1, y2 = corner_y.unbind(1)
    # y points down, so a counter-clockwise triangle has a negative area here.
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    top = torch.minimum(torch.minimum(y0, y1), y2).ceil().clamp(min=0)
    bottom = torch.maximum(torch.maximum(y0, y1), y2).floor().clamp(max=size - 1)
    left = torch.minimum(torch.minimum(x0, x1), x2).ceil()
    right = torch.maximum(torch.maximum(x0, x1), x2).floor()
    wanted = (area < -_SLIVER) | (two_sided & (area > _SLIVER))
    wanted &= (top <= bottom) & (left <= right) & (right >= 0) & (left <= size - 1)
    kept = wanted.nonzero().squeeze(1)

    corners = triangles.index_select(0, kept)
    corner_x, corner_y = corner_x.index_select(0, kept), corner_y.index_select(0, kept)
    area, top = area.index_select(0, kept), top.index_select(0, kept)
    row_counts = (bottom.index_select(0, kept) - top).long() + 1
    corner_inverse = inverse_depth.index_select(0, corners.flatten()).view(-1, 3)
    table, blend = _triangle_tables(corner_x, corner_y, corner_inverse, area, top)
    picture = picture.index_select(0, kept)

    # Triangles -> scan rows.
    owner, within = _expand(row_counts)
    row = table.index_select(0, owner)
    y = row[:, 15] + within
    lower = torch.full_like(y, -0.5)
    upper = torch.full_like(y, size - 0.5)
    for edge in range(3):
        # At the row y this edge is at x; whether it bounds from the left or from the right is known per
        # triangle.
        x = row[:, edge] + (y - row[:, 3 + edge]) * row[:, 6 + edge]
        side = row[:, 9 + edge]
        lower = torch.where(side > 0, torch.maximum(lower, x), lower)
        upper = torch.where(side < 0, torch.minimum(upper, x), upper)
    first = (lower - _OVERLAP).ceil()
    span = ((upper + _OVERLAP).floor() - first + 1).clamp(min=0).long()
    inverse_at_row = row[:, 12] + row[:, 14] * (y - row[:, 3])
    start = (picture.index_select(0, owner) * size + y.long()) * size
    row_data = torch.stack([first, inverse_at_row + row[:, 13] * (first - row[:, 0]), row[:, 13]], dim=1)

    # Scan rows -> fragments.
    row_owner, within = _expand(span)
    data = row_data.index_select(0, row_owner)
    inverse = (data[:, 1] + data[:, 2] * within).clamp(min=1e-6)
    pixel = (start + first.long()).index_select(0, row_owner) + within
    triangle = owner.index_select(0, row_owner)
    if tested is not None and alpha_test is not None:
        doubtful = tested.index_select(0, kept).index_select(0, triangle).nonzero().squeeze(1)
        if len(doubtful):
            chosen = triangle.index_select(0, doubtful)
            weights = _weights(blend, chosen, pixel.index_select(0, doubtful), size)
            fails = ~alpha_test(kept.index_select(0, chosen), weights)
            inverse[doubtful[fails]] = 0.0
    # The bits of positive floats sort like the floats: the key of the nearest fragment is the smallest.
    key = ((0x7F800000 - inverse.view(torch.int32)).long() << 32) | triangle
    nearest = torch.full((pictures * size * size,), _NOTHING, dtype=torch.int64, device=position.device)
    nearest.scatter_reduce_(0, pixel, key, "amin")
    covered = (nearest < (0x7F800000 << 32)).nonzero().squeeze(1)
    winner = nearest.index_select(0, covered) & 0xFFFFFFFF
    return Fragments(covered, kept.index_select(0, winner), _weights(blend, winner, covered, size))


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat item i counts[i] times: (item of each copy, number of the copy within its item)."""
    owner = torch.repeat_interleave(counts)
    begins = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - begins.index_select(0, owner)


def _triangle_tables(x: Tensor, y: Tensor, inverse: Tensor, area: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """What scan rows and what weights need of each triangle.

    Returns:
        [K, 16]: x (3), y (3), slope dx/dy (3) and side (3) of the edges; 1/depth at corner 0, its x and y
        gradients; the first row. [K, 9]: corner 0 (2), edges 0->1 and 0->2 over the area (4), 1/depth of the
        corners (3).
    """
    next_x, next_y = x.roll(-1, 1), y.roll(-1, 1)
    rise = next_y - y
    flat = rise.abs() < 1e-7
    slope = (next_x - x) / torch.where(flat, torch.ones_like(rise), rise)
    side = torch.where(flat, torch.zeros_like(rise), rise.sign() * -area.sign()[:, None])
    e1x, e1y, e2x, e2y = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0], x[:, 2] - x[:, 0], y[:, 2] - y[:, 0]
    d1, d2 = inverse[:, 1] - inverse[:, 0], inverse[:, 2] - inverse[:, 0]
    gradient_x = (d1 * e2y - d2 * e1y) / area
    gradient_y = (d2 * e1x - d1 * e2x) / area
    rows = torch.cat([x, y, slope, side, torch.stack([inverse[:, 0], gradient_x, gradient_y, top], dim=1)], dim=1)
    edges = torch.stack([x[:, 0], y[:, 0], e2y / area, e2x / area, e1y / area, e1x / area], dim=1)
    return rows, torch.cat([edges, inverse], dim=1)


def _weights(blend: Tensor, triangle: Tensor, pixel: Tensor, size: int) -> Tensor:
    """Perspective-correct barycentric weights of pixels in triangles, [n, 3]."""
    rows = blend.index_select(0, triangle)
    within = (pixel % (size * size)).int()
    down = torch.div(within, size, rounding_mode="floor")
    dx, dy = (within - down * size) - rows[:, 0], down - rows[:, 1]
    second = dx * rows[:, 2] - dy * rows[:, 3]
    third = dy * rows[:, 5] - dx * rows[:, 4]
    screen = torch.stack([1 - second - third, second, third], dim=1).clamp_(0, 1)
    scaled = screen * rows[:, 6:]
    return scaled / scaled.sum(1, keepdim=True)
