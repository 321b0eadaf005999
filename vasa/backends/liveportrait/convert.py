"""Published renderers of the LivePortrait family -> a model folder of ours.

Reads tensors only (`weights_only=True`, or safetensors), verifies every key and shape before anything is written, and
folds norms. What a file says about its origin (source hashes, licence, configuration) stays in its header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ...checkpoint import sha256
from ...errors import InputError
from ...io.files import replacing
from .config import FORMAT, RendererConfig, to_json
from .folding import folded, folds_of
from .licences import LICENCES
from .published import find_file, read_tensors
from .weights import EARS, PARTS, RETARGETING, empty

STEMS: dict[str, tuple[str, ...]] = {
    "appearance": ("appearance_feature_extractor", "appearance_extractor"),
    "motion_extractor": ("motion_extractor",),
    "warping": ("warping_module", "warp_network"),
    "decoder": ("spade_generator", "decoder"),
    RETARGETING: ("stitching_retargeting_module", "stitch_network"),
}
"""Names of the published files, LivePortrait's and its repacks', then Ditto's."""
_ROLES = {"retarget_shoulder": "stitching", "retarget_mouth": "lip", "retarget_eye": "eye"}
Report = Callable[[str], None]


def convert_renderer(
    source: Path, dest: Path, family: str = "liveportrait", config: RendererConfig | None = None,
    report: Report = lambda line: None,
) -> None:  # fmt: skip
    """Convert the networks that render.

    Args:
        source: folder that holds the published files, at any depth.
        dest: model folder, made if needed.
        family: whose they are, a name of `licences.LICENCES`.
        config: their sizes; default the published ones.
        report: told one line for every file.

    Raises:
        InputError: a file is missing, ambiguous, not readable, or not the network it should be.
    """
    config = config or RendererConfig(name=family)
    found = {part: find_file(source, stems, part != RETARGETING) for part, stems in STEMS.items()}
    made = {}
    for part, path in found.items():
        if path is None:
            report("no stitching_retargeting_module found; shoulders will not be stitched")
            continue
        state = _retargeting_of(read_tensors(path)) if part == RETARGETING else read_tensors(path)
        network = empty(part, config)
        try:
            made[part] = folded(state, network, folds_of(part, config) if part in PARTS else [])
        except ValueError as error:
            raise InputError(
                f"{path} is not the published {part.replace('_', ' ')}: it {error}; check what was downloaded"
            ) from error
        report(f"{path.name}: {sum(v.numel() for v in made[part].values()) / 1e6:.1f} M values verified")
    for part, state in made.items():
        write_part(dest, part, state, to_json(config), family, [found[part]])


def _retargeting_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """One flat dict of the three small networks, whether they came nested or with long prefixes.

    What else lies beside nested ones is not read by the published program either.
    """
    nested = {k: v for k, v in state.items() if k in _ROLES and isinstance(v, Mapping)}
    flat = {}
    for outer, value in (nested or state).items():
        inner = value if isinstance(value, Mapping) else {"": value}
        for name, tensor in inner.items():
            key = f"{outer}.{name}" if name else outer
            role = next((ours for theirs, ours in _ROLES.items() if key.startswith(theirs)), None)
            if role is None or "mlp." not in key:
                flat[key] = tensor
            else:
                flat[f"{role}.{key[key.index('mlp.') :]}"] = tensor
    return flat


def write_part(
    dest: Path, part: str, state: dict[str, Tensor], config: str, family: str, sources: list[Path | None]
) -> None:
    """Write one network with its configuration, licence and the hashes of its sources in the header.

    Args:
        dest: model folder, made if needed.
        part: stem of the file.
        state: ours.
        config: JSON.
        family: a name of `licences.LICENCES`.
        sources: the published files it was made from.
    """
    dest.mkdir(parents=True, exist_ok=True)
    name, text = LICENCES[family]
    hashes = {path.name: sha256(path) for path in sources if path is not None}
    header = {"format": FORMAT, "config": config, "licence": text, "licence_name": name, "family": family}
    path = dest / f"{part}.safetensors"
    with replacing(path) as partial:
        save_file(state, partial, metadata={**header, "sources": json.dumps(hashes, sort_keys=True)})
        partial.chmod(_usual_mode())  # safetensors makes files that nobody else may read
    licence = dest / f"LICENSE-{family}.txt"
    with replacing(licence) as partial:
        partial.write_text(text)
    listed = [f"{sha256(p)}  {p.name}" for p in sorted([*dest.glob("*.safetensors"), *dest.glob(EARS)])]
    with replacing(dest / "sha256.txt") as partial:
        partial.write_text("\n".join(listed) + "\n")


def _usual_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
