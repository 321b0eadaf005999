"""Axes, angles and grids.

Unit cube: x right, y down, z inwards (away from the camera), all in [-1, 1]; corners are the centres of the first
and the last sample (`align_corners=True`). Head pose is (yaw, pitch, roll, t_x, t_y, log_s) in radians and
unit-cube lengths: a canonical point q lands at s R q + t with R = Rz(roll) Ry(yaw) Rx(pitch). Positive yaw turns
the nose to the left of the picture, positive pitch nods down, positive roll tilts the head clockwise.
Everything here is float32 whatever the caller's precision: bf16 angles step by 0.1 degree, which shows as jitter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HEAD_CENTRE_CM = (0.0, 2.0, 3.0)
"""Origin of the canonical cube in the asset pack's axes (x right, y up, z towards the camera), cm."""
CANONICAL_CM = 14.0
"""Half the edge of the canonical cube, cm."""
NECK = (0.0, 0.5, 0.25)
"""The point a head turns about, in canonical coordinates: 7 cm below the head centre and 3.5 cm behind it."""
AVERAGE_LOG_SCALE = -0.288
"""log s of the average framing, s = 0.75; a head distance of 1."""


def rotation(angles: Tensor) -> Tensor:
    """R = Rz(roll) Ry(yaw) Rx(pitch) for column vectors.

    Args:
        angles: (yaw, pitch, roll) in radians, [..., 3].

    Returns:
        [..., 3, 3], float32.

    >>> rotation(torch.zeros(3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (cy, cp, cr), (sy, sp, sr) = (f(angles.float()).unbind(-1) for f in (torch.cos, torch.sin))
    rows = [
        [cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp],
        [sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp],
        [-sy, cy * sp, cy * cp],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def angles_of(matrix: Tensor) -> Tensor:
    """(yaw, pitch, roll) of rotation matrices, [..., 3, 3] -> [..., 3]; inverts `rotation` for |yaw| < 90 degrees."""
    yaw = -torch.asin(matrix[..., 2, 0].clamp(-1.0, 1.0))
    pitch = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    roll = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return torch.stack([yaw, pitch, roll], dim=-1)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector, [..., n, m] and [..., m] -> [..., n], in full precision.

    Not `@`: mixed precision rounds the factors of every matrix product to bf16, which for positions is half a pixel.
    """
    return (matrix * vector[..., None, :]).sum(-1)


def moved_by(affine: Tensor, places: Tensor) -> Tensor:
    """Places in a plane under affine maps, [B, 2, 3] and [B or 1, 2, H, W] -> [B, 2, H, W], in full precision."""
    a, b, shift = affine.float()[..., None, None].unbind(2)
    return a * places[:, :1] + b * places[:, 1:] + shift


def pose_matrix(head_pose: Tensor) -> Tensor:
    """The 3x4 affine map M q = s R q + t from canonical to posed coordinates, [..., 6] -> [..., 3, 4]."""
    head_pose = head_pose.float()
    linear = rotation(head_pose[..., :3]) * head_pose[..., 5, None, None].exp()
    shift = F.pad(head_pose[..., 3:5], (0, 1))
    return torch.cat([linear, shift[..., None]], dim=-1)


def inverse_pose_matrix(head_pose: Tensor) -> Tensor:
    """The 3x4 affine map q = R^T (p - t) / s from posed to canonical coordinates, [..., 6] -> [..., 3, 4]."""
    head_pose = head_pose.float()
    linear = rotation(head_pose[..., :3]).transpose(-1, -2) * (-head_pose[..., 5, None, None]).exp()
    shift = F.pad(head_pose[..., 3:5], (0, 1))
    return torch.cat([linear, -times(linear, shift)[..., None]], dim=-1)


def moved_in_space(matrix: Tensor, places: Tensor) -> Tensor:
    """Places in space under affine maps, [B, 3, 4] and [B or 1, 3, ...] -> [B, 3, ...], in full precision."""
    shape = places.shape[2:]
    moved = (matrix.float()[..., :3, None] * places.flatten(2)[:, None]).sum(2) + matrix.float()[..., 3:]
    return moved.unflatten(2, shape)


def in_perspective(places: Tensor, closeness: Tensor) -> Tensor:
    """Posed places as a camera sees them, (x, y, z) -> (x / n, y / n, z), n = 1 + closeness z.

    Args:
        places: posed coordinates, [B, 3, ...]; z grows away from the camera and is 0 in the head's centre.
        closeness: half the picture's width over the camera's distance, [B]; 0 is a camera infinitely far.
    """
    nearer = 1 + _spread(closeness, places) * places[:, 2:]
    return torch.cat([places[:, :2] / nearer.clamp_min(0.2), places[:, 2:]], dim=1)


def out_of_perspective(places: Tensor, closeness: Tensor) -> Tensor:
    """Inverse of `in_perspective`."""
    nearer = (1 + _spread(closeness, places) * places[:, 2:]).clamp_min(0.2)
    return torch.cat([places[:, :2] * nearer, places[:, 2:]], dim=1)


def step_in_picture(step: Tensor, places: Tensor, closeness: Tensor) -> Tensor:
    """How far a small step in posed coordinates goes in the picture, but for the factor 1 / n, which changes little.

    Args:
        step: [B, 3, H, W].
        places: where in the picture, [B, 2, H, W].
        closeness: [B].
    """
    return step[:, :2] - _spread(closeness, step) * places * step[:, 2:]


def _spread(closeness: Tensor, like: Tensor) -> Tensor:
    return closeness.view(-1, *(1,) * (like.dim() - 1))


def turn_between(source_pose: Tensor, head_pose: Tensor) -> Tensor:
    """s' R' R^T: a step in the driving picture's axes, canonical lengths, as one in the source's, [B, 6] -> [B, 3, 3].

    A pixel's place in another picture is known but for the depth of what it shows.
    """
    there, here = rotation(source_pose[..., :3].float()), rotation(head_pose[..., :3].float())
    turn = (there[..., :, None, :] * here[..., None, :, :]).sum(-1)
    return source_pose[..., 5, None, None].float().exp() * turn


def identity_grid(size: tuple[int, ...], device: torch.device | str | None = None) -> Tensor:
    """Sampling positions that leave a picture or volume unchanged.

    Args:
        size: (H, W) or (D, H, W).

    Returns:
        [*size, len(size)] float32 in [-1, 1], last axis (x, y) or (x, y, z).
    """
    axes = [torch.linspace(-1.0, 1.0, n, device=device) if n > 1 else torch.zeros(1, device=device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)


def turn_about_neck(head_pose: Tensor, turn: Tensor) -> Tensor:
    """Add (yaw, pitch, roll) to a pose while the neck stays where it is.

    Args:
        head_pose: [..., 6].
        turn: angles to add, radians, [..., 3].

    Returns:
        [..., 6]; t moves so that s R NECK + t is unchanged in the picture plane.
    """
    neck = head_pose.new_tensor(NECK).float()
    angles = head_pose[..., :3] + turn
    moved = times(rotation(head_pose[..., :3]) - rotation(angles), neck)
    t = head_pose[..., 3:5] + head_pose[..., 5:].exp() * moved[..., :2]
    return torch.cat([angles, t, head_pose[..., 5:]], dim=-1)
