"""The H.264 encoder: x264, or the GPU's own where the user asks for it and it works.

`VASA_VIDEO_ENCODER=h264_nvenc` asks. The default stays x264: the same frames then give the same bytes everywhere.
"""

from __future__ import annotations

import os
import warnings
from fractions import Fraction

import av

SOFTWARE, NVENC = "libx264", "h264_nvenc"
_NVENC_OPTIONS = {"preset": "p5", "rc": "vbr", "cq": "19", "b": "0"}
"""Constant quality near x264's crf 18."""


def choose(codec: str, options: dict[str, str], width: int, height: int) -> tuple[str, dict[str, str]]:
    """The codec to open in the place of `codec`, and its options.

    Args:
        codec: what the file's recipe names; only x264 is ever replaced.
        options: for that codec.
        width, height: pixels.
    """
    wanted = os.environ.get("VASA_VIDEO_ENCODER", "").strip() or SOFTWARE
    if codec != SOFTWARE or wanted == SOFTWARE:
        return codec, options
    if wanted == NVENC:
        try:
            _try(NVENC, _NVENC_OPTIONS, width, height)
            return NVENC, dict(_NVENC_OPTIONS)
        except (av.FFmpegError, ValueError, RuntimeError, OSError) as error:
            reason = f"cannot be opened here ({error})"
    else:
        reason = f"is not known; use {SOFTWARE} or {NVENC}"
    warnings.warn(f"the video encoder {wanted} {reason}; {SOFTWARE} writes the video", RuntimeWarning, stacklevel=3)
    return codec, options


def _try(codec: str, options: dict[str, str], width: int, height: int) -> None:
    """Open an encoder and throw it away; raises where there is no such hardware, driver or build."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base, context.options = 25, Fraction(1, 25), options
    context.open()
