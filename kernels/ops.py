"""The operations as PyTorch knows them: `torch.ops.vasa.*`, with shapes for tracing and explicit gradients.

Each runs its Triton kernel where `backend` allows it and PyTorch elsewhere, so the same traced program works on every
device. Outputs are fresh tensors with the strides that tracing was told. A second copy of the package (a ComfyUI
plug-in beside an installed one) finds the names taken and uses what is there.
"""

from __future__ import annotations

from .ops_attention import short_attention
from .ops_norm import group_norm_silu, residual_layer_norm
from .ops_step import guided_step
from .ops_warp import warp3d, warp3d_grad_grid, warp3d_grad_volume

__all__ = [
    "group_norm_silu", "guided_step", "residual_layer_norm", "short_attention", "warp3d", "warp3d_grad_grid",
    "warp3d_grad_volume",
]  # fmt: skip
