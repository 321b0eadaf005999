"""Where a warp samples, and PyTorch's trilinear sampling there.

Positions are float32 at least: bf16 coordinates are off by half a pixel. Every function follows float64 input.

Letters: `N` batch, `C D H W` volume.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .gather import gather_3d

WITHOUT_SAMPLING = ("mps",)
"""Devices whose trilinear sampling PyTorch lacks, or has only in its newest versions."""


def sample(volume: Tensor, grid: Tensor, padding_mode: str, align_corners: bool) -> Tensor:
    """A volume [N, C, D, H, W] at positions [N, D', H', W', 3], in the wider dtype of the two."""
    # grid_sample wants one dtype; the volume goes up to the grid's, never the grid down to the volume's
    wide = volume.to(grid.dtype)
    if grid.device.type in WITHOUT_SAMPLING:
        return gather_3d(wide, grid, padding_mode, align_corners)
    return F.grid_sample(wide, grid, mode="bilinear", padding_mode=padding_mode, align_corners=align_corners)


def warp_grid(
    size: tuple[int, int, int], theta: Tensor | None, flow: Tensor | None, order: str, align_corners: bool
) -> Tensor:
    """Sampling positions of `warp_volume`, [N, D, H, W, 3] float32 (float64 if asked)."""
    source = theta if theta is not None else flow
    dtype = torch.float64 if source.dtype == torch.float64 else torch.float32
    axes = []
    for n in size:
        ends = 1.0 if align_corners else 1.0 - 1.0 / n
        # a single sample lies in the middle, as `vasa.geometry.identity_grid` has it
        ends = ends if n > 1 else 0.0
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
    delta = sample(field.expand(n, *field.shape[1:]), grid, "border", align_corners)
    return grid + delta.movedim(1, -1)


def _affine(grid: Tensor, theta: Tensor | None, dtype: torch.dtype) -> Tensor:
    if theta is None:
        return grid
    # no matrix product: mixed precision would round its factors to bf16
    along_x, along_y, along_z, shift = theta.to(dtype)[:, None, None, None].unbind(-1)  # [N, 1, 1, 1, 3] each
    return grid[..., :1] * along_x + grid[..., 1:2] * along_y + grid[..., 2:] * along_z + shift


def warp_grid_backward(
    grad: Tensor, size: tuple[int, int, int], theta: Tensor | None, flow: Tensor | None, order: str, align_corners: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `warp_grid`.

    Args:
        grad: gradient of the positions, [N, D, H, W, 3]; the rest as given to `warp_grid`.

    Returns:
        Gradients of theta and flow, each in the shape and dtype of its tensor; None for None.
    """
    field = flow.to(grad.dtype) if flow is not None else None
    grad_field = None
    if order == "flow_then_rigid":
        points = warp_grid(
            size, None, field if field is not None else grad.new_zeros(1, 3, *size), order, align_corners
        )
        grad_points = torch.matmul(grad, theta[:, None, None, :, :3].to(grad.dtype)) if theta is not None else grad
        if field is not None:
            grad_field = summed_to(grad_points.movedim(-1, 1), field.shape[0])
            if field.shape[2:] != torch.Size(size):
                grad_field = torch.ops.aten.upsample_trilinear3d_backward(
                    grad_field.contiguous(), list(size), list(field.shape), align_corners
                )
    else:
        points = warp_grid(size, None, grad.new_zeros(1, 3, *size), "flow_then_rigid", align_corners)
        if field is not None:
            n = grad.shape[0]
            moved = _affine(points, theta, grad.dtype).expand(n, *size, 3)
            upstream = grad.movedim(-1, 1).contiguous()
            grad_field, through = torch.ops.aten.grid_sampler_3d_backward(
                upstream, field.expand(n, *field.shape[1:]), moved, 0, 1, align_corners, [True, True]
            )
            grad_field, grad = summed_to(grad_field, field.shape[0]), grad + through
    grad_theta = None
    if theta is not None:
        ones = points.new_ones(()).expand(*points.shape[:-1], 1)
        homogeneous = torch.cat([points, ones], dim=-1).flatten(1, 3)  # [N or 1, P, 4]
        grad_theta = torch.matmul(grad.flatten(1, 3).transpose(1, 2), homogeneous)
        grad_theta = summed_to(grad_theta, theta.shape[0]).to(theta.dtype)
    return grad_theta, grad_field.to(flow.dtype) if grad_field is not None else None


def summed_to(grad: Tensor, n: int) -> Tensor:
    # a tensor that all samples share gathers their gradients
    return grad.sum(0, keepdim=True) if grad.shape[0] != n else grad
