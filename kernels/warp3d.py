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
from .sampling import batch_step, cell, channel_block, flow_at, line, moved, point_block, row_of, shared, tap

GRID, FLOW_THEN_RIGID, RIGID_THEN_FLOW = 0, 1, 2


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
        x = line(p % OW, OW, ALIGN)
        y = line((p // OW) % OH, OH, ALIGN)
        z = line(p // (OW * OH), OD, ALIGN)
        if MODE == 1 and HAS_FLOW:
            at = n * FLOW_N + p * FLOW_POINT
            x += tl.load(flow + at, mask=inside, other=0.0)
            y += tl.load(flow + at + FLOW_CHANNEL, mask=inside, other=0.0)
            z += tl.load(flow + at + 2 * FLOW_CHANNEL, mask=inside, other=0.0)
        if HAS_THETA:
            x, y, z = moved(theta + n * THETA_N, x, y, z)
        if MODE == 2 and HAS_FLOW:
            dx, dy, dz = flow_at(flow + n * FLOW_N, x, y, z, FLOW_CHANNEL, FLOW_POINT, FD, FH, FW, ALIGN)
            x += dx
            y += dy
            z += dz
    x0, x1, wx0, wx1, _a, _b, _c = cell(x, W, ZEROS, ALIGN)
    y0, y1, wy0, wy1, _d, _e, _f = cell(y, H, ZEROS, ALIGN)
    z0, z1, wz0, wz1, _g, _h, _i = cell(z, D, ZEROS, ALIGN)
    if HAS_MASK:
        m = tl.load(mask + n * MASK_N + p, mask=inside, other=0.0).to(tl.float32)
        wz0 *= m
        wz1 *= m
    r00, r01 = (z0 * H + y0) * W, (z0 * H + y1) * W
    r10, r11 = (z1 * H + y0) * W, (z1 * H + y1) * W
    w00, w01, w10, w11 = wz0 * wy0, wz0 * wy1, wz1 * wy0, wz1 * wy1
    source = volume + n * VOLUME_N
    row = row_of(p, COLLAPSE, OD, OH, OW)
    target = out + n * POINTS * C
    for first in tl.static_range(0, C, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        if C % BLOCK_C == 0:
            known = None
        else:
            known = c < C
        total = tap(source, r00, x0, w00 * wx0, c, known, C)
        total += tap(source, r00, x1, w00 * wx1, c, known, C)
        total += tap(source, r01, x0, w01 * wx0, c, known, C)
        total += tap(source, r01, x1, w01 * wx1, c, known, C)
        total += tap(source, r10, x0, w10 * wx0, c, known, C)
        total += tap(source, r10, x1, w10 * wx1, c, known, C)
        total += tap(source, r11, x0, w11 * wx0, c, known, C)
        total += tap(source, r11, x1, w11 * wx1, c, known, C)
        store = inside[:, None]
        if known is not None:
            store = store & known[None, :]
        tl.store(target + (row * C)[:, None] + c[None, :], total.to(out.dtype.element_ty), mask=store)


def warp(
    volume: Tensor, theta: Tensor | None, flow: Tensor | None, grid: Tensor | None, mask: Tensor | None,
    size: tuple[int, int, int], *, rigid_first: bool, zeros: bool, align: bool, collapse: bool,
    block_p: int | None = None, block_c: int | None = None,
) -> Tensor:  # fmt: skip
    """Start the forward kernel; arguments as in `ops.warp3d`."""
    volume = shared(volume)
    batch = [x.shape[0] for x in (volume, theta, flow, grid, mask) if x is not None]
    n, (c, d, h, w) = max(batch) if 0 not in batch else 0, volume.shape[1:]
    out = warp_output(volume, n, size, collapse)
    if out.numel() == 0:
        return out
    theta = theta.float().contiguous() if theta is not None else None
    grid = grid.float().contiguous() if grid is not None else None
    mask = mask.expand(-1, 1, *size).contiguous() if mask is not None else None
    field, channel, point = _field(flow, size, rigid_first, align)
    points = size[0] * size[1] * size[2]
    block_c = block_c or channel_block(c)
    block_p = block_p or point_block(points, c, block_c)
    launch.launch(
        _warp_forward, (triton.cdiv(points, block_p), n), volume,
        volume, out, grid, theta, field, mask,
        batch_step(volume), batch_step(grid), batch_step(theta),
        0 if field is None or field.shape[0] == 1 else field.stride(0),
        batch_step(mask), channel, point, c, d, h, w, *size, *(field.shape[2:] if field is not None else (1, 1, 1)),
        GRID if grid is not None else RIGID_THEN_FLOW if rigid_first else FLOW_THEN_RIGID,
        theta is not None, field is not None, mask is not None, zeros, align, collapse, block_p, block_c,
        num_warps=4,
    )  # fmt: skip
    return out


def warp_output(volume: Tensor, n: int, size: tuple[int, int, int], collapse: bool) -> Tensor:
    """The output's shape and strides, for the kernel and for tracing alike."""
    c = volume.shape[1]
    if collapse:
        return launch.empty((n, size[0] * c, *size[1:]), volume, layout=torch.channels_last)
    return launch.empty((n, c, *size), volume, layout=torch.channels_last_3d)


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
