"""One run of the engine as a stream of events: words about the progress, pieces of video, and at the end the file."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..animate import manifest_of, name_of, names_of
from ..controls import Controls
from ..io.audio import LoadedAudio, iterate_soundtrack
from ..io.segments import Segmenter, SoundAlong
from ..io.video import SOUND_RATE, num_frames
from ..latents import Motion
from ..motion.edit import at_times
from ..motion.plan import WindowPlan
from ..motion_file import save_motion
from ..provenance import marked
from ..screen import Screen
from ..signature import sign_as_configured
from ..stream import Session
from .label import with_label
from .studio import Job, Portrait, Stopped, Studio
from .workers import worker

LARGEST_PREVIEW = 1024
"""Longest side of what the page plays while a large picture is made, pixels; the file keeps its size."""
REPORT_SECONDS = 0.3
"""Words about the progress come no more often."""


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        words: for the user.
        share: done, 0 .. 1.
        problem: whether something went wrong.
        notices: sentences the user should see.
    """

    words: str
    share: float = 0.0
    problem: bool = False
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """What a run gives: a status, now and then a piece of video, at last the finished file and its motion."""

    status: Status
    segment: Any = None
    video: Path | None = None
    motion: Path | None = None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wishes:
    """How a clip is made, beside `Controls`.

    Attributes:
        fps: frames per second; None: the model's own.
        paste_back: show the whole picture.
        lock: with `paste_back`: outside the person the original pixels stay.
        label: print "AI-generated" into the picture.
    """

    fps: float | None = None
    paste_back: bool = False
    lock: bool = True
    label: bool = False


def perform(
    studio: Studio,
    job: Job,
    folder: Path,
    portrait: Callable[[], Portrait],
    speech: str,
    controls: Controls,
    wishes: Wishes,
    sound: LoadedAudio,
) -> Iterator[Event]:
    """Animate in a thread of its own and give what it makes.

    Whoever stops listening stops the run. When the job is stopped, what was made so far becomes the file.
    """
    # bounded, so that a player that does not listen holds the engine up instead of filling the memory
    events: queue.Queue[Event | BaseException | None] = queue.Queue(maxsize=8)

    def give(event: Event | BaseException | None) -> None:
        while True:
            try:
                events.put(event, timeout=0.2)
                return
            except queue.Full:
                if job.stop.is_set() and not listening.is_set():
                    return

    def work() -> None:
        try:
            _Run(studio, job, folder, speech, controls, wishes, sound, give).run(portrait)
        except BaseException as error:
            give(error)
        finally:
            give(None)

    listening = threading.Event()
    listening.set()
    thread = worker("run", work)
    thread.start()
    try:
        while (event := events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        listening.clear()
        job.stop.set()
        thread.join()


class _Run:
    """The thread's side of `perform`."""

    def __init__(
        self,
        studio: Studio,
        job: Job,
        folder: Path,
        speech: str,
        controls: Controls,
        wishes: Wishes,
        sound: LoadedAudio,
        give: Callable[[Event], None],
    ) -> None:
        self.studio, self.job, self.folder, self.give = studio, job, folder, give
        self.speech, self.controls, self.wishes, self.sound = speech, controls, wishes, sound
        self.reported = 0.0
        self.steps = 0
        self.frames = 0

    def run(self, portrait: Callable[[], Portrait]) -> None:
        if not self.studio.loaded:
            self.give(Event(Status("Loading the model")))
        self.model, pipe = self.studio.model, self.studio.pipe  # another may be chosen meanwhile
        self.started = time.perf_counter()  # what is told of speed leaves the loading out
        self.give(Event(Status("Looking at the portrait")))
        portrait = portrait()
        self.job.check()
        self.notices = tuple([*portrait.notices, *self.sound.notices])
        self.fps = self.wishes.fps or pipe.fps
        self.total = num_frames(Fraction(len(self.sound.waveform), self.sound.sample_rate), self.fps)
        plan = WindowPlan.full(pipe.config.motion.window)
        generated = num_frames(Fraction(len(self.sound.waveform), self.sound.sample_rate), pipe.fps)
        self.all_steps = plan.count(generated) * self.controls.steps
        session = Session(pipe, portrait.latents, self.controls, plan, max_pending=None, progress=self._step)
        session.push_audio(self.sound.waveform)
        session.flush()
        video, motion = self._film(pipe, portrait, session)
        if (most := pipe.largest_batch) is not None:
            words = (
                f"the memory did not suffice for more than {most} frame{'s' * (most != 1)} at a time; that is slower"
            )
            self.notices = (*self.notices, words)
        status = self._finished()
        signature = sign_as_configured(video, self.manifest)
        if signature:
            status = Status(status.words, 1.0, False, (*status.notices, signature))
        motion_path = self.folder / "motion.safetensors"
        about = {"names": names_of(pipe), "model": name_of(self.model), "seed": self.controls.seed}
        save_motion(motion_path, motion, **about, controls=self.controls.to_json())
        self.give(Event(status, None, video, motion_path, self._report(status)))

    def _film(self, pipe: Any, portrait: Portrait, session: Session) -> tuple[Path, Motion]:
        screen = Screen(
            pipe.size, portrait.latents, portrait.pixels, portrait.framed,
            paste_back=self.wishes.paste_back, lock=self.wishes.lock,
        )  # fmt: skip
        dress, preview = self._dressing(screen)
        video = self.folder / "talking.mp4"
        self.manifest = manifest_of(
            self.model,
            self.fps,
            self.total,
            controls=self.controls.to_json(),
            mark=True,
            label=self.wishes.label,
        )
        soundtrack = SoundAlong(iterate_soundtrack(self.speech), SOUND_RATE, self.fps)
        pieces: list[Motion] = []
        segmenter = None
        with screen.writer(video, self.fps, (iterate_soundtrack(self.speech), SOUND_RATE), self.manifest) as writer:
            try:
                for motion in self._motion(session, pieces):
                    for frames in pipe.decode(screen.latents, motion, batch_size=min(8, screen.batch_size)):
                        for pictures in map(dress, screen.show(frames)):
                            writer.write(pictures)
                            whole = preview(pictures)
                            if segmenter is None:
                                size = (whole.shape[3], whole.shape[2])
                                segmenter = Segmenter(size, self.fps, SOUND_RATE, channels=2)
                            for segment in segmenter.write(whole, soundtrack.next(len(whole))):
                                self._tell(segment)
                            self.frames += len(pictures)
                        self._tell()
                        self.job.check()
            except Stopped:
                # what was made is kept; before the first frame there is nothing to keep
                if writer.frames_written == 0:
                    raise
            if segmenter is not None:
                for segment in segmenter.close():
                    self._tell(segment)
        whole_motion = Motion.from_vectors(
            torch.cat([piece.vectors for piece in pieces]), pipe.fps, pipe.backend, portrait.latents.head_pose[0].cpu()
        )
        return video, whole_motion

    def _dressing(self, screen: Screen) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """How what the screen shows becomes what is written, and that what the page plays."""
        paste, label = screen.paste, self.wishes.label
        if paste is None:
            return (lambda p: with_label(marked(p)) if label else marked(p)), (lambda p: p)
        left, top, width, height = paste.rectangle
        original = replaced = paste.original
        size = (original.shape[2], original.shape[1])

        def dress(patches: Tensor) -> Tensor:
            paste.original = original
            patches = marked(patches, paste)
            return with_label(patches, size, (left, top)) if label else patches

        def preview(patches: Tensor) -> Tensor:
            whole = replaced.float()[None].repeat(len(patches), 1, 1, 1)
            whole[:, :, top : top + height, left : left + width] = patches
            scale = min(1.0, LARGEST_PREVIEW / max(size))
            edges = [max(2, round(edge * scale) // 2 * 2) for edge in whole.shape[2:]]
            return F.interpolate(whole, size=edges, mode="bilinear", antialias=True).clamp(0, 1)

        if label:
            # what surrounds the patches carries the label too
            replaced = paste.original = with_label(original.float()[None])[0]
        return dress, preview

    def _motion(self, session: Session, pieces: list[Motion]) -> Iterator[Motion]:
        """The session's motion as it comes, at the film's frame rate, `total` frames at most."""
        given = 0
        stride = session.vasa.fps / self.fps
        while (piece := session.pop_motion()) is not None:
            pieces.append(piece)
            if stride == 1:
                piece = piece[slice(self.total - given)]
                given += len(piece)
                yield piece
                continue
            known = Motion.from_vectors(torch.cat([p.vectors for p in pieces]), piece.fps, piece.backend, piece.rest)
            # a frame between two of the motion waits for the second
            ready = min(self.total, int((len(known) - 1) / stride))
            if ready > given:
                yield at_times(known, torch.arange(given, ready, dtype=torch.float64) * stride, self.fps)
                given = ready
        if given < self.total and pieces:
            known = Motion.from_vectors(torch.cat([p.vectors for p in pieces]), session.vasa.fps, pieces[0].backend)
            yield at_times(known, torch.arange(given, self.total, dtype=torch.float64) * stride, self.fps)

    def _step(self) -> None:
        self.steps += 1
        self.job.check()
        self._tell()

    def _tell(self, segment: Any = None) -> None:
        """Say where the run stands, with a piece of video or without."""
        now = time.perf_counter()
        if segment is None and now - self.reported < REPORT_SECONDS:
            return
        self.reported = now
        share = 0.5 * min(1.0, self.steps / self.all_steps) + 0.5 * min(1.0, self.frames / self.total)
        if self.frames == 0:
            words = f"Listening and planning the movement, {share:.0%}"
        else:
            seconds = self.frames / self.fps
            speed = seconds / max(now - self.started, 1e-6)
            words = f"{share:.0%} · {seconds:.1f} of {self.total / self.fps:.1f} s made · {speed:.2f}× real time"
            if share < 1 and (left := (now - self.started) * (1 - share) / share) >= 1:
                words += f" · about {left:.0f} s left"
        self.give(Event(Status(words, share, notices=self.notices), segment))

    def _finished(self) -> Status:
        seconds = time.perf_counter() - self.started
        cut = "" if self.frames >= self.total else f"Stopped: kept {self.frames / self.fps:.1f} s. "
        words = f"{cut or 'Done. '}{self.frames} frames in {seconds:.1f} s ({self.frames / seconds:.1f} FPS)"
        return Status(words, 1.0, notices=self.notices)

    def _report(self, status: Status) -> dict[str, Any]:
        report = {"frames": self.frames, "fps": self.fps, "seconds": round(time.perf_counter() - self.started, 3)}
        report |= {"complete": self.frames >= self.total, "seed": self.controls.seed, "notices": list(status.notices)}
        return json.loads(json.dumps(report))
