"""Published files: found by name in a folder, and read as tensors alone."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...errors import InputError

_WEIGHTS = (".safetensors", ".pth", ".pt")


def find_file(
    source: Path, stems: tuple[str, ...], needed: bool = True, suffixes: tuple[str, ...] = _WEIGHTS
) -> Path | None:
    """The one file of these names below a folder."""
    if not source.is_dir():
        raise InputError(f"the source {source} is not a folder; give the one that holds the published files")
    for suffix in suffixes:
        hits = sorted({path for stem in stems for path in source.rglob(f"{stem}{suffix}") if path.is_file()})
        # the packages hold two families side by side; people come first
        people = [path for path in hits if "animal" not in str(path.relative_to(source)).lower()]
        hits = people or hits
        if len(hits) > 1:
            names = ", ".join(str(path.relative_to(source)) for path in hits[:3])
            raise InputError(f"{source} holds several files that fit ({names}); give the folder of one of them")
        if hits:
            return hits[0]
    if needed:
        raise InputError(f"{source} holds no {stems[0]}{' or '.join(suffixes)}; check the source folder")
    return None


_PATHS = [(PurePosixPath, "pathlib.PosixPath"), (PureWindowsPath, "pathlib.WindowsPath")]


def read_tensors(path: Path) -> dict[str, Any]:
    """The state dict in a .safetensors, .pth or .pt file; nothing in it is run.

    Raises:
        InputError: damaged, or with anything but tensors in it.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # training writes its argument namespace beside the weights; it holds plain values and paths, which are read
        # as names only, whatever the system
        with torch.serialization.safe_globals([argparse.Namespace, *_PATHS]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} cannot be read as weights alone ({reason}); it was not opened further, because such files can "
            "run code; download it again from its makers"
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}, expected named tensors; check the path")
    return dict(state)
