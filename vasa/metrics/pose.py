"""Head poses that are asked for, and how exactly they are met."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..geometry import turn_about_neck
from .probes import r_squared

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
    """Mean absolute difference of yaw, pitch and roll, [N, 6] and [N, 6] -> [N] degrees."""
    return (first[:, :3] - second[:, :3]).abs().mean(1).rad2deg()


def angle_fits(read: Tensor, requested: Tensor) -> dict[str, float]:
    """R² of yaw, pitch and roll, [N, 6] and [N, 6]."""
    return {name: r_squared(read[:, i : i + 1], requested[:, i : i + 1]) for i, name in enumerate(ANGLES)}
