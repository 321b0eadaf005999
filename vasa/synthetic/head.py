"""Vertices of a person: one mesh of head, hair, props and torso, and its position in every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import CANONICAL_CM, HEAD_CENTRE_CM, rotation
from ..latents import EXPRESSIONS
from .anatomy import anatomy_of, face_neighbours, neck_follow
from .person import FrameLabels, HairMesh, HeadPack, Person
from .torso import build_torso

SKIN, BACK, GUMS, EYE, TEETH, HAIR, CLOTH, PROP = range(8)
"""What a face is made of, as the shader sees it."""

_KIND_OF_MATERIAL = {
    "M_Face": SKIN, "M_BackHead": BACK, "M_GumsTongue": GUMS, "M_ScleraLeft": EYE, "M_ScleraRight": EYE,
    "M_Teeth": TEETH,
}  # fmt: skip
_JAW_OPEN = EXPRESSIONS.index("jawOpen")
_TONGUE_DROP = 0.9
_UPPER_TEETH_DROP = 0.15
_MOST_BLINK = 1.5
# Of the skin's face tile.
_TEXELS_PER_CM = 24.0


@dataclass(frozen=True)
class PersonMesh:
    """Everything about a person that does not change from frame to frame.

    N vertices: V of the head, then hair and props, then the torso.

    Attributes:
        base: [N, 3] neutral positions, cm.
        expression: [57, 3 V'] expression modes of the V' head vertices.
        rest: [57].
        stretch: [V, 1] factor of the expression modes (cartoon eyes).
        follow: [N] 1 goes with the head .. 0 stays with the torso.
        torso_scale: size of the torso relative to the head.
        eye: [V] 0 none, 1 right, 2 left eyeball.
        eye_centre: [2, 3] cm.
        drop: [V, 2] how far a vertex sinks always, and with the open jaw, cm.
        static: [N, 7] eyeball direction (3), lips, inside, tongue, hair from root to tip.
        normal: [N, 3] outward unit normals at rest (only those after V are used).
        neighbours: [V, K] faces around head vertices.
        faces: [F, 3].
        kind: [F] int64, SKIN ... PROP.
        head_faces: number of faces of the head; they come first.
        uv: [F, 3, 2].
        texture: [F] index into `textures`.
        textures: RGBA pictures, [4, H, W] each.
        landmarks: [68].
    """

    base: Tensor
    expression: Tensor
    rest: Tensor
    stretch: Tensor
    follow: Tensor
    torso_scale: float
    eye: Tensor
    eye_centre: Tensor
    drop: Tensor
    static: Tensor
    normal: Tensor
    neighbours: Tensor
    faces: Tensor
    kind: Tensor
    head_faces: int
    uv: Tensor
    texture: Tensor
    textures: tuple[Tensor, ...]
    landmarks: Tensor


@dataclass(frozen=True)
class Posed:
    """Vertices of a person in T frames.

    Attributes:
        camera: [T, N, 3] cm: x right, y up in the picture plane, third the distance from the camera.
        picture: [T, N, 2] in [-1, 1], y down.
        normal: [T, N, 3] unit, x right, y up, z towards the camera.
    """

    camera: Tensor
    picture: Tensor
    normal: Tensor


def build_mesh(pack: HeadPack, person: Person, device: torch.device | str = "cpu") -> PersonMesh:
    """Join a person's head, hair, props and torso into one mesh on a device."""
    anatomy = anatomy_of(pack)
    vertices = len(pack.neutral)
    head = pack.neutral + torch.tensordot(person.shape.to(pack.neutral), pack.identity, dims=1)
    eye_centre = torch.stack([_sphere_centre(head[anatomy.eye == side]) for side in (1, 2)])
    head, stretch = _enlarge_eyes(head, eye_centre, person.eye_scale)
    direction = torch.zeros_like(head)
    for side in (1, 2):
        ball = anatomy.eye == side
        offset = head[ball] - eye_centre[side - 1]
        radius = offset.norm(dim=1, keepdim=True)
        direction[ball] = offset / radius
        # A smooth ball: the cornea's bulge is a few coarse triangles after decimation and shows as corners.
        head[ball] = eye_centre[side - 1] + direction[ball] * radius.median()

    parts = [head]
    faces = [pack.faces]
    uvs = [pack.face_uv]
    kinds = [torch.tensor([_KIND_OF_MATERIAL[name] for name in pack.materials])[pack.face_material]]
    uvs[0] = uvs[0] * torch.tensor([0.5, 1.0]) + (kinds[0] == BACK)[:, None, None] * torch.tensor([0.5, 0.0])
    textures = [F.pad(person.skin, (0, 0, 0, 0, 0, 1), value=1.0)]
    texture = [torch.zeros(len(pack.faces), dtype=torch.int64)]
    follow = [anatomy.follow]
    count = vertices
    strand = []
    for mesh in person.hair:
        parts.append(mesh.vertices.to(head))
        faces.append(mesh.faces + count)
        uvs.append(mesh.uv)
        kinds.append(torch.full((len(mesh.faces),), PROP if _is_prop(mesh) else HAIR))
        texture.append(torch.full((len(mesh.faces),), len(textures)))
        textures.append(mesh.texture)
        follow.append(neck_follow(mesh.vertices))
        strand.append(_root_to_tip(mesh.vertices))
        count += len(mesh.vertices)
    skin = pack.faces[(kinds[0] == SKIN) | (kinds[0] == BACK)]
    torso = build_torso(head, skin, anatomy.follow, person.torso)
    parts[0] = torso.head
    parts.append(torso.vertices)
    faces.append(torso.faces + count)
    uvs.append(torso.uv)
    kinds.append(torch.full((len(torso.faces),), CLOTH))
    texture.append(torch.full((len(torso.faces),), len(textures)))
    textures.append(F.pad(person.cloth, (0, 0, 0, 0, 0, 1), value=1.0))
    follow.append(torch.zeros(len(torso.vertices)))
    base, all_faces = torch.cat(parts), torch.cat(faces)
    static = torch.zeros(len(base), 7)
    static[:vertices, :3] = direction
    static[:vertices, 3] = anatomy.lips
    static[:vertices, 4] = anatomy.inside
    static[:vertices, 5] = anatomy.tongue
    if strand:
        static[vertices : vertices + sum(map(len, strand)), 6] = torch.cat(strand)
    normal = vertex_normals(base[None], all_faces, face_neighbours(all_faces, len(base)))[0]
    # Seen from ahead the open mouth shows lower side teeth above the lip like fangs unless they sink with the
    # jaw.
    side = (pack.neutral[:, 0].abs() / 2.2).clamp(0, 1) ** 1.5
    with_jaw = anatomy.tongue * _TONGUE_DROP + anatomy.lower_teeth * (0.25 + 0.75 * side)
    drop = torch.stack([anatomy.upper_teeth * _UPPER_TEETH_DROP, with_jaw], dim=1)
    mesh = PersonMesh(
        base=base,
        expression=_closing_lids(pack, head, person.rest, stretch).flatten(1),
        rest=person.rest,
        stretch=stretch,
        follow=torch.cat(follow),
        torso_scale=1.0 / person.head_scale,
        eye=anatomy.eye,
        eye_centre=eye_centre,
        drop=drop,
        static=static,
        normal=normal,
        neighbours=anatomy.neighbours,
        faces=all_faces,
        kind=torch.cat(kinds),
        head_faces=len(pack.faces),
        uv=torch.cat(uvs),
        texture=torch.cat(texture),
        textures=tuple(textures),
        landmarks=pack.landmarks,
    )
    return _moved(mesh, device)


def shrink_textures(mesh: PersonMesh, pixels_per_cm: float) -> PersonMesh:
    """Halve textures until they are no finer than the picture, so that they do not alias."""
    halvings = math.floor(math.log2(max(1.0, _TEXELS_PER_CM / pixels_per_cm)))
    if halvings == 0:
        return mesh
    return replace(mesh, textures=tuple(F.avg_pool2d(t[None], 2**halvings)[0] for t in mesh.textures))


def _moved(mesh: PersonMesh, device: torch.device | str) -> PersonMesh:
    values = {}
    for name in mesh.__dataclass_fields__:
        value = getattr(mesh, name)
        if isinstance(value, Tensor):
            value = value.to(device)
        elif isinstance(value, tuple):
            value = tuple(item.to(device) for item in value)
        values[name] = value
    return PersonMesh(**values)


def _sphere_centre(points: Tensor) -> Tensor:
    """Centre of the sphere that fits points [n, 3] best: |p|^2 = 2 p.c + const."""
    matrix = torch.cat([2 * points, torch.ones_like(points[:, :1])], dim=1)
    return torch.linalg.lstsq(matrix, (points**2).sum(1, keepdim=True)).solution[:3, 0]


def _enlarge_eyes(head: Tensor, centre: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Blow up each eye with its lids about its centre; also the factor for displacements there, [V, 1]."""
    stretch = torch.ones_like(head[:, :1])
    if scale == 1.0:
        return head, stretch
    for side in range(2):
        distance = (head - centre[side]).norm(dim=1, keepdim=True)
        growth = 1 + (scale - 1) * torch.exp(-(((distance - 2.0).clamp(min=0) / 1.6) ** 2))
        head = centre[side] + (head - centre[side]) * growth
        stretch = stretch * growth
    return head, stretch


def _closing_lids(pack: HeadPack, head: Tensor, rest: Tensor, stretch: Tensor) -> Tensor:
    """Expression modes with the blink scaled so that this head's lids meet at weight 1, [57, V, 3]."""
    expression = pack.expression.clone()
    resting = head + torch.tensordot(rest, expression, dims=1) * stretch
    for name, upper, lower in (("eyeBlink_R", (37, 38), (41, 40)), ("eyeBlink_L", (43, 44), (47, 46))):
        pairs = pack.landmarks[[*upper]], pack.landmarks[[*lower]]
        # Landmarks and shapes are sided from the person's or the camera's view; the moving lid tells which.
        names = (name, name[:-1] + ("L" if name[-1] == "R" else "R"))
        moves = [expression[EXPRESSIONS.index(n)][pairs[0]].norm() for n in names]
        mode = EXPRESSIONS.index(names[int(moves[1] > moves[0])])
        gap = (resting[pairs[0]] - resting[pairs[1]])[:, 1]
        blink = expression[mode] * stretch
        closed = (blink[pairs[1]] - blink[pairs[0]])[:, 1]
        expression[mode] *= (
            float((gap / closed.clamp(min=1e-3)).max().clamp(1.0, _MOST_BLINK)) if closed.min() > 0 else 1.0
        )
    return expression


def _is_prop(mesh: HairMesh) -> bool:
    """Whether a head-bound mesh is glasses, a hat or the like: those have small opaque textures."""
    return max(mesh.texture.shape[1:]) <= 128 and bool((mesh.texture[3] > 0.99).all())


def _root_to_tip(vertices: Tensor) -> Tensor:
    """[N] 0 at the crown .. 1 at the lowest hair."""
    y = vertices[:, 1]
    return ((y.max() - y) / 22.0).clamp(0, 1)


def vertex_normals(vertices: Tensor, faces: Tensor, neighbours: Tensor) -> Tensor:
    """Area-weighted unit normals, [T, N, 3] -> [T, M, 3] for the M vertices with a row in `neighbours`."""
    frames = len(vertices)
    corner = vertices.index_select(1, faces.flatten()).view(frames, -1, 3, 3)
    a, b, c = corner.unbind(2)
    face = F.pad(torch.linalg.cross(b - a, c - a), (0, 0, 0, 1))
    total = face.index_select(1, neighbours.flatten()).view(frames, *neighbours.shape, 3).sum(2)
    return F.normalize(total, dim=-1)


def pose_mesh(mesh: PersonMesh, labels: FrameLabels, focal: float) -> Posed:
    """Place a person's vertices in front of the camera.

    With q the canonical position, a head vertex lands at (t + s (R q)_xy) / (1 + s (R q)_z / focal); the neck
    turns by less the further down it is, the torso not at all.

    Args:
        mesh: from `build_mesh`.
        labels: T frames.
        focal: focal length over half the picture's width.
    """
    device = mesh.base.device
    pose, dynamics = labels.head_pose.to(device).float(), labels.dynamics.to(device).float()
    frames, heads = len(pose), len(mesh.eye)
    weights = (dynamics[:, : len(EXPRESSIONS)] + mesh.rest).clamp(-0.5, 1.5)
    moved = (weights @ mesh.expression).view(frames, heads, 3)
    head = mesh.base[:heads] + moved * mesh.stretch
    # Tongue and lower teeth clear the view early: a mouth that is a little open shows no scraps of them.
    jaw = (2.5 * weights[:, _JAW_OPEN]).clamp(0, 1)
    sink = mesh.drop[:, 0] + mesh.drop[:, 1] * jaw[:, None]
    head = torch.cat([head[..., :1], head[..., 1:2] - sink[..., None], head[..., 2:]], dim=-1)
    flip = torch.tensor([1.0, -1.0, -1.0], device=device)
    gaze = eye_rotation(dynamics)
    direction = mesh.static[:heads, :3]
    for side in range(2):
        ball = (mesh.eye == side + 1).nonzero().squeeze(1)
        offset = mesh.base[ball] - mesh.eye_centre[side]
        head[:, ball] = mesh.eye_centre[side] + offset @ gaze.transpose(1, 2)
    normal_head = vertex_normals(head, mesh.faces[: mesh.head_faces], mesh.neighbours)
    for side in range(2):
        ball = (mesh.eye == side + 1).nonzero().squeeze(1)
        normal_head[:, ball] = direction[ball] @ gaze.transpose(1, 2)

    centre = torch.tensor(HEAD_CENTRE_CM, device=device)
    offset = torch.cat([head, mesh.base[None, heads:].expand(frames, -1, -1)], dim=1) - centre
    normal = torch.cat([normal_head, mesh.normal[None, heads:].expand(frames, -1, -1)], dim=1)
    turn = rotation(pose[:, :3]) * flip[:, None] * flip
    follow = mesh.follow[None, :, None]
    size = torch.lerp(torch.full_like(follow, mesh.torso_scale), torch.ones_like(follow), follow)
    shift = F.pad(labels.body_shift.to(device).float() * flip[:2], (0, 1))[:, None]
    shift = shift * (CANONICAL_CM / pose[:, 5].exp())[:, None, None]
    offset = _turned(offset * size, turn, mesh.follow) + (1 - follow) * shift
    normal = _turned(normal, turn, mesh.follow)

    scale = pose[:, 5].exp()[:, None]
    nearer = 1 - offset[..., 2] * scale / (CANONICAL_CM * focal)
    # What would be behind the camera is drawn just in front of it and clipped by the picture's border.
    nearer = nearer.clamp(min=0.05)
    step = offset[..., :2] * flip[:2] * scale[..., None] / CANONICAL_CM
    picture = (pose[:, None, 3:5] + step) / nearer[..., None]
    distance = nearer * (CANONICAL_CM * focal / scale)
    plane = picture * flip[:2] * (distance / focal)[..., None]
    return Posed(torch.cat([plane, distance[..., None]], dim=-1), picture, normal)


def eye_rotation(dynamics: Tensor) -> Tensor:
    """Rotation of the eyeballs in the head's frame (pack axes), [T, 59] -> [T, 3, 3]."""
    flip = dynamics.new_tensor([1.0, -1.0, -1.0], dtype=torch.float32)
    return rotation(F.pad(dynamics[:, len(EXPRESSIONS) :], (0, 1))) * flip[:, None] * flip


def _turned(points: Tensor, turn: Tensor, amount: Tensor) -> Tensor:
    """Rotate points [T, N, 3] about the axis of `turn` [T, 3, 3] by `amount` [N] of its angle (Rodrigues)."""
    cosine = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)
    skew = (turn - turn.transpose(1, 2)) / 2
    axis = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=1)
    sine = axis.norm(dim=1)
    angle = torch.atan2(sine, cosine)
    skew = skew / sine.clamp(min=1e-7)[:, None, None]
    part = (angle[:, None] * amount)[..., None]
    once = points @ skew.transpose(1, 2)
    twice = once @ skew.transpose(1, 2)
    return points + part.sin() * once + (1 - part.cos()) * twice
