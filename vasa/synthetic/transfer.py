"""From MakeHuman's head to another head: a warp, its skins as textures of the other layout, its hair.

The warp is a linear radial-basis map through points that mean the same on both heads, then some rounds in which
MakeHuman's surface is pulled onto the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .wavefront import Mesh, read_mesh

# (vertex of MakeHuman's base mesh, vertex of ICT-FaceKit's neutral mesh) at the same place of the face.
SAME_PLACES = (
    (5211, 962), (7601, 5052), (343, 1147), (1064, 1507), (6757, 1575), (54, 1537), (6764, 2235),
    (6771, 591), (4859, 859), (13360, 2866), (13359, 3751), (11467, 3242), (6805, 3721), (13373, 3101),
    (13367, 2832), (425, 5927), (455, 171), (7182, 6432), (496, 5934), (5352, 5662), (11953, 6200),
    (7233, 6331), (478, 5826), (523, 5517), (133, 971), (358, 1139), (7119, 3359), (5174, 751),
    (11818, 3678), (176, 309), (6954, 4177), (871, 1798), (11846, 4083), (7546, 11231), (7668, 9957),
    (5557, 9474), (7017, 8697), (5231, 8284), (10361, 9257), (5182, 2096), (657, 12155), (7642, 9828),
    (7690, 9237), (10410, 2533), (932, 8147), (5262, 1754), (7001, 4330), (5333, 2215), (5439, 7619),
    (11796, 3845), (10413, 4106), (3696, 1841), (250, 8248), (11713, 3986), (11667, 4410), (11863, 3561),
    (973, 8376), (12002, 8442), (7704, 8720), (257, 224), (5763, 7451), (5213, 799), (181, 2006),
    (11779, 3657), (5251, 88), (230, 2021), (213, 1155), (190, 994), (8043, 13621), (12053, 6759),
    (12067, 6752), (5744, 10635), (7672, 8599), (6951, 4196), (6987, 4150), (5064, 949), (12016, 6892),
    (231, 1909), (6997, 4220), (5057, 4767), (5767, 8176), (11746, 5218), (5060, 1131), (485, 454),
    (7454, 2685), (5246, 1893), (1005, 9415), (6961, 2976), (11840, 8557), (900, 413), (7602, 2654),
    (721, 397), (6972, 4354), (11857, 4340), (169, 2012), (7611, 4481), (10412, 2574), (6978, 3198),
    (218, 39), (6930, 2362), (7634, 7420), (154, 98), (6940, 5396), (12195, 6890), (7065, 5488),
    (5651, 8109), (155, 1412), (11882, 9763), (146, 43), (5216, 767),
)  # fmt: skip
_MEAN_OF = tuple(f"{people}-{sex}-young" for people in ("african", "asian", "caucasian") for sex in ("female", "male"))
_ROUNDS, _PULL, _NEIGHBOURS = 4, 0.7, 12
_REACH_CM = 1.0
_STEPS = 5


@dataclass(frozen=True)
class Warp:
    """MakeHuman's mean head, and the same head in the other's space.

    Attributes:
        mesh: the base mesh with its texture layout; only the faces of the head.
        mean: [V, 3] mean of six young adults in MakeHuman's units.
        warped: [V, 3] cm, vertices that the head uses lie on the other head.
        head: indices of the vertices that the head uses.
    """

    mesh: Mesh
    mean: np.ndarray
    warped: np.ndarray
    head: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Carry points near the mean head along with its surface, [n, 3] -> [n, 3] cm."""
        from scipy.spatial import cKDTree

        linear = _affine(self.mean[self.head], self.warped[self.head])
        rest = self.warped[self.head] - _extend(self.mean[self.head]) @ linear
        distance, near = cKDTree(self.mean[self.head]).query(points, k=min(8, len(self.head)))
        weight = 1 / (distance + 1e-3) ** 2
        weight = weight / weight.sum(1, keepdims=True)
        return _extend(points) @ linear + (rest[near] * weight[..., None]).sum(1)


def fit_warp(makehuman: Path, neutral: np.ndarray, faces: np.ndarray) -> Warp:
    """Lay MakeHuman's mean head over another.

    Args:
        makehuman: folder with base.obj and the macro targets anywhere below it.
        neutral: vertices of ICT-FaceKit's neutral mesh, [V, 3] cm.
        faces: its skin, [F, 3].
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.spatial import cKDTree

    body = read_mesh(find(makehuman, "base.obj"), "g")
    mean = body.vertices.copy()
    for name in _MEAN_OF:
        index, offset = _read_target(find(makehuman, f"{name}.target"))
        mean[index] += offset / len(_MEAN_OF)
    own, other = np.array(SAME_PLACES).T
    warped = RBFInterpolator(mean[own], neutral[other], kernel="linear", degree=1)(mean)
    chosen = (body.part == "body") & (warped[body.faces, 1].min(1) > neutral[faces, 1].min() - 1)
    mesh = Mesh(mean, body.faces[chosen], body.uv, body.face_uv[chosen], body.part[chosen])
    head = np.unique(mesh.faces)
    surface, direction = _sampled(neutral, faces)
    tree = cKDTree(surface)
    _, around = cKDTree(mean[head]).query(mean[head], k=_NEIGHBOURS)
    for _ in range(_ROUNDS):
        normal = _normals(warped, mesh.faces)[head]
        distance, near = tree.query(warped[head])
        facing = (normal * direction[near]).sum(1) > 0.2
        pull = np.where((facing & (distance < _REACH_CM))[:, None], surface[near] - warped[head], 0.0)
        warped[head] += _PULL * pull[around].mean(1)
    return Warp(mesh, mean, warped, head)


def transfer_skins(warp: Warp, positions: np.ndarray, files: dict[str, Path]) -> dict[str, np.ndarray]:
    """Paint MakeHuman's skins into another texture layout.

    Args:
        warp: from `fit_warp`.
        positions: point of the other head behind every texel, [H, W, 3] cm.
        files: name -> picture.

    Returns:
        name -> [H, W, 3] uint8.
    """
    from PIL import Image
    from scipy.ndimage import map_coordinates
    from scipy.spatial import cKDTree

    corner, uv = warp.warped[warp.mesh.faces], warp.mesh.uv[warp.mesh.face_uv]
    weights = np.array(
        [(i, j, _STEPS - i - j) for i in range(_STEPS + 1) for j in range(_STEPS + 1 - i)]
    ) / _STEPS  # fmt: skip
    samples = np.einsum("sk,fkc->fsc", weights, corner).reshape(-1, 3)
    places = np.einsum("sk,fkc->fsc", weights, uv).reshape(-1, 2)
    _, near = cKDTree(samples).query(positions.reshape(-1, 3))
    x, y = places[near, 0], 1 - places[near, 1]
    skins = {}
    for name, path in files.items():
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
        at = np.stack([y * pixels.shape[0] - 0.5, x * pixels.shape[1] - 0.5])
        planes = [map_coordinates(pixels[..., k], at, order=1, mode="nearest") for k in range(3)]
        skins[name] = np.stack(planes, axis=-1).reshape(positions.shape).clip(0, 255).round().astype(np.uint8)
    return skins


def read_hair(path: Path, warp: Warp) -> tuple[Mesh, Path]:
    """A style bound to the mean head, warped, and its texture's file.

    Args:
        path: the .mhclo file; its mesh and material lie beside it.

    Raises:
        InputError: its mesh or material is missing or has another number of vertices.
    """
    words = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    named = {line[0]: line[1] for line in words if len(line) > 1}
    scale = np.ones(3)
    bound, started = [], False
    for line in words:
        if not line:
            continue
        if line[0] in ("x_scale", "y_scale", "z_scale"):
            axis = "xyz".index(line[0][0])
            first, second = warp.mean[[int(line[1]), int(line[2])], axis]
            scale[axis] = abs(first - second) / float(line[3])
        started = started or line[0] == "verts"
        if started and line[0].isdigit():
            bound.append(line)
    vertices = np.array([_bound(line, warp.mean, scale) for line in bound])
    mesh = read_mesh(find(path.parent, named.get("obj_file", path.with_suffix(".obj").name)), "g")
    if len(vertices) != len(mesh.vertices):
        raise InputError(
            f"expected {len(mesh.vertices)} bound vertices in {path}, got {len(vertices)}; use matching versions"
        )
    material = find(path.parent, named.get("material", path.with_suffix(".mhmat").name))
    lines = [line.split() for line in material.read_text(encoding="utf-8", errors="replace").splitlines()]
    texture = next((line[1] for line in lines if len(line) > 1 and line[0] == "diffuseTexture"), "")
    return Mesh(warp.apply(vertices), mesh.faces, mesh.uv, mesh.face_uv, mesh.part), path.parent / texture


def find(folder: Path, name: str) -> Path:
    """The first file of a name below a folder."""
    found = sorted(folder.rglob(Path(name).name))
    if not found:
        raise InputError(f"expected {name} somewhere in {folder}, found none; give the folder of the whole repository")
    return found[0]


def is_picture(path: Path) -> bool:
    """Whether a file is a picture rather than a Git LFS pointer to one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1")


def _bound(words: list[str], mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A point given by one vertex, or by three with weights and an offset."""
    if len(words) < 9:
        return mean[int(words[0])]
    corners, weights = mean[[int(w) for w in words[:3]]], np.array(words[3:6], dtype=float)
    return weights @ corners + scale * np.array(words[6:9], dtype=float)


def _read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertex indices [n] and offsets [n, 3] of a MakeHuman target."""
    rows = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    rows = [row for row in rows if len(row) == 4 and not row[0].startswith("#")]
    return np.array([int(row[0]) for row in rows]), np.array([row[1:] for row in rows], dtype=np.float64)


def _sampled(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points on a surface and their unit normals: corners, edge middles and centres of all triangles."""
    weights = np.array(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [1 / 3] * 3]
    )  # fmt: skip
    normal = _normals(vertices, faces)[faces]
    points = np.einsum("sk,fkc->fsc", weights, vertices[faces]).reshape(-1, 3)
    normal = np.einsum("sk,fkc->fsc", weights, normal).reshape(-1, 3)
    return points, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit vertex normals, [V, 3]."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, faces[:, k], face)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _extend(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The affine map [4, 3] that carries source points to target points best."""
    return np.linalg.lstsq(_extend(source), target, rcond=None)[0]
