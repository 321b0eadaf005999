"""Read an asset pack: head, skins and hair, or the formula head when there is none."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..latents import EXPRESSIONS
from .person import HairMesh, HeadPack

HEAD_FILE = "ict_face_pack.npz"
SKIN_FILE = "mh_skins_ict_uv_jpg.npz"
HAIR_FILE = "mh_hair_ict_space.npz"

_INNER_LIP_PAIRS = ((61, 67), (62, 66), (63, 65))


def load_pack(folder: str | Path | None = None) -> HeadPack:
    """Load the head that people are made from.

    Args:
        folder: an asset pack; None takes the folder named by the environment variable VASA_ASSETS, and
            without that the formula head, which needs no files.

    Raises:
        InputError: the folder lacks a file of the pack, or its arrays are not what a pack holds.
    """
    if folder is None:
        folder = os.environ.get("VASA_ASSETS")
    if not folder:
        from .formula import formula_pack

        return formula_pack()
    folder = Path(folder)
    for name in (HEAD_FILE, SKIN_FILE, HAIR_FILE):
        if not (folder / name).is_file():
            raise InputError(
                f"expected an asset pack with {name} in {folder}, found no such file; give the folder "
                "that the pack builder wrote, or unset VASA_ASSETS to use the formula head"
            )
    pack = _read_head(folder / HEAD_FILE)
    return replace(pack, skins=_read_skins(folder / SKIN_FILE), hair=_read_hair(folder / HAIR_FILE))


def _read_head(path: Path) -> HeadPack:
    with np.load(path, allow_pickle=False) as arrays:
        names = tuple(str(name) for name in arrays["expression_names"])
        if set(names) != set(EXPRESSIONS):
            raise InputError(
                f"expected the {len(EXPRESSIONS)} expressions of vasa.latents in {path}, got {len(names)} "
                "other names; rebuild the asset pack"
            )
        expression = torch.from_numpy(arrays["expression"].astype(np.float32))
        expression = expression[[names.index(name) for name in EXPRESSIONS]]
        face_uv = torch.from_numpy(arrays["face_uv"].astype(np.float32))
        face_uv[..., 1] = 1.0 - face_uv[..., 1]
        pack = HeadPack(
            neutral=torch.from_numpy(arrays["neutral"].astype(np.float32)),
            identity=torch.from_numpy(arrays["identity"].astype(np.float32)),
            expression=expression,
            faces=torch.from_numpy(arrays["faces"].astype(np.int64)),
            face_uv=face_uv,
            face_material=torch.from_numpy(arrays["face_material"].astype(np.int64)),
            materials=tuple(str(name) for name in arrays["material_names"]),
            landmarks=torch.from_numpy(arrays["landmarks68"].astype(np.int64)),
            skins={},
            hair={},
        )
    return replace(pack, landmarks=_separate_inner_lips(pack))


def _separate_inner_lips(pack: HeadPack) -> Tensor:
    """Landmarks with a vertex of its own for either lip where decimation left one vertex for both.

    The lips meet at rest, so only how far the opening jaw carries a vertex tells them apart.
    """
    jaw = pack.expression[EXPRESSIONS.index("jawOpen"), :, 1]
    on_face = torch.zeros(len(pack.neutral), dtype=torch.bool)
    on_face[pack.faces[pack.face_material == pack.materials.index("M_Face")].flatten()] = True
    halfway = (jaw[pack.landmarks[51]] + jaw[pack.landmarks[57]]) / 2
    landmarks = pack.landmarks.clone()
    for upper, lower in _INNER_LIP_PAIRS:
        if landmarks[upper] != landmarks[lower]:
            continue
        distance = (pack.neutral - pack.neutral[landmarks[upper]]).norm(dim=1)
        far = torch.full_like(distance, torch.inf)
        landmarks[upper] = torch.where(on_face & (jaw > halfway), distance, far).argmin()
        landmarks[lower] = torch.where(on_face & (jaw <= halfway), distance, far).argmin()
    return landmarks


def _decode(data: np.ndarray, mode: str) -> Tensor:
    """Image bytes -> [C, H, W] in [0, 1]."""
    from PIL import Image

    with Image.open(io.BytesIO(data.tobytes())) as image:
        pixels = np.array(image.convert(mode))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255.0).contiguous()


def _read_skins(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name.removesuffix("_jpg"): _decode(arrays[name], "RGB") for name in arrays.files}


def _read_hair(path: Path) -> dict[str, HairMesh]:
    with np.load(path, allow_pickle=False) as arrays:
        styles = sorted(name.removesuffix("_png") for name in arrays.files if name.endswith("_png"))
        meshes = {}
        for style in styles:
            uv = torch.from_numpy(arrays[f"{style}_uv"].astype(np.float32))
            uv[..., 1] = 1.0 - uv[..., 1]
            meshes[style] = HairMesh(
                vertices=torch.from_numpy(arrays[f"{style}_v"].astype(np.float32)),
                faces=torch.from_numpy(arrays[f"{style}_F"].astype(np.int64)),
                uv=uv,
                texture=_decode(arrays[f"{style}_png"], "RGBA"),
            )
    return meshes
