"""Which implementation of each kernel runs, and why.

Only the PyTorch reference exists so far, so every operation reports "torch"; callers import the operations from
here and need not change when a faster one arrives.
"""

from __future__ import annotations

from .reference import grid_sample_3d, group_norm_silu, guided_x0_step, short_attention, warp_volume

__all__ = [
    "backend_report", "grid_sample_3d", "group_norm_silu", "guided_x0_step", "short_attention", "warp_volume",
]  # fmt: skip


def backend_report() -> dict[str, str]:
    """Operation -> chosen backend and the reason, for `vasa doctor`."""
    operations = [name for name in __all__ if name != "backend_report"]
    return {name: "torch (no Triton kernel in this release)" for name in operations}
