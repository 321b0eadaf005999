"""CUDA graphs: a function of tensors is recorded once per shape and replayed, which costs one launch instead of many.

Everywhere else, and wherever recording fails, the function simply runs. `VASA_GRAPHS=0` turns recording off.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_KEPT = 8
"""Recordings a function keeps; each holds its own buffers."""
_WARM_UPS = 2
"""Plain runs before recording: kernels compile, libraries choose algorithms and allocate their workspaces."""


EXCLUSIVE = threading.RLock()
"""Held while recorded work is replayed and its result copied away: its buffers are one set for all threads."""


class Graphed:
    """A function that is replayed from a CUDA graph where that is possible.

    Args:
        function: takes tensors (or None) by position, returns a tuple of tensors. On every call with the same shapes
            it must do the same work on the same weights, and nothing on the CPU that depends on values.
        what: its name in warnings.

    The tensors that come out are overwritten by the next call of the same shape: use or copy them before, and hold
    `EXCLUSIVE` meanwhile where several threads may call.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], what: str) -> None:
        self._function, self._what = function, what
        self._recordings: OrderedDict[Any, _Recording] = OrderedDict()
        self._failed = False

    def __call__(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """The function's result, replayed or computed."""
        if self._failed or not graphs_wanted(tensors):
            return self._function(*tensors)
        key = tuple((t.shape, t.dtype, t.device) if t is not None else None for t in tensors)
        recording = self._recordings.get(key)
        if recording is None:
            try:
                recording = _Recording(self._function, tensors)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # an operation that cannot be recorded, an old driver
                if (full := _out_of_memory(error)) is not None:
                    raise full from error
                self._failed = True
                warnings.warn(
                    f"{self._what} could not be recorded as a CUDA graph and runs plainly ({error}); "
                    "results are the same, VASA_GRAPHS=0 silences this",
                    RuntimeWarning, stacklevel=2,
                )  # fmt: skip
                return self._function(*tensors)
            self._recordings[key] = recording
            if len(self._recordings) > _KEPT:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        return recording(*tensors)

    def forget(self) -> None:
        """Drop all recordings: the weights have moved or changed, or the memory is needed."""
        self._recordings.clear()


def _out_of_memory(error: BaseException) -> torch.OutOfMemoryError | None:
    """The lack of memory that broke a recording off, behind what ending it then raised."""
    context = error.__context__
    while context is not None and not isinstance(context, torch.OutOfMemoryError):
        context = context.__context__
    return context


class _Recording:
    """One graph with its input and output buffers."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], tensors: tuple[Tensor | None, ...]) -> None:
        self._inputs = [t.clone() if t is not None else None for t in tensors]
        self._last = list(tensors)
        self._replay, self._outputs = record(function, self._inputs)

    def __call__(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        for i, tensor in enumerate(tensors):
            # what stays the same object, such as a portrait or a window's conditions, is copied once; an output that
            # comes back as input is the same object with new values
            same = tensor is self._last[i] and not any(tensor is out for out in self._outputs)
            if tensor is not None and not same:
                self._inputs[i].copy_(tensor, non_blocking=True)
                self._last[i] = tensor
        self._replay()
        return self._outputs


def graphs_wanted(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether a call with these tensors should be recorded."""
    first = next((t for t in tensors if t is not None), None)
    if first is None or first.device.type != "cuda" or os.environ.get("VASA_GRAPHS") == "0":
        return False
    return not torch.is_grad_enabled() and not torch.cuda.is_current_stream_capturing()


def record(
    function: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor | None]
) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """Capture a function's work on fixed buffers.

    Returns:
        What replays it, and the tensors it writes.
    """
    device = next(t for t in inputs if t is not None).device
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = function(*inputs)
    return graph.replay, outputs
