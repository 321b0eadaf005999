"""Timing that can be believed: contestants take turns, the cache is flushed, medians and spread are kept.

On CUDA, events time the device. On the CPU two clocks run: the wall, and the processor time of this process, which
other programs on the machine hardly disturb.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_FLUSH_BYTES = 256 << 20
"""Larger than any GPU's cache."""
_PATIENCE = 60.0
"""Seconds for each contestant after which one turn is enough: large models on a CPU."""
_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant, quantiles over its turns.

    Attributes:
        p20, p50, p80: on the device (CUDA) or the wall (CPU).
        processor: median processor time of the process, all threads; 0 on CUDA.
        turns: how many were taken.
    """

    p20: float
    p50: float
    p80: float
    processor: float
    turns: int

    @property
    def judged(self) -> float:
        """The figure to compare: processor time where it exists, else the device's."""
        return self.processor or self.p50


def race(
    contestants: dict[str, Callable[[], object]], device: torch.device, *, seconds: float = 2.0, flush: bool = True,
    most: int = 200, warm: bool = False,
) -> dict[str, Timing]:  # fmt: skip
    """Time functions side by side.

    Args:
        contestants: name -> what to run; each is warmed up first.
        device: where they work.
        seconds: time to spend on each, about; at least three turns are taken, or what a minute has room for.
        flush: empty the GPU's cache before each turn.
        most: turns at most.
        warm: each has run once already.
    """
    for run in contestants.values():
        for _ in range((3 if device.type == "cuda" else 1) - warm):
            run()
    scratch = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=device) if device.type == "cuda" and flush else None
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    began = time.perf_counter()
    while True:
        for name, run in contestants.items():
            taken[name].append(_once(run, device, scratch))
        turns = len(next(iter(taken.values())))
        spent = time.perf_counter() - began
        enough = turns >= 3 or spent > _PATIENCE * len(contestants)
        if turns >= most or (enough and spent > seconds * len(contestants)):
            break
    return {name: _summary(turns) for name, turns in taken.items()}


def _once(run: Callable[[], object], device: torch.device, scratch: torch.Tensor | None) -> tuple[float, float]:
    if device.type != "cuda":
        wall, processor = time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - wall, time.process_time() - processor
    if scratch is not None:
        scratch.zero_()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3, 0.0


def _summary(turns: list[tuple[float, float]]) -> Timing:
    walls = sorted(wall for wall, _ in turns)
    p20, p50, p80 = (walls[min(len(walls) - 1, round(q * (len(walls) - 1)))] for q in (0.2, 0.5, 0.8))
    return Timing(p20, p50, p80, statistics.median(processor for _, processor in turns), len(turns))


def graph_of(run: Callable[[], object]) -> Callable[[], object]:
    """The same work replayed from a CUDA graph: without the time the host takes to launch it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()
        run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def peak_memory(run: Callable[[], object], device: torch.device) -> float:
    """Most bytes in use while `run` runs: allocated on a GPU, else resident in this process; 0 where nobody counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return float(torch.cuda.max_memory_allocated(device))
    try:
        _PROCESS.joinpath("clear_refs").write_text("5")  # the peak begins anew
        run()
        peak = re.search(r"VmHWM:\s+(\d+) kB", _PROCESS.joinpath("status").read_text())
    except OSError:
        return 0.0
    return 1024.0 * int(peak.group(1)) if peak else 0.0


def bandwidth(device: torch.device) -> float:
    """Measured bytes per second of a large copy, read and write counted."""
    size = 512 << 20 if device.type == "cuda" else 64 << 20
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = race({"copy": lambda: target.copy_(source)}, device, seconds=0.3, flush=False)["copy"]
    return 2 * size / timing.p50


def arithmetic(device: torch.device, dtype: torch.dtype) -> float:
    """Measured floating-point operations per second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device).to(dtype)
    b = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / race({"product": lambda: a @ b}, device, seconds=0.3, flush=False)["product"].judged
