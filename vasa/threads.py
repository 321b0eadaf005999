"""As many threads as there are processors to run them: a container's share may be far less than the machine's cores."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_ROOT = Path("/sys/fs/cgroup")


def fit_threads() -> None:
    """Take no more threads than this process may use; a number the user chose (OMP_NUM_THREADS) stays.

    PyTorch counts the machine's cores. With a container's quota of two on a machine of 64, 64 threads would take turns.
    """
    share = processors()
    if "OMP_NUM_THREADS" not in os.environ and share < torch.get_num_threads():
        torch.set_num_threads(share)


def processors(root: Path = _ROOT) -> int:
    """Processors that this process may use: affinity and the control group's quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return count if quota is None else max(1, min(count, round(quota)))


def _quota(root: Path) -> float | None:
    """The control group's share in processors, versions 2 and 1; None: no limit, or not to be read."""
    try:
        if (root / "cpu.max").is_file():
            allowed, period = (root / "cpu.max").read_text().split()
        else:
            allowed, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        return None if allowed in ("max", "-1") else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
