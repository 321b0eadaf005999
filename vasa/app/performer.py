"""A portrait that listens: sound goes in as it comes, frames and the sound beside them come out in time."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..controls import Controls
from ..live import SPARSEST, call_plan
from ..provenance import mark
from ..stream import Full, Session
from .studio import Portrait
from .workers import worker

SILENT = 10 ** (-50 / 20)
"""Root mean square below which sound may be left out to catch up."""
LATE_STEP = 0.1
"""Seconds behind the sound for which one frame more shares a picture."""
BACKLOG_SECONDS = 0.3
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
        count: how many frames there are at the full rate, of which some are left out.
        every: each one shown stands for itself and those up to the next.
        made: when the frames were ready, by `time.perf_counter`.
    """

    index: int
    frames: Tensor
    samples: np.ndarray
    delay: float
    count: int
    every: int
    made: float

    @property
    def places(self) -> range:
        """Which of the `count` frames are shown."""
        return range(0, self.count, self.every)


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
        """Samples that were left out to catch up: silent ones, and any beyond what a session holds."""
        self.problem = ""
        self._heard: queue.Queue[tuple[float, np.ndarray]] = queue.Queue(maxsize=500)
        self._closed = threading.Event()
        self._changed: Controls | None = None
        self._beside = np.zeros(0, np.float32)
        """Sound whose frames are not made yet."""
        self._given = 0
        """Samples that left beside their frames."""
        self._arrivals: collections.deque[tuple[float, float]] = collections.deque(maxlen=2000)
        """Seconds of sound taken, and when the last of it came."""
        self._thread = worker("live", self._run)

    def start(self) -> None:
        self._thread.start()

    def hear(self, samples: np.ndarray) -> None:
        """Append sound, mono float32 at `RATE`; never waits."""
        if not self._heard.full():
            self._heard.put((time.perf_counter(), samples))

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
        plan, load = call_plan(self.pipe, self._portrait.latents)
        self.slow = load > 1
        session = Session(self.pipe, self._portrait.latents, self._controls, plan)
        while not self._heard.empty():
            self._heard.get_nowait()
        needed = (plan.hop + plan.look_ahead) / self.fps
        started = time.perf_counter()
        while not self._closed.is_set():
            if self._changed is not None:
                changed, self._changed = self._changed, None
                session.set_controls(changed)
            due = started + session.frame / self.fps + needed + LATE_SECONDS
            wait = 0.0 if session.frames_ready else max(0.0, min(0.05, due - time.perf_counter()))
            if not self._listen(session, needed, wait) and time.perf_counter() >= due:
                before = session.silence
                session.idle_until(session.frame + 1)
                self._beside = np.concatenate([self._beside, np.zeros(session.silence - before, np.float32)])
                self._arrivals.append((session.seconds, time.perf_counter()))
            if session.frames_ready:
                late = session.seconds - session.frame / self.fps - needed
                self._show(session, min(SPARSEST, 1 + max(0, int(late / LATE_STEP))))

    def _listen(self, session: Session, needed: float, wait: float) -> bool:
        """Push all that was heard; False if there was nothing for so many seconds."""
        pieces = []
        with contextlib.suppress(queue.Empty):
            pieces.append(self._heard.get(timeout=wait) if wait else self._heard.get_nowait())
            while True:
                pieces.append(self._heard.get_nowait())
        for moment, samples in pieces:
            waiting = session.seconds - session.frame / self.fps
            if waiting > needed + BACKLOG_SECONDS and float(np.sqrt((samples**2).mean())) < SILENT:
                self.dropped += len(samples)
                continue
            try:
                session.push_audio(torch.from_numpy(samples), self.RATE)
            except Full:
                self.dropped += len(samples)
                continue
            self._beside = np.concatenate([self._beside, samples])
            self._arrivals.append((session.seconds, moment))
        return bool(pieces)

    def _show(self, session: Session, every: int) -> None:
        """Make the next hop, every so-manieth frame of it."""
        index = session.frame
        frames = mark(session.pop_frames(every=every))
        if not len(frames):
            return
        count = session.frame - index
        length = round(session.frame * self.RATE / self.fps) - self._given
        piece, self._beside, self._given = self._beside[:length], self._beside[length:], self._given + length
        while len(self._arrivals) > 1 and self._arrivals[0][0] < index / self.fps:
            self._arrivals.popleft()
        piece = np.pad(piece, (0, length - len(piece)))
        made = time.perf_counter()
        self._give(Shown(index, frames, piece, made - self._arrivals[0][1], count, every, made))

    def _give(self, shown: Shown) -> None:
        while not self._closed.is_set():
            try:
                self.shown.put(shown, timeout=0.1)
                return
            except queue.Full:
                # nobody takes frames: the oldest go, what is shown stays now
                self.shown.get_nowait()
