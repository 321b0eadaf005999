"""Motion on disk: one `.safetensors` file a sequence, what it is in its header, no code in it that could run.

Tensors `head_pose` [T, 6], `facial_dynamics` [T, E] and, where the motion is about a pose, `rest` [6], all float32.
The header's one entry `motion` is JSON: format, backend, model, fps, names of the dynamics channels, and whatever
the maker added (seed, controls ...).
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import InputError
from .io.files import check_writable, open_input, replacing
from .latents import DYNAMICS, POSE, Motion

FORMAT = "vasa-motion/1"
SUFFIX = ".safetensors"
MAX_BYTES = 1 << 30
"""Files beyond this are refused unread: an hour of motion takes 23 MB."""
FASTEST = 240.0
_LIMITS = (math.pi, math.pi, math.pi, 100.0, 100.0, 4.0)
"""Poses beyond these lie outside of any picture."""
_MAX_DYNAMICS = 100.0
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")


@dataclass(frozen=True)
class MotionFile:
    """A motion and what its file says about it.

    Attributes:
        motion: the sequence.
        names: meaning of the leading dynamics channels; empty where they have none.
        model: name of the model that made it, "" if unknown.
        info: everything else the maker noted, JSON values (seed, controls, history of edits ...).
    """

    motion: Motion
    names: tuple[str, ...] = ()
    model: str = ""
    info: dict[str, Any] = field(default_factory=dict)


def save_motion(
    path: str | os.PathLike, motion: Motion, *, names: tuple[str, ...] | None = None, model: str = "", **info: Any
) -> None:
    """Write a motion; the file appears only when it is complete, with the same bytes for the same motion.

    Args:
        path: file ending in .safetensors.
        motion: [T, ...].
        names: meaning of the leading dynamics channels; default those of our own small models, where they fit.
        model: which model made it.
        **info: JSON values to keep along, e.g. seed and controls.

    Raises:
        InputError: the path cannot be written, or the motion holds NaN, infinity or poses outside of any picture.
    """
    path = check_writable(path, (SUFFIX,))
    if motion.head_pose.dim() != 2 or len(motion) == 0:
        raise ValueError(f"expected a motion [T, 6], got {list(motion.head_pose.shape)}")
    channels = motion.facial_dynamics.shape[-1]
    if names is None:
        names = DYNAMICS if motion.backend == "vasa" and channels == len(DYNAMICS) else ()
    if len(names) > channels:
        raise ValueError(f"expected at most {channels} names, got {len(names)}")
    header = {
        "format": FORMAT,
        "backend": motion.backend,
        "model": model,
        "fps": motion.fps,
        "names": list(names),
        "info": info,
    }
    tensors = {"head_pose": motion.head_pose, "facial_dynamics": motion.facial_dynamics}
    if motion.rest is not None:
        tensors["rest"] = motion.rest
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    _check_values(tensors, path)
    # one entry: safetensors writes several in random order, and the same motion should be the same bytes
    data = save(tensors, {"motion": json.dumps(header, sort_keys=True, allow_nan=False)})
    with replacing(path) as partial:
        partial.write_bytes(data)


def load_motion(path: str | os.PathLike, backend: str | None = None) -> Motion:
    """The motion in a file; see `read_motion_file`."""
    return read_motion_file(path, backend).motion


def read_motion_file(path: str | os.PathLike, backend: str | None = None) -> MotionFile:
    """A motion file with everything it says.

    Args:
        path: file written by `save_motion`.
        backend: the only one that will do, e.g. "vasa"; default any.

    Raises:
        InputError: missing, a pickle, damaged, not a motion, NaN or infinite values, a wrong number of channels, or
            another backend.
    """
    data = _bytes_of(path)
    try:
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        tensors = load(data)
    except (SafetensorError, ValueError, struct.error, KeyError, OverflowError, RecursionError) as error:
        raise InputError(
            f"the motion {path} is not a readable safetensors file (damaged or cut off); save or copy it again"
        ) from error
    about = _header(header, path)
    _check_shapes(tensors, about, path)
    _check_values(tensors, path)
    if backend is not None and about["backend"] != backend:
        raise InputError(
            f"the motion {path} was made for the backend {about['backend']!r}, here {backend!r} is needed; "
            "render it with the model that made it"
        )
    motion = Motion(
        tensors["head_pose"], tensors["facial_dynamics"], float(about["fps"]), about["backend"], tensors.get("rest")
    )
    return MotionFile(motion, tuple(about["names"]), about["model"], about["info"])


def _bytes_of(path: str | os.PathLike) -> bytes:
    with open_input(path, "motion") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        # a safetensors header may be 0x80 bytes long; only the brace behind its length tells it from a pickle
        is_pickle = start[8:] != b"{" and (start[:1] == b"\x80" or start[:2] == b"PK")
        if Path(path).suffix.lower() in _PICKLES or is_pickle:
            raise InputError(
                f"the motion {path} is a pickle file, which can run code when opened; give a {SUFFIX} file"
            )
        if size > MAX_BYTES:
            raise InputError(f"the motion {path} has {size >> 20} MB, no motion of ours is that long; check the path")
        return start + file.read()


def _header(header: Any, path: str | os.PathLike) -> dict[str, Any]:
    """What the file says about itself, of the right types."""
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    try:
        about = json.loads((metadata or {}).get("motion", "null"))
    except (ValueError, TypeError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise InputError(f"{path} is a safetensors file but not a motion; give one written with --save-motion")
    if about.get("format") != FORMAT:
        raise InputError(
            f"the motion {path} has format {about.get('format')!r}, this version reads {FORMAT!r}; save it again"
        )
    about = {"backend": "", "model": "", "names": [], "info": {}} | about
    kinds = {"backend": str, "model": str, "names": list, "info": dict}
    rate = about.get("fps")
    sound = isinstance(rate, int | float) and math.isfinite(rate) and 1 <= rate <= FASTEST
    if not sound:
        raise InputError(f"the motion {path} says {rate!r} frames per second, expected 1 .. {FASTEST:.0f}")
    wrong = any(not isinstance(about[name], kind) for name, kind in kinds.items())
    if wrong or not all(isinstance(name, str) for name in about["names"]):
        raise InputError(f"the header of the motion {path} is damaged; save it again")
    # names of save_motion's own parameters are no notes of ours
    about["info"] = {k: v for k, v in about["info"].items() if k not in ("path", "motion", "names", "model")}
    return about


def _check_shapes(tensors: dict[str, Tensor], about: dict[str, Any], path: str | os.PathLike) -> None:
    pose, dynamics, rest = (tensors.get(name) for name in ("head_pose", "facial_dynamics", "rest"))
    if pose is None or dynamics is None:
        raise InputError(f"the motion {path} lacks head_pose or facial_dynamics; save it again")
    fits = (
        pose.dim() == dynamics.dim() == 2
        and pose.shape[1] == len(POSE)
        and len(pose) == len(dynamics) > 0
        and (rest is None or rest.shape == (len(POSE),))
    )
    if not fits:
        raise InputError(
            f"the motion {path} has head_pose {list(pose.shape)} and facial_dynamics {list(dynamics.shape)}; "
            f"expected [T, {len(POSE)}] and [T, E] with the same T; save it again"
        )
    if len(about["names"]) > dynamics.shape[1]:
        raise InputError(
            f"the motion {path} names {len(about['names'])} dynamics channels and has {dynamics.shape[1]}; "
            "save it again"
        )
    if any(value.dtype != torch.float32 for value in tensors.values()):
        raise InputError(f"the motion {path} is not in float32; save it again")


def _check_values(tensors: dict[str, Tensor], path: str | os.PathLike) -> None:
    for name, value in tensors.items():
        finite = torch.isfinite(value)
        if not finite.all():
            frame = int((~finite).reshape(len(value), -1).any(1).nonzero()[0])
            where = f" from frame {frame} on" if value.dim() == 2 else ""
            raise InputError(f"the motion {path} holds NaN or infinite values in {name}{where}; make it again")
    for name in ("head_pose", "rest"):
        if name in tensors and (tensors[name].abs() > torch.tensor(_LIMITS)).any():
            raise InputError(f"the motion {path} holds values in {name} far outside of any picture; make it again")
    if (tensors["facial_dynamics"].abs() > _MAX_DYNAMICS).any():
        raise InputError(f"the motion {path} holds dynamics beyond ±{_MAX_DYNAMICS:.0f}; make it again")
