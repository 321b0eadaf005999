"""Speech synthesisers behind one interface: text in, waveform and timed phones out.

flite and festival are development-time tools of a Debian system, espeak-ng (in `espeak.py`) an optional
library; nothing here is needed to use `vasa`. The phones come out in the common inventory of
`phones.py`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .phones import ARPABET, CATALAN, CZECH, FINNISH, INDIC, ITALIAN, RUSSIAN, Segment, to_segments
from .voice_augment import resample

SAMPLE_RATE = 16_000
_TOOL_SECONDS = 120.0


@dataclass(frozen=True)
class Request:
    """What to say.

    Attributes:
        text: in the voice's language.
        stretch: duration factor, 0.75 (fast) to 1.35 (slow).
        pitch: factor of the voice's mean f0, 0.7 to 1.3; voices that cannot change it ignore it.
    """

    text: str
    stretch: float = 1.0
    pitch: float = 1.0


@dataclass(frozen=True)
class Speech:
    """What was said.

    Attributes:
        waveform: [N] float32 in [-1, 1], 16 kHz.
        segments: cover the waveform without gaps, in order.
        voice: name of the voice.
    """

    waveform: Tensor
    segments: tuple[Segment, ...]
    voice: str


class FliteVoice:
    """A voice of the `flite` command: rms, awb, kal16 or slt. `rms` has a fixed pitch."""

    language = "en"

    def __init__(self, name: str) -> None:
        self.name = f"flite-{name}"
        self._voice = name

    def speak(self, requests: Sequence[Request]) -> list[Speech]:
        """Synthesise every request.

        Raises:
            InputError: flite is not installed, or it failed.
        """
        tool = _tool("flite", "flite")
        return [self._one(tool, request) for request in requests]

    def _one(self, tool: str, request: Request) -> Speech:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            settings = (f"duration_stretch={request.stretch:.3f}", f"f0_shift={request.pitch:.3f}")
            options = [word for setting in settings for word in ("--setf", setting)]
            command = [
                tool,
                "-voice",
                self._voice,
                "-psdur",
                *options,
                "-t",
                f" {request.text} ",
                "-o",
                str(path),
            ]
            ends = _run(command).decode("ascii", "replace")
            waveform = _read_wave(path)
        segments = to_segments(_timed(ends), ARPABET)
        return Speech(waveform, fit_segments(segments, len(waveform)), self.name)


_FESTIVAL_SAY = """
(define (say text stretch path)
  (Parameter.set 'Duration_Stretch stretch)
  (let ((u (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.wave.resample u 16000)
    (utt.save.wave u path 'riff)
    (mapcar
      (lambda (s) (format t "%s:%f " (item.name s) (item.feat s "segment_end")))
      (utt.relation.items u 'Segment))
    (format t "\\n")))
"""
_ENGLISH_PITCH = (
    "(set! int_lr_params '((target_f0_mean {hz:.1f}) (target_f0_std 14) (model_f0_mean 170) (model_f0_std 34)))"
)
_CZECH_PITCH = (
    "(set! int_general_params (list (list 'targ_func czech-int-targets) '(f0_mean {hz:.1f}) '(f0_std {hz:.1f})))"
)


@dataclass(frozen=True)
class _FestivalKind:
    """How one festival voice is selected, written and retuned."""

    function: str
    language: str
    encoding: str
    table: dict[str, tuple[str, ...]]
    mean_hz: float = 0.0
    set_pitch: str = ""
    package: str = "festvox-kallpc16k"


_FESTIVAL = {
    "kal": _FestivalKind("voice_kal_diphone", "en", "ascii", ARPABET, 105.0, _ENGLISH_PITCH),
    "ked": _FestivalKind("voice_ked_diphone", "en", "ascii", ARPABET, 105.0, _ENGLISH_PITCH, "festvox-kdlpc16k"),
    "slt": _FestivalKind("voice_cmu_us_slt_arctic_hts", "en", "ascii", ARPABET, package="festvox-us-slt-hts"),
    "lp": _FestivalKind("voice_lp_diphone", "it", "latin-1", ITALIAN, package="festvox-italp16k"),
    "pc": _FestivalKind("voice_pc_diphone", "it", "latin-1", ITALIAN, package="festvox-itapc16k"),
    "dita": _FestivalKind("voice_czech_dita", "cs", "iso8859-2", CZECH, 200.0, _CZECH_PITCH, "festvox-czech-dita"),
    "ph": _FestivalKind("voice_czech_ph", "cs", "iso8859-2", CZECH, 100.0, _CZECH_PITCH, "festvox-czech-ph"),
    "machac": _FestivalKind(
        "voice_czech_machac", "cs", "iso8859-2", CZECH, 100.0, _CZECH_PITCH, "festvox-czech-machac"
    ),
    "krb": _FestivalKind("voice_czech_krb", "cs", "iso8859-2", CZECH, 200.0, _CZECH_PITCH, "festvox-czech-krb"),
    "lj": _FestivalKind("voice_suo_fi_lj_diphone", "fi", "latin-1", FINNISH, package="festvox-suopuhe-lj"),
    "mv": _FestivalKind("voice_hy_fi_mv_diphone", "fi", "latin-1", FINNISH, package="festvox-suopuhe-mv"),
    "hindi": _FestivalKind("voice_hindi_NSK_diphone", "hi", "utf-8", INDIC, package="festvox-hi-nsk"),
    "marathi": _FestivalKind("voice_marathi_NSK_diphone", "mr", "utf-8", INDIC, package="festvox-mr-nsk"),
    "telugu": _FestivalKind("voice_telugu_NSK_diphone", "te", "utf-8", INDIC, package="festvox-te-nsk"),
    "nsh": _FestivalKind("voice_msu_ru_nsh_clunits", "ru", "utf-8", RUSSIAN, package="festvox-ru"),
    "ona": _FestivalKind("voice_upc_ca_ona_hts", "ca", "latin-1", CATALAN, package="festvox-ca-ona-hts"),
}


class FestivalVoice:
    """A festival voice: one of `FESTIVAL_ENGLISH` or `FESTIVAL_OTHER`, or slt, which validates."""

    def __init__(self, name: str) -> None:
        self.name = f"festival-{name}"
        self._kind = _FESTIVAL[name]
        self.language = self._kind.language

    def speak(self, requests: Sequence[Request]) -> list[Speech]:
        """Synthesise every request in one festival process.

        Raises:
            InputError: festival or the voice is not installed, or it failed.
        """
        tool = _tool("festival", "festival")
        kind = self._kind
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{index}.wav" for index in range(len(requests))]
            lines = [f"({kind.function})", _FESTIVAL_SAY]
            for request, path in zip(requests, paths, strict=True):
                if kind.set_pitch:
                    lines.append(kind.set_pitch.format(hz=kind.mean_hz * request.pitch))
                text = request.text.replace("\\", " ").replace('"', " ")
                lines.append(f'(say "{text}" {request.stretch:.3f} "{path}")')
            script = Path(folder) / "say.scm"
            script.write_text("\n".join(lines), encoding=kind.encoding, errors="replace")
            printed = _run([tool, "-b", str(script)]).decode("latin-1").strip().splitlines()
            printed = [line for line in printed if ":" in line]
            if len(printed) != len(requests) or not all(path.exists() for path in paths):
                raise InputError(
                    f"expected {len(requests)} utterances from {self.name}, got {len(printed)}; "
                    f"install the Debian package {kind.package}"
                )
            waveforms = [_read_wave(path) for path in paths]
        return [
            Speech(waveform, fit_segments(to_segments(_timed(line), kind.table), len(waveform)), self.name)
            for waveform, line in zip(waveforms, printed, strict=True)
        ]


def installed_festival() -> tuple[str, ...]:
    """Those of our festival voices that this machine has; none without festival."""
    if shutil.which("festival") is None:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "list.scm"
        script.write_text("(print (voice.list))")
        listed = _run([shutil.which("festival"), "-b", str(script)]).decode("latin-1")
    known = {f"voice_{name}" for name in listed.strip(" ()\n").split()}
    return tuple(name for name, kind in _FESTIVAL.items() if kind.function in known)


def festival_package(name: str) -> str:
    """The Debian package of a festival voice."""
    return _FESTIVAL[name].package


FLITE_VOICES = ("rms", "awb", "kal16")
FESTIVAL_ENGLISH = ("kal", "ked")
FESTIVAL_OTHER = ("lp", "pc", "dita", "ph", "machac", "krb", "lj", "mv", "hindi", "marathi", "telugu", "nsh", "ona")
VALIDATION_VOICES = ("flite-slt", "festival-slt")
"""The held-out speaker, in both synthesisers; never in training data."""


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise InputError(f"expected the program {name!r} on the path, found none; install the Debian package {package}")
    return path


def _run(command: list[str]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TOOL_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode("latin-1").strip()[-200:]
        raise InputError(f"expected {Path(command[0]).name} to synthesise, it failed: {said or error}") from error
    return done.stdout


def _read_wave(path: Path) -> Tensor:
    with wave.open(str(path)) as file:
        rate, frames = file.getframerate(), file.readframes(file.getnframes())
    waveform = torch.from_numpy(np.frombuffer(frames, dtype=np.int16).astype(np.float32) / 32768.0)
    return waveform if rate == SAMPLE_RATE else resample(waveform, SAMPLE_RATE / rate)


def _timed(line: str) -> list[tuple[str, float, float]]:
    """Parse "pau:0.18 hh:0.28 …" (end times; a Czech or Italian symbol may itself end in a colon)."""
    timed, start = [], 0.0
    for word in line.split():
        symbol, end = word.rsplit(":", 1)
        timed.append((symbol, start, float(end)))
        start = float(end)
    return timed


def fit_segments(segments: tuple[Segment, ...], num_samples: int) -> tuple[Segment, ...]:
    """Cut or stretch the last segments so that they end with a waveform of `num_samples` at 16 kHz."""
    length = num_samples / SAMPLE_RATE
    kept = [replace(s, end=min(s.end, length)) for s in segments if s.start < length]
    if kept:
        if kept[-1].phone == "sil":
            kept[-1] = replace(kept[-1], end=length)
        elif length > kept[-1].end:
            kept.append(Segment(kept[-1].end, length, "sil", 0))
    return tuple(kept)
