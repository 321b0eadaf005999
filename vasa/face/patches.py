"""Mouth and eyes as square patches of the head: planes in canonical space that move with the pose.

A patch is seen from the front whatever the head does, at one scale, so that what happens in it is expression alone.
Letters: `B` batch, `S` edge of a picture, `P` edge of a patch. A pose is [B, 6], or its `pose_matrix` [B, 3, 4], which
whoever asks for several patches computes once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import identity_grid, moved_by, pose_matrix, times
from ..latents import DYNAMICS
from .blocks import resize_pictures


@dataclass(frozen=True)
class Patch:
    """A square in a plane parallel to the face, canonical units.

    Attributes:
        centre: (x, y, z).
        half: half its edge.
        mirrored: its x axis runs to the picture's left, so that both eyes look alike.
    """

    centre: tuple[float, float, float]
    half: float
    mirrored: bool = False


MOUTH = Patch((0.0, 0.46, -0.54), 0.36)
EYES = (Patch((0.231, -0.115, -0.44), 0.2), Patch((-0.231, -0.115, -0.44), 0.2, mirrored=True))
"""The person's left eye (right in the picture) and, mirrored onto it, the right one."""
BROWS = (Patch((0.28, -0.3, -0.46), 0.32), Patch((-0.28, -0.3, -0.46), 0.32, mirrored=True))
"""Brows with the eye below them, without which a high brow cannot be told from a raised one; as `EYES`."""


def _matrix(pose: Tensor) -> Tensor:
    return pose if pose.dim() == 3 else pose_matrix(pose)


def view_of(pose: Tensor, patch: Patch, closeness: Tensor) -> Tensor:
    """The affine map that a near camera makes of space about a patch, pose and [B] -> [B, 3, 4], to be given as a pose.

    What differs from the camera's own map grows with the square of the distance from the patch's middle.
    """
    matrix, closeness = _matrix(pose), closeness[:, None]
    middle = times(matrix[..., :3], matrix.new_tensor(patch.centre)) + matrix[..., 3]
    nearer = (1 + closeness * middle[:, 2:]).clamp_min(0.2)
    seen = middle[:, :2] / nearer
    linear = (matrix[:, :2, :3] - (closeness * seen)[..., None] * matrix[:, 2:, :3]) / nearer[..., None]
    shift = seen - times(linear, matrix.new_tensor(patch.centre))
    return torch.cat([torch.cat([linear, shift[..., None]], dim=-1), matrix[:, 2:]], dim=1)


def patch_affine(pose: Tensor, patch: Patch) -> Tensor:
    """Where a patch lies in the picture, pose -> [B, 2, 3] float32: p = A (u, v) + b for u, v in [-1, 1]."""
    matrix = _matrix(pose)[:, :2]  # [B, 2, 4]
    across = matrix[..., 0] * (-patch.half if patch.mirrored else patch.half)
    down = matrix[..., 1] * patch.half
    centre = times(matrix[..., :3], matrix.new_tensor(patch.centre)) + matrix[..., 3]
    return torch.stack([across, down, centre], dim=-1)


def patch_lean(pose: Tensor, patch: Patch) -> Tensor:
    """How far from the point before it one half an edge behind the plane appears in the patch, pose -> [B, 2].

    A surface of height h over the plane is seen shifted by h times this; so between two poses it moves by h times the
    difference, which a network need not learn.
    """
    pose = _matrix(pose)
    return times(inverse_2x2(patch_affine(pose, patch)[..., :2]), pose[:, :2, 2] * patch.half)


def to_picture(places: Tensor, affine: Tensor) -> Tensor:
    """Patch positions as picture positions, [B, 2, H, W] and [B, 2, 3] -> [B, 2, H, W]."""
    return moved_by(affine, places.float())


def to_patch(places: Tensor, affine: Tensor) -> Tensor:
    """Inverse of `to_picture`."""
    back = inverse_2x2(affine[..., :2])
    return moved_by(torch.cat([back, -times(back, affine[..., 2])[..., None]], dim=-1), places.float())


def inverse_2x2(matrix: Tensor) -> Tensor:
    """Inverse of [..., 2, 2]; a matrix that squeezes a patch to a line gets a small thickness."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < 1e-4, torch.full_like(determinant, 1e-4), determinant)
    return torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) / determinant[..., None, None]


def patch_grid(size: int, device: torch.device | str | None = None) -> Tensor:
    """The positions of a patch's own pixels, [1, 2, P, P]."""
    return identity_grid((size, size), device).movedim(-1, 0)[None]


def cut_patch(pictures: Tensor, pose: Tensor, patch: Patch, size: int) -> Tensor:
    """A patch of every picture, [B, C, S, S] and poses -> [B, C, size, size] in the pictures' type.

    Pictures far larger than the patch needs are averaged down first, so that nothing is skipped.
    """
    affine = patch_affine(pose, patch)
    if size * 2 <= pictures.shape[-1] * patch.half:
        pictures = resize_pictures(pictures, pictures.shape[-1] // 2)
    grid = to_picture(patch_grid(size, pictures.device).expand(len(affine), -1, -1, -1), affine).movedim(1, -1)
    cut = F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=True)
    return cut.to(pictures.dtype)


def _swapped(names: tuple[str, ...]) -> list[int]:
    """Index of every channel's twin on the other side of the face."""
    other = {"_L": "_R", "_R": "_L"}
    pairs = {"jawLeft": "jawRight", "jawRight": "jawLeft", "mouthLeft": "mouthRight", "mouthRight": "mouthLeft"}
    twin = [pairs.get(n, n[:-2] + other[n[-2:]] if n[-2:] in other else n) for n in names]
    return [names.index(n) for n in twin]


_TWINS = _swapped(DYNAMICS)
_EYE_YAW = DYNAMICS.index("eyeYaw")


def mirror_dynamics(dynamics: Tensor) -> Tensor:
    """Named dynamics of the face in a mirror, [..., 59]."""
    swapped = dynamics[..., _TWINS]
    return torch.cat([swapped[..., :_EYE_YAW], -swapped[..., _EYE_YAW, None], swapped[..., _EYE_YAW + 1 :]], dim=-1)


def mirror_pose(head_pose: Tensor) -> Tensor:
    """Head pose in a mirror, [..., 6]."""
    return head_pose * head_pose.new_tensor([-1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
