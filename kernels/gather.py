"""Trilinear sampling out of eight gathers, for devices without PyTorch's own (Apple's GPUs).

Everything in it has a gradient, and every operation is one that all devices have.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def gather_3d(volume: Tensor, grid: Tensor, padding_mode: str, align_corners: bool) -> Tensor:
    """As `torch.nn.functional.grid_sample` for volumes.

    Args:
        volume: [N, C, D, H, W].
        grid: [N, D', H', W', 3] in the volume's dtype, (x, y, z) in [-1, 1].
        padding_mode: "zeros" or "border".
        align_corners: whether -1 and 1 are the centres of the end samples.

    Returns:
        [N, C, D', H', W'].
    """
    n, c, *size = volume.shape
    axes = [
        _cell(at, length, padding_mode, align_corners)
        for at, length in zip(grid.flatten(1, 3).unbind(-1), reversed(size), strict=True)
    ]
    flat = volume.flatten(2)
    total = flat.new_zeros(n, c, axes[0][0][0].shape[1])
    for (ix, wx), (iy, wy), (iz, wz) in itertools.product(*axes):
        index = (iz * size[1] + iy) * size[2] + ix  # [N, P]
        total = total + flat.gather(2, index[:, None].expand(-1, c, -1)) * (wx * wy * wz)[:, None]
    return total.unflatten(2, grid.shape[1:4])


def _cell(at: Tensor, length: int, padding_mode: str, align_corners: bool) -> list[tuple[Tensor, Tensor]]:
    """(index, weight) of both neighbours on one axis, [N, P]."""
    u = (at + 1) * ((length - 1) / 2) if align_corners else ((at + 1) * length - 1) / 2
    if padding_mode == "border":
        u = torch.nan_to_num(u, nan=0.0).clamp(0, length - 1)
    else:
        # what is not a number or far away lands outside
        u = torch.nan_to_num(u, nan=-2.0).clamp(-2, length + 1)
    low = u.detach().floor()
    share = u - low
    neighbours = []
    for place, weight in ((low, 1 - share), (low + 1, share)):
        inside = (place >= 0) & (place <= length - 1)
        neighbours.append((place.clamp(0, length - 1).long(), torch.where(inside, weight, torch.zeros_like(weight))))
    return neighbours
