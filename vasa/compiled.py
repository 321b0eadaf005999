"""`torch.compile`, for whoever wants it: `VASA_COMPILE=1`, or the name of a compiler's backend.

It is off by default: the kernels and graphs of vasa need no compiler at the user's, and the first call takes minutes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch


def wanted() -> str | None:
    """The backend that is asked for, "inductor" for `VASA_COMPILE=1`; None: compile nothing."""
    word = os.environ.get("VASA_COMPILE", "").strip()
    return {"": None, "0": None, "1": "inductor"}.get(word, word)


def compiled(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """A function that is compiled at its first call, where that is wanted and works.

    Args:
        function: takes tensors.
        what: its name in warnings.
    """
    backend = wanted()
    if backend is None:
        return function
    compiling: Callable[..., Any] | None = None
    failed = False

    def run(*arguments: Any) -> Any:
        nonlocal compiling, failed
        if not failed:
            try:
                if compiling is None:
                    compiling = torch.compile(function, backend=backend, dynamic=False)
                return compiling(*arguments)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # no compiler, an unknown backend, something that cannot be traced
                failed = True
                reason = " ".join(str(error).split())[:200]
                warnings.warn(
                    f"{what} could not be compiled and runs plainly ({type(error).__name__}: {reason}); "
                    "results are the same, VASA_COMPILE=0 silences this",
                    RuntimeWarning, stacklevel=2,
                )  # fmt: skip
        return function(*arguments)

    return run
