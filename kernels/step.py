"""Guidance, clamping and one DDIM step in one pass over the motion (VASA-1, Eq. 2).

Letters: `R` guidance rows, `N` batch, `T` frames, `M` motion channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import launch


@triton.jit
def _guided_step(
    predictions, weights, x_t, coefficients, low, high, x_0, x_s, COUNT, M,
    ROWS: tl.constexpr, HAS_RANGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < COUNT
    clean = tl.zeros((BLOCK,), tl.float32)
    for r in tl.static_range(ROWS):
        row = tl.load(predictions + r * COUNT + i, mask=inside, other=0.0).to(tl.float32)
        clean += tl.load(weights + r).to(tl.float32) * row
    if HAS_RANGE:
        m = i % M
        floor = tl.load(low + m, mask=inside, other=0.0)
        ceiling = tl.load(high + m, mask=inside, other=0.0)
        # where() keeps NaN, which minimum and maximum may swallow
        clean = tl.where(clean < floor, floor, clean)
        clean = tl.where(clean > ceiling, ceiling, clean)
    now = tl.load(x_t + i, mask=inside, other=0.0).to(tl.float32)
    noise = (now - tl.load(coefficients) * clean) * tl.load(coefficients + 1)
    then = tl.load(coefficients + 2) * clean + tl.load(coefficients + 3) * noise
    tl.store(x_0 + i, clean.to(x_0.dtype.element_ty), mask=inside)
    tl.store(x_s + i, then.to(x_s.dtype.element_ty), mask=inside)


def guided_step(
    predictions: Tensor, weights: Tensor, x_t: Tensor, coefficients: Tensor, low: Tensor | None, high: Tensor | None,
    *, block: int = 512,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Start the kernel; arguments as in `reference.guided_step`."""
    predictions, x_t = predictions.contiguous(), x_t.contiguous()
    x_0, x_s = (launch.empty(tuple(x_t.shape), x_t) for _ in range(2))
    count = x_t.numel()
    if count:
        low, high = (None if v is None else v.float().expand(x_t.shape[-1]).contiguous() for v in (low, high))
        launch.launch(
            _guided_step, (triton.cdiv(count, block),), x_t,
            predictions, weights.contiguous(), x_t, coefficients.float().contiguous(), low, high, x_0, x_s,
            count, x_t.shape[-1], predictions.shape[0], low is not None, block, num_warps=4,
        )  # fmt: skip
    return x_0, x_s
