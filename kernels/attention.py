"""Attention over sequences short enough that all keys of a head fit in one tile: one program per block of queries.

Forward only; the gradient is computed by PyTorch (Triton up to 3.7 miscompiles the natural backward on Hopper, and on
smaller GPUs it spills). Nothing is transposed between the two products, which is what that bug needs.

Letters: `N` batch, `L` queries, `S` keys, `d` head width.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import launch
from .launch import interpreting, power_of_two


@triton.jit
def _attention(
    q, k, v, bias, lengths, out, scale, QN, QH, QL, KN, KH, KL, VN, VH, VL, BN, BH, BL, BS,
    HEADS, L, S, PREFIX, WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    CAUSAL: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    n, head = row // HEADS, row % HEADS
    i = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    j = tl.arange(0, BLOCK_S)
    d = tl.arange(0, BLOCK_D)
    in_q = (i < L)[:, None] & (d < WIDTH)[None, :]
    in_k = (j < S)[:, None] & (d < WIDTH)[None, :]
    queries = tl.load(q + n * QN + head * QH + (i * QL)[:, None] + d[None, :], mask=in_q, other=0.0)
    keys = tl.load(
        k + n * KN + head * KH + (j * KL)[None, :] + d[:, None],
        mask=(j < S)[None, :] & (d < WIDTH)[:, None], other=0.0,
    )  # fmt: skip
    values = tl.load(v + n * VN + head * VH + (j * VL)[:, None] + d[None, :], mask=in_k, other=0.0)
    scores = tl.dot(queries, keys, input_precision="ieee") * scale
    if HAS_BIAS:
        at = n * BN + head * BH + (i * BL)[:, None] + (j * BS)[None, :]
        scores += tl.load(bias + at, mask=(i < L)[:, None] & (j < S)[None, :], other=0.0).to(tl.float32)
    if HAS_LENGTHS:
        heard = j < tl.load(lengths + n)
    else:
        heard = j < S
    seen = (heard & (j < S))[None, :]
    if CAUSAL:
        # the last query stands where the last key does
        seen = seen & ((j[None, :] <= (i + (S - L))[:, None]) | (j < PREFIX)[None, :])
    scores = tl.where(seen, scores, float("-inf"))
    top = tl.max(scores, 1)
    # a row without any key gives zeros, as PyTorch does
    top = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp(scores - top[:, None])
    total = tl.sum(weights, 1)
    mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    to = (row * L + i) * WIDTH
    tl.store(out + to[:, None] + d[None, :], mixed.to(out.dtype.element_ty), mask=in_q)


def short_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_lengths: Tensor | None, causal_prefix: int | None,
    scale: float, *, block_l: int | None = None,
) -> Tensor:  # fmt: skip
    """Start the kernel; arguments as in `reference.short_attention`."""
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    n, heads, length, width = q.shape
    keys = k.shape[2]
    out = launch.empty(tuple(q.shape), q)
    if out.numel() == 0:
        return out
    if bias is not None:
        bias = bias.expand(n, heads, length, keys)
    if key_lengths is not None:
        key_lengths = key_lengths.expand(n).contiguous()
    block_s = max(16, power_of_two(keys))
    if block_l is None:  # interpreted, a program costs the same whatever its size
        block_l = max(16, power_of_two(length)) if interpreting() else 32 if block_s <= 128 else 16
    launch.launch(
        _attention, (triton.cdiv(length, block_l), n * heads), q,
        q, k, v, bias, key_lengths, out, scale, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *(bias.stride() if bias is not None else (0, 0, 0, 0)), heads, length, keys, causal_prefix or 0, width,
        bias is not None, key_lengths is not None, causal_prefix is not None,
        block_l, block_s, max(16, power_of_two(width)), num_warps=4, num_stages=1,
    )  # fmt: skip
    return out
