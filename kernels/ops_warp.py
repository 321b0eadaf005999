"""The warp and its two gradients as operations of PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from . import launch, reference
from .positions import summed_to, warp_grid, warp_grid_backward
from .register import define, laid_out, run


def _padding(zeros: bool) -> str:
    return "zeros" if zeros else "border"


def _order(rigid_first: bool) -> str:
    return "rigid_then_flow" if rigid_first else "flow_then_rigid"


def _warp(volume, theta, flow, grid, mask, size, rigid_first, zeros, align, collapse):
    def kernel() -> Tensor:
        from . import warp3d

        return warp3d.warp(
            volume, theta, flow, grid, mask, tuple(size),
            rigid_first=rigid_first, zeros=zeros, align=align, collapse=collapse,
        )  # fmt: skip

    def plain() -> Tensor:
        if grid is not None:
            moved = reference.grid_sample_3d(volume, grid, padding_mode=_padding(zeros), align_corners=align)
            moved = moved if mask is None else moved * mask.to(moved.dtype)
            moved = moved.transpose(1, 2).flatten(1, 2) if collapse else moved
        else:
            moved = reference.warp_volume(
                volume, theta=theta, flow=flow, order=_order(rigid_first), out_size=tuple(size),
                padding_mode=_padding(zeros), align_corners=align, mask=mask, collapse_depth=collapse,
            )  # fmt: skip
        return laid_out(moved, _warp_fake(volume, theta, flow, grid, mask, size, rigid_first, zeros, align, collapse))

    return run("warp_volume", volume, kernel, plain)


def _warp_fake(volume, theta, flow, grid, mask, size, rigid_first, zeros, align, collapse):
    n = volume.shape[0]
    for x in (theta, flow, grid, mask):
        if x is not None and x.shape[0] != 1:
            n = x.shape[0]
    c, (d, h, w) = volume.shape[1], size
    if collapse:
        return launch.empty((n, d * c, h, w), volume, layout=torch.channels_last)
    return launch.empty((n, c, d, h, w), volume, layout=torch.channels_last_3d)


def _warp_keep(ctx, inputs, output):
    volume, theta, flow, grid, mask, ctx.size, ctx.rigid_first, ctx.zeros, ctx.align, ctx.collapse = inputs
    ctx.save_for_backward(volume, theta, flow, grid, mask)


def _warp_backward(ctx, grad):
    volume, theta, flow, grid, mask = ctx.saved_tensors
    wants_volume, wants_theta, wants_flow, wants_grid, wants_mask = ctx.needs_input_grad[:5]
    if wants_mask:
        raise NotImplementedError("the warp's mask has no gradient; multiply the result yourself")
    if mask is not None:
        shape = mask.shape[:1] + mask.shape[3:] if ctx.collapse else mask.shape
        grad = (grad.unflatten(1, (ctx.size[0], -1)) * mask.transpose(1, 2)).flatten(1, 2) if ctx.collapse else (
            grad * mask.reshape(shape)
        )  # fmt: skip
    order = _order(ctx.rigid_first)
    positions = grid if grid is not None else warp_grid(tuple(ctx.size), theta, flow, order, ctx.align)
    positions = positions.expand(grad.shape[0], *positions.shape[1:])
    grad_volume = grad_theta = grad_flow = grad_grid = None
    if wants_volume:
        grad_volume = warp3d_grad_volume(grad, volume, positions, ctx.zeros, ctx.align, ctx.collapse).to(volume.dtype)
    if wants_theta or wants_flow or wants_grid:
        through = warp3d_grad_grid(grad, volume, positions, ctx.zeros, ctx.align, ctx.collapse)
        if grid is None:
            grad_theta, grad_flow = warp_grid_backward(through, ctx.size, theta, flow, order, ctx.align)
        else:
            grad_grid = summed_to(through, grid.shape[0]).to(grid.dtype)
    return grad_volume, grad_theta, grad_flow, grad_grid, None, None, None, None, None, None


def _uncollapsed(grad: Tensor, positions: Tensor, collapse: bool) -> Tensor:
    return grad.unflatten(1, (positions.shape[1], -1)).transpose(1, 2) if collapse else grad


def _unordered() -> str | None:
    return "deterministic algorithms are asked for" if torch.are_deterministic_algorithms_enabled() else None


def _grad_volume(grad, volume, positions, zeros, align, collapse):
    def kernel() -> Tensor:
        from . import warp3d_gradients

        return warp3d_gradients.grad_volume(
            grad, positions, tuple(volume.shape), zeros=zeros, align=align, collapse=collapse
        )

    def plain() -> Tensor:
        whole = _uncollapsed(grad, positions, collapse)
        result = reference.grid_sample_3d_backward(whole, volume, positions, _padding(zeros), align)[0]
        return laid_out(result, _grad_volume_fake(grad, volume, positions, zeros, align, collapse))

    return run("warp_volume", volume, kernel, plain, cannot=_unordered())


def _grad_volume_fake(grad, volume, positions, zeros, align, collapse):
    dtype = torch.float64 if volume.dtype == torch.float64 else torch.float32
    return launch.empty(tuple(volume.shape), volume, dtype, torch.channels_last_3d)


def _grad_grid(grad, volume, positions, zeros, align, collapse):
    def kernel() -> Tensor:
        from . import warp3d_gradients

        return warp3d_gradients.grad_grid(grad, volume, positions, zeros=zeros, align=align, collapse=collapse)

    def plain() -> Tensor:
        whole = _uncollapsed(grad, positions, collapse)
        result = reference.grid_sample_3d_backward(whole, volume, positions, _padding(zeros), align)[1]
        return laid_out(result, _grad_grid_fake(grad, volume, positions, zeros, align, collapse))

    return run("warp_volume", volume, kernel, plain)


def _grad_grid_fake(grad, volume, positions, zeros, align, collapse):
    dtype = torch.float64 if volume.dtype == torch.float64 else torch.float32
    return launch.empty(tuple(positions.shape), volume, dtype)


warp3d_grad_volume = define(
    "warp3d_grad_volume",
    "(Tensor grad, Tensor volume, Tensor positions, bool zeros, bool align, bool collapse) -> Tensor",
    _grad_volume, _grad_volume_fake,
)  # fmt: skip
warp3d_grad_grid = define(
    "warp3d_grad_grid",
    "(Tensor grad, Tensor volume, Tensor positions, bool zeros, bool align, bool collapse) -> Tensor",
    _grad_grid, _grad_grid_fake,
)  # fmt: skip
warp3d = define(
    "warp3d",
    "(Tensor volume, Tensor? theta, Tensor? flow, Tensor? grid, Tensor? mask, SymInt[] size, bool rigid_first, "
    "bool zeros, bool align, bool collapse) -> Tensor",
    _warp, _warp_fake, _warp_backward, _warp_keep,
)  # fmt: skip
