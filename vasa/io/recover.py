"""What a killed run left behind becomes a playable file.

Videos are written under a hidden name beside the output, `.NAME.partial.SUFFIX`, in a form that can be read as far as
it goes; folders of pictures as `.NAME.partial`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import av

from ..errors import InputError
from .alpha import check_folder
from .audio import DECODING_ERRORS, open_media
from .files import check_writable, replacing
from .video import read_manifest, remux

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".webm": "webm"}


@dataclass(frozen=True)
class Recovered:
    """What was saved.

    Attributes:
        path: the new file or folder.
        leftover: what it was made from; it is left as it is.
        frames: pictures in it.
        seconds: how long they last; 0 for a folder of pictures, which do not know their rate.
    """

    path: Path
    leftover: Path
    frames: int
    seconds: float


def recover(path: str | os.PathLike, out: str | os.PathLike | None = None) -> Recovered:
    """Rewrite an unfinished video as a plain one; nothing is encoded anew, and the leftover stays.

    Args:
        path: the leftover, or the output that was to be written.
        out: file or folder to write; default: the output's name with `.recovered` before its ending.

    Raises:
        InputError: there is no leftover, nothing in it can be read, or the output cannot be written.
    """
    leftover = find_leftover(path)
    name = leftover.name.removeprefix(".").replace(".partial", "")
    if out is None:
        out = leftover.with_name(f"{Path(name).stem}.recovered{leftover.suffix.replace('.partial', '')}")
    if leftover.is_dir():
        return _recover_folder(leftover, Path(out))
    suffix = leftover.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{leftover} is no unfinished video; give an .mp4, .mov or .webm file")
    out = check_writable(out, (suffix,))
    if out.exists():
        raise InputError(f"{out} exists already; name another file with -o")
    with open_media(leftover, "video") as container:
        if not container.streams.video:
            raise InputError(f"the video {leftover} has no picture track; there is nothing to recover")
        fps = float(container.streams.video[0].average_rate or container.streams.video[0].guessed_rate)
    manifest = {"digital_source_type": "trainedAlgorithmicMedia"}
    try:
        manifest = read_manifest(leftover)
    except InputError:
        pass  # an mp4 gets its manifest at the end, so a leftover has none
    try:
        with replacing(out) as partial:
            frames, _ = remux(leftover, {**manifest, "recovered": True}, CONTAINERS[suffix], partial)
            if not frames:
                raise InputError(f"the video {leftover} holds no whole picture; there is nothing to recover")
    except av.FFmpegError as error:
        raise InputError(f"the video {leftover} cannot be read; there is nothing to recover") from error
    return Recovered(out, leftover, frames, frames / fps)


def find_leftover(path: str | os.PathLike) -> Path:
    """The unfinished file or folder behind a name: itself, or the hidden one beside it.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    is_hidden = path.name.startswith(".") and ".partial" in path.name
    hidden = path.absolute().with_name(f".{path.stem[:60]}.partial{path.suffix}")
    try:
        if not is_hidden and hidden.exists():
            return hidden
        if not path.exists():
            raise InputError(f"neither {path} nor a leftover {hidden.name} beside it exists; check the path")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened ({error}); check the path") from error
    return path


def _recover_folder(leftover: Path, out: Path) -> Recovered:
    pictures = sorted(leftover.glob("[0-9]*.png"))
    if not pictures:
        raise InputError(f"the folder {leftover} holds no pictures; there is nothing to recover")
    out = check_folder(out)
    shutil.copytree(leftover, out, dirs_exist_ok=True)
    # the last picture may be half written
    if not _is_whole(out / pictures[-1].name):
        (out / pictures[-1].name).unlink()
        pictures.pop()
    return Recovered(out, leftover, len(pictures), 0.0)


def _is_whole(picture: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(picture) as image:
            image.load()
    except (*DECODING_ERRORS, SyntaxError):
        return False
    return True
