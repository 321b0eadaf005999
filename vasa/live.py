"""Sound arriving now, pictures leaving now: which plan keeps real time here, and the loop that keeps it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .controls import Controls
from .io.pcm import PcmReader
from .latents import FaceLatents
from .motion.plan import WindowPlan
from .stream import Session

HOPS = (5, 10, 15, 20, 25, 30)
CALL_HOPS = (5, 10)
CALL_CHOICES = ((10, 1), (10, 2), (5, 2), (5, 3))
"""Denoising steps, and every how-manieth frame is decoded, from rich to poor."""
SPARSEST = 3
"""A call that falls behind shows at least every so-manieth frame."""
HEADROOM = 0.8
"""Share of real time that generation and decoding may take together."""


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes.

    Attributes:
        window: for one window of motion with the plan's steps, by its hop.
        frame: for decoding one frame.
    """

    window: dict[int, float]
    frame: float

    def load(self, hop: int, fps: float, every: int = 1) -> float:
        """Share of real time that a plan with this hop takes if every so-manieth frame is decoded; above 1 it falls
        behind."""
        return (self.window[hop] + math.ceil(hop / every) * self.frame) / hop * fps


def measured(vasa: Any, face: FaceLatents, plans: dict[int, WindowPlan], repeats: int = 3) -> Pace:
    """Run each plan on a little silence; the fastest of `repeats` counts, since others only add to it."""
    window = {}
    for hop, plan in plans.items():
        session = Session(vasa, face, Controls(), plan)
        session.idle_until(plan.overlap + 10 + hop * (repeats + 1))
        while session.frame < plan.overlap + 10:
            motion = session.pop_motion()
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            session.pop_motion()
            times.append(time.perf_counter() - started)
        window[hop] = min(times)
    times, count = [], frames_at_a_time(vasa)
    for _ in range(repeats):
        started = time.perf_counter()
        pictures = torch.cat(list(vasa.decode(face, motion[:5], batch_size=count)))
        times.append((time.perf_counter() - started) / len(pictures))
    return Pace(window, min(times))


def frames_at_a_time(vasa: Any) -> int:
    """How many frames to decode together: one on a GPU, for the earliest first frame.

    On a CPU five, the shortest hop: alone each would take nearly twice the time.
    """
    return 1 if torch.device(vasa.device).type == "cuda" else HOPS[0]


def live_plan(vasa: Any, face: FaceLatents, *, steps: int = 10, look_ahead: int = 2) -> tuple[WindowPlan, Pace | None]:
    """The plan with the shortest hop that keeps real time on this machine.

    A GPU takes 5 + 2 frames without asking. On a CPU every window costs about the same, whatever its hop, so that
    longer hops are cheaper a frame: hops are tried from 5 frames up until generating and decoding take at most 80 % of
    real time. Where none does, the longest is taken; the caller sees it in `Pace.load`.

    Returns:
        The plan, and what was measured (None on a GPU).
    """
    if torch.device(vasa.device).type == "cuda":
        return vasa.live_plan(HOPS[0], look_ahead, steps), None
    pace = Pace({}, 0.0)
    for hop in HOPS:
        plan = vasa.live_plan(hop, look_ahead, steps)
        one = measured(vasa, face, {hop: plan}) if not pace.window else measured(vasa, face, {hop: plan}, repeats=2)
        pace = Pace(pace.window | one.window, min(pace.frame or one.frame, one.frame))
        if pace.load(hop, vasa.fps) <= HEADROOM:
            break
    return plan, pace


def call_plan(vasa: Any, face: FaceLatents, *, look_ahead: int = 2) -> tuple[WindowPlan, float]:
    """The plan for a call, where an early answer is worth more than every frame.

    Hops stay short. Where they do not keep real time with every frame, frames may be left out, then half of the
    denoising steps: jaws follow the sound as well with five as with fifty (docs/log.md).

    Returns:
        The plan, and the share of real time that it takes if only every `SPARSEST`-th frame is decoded.
    """
    steps = CALL_CHOICES[0][0]
    if torch.device(vasa.device).type == "cuda":
        return vasa.live_plan(CALL_HOPS[0], look_ahead, steps), 0.0
    pace = measured(vasa, face, {CALL_HOPS[0]: vasa.live_plan(CALL_HOPS[0], look_ahead, steps)})
    window = pace.window[CALL_HOPS[0]] / steps
    for steps, every in CALL_CHOICES:
        pace = Pace(dict.fromkeys(CALL_HOPS, window * steps), pace.frame)
        hop = next((hop for hop in CALL_HOPS if pace.load(hop, vasa.fps, every) <= HEADROOM), None)
        if hop is not None:
            break
    hop = hop or CALL_HOPS[-1]
    return vasa.live_plan(hop, look_ahead, steps), pace.load(hop, vasa.fps, SPARSEST)


@dataclass
class Report:
    """What a live run did.

    Attributes:
        frames: pictures that left.
        seconds: from the first sound to the end.
        busy: of them generating and decoding.
        latencies: seconds from a hop being ready (its sound there, the hop before gone) to its first picture leaving.
        silence: seconds of silence put in where no sound came in time.
    """

    frames: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    latencies: list[float] = field(default_factory=list)
    silence: float = 0.0

    def percentile(self, share: float) -> float:
        """Latency that this share of the hops stays under, seconds."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")

    def __str__(self) -> str:
        p50, p95, p99 = (1000 * self.percentile(share) for share in (0.5, 0.95, 0.99))
        speed = self.frames / self.busy if self.busy else float("nan")
        return (
            f"{self.frames} frames in {self.seconds:.1f} s; hop ready to first frame out: p50 {p50:.0f} ms, "
            f"p95 {p95:.0f} ms, p99 {p99:.0f} ms; {speed:.1f} FPS while busy; {self.silence:.1f} s of silence put in"
        )


def run_live(
    session: Session,
    reader: PcmReader,
    write: Callable[[Tensor, np.ndarray], None],
    *,
    keep_time: bool = False,
    batch_size: int | None = None,
    report: Report | None = None,
) -> Report:
    """Push what arrives, write what can be shown, until the sound ends.

    Args:
        session: fresh.
        reader: the sound.
        write: write(frames [n, 3, S, S], samples [m]): pictures, and the sound that belongs to them at the reader's
            rate.
        keep_time: where no sound arrives in time, silence takes its place and the face idles.
        batch_size: frames decoded at a time; None for `frames_at_a_time`.
        report: filled in as the run goes, so that an interrupted one can be read too.

    Returns:
        `report`.
    """
    report = report or Report()
    batch_size = batch_size or frames_at_a_time(session.vasa)
    fps, rate = session.vasa.fps, reader.sample_rate
    sound, given, taken = np.zeros(0, np.float32), 0, 0  # not yet written; index of its first sample; samples pushed
    started = None
    while not reader.ended:
        wait = None
        if keep_time and started is not None:
            wait = max(0.0, started + session.frame / fps - time.perf_counter())
        block = reader.next(wait)
        started = started or time.perf_counter()
        if block is not None:
            session.push_audio(block, rate)
            taken += len(block)
        elif reader.ended:
            session.flush()
        else:
            session.idle_until(session.frame + 1)
        if block is None:
            # what the session has put in, counted from the beginning so that no rounding is summed up
            block = np.zeros(max(0, round(session.seconds * rate) - taken), np.float32)
            taken += len(block)
        sound = np.concatenate([sound, block])
        for begun, frame, pictures, is_first in _shown(session, batch_size):
            count = round((frame + len(pictures)) * rate / fps) - given
            write(pictures, sound[:count])
            sound, given = sound[count:], given + len(sound[:count])
            now = time.perf_counter()
            report.frames += len(pictures)
            report.busy += now - begun
            if is_first:
                report.latencies.append(now - begun)
        report.seconds, report.silence = time.perf_counter() - started, session.silence / 16_000
    return report


def _shown(session: Session, batch_size: int) -> Iterator[tuple[float, int, Tensor, bool]]:
    """(when its making began, first frame, pictures, whether they are the hop's first) of all that can be made."""
    while True:
        begun, frame, is_first = time.perf_counter(), session.frame, True
        motion = session.pop_motion()
        if motion is None:
            return
        for pictures in session.vasa.decode(session.face, motion, batch_size=batch_size):
            yield begun, frame, pictures, is_first
            begun, frame, is_first = time.perf_counter(), frame + len(pictures), False
