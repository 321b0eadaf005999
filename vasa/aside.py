"""Hearing and moving beside decoding: work on a CUDA stream of its own, and what must be waited for between the two.

`VASA_STREAMS=1` asks for it; by default, and on every other device, all work stays on one stream. It has not been run
on a GPU yet (`benchmarks/gpu.py` compares both ways).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor

_streams: dict[torch.device, torch.cuda.Stream] = {}


class Aside:
    """The side stream of a device, as one session uses it.

    All sessions of a device share the stream: recorded work (`vasa.graphs`) has one set of buffers.

    Args:
        device: where the session works.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = _stream(device) if device.type == "cuda" and os.environ.get("VASA_STREAMS") == "1" else None
        self._met = False

    @property
    def ahead(self) -> bool:
        """Whether the next hop should be drawn while this one is decoded."""
        return self.stream is not None

    def forget(self) -> None:
        """Wait for the main stream before the next block: something was put on the device there."""
        self._met = False

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Run the block on the side stream.

        The first block waits for what the main stream has been given so far, such as the portrait's latents; later ones
        do not, else nothing would overlap.
        """
        if self.stream is None:
            yield
            return
        if not self._met:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
            self._met = True
        with torch.cuda.stream(self.stream):
            yield

    def settle(self) -> None:
        """Wait until everything that the side stream was given is done."""
        if self.stream is not None:
            self.stream.synchronize()

    def done(self) -> torch.cuda.Event | None:
        """An event behind what the side stream has been given so far."""
        if self.stream is None:
            return None
        event = torch.cuda.Event()
        event.record(self.stream)
        return event

    def meet(self, ready: torch.cuda.Event | None, *tensors: Tensor | None) -> None:
        """Let the current stream wait for an event, and let tensors from the side stream live until it is done.

        Args:
            ready: of `done`.
            tensors: what the current stream is going to read.
        """
        if ready is None or self.stream is None:
            return
        here = torch.cuda.current_stream(self.stream.device)
        here.wait_event(ready)
        for tensor in tensors:
            if tensor is not None and tensor.device.type == "cuda":
                tensor.record_stream(here)


def _stream(device: torch.device) -> torch.cuda.Stream:
    place = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if place not in _streams:
        _streams[place] = torch.cuda.Stream(place)
    return _streams[place]
