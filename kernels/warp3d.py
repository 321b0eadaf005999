"""Trilinear sampling of a channels-last volume: rigid map, displacement field and sampling in one launch.

A program moves BLOCK_P output points. Positions and sums are float32 whatever the volume's dtype. Points outside the
volume are handled by weights, not by masked loads: an axis weight outside is 0 and its index is clamped, so every load
is a full vector of channels. Consequence: Inf or NaN in a border voxel also spoils points that lie outside of it.

Letters: `N` batch, `C D H W` volume, `P` output points, `F*` the field's own size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .launch import interpreting, power_of_two

GRID, FLOW_THEN_RIGID, RIGID_THEN_FLOW = 0, 1, 2


@triton.jit
def _line(i, SIZE: tl.constexpr, ALIGN: tl.constexpr):
    """Index -> unit-cube position of an output point on one axis."""
    if ALIGN:
        if SIZE == 1:
            return i.to(tl.float32) * 0.0
        else:
            return (2 * i - (SIZE - 1)).to(tl.float32) * (1.0 / (SIZE - 1))
    else:
        return (2 * i - (SIZE - 1)).to(tl.float32) * (1.0 / SIZE)


@triton.jit
def _cell(x, SIZE: tl.constexpr, ZEROS: tl.constexpr, ALIGN: tl.constexpr):
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
def _flow_at(flow, x, y, z, CHANNEL: tl.constexpr, POINT: tl.constexpr,
             FD: tl.constexpr, FH: tl.constexpr, FW: tl.constexpr, ALIGN: tl.constexpr):  # fmt: skip
    """The displacement field at unit-cube positions, border outside: three tiles."""
    x0, x1, wx0, wx1, _a, _b, _c = _cell(x, FW, False, ALIGN)
    y0, y1, wy0, wy1, _d, _e, _f = _cell(y, FH, False, ALIGN)
    z0, z1, wz0, wz1, _g, _h, _i = _cell(z, FD, False, ALIGN)
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
def _moved(theta, x, y, z):
    """theta [3, 4] times (x, y, z, 1)."""
    mx = tl.load(theta) * x + tl.load(theta + 1) * y + tl.load(theta + 2) * z + tl.load(theta + 3)
    my = tl.load(theta + 4) * x + tl.load(theta + 5) * y + tl.load(theta + 6) * z + tl.load(theta + 7)
    mz = tl.load(theta + 8) * x + tl.load(theta + 9) * y + tl.load(theta + 10) * z + tl.load(theta + 11)
    return mx, my, mz


@triton.jit
def _row(p, COLLAPSE: tl.constexpr, OD: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr):
    """Where the channels of output point p lie, in units of C: [D, H, W, C], or [H, W, D, C] when collapsed."""
    if COLLAPSE:
        return (p % (OH * OW)) * OD + p // (OH * OW)
    else:
        return p


@triton.jit
def _tap(volume, row, ix, w, c, known, C: tl.constexpr):
    at = ((row + ix) * C)[:, None] + c[None, :]
    if C % 8 == 0:
        at = tl.max_contiguous(at, (1, 8))
    if known is None:
        value = tl.load(volume + at)
    else:
        value = tl.load(volume + at, mask=known[None, :], other=0.0)
    return value.to(tl.float32) * w[:, None]


@triton.jit
def _warp_forward(
    volume, out, grid, theta, flow, mask,
    VOLUME_N: tl.constexpr, GRID_N: tl.constexpr, THETA_N: tl.constexpr, FLOW_N: tl.constexpr, MASK_N: tl.constexpr,
    FLOW_CHANNEL: tl.constexpr, FLOW_POINT: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    OD: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, FD: tl.constexpr, FH: tl.constexpr, FW: tl.constexpr,
    MODE: tl.constexpr, HAS_THETA: tl.constexpr, HAS_FLOW: tl.constexpr, HAS_MASK: tl.constexpr,
    ZEROS: tl.constexpr, ALIGN: tl.constexpr, COLLAPSE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    POINTS: tl.constexpr = OD * OH * OW
    n = tl.program_id(1).to(tl.int64)  # 342 frames of 96 x 16 x 64 x 64 pass 2^31 elements
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = p < POINTS
    if MODE == 0:
        at = n * GRID_N + p * 3
        x = tl.load(grid + at, mask=inside, other=0.0)
        y = tl.load(grid + at + 1, mask=inside, other=0.0)
        z = tl.load(grid + at + 2, mask=inside, other=0.0)
    else:
        x = _line(p % OW, OW, ALIGN)
        y = _line((p // OW) % OH, OH, ALIGN)
        z = _line(p // (OW * OH), OD, ALIGN)
        if MODE == 1 and HAS_FLOW:
            at = n * FLOW_N + p * FLOW_POINT
            x += tl.load(flow + at, mask=inside, other=0.0)
            y += tl.load(flow + at + FLOW_CHANNEL, mask=inside, other=0.0)
            z += tl.load(flow + at + 2 * FLOW_CHANNEL, mask=inside, other=0.0)
        if HAS_THETA:
            x, y, z = _moved(theta + n * THETA_N, x, y, z)
        if MODE == 2 and HAS_FLOW:
            dx, dy, dz = _flow_at(flow + n * FLOW_N, x, y, z, FLOW_CHANNEL, FLOW_POINT, FD, FH, FW, ALIGN)
            x += dx
            y += dy
            z += dz
    x0, x1, wx0, wx1, _a, _b, _c = _cell(x, W, ZEROS, ALIGN)
    y0, y1, wy0, wy1, _d, _e, _f = _cell(y, H, ZEROS, ALIGN)
    z0, z1, wz0, wz1, _g, _h, _i = _cell(z, D, ZEROS, ALIGN)
    if HAS_MASK:
        m = tl.load(mask + n * MASK_N + p, mask=inside, other=0.0).to(tl.float32)
        wz0 *= m
        wz1 *= m
    r00, r01 = (z0 * H + y0) * W, (z0 * H + y1) * W
    r10, r11 = (z1 * H + y0) * W, (z1 * H + y1) * W
    w00, w01, w10, w11 = wz0 * wy0, wz0 * wy1, wz1 * wy0, wz1 * wy1
    source = volume + n * VOLUME_N
    row = _row(p, COLLAPSE, OD, OH, OW)
    target = out + n * POINTS * C
    for first in tl.static_range(0, C, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        if C % BLOCK_C == 0:
            known = None
        else:
            known = c < C
        total = _tap(source, r00, x0, w00 * wx0, c, known, C)
        total += _tap(source, r00, x1, w00 * wx1, c, known, C)
        total += _tap(source, r01, x0, w01 * wx0, c, known, C)
        total += _tap(source, r01, x1, w01 * wx1, c, known, C)
        total += _tap(source, r10, x0, w10 * wx0, c, known, C)
        total += _tap(source, r10, x1, w10 * wx1, c, known, C)
        total += _tap(source, r11, x0, w11 * wx0, c, known, C)
        total += _tap(source, r11, x1, w11 * wx1, c, known, C)
        store = inside[:, None]
        if known is not None:
            store = store & known[None, :]
        tl.store(target + (row * C)[:, None] + c[None, :], total.to(out.dtype.element_ty), mask=store)


@triton.jit
def _warp_grad_volume(
    grad, grid, grad_volume, GRID_N: tl.constexpr, VOLUME_N: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    OD: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    ZEROS: tl.constexpr, ALIGN: tl.constexpr, COLLAPSE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    POINTS: tl.constexpr = OD * OH * OW
    n = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = p < POINTS
    at = n * GRID_N + p * 3
    x0, x1, wx0, wx1, _a, _b, _c = _cell(tl.load(grid + at, mask=inside, other=0.0), W, ZEROS, ALIGN)
    y0, y1, wy0, wy1, _d, _e, _f = _cell(tl.load(grid + at + 1, mask=inside, other=0.0), H, ZEROS, ALIGN)
    z0, z1, wz0, wz1, _g, _h, _i = _cell(tl.load(grid + at + 2, mask=inside, other=0.0), D, ZEROS, ALIGN)
    row = _row(p, COLLAPSE, OD, OH, OW)
    source = grad + n * POINTS * C
    target = grad_volume + n * VOLUME_N
    for first in range(0, C, BLOCK_C):  # unrolled, this spills
        c = first + tl.arange(0, BLOCK_C)
        known = inside[:, None] & (c < C)[None, :]
        g = tl.load(source + (row * C)[:, None] + c[None, :], mask=known, other=0.0).to(tl.float32)
        for kz in tl.static_range(2):
            iz, wz = (z0, wz0) if kz == 0 else (z1, wz1)
            for ky in tl.static_range(2):
                iy, wy = (y0, wy0) if ky == 0 else (y1, wy1)
                for kx in tl.static_range(2):
                    ix, wx = (x0, wx0) if kx == 0 else (x1, wx1)
                    w = wx * wy * wz
                    place = (((iz * H + iy) * W + ix) * C)[:, None] + c[None, :]
                    tl.atomic_add(target + place, g * w[:, None], mask=known & (w != 0.0)[:, None], sem="relaxed")


@triton.jit
def _warp_grad_grid(
    grad, volume, grid, grad_grid, GRID_N: tl.constexpr, VOLUME_N: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    OD: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    ZEROS: tl.constexpr, ALIGN: tl.constexpr, COLLAPSE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    POINTS: tl.constexpr = OD * OH * OW
    n = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = p < POINTS
    at = n * GRID_N + p * 3
    x0, x1, wx0, wx1, xa, xb, inner_x = _cell(tl.load(grid + at, mask=inside, other=0.0), W, ZEROS, ALIGN)
    y0, y1, wy0, wy1, ya, yb, inner_y = _cell(tl.load(grid + at + 1, mask=inside, other=0.0), H, ZEROS, ALIGN)
    z0, z1, wz0, wz1, za, zb, inner_z = _cell(tl.load(grid + at + 2, mask=inside, other=0.0), D, ZEROS, ALIGN)
    row = _row(p, COLLAPSE, OD, OH, OW)
    source = volume + n * VOLUME_N
    gx = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    gy = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    gz = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for first in range(0, C, BLOCK_C):  # unrolled, this spills
        c = first + tl.arange(0, BLOCK_C)
        known = inside[:, None] & (c < C)[None, :]
        g = tl.load(grad + n * POINTS * C + (row * C)[:, None] + c[None, :], mask=known, other=0.0).to(tl.float32)
        for kz in tl.static_range(2):
            iz, wz, sz = (z0, wz0, tl.where(za, -1.0, 0.0)) if kz == 0 else (z1, wz1, tl.where(zb, 1.0, 0.0))
            for ky in tl.static_range(2):
                iy, wy, sy = (y0, wy0, tl.where(ya, -1.0, 0.0)) if ky == 0 else (y1, wy1, tl.where(yb, 1.0, 0.0))
                for kx in tl.static_range(2):
                    ix, wx, sx = (x0, wx0, tl.where(xa, -1.0, 0.0)) if kx == 0 else (x1, wx1, tl.where(xb, 1.0, 0.0))
                    place = (((iz * H + iy) * W + ix) * C)[:, None] + c[None, :]
                    v = g * tl.load(source + place, mask=(c < C)[None, :], other=0.0).to(tl.float32)
                    gx += v * (sx * wy * wz)[:, None]
                    gy += v * (wx * sy * wz)[:, None]
                    gz += v * (wx * wy * sz)[:, None]
    if ALIGN:
        half_x: tl.constexpr = 0.5 * (W - 1)
        half_y: tl.constexpr = 0.5 * (H - 1)
        half_z: tl.constexpr = 0.5 * (D - 1)
    else:
        half_x: tl.constexpr = 0.5 * W
        half_y: tl.constexpr = 0.5 * H
        half_z: tl.constexpr = 0.5 * D
    to = grad_grid + (n * POINTS + p) * 3
    tl.store(to, tl.where(inner_x, tl.sum(gx, 1) * half_x, 0.0), mask=inside)
    tl.store(to + 1, tl.where(inner_y, tl.sum(gy, 1) * half_y, 0.0), mask=inside)
    tl.store(to + 2, tl.where(inner_z, tl.sum(gz, 1) * half_z, 0.0), mask=inside)


def warp(
    volume: Tensor, theta: Tensor | None, flow: Tensor | None, grid: Tensor | None, mask: Tensor | None,
    size: tuple[int, int, int], *, rigid_first: bool, zeros: bool, align: bool, collapse: bool,
    block_p: int | None = None, block_c: int | None = None,
) -> Tensor:  # fmt: skip
    """Start the forward kernel; arguments as in `ops.warp3d`."""
    volume = _shared(volume)
    batch = [x.shape[0] for x in (volume, theta, flow, grid, mask) if x is not None]
    n, (c, d, h, w) = max(batch) if 0 not in batch else 0, volume.shape[1:]
    out = warp_output(volume, n, size, collapse)
    if out.numel() == 0:
        return out
    theta = theta.float().contiguous() if theta is not None else None
    grid = grid.float().contiguous() if grid is not None else None
    mask = mask.contiguous() if mask is not None else None
    field, channel, point = _field(flow, size, rigid_first, align)
    points = size[0] * size[1] * size[2]
    block_c = block_c or _channel_block(c)
    block_p = block_p or _point_block(points, c, block_c)
    launch.launch(
        _warp_forward, (triton.cdiv(points, block_p), n), volume,
        volume, out, grid, theta, field, mask,
        _step(volume), _step(grid), _step(theta), 0 if field is None or field.shape[0] == 1 else field.stride(0),
        _step(mask), channel, point, c, d, h, w, *size, *(field.shape[2:] if field is not None else (1, 1, 1)),
        GRID if grid is not None else RIGID_THEN_FLOW if rigid_first else FLOW_THEN_RIGID,
        theta is not None, field is not None, mask is not None, zeros, align, collapse, block_p, block_c,
        num_warps=4,
    )  # fmt: skip
    return out


def grad_volume(
    grad: Tensor, grid: Tensor, volume_size: tuple[int, ...], *, zeros: bool, align: bool, collapse: bool,
    block_p: int | None = None, block_c: int | None = None,
) -> Tensor:  # fmt: skip
    """Scatter a gradient into the volume, float32, atomically: not the same bits twice.

    Args:
        grad: gradient of the output, [N, C, D', H', W'] or [N, D' C, H', W'] collapsed.
        grid: sampling positions, [N, D', H', W', 3].
        volume_size: (N or 1, C, D, H, W).
    """
    total = launch.empty(volume_size, grad, torch.float32, torch.channels_last_3d).zero_()
    size, c = grid.shape[1:4], volume_size[1]
    if grad.numel() == 0:
        return total
    grad = grad.contiguous(memory_format=launch.channels_last(grad))
    grid = grid.float().contiguous()
    points = size[0] * size[1] * size[2]
    block_c = block_c or _channel_block(c, widest=16)
    block_p = block_p or _point_block(points, c, block_c)
    launch.launch(
        _warp_grad_volume, (triton.cdiv(points, block_p), grad.shape[0]), grad,
        grad, grid, total, _step(grid), _step(total), *volume_size[1:], *size,
        zeros, align, collapse, block_p, block_c, num_warps=4,
    )  # fmt: skip
    return total


def grad_grid(
    grad: Tensor, volume: Tensor, grid: Tensor, *, zeros: bool, align: bool, collapse: bool,
    block_p: int | None = None, block_c: int | None = None,
) -> Tensor:  # fmt: skip
    """Gradient of the sampling positions, [N, D', H', W', 3] float32; arguments as in `grad_volume`."""
    volume = _shared(volume)
    size, c = grid.shape[1:4], volume.shape[1]
    n = grad.shape[0]
    out = launch.empty((n, *size, 3), grad, torch.float32)
    if out.numel() == 0:
        return out
    grad = grad.contiguous(memory_format=launch.channels_last(grad))
    grid = grid.float().contiguous()
    points = size[0] * size[1] * size[2]
    block_c = block_c or _channel_block(c, widest=16)
    block_p = block_p or _point_block(points, c, block_c)
    launch.launch(
        _warp_grad_grid, (triton.cdiv(points, block_p), n), grad,
        grad, volume, grid, out, _step(grid), _step(volume), *volume.shape[1:], *size,
        zeros, align, collapse, block_p, block_c, num_warps=4,
    )  # fmt: skip
    return out


def warp_output(volume: Tensor, n: int, size: tuple[int, int, int], collapse: bool) -> Tensor:
    """The output's shape and strides, for the kernel and for tracing alike."""
    c = volume.shape[1]
    if collapse:
        return launch.empty((n, size[0] * c, *size[1:]), volume, layout=torch.channels_last)
    return launch.empty((n, c, *size), volume, layout=torch.channels_last_3d)


def _shared(volume: Tensor) -> Tensor:
    # an expanded volume is one volume; copying it N times would undo the sharing
    if volume.shape[0] > 1 and volume.stride(0) == 0:
        volume = volume[:1]
    return volume.contiguous(memory_format=torch.channels_last_3d)


def _step(x: Tensor | None) -> int:
    """Elements from one sample to the next; 0 for what all share."""
    return 0 if x is None or x.shape[0] == 1 else x[0].numel()


def _field(
    flow: Tensor | None, size: tuple[int, int, int], rigid_first: bool, align: bool
) -> tuple[Tensor | None, int, int]:
    """The field in float32 with its channel and point strides, taken as it lies where its points are evenly spaced."""
    if flow is None:
        return None, 0, 0
    flow = flow.float()
    if not rigid_first and tuple(flow.shape[2:]) != tuple(size):
        flow = F.interpolate(flow, size=tuple(size), mode="trilinear", align_corners=align)
    d, h, w = flow.shape[2:]
    point = flow.stride(4)
    if flow.stride()[2:4] != (h * w * point, w * point):
        flow, point = flow.contiguous(), 1
    return flow, flow.stride(1), point


def _channel_block(c: int, widest: int = 32) -> int:
    # 32 channels: 96 is a multiple; 128 would waste a quarter of the lanes on it
    return power_of_two(c) if interpreting() else min(widest, power_of_two(c))


def _point_block(points: int, c: int, block_c: int) -> int:
    if interpreting():  # cost is per program there, not per element
        return min(power_of_two(points), max(16, (1 << 18) // block_c))
    return max(16, 1024 // block_c)
