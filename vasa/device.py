"""Which device to work on and in which number format."""

from __future__ import annotations

import torch

from .errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device a name stands for; "auto" takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        InputError: unknown, or not present on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but PyTorch finds no CUDA GPU; use --device cpu")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format a name stands for; "auto" takes bf16 where the hardware computes in it."""
    if name != "auto" and name not in PRECISIONS:
        raise InputError(f"unknown precision {name!r}; use auto, {', '.join(PRECISIONS)}")
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        # PyTorch calls bf16 supported where it is emulated, too
        computes = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if computes else torch.float16
    fast = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast and has_bf16_units() else torch.float32


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    capability = torch.backends.cpu.get_cpu_capability()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else capability == "AVX512"
