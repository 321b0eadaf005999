"""Starting Triton kernels: the right device, fresh outputs, the same options everywhere."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


def interpreting() -> bool:
    """Whether Triton runs kernels in its interpreter, on CPU tensors (`TRITON_INTERPRET=1` before its first import)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, grid: tuple[int, ...], on: Tensor, *arguments: Any, **options: Any) -> None:
    """Start a kernel on the device of `on`, which need not be the current one."""
    # the default of fp fusion turns off in Triton 3.10, which costs a quarter more instructions
    with torch.cuda.device_of(on):
        kernel[grid](*arguments, enable_fp_fusion=True, **options)


def empty(
    size: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None, layout: torch.memory_format | None = None
) -> Tensor:
    """A fresh output on the device of `like`; every output of every kernel comes from here."""
    layout = layout or torch.contiguous_format
    return torch.empty(size, device=like.device, dtype=dtype or like.dtype, memory_format=layout)


def power_of_two(n: int) -> int:
    """The smallest power of two >= n."""
    return 1 << max(0, n - 1).bit_length()


def channels_last(x: Tensor) -> torch.memory_format | None:
    """The channels-last format of a tensor's rank; None where there is none, [N, C] and [N, C, L]."""
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())


def has_bfloat16(place: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; Turing and older emulate it."""
    nvidia = place.type == "cuda" and not torch.version.hip
    return not nvidia or torch.cuda.get_device_capability(place) >= (8, 0)
