"""The guided sampling step as an operation of PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from . import launch, reference
from .register import define, laid_out, run


def _guided_step(predictions, weights, x_t, coefficients, low, high):
    def kernel() -> tuple[Tensor, Tensor]:
        from . import step

        return step.guided_step(predictions, weights, x_t, coefficients, low, high)

    def plain() -> tuple[Tensor, Tensor]:
        x_0, x_s = reference.guided_step(predictions, weights, x_t, coefficients, low, high)
        return laid_out(x_0, like := _guided_step_fake(predictions, weights, x_t, coefficients, low, high)[0]), (
            laid_out(x_s, like)
        )

    return run("guided_step", x_t, kernel, plain)


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


guided_step = define(
    "guided_step",
    "(Tensor predictions, Tensor weights, Tensor x_t, Tensor coefficients, Tensor? low, Tensor? high) "
    "-> (Tensor, Tensor)",
    _guided_step, _guided_step_fake, _guided_step_backward, _guided_step_keep,
)  # fmt: skip
