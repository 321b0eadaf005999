"""Live without WebRTC: the microphone streams to the server, pieces of a second come back. About two seconds late."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from typing import Any

import av
import gradio as gr
import numpy as np

from ..errors import InputError
from ..io.segments import Segment, Segmenter
from .calls import MAX_CALLS, Calls
from .panel import Panel, controls_from
from .performer import Performer
from .player import keep
from .studio import LONGEST_SECONDS, Studio
from .words import capital, live_words, sentence


class HlsCall:
    """One user's call.

    Args:
        performer: who listens.
        size: edge of the frames, pixels.

    Attributes:
        seconds: given in pieces so far.
        delay: seconds from the arrival of a sound to the leaving of its piece.
    """

    def __init__(self, performer: Performer, size: int) -> None:
        self.performer = performer
        self._segmenter = Segmenter(size, performer.fps, Performer.RATE)
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=Performer.RATE)
        self.seconds = self.delay = 0.0
        self._arrivals: collections.deque[tuple[float, float]] = collections.deque()
        """From which second of the call on, and when its sound came."""
        self._left: collections.deque[tuple[int, float]] = collections.deque(maxlen=4)
        """Frames drawn until a piece was given, and when."""
        performer.start()

    def hear(self, rate: int, samples: np.ndarray) -> None:
        """Sound as Gradio gives it: int16 or float, [N] or [N, channels]."""
        samples = samples if samples.dtype != np.int16 else samples.astype(np.float32) / 32768
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None], np.float32), format="flt", layout="mono")
        frame.sample_rate = rate
        for piece in self._resampler.resample(frame):
            self.performer.hear(piece.to_ndarray()[0].astype(np.float32))

    def pieces(self) -> Iterator[Segment]:
        """Pieces of video as they become complete, until the call ends."""
        frames = drawn = 0
        while (shown := self.performer.shown.get()) is not None:
            self._arrivals.append((frames / self.performer.fps, time.perf_counter() - shown.delay))
            frames, drawn = frames + shown.count, drawn + len(shown.frames)
            steady = shown.frames.repeat_interleave(shown.every, dim=0)[: shown.count]
            for piece in self._segmenter.write(steady, shown.samples):
                while len(self._arrivals) > 1 and self._arrivals[1][0] <= self.seconds:
                    self._arrivals.popleft()
                now = time.perf_counter()
                self.delay = now - self._arrivals[0][1]
                self.seconds += piece.seconds
                self._left.append((drawn, now))
                yield piece

    @property
    def rate(self) -> float:
        """Frames a second in the last pieces; 0 until there are two."""
        if len(self._left) < 2:
            return 0.0
        (before, began), (after, ended) = self._left[0], self._left[-1]
        return (after - before) / max(ended - began, 1e-6)


def connect(
    studio: Studio, desk: Calls, microphone: Any, player: Any, figures: Any, portrait: Any, panel: Panel
) -> None:
    """Make the tab work; the calls are kept at the desk."""

    def show(request: gr.Request, path: str | None, *values: Any) -> Iterator[str]:
        # a generator from the first piece to the last: Gradio streams nothing else
        user = request.session_hash
        try:
            if len(desk.streams) >= MAX_CALLS:
                raise InputError("all lines are busy; try again later")
            performer = Performer(studio.pipe, studio.portrait(path), controls_from(panel.named(values)))
        except InputError as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        desk.leave(user)
        call = desk.streams[user] = HlsCall(performer, studio.pipe.size)
        folder = studio.folder(user)
        try:
            with studio.first():
                for piece in call.pieces():
                    yield keep(piece, folder)
                    if call.seconds > LONGEST_SECONDS:
                        return
        finally:
            performer.close()
            if desk.streams.get(user) is call:
                del desk.streams[user]
        if performer.problem:
            raise gr.Error(capital(performer.problem), print_exception=False)

    def hear(request: gr.Request, chunk: tuple[int, np.ndarray] | None, *values: Any) -> Any:
        call = desk.streams.get(request.session_hash)
        if call is None or chunk is None:
            return gr.skip()
        try:
            call.performer.change(controls_from(panel.named(values)))
        except InputError as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        call.hear(*chunk)
        return live_words(call.rate, call.delay, call.performer.slow) if call.rate else gr.skip()

    def hang_up(request: gr.Request) -> str:
        desk.leave(request.session_hash)
        return "Ended."

    microphone.start_recording(
        show, [portrait, *panel.inputs], player, show_progress="hidden", api_visibility="private",
        concurrency_limit=MAX_CALLS,
    )  # fmt: skip
    microphone.stream(
        hear, [microphone, *panel.inputs], figures, stream_every=0.25, time_limit=int(LONGEST_SECONDS),
        show_progress="hidden", api_visibility="private", concurrency_limit=MAX_CALLS,
    )  # fmt: skip
    microphone.stop_recording(hang_up, None, figures, queue=False, api_visibility="private")
