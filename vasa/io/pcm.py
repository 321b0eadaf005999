"""Sound from a pipe: raw PCM or a wav file whose end nobody knows yet."""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ..errors import InputError

_EXTENSIBLE, _PCM, _FLOAT = 0xFFFE, 1, 3


class PcmReader:
    """Mono sound as it arrives.

    A RIFF header says rate, channels and format (16-bit or 32-bit float); without one the bytes are signed 16-bit
    little-endian mono. A thread reads, so that the reader of blocks can wait with a limit; it stops reading ahead when
    `ahead` blocks are waiting (back-pressure on whoever writes into the pipe).

    Args:
        file: opened for binary reading, e.g. `sys.stdin.buffer`.
        sample_rate: of raw PCM, Hz.
        block_seconds: most sound read at a time.
        ahead: blocks that may wait.

    Raises:
        InputError: nothing at all came, or a wav file of another format.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, block_seconds: float = 0.04, ahead: int = 64) -> None:
        self._file = file
        self.sample_rate, self._channels, self._dtype = sample_rate, 1, np.dtype("<i2")
        self._rest = _exactly(file, 4)
        if not self._rest:
            raise InputError("no sound came: the input was closed at once; pipe a wav file or raw PCM into it")
        if self._rest == b"RIFF":
            self._read_header()
            self._rest = b""
        self._bytes = max(1, round(block_seconds * self.sample_rate)) * self._frame
        self._blocks: queue.Queue[np.ndarray | None] = queue.Queue(ahead)
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def _frame(self) -> int:
        return self._channels * self._dtype.itemsize

    def next(self, timeout: float | None = None) -> np.ndarray | None:
        """The next block, float32 in [-1, 1], [n]; None when nothing came within `timeout` seconds or all is read."""
        if self.ended:
            return None
        try:
            block = self._blocks.get(timeout=timeout)
        except queue.Empty:
            return None
        self.ended = block is None
        return block

    def __iter__(self) -> Iterator[np.ndarray]:
        while (block := self.next()) is not None:
            yield block

    def _read(self) -> None:
        read = getattr(self._file, "read1", self._file.read)
        rest = self._rest
        try:
            while data := read(self._bytes):
                rest += data
                whole = len(rest) // self._frame * self._frame
                if whole:
                    self._blocks.put(self._floats(rest[:whole]))
                    rest = rest[whole:]
        except (OSError, ValueError):
            pass  # closed from the other side: the sound ends here
        self._blocks.put(None)

    def _floats(self, data: bytes) -> np.ndarray:
        samples = np.frombuffer(data, self._dtype).reshape(-1, self._channels)
        samples = samples.astype(np.float32).mean(axis=1)
        return np.nan_to_num(samples) if self._dtype.kind == "f" else samples / 32768

    def _read_header(self) -> None:
        head = _exactly(self._file, 8)
        if head[4:] != b"WAVE":
            raise InputError("the sound begins like a wav file and is none; send raw PCM or a wav file")
        while len(chunk := _exactly(self._file, 8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                return
            body = _exactly(self._file, size + size % 2)
            if name == b"fmt " and len(body) >= 16:
                kind, self._channels, self.sample_rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
                if kind == _EXTENSIBLE and len(body) >= 26:
                    kind = struct.unpack("<H", body[24:26])[0]
                formats = {(_PCM, 16): "<i2", (_FLOAT, 32): "<f4"}
                if (kind, bits) not in formats or not self._channels:
                    raise InputError(
                        f"the wav file has format {kind} with {bits} bits; send 16-bit PCM or 32-bit float"
                    )
                self._dtype = np.dtype(formats[kind, bits])
        raise InputError("the wav file ends before its sound begins; send it whole")


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := file.read(count - len(data))):
        data += piece
    return data
