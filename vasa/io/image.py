"""Image files to portrait tensors and back."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from ..errors import InputError
from .files import check_writable, open_input, replacing

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
"""What is tried; a closed list, because Pillow would otherwise start Ghostscript for an EPS file."""
MAX_PIXELS = 50_000_000
MIN_SIDE = 128
"""Shortest side that still shows a face, pixels."""
NEUTRAL = (0.5, 0.5, 0.5)

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class LoadedImage:
    """A picture read from a file.

    Attributes:
        pixels: RGB in [0, 1], [3, H, W] float32.
        notices: sentences the user should see.
    """

    pixels: Tensor
    notices: list[str] = field(default_factory=list)


def load_image(path: str | os.PathLike, background: Sequence[float] = NEUTRAL) -> LoadedImage:
    """Read a JPEG, PNG, WEBP, AVIF, TIFF, BMP, GIF, JPEG 2000 or (with pillow-heif) HEIC picture.

    The result is upright (EXIF), sRGB (embedded profiles are applied), composited on `background` where it is
    transparent, scaled from 16 bits rather than clipped, and the first frame of an animation.

    Args:
        path: local file.
        background: RGB in [0, 1] behind transparent pixels.

    Raises:
        InputError: missing, empty, truncated, not an image, over 50 megapixels (judged by the header, before
            anything is decoded), or under 128 pixels on the short side.
    """
    with open_input(path, "portrait") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=_available_formats())
        except Image.DecompressionBombError as error:
            raise _too_large(path) from error
        except _BROKEN as error:
            raise _unreadable(path, file) from error
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{width}x{height} pixels")
        if min(width, height) < MIN_SIDE:
            raise InputError(
                f"the portrait {path} is {width}x{height} pixels; its short side must be at least {MIN_SIDE}"
            )
        notices = []
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            notices.append(f"{Path(path).name} has several frames; the first one is used")
        try:
            image.load()
            pixels = _to_rgb(ImageOps.exif_transpose(image), background)
        except _BROKEN as error:
            raise InputError(
                f"the portrait {path} is not a readable image: it is damaged or truncated; export it again"
            ) from error
    return LoadedImage(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), notices)


def save_image(pixels: Tensor, path: str | os.PathLike) -> None:
    """Write [3, H, W] in [0, 1] as PNG, JPEG or WEBP; the file appears only when it is complete.

    Raises:
        InputError: unknown ending, or the folder cannot be written.
    """
    path = check_writable(path, (".png", ".jpg", ".jpeg", ".webp"))
    rounded = (pixels.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    image = Image.fromarray(rounded.permute(1, 2, 0).contiguous().numpy())
    with replacing(path) as partial:
        image.save(partial, quality=95)


def _available_formats() -> list[str]:
    """The closed list, less what this Pillow was built without, plus HEIF when its plugin is installed."""
    Image.init()
    names = [name for name in FORMATS if name in Image.OPEN]
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return names
    register_heif_opener()
    return [*names, "HEIF"]


def _to_rgb(image: Image.Image, background: Sequence[float]) -> np.ndarray:
    """Any Pillow mode to [H, W, 3] float32 in [0, 1]."""
    if image.mode.startswith(("I", "F")):
        limits = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
        grey = _scale_deep(np.asarray(image, dtype=np.float32), limits)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layers = np.asarray(_to_srgb(image.convert("RGBA")), dtype=np.float32) / 255
        colour, alpha = layers[..., :3], layers[..., 3:]
        return colour * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)
    return np.asarray(_to_srgb(image).convert("RGB"), dtype=np.float32) / 255


def _scale_deep(grey: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    """More than 8 bits per channel to [0, 1] by the first limit that holds; Pillow's conversion clips."""
    peak = float(np.nanmax(grey, initial=0.0))
    full = next((limit for limit in limits if peak <= limit), peak)
    return np.nan_to_num(grey / full).clip(0, 1)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Apply an embedded colour profile; a broken profile is ignored, as viewers do."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted or image


def _too_large(path: str | os.PathLike, size: str = "far more") -> InputError:
    limit = MAX_PIXELS // 1_000_000
    return InputError(f"the portrait {path} has {size}; at most {limit} megapixels are read, so scale it down first")


def _unreadable(path: str | os.PathLike, file: BinaryIO) -> InputError:
    """Say what is wrong, with a hint for HEIC, the one common format that needs a plugin."""
    file.seek(0)
    head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return InputError(f"the portrait {path} is a HEIC picture; install vasa[heif] or convert it to JPEG")
    return InputError(f"the portrait {path} is not a readable image; give a JPEG, PNG, WEBP or AVIF file")
