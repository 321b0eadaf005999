"""A video in pieces of about a second that play one after the other (HLS), and the pieces back to one mp4."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from torch import Tensor

from .files import replacing
from .transport import TransportStream
from .video import frame_rate

SECONDS = 1.0
"""Length of a piece: players of HLS stumble over shorter ones, and longer ones come later."""
CLOCK_START = 10.0
"""What the stream's clock shows at the first frame: MPEG-TS cannot hold times below zero."""


@dataclass(frozen=True)
class Segment:
    """One piece of a stream, to be played after the one before it.

    Attributes:
        data: MPEG-TS.
        seconds: how long it plays.
    """

    data: bytes
    seconds: float


class Segmenter:
    """Cuts a growing video into pieces; one encoder works on all of them, so that they join without a gap.

    Args:
        size: (width, height) or one number for both; even.
        fps: frames per second.
        sample_rate: of the sound, Hz.
        channels: of the sound, 1 or 2.
        seconds: length of a piece.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        fps: float,
        sample_rate: int = 16_000,
        *,
        channels: int = 1,
        seconds: float = SECONDS,
    ) -> None:
        self._stream = TransportStream(size, fps, sample_rate, channels=channels, offset=CLOCK_START)
        self._rate = frame_rate(fps)
        self._length = max(1, round(seconds * self._rate))
        self._data, self._frames = bytearray(), 0

    def write(self, frames: Tensor, samples: Tensor | np.ndarray | None = None) -> Iterator[Segment]:
        """Append frames and the sound beside them; yields the pieces that are complete.

        Args:
            frames: RGB in [0, 1], [n, 3, H, W], any n.
            samples: in [-1, 1], [m] or [channels, m].
        """
        while len(frames):
            count = min(self._length - self._frames, len(frames))
            data = self._stream.write(frames[:count], samples, keyframe=self._frames == 0)
            frames, samples = frames[count:], None
            self._data += data
            self._frames += count
            if self._frames == self._length:
                yield self._taken()

    def close(self) -> Iterator[Segment]:
        """End the stream; yields the last piece, if any frames are left for one."""
        self._data += self._stream.close()
        if self._frames:
            yield self._taken()

    def _taken(self) -> Segment:
        segment = Segment(bytes(self._data), float(self._frames / self._rate))
        self._data, self._frames = bytearray(), 0
        return segment


class SoundAlong:
    """Sound in blocks of any size, handed out as long as the frames beside it; silence after its end.

    Args:
        blocks: [channels, n] each, as `vasa.io.audio.iterate_soundtrack` gives them.
        sample_rate: Hz.
        fps: of the frames.
        channels: of the blocks.
    """

    def __init__(self, blocks: Iterator[np.ndarray], sample_rate: int, fps: float, channels: int = 2) -> None:
        self._blocks, self._samples_per_frame = blocks, Fraction(sample_rate) / frame_rate(fps)
        self._pending = np.zeros((channels, 0), np.float32)
        self._frames = self._given = 0

    def next(self, frames: int) -> np.ndarray:
        """The sound of the next `frames` frames, [channels, m]; m follows the clock and never drifts."""
        self._frames += frames
        count = round(self._frames * self._samples_per_frame) - self._given
        while self._pending.shape[1] < count and (block := next(self._blocks, None)) is not None:
            self._pending = np.concatenate([self._pending, block], axis=1)
        piece, self._pending = self._pending[:, :count], self._pending[:, count:]
        self._given += count
        return np.pad(piece, ((0, 0), (0, count - piece.shape[1])))


def join(pieces: list[bytes], path: str | os.PathLike) -> None:
    """Write the pieces of a stream as one mp4, without encoding anything anew.

    Raises:
        ValueError: no pieces, or they are not MPEG-TS.
        InputError: the file cannot be written.
    """
    if not pieces:
        raise ValueError("expected at least one piece")
    with (
        replacing(path) as partial,
        av.open(io.BytesIO(b"".join(pieces)), format="mpegts") as source,
        av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            start = round(Fraction(CLOCK_START) / packet.time_base)
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
