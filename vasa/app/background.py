"""Work in a thread of its own, its progress as statuses: what the tabs share that do not stream."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

from .performance import REPORT_SECONDS, Status
from .studio import Job
from .workers import worker

STAGES = {"motion": "Planning the movement", "frames": "Drawing", "tracking": "Watching the driver"}
Progress = Callable[[str, int, int], None]


def watched(job: Job, work: Callable[[Progress], Any]) -> Iterator[Status | Any]:
    """Statuses while `work(progress)` runs, then its result. Whoever stops listening stops it.

    Raises:
        Stopped: the job was stopped.
    """
    latest: queue.Queue[Status] = queue.Queue()
    done: list[Any] = []
    failed: list[BaseException] = []

    def progress(stage: str, count: int, total: int) -> None:
        job.check()
        share = count / max(total, 1)
        latest.put(Status(f"{STAGES.get(stage, stage)}, {share:.0%}", share))

    def run() -> None:
        try:
            done.append(work(progress))
        except BaseException as error:
            failed.append(error)

    thread = worker("work", run)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(REPORT_SECONDS)
            status = None
            while not latest.empty():
                status = latest.get()
            if status is not None:
                yield status
    finally:
        job.stop.set()
        thread.join()
    if failed:
        raise failed[0]
    yield done[0]
