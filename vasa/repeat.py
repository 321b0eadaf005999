"""What a video made by `vasa animate` says about how it was made, so that it can be made again."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .controls import Controls
from .errors import InputError
from .io.video import read_manifest


@dataclass(frozen=True)
class Recipe:
    """How a video was made, beside the portrait and the speech.

    Attributes:
        controls: with their seed and steps.
        model: its name; of a folder, the folder's last name only.
        fps: frame rate of the video.
        crop: "auto", "none" or (x, y, size).
        face: which face.
        continues: whether it went on from a motion, which it does not carry.
    """

    controls: Controls
    model: str
    fps: float
    crop: str | tuple[float, float, float]
    face: int
    continues: bool = False


def recipe_of(path: str | os.PathLike) -> Recipe:
    """Read the recipe out of a video's metadata.

    Raises:
        InputError: no video of ours, one that was not made from speech, or by a version that kept no recipe.
    """
    manifest = read_manifest(path)
    controls = manifest.get("controls")
    if not isinstance(controls, dict) or "version" not in controls:
        raise InputError(f"{path} does not say which controls made it; give them with --controls and --seed")
    try:
        crop = manifest.get("crop", "auto")
        crop = crop if isinstance(crop, str) else tuple(float(part) for part in crop)
        if not (crop in ("auto", "none") or len(crop) == 3):
            raise ValueError("crop")
        model, fps, face = str(manifest["model"]), float(manifest["fps"]), int(manifest.get("face", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} carries a damaged manifest; give the options themselves instead") from error
    try:
        return Recipe(Controls.from_json(controls), model, fps, crop, face, manifest.get("continues") is True)
    except InputError as error:
        raise InputError(f"{path}: the controls in its metadata cannot be used: {error}") from error
