"""Attention over short sequences as an operation of PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import launch, reference
from .register import define, laid_out, run


def _short_attention(q, k, v, bias, key_lengths, causal_prefix, scale):
    def kernel() -> Tensor:
        from . import attention

        return attention.short_attention(q, k, v, bias, key_lengths, causal_prefix, scale)

    def plain() -> Tensor:
        result = reference.short_attention(
            q, k, v, bias=bias, key_lengths=key_lengths, causal_prefix=causal_prefix, scale=scale
        )
        return laid_out(result, _short_attention_fake(q, k, v, bias, key_lengths, causal_prefix, scale))

    return run("short_attention", q, kernel, plain)


def _short_attention_fake(q, k, v, bias, key_lengths, causal_prefix, scale):
    return launch.empty(tuple(q.shape), q)


def _short_attention_keep(ctx, inputs, output):
    q, k, v, bias, key_lengths, ctx.causal_prefix, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias, key_lengths, output)


def _short_attention_backward(ctx, grad):
    q, k, v, bias, key_lengths, out = ctx.saved_tensors
    scores = torch.matmul(q, k.transpose(-1, -2)) * ctx.scale
    if bias is not None:
        scores = scores + bias
    if key_lengths is not None:
        heard = torch.arange(k.shape[2], device=k.device) < key_lengths[:, None]
        scores = scores.masked_fill(~heard[:, None, None], float("-inf"))
    if ctx.causal_prefix is not None:
        seen = reference.causal_mask(q.shape[2], k.shape[2], ctx.causal_prefix, q.device)
        scores = scores.masked_fill(~seen, float("-inf"))
    weights = torch.nan_to_num(F.softmax(scores, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)))
    weights, grad = weights.to(q.dtype), grad.to(q.dtype)
    grad_scores = torch.matmul(grad, v.transpose(-1, -2)) - (grad * out).sum(-1, keepdim=True)
    grad_scores = weights * grad_scores
    grad_q = torch.matmul(grad_scores, k) * ctx.scale
    grad_k = torch.matmul(grad_scores.transpose(-1, -2), q) * ctx.scale
    grad_v = torch.matmul(weights.transpose(-1, -2), grad)
    grad_bias = grad_scores.sum_to_size(bias.shape).to(bias.dtype) if bias is not None else None
    return grad_q, grad_k, grad_v, grad_bias, None, None, None


short_attention = define(
    "short_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? key_lengths, int? causal_prefix, float scale) "
    "-> Tensor",
    _short_attention, _short_attention_fake, _short_attention_backward, _short_attention_keep,
)  # fmt: skip
