"""How an operation becomes one of PyTorch's: a name, shapes for tracing, a gradient, and the choice of who runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import backend


def define(name: str, schema: str, run: Callable, fake: Callable, backward: Callable | None = None,
            keep: Callable | None = None) -> Callable:  # fmt: skip
    """Register `torch.ops.vasa.<name>`, unless a second copy of the package has done so.

    Args:
        name: of the operation.
        schema: its signature.
        run: computes it.
        fake: gives outputs of the same shapes, strides and dtypes without computing.
        backward: its gradient; None for operations without one.
        keep: what the gradient needs of inputs and output.
    """
    if not hasattr(torch.ops.vasa, name):
        operation = torch.library.custom_op(f"vasa::{name}", run, mutates_args=(), schema=schema)
        operation.register_fake(fake)
        if backward is not None:
            operation.register_autograd(backward, setup_context=keep)
    return getattr(torch.ops.vasa, name)


def run(operation: str, x: Tensor, kernel: Callable[[], Any], plain: Callable[[], Any], cannot: str | None = None):
    """The kernel where `backend` allows it, PyTorch elsewhere and wherever the kernel fails.

    Args:
        operation: as `backend` knows it.
        x: the tensor that decides.
        kernel, plain: both ways.
        cannot: why the kernel cannot take this call.
    """
    if backend.choose(operation, x, cannot).backend == "triton":
        try:
            return kernel()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # out of shared memory, a compiler's failure on this one shape
            backend.fail(operation, x.device, error)
    return plain()


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """A copy with the strides that tracing was told, and never the memory of an input."""
    return torch.empty_strided(like.shape, like.stride(), dtype=x.dtype, device=x.device).copy_(x)
