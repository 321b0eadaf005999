"""Frames and sound to one endless MPEG transport stream, as bytes: for pipes, HLS segments and sockets.

One H.264 encoder, one AAC encoder and one muxer live as long as the stream, so that pieces cut out of it join without
a gap. Timestamps are computed from the frame's and the sample's index, never accumulated.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from .video import SOUND_RATE, frame_rate, yuv420


class TransportStream:
    """H.264 (zero latency) and AAC in MPEG-TS.

    What comes back belongs to the stream from its first byte on: keep it all, in order. The last frame
    and 43 ms of sound of a write may come with the next one, because packets of both kinds leave in the order of time.

    Args:
        size: (width, height) or one number for both; even.
        fps: frames per second.
        sample_rate: of the sound that `write` is given, Hz; the stream itself has 48 kHz.
        channels: of the sound, 1 or 2.
        offset: seconds the stream's clock shows at frame 0; players of HLS like it well above 0.
        keyframe_seconds: longest distance of two key frames.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        fps: float,
        sample_rate: int = 16_000,
        *,
        channels: int = 1,
        offset: float = 0.0,
        keyframe_seconds: float = 2.0,
    ) -> None:
        self.width, self.height = (size, size) if isinstance(size, int) else size
        if self.width % 2 or self.height % 2:
            raise ValueError(f"expected even width and height, got {self.width}x{self.height}")
        self.rate = frame_rate(fps)
        self.sample_rate = sample_rate
        self.channels = channels
        self.frames_written = 0
        self.samples_written = 0
        """At `sample_rate`."""
        self._sink = _Sink()
        options = {"flush_packets": "1", "max_interleave_delta": "1"}
        self._container = av.open(self._sink, "w", format="mpegts", options=options)
        self._start = Fraction(offset).limit_denominator(1000)
        self._open_video(keyframe_seconds)
        self._open_sound()

    @property
    def drift(self) -> float:
        """Seconds by which the pictures written are ahead of the sound written."""
        return float(self.frames_written / self.rate - Fraction(self.samples_written, self.sample_rate))

    def write(self, frames: Tensor, samples: Tensor | np.ndarray | None = None, *, keyframe: bool = False) -> bytes:
        """Encode frames and the sound beside them.

        Args:
            frames: RGB in [0, 1], [n, 3, H, W] or [3, H, W]; n may be 0.
            samples: in [-1, 1], [m] or [channels, m]; as long as the frames, or shorter and made up for later.
            keyframe: begin with a key frame, so that a piece of the stream that starts here can be played by itself.

        Returns:
            The bytes that are ready.
        """
        frames = frames if frames.dim() == 4 else frames[None]
        if frames.shape[1:] != (3, self.height, self.width):
            expected = f"[n, 3, {self.height}, {self.width}]"
            raise ValueError(f"expected frames {expected}, got {list(frames.shape)}")
        if samples is not None:
            self._write_sound(samples)
        for picture in yuv420(frames.detach()).cpu().numpy() if len(frames) else ():
            self._write_picture(picture, keyframe)
            keyframe = False
        return self._sink.take()

    def close(self) -> bytes:
        """End both encoders and the stream; sound that is missing under the last frames is silence."""
        if self._container is None:
            return b""
        missing = round(self.drift * self.sample_rate)
        if missing > 0:
            self._write_sound(np.zeros((self.channels, missing), np.float32))
        for piece in self._resampler.resample(None):
            self._write_piece(piece.to_ndarray())
        if self._pending.shape[1]:
            self._encode_sound(self._pending)
        self._container.mux(self._sound.encode(None))
        self._container.mux(self._video.encode(None))
        self._container.close()
        self._container = None
        return self._sink.take()

    def _open_video(self, keyframe_seconds: float) -> None:
        # mbtree reads uninitialised memory in small pictures (see VideoWriter)
        options = {
            "crf": "20",
            "preset": "veryfast",
            "tune": "zerolatency",
            "x264-params": "mbtree=0",
            "forced-idr": "1",
        }
        self._video = self._container.add_stream("libx264", rate=self.rate, options=options)
        self._video.width, self._video.height, self._video.pix_fmt = self.width, self.height, "yuv420p"
        context = self._video.codec_context
        context.time_base = 1 / self.rate
        context.gop_size = max(round(keyframe_seconds * self.rate), 1)
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709

    def _open_sound(self) -> None:
        layout = "mono" if self.channels == 1 else "stereo"
        self._sound = self._container.add_stream("aac", rate=SOUND_RATE)
        self._sound.layout = layout
        self._sound.bit_rate = 96_000 * self.channels
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)
        self._pending = np.zeros((self.channels, 0), np.float32)
        self._encoded = 0

    def _write_picture(self, picture: np.ndarray, keyframe: bool) -> None:
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self.frames_written + round(self._start * self.rate), 1 / self.rate
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        self._container.mux(self._video.encode(frame))
        self.frames_written += 1

    def _write_sound(self, samples: Tensor | np.ndarray) -> None:
        block = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
        block = np.ascontiguousarray(block[None] if block.ndim == 1 else block, dtype=np.float32)
        if block.shape[0] != self.channels:
            raise ValueError(f"expected samples [{self.channels}, m], got {list(block.shape)}")
        if block.shape[1] == 0:
            return
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=self._sound.layout.name)
        frame.sample_rate = self.sample_rate
        self.samples_written += block.shape[1]
        for piece in self._resampler.resample(frame):
            self._write_piece(piece.to_ndarray())

    def _write_piece(self, piece: np.ndarray) -> None:
        self._pending = np.concatenate([self._pending, piece], axis=1)
        size = 1024  # one AAC packet
        while self._pending.shape[1] >= size:
            self._encode_sound(self._pending[:, :size])
            self._pending = self._pending[:, size:]

    def _encode_sound(self, samples: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.clip(-1, 1)), format="fltp", layout=self._sound.layout.name
        )
        frame.sample_rate = SOUND_RATE
        frame.pts, frame.time_base = self._encoded + round(self._start * SOUND_RATE), Fraction(1, SOUND_RATE)
        self._container.mux(self._sound.encode(frame))
        self._encoded += samples.shape[1]


class _Sink(io.RawIOBase):
    """A file that cannot be sought; what was written is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken
