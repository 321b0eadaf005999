"""A portrait that listens: sound goes in as it comes, frames and the sound beside them come out in time."""

from __future__ import annotations

import collections
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..controls import Controls
from ..live import live_plan
from ..provenance import mark
from ..stream import Full, Session
from .studio import Portrait
from .workers import worker

SILENT = 10 ** (-50 / 20)
"""Root mean square below which sound may be left out to catch up."""
BACKLOG_SECONDS = 0.6
"""Sound that may wait beyond what the plan needs."""
LATE_SECONDS = 0.06
"""How long a due frame waits for sound before the face idles."""


@dataclass(frozen=True)
class Shown:
    """Frames that are due.

    Attributes:
        index: of the first frame; it belongs to second index / fps.
        frames: [n, 3, S, S] in [0, 1], marked.
        samples: the sound beside them, mono at `RATE`.
        delay: seconds since the sound of the first frame arrived.
    """

    index: int
    frames: Tensor
    samples: np.ndarray
    delay: float


class Performer:
    """Runs a session in a thread of its own until it is closed.

    Args:
        pipe: the engine.
        portrait: who listens.
        controls: changed with `change`.
    """

    RATE = 16_000

    def __init__(self, pipe: Any, portrait: Portrait, controls: Controls) -> None:
        self.pipe, self.fps = pipe, pipe.fps
        self._portrait, self._controls = portrait, controls
        self.shown: queue.Queue[Shown | None] = queue.Queue(maxsize=32)
        self.slow = False
        self.dropped = 0
        """Silent samples that were left out to catch up."""
        self.problem = ""
        self._heard: queue.Queue[np.ndarray] = queue.Queue(maxsize=500)
        self._closed = threading.Event()
        self._changed: Controls | None = None
        self._thread = worker("live", self._run)

    def start(self) -> None:
        self._thread.start()

    def hear(self, samples: np.ndarray) -> None:
        """Append sound, mono float32 at `RATE`; never waits."""
        if not self._heard.full():
            self._heard.put(samples)

    def change(self, controls: Controls) -> None:
        """Other controls from the next frames on."""
        self._changed = controls

    def close(self) -> None:
        """End it; what waits in `shown` is followed by None."""
        self._closed.set()

    def _run(self) -> None:
        try:
            self._perform()
        except Exception as error:
            self.problem = f"the live run ended: {error}"
        finally:
            while True:
                try:
                    self.shown.put(None, timeout=0.1)
                    break
                except queue.Full:
                    self.shown.get_nowait()

    def _perform(self) -> None:
        plan, pace = live_plan(self.pipe, self._portrait.latents)
        self.slow = pace is not None and pace.load(plan.hop, self.fps) > 1
        session = Session(self.pipe, self._portrait.latents, self._controls, plan)
        while not self._heard.empty():
            self._heard.get_nowait()
        arrivals: collections.deque[tuple[float, float]] = collections.deque(maxlen=2000)
        needed = (plan.hop + plan.look_ahead) / self.fps
        sound, given, started = np.zeros(0, np.float32), 0, time.perf_counter()
        while not self._closed.is_set():
            if self._changed is not None:
                changed, self._changed = self._changed, None
                session.set_controls(changed)
            due = started + session.frame / self.fps + needed + LATE_SECONDS
            try:
                samples = self._heard.get(timeout=max(0.0, min(0.05, due - time.perf_counter())))
                waiting = session.seconds - session.frame / self.fps
                if waiting > needed + BACKLOG_SECONDS and float(np.sqrt((samples**2).mean())) < SILENT:
                    self.dropped += len(samples)
                else:
                    session.push_audio(torch.from_numpy(samples), self.RATE)
                    sound = np.concatenate([sound, samples])
            except (queue.Empty, Full):
                if time.perf_counter() >= due:
                    before = session.silence
                    session.idle_until(session.frame + 1)
                    sound = np.concatenate([sound, np.zeros(session.silence - before, np.float32)])
            arrivals.append((session.seconds, time.perf_counter()))
            while not self._closed.is_set() and session.frames_ready:
                index, frames = session.frame, mark(session.pop_frames())
                if not len(frames):
                    break
                count = round((index + len(frames)) * self.RATE / self.fps) - given
                piece, sound, given = sound[:count], sound[count:], given + count
                while len(arrivals) > 1 and arrivals[0][0] < index / self.fps:
                    arrivals.popleft()
                piece = np.pad(piece, (0, count - len(piece)))
                self._give(Shown(index, frames, piece, time.perf_counter() - arrivals[0][1]))

    def _give(self, shown: Shown) -> None:
        while not self._closed.is_set():
            try:
                self.shown.put(shown, timeout=0.1)
                return
            except queue.Full:
                # nobody takes frames: the oldest go, what is shown stays now
                self.shown.get_nowait()
