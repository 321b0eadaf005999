"""Triton or PyTorch: the decision for every operation and device, with its reason.

`VASA_KERNELS` says what is wanted, read at every call: "auto" (default), "triton" (also where PyTorch would be as
fast, and on CPU tensors under Triton's interpreter) or "torch". A kernel is used on a device only after it has agreed
with PyTorch there, once per process, on a small random problem: that catches miscompilations and broken toolchains.
What fails is named in one warning and replaced by PyTorch; `VASA_KERNELS_STRICT=1` turns that into an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .launch import has_bfloat16, interpreting

MODES = ("auto", "triton", "torch")
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
LOWEST_CAPABILITY = {
    "warp_volume": (7, 5),
    "group_norm_silu": (7, 5),
    "residual_layer_norm": (7, 5),
    "guided_step": (7, 5),
    "short_attention": (8, 0),
}
"""Operation -> lowest compute capability; products of small tiles fall to scalar code on Turing."""


class Choice(NamedTuple):
    """A backend, "triton" or "torch", and the reason."""

    backend: str
    reason: str

    def __str__(self) -> str:
        return f"{self.backend} ({self.reason})"


_forced: str | None = None
_checked: dict[tuple[str, str], Choice] = {}


def mode() -> str:
    """What is wanted: `use_backend`, else `VASA_KERNELS`, else "auto".

    Raises:
        ValueError: an unknown word.
    """
    wanted = _forced or os.environ.get("VASA_KERNELS", "").strip().lower() or "auto"
    if wanted not in MODES:
        raise ValueError(f"expected VASA_KERNELS to be one of {', '.join(MODES)}, got {wanted!r}")
    return wanted


@contextlib.contextmanager
def use_backend(wanted: str) -> Iterator[None]:
    """Want "auto", "triton" or "torch" inside the block, in the whole process.

    Raises:
        ValueError: an unknown word.
    """
    global _forced
    if wanted not in MODES:
        raise ValueError(f"expected one of {', '.join(MODES)}, got {wanted!r}")
    before, _forced = _forced, wanted
    try:
        yield
    finally:
        _forced = before


def strict() -> bool:
    """Whether a kernel that fails is an error instead of a reason to take PyTorch."""
    return os.environ.get("VASA_KERNELS_STRICT") == "1"


def choose(operation: str, x: Tensor, cannot: str | None = None, rather_not: str | None = None) -> Choice:
    """Decide for one call.

    Args:
        operation: a key of `LOWEST_CAPABILITY`.
        x: the tensor whose device and dtype decide.
        cannot: why the kernel cannot take this call.
        rather_not: why PyTorch is expected to be at least as fast; does not count when Triton is wanted.

    Raises:
        RuntimeError: the kernel failed, or cannot be used though Triton is wanted, and fallbacks are errors.
    """
    wanted = mode()
    if wanted == "torch":
        return Choice("torch", "PyTorch is wanted")
    place = x.device
    if place.type != "cuda" and not (wanted == "triton" and interpreting() and place.type == "cpu"):
        choice = Choice("torch", f"no Triton on {place.type}")
    elif x.dtype not in FLOATS:
        choice = Choice("torch", f"no kernel for {str(x.dtype).removeprefix('torch.')}")
    elif cannot is not None:
        choice = Choice("torch", cannot)
    elif rather_not is not None and wanted == "auto":
        return Choice("torch", rather_not)
    else:
        choice = on_device(operation, place, x.dtype)
    if choice.backend == "torch" and wanted == "triton" and strict():
        raise RuntimeError(f"{operation}: expected the Triton kernel, got {choice}")
    return choice


def on_device(operation: str, place: torch.device, dtype: torch.dtype = torch.float16) -> Choice:
    """Whether a kernel works on a device at all; the self-test runs at the first call."""
    key = (operation, str(place))
    if key not in _checked:
        if place.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return Choice("torch", "first call inside a graph capture")
        _checked[key] = _check(operation, place)
    if dtype == torch.bfloat16 and not has_bfloat16(place):
        return Choice("torch", "no bfloat16 in this GPU")
    return _checked[key]


def fail(operation: str, place: torch.device, error: Exception) -> Choice:
    """Note that a kernel failed and take PyTorch from now on; says so once.

    Raises:
        RuntimeError: fallbacks are errors.
    """
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if strict():
        raise RuntimeError(f"the Triton kernel {operation} failed on {place} ({cause})") from error
    choice = Choice("torch", f"the Triton kernel failed: {cause}")
    _checked[operation, str(place)] = choice
    warnings.warn(
        f"the Triton kernel {operation} failed on {place} and PyTorch runs instead ({cause}); "
        "results are the same, VASA_KERNELS=torch silences this",
        RuntimeWarning, stacklevel=3,
    )  # fmt: skip
    return choice


def _check(operation: str, place: torch.device) -> Choice:
    try:
        triton = importlib.import_module("triton")
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return Choice("torch", "Triton is not installed")
        return fail(operation, place, error)
    except Exception as error:  # a broken toolchain raises anything, on Windows above all
        return fail(operation, place, error)
    if place.type == "cuda" and not torch.version.hip:
        capability, lowest = torch.cuda.get_device_capability(place), LOWEST_CAPABILITY[operation]
        if capability < lowest:
            return Choice(
                "torch", f"compute capability {capability[0]}.{capability[1]} is below {lowest[0]}.{lowest[1]}"
            )
    try:
        from .selftest import run

        run(operation, place)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return fail(operation, place, error)
    how = "interpreter" if place.type == "cpu" else "self-test passed"
    return Choice("triton", f"Triton {triton.__version__}, {how}")
