"""The truth in plain PyTorch for every kernel; also the path taken without a GPU.

Letters: `N` batch, `C D H W` volume, `L` tokens, `d` head width. Every function follows float64 input, so that it
can judge the fast kernels. Sampling positions are float32 at least: bf16 coordinates are off by half a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _sample(volume: Tensor, grid: Tensor, padding_mode: str, align_corners: bool) -> Tensor:
    # grid_sample wants one dtype; the volume goes up to the grid's, never the grid down to the volume's
    wide = volume.to(grid.dtype)
    return F.grid_sample(wide, grid, mode="bilinear", padding_mode=padding_mode, align_corners=align_corners)


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
    return _sample(volume_n, grid, padding_mode, align_corners).to(volume.dtype)


def warp_grid(
    size: tuple[int, int, int], theta: Tensor | None, flow: Tensor | None, order: str, align_corners: bool
) -> Tensor:
    """Sampling positions of `warp_volume`, [N, D, H, W, 3] float32 (float64 if asked)."""
    source = theta if theta is not None else flow
    dtype = torch.float64 if source.dtype == torch.float64 else torch.float32
    axes = []
    for n in size:
        ends = 1.0 if align_corners else 1.0 - 1.0 / n
        axes.append(torch.linspace(-ends, ends, n, dtype=dtype, device=source.device))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)[None]  # [1, D, H, W, 3]
    field = flow.to(dtype) if flow is not None else None
    if order == "flow_then_rigid":
        # M (q + delta(q)): the field lives on the output grid
        if field is not None:
            if field.shape[2:] != torch.Size(size):
                field = F.interpolate(field, size=size, mode="trilinear", align_corners=align_corners)
            grid = grid + field.movedim(1, -1)
        return _affine(grid, theta, dtype)
    # y + delta(y), y = M p: the field is looked up at the rigidly moved point
    grid = _affine(grid, theta, dtype)
    if field is None:
        return grid
    n = max(field.shape[0], grid.shape[0])
    grid = grid.expand(n, *grid.shape[1:])
    delta = _sample(field.expand(n, *field.shape[1:]), grid, "border", align_corners)
    return grid + delta.movedim(1, -1)


def _affine(grid: Tensor, theta: Tensor | None, dtype: torch.dtype) -> Tensor:
    if theta is None:
        return grid
    theta = theta.to(dtype)[:, None, None]  # [N, 1, 1, 3, 4]
    return torch.matmul(grid, theta[..., :3].transpose(-1, -2)) + theta[..., 3].unsqueeze(-2)


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
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """softmax(q k^T scale + bias) v for short sequences.

    Args:
        q, k, v: [N, heads, L, d].
        bias: added to the scores, broadcastable to [N, heads, L, L].
        key_lengths: number of valid keys per row of the batch, [N]; the rest are ignored.
        scale: 1 / sqrt(d) by default.

    Returns:
        [N, heads, L, d] in q's dtype.
    """
    if key_lengths is not None:
        valid = torch.arange(k.shape[2], device=k.device) < key_lengths[:, None]  # [N, L]
        hidden = torch.zeros_like(valid, dtype=q.dtype).masked_fill(~valid, float("-inf"))[:, None, None]
        bias = hidden if bias is None else bias + hidden
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


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
    y = F.group_norm(x, num_groups, weight, bias, eps)
    if scale is not None:
        tail = (1,) * (x.dim() - 2)
        y = y * (1 + scale.reshape(*scale.shape, *tail)) + shift.reshape(*shift.shape, *tail)
    return F.silu(y)


def guided_x0_step(
    predictions: Tensor, weights: Tensor, x_t: Tensor, alpha_bar_t: float, alpha_bar_s: float
) -> tuple[Tensor, Tensor]:
    """Guidance (VASA-1, Eq. 2) and one deterministic DDIM step in one pass.

    x_0 = sum_r w_r X_r;  eps = (x_t - sqrt(a_t) x_0) / sqrt(1 - a_t);  x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps

    Args:
        predictions: x_0 predictions of the guidance rows, [R, N, T, M].
        weights: row weights, [R], which sum to 1: (1 + sum lambda, -lambda_1, ...).
        x_t: noisy motion, [N, T, M].
        alpha_bar_t, alpha_bar_s: cumulative signal levels now and after the step.

    Returns:
        (x_0, x_s), each [N, T, M].
    """
    x_0 = torch.einsum("r,rntm->ntm", weights.to(predictions.dtype), predictions)
    eps = (x_t - alpha_bar_t**0.5 * x_0) / max(1.0 - alpha_bar_t, 1e-12) ** 0.5
    return x_0, alpha_bar_s**0.5 * x_0 + (1.0 - alpha_bar_s) ** 0.5 * eps
