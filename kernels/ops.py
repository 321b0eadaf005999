"""The operations as PyTorch knows them: `torch.ops.vasa.*`, with shapes for tracing and explicit gradients.

Each runs its Triton kernel where `backend` allows it and PyTorch elsewhere, so the same traced program works on every
device. Outputs are fresh tensors with the strides that tracing was told. A second copy of the package (a ComfyUI
plug-in beside an installed one) finds the names taken and uses what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backend, launch, reference


def _define(name: str, schema: str, run: Callable, fake: Callable, backward: Callable | None = None,
            keep: Callable | None = None) -> Callable:  # fmt: skip
    if not hasattr(torch.ops.vasa, name):
        operation = torch.library.custom_op(f"vasa::{name}", run, mutates_args=(), schema=schema)
        operation.register_fake(fake)
        if backward is not None:
            operation.register_autograd(backward, setup_context=keep)
    return getattr(torch.ops.vasa, name)


def _run(operation: str, x: Tensor, kernel: Callable[[], Any], plain: Callable[[], Any], cannot: str | None = None):
    if backend.choose(operation, x, cannot).backend == "triton":
        try:
            return kernel()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # out of shared memory, a compiler's failure on this one shape
            backend.fail(operation, x.device, error)
    return plain()


def _padding(zeros: bool) -> str:
    return "zeros" if zeros else "border"


def _order(rigid_first: bool) -> str:
    return "rigid_then_flow" if rigid_first else "flow_then_rigid"


def _laid_out(x: Tensor, like: Tensor) -> Tensor:
    # the strides that tracing was told, and never the memory of an input
    return torch.empty_strided(like.shape, like.stride(), dtype=x.dtype, device=x.device).copy_(x)


# warp


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
        return _laid_out(moved, _warp_fake(volume, theta, flow, grid, mask, size, rigid_first, zeros, align, collapse))

    return _run("warp_volume", volume, kernel, plain)


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
    positions = grid if grid is not None else reference.warp_grid(tuple(ctx.size), theta, flow, order, ctx.align)
    positions = positions.expand(grad.shape[0], *positions.shape[1:])
    grad_volume = grad_theta = grad_flow = grad_grid = None
    if wants_volume:
        grad_volume = warp3d_grad_volume(grad, volume, positions, ctx.zeros, ctx.align, ctx.collapse).to(volume.dtype)
    if wants_theta or wants_flow or wants_grid:
        through = warp3d_grad_grid(grad, volume, positions, ctx.zeros, ctx.align, ctx.collapse)
        if grid is None:
            grad_theta, grad_flow = reference.warp_grid_backward(through, ctx.size, theta, flow, order, ctx.align)
        else:
            grad_grid = reference._to_batch(through, grid.shape[0]).to(grid.dtype)
    return grad_volume, grad_theta, grad_flow, grad_grid, None, None, None, None, None, None


def _uncollapsed(grad: Tensor, positions: Tensor, collapse: bool) -> Tensor:
    return grad.unflatten(1, (positions.shape[1], -1)).transpose(1, 2) if collapse else grad


def _unordered() -> str | None:
    return "deterministic algorithms are asked for" if torch.are_deterministic_algorithms_enabled() else None


def _grad_volume(grad, volume, positions, zeros, align, collapse):
    def kernel() -> Tensor:
        from . import warp3d

        return warp3d.grad_volume(grad, positions, tuple(volume.shape), zeros=zeros, align=align, collapse=collapse)

    def plain() -> Tensor:
        whole = _uncollapsed(grad, positions, collapse)
        result = reference.grid_sample_3d_backward(whole, volume, positions, _padding(zeros), align)[0]
        return _laid_out(result, _grad_volume_fake(grad, volume, positions, zeros, align, collapse))

    return _run("warp_volume", volume, kernel, plain, cannot=_unordered())


def _grad_volume_fake(grad, volume, positions, zeros, align, collapse):
    dtype = torch.float64 if volume.dtype == torch.float64 else torch.float32
    return launch.empty(tuple(volume.shape), volume, dtype, torch.channels_last_3d)


def _grad_grid(grad, volume, positions, zeros, align, collapse):
    def kernel() -> Tensor:
        from . import warp3d

        return warp3d.grad_grid(grad, volume, positions, zeros=zeros, align=align, collapse=collapse)

    def plain() -> Tensor:
        whole = _uncollapsed(grad, positions, collapse)
        result = reference.grid_sample_3d_backward(whole, volume, positions, _padding(zeros), align)[1]
        return _laid_out(result, _grad_grid_fake(grad, volume, positions, zeros, align, collapse))

    return _run("warp_volume", volume, kernel, plain)


def _grad_grid_fake(grad, volume, positions, zeros, align, collapse):
    dtype = torch.float64 if volume.dtype == torch.float64 else torch.float32
    return launch.empty(tuple(positions.shape), volume, dtype)


warp3d_grad_volume = _define(
    "warp3d_grad_volume",
    "(Tensor grad, Tensor volume, Tensor positions, bool zeros, bool align, bool collapse) -> Tensor",
    _grad_volume, _grad_volume_fake,
)  # fmt: skip
warp3d_grad_grid = _define(
    "warp3d_grad_grid",
    "(Tensor grad, Tensor volume, Tensor positions, bool zeros, bool align, bool collapse) -> Tensor",
    _grad_grid, _grad_grid_fake,
)  # fmt: skip
warp3d = _define(
    "warp3d",
    "(Tensor volume, Tensor? theta, Tensor? flow, Tensor? grid, Tensor? mask, SymInt[] size, bool rigid_first, "
    "bool zeros, bool align, bool collapse) -> Tensor",
    _warp, _warp_fake, _warp_backward, _warp_keep,
)  # fmt: skip


# group norm


def _group_norm_silu(x, num_groups, weight, bias, eps, scale, shift):
    def kernel() -> Tensor:
        from . import norm

        return norm.group_norm_silu(x, num_groups, weight, bias, eps, scale, shift)

    def plain() -> Tensor:
        result = reference.group_norm_silu(x, num_groups, weight, bias, eps=eps, scale=scale, shift=shift)
        return _laid_out(result, _group_norm_silu_fake(x, num_groups, weight, bias, eps, scale, shift))

    return _run("group_norm_silu", x, kernel, plain)


def _group_norm_silu_fake(x, num_groups, weight, bias, eps, scale, shift):
    return launch.empty(tuple(x.shape), x, layout=launch.channels_last(x))


def _group_norm_silu_keep(ctx, inputs, output):
    x, ctx.num_groups, weight, bias, ctx.eps, scale, shift = inputs
    ctx.save_for_backward(x, weight, bias, scale, shift)


def _group_norm_silu_backward(ctx, grad):
    x, weight, bias, scale, shift = ctx.saved_tensors
    n, c = x.shape[:2]
    space = list(range(2, x.dim()))
    points = x[0, 0].numel() if n else 0
    x = x.contiguous()
    normed, mean, rstd = torch.ops.aten.native_group_norm(x, weight, bias, n, c, points, ctx.num_groups, ctx.eps)
    tail = (1,) * len(space)
    factor = None if scale is None else 1 + scale.reshape(*scale.shape, *tail)
    y = normed if factor is None else normed * factor + shift.reshape(*shift.shape, *tail)
    sigmoid = torch.sigmoid(y)
    grad = grad * (sigmoid * (1 + y * (1 - sigmoid)))
    grad_scale = grad_shift = None
    if scale is not None:
        grad_scale = reference._to_batch((grad * normed).sum(space), scale.shape[0])
        grad_shift = reference._to_batch(grad.sum(space), shift.shape[0])
        grad = grad * factor
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
        grad.contiguous(),
        x,
        mean,
        rstd,
        weight,
        n,
        c,
        points,
        ctx.num_groups,
        [True, weight is not None, bias is not None],
    )
    return grad_x, None, grad_weight, grad_bias, None, grad_scale, grad_shift


group_norm_silu = _define(
    "group_norm_silu",
    "(Tensor x, int num_groups, Tensor? weight, Tensor? bias, float eps, Tensor? scale, Tensor? shift) -> Tensor",
    _group_norm_silu, _group_norm_silu_fake, _group_norm_silu_backward, _group_norm_silu_keep,
)  # fmt: skip


# residual sum and layer norm


def _residual_layer_norm(x, y, weight, bias, eps):
    def kernel() -> tuple[Tensor, Tensor]:
        from . import norm

        return norm.residual_layer_norm(x, y, weight, bias, eps)

    def plain() -> tuple[Tensor, Tensor]:
        total, normed = reference.residual_layer_norm(x, y, weight, bias, eps=eps)
        return total.contiguous(), normed.contiguous()

    return _run("residual_layer_norm", x, kernel, plain)


def _residual_layer_norm_fake(x, y, weight, bias, eps):
    return launch.empty(tuple(x.shape), x), launch.empty(tuple(x.shape), x)


def _residual_layer_norm_keep(ctx, inputs, output):
    _, _, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(output[0], weight, bias)


def _residual_layer_norm_backward(ctx, grad_total, grad_normed):
    total, weight, bias = ctx.saved_tensors
    shape = list(total.shape[-1:])
    _, mean, rstd = torch.ops.aten.native_layer_norm(total, shape, weight, bias, ctx.eps)
    grad, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        grad_normed.contiguous(), total, shape, mean, rstd, weight, bias, [True, True, True]
    )
    grad = grad + grad_total
    return grad, grad, grad_weight, grad_bias, None


residual_layer_norm = _define(
    "residual_layer_norm",
    "(Tensor x, Tensor y, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    _residual_layer_norm, _residual_layer_norm_fake, _residual_layer_norm_backward, _residual_layer_norm_keep,
)  # fmt: skip


# guided step


def _guided_step(predictions, weights, x_t, coefficients, low, high):
    def kernel() -> tuple[Tensor, Tensor]:
        from . import step

        return step.guided_step(predictions, weights, x_t, coefficients, low, high)

    def plain() -> tuple[Tensor, Tensor]:
        x_0, x_s = reference.guided_step(predictions, weights, x_t, coefficients, low, high)
        return _laid_out(x_0, like := _guided_step_fake(predictions, weights, x_t, coefficients, low, high)[0]), (
            _laid_out(x_s, like)
        )

    return _run("guided_step", x_t, kernel, plain)


def _guided_step_fake(predictions, weights, x_t, coefficients, low, high):
    return launch.empty(tuple(x_t.shape), x_t), launch.empty(tuple(x_t.shape), x_t)


def _guided_step_keep(ctx, inputs, output):
    predictions, weights, _, coefficients, low, high = inputs
    ctx.save_for_backward(predictions, weights, coefficients, low, high)


def _guided_step_backward(ctx, grad_x_0, grad_x_s):
    predictions, weights, coefficients, low, high = ctx.saved_tensors
    now, noise, then, rest = coefficients.to(grad_x_s).unbind()
    grad = grad_x_0 + grad_x_s * (then - rest * noise * now)
    if low is not None:
        x_0 = torch.einsum("r,rntm->ntm", weights.to(predictions), predictions)
        grad = grad * ((x_0 >= low) & (x_0 <= high))
    grad_predictions = (weights.to(grad)[:, None, None, None] * grad).to(predictions.dtype)
    grad_weights = torch.einsum("rntm,ntm->r", predictions.to(grad), grad).to(weights.dtype)
    return grad_predictions, grad_weights, grad_x_s * (rest * noise), None, None, None


guided_step = _define(
    "guided_step",
    "(Tensor predictions, Tensor weights, Tensor x_t, Tensor coefficients, Tensor? low, Tensor? high) "
    "-> (Tensor, Tensor)",
    _guided_step, _guided_step_fake, _guided_step_backward, _guided_step_keep,
)  # fmt: skip


# attention


def _short_attention(q, k, v, bias, key_lengths, scale):
    def kernel() -> Tensor:
        from . import attention

        return attention.short_attention(q, k, v, bias, key_lengths, scale)

    def plain() -> Tensor:
        result = reference.short_attention(q, k, v, bias=bias, key_lengths=key_lengths, scale=scale)
        return _laid_out(result, _short_attention_fake(q, k, v, bias, key_lengths, scale))

    return _run("short_attention", q, kernel, plain)


def _short_attention_fake(q, k, v, bias, key_lengths, scale):
    return launch.empty(tuple(q.shape), q)


def _short_attention_keep(ctx, inputs, output):
    q, k, v, bias, key_lengths, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias, key_lengths, output)


def _short_attention_backward(ctx, grad):
    q, k, v, bias, key_lengths, out = ctx.saved_tensors
    scores = torch.matmul(q, k.transpose(-1, -2)) * ctx.scale
    if bias is not None:
        scores = scores + bias
    if key_lengths is not None:
        heard = torch.arange(k.shape[2], device=k.device) < key_lengths[:, None]
        scores = scores.masked_fill(~heard[:, None, None], float("-inf"))
    weights = torch.nan_to_num(F.softmax(scores, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)))
    weights, grad = weights.to(q.dtype), grad.to(q.dtype)
    grad_scores = torch.matmul(grad, v.transpose(-1, -2)) - (grad * out).sum(-1, keepdim=True)
    grad_scores = weights * grad_scores
    grad_q = torch.matmul(grad_scores, k) * ctx.scale
    grad_k = torch.matmul(grad_scores.transpose(-1, -2), q) * ctx.scale
    grad_v = torch.matmul(weights.transpose(-1, -2), grad)
    grad_bias = grad_scores.sum_to_size(bias.shape).to(bias.dtype) if bias is not None else None
    return grad_q, grad_k, grad_v, grad_bias, None, None


short_attention = _define(
    "short_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? key_lengths, float scale) -> Tensor",
    _short_attention, _short_attention_fake, _short_attention_backward, _short_attention_keep,
)  # fmt: skip
