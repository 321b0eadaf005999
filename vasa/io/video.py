"""Frames and sound to mp4, and back.

The audio sample index is the only clock: frame i of the video belongs to the samples from i / fps on, and
every timestamp is computed from an index, never accumulated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from ..errors import InputError
from . import encoder
from .audio import DECODING_ERRORS, LoadedAudio, load_audio, open_media
from .files import check_writable, replacing, writing_failed

SOUND_RATE = 48000
"""Every output has this sample rate: an AAC packet then lasts 21 ms, the most the two ends may differ by."""
_STRIP = 256
"""Rows of a large picture that are converted at a time; even."""
_LOOKAHEAD_BYTES = 200_000_000
"""What the encoder's queue of pictures may hold; of large pictures it then looks fewer ahead."""


@dataclass(frozen=True)
class Recipe:
    """One kind of file: container, codecs, and how pictures are handed to the encoder.

    Attributes:
        container: FFmpeg's name of it.
        container_options: for the unfinished file, which must be playable as far as it goes.
        codec: picture codec.
        codec_options: for it.
        pixels: FFmpeg's name of the pixel format.
        channels: of the frames that are written: 3, or 4 with alpha.
        sound: sound codec.
        packet: samples it takes at a time.
        remux: whether the finished file is written anew, index in front.
    """

    container: str
    container_options: dict[str, str]
    codec: str
    codec_options: dict[str, str]
    pixels: str
    channels: int = 3
    sound: str = "aac"
    packet: int = 1024
    remux: bool = True


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof+delay_moov"}
MP4 = Recipe(
    "mp4",
    FRAGMENTS,
    "libx264",
    # x264's macroblock tree reads memory it never wrote in pictures under 128 px: other bytes on every run
    {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"},
    "yuv420p",
)


def num_frames(seconds: Fraction | float, fps: float) -> int:
    """Frames that cover the whole duration: ceil(seconds * fps), exact for a duration given as a Fraction.

    >>> num_frames(Fraction(16000, 16000), 25)
    25
    >>> num_frames(Fraction(16001, 16000), 25)
    26
    """
    return -int(-Fraction(seconds) * frame_rate(fps) // 1)


def frame_rate(fps: float) -> Fraction:
    """The exact rate meant by a decimal one, e.g. 29.97 -> 30000/1001.

    >>> frame_rate(29.97), frame_rate(25)
    (Fraction(30000, 1001), Fraction(25, 1))
    """
    return Fraction(fps).limit_denominator(1001)


class VideoWriter:
    """Write frames and sound as H.264 (yuv420p, BT.709) and AAC; the file appears only when all is written.

    A context manager. Frames go to a fragmented mp4 under a hidden name in the same folder, playable up to
    the last fragment even if the process is killed; leaving the block rewrites it as a plain mp4 that starts
    playing at once and gives it its name. On any exception, Ctrl-C included, the partial file is removed and
    an earlier file of that name stays intact.

    Args:
        path: output, ending in .mp4, in a folder that exists.
        size: (width, height) or one number for both; even.
        fps: frames per second.
        audio: (sound, sample rate): a waveform [N] or [C, N], or an iterator of stereo blocks [2, n] that is
            pulled as the frames come. It is cut or padded with silence to the end of the last frame.
        metadata: manifest stored as JSON in the file's comment.
        backdrop: (picture [3, height, width], left, top): frames may then be smaller than the video; they are laid
            over the picture at that place, both even, and only they are converted.

    Raises:
        InputError: the path cannot be written, now or later (full disk, vanished folder).
    """

    recipe = MP4
    suffixes: tuple[str, ...] = (".mp4",)

    def __init__(
        self,
        path: str | os.PathLike,
        size: int | tuple[int, int],
        fps: float,
        audio: tuple[Tensor | Iterator[np.ndarray], int] | None = None,
        metadata: dict[str, Any] | None = None,
        backdrop: tuple[Tensor, int, int] | None = None,
    ) -> None:
        self.path = check_writable(path, self.suffixes)
        self.width, self.height = (size, size) if isinstance(size, int) else size
        if self.width % 2 or self.height % 2:
            raise ValueError(f"expected even width and height, got {self.width}x{self.height}")
        self.rate = frame_rate(fps)
        self.frames_written = 0
        self._metadata = metadata or {}
        self._audio = audio
        self._place, self._canvas = None, None
        if backdrop is not None:
            picture, left, top = backdrop
            if left % 2 or top % 2:
                raise ValueError(f"expected an even place for the frames, got {left},{top}")
            self._place, self._canvas = (left, top), _canvas(picture[:, : self.height, : self.width])

    def __enter__(self) -> VideoWriter:
        self._replacement = replacing(self.path)
        self._partial = self._replacement.__enter__()
        try:
            self._open()
        except (av.FFmpegError, OSError) as error:
            self._replacement.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, frames: Tensor) -> None:
        """Append frames, [n, 3, H, W] or [3, H, W], RGB in [0, 1], any device and dtype.

        Raises:
            InputError: the disk is full or the folder has gone.
        """
        frames = frames if frames.dim() == 4 else frames[None]
        channels = self.recipe.channels
        if self._canvas is None and frames.shape[1:] != (channels, self.height, self.width):
            expected = f"[n, {channels}, {self.height}, {self.width}]"
            raise ValueError(f"expected frames {expected}, got {list(frames.shape)}")
        self._encode(self._pictures(frames.detach()))

    def write_planes(self, planes: Tensor) -> None:
        """Append frames that `yuv420` has converted, uint8 [n, 3 H / 2, W].

        Raises:
            InputError: the disk is full or the folder has gone.
        """
        if planes.shape[1:] != (self.height * 3 // 2, self.width):
            raise ValueError(f"expected planes [n, {self.height * 3 // 2}, {self.width}], got {list(planes.shape)}")
        self._encode(_of_planes(planes))

    def _encode(self, pictures: Iterator[av.VideoFrame]) -> None:
        try:
            for picture in pictures:
                picture.pts, picture.time_base = self.frames_written, 1 / self.rate
                self._container.mux(self._video.encode(picture))
                self.frames_written += 1
                self._write_sound()
        except OSError as error:
            raise writing_failed(self.path, error) from error

    def _pictures(self, frames: Tensor) -> Iterator[av.VideoFrame]:
        """The frames as the encoder takes them."""
        if self._canvas is None:
            yield from _of_planes(yuv420(frames))
            return
        left, top = self._place
        height, width = min(frames.shape[2], self.height - top), min(frames.shape[3], self.width - left)
        for frame in frames[:, :, :height, :width]:
            _lay_picture(self._canvas, frame, left, top)
            yield av.VideoFrame.from_ndarray(self._canvas, format="yuv420p")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            try:
                if kind is None:
                    self._finish()
            finally:
                self._close()
            if kind is None and self.recipe.remux:
                remux(self._partial, self._metadata, self.recipe.container)
        except BaseException as failure:
            self._replacement.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._replacement.__exit__(kind, error, trace)

    def _open(self) -> None:
        recipe = self.recipe
        options = dict(recipe.container_options)
        self._container = av.open(str(self._partial), "w", format=recipe.container, options=options)
        if not recipe.remux:
            self._container.metadata["comment"] = manifest_text(self._metadata)
        codec, codec_options = encoder.choose(recipe.codec, self._codec_options(), self.width, self.height)
        self._video = self._container.add_stream(codec, rate=self.rate, options=codec_options)
        self._video.width, self._video.height, self._video.pix_fmt = self.width, self.height, recipe.pixels
        self._video.time_base = 1 / self.rate
        context = self._video.codec_context
        context.time_base = 1 / self.rate
        context.gop_size = max(round(2 * self.rate), 1)
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        self._sound = None
        if self._audio is not None:
            self._blocks, channels = sound_blocks(*self._audio)
            self._sound = self._container.add_stream(recipe.sound, rate=SOUND_RATE)
            self._sound.layout = "mono" if channels == 1 else "stereo"
            self._sound.bit_rate = 96_000 * channels
            self._pending = np.zeros((channels, 0), np.float32)
            self._samples_written = 0
            self._sound_ended = False

    def _codec_options(self) -> dict[str, str]:
        options = dict(self.recipe.codec_options)
        ahead = _LOOKAHEAD_BYTES // (self.width * self.height * 3 // 2)
        if self.recipe.codec == "libx264" and ahead < 10:
            options["x264-params"] += f":rc-lookahead={ahead}:bframes={min(ahead, 2)}:sync-lookahead=0:threads=2"
        return options

    def _write_sound(self, is_last: bool = False) -> None:
        """Encode sound up to the end of the frames written so far."""
        if self._sound is None:
            return
        end = round(self.frames_written / self.rate * SOUND_RATE)
        while self._samples_written + self._pending.shape[1] < end and not self._sound_ended:
            block = next(self._blocks, None)
            self._sound_ended = block is None
            if block is not None:
                self._pending = np.concatenate([self._pending, block], axis=1)
        due = end - self._samples_written
        if self._sound_ended and self._pending.shape[1] < due:
            self._pending = np.pad(self._pending, ((0, 0), (0, due - self._pending.shape[1])))
        packet = self.recipe.packet
        while due >= packet or (is_last and due > 0):
            count = min(due, packet)
            self._write_samples(self._pending[:, :count])
            self._pending = self._pending[:, count:]
            due -= count

    def _write_samples(self, samples: np.ndarray) -> None:
        layout = self._sound.layout.name
        form, samples_in = _sound_form(self._sound.codec_context.format.name, samples.clip(-1, 1))
        frame = av.AudioFrame.from_ndarray(samples_in, format=form, layout=layout)
        frame.sample_rate = SOUND_RATE
        frame.pts, frame.time_base = self._samples_written, Fraction(1, SOUND_RATE)
        self._container.mux(self._sound.encode(frame))
        self._samples_written += samples.shape[1]

    def _finish(self) -> None:
        if self.frames_written == 0:
            raise ValueError("expected at least one frame before closing, got none")
        self._write_sound(is_last=True)
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._container.mux(self._sound.encode(None))

    def _close(self) -> None:
        self._container.close()
        if self._audio is not None and hasattr(self._blocks, "close"):
            self._blocks.close()


@dataclass(frozen=True)
class OpenedVideo:
    """A video being read.

    Attributes:
        frames: yields RGB in [0, 1], [3, H, W] float32, in order; decodes as it goes.
        fps: frames per second.
        audio: its sound track as mono 16 kHz, None if there is none.
    """

    frames: Iterator[Tensor]
    fps: float
    audio: LoadedAudio | None


def read_video(path: str | os.PathLike) -> OpenedVideo:
    """Open a video file.

    Raises:
        InputError: missing, empty, unreadable, or without a video track.
    """
    with open_media(path, "video") as container:
        if not container.streams.video:
            raise InputError(f"the video {path} has no picture track; give a video file")
        fps = float(container.streams.video[0].average_rate or container.streams.video[0].guessed_rate)
        has_sound = bool(container.streams.audio)
    return OpenedVideo(_frames(path), fps, load_audio(path) if has_sound else None)


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest that `VideoWriter` stored in a file.

    Raises:
        InputError: unreadable file, or one without a manifest of ours.
    """
    with open_media(path, "video") as container:
        # Matroska spells the names of its tags in capitals
        tags = {name.lower(): text for name, text in container.metadata.items()}
    comment = tags.get("comment", "")
    try:
        manifest = json.loads(comment)
    except json.JSONDecodeError:
        manifest = None
    if not isinstance(manifest, dict):
        raise InputError(f"the video {path} carries no vasa manifest; only files written by vasa do")
    return manifest


def yuv420(frames: Tensor) -> Tensor:
    """BT.709 luma and 2x2-averaged chroma in studio range, planes one below the other as PyAV takes them.

    Done here, on the frames' own device; FFmpeg's converter did not give the same bits twice.

    Args:
        frames: RGB in [0, 1], [n, 3, H, W], H and W even.

    Returns:
        uint8 [n, 3 H / 2, W].
    """
    red, green, blue = frames.float().clamp(0, 1).unbind(1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # [n, H, W]
    chroma = torch.stack([(blue - luma) / 1.8556, (red - luma) / 1.5748], dim=1)
    chroma = F.avg_pool2d(chroma, 2)  # [n, 2, H / 2, W / 2]
    # blue then red, row by row in rows as long as the picture's: a plane may end in the middle of one
    planes = [16 + 219 * luma, 128 + 224 * chroma.flatten(1).unflatten(1, (-1, frames.shape[-1]))]
    return torch.cat(planes, dim=1).round().clamp(0, 255).to(torch.uint8)


def _of_planes(planes: Tensor) -> Iterator[av.VideoFrame]:
    for picture in planes.cpu().numpy():
        yield av.VideoFrame.from_ndarray(picture, format="yuv420p")


def _frames(path: str | os.PathLike) -> Iterator[Tensor]:
    with open_media(path, "video") as container:
        container.streams.video[0].thread_type = "AUTO"
        try:
            for frame in container.decode(video=0):
                pixels = frame.to_ndarray(format="rgb24")
                yield torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        except DECODING_ERRORS as error:
            raise InputError(f"the video {path} is damaged or truncated; convert it again") from error


def sound_blocks(sound: Tensor | Iterator[np.ndarray], sample_rate: int) -> tuple[Iterator[np.ndarray], int]:
    """Blocks [C, n] at the output's sample rate, and C."""
    if not isinstance(sound, Tensor):
        return (sound if sample_rate == SOUND_RATE else _resampled(sound, 2, sample_rate)), 2
    waveform = sound.detach().float().cpu()
    waveform = (waveform if waveform.dim() == 2 else waveform[None])[:2]
    return _resampled(iter(waveform.numpy()[None]), len(waveform), sample_rate), len(waveform)


def _resampled(blocks: Iterator[np.ndarray], channels: int, sample_rate: int) -> Iterator[np.ndarray]:
    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)
    for block in blocks:
        for start in range(0, block.shape[1], sample_rate):
            piece = np.ascontiguousarray(block[:, start : start + sample_rate], dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate = sample_rate
            yield from (out.to_ndarray() for out in resampler.resample(frame))
    yield from (out.to_ndarray() for out in resampler.resample(None))


def manifest_text(metadata: dict[str, Any]) -> str:
    """A manifest as it is stored."""
    return json.dumps(metadata, separators=(",", ":"))


def remux(
    partial: Path, metadata: dict[str, Any], container: str = "mp4", target: Path | None = None
) -> tuple[int, bool]:
    """Rewrite a fragmented file as a plain one, index in front, the manifest in its comment; nothing is encoded anew.

    Args:
        partial: what was written so far.
        metadata: the manifest.
        container: FFmpeg's name of the format.
        target: file to write; default: `partial` is replaced.

    Returns:
        Pictures copied, and whether the file was whole (False: it broke off).
    """
    plain = partial.with_name(f"{partial.stem}.plain{partial.suffix}") if target is None else target
    count, is_whole = 0, True
    options = {"movflags": "faststart"} if container in ("mp4", "mov") else {}
    try:
        with av.open(str(partial)) as source, av.open(str(plain), "w", format=container, options=options) as out:
            out.metadata["comment"] = manifest_text(metadata)
            copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
            packets = source.demux()
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError:
                    is_whole = False
                    break
                if packet is None:
                    break
                if packet.is_corrupt:
                    # cut short in the middle; what follows it, of another stream, is lost as well
                    is_whole = False
                    break
                if packet.dts is not None:
                    count += packet.stream.type == "video"
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
        if target is None:
            os.replace(plain, partial)
    finally:
        if target is None:
            plain.unlink(missing_ok=True)
    return count, is_whole


def _canvas(picture: Tensor) -> np.ndarray:
    """A whole picture as planes, [3 H / 2, W] uint8."""
    height, width = picture.shape[1:]
    planes = np.empty((height * 3 // 2, width), np.uint8)
    _lay_picture(planes, picture, 0, 0)
    return planes


def _lay_picture(canvas: np.ndarray, picture: Tensor, left: int, top: int) -> None:
    """Convert a picture [3, h, w] into its even place; in strips, since 50 megapixels in floats are 600 MB."""
    for start in range(0, picture.shape[1], _STRIP):
        strip = picture[:, start : start + _STRIP]
        _lay(canvas, yuv420(strip[None])[0].cpu().numpy(), left, top + start, *strip.shape[1:])


def _lay(canvas: np.ndarray, planes: np.ndarray, left: int, top: int, height: int, width: int) -> None:
    """Copy the planes of a smaller picture, [3 h / 2, w], into those of a larger one at an even place."""
    whole_height, whole_width = canvas.shape[0] * 2 // 3, canvas.shape[1]
    canvas[top : top + height, left : left + width] = planes[:height]
    chroma = canvas[whole_height:].reshape(2, whole_height // 2, whole_width // 2)
    patch = planes[height:].reshape(2, height // 2, width // 2)
    chroma[:, top // 2 : (top + height) // 2, left // 2 : (left + width) // 2] = patch


def _sound_form(wanted: str, samples: np.ndarray) -> tuple[str, np.ndarray]:
    """Samples [C, n] in [-1, 1] in the encoder's own format, and its name."""
    if wanted.startswith("flt"):
        packed = wanted == "flt"
        return wanted, np.ascontiguousarray(samples.T.reshape(1, -1) if packed else samples)
    whole = np.round(samples * 32767).astype(np.int16)
    return "s16", np.ascontiguousarray(whole.T.reshape(1, -1))
