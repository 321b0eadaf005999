"""Frames of a motion in batches: recorded where that is possible, halved where the memory is too small, and brought to
the CPU while the next batch is computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from . import graphs
from .compiled import compiled
from .graphs import Graphed


class Batches:
    """Decodes with one function on one device.

    Args:
        pictures: (frames' own tensors, shared tensors) -> (pictures [n, 3, S, S] float32 in [0, 1],); see
            `vasa.graphs.Graphed` for what it must keep to.
        device: where it works.
    """

    def __init__(self, pictures: Callable[..., tuple[Tensor]], device: torch.device) -> None:
        self.device = device
        self.largest_batch: int | None = None
        """Frames at a time that the memory allows, once it was too small; None before."""
        self._graphed = Graphed(compiled(pictures, "decoding"), "decoding")

    def frames(
        self, own: tuple[Tensor, ...], shared: tuple[Tensor, ...], batch_size: int, on_device: bool = False,
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Decode.

        Args:
            own: what differs from frame to frame, each [T, ...], on the device.
            shared: what all frames share, on the device.
            batch_size: frames at a time; fewer once the memory was too small.
            on_device: leave the frames where they are made.
            finish: done to each batch before it travels.

        Yields:
            [n, 3, S, S] float32 in [0, 1], n <= batch_size, or what `finish` makes of it.
        """
        outgoing: list[tuple[Tensor, torch.cuda.Event | None]] = []
        ahead = 1 if self.device.type == "cuda" else 0  # the device is busy with a batch while the last one travels
        start, total = 0, len(own[0])
        while start < total:
            count = min(batch_size, self.largest_batch or batch_size)
            stop = min(start + count, total)
            pictures = None
            try:
                # copies: kernels may round otherwise where memory begins elsewhere, and frames must not depend on that
                pictures = self._finished(tuple(x[start:stop].clone() for x in own), shared, finish)
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise
            if pictures is None:  # outside of the handler, whose traceback holds on to the memory
                self._halve(stop - start)
                continue
            outgoing.append((pictures, None) if on_device else _to_cpu(pictures))
            start = stop
            if len(outgoing) > ahead:
                yield _arrived(*outgoing.pop(0))
        for pictures, event in outgoing:
            yield _arrived(pictures, event)

    def _finished(
        self, own: tuple[Tensor, ...], shared: tuple[Tensor, ...], finish: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        pictures = self._decode(own, shared)
        if finish is None:
            return pictures
        # Apple's GPUs lack operations that the CPU has
        return finish(pictures if self.device.type == "cuda" else pictures.cpu())

    def _decode(self, own: tuple[Tensor, ...], shared: tuple[Tensor, ...]) -> Tensor:
        if not graphs.graphs_wanted(own):
            return self._graphed(*own, *shared)[0]
        with graphs.EXCLUSIVE:  # a replay writes to the same place every time
            return self._graphed(*own, *shared)[0].clone()

    def _halve(self, count: int) -> None:
        self.largest_batch = count // 2
        self._graphed.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"the memory does not suffice to decode {count} frames at a time; going on with {count // 2}",
            RuntimeWarning, stacklevel=4,
        )  # fmt: skip


def mark_of(weights: Iterable[nn.Parameter]) -> tuple:
    """Something that differs once weights have moved or changed."""
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in weights)


def _to_cpu(pictures: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if pictures.device.type != "cuda":
        return pictures.cpu(), None
    computed, copied = torch.cuda.Event(), torch.cuda.Event()
    computed.record(torch.cuda.current_stream(pictures.device))  # which need not be the current device
    landing = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True)
    with torch.cuda.stream(_copies(pictures.device)):
        computed.wait()
        landing.copy_(pictures, non_blocking=True)
        pictures.record_stream(torch.cuda.current_stream())
        copied.record()
    return landing, copied


_copy_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copies(device: torch.device) -> torch.cuda.Stream:
    if device not in _copy_streams:
        _copy_streams[device] = torch.cuda.Stream(device)
    return _copy_streams[device]


def _arrived(pictures: Tensor, event: torch.cuda.Event | None) -> Tensor:
    if event is not None:
        event.synchronize()
    return pictures
