"""Head poses that are asked for, and how exactly they are met."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..geometry import turn_about_neck

ANGLES = ("yaw", "pitch", "roll")
LIMITS_DEGREES = (30.0, 15.0, 12.0)


def requested_poses(portrait_pose: Tensor, count: int, generator: Generator) -> Tensor:
    """Evenly spread head rotations, the neck staying where it is in the portrait.

    Args:
        portrait_pose: [6].
        count: poses.
        generator: CPU generator.

    Returns:
        [count, 6] within ±30° yaw, ±15° pitch, ±12° roll.
    """
    limits = torch.tensor(LIMITS_DEGREES) * math.pi / 180
    angles = (2 * torch.rand(count, 3, generator=generator) - 1) * limits
    return turn_about_neck(portrait_pose.expand(count, 6), angles - portrait_pose[:3])


def at_yaw(portrait_pose: Tensor, degrees: tuple[float, ...]) -> Tensor:
    """The portrait's pose turned to the given yaws about the neck, [6] -> [len(degrees), 6]."""
    turn = torch.zeros(len(degrees), 3)
    turn[:, 0] = torch.tensor(degrees) * math.pi / 180 - portrait_pose[0]
    return turn_about_neck(portrait_pose.expand(len(degrees), 6), turn)


def rotation_error(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of yaw, pitch and roll, [..., 6] and [..., 6] -> [...] degrees."""
    return (first - second)[..., :3].abs().mean(-1).rad2deg()


def angle_fits(read: Tensor, requested: Tensor, own_offset: bool = False) -> dict[str, float]:
    """R² of yaw, pitch and roll.

    Args:
        read, requested: P faces in K poses, [P, K, 6].
        own_offset: every face may be off by an angle of its own, which takes K >= 2. Where a head is level cannot be
            told from one picture; how far it turns can.
    """
    fits = {}
    for i, name in enumerate(ANGLES):
        asked, error = requested[..., i].double(), (read - requested)[..., i].double()
        left = error.square().sum()
        if own_offset:
            k = error.shape[1]
            left = (error - error.mean(1, keepdim=True)).square().sum() * k / (k - 1)
        fits[name] = 1.0 - float(left / (asked - asked.mean()).square().sum())
    return fits
