"""The truth in plain PyTorch for every kernel; also the path taken without a GPU.

Letters: `N` batch, `C D H W` volume, `L` tokens, `d` head width. Every function follows float64 input, so that it
can judge the fast kernels. Sampling positions are float32 at least: bf16 coordinates are off by half a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .positions import sample, summed_to, warp_grid


def grid_sample_3d(volume: Tensor, grid: Tensor, *, padding_mode: str = "zeros", align_corners: bool = True) -> Tensor:
    """Trilinear samples of a volume at explicit positions.

    Args:
        volume: [N, C, D, H, W] or [1, C, D, H, W] shared by every grid.
        grid: [N, D', H', W', 3], (x, y, z) in [-1, 1].
        padding_mode: "zeros" or "border".
        align_corners: whether -1 and 1 are the centres of the end samples.

    Returns:
        [N, C, D', H', W'] in the volume's dtype.
    """
    grid = grid if grid.dtype == torch.float64 else grid.float()
    volume_n = volume.expand(grid.shape[0], *volume.shape[1:])
    return sample(volume_n, grid, padding_mode, align_corners).to(volume.dtype)


def grid_sample_3d_backward(
    grad: Tensor, volume: Tensor, grid: Tensor, padding_mode: str, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `grid_sample_3d` for its volume (summed where it is shared) and its grid.

    Args:
        grad: gradient of the output, [N, C, D', H', W']; the rest as given to `grid_sample_3d`.
    """
    grid = grid if volume.dtype == torch.float64 else grid.float()
    grid = grid.expand(grad.shape[0], *grid.shape[1:])
    wide = volume.to(grid.dtype).expand(grad.shape[0], *volume.shape[1:])
    padding = {"zeros": 0, "border": 1}[padding_mode]
    grad_volume, grad_grid = torch.ops.aten.grid_sampler_3d_backward(
        grad.to(grid.dtype).contiguous(), wide, grid, 0, padding, align_corners, [True, True]
    )
    return summed_to(grad_volume, volume.shape[0]), grad_grid


def warp_volume(
    volume: Tensor,
    *,
    theta: Tensor | None = None,
    flow: Tensor | None = None,
    order: str = "flow_then_rigid",
    out_size: tuple[int, int, int] | None = None,
    padding_mode: str = "zeros",
    align_corners: bool = True,
    mask: Tensor | None = None,
    collapse_depth: bool = False,
) -> Tensor:
    """Move a volume by a rigid map and a non-rigid field with a single resampling.

    flow_then_rigid:  out(q) = V(M (q + delta(q)))           source -> canonical
    rigid_then_flow:  out(p) = V(y + delta(y)),  y = M p     canonical -> driving

    Args:
        volume: [N or 1, C, D, H, W], any float dtype.
        theta: affine map M, [N, 3, 4]; None is the identity.
        flow: displacement field delta in unit-cube lengths, [N, 3, D', H', W']; None is zero.
        order: which map is applied to the output point first.
        out_size: (D, H, W) of the result; the volume's own by default.
        padding_mode: what lies outside the volume, "zeros" or "border" (the field is always "border").
        align_corners: whether -1 and 1 are the centres of the end samples.
        mask: multiplies the result, [N, 1, D, H, W].
        collapse_depth: return [N, D*C, H, W] with depth-major channels instead of [N, C, D, H, W].

    Returns:
        The moved volume in its own dtype; positions and interpolation are float32.

    Raises:
        ValueError: neither theta nor flow given, or an unknown order.
    """
    if theta is None and flow is None:
        raise ValueError("expected theta, flow or both, got neither; nothing would move")
    if order not in ("flow_then_rigid", "rigid_then_flow"):
        raise ValueError(f"expected order 'flow_then_rigid' or 'rigid_then_flow', got {order!r}")
    size = tuple(out_size or volume.shape[2:])
    grid = warp_grid(size, theta, flow, order, align_corners)
    n = max(grid.shape[0], volume.shape[0])
    grid = grid.expand(n, *grid.shape[1:])
    moved = grid_sample_3d(volume, grid, padding_mode=padding_mode, align_corners=align_corners)
    if mask is not None:
        moved = moved * mask.to(moved.dtype)
    if collapse_depth:
        moved = moved.transpose(1, 2).flatten(1, 2)  # [N, D*C, H, W]
    return moved


def short_attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, key_lengths: Tensor | None = None,
    causal_prefix: int | None = None, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """softmax(q k^T scale + bias) v for short sequences.

    Args:
        q: [N, heads, L, d].
        k, v: [N, heads, S, d].
        bias: added to the scores, broadcastable to [N, heads, L, S].
        key_lengths: number of valid keys per row of the batch, [N]; the rest are ignored.
        causal_prefix: how many leading keys every query sees; of the others only those up to its own place, the last
            query being where the last key is. None: all keys.
        scale: 1 / sqrt(d) by default.

    Returns:
        [N, heads, L, d] in q's dtype.
    """
    if key_lengths is not None:
        valid = torch.arange(k.shape[2], device=k.device) < key_lengths[:, None]  # [N, L]
        hidden = torch.zeros_like(valid, dtype=q.dtype).masked_fill(~valid, float("-inf"))[:, None, None]
        bias = hidden if bias is None else bias + hidden
    if causal_prefix is not None:
        seen = causal_mask(q.shape[2], k.shape[2], causal_prefix, q.device)
        hidden = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, float("-inf"))
        bias = hidden if bias is None else bias + hidden
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def causal_mask(queries: int, keys: int, prefix: int, device: torch.device) -> Tensor:
    """Which keys each query sees, [L, S] bool: `prefix` leading ones and those up to its own place.

    >>> causal_mask(2, 3, 1, torch.device("cpu")).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    place = torch.arange(queries, device=device)[:, None] + (keys - queries)
    key = torch.arange(keys, device=device)
    return (key <= place) | (key < prefix)


def group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, *, eps: float = 1e-5,
    scale: Tensor | None = None, shift: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """silu(group_norm(x) * (1 + scale) + shift), the norm of every residual block.

    Args:
        x: [N, C, ...].
        weight, bias: per channel, [C]; None for none.
        scale, shift: per sample and channel, [N, C] (adaptive group norm); None for none.

    Returns:
        Same shape and dtype as x.
    """
    if scale is None:
        return F.silu(F.group_norm(x, num_groups, weight, bias, eps), inplace=not torch.is_grad_enabled())
    tail = (1,) * (x.dim() - 2)
    if torch.is_grad_enabled():
        y = F.group_norm(x, num_groups, weight, bias, eps)
        return F.silu(y * (1 + scale.reshape(*scale.shape, *tail)) + shift.reshape(*shift.shape, *tail))
    # both affine maps are one, which saves passes over memory; for one sample even that one is the norm's own
    factor = 1 + scale if weight is None else weight * (1 + scale)
    offset = shift if bias is None else torch.addcmul(shift, bias, 1 + scale)
    if x.shape[0] == 1:
        return F.silu(F.group_norm(x, num_groups, factor[0], offset[0], eps), inplace=True)
    y = F.group_norm(x, num_groups, None, None, eps)
    y = torch.addcmul(offset.reshape(*offset.shape, *tail), y, factor.reshape(*factor.shape, *tail))
    return F.silu(y, inplace=True)


def residual_layer_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """(x + y, layer_norm(x + y)): what a transformer layer hands on and what its next half reads.

    Args:
        x, y: [..., D], one shape and dtype.
        weight, bias: [D].
    """
    total = x + y
    return total, F.layer_norm(total, total.shape[-1:], weight, bias, eps)


def ddim_coefficients(alpha_bar_t: float, alpha_bar_s: float) -> tuple[float, float, float, float]:
    """(sqrt a_t, 1 / sqrt(1 - a_t), sqrt a_s, sqrt(1 - a_s)) of one deterministic step from level a_t to a_s.

    >>> ddim_coefficients(0.75, 1.0)
    (0.8660254037844386, 2.0, 1.0, 0.0)
    """
    noise = max(1.0 - alpha_bar_t, 1e-12) ** 0.5
    return alpha_bar_t**0.5, 1.0 / noise, alpha_bar_s**0.5, max(1.0 - alpha_bar_s, 0.0) ** 0.5


def guided_step(
    predictions: Tensor, weights: Tensor, x_t: Tensor, coefficients: Tensor,
    low: Tensor | None = None, high: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Guidance (VASA-1, Eq. 2), clamping and one deterministic DDIM step in one pass.

    x_0 = clamp(sum_r w_r X_r);  eps = (x_t - sqrt(a_t) x_0) / sqrt(1 - a_t);  x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps

    Args:
        predictions: x_0 predictions of the guidance rows, [R, N, T, M].
        weights: row weights, [R], which sum to 1: (1 + sum lambda, -lambda_1, ...).
        x_t: noisy motion, [N, T, M].
        coefficients: `ddim_coefficients` as a tensor, [4].
        low, high: range of x_0 per channel, [M]; None for none.

    Returns:
        (x_0, x_s), each [N, T, M] in the dtype of x_t.
    """
    x_0 = torch.einsum("r,rntm->ntm", weights.to(predictions), predictions)
    if low is not None:
        x_0 = torch.maximum(torch.minimum(x_0, high.to(x_0)), low.to(x_0))
    now, noise, then, rest = coefficients.to(x_t).unbind()
    x_0 = x_0.to(x_t.dtype)
    return x_0, then * x_0 + rest * ((x_t - now * x_0) * noise)


def guided_x0_step(
    predictions: Tensor, weights: Tensor, x_t: Tensor, alpha_bar_t: float, alpha_bar_s: float
) -> tuple[Tensor, Tensor]:
    """`guided_step` between two signal levels given as numbers."""
    coefficients = torch.tensor(ddim_coefficients(alpha_bar_t, alpha_bar_s), dtype=torch.float64, device=x_t.device)
    return guided_step(predictions, weights, x_t, coefficients)
