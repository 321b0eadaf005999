"""Live without WebRTC: the microphone streams to the server, pieces of a second come back. About two seconds late."""

from __future__ import annotations

from typing import Any

import av
import gradio as gr
import numpy as np

from ..errors import InputError
from ..io.segments import Segmenter
from .panel import Panel, controls_from
from .performer import Performer
from .player import keep
from .studio import LONGEST_SECONDS, Studio
from .words import sentence


class HlsCall:
    """One user's call.

    Args:
        performer: who listens.
        size: edge of the frames, pixels.
    """

    def __init__(self, performer: Performer, size: int) -> None:
        self.performer = performer
        self._segmenter = Segmenter(size, performer.fps, Performer.RATE)
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=Performer.RATE)
        self.seconds = 0.0
        performer.start()

    def hear(self, rate: int, samples: np.ndarray) -> None:
        """Sound as Gradio gives it: int16 or float, [N] or [N, channels]."""
        samples = samples if samples.dtype != np.int16 else samples.astype(np.float32) / 32768
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None], np.float32), format="flt", layout="mono")
        frame.sample_rate = rate
        for piece in self._resampler.resample(frame):
            self.performer.hear(piece.to_ndarray()[0].astype(np.float32))

    def segments(self) -> list[Any]:
        """Pieces that are complete."""
        pieces = []
        while not self.performer.shown.empty():
            shown = self.performer.shown.get_nowait()
            if shown is None:
                break
            pieces += self._segmenter.write(shown.frames, shown.samples)
        self.seconds += sum(piece.seconds for piece in pieces)
        return pieces


def connect(studio: Studio, microphone: Any, player: Any, portrait: Any, panel: Panel) -> None:
    """Make the tab work."""
    calls: dict[str, HlsCall] = {}

    def listen(request: gr.Request, chunk: tuple[int, np.ndarray] | None, path: str | None, *values: Any) -> Any:
        user = request.session_hash
        if chunk is None:
            return gr.skip()
        try:
            controls = controls_from(panel.named(values))
            call = calls.get(user)
            if call is None:
                call = calls[user] = HlsCall(Performer(studio.pipe, studio.portrait(path), controls), studio.pipe.size)
        except InputError as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        call.performer.change(controls)
        call.hear(*chunk)
        pieces = call.segments()
        if call.seconds > LONGEST_SECONDS:
            hang_up(request)
        if not pieces:
            return gr.skip()
        whole = type(pieces[0])(b"".join(piece.data for piece in pieces), sum(piece.seconds for piece in pieces))
        return keep(whole, studio.folder(user))

    def hang_up(request: gr.Request) -> None:
        call = calls.pop(request.session_hash, None)
        if call is not None:
            call.performer.close()

    microphone.stream(
        listen, [microphone, portrait, *panel.inputs], player, stream_every=0.25, time_limit=int(LONGEST_SECONDS),
        show_progress="hidden", api_visibility="private", concurrency_limit=2,
    )  # fmt: skip
    microphone.stop_recording(hang_up, None, None, queue=False, api_visibility="private")
