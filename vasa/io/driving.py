"""Frames of a driving video with the times they are shown at: upright, of usable size, one after the other.

Phones write turned pictures and rates that wander, so neither the frame's index nor its orientation is taken for
granted; only the times in the file are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .audio import DECODING_ERRORS, open_media

LONGEST_SIDE = 1280
"""Larger frames are scaled down to this."""
FASTEST = 45.0
"""Frames that follow faster than this, per second, are left out."""
_MAX_PIXELS = 8192 * 8192


@dataclass(frozen=True)
class DrivingVideo:
    """A video whose face drives a portrait.

    Attributes:
        frames: yields (seconds since the first frame, RGB uint8 [3, H, W]) in order, ascending; decodes as it goes.
        has_sound: whether there is an audio track.
        count: how many frames there are about, 0 if the file does not say.
        seconds: how long it lasts about, 0 if the file does not say.
    """

    frames: Iterator[tuple[float, Tensor]]
    has_sound: bool
    count: int
    seconds: float


def open_driving_video(path: str | os.PathLike) -> DrivingVideo:
    """Open a video file.

    Raises:
        InputError: missing, empty, unreadable, or without a picture track; while frames are taken: no picture can be
            decoded. Damage after that ends the frames early; the time of the last one against `seconds` tells.
    """
    with open_media(path, "video") as container:
        if not container.streams.video:
            raise InputError(f"the video {path} has no picture track; give a video file with a face in it")
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if not 0 < width * height <= _MAX_PIXELS:
            raise InputError(f"the video {path} has pictures of {width}x{height}; convert it to an ordinary size")
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        count = round(seconds * min(rate, FASTEST)) if seconds else 0
        has_sound = bool(container.streams.audio)
    return DrivingVideo(_upright(path), has_sound, count, seconds)


def _upright(path: str | os.PathLike) -> Iterator[tuple[float, Tensor]]:
    first = last = None
    with open_media(path, "video") as container:
        container.streams.video[0].thread_type = "AUTO"
        try:
            for index, frame in enumerate(container.decode(video=0)):
                time = frame.time if frame.time is not None else index / 25
                first = time if first is None else first
                if last is not None and time - last < 1 / FASTEST:
                    continue
                last = time
                yield time - first, _picture(frame)
        except DECODING_ERRORS as error:
            if last is not None:
                return
            raise InputError(f"the video {path} is damaged or truncated; convert it again") from error


def _picture(frame) -> Tensor:
    scale = min(1.0, LONGEST_SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(edge * scale)) for edge in (frame.width, frame.height))
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    # FFmpeg's rotation is anticlockwise, like NumPy's
    turns = round(frame.rotation / 90) % 4
    return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, turns))).permute(2, 0, 1)
