"""Where the nodes run: folders, progress, interruption, where weights live. ComfyUI is one host, headless another.

Every file name that a workflow can carry passes through `Host.input_path` or `Host.output_path`.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .api import IN_COMFYUI
from .engine import InputError, room

SAMPLE = " [sample]"
"""Ending of the names of files that come with the pack."""
RESULT = " [output]"
"""Ending of the names of files in the output folder, ComfyUI's own mark."""
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".heic")
SOUNDS = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

Step = Callable[..., None]
"""step(done, preview=None): how far a node is; raises when the user has interrupted."""


def samples_folder() -> Path | None:
    """The pack's own portraits and clips: `examples/` beside this folder, installed or cloned."""
    folder = Path(__file__).resolve().parents[1] / "examples"
    return folder if folder.is_dir() else None


def inside(base: str | os.PathLike, name: str) -> Path:
    """`name` below `base`, and never elsewhere.

    Links that the machine's owner put below `base` may lead out of it; a name may not.

    Raises:
        InputError: the name is absolute, climbs out with "..", or is no file name at all.
    """
    base = os.path.abspath(base)
    path = os.path.abspath(os.path.join(base, name)) if "\0" not in name else ""
    # a drive letter or a backslash is a plain character here and a way out on another system
    if not path.startswith(base + os.sep) or "\\" in name or re.match("[A-Za-z]:", name):
        raise InputError(f"the file name {name!r} leads out of its folder; give a name inside it")
    return Path(path)


class Host:
    """A host with three folders, a sink for notices, and weights that stay where they were loaded.

    Args:
        inputs: where names without another mark are looked up; None: nothing but samples.
        outputs: where results go.
        report: report(title, done, total) after every step; may raise to cancel.
    """

    def __init__(
        self,
        inputs: Path | None = None,
        outputs: Path | None = None,
        report: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.inputs, self.outputs, self.report = inputs, outputs, report
        self.granted: dict[str, Path] = {}
        self.notices: list[str] = []
        self.saved: list[Path] = []
        self.title = ""
        self._temporary: tempfile.TemporaryDirectory | None = None

    def input_files(self, endings: tuple[str, ...]) -> list[str]:
        """Names to choose from: the input folder's files, then the pack's samples."""
        samples = samples_folder()
        own = [f"{name}{SAMPLE}" for name in _files(samples, endings)] if samples else []
        return own + (_files(self.inputs, endings) if self.inputs else [])

    def input_path(self, name: str) -> Path:
        """The file that a name of a workflow means.

        Raises:
            InputError: it leads out of its folder or does not exist.
        """
        if name in self.granted:
            return self.granted[name]
        if name.endswith(SAMPLE):
            base = samples_folder()
            if base is None:
                raise InputError(f"this installation comes without the sample {name!r}; choose a file of your own")
            path = inside(base, name.removesuffix(SAMPLE))
        else:
            path = self._from_folders(name)
        if not path.is_file():
            raise InputError(f"there is no file {name!r} to choose; upload it or pick another")
        return path

    def _from_folders(self, name: str) -> Path:
        if name.endswith(RESULT) and self.outputs is not None:
            return inside(self.outputs, name.removesuffix(RESULT))
        if self.inputs is None:
            raise InputError(f"the file {name!r} is named, but no input folder is given")
        return inside(self.inputs, name)

    def output_path(self, prefix: str, suffix: str) -> Path:
        """A new file name under the output folder: `prefix_00001_.mp4`, counted on.

        Raises:
            InputError: the prefix leads out of the output folder.
        """
        if self.outputs is None:
            raise InputError("this workflow writes files, but no output folder is given")
        stem = inside(self.outputs, prefix or "vasa")
        stem.parent.mkdir(parents=True, exist_ok=True)
        names = (stem.with_name(f"{stem.name}_{number:05}_{suffix}") for number in itertools.count(1))
        return next(path for path in names if not path.exists())

    def output_files(self, endings: tuple[str, ...]) -> list[str]:
        """Names of results that can be chosen again, folders included, newest first."""
        if self.outputs is None or not self.outputs.is_dir():
            return []
        found = [p for p in self.outputs.rglob("*") if p.suffix.lower() in endings and not p.name.startswith(".")]
        found.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        return [f"{p.relative_to(self.outputs).as_posix()}{RESULT}" for p in found[:200]]

    def temporary_path(self, suffix: str) -> Path:
        """A new file name for something that the workflow passes on."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="vasa-")
        return Path(self._temporary.name) / self.temporary_name(suffix)

    @staticmethod
    def temporary_name(suffix: str) -> str:
        return f"vasa_{uuid.uuid4().hex}{suffix}"

    def close(self) -> None:
        """Remove what was passed on as files."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def models(self) -> dict[str, str]:
        """Names of models to choose from, and what `Vasa.from_pretrained` takes for each."""
        packaged = sorted(room("checkpoint").PACKAGED.iterdir())
        shipped = {place.name: place.name for place in packaged if (place / "face.safetensors").is_file()}
        return shipped | {name: str(place) for name, place in self.granted.items() if place.is_dir()}

    def steps(self, total: int) -> Step:
        """A callback for a piece of work of `total` steps."""

        def step(done: int, preview: Tensor | None = None) -> None:
            if self.report is not None:
                self.report(self.title, done, total)

        return step

    def notice(self, sentence: str) -> None:
        """Something that the user should see."""
        self.notices.append(sentence)

    def show(self, pictures: Tensor, node: type) -> Any:
        """What shows pictures [n, H, W, 3] under a node."""
        return None

    def places(self) -> tuple[torch.device | str, torch.device | str]:
        """Devices to compute on and to keep weights on meanwhile; "auto" leaves it to the engine."""
        return "auto", "auto"

    def precision(self, name: str, device: torch.device | str, parameters: int) -> str:
        """The engine's name of a precision, given the user's."""
        return name

    def manage(self, weights: nn.Module) -> Any:
        """Hand weights over to whoever moves them between devices."""
        return None

    def ready(self, managed: Any, memory: int, *others: Any) -> torch.device | None:
        """Bring managed weights, and those of others, to where they compute; None: they never moved."""
        return None

    def pictures(self, frames: Tensor) -> Tensor:
        """Pictures as they travel between nodes, on the device and in the precision of this host."""
        return frames


def _files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith("."))


running: ContextVar[Host] = ContextVar("running")
"""The host of the workflow that is being run in this thread; unset inside ComfyUI."""


def host() -> Host:
    """The host in charge."""
    if IN_COMFYUI:
        from .comfy_host import COMFYUI

        return COMFYUI
    return running.get(_NOBODY)


_NOBODY = Host()
