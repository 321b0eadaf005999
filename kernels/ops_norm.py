"""Both norms as operations of PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from . import launch, reference
from .positions import summed_to
from .register import define, laid_out, run


def _group_norm_silu(x, num_groups, weight, bias, eps, scale, shift):
    def kernel() -> Tensor:
        from . import norm

        return norm.group_norm_silu(x, num_groups, weight, bias, eps, scale, shift)

    def plain() -> Tensor:
        result = reference.group_norm_silu(x, num_groups, weight, bias, eps=eps, scale=scale, shift=shift)
        return laid_out(result, _group_norm_silu_fake(x, num_groups, weight, bias, eps, scale, shift))

    return run("group_norm_silu", x, kernel, plain)


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
        grad_scale = summed_to((grad * normed).sum(space), scale.shape[0])
        grad_shift = summed_to(grad.sum(space), shift.shape[0])
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


group_norm_silu = define(
    "group_norm_silu",
    "(Tensor x, int num_groups, Tensor? weight, Tensor? bias, float eps, Tensor? scale, Tensor? shift) -> Tensor",
    _group_norm_silu, _group_norm_silu_fake, _group_norm_silu_backward, _group_norm_silu_keep,
)  # fmt: skip


def _residual_layer_norm(x, y, weight, bias, eps):
    def kernel() -> tuple[Tensor, Tensor]:
        from . import norm

        return norm.residual_layer_norm(x, y, weight, bias, eps)

    def plain() -> tuple[Tensor, Tensor]:
        total, normed = reference.residual_layer_norm(x, y, weight, bias, eps=eps)
        return total.contiguous(), normed.contiguous()

    return run("residual_layer_norm", x, kernel, plain)


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


residual_layer_norm = define(
    "residual_layer_norm",
    "(Tensor x, Tensor y, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    _residual_layer_norm, _residual_layer_norm_fake, _residual_layer_norm_backward, _residual_layer_norm_keep,
)  # fmt: skip
