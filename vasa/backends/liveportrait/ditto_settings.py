"""Ditto's published settings: what of them belongs to its motion generator and travels with its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ..pickles import read_pickle
from . import ditto
from .config import EXPRESSION_DIM, DittoConfig
from .ditto_portrait import joined, weights_told
from .keypoints import EYES

_PARTS = ("audio2motion_cfg", "default_kwargs")
_TOLD = ("use_emo", "use_eye_open", "use_eye_ball", "use_sc")
_SEEN = {
    "scale": 1, "pitch": ditto.ANGLE_BINS, "yaw": ditto.ANGLE_BINS, "roll": ditto.ANGLE_BINS, "t": 3,
    "exp": EXPRESSION_DIM,
}  # fmt: skip
"""What the motion extractor says of a picture, and how many numbers."""


@dataclass(frozen=True)
class Settings:
    """What the settings say; the defaults are those of a folder without settings.

    Attributes:
        continued: how many leading channels of the frame before a window are told as they were drawn.
        tensors: buffers of `ditto.Ditto` by name: limits of the motion (`low`, `high`), a person who is told in place
            of the portrait (`person`, `person_keypoints`, `person_eyes`), how eyes shut (`blink`), and what neutral
            stands for (`moods`).
        notes: sentences on what they hold.
    """

    continued: int = DittoConfig.continued
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_settings(path: Path) -> Settings:
    """The settings in `v0.4_hubert_cfg_*.pkl`.

    Raises:
        InputError: not readable, not Ditto's settings, or conditions switched off that are always told here.
    """
    content = read_pickle(path)
    told, defaults = (content.get(key) if isinstance(content, dict) else None for key in _PARTS)
    if not isinstance(told, dict) or not isinstance(defaults, dict):
        raise InputError(f"{path} holds no {' and '.join(_PARTS)}; it is not Ditto's settings")
    if not all(told.get(name, True) for name in _TOLD):
        missing = ", ".join(name for name in _TOLD if not told.get(name, True))
        raise InputError(f"{path} leaves out conditions ({missing}) that this version always tells the generator")
    tensors, notes = {}, []
    try:
        continued, note = _continued(defaults)
        notes += note
        if (limits := defaults.get("v_min_max_for_clip")) is not None:
            tensors |= _limits(limits)
        if (person := defaults.get("ch_info")) is not None:
            tensors |= _person(person)
            notes.append("the person in it is told in place of the portrait")
        if (blink := defaults.get("delta_eye_arr")) is not None and (shut := _shut(blink)).any():
            tensors["blink"] = shut
            notes.append("a blink")
        if (moods := defaults.get("emo")) is not None:
            tensors["moods"] = weights_told(_moods(moods))
            notes.append(f"{len(tensors['moods'])} frames of what neutral stands for")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is not Ditto's settings: it {what}; check what was downloaded") from error
    notes.insert(0, "limits of the motion" if "low" in tensors else "no limits of the motion")
    return Settings(continued, tensors, tuple(notes))


def _continued(defaults: dict[str, Any]) -> tuple[int, list[str]]:
    """Of how many channels the frame before is told; 0 begins every window anew, as in the published program."""
    every, span = int(defaults.get("fix_kp_cond") or 0), defaults.get("fix_kp_cond_dim")
    if every == 0:
        return ditto.CHANNELS, []
    notes = [] if every == 1 else [f"every window, not every {every}th, is told the face as it was at first"]
    if span is None:
        return 0, notes
    first, count = (int(x) for x in np.asarray(span).reshape(-1)[:2])
    if first != 0 or not 0 <= count <= ditto.CHANNELS:
        raise ValueError(f"continues the channels {span}, expected [0, n]")
    return count, notes


def _limits(value: Any) -> dict[str, Tensor]:
    rows = np.asarray(value, dtype=np.float32)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != ditto.CHANNELS or not np.isfinite(rows[:2]).all():
        raise ValueError(f"holds limits {list(rows.shape)}, expected two rows of {ditto.CHANNELS} numbers")
    if (rows[0] > rows[1]).any():
        raise ValueError("holds lower limits above the upper ones")
    return {name: torch.from_numpy(row.copy()) for name, row in zip(("low", "high"), rows[:2], strict=True)}


def _person(value: dict[str, Any]) -> dict[str, Tensor]:
    seen = {name: _numbers(value["x_s_info_lst"][0][name], size, name) for name, size in _SEEN.items()}
    # of a filmed person the eyes are told as they mostly are, so that no blink is told for ever
    eyes = [
        _numbers(np.concatenate(value[name], 0), size, name, rows=True).median(0).values
        for name, size in (("eye_open_lst", ditto.EYES_OPEN), ("eye_ball_lst", ditto.EYEBALLS))
    ]
    return {
        "person": joined({name: row[None] for name, row in seen.items()})[0],
        "person_keypoints": _numbers(value["sc"], EXPRESSION_DIM, "sc"),
        "person_eyes": torch.cat(eyes),
    }


def _shut(value: Any) -> Tensor:
    """Of a blink, frame by frame, the frame in which the eyes' keypoints are farthest away, [63]."""
    frames = _numbers(value, EXPRESSION_DIM, "delta_eye_arr", rows=True).unflatten(-1, (-1, 3))
    eyes = torch.zeros_like(frames)
    eyes[:, list(EYES)] = frames[:, list(EYES)]
    eyes = eyes.flatten(1)
    return eyes[eyes.norm(dim=1).argmax()]


def _numbers(value: Any, size: int, name: str, rows: bool = False) -> Tensor:
    array = np.asarray(value, dtype=np.float32)
    if array.size == 0 or (array.size % size if rows else array.size != size) or not np.isfinite(array).all():
        raise ValueError(f"holds {name} {list(array.shape)}, expected {size} numbers")
    return torch.from_numpy(array.reshape((-1, size) if rows else size).copy())


def _moods(value: Any) -> Tensor:
    """Rows as the generator is told them, [N, 8]: an array of them, or classes, one or several for all frames."""
    if isinstance(value, np.ndarray) and value.ndim == 2:
        return _numbers(value, ditto.EMOTIONS, "emo", rows=True)
    frames = value if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple) else [value]
    sharp = torch.zeros(len(frames), ditto.EMOTIONS)
    for row, classes in zip(sharp, frames, strict=True):
        for one in classes if isinstance(classes, list | tuple) else [classes]:
            if not 0 <= int(one) < ditto.EMOTIONS:
                raise ValueError(f"holds the emotion {one}, expected 0 to {ditto.EMOTIONS - 1}")
            row[int(one)] = 8.0
    return sharp.softmax(-1)
