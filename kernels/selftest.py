"""Does a kernel compute the right thing on this device? Small random problems against PyTorch in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from .launch import has_bfloat16, interpreting
from .positions import warp_grid

TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Largest relative L2 error; float32 attention may use reduced products on some devices."""


def run(operation: str, place: torch.device) -> None:
    """Compare a kernel with PyTorch on `place`.

    Raises:
        ArithmeticError: they differ by more than `TOLERANCE`.
        Exception: whatever Triton raises where it cannot compile or launch.
    """
    for dtype, tolerance in TOLERANCE.items():
        # the interpreter's bf16 matrix product is wrong
        if dtype == torch.bfloat16 and (interpreting() or not has_bfloat16(place)):
            continue
        draw = torch.Generator().manual_seed(0)
        for fast, exact in _PROBLEMS[operation](place, dtype, draw):
            error = relative_error(fast, exact)
            if not error <= tolerance:
                raise ArithmeticError(f"relative error {error:.1e} in {str(dtype).removeprefix('torch.')}")


def relative_error(got: Tensor, exact: Tensor) -> float:
    """|got - exact| / |exact| in the L2 norm; NaN where either holds NaN."""
    exact = exact.double()
    return float((got.double().to(exact.device) - exact).norm() / exact.norm().clamp_min(1e-30))


def _normal(draw: torch.Generator, place: torch.device, dtype: torch.dtype, *size: int) -> Tensor:
    return torch.randn(size, generator=draw).to(place, dtype)


def _warp(place: torch.device, dtype: torch.dtype, draw: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from . import warp3d, warp3d_gradients

    volume = _normal(draw, place, dtype, 1, 40, 3, 9, 8)
    theta = torch.eye(3, 4) + 0.2 * torch.randn(2, 3, 4, generator=draw)
    theta, flow = theta.to(place), 0.2 * _normal(draw, place, torch.float32, 2, 3, 3, 9, 8)
    pairs = []
    for order, zeros in (("flow_then_rigid", True), ("rigid_then_flow", False)):
        mode = "zeros" if zeros else "border"
        moved = warp3d.warp(
            volume, theta, flow, None, None, (3, 9, 8),
            rigid_first=order == "rigid_then_flow", zeros=zeros, align=True, collapse=False,
        )  # fmt: skip
        exact = reference.warp_volume(
            volume.double(), theta=theta.double(), flow=flow.double(), order=order, padding_mode=mode
        )
        pairs.append((moved, exact))
    grad = _normal(draw, place, dtype, 2, 40, 3, 9, 8)
    grid = warp_grid((3, 9, 8), theta, flow, "flow_then_rigid", True)
    kind = dict(zeros=True, align=True, collapse=False)
    scattered = warp3d_gradients.grad_volume(grad, grid, tuple(volume.shape), **kind)
    fast = scattered, warp3d_gradients.grad_grid(grad, volume, grid, **kind)
    exact = reference.grid_sample_3d_backward(grad.double(), volume.double(), grid.double(), "zeros", True)
    return pairs + list(zip(fast, exact, strict=True))


def _group_norm(place: torch.device, dtype: torch.dtype, draw: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from . import norm

    x = _normal(draw, place, dtype, 2, 48, 9, 7).to(memory_format=torch.channels_last) + 1
    weight, bias = _normal(draw, place, dtype, 2, 48)
    scale, shift = _normal(draw, place, dtype, 2, 2, 48)
    fast = norm.group_norm_silu(x, 6, weight, bias, 1e-5, scale, shift)
    wide = [t.double() for t in (weight, bias)]
    exact = reference.group_norm_silu(x.double(), 6, *wide, scale=scale.double(), shift=shift.double())
    return [(fast, exact)]


def _layer_norm(place: torch.device, dtype: torch.dtype, draw: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from . import norm

    x, y = _normal(draw, place, dtype, 2, 5, 96)
    weight, bias = _normal(draw, place, dtype, 2, 96)
    fast = norm.residual_layer_norm(x, y, weight, bias, 1e-5)
    exact = reference.residual_layer_norm(x.double(), y.double(), weight.double(), bias.double())
    return list(zip(fast, exact, strict=True))


def _step(place: torch.device, dtype: torch.dtype, draw: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from . import step

    predictions, x_t = _normal(draw, place, dtype, 3, 2, 9, 5), _normal(draw, place, torch.float32, 2, 9, 5)
    weights = torch.tensor([2.0, -0.5, -0.5], device=place)
    levels = torch.tensor(reference.ddim_coefficients(0.4, 0.7), device=place)
    low, high = torch.full((5,), -0.8, device=place), torch.full((5,), 0.9, device=place)
    fast = step.guided_step(predictions, weights, x_t, levels, low, high)
    exact = reference.guided_step(*(t.double() for t in (predictions, weights, x_t, levels, low, high)))
    return list(zip(fast, exact, strict=True))


def _attention(place: torch.device, dtype: torch.dtype, draw: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    from . import attention

    pairs = []
    for length, width in ((61, 64), (130, 32)):
        q, k, v = _normal(draw, place, dtype, 2, length, 3, 2, width).permute(2, 0, 3, 1, 4)
        bias = _normal(draw, place, dtype, 1, 1, length, length)
        lengths = torch.tensor([length, length - 7], device=place)
        wide = [t.double() for t in (q, k, v)]
        for prefix in (None, 3):
            fast = attention.short_attention(q, k, v, bias, lengths, prefix, width**-0.5)
            options = dict(bias=bias.double(), key_lengths=lengths, causal_prefix=prefix)
            pairs.append((fast, reference.short_attention(*wide, **options)))
    return pairs


_PROBLEMS = {
    "warp_volume": _warp,
    "group_norm_silu": _group_norm,
    "residual_layer_norm": _layer_norm,
    "guided_step": _step,
    "short_attention": _attention,
}
