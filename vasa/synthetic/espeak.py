"""espeak-ng behind the interface of `speech.py`: a hundred languages, robotic, timed by its phoneme events.

The library comes from the package espeakng-loader or from Debian, and is loaded, never bundled (it is GPL-3).
Its noise generator runs on from call to call: the same request twice gives the same phones but other samples.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from ..errors import InputError
from .phones import STOPS, Segment, phones_of_ipa, split_phones
from .speech import SAMPLE_RATE, Request, Speech, fit_segments
from .voice_augment import resample

_SHORTEST_PAUSE = 0.06
ESPEAK_VARIANTS = (
    "", "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "klatt", "klatt2", "klatt3",
    "Alicia", "Andy", "Annie", "Denis", "Michael", "adam", "belinda", "linda", "steph", "max", "quincy",
    "paul",
)  # fmt: skip


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; the last union is read as the phoneme's name."""

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("string", ctypes.c_char * 8),
    ]  # fmt: skip


_PHONEME_EVENT = 7
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class EspeakVoice:
    """espeak-ng: `language` such as "de" with a voice `variant` such as "f3" ("" for the plain voice)."""

    def __init__(self, language: str, variant: str = "") -> None:
        self.language = language
        self._voice = f"{language}+{variant}" if variant else language
        self.name = f"espeak-{self._voice}"

    def speak(self, requests: Sequence[Request]) -> list[Speech]:
        """Synthesise every request.

        Raises:
            InputError: the library is missing, lacks the voice, or said a symbol unknown to `phones.py`.
        """
        library, rate = _espeak()
        if library.espeak_SetVoiceByName(self._voice.encode()) != 0:
            raise InputError(f"expected a voice of espeak-ng, got {self._voice!r}; see `espeak-ng --voices`")
        return [self._one(library, rate, request) for request in requests]

    def _one(self, library: ctypes.CDLL, rate: int, request: Request) -> Speech:
        chunks: list[bytes] = []
        events: list[tuple[str, int]] = []

        def collect(samples, count: int, found) -> int:
            if count > 0:
                chunks.append(ctypes.string_at(samples, 2 * count))
            index = 0
            while found[index].type != 0:
                if found[index].type == _PHONEME_EVENT:
                    events.append((found[index].string.decode("utf-8", "ignore"), found[index].sample))
                index += 1
            return 0

        callback = _CALLBACK(collect)
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetParameter(1, round(165 / request.stretch), 0)
        library.espeak_SetParameter(3, max(0, min(99, round(50 * request.pitch**2))), 0)
        text = request.text.encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None)
        library.espeak_Synchronize()
        samples = np.frombuffer(b"".join(chunks), dtype=np.int16).astype(np.float32) / 32768.0
        if len(samples) == 0 or not events:
            raise InputError(f"expected text that espeak-ng can read, got {request.text!r} for {self._voice}")
        waveform = resample(torch.from_numpy(samples), SAMPLE_RATE / rate)
        segments = _espeak_segments(events, len(samples), rate, samples)
        return Speech(waveform, fit_segments(segments, len(waveform)), self.name)


def has_espeak() -> bool:
    """Whether the library can be loaded."""
    try:
        _espeak()
    except InputError:
        return False
    return True


@cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """Load and initialise espeak-ng once per process; returns the library and its sample rate."""
    data = None
    if importlib.util.find_spec("espeakng_loader") is not None:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
    else:
        try:
            library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise InputError(
                "expected the library espeak-ng, found none; pip install espeakng-loader, or install the "
                "Debian package libespeak-ng1"
            ) from error
    retrieval, phonemes_as_ipa = 1, 3
    return library, library.espeak_Initialize(retrieval, 0, data, phonemes_as_ipa)


def _espeak_segments(
    events: list[tuple[str, int]], num_samples: int, rate: int, samples: np.ndarray
) -> tuple[Segment, ...]:
    """Segments from espeak-ng's phoneme events.

    Stops are announced at their release, so their closure is moved back to where the energy fell; short
    nameless events before a stop are that closure. Names in brackets announce another language.
    """
    events = [(name, sample) for name, sample in events if not name.startswith("(")]
    times = [sample / rate for _, sample in events] + [num_samples / rate]
    segments: list[Segment] = []
    for (name, _), start, end in zip(events, times[:-1], times[1:], strict=True):
        for segment in split_phones(phones_of_ipa(name), start, end):
            if segments and segment.phone in STOPS | {"ch", "jh", "ts"}:
                last = segments[-1]
                if last.phone == "sil" and last.end - last.start < _SHORTEST_PAUSE and len(segments) > 1:
                    segments.pop()
                    segment = replace(segment, start=last.start)
                else:
                    closure = _closure_start(samples, rate, last.start, segment.start)
                    segments[-1] = replace(last, end=closure)
                    segment = replace(segment, start=closure)
            segments.append(segment)
    segments = _join_short_gaps(segments)
    first = segments[0].start if segments else 0.0
    head = [Segment(0.0, first, "sil", 0)] if first > 0 else []
    return tuple(head + [s for s in segments if s.end > s.start])


def _join_short_gaps(segments: list[Segment]) -> list[Segment]:
    """Give nameless gaps too short for a pause to the phone before them."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and segment.phone == "sil" and segment.end - segment.start < _SHORTEST_PAUSE:
            joined[-1] = replace(joined[-1], end=segment.end)
        else:
            joined.append(segment)
    return joined


def _closure_start(samples: np.ndarray, rate: int, earliest: float, release: float) -> float:
    """Where the energy before a release fell by 20 dB: at most 90 ms back and half of the last phone."""
    limit = max(release - 0.09, 0.5 * (earliest + release))
    step = rate // 200
    count = int((release - limit) * rate) // step
    if count < 2:
        return release
    end = int(release * rate)
    blocks = samples[end - count * step : end].reshape(count, step)
    energy = (blocks**2).mean(axis=1)
    loud = np.flatnonzero(energy > 0.01 * max(energy.max(), 1e-8))
    quiet_from = int(loud[-1]) + 1 if len(loud) else 0
    if quiet_from >= count:
        return max(limit, release - 0.05)
    return release - (count - quiet_from) * step / rate
