"""What the renderer knows about a head beyond its arrays: lips, eyeballs, tongue, the mouth's inside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .person import HeadPack


@dataclass(frozen=True)
class Anatomy:
    """Facts about a pack's mean head.

    Attributes:
        follow: [V] how much a vertex goes with the head, 1 (head) .. 0 (torso).
        eye: [V] 0 none, 1 the right eyeball (left in the picture), 2 the left eyeball.
        lips: [V] 0..1.
        inside: [V] 0..1, skin of the mouth's and the eye sockets' inner walls.
        upper_teeth, lower_teeth, tongue: [V] 0..1.
        neighbours: [V, N] faces around a vertex, padded with F (a face without area).
    """

    follow: Tensor
    eye: Tensor
    lips: Tensor
    inside: Tensor
    upper_teeth: Tensor
    lower_teeth: Tensor
    tongue: Tensor
    neighbours: Tensor


_CACHE: WeakIdKeyDictionary = WeakIdKeyDictionary()


def anatomy_of(pack: HeadPack) -> Anatomy:
    """The anatomy of a pack, computed once per pack."""
    if pack.neutral not in _CACHE:
        _CACHE[pack.neutral] = _study(pack)
    return _CACHE[pack.neutral]


def neck_follow(vertices: Tensor) -> Tensor:
    """How much points of the neutral head [..., 3] go with the head: 1 above the throat, 0 at the shoulders.

    The border slopes: the throat under the chin bends at a greater height than the nape.
    """
    height = vertices[..., 1] + 0.25 * vertices[..., 2].clamp(-8, 12)
    x = ((height + 14.5) / 8.0).clamp(0, 1)
    return x * x * (3 - 2 * x)


def vertices_of(pack: HeadPack, material: str) -> Tensor:
    """[V] bool: vertices that a material's faces use."""
    mask = torch.zeros(len(pack.neutral), dtype=torch.bool, device=pack.neutral.device)
    if material in pack.materials:
        mask[pack.faces[pack.face_material == pack.materials.index(material)].flatten()] = True
    return mask


def face_neighbours(faces: Tensor, vertices: int) -> Tensor:
    """[V, N] the faces around each vertex, padded with the number of faces."""
    corner = faces.flatten()
    order = corner.argsort(stable=True)
    owner = corner[order]
    counts = torch.bincount(corner, minlength=vertices)
    place = torch.arange(len(corner), device=faces.device) - (counts.cumsum(0) - counts)[owner]
    table = torch.full((vertices, int(counts.max())), len(faces), dtype=torch.int64, device=faces.device)
    table[owner, place] = order // 3
    return table


def _study(pack: HeadPack) -> Anatomy:
    neutral = pack.neutral
    eye = vertices_of(pack, "M_ScleraRight").long()
    eye = torch.where(vertices_of(pack, "M_ScleraLeft"), 2, eye)
    # Packs name the eyes from the person's view or from the camera's: the side in the picture decides.
    eye = torch.where(eye > 0, torch.where(neutral[:, 0] < 0, 1, 2), 0)
    teeth, gums = vertices_of(pack, "M_Teeth"), vertices_of(pack, "M_GumsTongue")
    skin = vertices_of(pack, "M_Face")
    component = _components(pack.faces, len(neutral))
    moved = pack.expression.abs().amax((0, 2))
    jaw_drop = torch.zeros(len(neutral), device=neutral.device).scatter_reduce(0, component, moved, "amax")[component]
    lower = teeth & (jaw_drop > 0.3)
    # Skin also hides behind the jaw and the ears: only what is near the mouth and the eyes is inner.
    marks = neutral[pack.landmarks]
    corners = marks[[48, 54]]
    height = neutral[:, 1] - corners[:, 1].mean()
    in_mouth = (neutral[:, 0].abs() < corners[1, 0] + 1.3) & (height > -3.0) & (height < 2.5)
    eyes = torch.stack([marks[36:42].mean(0), marks[42:48].mean(0)])
    in_socket = torch.cdist(neutral, eyes).amin(1) < 2.6
    face = pack.faces[pack.face_material == pack.materials.index("M_Face")]
    covered = _covered(neutral, face, skin & (in_mouth | in_socket))
    return Anatomy(
        follow=neck_follow(neutral),
        eye=eye,
        lips=_lips(pack) * skin.float() * (1 - covered),
        inside=covered,
        upper_teeth=(teeth & ~lower).float(),
        lower_teeth=lower.float(),
        tongue=_tongue(pack, gums & (moved > 1.0)),
        neighbours=face_neighbours(pack.faces, len(neutral)),
    )


def _components(faces: Tensor, vertices: int) -> Tensor:
    """[V] the smallest vertex index of each vertex's connected part."""
    label = torch.arange(vertices, device=faces.device)
    corner = faces.flatten()
    while True:
        least = label[faces].amin(1).repeat_interleave(3)
        after = label.scatter_reduce(0, corner, least, "amin")
        after = torch.minimum(after, after[after])
        if torch.equal(after, label):
            return label
        label = after


def _covered(neutral: Tensor, faces: Tensor, mask: Tensor) -> Tensor:
    """[V] 0..1, vertices of the mask with skin well in front of them, seen from straight ahead."""
    chosen = mask.nonzero().squeeze(1)
    point = neutral[chosen]
    corner = neutral[faces]
    low, high = point[:, :2].amin(0), point[:, :2].amax(0)
    near = (corner[..., :2].amin(1) <= high).all(1) & (corner[..., :2].amax(1) >= low).all(1)
    corner = corner[near]
    depth = torch.full((len(chosen),), -torch.inf, device=neutral.device)
    a, b, c = (corner[None, :, i] for i in range(3))
    area = (b - a)[..., 0] * (c - a)[..., 1] - (c - a)[..., 0] * (b - a)[..., 1]
    area = torch.where(area.abs() < 1e-8, torch.full_like(area, torch.inf), area)
    for start in range(0, len(chosen), 256):
        p = point[start : start + 256, None]
        v = ((p - a)[..., 0] * (c - a)[..., 1] - (c - a)[..., 0] * (p - a)[..., 1]) / area
        w = ((b - a)[..., 0] * (p - a)[..., 1] - (p - a)[..., 0] * (b - a)[..., 1]) / area
        hit = (v >= 0) & (w >= 0) & (v + w <= 1) & torch.isfinite(area)
        z = torch.where(hit, a[..., 2] + v * (b - a)[..., 2] + w * (c - a)[..., 2], -torch.inf)
        depth[start : start + 256] = z.amax(1)
    result = torch.zeros(len(neutral), device=neutral.device)
    result[chosen] = ((depth - point[:, 2] - 0.25) / 0.5).clamp(0, 1)
    return result


def _lips(pack: HeadPack) -> Tensor:
    """[V] 1 between the outer line of the lips and the mouth, seen from straight ahead."""
    outline = pack.neutral[pack.landmarks[48:60], :2]
    following = outline.roll(-1, 0)
    x, y = pack.neutral[:, None, 0], pack.neutral[:, None, 1]
    rises = (outline[:, 1] > y) != (following[:, 1] > y)
    span = following[:, 1] - outline[:, 1]
    span = torch.where(span.abs() < 1e-6, torch.full_like(span, 1e-6), span)
    crossing = outline[:, 0] + (y - outline[:, 1]) / span * (following[:, 0] - outline[:, 0])
    inside = ((rises & (x < crossing)).sum(1) % 2).bool()
    close_by = pack.neutral[:, 2] > pack.neutral[pack.landmarks[48], 2] - 1.0
    on_outline = torch.zeros_like(inside)
    on_outline[pack.landmarks[48:60]] = True
    return (inside & close_by).float() * torch.where(on_outline, 0.5, 1.0)


def _tongue(pack: HeadPack, gums: Tensor) -> Tensor:
    """[V] 0..1 by how far a gum vertex is from the row of teeth, towards the middle of the mouth."""
    teeth = pack.neutral[vertices_of(pack, "M_Teeth")]
    if not bool(gums.any()) or len(teeth) == 0:
        return torch.zeros(len(pack.neutral), device=pack.neutral.device)
    distance = torch.cdist(pack.neutral, teeth).amin(1)
    return ((distance - 0.3) / 0.6).clamp(0, 1) * gums.float()
