"""Gradients of trilinear sampling, one kernel each: in one they would spill.

The volume's is scattered with float32 atomics, so it is not the same bits twice; that of the positions is gathered.

Letters: `N` batch, `C D H W` volume, `P` output points.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .sampling import batch_step, cell, channel_block, point_block, row_of, shared


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
    x0, x1, wx0, wx1, _a, _b, _c = cell(tl.load(grid + at, mask=inside, other=0.0), W, ZEROS, ALIGN)
    y0, y1, wy0, wy1, _d, _e, _f = cell(tl.load(grid + at + 1, mask=inside, other=0.0), H, ZEROS, ALIGN)
    z0, z1, wz0, wz1, _g, _h, _i = cell(tl.load(grid + at + 2, mask=inside, other=0.0), D, ZEROS, ALIGN)
    row = row_of(p, COLLAPSE, OD, OH, OW)
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
    x0, x1, wx0, wx1, xa, xb, inner_x = cell(tl.load(grid + at, mask=inside, other=0.0), W, ZEROS, ALIGN)
    y0, y1, wy0, wy1, ya, yb, inner_y = cell(tl.load(grid + at + 1, mask=inside, other=0.0), H, ZEROS, ALIGN)
    z0, z1, wz0, wz1, za, zb, inner_z = cell(tl.load(grid + at + 2, mask=inside, other=0.0), D, ZEROS, ALIGN)
    row = row_of(p, COLLAPSE, OD, OH, OW)
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
    block_c = block_c or channel_block(c, widest=16)
    block_p = block_p or point_block(points, c, block_c)
    launch.launch(
        _warp_grad_volume, (triton.cdiv(points, block_p), grad.shape[0]), grad,
        grad, grid, total, batch_step(grid), batch_step(total), *volume_size[1:], *size,
        zeros, align, collapse, block_p, block_c, num_warps=4,
    )  # fmt: skip
    return total


def grad_grid(
    grad: Tensor, volume: Tensor, grid: Tensor, *, zeros: bool, align: bool, collapse: bool,
    block_p: int | None = None, block_c: int | None = None,
) -> Tensor:  # fmt: skip
    """Gradient of the sampling positions, [N, D', H', W', 3] float32; arguments as in `grad_volume`."""
    volume = shared(volume)
    size, c = grid.shape[1:4], volume.shape[1]
    n = grad.shape[0]
    out = launch.empty((n, *size, 3), grad, torch.float32)
    if out.numel() == 0:
        return out
    grad = grad.contiguous(memory_format=launch.channels_last(grad))
    grid = grid.float().contiguous()
    points = size[0] * size[1] * size[2]
    block_c = block_c or channel_block(c, widest=16)
    block_p = block_p or point_block(points, c, block_c)
    launch.launch(
        _warp_grad_grid, (triton.cdiv(points, block_p), n), grad,
        grad, volume, grid, out, batch_step(grid), batch_step(volume), *volume.shape[1:], *size,
        zeros, align, collapse, block_p, block_c, num_warps=4,
    )  # fmt: skip
    return out
