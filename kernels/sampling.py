"""What the warp and its gradients share: positions, neighbours and weights of trilinear sampling, and tile sizes.

Positions and weights are float32. A point outside the volume is handled by weights, not by masked loads: an axis weight
outside is 0 and its index is clamped, so every load is a full vector of channels.

Letters: `N` batch, `C D H W` volume, `P` output points, `F*` the field's own size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import interpreting, power_of_two


@triton.jit
def line(i, SIZE: tl.constexpr, ALIGN: tl.constexpr):
    """Index -> unit-cube position of an output point on one axis."""
    if ALIGN:
        if SIZE == 1:
            return i.to(tl.float32) * 0.0
        else:
            return (2 * i - (SIZE - 1)).to(tl.float32) * (1.0 / (SIZE - 1))
    else:
        return (2 * i - (SIZE - 1)).to(tl.float32) * (1.0 / SIZE)


@triton.jit
def cell(x, SIZE: tl.constexpr, ZEROS: tl.constexpr, ALIGN: tl.constexpr):
    """Unit-cube position -> both neighbours on one axis: indices, weights, whether each counts, inner slope."""
    if ALIGN:
        u = (x + 1.0) * 0.5 * (SIZE - 1)
    else:
        u = ((x + 1.0) * SIZE - 1.0) * 0.5
    if ZEROS:
        # NaN and infinity fail the comparison and land outside
        u = tl.where((u >= -1.0) & (u < SIZE), u, -2.0)
        inner = u > -1.5
    else:
        # strictly inside, as PyTorch has it: on the border the slope is 0; NaN goes to 0
        inner = (u > 0.0) & (u < SIZE - 1)
        u = tl.where(u > 0.0, u, 0.0)
        u = tl.where(u < SIZE - 1, u, SIZE - 1.0)
    low = tl.floor(u)
    share = u - low
    i0 = low.to(tl.int32)
    i1 = i0 + 1
    in0 = i0 >= 0
    in1 = (i1 >= 0) & (i1 < SIZE)
    w0 = tl.where(in0, 1.0 - share, 0.0)
    w1 = tl.where(in1, share, 0.0)
    return tl.maximum(i0, 0), tl.minimum(tl.maximum(i1, 0), SIZE - 1), w0, w1, in0, in1, inner


@triton.jit
def flow_at(flow, x, y, z, CHANNEL: tl.constexpr, POINT: tl.constexpr,
             FD: tl.constexpr, FH: tl.constexpr, FW: tl.constexpr, ALIGN: tl.constexpr):  # fmt: skip
    """The displacement field at unit-cube positions, border outside: three tiles."""
    x0, x1, wx0, wx1, _a, _b, _c = cell(x, FW, False, ALIGN)
    y0, y1, wy0, wy1, _d, _e, _f = cell(y, FH, False, ALIGN)
    z0, z1, wz0, wz1, _g, _h, _i = cell(z, FD, False, ALIGN)
    dx = x * 0.0
    dy = dx
    dz = dx
    for kz in tl.static_range(2):
        iz, wz = (z0, wz0) if kz == 0 else (z1, wz1)
        for ky in tl.static_range(2):
            iy, wy = (y0, wy0) if ky == 0 else (y1, wy1)
            for kx in tl.static_range(2):
                ix, wx = (x0, wx0) if kx == 0 else (x1, wx1)
                at = ((iz * FH + iy) * FW + ix) * POINT
                w = wx * wy * wz
                dx += w * tl.load(flow + at)
                dy += w * tl.load(flow + at + CHANNEL)
                dz += w * tl.load(flow + at + 2 * CHANNEL)
    return dx, dy, dz


@triton.jit
def moved(theta, x, y, z):
    """theta [3, 4] times (x, y, z, 1)."""
    mx = tl.load(theta) * x + tl.load(theta + 1) * y + tl.load(theta + 2) * z + tl.load(theta + 3)
    my = tl.load(theta + 4) * x + tl.load(theta + 5) * y + tl.load(theta + 6) * z + tl.load(theta + 7)
    mz = tl.load(theta + 8) * x + tl.load(theta + 9) * y + tl.load(theta + 10) * z + tl.load(theta + 11)
    return mx, my, mz


@triton.jit
def row_of(p, COLLAPSE: tl.constexpr, OD: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr):
    """Where the channels of output point p lie, in units of C: [D, H, W, C], or [H, W, D, C] when collapsed."""
    if COLLAPSE:
        return (p % (OH * OW)) * OD + p // (OH * OW)
    else:
        return p


@triton.jit
def tap(volume, row, ix, w, c, known, C: tl.constexpr):
    at = ((row + ix) * C)[:, None] + c[None, :]
    if C % 8 == 0:
        at = tl.max_contiguous(at, (1, 8))
    if known is None:
        value = tl.load(volume + at)
    else:
        value = tl.load(volume + at, mask=known[None, :], other=0.0)
    return value.to(tl.float32) * w[:, None]


def shared(volume: Tensor) -> Tensor:
    # an expanded volume is one volume; copying it N times would undo the sharing
    if volume.shape[0] > 1 and volume.stride(0) == 0:
        volume = volume[:1]
    return volume.contiguous(memory_format=torch.channels_last_3d)


def batch_step(x: Tensor | None) -> int:
    """Elements from one sample to the next; 0 for what all share."""
    return 0 if x is None or x.shape[0] == 1 else x[0].numel()


def channel_block(c: int, widest: int = 32) -> int:
    # 32 channels: 96 is a multiple; 128 would waste a quarter of the lanes on it
    return power_of_two(c) if interpreting() else min(widest, power_of_two(c))


def point_block(points: int, c: int, block_c: int) -> int:
    if interpreting():  # cost is per program there, not per element
        return min(power_of_two(points), max(16, (1 << 18) // block_c))
    return max(16, 1024 // block_c)
