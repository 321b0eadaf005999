"""Norms of channels-last features: GroupNorm with an adaptive scale and shift and SiLU, and residual sum + LayerNorm.

GroupNorm reads the features twice and writes them once, in three launches: partial mean and variance of every channel,
one affine map per sample and channel, and that map with SiLU. Statistics are float32 and taken about each chunk's
first value, so a large mean costs no digits. Groups may have any width.

Letters: `N` batch, `C` channels, `P` points (all of space), `G` groups, `R` rows, `D` features.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .launch import interpreting, power_of_two

_MAX_CHUNKS = 256
_MAX_GROUP_TILE = 8192


@triton.jit
def _channel_statistics(
    x, partial, N, C: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations per chunk of ROWS points and channel: partial [2, N, CHUNKS, C]."""
    n = tl.program_id(2).to(tl.int64)
    chunk = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < C
    source = x + n * POINTS * C
    pivot = tl.load(source + chunk * ROWS * C + c, mask=known, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for first in tl.static_range(0, ROWS, BLOCK_P):
        p = chunk * ROWS + first + tl.arange(0, BLOCK_P)
        inside = (p < POINTS)[:, None] & known[None, :]
        value = tl.load(source + (p * C)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - pivot[None, :], 0.0)
        total += value
        squares += value * value
    count = tl.minimum(POINTS - chunk * ROWS, ROWS).to(tl.float32)
    sums = tl.sum(total, 0)
    mean = sums / count
    to = (n * CHUNKS + chunk) * C + c
    tl.store(partial + to, pivot + mean, mask=known)
    tl.store(partial + N * CHUNKS * C + to, tl.sum(squares, 0) - sums * mean, mask=known)


@triton.jit
def _group_affine(
    partial, weight, bias, scale, shift, affine, N, eps, SCALE_N, SHIFT_N,
    C: tl.constexpr, WIDTH: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_SCALE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Merge the chunks of one group; y = a x + b per channel: affine [2, N, C]."""
    n = tl.program_id(1).to(tl.int64)
    chunk = tl.arange(0, BLOCK_N)
    i = tl.arange(0, BLOCK_C)
    c = tl.program_id(0) * WIDTH + i
    known = i < WIDTH
    inside = (chunk < CHUNKS)[:, None] & known[None, :]
    at = n * CHUNKS * C + (chunk * C)[:, None] + c[None, :]
    means = tl.load(partial + at, mask=inside, other=0.0)
    squares = tl.load(partial + N * CHUNKS * C + at, mask=inside, other=0.0)
    counts = tl.minimum(POINTS - chunk * ROWS, ROWS).to(tl.float32)[:, None]
    mean = tl.sum(tl.sum(tl.where(inside, means * counts, 0.0), 1), 0) * (1.0 / (POINTS * WIDTH))
    off = means - mean
    squares = tl.sum(tl.sum(tl.where(inside, squares + counts * off * off, 0.0), 1), 0)
    rstd = 1.0 / tl.sqrt(squares * (1.0 / (POINTS * WIDTH)) + eps)
    a = tl.zeros((BLOCK_C,), tl.float32) + rstd
    b = -mean * a
    if HAS_WEIGHT:
        w = tl.load(weight + c, mask=known, other=0.0).to(tl.float32)
        a *= w
        b = b * w + tl.load(bias + c, mask=known, other=0.0).to(tl.float32)
    if HAS_SCALE:
        s = 1.0 + tl.load(scale + n * SCALE_N + c, mask=known, other=0.0).to(tl.float32)
        a *= s
        b = b * s + tl.load(shift + n * SHIFT_N + c, mask=known, other=0.0).to(tl.float32)
    tl.store(affine + n * C + c, a, mask=known)
    tl.store(affine + (N + n) * C + c, b, mask=known)


@triton.jit
def _affine_silu(
    x, out, affine, N, C: tl.constexpr, POINTS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    n = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < C
    inside = (p < POINTS)[:, None] & known[None, :]
    a = tl.load(affine + n * C + c, mask=known, other=0.0)
    b = tl.load(affine + (N + n) * C + c, mask=known, other=0.0)
    at = n * POINTS * C + (p * C)[:, None] + c[None, :]
    y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * a[None, :] + b[None, :]
    tl.store(out + at, (y * tl.sigmoid(y)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _residual_layer_norm(x, y, weight, bias, total, normed, eps, D: tl.constexpr, BLOCK_D: tl.constexpr):
    r = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    known = d < D
    value = tl.load(x + r * D + d, mask=known, other=0.0).to(tl.float32)
    value += tl.load(y + r * D + d, mask=known, other=0.0).to(tl.float32)
    tl.store(total + r * D + d, value.to(total.dtype.element_ty), mask=known)
    # the norm sees what the next layer sees: the sum as it was rounded
    value = value.to(total.dtype.element_ty).to(tl.float32)
    mean = tl.sum(value, 0) * (1.0 / D)
    off = tl.where(known, value - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(off * off, 0) * (1.0 / D) + eps)
    w = tl.load(weight + d, mask=known, other=0.0).to(tl.float32)
    b = tl.load(bias + d, mask=known, other=0.0).to(tl.float32)
    tl.store(normed + r * D + d, (off * rstd * w + b).to(normed.dtype.element_ty), mask=known)


def group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float,
    scale: Tensor | None, shift: Tensor | None, *, block_p: int | None = None, chunks: int | None = None,
) -> Tensor:  # fmt: skip
    """Start the three kernels; arguments as in `reference.group_norm_silu`."""
    layout = launch.channels_last(x)
    x = x.contiguous(memory_format=layout)
    out = launch.empty(tuple(x.shape), x, layout=layout)
    if out.numel() == 0:
        return out
    n, c = x.shape[:2]
    points, width = x[0, 0].numel(), c // num_groups
    block_c = power_of_two(c) if interpreting() else min(64, power_of_two(c))
    block_p = block_p or (min(1024, power_of_two(points)) if interpreting() else max(16, 4096 // block_c))
    chunks = chunks or min(_MAX_CHUNKS, max(1, _MAX_GROUP_TILE // power_of_two(width)))
    rows = block_p * max(1, triton.cdiv(points, block_p * chunks))
    chunks = triton.cdiv(points, rows)
    columns = triton.cdiv(c, block_c)
    partial = launch.empty((2, n, chunks, c), x, torch.float32)
    affine = launch.empty((2, n, c), x, torch.float32)
    weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
    scale, shift = (None if s is None else s if s.stride(-1) == 1 else s.contiguous() for s in (scale, shift))
    steps = [0 if s is None or s.shape[0] == 1 else s.stride(0) for s in (scale, shift)]
    launch.launch(
        _channel_statistics, (chunks, columns, n), x,
        x, partial, n, c, points, rows, chunks, block_p, block_c, num_warps=4,
    )  # fmt: skip
    launch.launch(
        _group_affine, (num_groups, n), x,
        partial, weight, bias, scale, shift, affine, n, eps, *steps,
        c, width, points, rows, chunks, weight is not None, scale is not None,
        power_of_two(chunks), power_of_two(width), num_warps=4,
    )  # fmt: skip
    launch.launch(
        _affine_silu, (triton.cdiv(points, block_p), columns, n), x,
        x, out, affine, n, c, points, block_p, block_c, num_warps=4,
    )  # fmt: skip
    return out


def residual_layer_norm(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Start the kernel; arguments as in `reference.residual_layer_norm`."""
    x, y, weight, bias = (t.contiguous() for t in (x, y, weight, bias))
    total, normed = (launch.empty(tuple(x.shape), x) for _ in range(2))
    d = x.shape[-1]
    if x.numel():
        launch.launch(
            _residual_layer_norm, (x.numel() // d,), x,
            x, y, weight, bias, total, normed, eps, d, power_of_two(d), num_warps=4 if d > 256 else 1,
        )  # fmt: skip
    return total, normed
