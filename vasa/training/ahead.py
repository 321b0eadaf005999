"""Batches made while the accelerator works on the ones before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
_WAITING = 2
"""Batches that each thread keeps ready."""


class Ahead(Generic[T]):
    """Draws batches in threads of their own; the order depends on the seed and the number of threads alone.

    Args:
        make: makes one batch from a CPU generator; with threads it is called from several at once.
        seed: of the generators.
        threads: 0 makes each batch when it is asked for, which is best where the CPU also trains.
    """

    def __init__(self, make: Callable[[torch.Generator], T], seed: int, threads: int) -> None:
        self._make = make
        self._turn = 0
        self._own = torch.Generator().manual_seed(seed)
        self._ready: list[queue.Queue] = [queue.Queue(_WAITING) for _ in range(threads)]
        for number, ready in enumerate(self._ready):
            generator = torch.Generator().manual_seed(seed + 7919 * (number + 1))
            threading.Thread(target=self._work, args=(generator, ready), daemon=True).start()

    def take(self) -> T:
        """The next batch.

        Raises:
            Exception: what `make` raised.
        """
        if not self._ready:
            return self._make(self._own)
        ready = self._ready[self._turn % len(self._ready)]
        self._turn += 1
        made = ready.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def _work(self, generator: torch.Generator, ready: queue.Queue) -> None:
        while True:
            try:
                made = self._make(generator)
            except Exception as error:
                ready.put(error)
                return
            ready.put(made)
