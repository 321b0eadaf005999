"""Threads that draw: daemons, so that none keeps the process, yet waited for when the page closes.

An interpreter that leaves while one is inside PyTorch takes the process down with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_PREFIX = "vasa-"
LEAVE_SECONDS = 10.0
"""How long at most they are waited for; each looks whether it is to stop before every window of motion."""


def worker(name: str, work: Callable[[], None]) -> threading.Thread:
    """A thread for `work`, not started yet."""
    return threading.Thread(target=work, daemon=True, name=_PREFIX + name)


def wait_for_workers(seconds: float = LEAVE_SECONDS) -> bool:
    """Wait until all have ended; whether they did. Tell them to stop first."""
    over = time.monotonic() + seconds
    working = [t for t in threading.enumerate() if t.name.startswith(_PREFIX) and t is not threading.current_thread()]
    for thread in working:
        thread.join(max(0.0, over - time.monotonic()))
    return not any(thread.is_alive() for thread in working)
