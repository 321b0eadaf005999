"""Frames with alpha: VP9 in WebM, ProRes 4444 in QuickTime, or a folder of PNG pictures.

Alpha is straight (colours are not multiplied by it), which all three expect.
"""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import InputError
from .files import check_writable, writing_failed
from .video import FRAGMENTS, SOUND_RATE, Recipe, VideoWriter, frame_rate, sound_blocks, yuv420

WEBM = Recipe(
    "webm",
    {},
    "libvpx-vp9",
    # alternate reference frames cannot carry alpha
    {"auto-alt-ref": "0", "crf": "18", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"},
    "yuva420p",
    channels=4,
    sound="libopus",
    packet=960,
    remux=False,
)
PRORES = Recipe(
    "mov",
    FRAGMENTS,
    "prores_ks",
    {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"},
    "yuva444p10le",
    channels=4,
    sound="pcm_s16le",
)


class WebmAlphaWriter(VideoWriter):
    """As `VideoWriter`, for frames [n, 4, H, W] and files ending in .webm: VP9 with alpha, Opus sound."""

    recipe = WEBM
    suffixes = (".webm",)

    def _pictures(self, frames: Tensor) -> Iterator[av.VideoFrame]:
        alpha = (frames[:, 3].float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        half = (self.height // 2, self.width // 2)
        for planes, opacity in zip(yuv420(frames[:, :3]).cpu().numpy(), alpha, strict=True):
            blue, red = planes[self.height :].reshape(2, *half)
            yield _frame("yuva420p", self.width, self.height, (planes[: self.height], blue, red, opacity))


class ProresAlphaWriter(VideoWriter):
    """As `VideoWriter`, for frames [n, 4, H, W] and files ending in .mov: ProRes 4444, uncompressed sound."""

    recipe = PRORES
    suffixes = (".mov",)

    def _pictures(self, frames: Tensor) -> Iterator[av.VideoFrame]:
        for planes in yuva444p10(frames).cpu().numpy().astype(np.uint16):
            yield _frame("yuva444p10le", self.width, self.height, tuple(planes))


class PngFolderWriter:
    """A folder of PNG pictures with alpha, 000000.png on, with sound.wav and manifest.json beside them.

    A context manager with `VideoWriter`'s `write`; the folder appears only when all is written.

    Args:
        path: folder to make; it must not exist, or be empty.
        size, fps, audio, metadata: as for `VideoWriter`.

    Raises:
        InputError: the folder holds something already, or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        size: int | tuple[int, int],
        fps: float,
        audio: tuple[Tensor | Iterator[np.ndarray], int] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.path = check_folder(path)
        self.width, self.height = (size, size) if isinstance(size, int) else size
        self.rate = frame_rate(fps)
        self.frames_written = 0
        self._metadata, self._audio = metadata or {}, audio

    def __enter__(self) -> PngFolderWriter:
        self._partial = self.path.with_name(f".{self.path.name[:60]}.partial")
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
        except OSError as error:
            raise writing_failed(self.path, error) from error
        return self

    def write(self, frames: Tensor) -> None:
        """Append frames, [n, 4, H, W] or [4, H, W], RGB and alpha in [0, 1]."""
        frames = frames if frames.dim() == 4 else frames[None]
        if frames.shape[1:] != (4, self.height, self.width):
            raise ValueError(f"expected frames [n, 4, {self.height}, {self.width}], got {list(frames.shape)}")
        for pixels in (frames.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8):
            image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
            try:
                image.save(self._partial / f"{self.frames_written:06d}.png", compress_level=3)
            except OSError as error:
                raise writing_failed(self._partial, error) from error
            self.frames_written += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise writing_failed(self.path, failure) from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
            if self._audio is not None and hasattr(self._audio[0], "close"):
                self._audio[0].close()

    def _finish(self) -> None:
        if self.frames_written == 0:
            raise ValueError("expected at least one frame before closing, got none")
        (self._partial / "manifest.json").write_text(json.dumps(self._metadata, indent=1))
        if self._audio is not None:
            self._write_sound(self._partial / "sound.wav")
        if self.path.is_dir():
            self.path.rmdir()
        os.replace(self._partial, self.path)

    def _write_sound(self, path: Path) -> None:
        """The sound, cut or padded with silence to the end of the last frame."""
        blocks, channels = sound_blocks(*self._audio)
        missing = round(self.frames_written / self.rate * SOUND_RATE)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(SOUND_RATE)
            for block in blocks:
                samples = np.round(block[:, :missing].clip(-1, 1) * 32767).astype("<i2")
                file.writeframes(samples.T.tobytes())
                missing -= samples.shape[1]
                if not missing:
                    break
            file.writeframes(bytes(2 * channels * missing))


_WRITERS = {".webm": WebmAlphaWriter, ".mov": ProresAlphaWriter, "": PngFolderWriter}


def check_output(path: str | os.PathLike, alpha: bool = False) -> Path:
    """Make sure, before anything is computed, that an output can be written and can hold what is asked for.

    Args:
        path: .mp4 without alpha; .webm, .mov or a folder (a name without an ending) with alpha.
        alpha: whether the frames have alpha.

    Raises:
        InputError: an ending that does not fit, or a place that cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if not alpha:
        if suffix in (".webm", ".mov"):
            raise InputError(f"the output {path} is of a kind for alpha; add --alpha, or name an .mp4 file")
        return check_writable(path)
    if suffix not in _WRITERS:
        raise InputError(
            f"the output {path} cannot hold alpha; name a .webm or .mov file, or a folder (a name without an ending)"
        )
    return check_writable(path, (suffix,)) if suffix else check_folder(path)


def writer_for(path: str | os.PathLike, alpha: bool = False) -> type[VideoWriter] | type[PngFolderWriter]:
    """The writer of an output that `check_output` accepts."""
    return _WRITERS[Path(path).suffix.lower()] if alpha else VideoWriter


def check_folder(path: str | os.PathLike) -> Path:
    """Make sure that a folder of that name can be made.

    Raises:
        InputError: it holds something already, is a file, or its parent cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        if any(path.iterdir()):
            raise InputError(f"the output folder {path} is not empty; name a new one")
    elif path.exists():
        raise InputError(f"the output {path} is a file; name a new folder")
    check_writable(path.absolute().parent / f".{path.name[:60]}.check", (".check",))
    return path


def yuva444p10(frames: Tensor) -> Tensor:
    """BT.709 luma and chroma in studio range, alpha in full range, 10 bits each, [n, 4, H, W] -> int16, same shape."""
    red, green, blue, alpha = frames.float().clamp(0, 1).unbind(1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    planes = [64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8556, 512 + 896 * (red - luma) / 1.5748, 1023 * alpha]
    return torch.stack(planes, dim=1).round().clamp(0, 1023).to(torch.int16)


def refined(alpha: Tensor, guide: Tensor, radius: int = 4, smoothness: float = 1e-4) -> Tensor:
    """A coarse matte that follows the edges of the picture: the guided filter on luminance (He et al., 2010).

    Args:
        alpha: [n, 1, s, s] in [0, 1].
        guide: the pictures, [n, 3, S, S]; the result has their size.
        radius: of the window, pixels of the guide.
        smoothness: variance of luminance below which an edge is none.

    Returns:
        [n, 1, S, S] in [0, 1].
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    grey = guide.float().mean(1, keepdim=True)
    alpha = F.interpolate(alpha.float(), size=guide.shape[-2:], mode="bilinear")
    mean_grey, mean_alpha = mean(grey), mean(alpha)
    slope = (mean(grey * alpha) - mean_grey * mean_alpha) / (mean(grey * grey) - mean_grey**2 + smoothness)
    return (mean(slope) * grey + mean(mean_alpha - slope * mean_grey)).clamp(0, 1)


def foreground(frames: Tensor, alpha: Tensor) -> Tensor:
    """The person's own colours: what the background lent to half-covered pixels, and the background itself, removed.

    Pixels take the colour of the surest person's pixels around them, the more the less they are covered.

    Args:
        frames: [n, 3, H, W].
        alpha: [n, 1, H, W] in [0, 1].

    Returns:
        [n, 3, H, W]; nothing of the background remains where alpha is 0.
    """
    sure = (alpha > 0.95).to(frames)
    colour, weight = [frames * sure], [sure]
    while min(colour[-1].shape[-2:]) >= 4:
        colour.append(F.avg_pool2d(colour[-1], 2))
        weight.append(F.avg_pool2d(weight[-1], 2))
    filled = colour[-1].mean((2, 3), keepdim=True) / weight[-1].mean((2, 3), keepdim=True).clamp(min=1e-4)
    for near, share in zip(colour[::-1], weight[::-1], strict=True):
        filled = F.interpolate(filled, size=near.shape[-2:], mode="bilinear")
        filled = torch.lerp(filled, near / share.clamp(min=1e-3), (share * 4).clamp(max=1))
    return torch.lerp(filled, frames, ((alpha - 0.5) * 2.2).clamp(0, 1))


def _frame(pixels: str, width: int, height: int, planes: tuple[np.ndarray, ...]) -> av.VideoFrame:
    """A frame filled plane by plane; FFmpeg's rows may be longer than the picture's."""
    frame = av.VideoFrame(width, height, pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    return frame
