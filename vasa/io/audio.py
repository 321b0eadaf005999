"""Speech files to waveforms.

Only opened local files reach FFmpeg, and only container formats on a closed list: a playlist (m3u8, ffconcat,
SDP, DASH) could otherwise make it open other files or addresses.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from torch import Tensor

from ..errors import InputError
from .files import open_input

CONTAINERS = "wav,w64,mp3,mov,mp4,m4a,flac,ogg,matroska,webm,aac,aiff,ac3,eac3,caf,au,amr,asf,mpegts,avi"
"""FFmpeg's names of the container formats that hold their own data."""
MIN_SECONDS = 0.2
# PyAV 19 dropped the option: it takes titles in any encoding by itself
_ANY_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
DECODING_ERRORS = (av.FFmpegError, OSError, ValueError, OverflowError, IndexError)

_SILENT = 1e-4
"""Peak under which nothing is heard (-80 dBFS)."""
_QUIET_RMS = 10 ** (-45 / 20)
_SPEECH_RMS = 10 ** (-23 / 20)
_PADDING_SECONDS = 0.1
"""Excess over the declared duration that is a codec's padding rather than sound."""


@dataclass(frozen=True)
class LoadedAudio:
    """Speech read from a file.

    Attributes:
        waveform: mono in [-1, 1], [N] float32.
        sample_rate: Hz.
        notices: sentences the user should see.
    """

    waveform: Tensor
    sample_rate: int
    notices: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate


def load_audio(path: str | os.PathLike, sample_rate: int = 16000) -> LoadedAudio:
    """Read the first audio track of a sound or video file as mono, resampled and brought to a usable level.

    Decoding streams, so memory is that of the result: 64 kB per second at 16 kHz.

    Args:
        path: local file; any codec, rate and number of channels.
        sample_rate: of the result, Hz.

    Raises:
        InputError: missing, empty, not audio, no audio track, NaN or infinite samples, or under 0.2 s.
    """
    samples = bytearray()
    with open_media(path, "speech") as container:
        _require_sound(container, path)
        declared = _declared_seconds(container) or None
        promised = _wav_seconds(path) or declared
        heard = _Heard()
        for block in _resampled(container, path, sample_rate, heard):
            samples.extend(block.mean(axis=0).tobytes())
    waveform = np.frombuffer(samples, dtype=np.float32)
    notices = []
    if heard.broken_off:
        notices.append(f"{Path(path).name} is damaged; only what could be decoded is used")
    if promised and heard.seconds < 0.9 * promised - 0.05:
        notices.append(f"{Path(path).name} is truncated: it says {promised:.1f} s, {heard.seconds:.1f} s are readable")
    waveform = waveform[: round(_true_seconds(heard.seconds, declared) * sample_rate)]
    if len(waveform) < MIN_SECONDS * sample_rate:
        raise InputError(
            f"the speech {path} holds {len(waveform) / sample_rate:.2f} s of sound; at least {MIN_SECONDS} s are needed"
        )
    return LoadedAudio(torch.from_numpy(_levelled(waveform, notices)), sample_rate, notices)


def iterate_soundtrack(path: str | os.PathLike, sample_rate: int = 48000) -> Iterator[np.ndarray]:
    """Decode the audio track at listening quality, untouched in level, block by block.

    Yields:
        [2, n] float32, stereo; the concatenation starts where `load_audio`'s waveform starts.
    """
    with open_media(path, "speech") as container:
        _require_sound(container, path)
        for block in _resampled(container, path, sample_rate, _Heard()):
            yield np.broadcast_to(block, (2, block.shape[1]))


def hear(samples: Tensor, sample_rate: int, to: int = 16000) -> LoadedAudio:
    """Samples already in memory as `load_audio` would give them: mono, resampled, at a usable level.

    Args:
        samples: in [-1, 1], [C, N]; the channels are averaged.
        sample_rate: of `samples`, Hz.
        to: of the result, Hz.

    Returns:
        ceil(N / sample_rate * to) samples, so that the clip never becomes shorter.

    Raises:
        InputError: no samples, NaN or infinite ones, under 0.2 s, or a sample rate that is none.
    """
    if samples.dim() != 2 or not 1000 <= sample_rate <= 768_000:
        raise InputError(f"expected samples [C, N] at 1000 to 768000 Hz, got {list(samples.shape)} at {sample_rate} Hz")
    if samples.shape[1] < MIN_SECONDS * sample_rate:
        raise InputError(
            f"the speech holds {samples.shape[1] / sample_rate:.2f} s of sound; at least {MIN_SECONDS} s are needed"
        )
    if not torch.isfinite(samples).all():
        raise InputError("the speech holds NaN or infinite samples; export it again")
    mono = samples.float().cpu().mean(dim=0, keepdim=True).numpy()
    length = -(-mono.shape[1] * to // sample_rate)
    if sample_rate != to:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=to)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono), format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        pieces = [piece.to_ndarray() for piece in (*resampler.resample(frame), *resampler.resample(None))]
        mono = np.concatenate([*pieces, np.zeros((1, length), np.float32)], axis=1)
    notices: list[str] = []
    return LoadedAudio(torch.from_numpy(_levelled(mono[0, :length].copy(), notices)), to, notices)


@contextmanager
def open_media(path: str | os.PathLike, what: str) -> Iterator[InputContainer]:
    """Open a local media file whose format is on the closed list.

    Raises:
        InputError: missing, empty, or not a media file we read.
    """
    with open_input(path, what) as file:
        try:
            container = av.open(file, options={"format_whitelist": CONTAINERS}, **_ANY_METADATA)
        except DECODING_ERRORS as error:
            raise InputError(
                f"the {what} {path} is not a readable audio or video file; give a wav, mp3, m4a, flac or mp4"
            ) from error
        with container:
            yield container


@dataclass
class _Heard:
    """What decoding found out on its way."""

    seconds: float = 0.0
    broken_off: bool = False


def _require_sound(container: InputContainer, path: str | os.PathLike) -> None:
    if not container.streams.audio:
        raise InputError(f"the speech {path} has no audio track; give a file with sound")
    context = container.streams.audio[0].codec_context
    if context is None or not context.sample_rate:
        raise InputError(f"the speech {path} is not a readable audio file; convert it to wav")


def _declared_seconds(container: InputContainer) -> float | None:
    """Duration by the header, where the container states rather than guesses it."""
    stream = container.streams.audio[0]
    if container.format.name in ("aac", "ac3", "eac3", "amr"):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and not container.streams.video:
        return container.duration / av.time_base
    return None


def _wav_seconds(path: str | os.PathLike) -> float | None:
    """Duration by a wav file's own header, which FFmpeg corrects silently when the file is shorter."""
    with open_input(path, "speech") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        bytes_per_second = 0
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"fmt " and size >= 12:
                bytes_per_second = struct.unpack("<8xI", file.read(12))[0]
                size -= 12
            if name == b"data":
                # Recorders that cannot seek back leave the largest number, or one near it, as a placeholder.
                return size / bytes_per_second if bytes_per_second and size < 0x7FFFF000 else None
            file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _true_seconds(heard: float, declared: float | None) -> float:
    """The declared duration if what was decoded exceeds it by no more than a codec's padding."""
    if declared and 0 < heard - declared < _PADDING_SECONDS:
        return declared
    return heard


def _resampled(
    container: InputContainer, path: str | os.PathLike, sample_rate: int, heard: _Heard
) -> Iterator[np.ndarray]:
    """Blocks [1, n] of mono or [2, n] of any other sound, that together last as long as what was decoded.

    Mono is mixed from stereo by the caller: FFmpeg's own mix to mono is louder than its parts.
    """
    stream = container.streams.audio[0]
    channels = 1 if stream.codec_context.layout.nb_channels == 1 else 2
    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=sample_rate)
    given = 0
    for frame in _decoded(container, stream, path, heard):
        try:
            pieces = resampler.resample(frame)
        except DECODING_ERRORS as error:
            raise InputError(
                f"the speech {path} has an impossible sample rate or channel layout; convert it to wav"
            ) from error
        for piece in pieces:
            yield piece.to_ndarray()
            given += piece.samples
    tail = [piece.to_ndarray() for piece in resampler.resample(None)] if heard.seconds else []
    missing = max(round(heard.seconds * sample_rate) - given, 0)
    rest = np.concatenate([*tail, np.zeros((channels, missing), np.float32)], axis=1)
    yield rest[:, :missing]


def _decoded(
    container: InputContainer, stream: av.AudioStream, path: str | os.PathLike, heard: _Heard
) -> Iterator[av.AudioFrame]:
    """Decoded frames of one stream, each checked for NaN and infinity; damage ends the stream early."""
    frames = container.decode(stream)
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except DECODING_ERRORS:
            heard.broken_off = True
            return
        if not frame.samples or not frame.sample_rate:
            continue
        if "flt" in frame.format.name or "dbl" in frame.format.name:
            _require_finite(frame, heard.seconds, path)
        heard.seconds += frame.samples / frame.sample_rate
        yield frame


def _require_finite(frame: av.AudioFrame, start: float, path: str | os.PathLike) -> None:
    values = frame.to_ndarray()
    if np.isfinite(values).all():
        return
    # Packed formats interleave the channels in one row.
    channels = 1 if frame.format.is_planar else frame.layout.nb_channels
    first = int(np.argmax(~np.isfinite(values).all(axis=0))) // channels
    raise InputError(
        f"the speech {path} holds NaN or infinite samples from {start + first / frame.sample_rate:.3f} s on; "
        "export it again"
    )


def _levelled(waveform: np.ndarray, notices: list[str]) -> np.ndarray:
    """Remove a constant offset and bring clipped, overshooting or very quiet speech to a usable level."""
    peak = _peak(waveform)
    clipped = 0.0
    if peak >= 0.99:
        limit = 0.99 * min(peak, 1.0)
        clipped = (np.count_nonzero(waveform >= limit) + np.count_nonzero(waveform <= -limit)) / len(waveform)
    offset = float(waveform.mean(dtype=np.float64))
    if abs(offset) > max(0.01, 0.1 * _loud_rms(waveform, offset)):
        notices.append(f"the speech has a constant offset of {offset:+.2f}; it is removed")
        waveform = waveform - np.float32(offset)
        peak = _peak(waveform)
    if peak < _SILENT:
        notices.append("the speech is silent; the face will idle")
        return waveform
    if clipped > 1e-3:
        notices.append("the speech is clipped (recorded too loud); lips may follow it less exactly")
    elif peak > 1.0:
        notices.append("the speech exceeds full scale; it is scaled down")
    if peak > 1.0:
        return waveform * np.float32(0.95 / peak)
    level = _loud_rms(waveform)
    if level < _QUIET_RMS:
        gain = min(_SPEECH_RMS / max(level, 1e-9), 0.95 / peak)
        notices.append(f"the speech is very quiet; it is raised by {20 * np.log10(gain):.0f} dB")
        return waveform * np.float32(gain)
    return waveform


def _peak(waveform: np.ndarray) -> float:
    return max(float(waveform.max()), -float(waveform.min()))


def _loud_rms(waveform: np.ndarray, offset: float = 0.0, block: int = 320) -> float:
    """Root mean square of the loudest twentieth of short blocks: the level while somebody speaks."""
    whole = waveform[: len(waveform) // block * block].reshape(-1, block)
    power = np.einsum("nb,nb->n", whole, whole) / block - 2 * offset * whole.mean(axis=1) + offset**2
    return float(np.sqrt(np.quantile(power.clip(0), 0.95)))
