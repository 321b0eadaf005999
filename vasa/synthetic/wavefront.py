"""Wavefront OBJ files: as much of the format as ICT-FaceKit and MakeHuman use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Mesh:
    """Triangles with texture coordinates.

    Attributes:
        vertices: [V, 3] float64.
        faces: [F, 3] int64; polygons are cut into fans.
        uv: [T, 2] float64, origin at the bottom left.
        face_uv: [F, 3] int64, indices into `uv`.
        part: [F] name of the material or group of every triangle.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray
    part: np.ndarray


def read_vertices(path: Path) -> np.ndarray:
    """The vertex positions of an OBJ file, [V, 3] float64."""
    numbers = [line[2:] for line in path.read_bytes().splitlines() if line.startswith(b"v ")]
    return np.array(b" ".join(numbers).split(), dtype=np.float64).reshape(-1, 3)


def read_mesh(path: Path, part_keyword: str = "usemtl") -> Mesh:
    """Read a mesh.

    Args:
        path: the OBJ file.
        part_keyword: the statement that names the part that follows, "usemtl" or "g".

    Raises:
        InputError: a face lacks texture coordinates.
    """
    uv, faces, face_uv, parts = [], [], [], []
    part = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "vt":
            uv.append((float(words[1]), float(words[2])))
        elif words[0] == part_keyword:
            part = words[1] if len(words) > 1 else ""
        elif words[0] == "f":
            corners = [word.split("/") for word in words[1:]]
            if any(len(corner) < 2 or not corner[1] for corner in corners):
                raise InputError(f"expected texture coordinates on every face of {path}, got {line!r}; export them")
            for second in range(1, len(corners) - 1):
                fan = (corners[0], corners[second], corners[second + 1])
                faces.append([int(corner[0]) - 1 for corner in fan])
                face_uv.append([int(corner[1]) - 1 for corner in fan])
                parts.append(part)
    return Mesh(read_vertices(path), np.array(faces), np.array(uv), np.array(face_uv), np.array(parts))
