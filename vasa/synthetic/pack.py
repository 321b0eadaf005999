"""Build the asset pack from copies of the upstream repositories.

Heads come from ICT-FaceKit (MIT licence, USC Institute for Creative Technologies), skins and hair from MakeHuman's
assets (CC0). The pack belongs to whoever built it; it is never part of this repository. Needs SciPy and Pillow.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..latents import EXPRESSIONS
from .assets import HAIR_FILE, HEAD_FILE, SKIN_FILE
from .decimate import decimate, seam_vertices
from .surface_map import fill_holes, rasterise_uv
from .transfer import find, fit_warp, is_picture, read_hair, transfer_skins
from .wavefront import Mesh, read_mesh, read_vertices

MATERIALS = ("M_BackHead", "M_Face", "M_GumsTongue", "M_ScleraLeft", "M_ScleraRight", "M_Teeth")
VERTICES = 7000
_POSES = ("jawOpen", "mouthPucker", "eyeBlink_L eyeBlink_R", "mouthSmile_L mouthSmile_R", "mouthFunnel")
_FACE_WEIGHT, _TEETH_WEIGHT, _BACK_WEIGHT, _INNER_WEIGHT = 25.0, 4.0, 1.0, 0.2
_IDENTITIES = 100
_HAIR_PIXELS, _JPEG_QUALITY = 512, 90


def build_pack(ict: str | Path, makehuman: str | Path, out: str | Path, vertices: int = VERTICES) -> None:
    """Write the three files of an asset pack.

    Args:
        ict: folder of ICT-FaceKit; its FaceXModel folder lies somewhere below.
        makehuman: folder with MakeHuman's base.obj, macro targets, skins and hair anywhere below, such as one that
            holds clones of `makehuman` and `makehuman-assets` with their Git LFS files.
        out: folder for the pack; it is made when missing.
        vertices: of the head, after decimation.

    Raises:
        InputError: a file is missing, or all skins or hair textures are Git LFS pointers.
    """
    model = find(Path(ict), "generic_neutral_mesh.obj").parent
    whole = read_mesh(model / "generic_neutral_mesh.obj")
    kept = np.isin(whole.part, MATERIALS)
    mesh = Mesh(whole.vertices, whole.faces[kept], whole.uv, whole.face_uv[kept], whole.part[kept])
    skin = mesh.faces[np.isin(mesh.part, ("M_Face", "M_BackHead"))]
    warp = fit_warp(Path(makehuman), mesh.vertices, skin)
    skins = transfer_skins(warp, _texel_positions(mesh), _skin_files(Path(makehuman)))
    hair = _hair_arrays(Path(makehuman), warp)
    head = _head_arrays(model, mesh, vertices)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / HEAD_FILE, **head)
    np.savez(out / SKIN_FILE, **{name: _encoded(pixels, "JPEG") for name, pixels in skins.items()})
    np.savez_compressed(out / HAIR_FILE, **hair)


def _head_arrays(model: Path, mesh: Mesh, vertices: int) -> dict[str, np.ndarray]:
    """Decimate the head and index all its shapes."""
    missing = [name for name in EXPRESSIONS if not (model / f"{name}.obj").is_file()]
    if missing:
        raise InputError(f"expected {missing[0]}.obj in {model}, found none; give a complete copy of ICT-FaceKit")
    expression = np.stack([read_vertices(model / f"{name}.obj") - mesh.vertices for name in EXPRESSIONS])
    landmarks = np.array(json.loads((model / "vertex_indices.json").read_text())["idx_to_landmark_verts"])
    poses = [mesh.vertices]
    for names in _POSES:
        poses.append(mesh.vertices + sum(expression[EXPRESSIONS.index(name)] for name in names.split()))
    locked = seam_vertices(mesh.faces, mesh.face_uv, len(mesh.vertices))
    locked[landmarks] = True
    chosen, faces, face_uv, origin = decimate(
        np.stack(poses), mesh.faces, mesh.face_uv, _importance(mesh), locked, vertices
    )
    identity = [
        read_vertices(model / f"identity{number:03d}.obj")[chosen] - mesh.vertices[chosen]
        for number in range(_IDENTITIES)
    ]
    return {
        "neutral": mesh.vertices[chosen].astype(np.float32),
        "identity": np.stack(identity).astype(np.float16),
        "expression": expression[:, chosen].astype(np.float16),
        "expression_names": np.array(EXPRESSIONS),
        "faces": faces.astype(np.uint16),
        "face_uv": _within_tile(mesh.uv[face_uv]).astype(np.float16),
        "face_material": np.array([MATERIALS.index(name) for name in mesh.part[origin]], dtype=np.uint8),
        "material_names": np.array(MATERIALS),
        "source_vertex": chosen.astype(np.int32),
        "landmarks68": np.searchsorted(chosen, landmarks).astype(np.uint16),
    }


def _importance(mesh: Mesh) -> np.ndarray:
    """How much a triangle's shape matters: the face most, what is hardly ever seen least, [F]."""
    middle = mesh.vertices[mesh.faces].mean(1)
    front = (middle[:, 2] > 2.0) & (middle[:, 1] > -9.0)
    weight = np.full(len(mesh.faces), _BACK_WEIGHT)
    weight[(mesh.part == "M_Face") & front] = _FACE_WEIGHT
    weight[(mesh.part == "M_BackHead") & front] = _INNER_WEIGHT
    weight[mesh.part == "M_GumsTongue"] = _INNER_WEIGHT
    weight[np.isin(mesh.part, ("M_Teeth", "M_ScleraLeft", "M_ScleraRight"))] = _TEETH_WEIGHT
    return weight


def _texel_positions(mesh: Mesh) -> np.ndarray:
    """Point of the head behind every texel of face tile | back-of-head tile, [TILE, 2 TILE, 3] cm."""
    tiles = []
    for name in ("M_Face", "M_BackHead"):
        own = mesh.part == name
        uv = _within_tile(mesh.uv[mesh.face_uv[own]])
        uv[..., 1] = 1 - uv[..., 1]
        values, inside = rasterise_uv(torch.from_numpy(uv), torch.from_numpy(mesh.vertices[mesh.faces[own]]))
        tiles.append(fill_holes(values, inside))
    return torch.cat(tiles, dim=2).permute(1, 2, 0).double().numpy()


def _within_tile(uv: np.ndarray) -> np.ndarray:
    """Corners of triangles [F, 3, 2] that lie in tiles beside each other (UDIM), moved to [0, 1]."""
    return uv - np.floor(uv.mean(1, keepdims=True))


def _skin_files(makehuman: Path) -> dict[str, Path]:
    """Natural skins by name; pointers to pictures that were not fetched are left out."""
    found = sorted(makehuman.rglob("*skinned_*_diffuse*.png"))
    pictures = {path.stem: path for path in found if is_picture(path) and path.parent.name == "textures"}
    if not pictures:
        raise InputError(
            f"expected skins such as textures/young_lightskinned_male_diffuse.png in {makehuman}, found "
            f"{len(found)} Git LFS pointers; run `git lfs pull` there"
        )
    return pictures


def _hair_arrays(makehuman: Path, warp) -> dict[str, np.ndarray]:
    """Hair styles that have their texture."""
    from PIL import Image

    arrays = {}
    for path in sorted(makehuman.rglob("hair/*/*.mhclo")):
        if f"{path.stem}_v" in arrays or not path.with_suffix(".obj").is_file():
            continue
        mesh, texture = read_hair(path, warp)
        if not is_picture(texture):
            continue
        with Image.open(texture) as picture:
            small = picture.convert("RGBA").resize((_HAIR_PIXELS, _HAIR_PIXELS), Image.Resampling.LANCZOS)
        arrays[f"{path.stem}_png"] = _encoded(np.asarray(small), "PNG")
        arrays[f"{path.stem}_v"] = mesh.vertices.astype(np.float16)
        arrays[f"{path.stem}_F"] = mesh.faces.astype(np.uint16)
        arrays[f"{path.stem}_uv"] = mesh.uv[mesh.face_uv].astype(np.float16)
    if not arrays:
        raise InputError(f"expected hair styles with textures in {makehuman}, found none; run `git lfs pull` there")
    return arrays


def _encoded(pixels: np.ndarray, kind: str) -> np.ndarray:
    """The bytes of a picture file, [n] uint8."""
    from PIL import Image

    store = io.BytesIO()
    Image.fromarray(pixels).save(store, format=kind, quality=_JPEG_QUALITY)
    return np.frombuffer(store.getvalue(), dtype=np.uint8)
