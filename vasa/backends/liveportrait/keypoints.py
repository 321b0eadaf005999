"""Implicit keypoints: what LivePortrait moves a picture by.

A keypoint lands at x = s (R x_c + delta) + t. Axes, Euler angles and their signs are those of `vasa.geometry`; scale
and translation become those of our head poses by two constants, so that a head pose (yaw, pitch, roll, t_x, t_y,
log_s) means the same here and there: framing, resting poses and turns about the neck work alike. The depth of t is
not used.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import AVERAGE_LOG_SCALE, rotation
from .config import NUM_KEYPOINTS

LIPS: tuple[int, ...] = (6, 12, 14, 17, 19, 20)
"""Keypoints around the mouth."""
EYES: tuple[int, ...] = (11, 13, 15, 16, 18)
"""Keypoints around the eyes."""
LEFT_BALL, RIGHT_BALL = 11, 15
"""Keypoints that carry the eyeballs, left and right in the picture."""
LEFT_LID, RIGHT_LID = 13, 16
DYNAMICS_NAMES: tuple[str, ...] = tuple(
    f"{'mouth' if k in LIPS else 'eyeLook' if k in (LEFT_BALL, RIGHT_BALL) else 'face'}_{k:02d}_{axis}"
    for k in range(NUM_KEYPOINTS)
    for axis in "xyz"
)
"""Channels of `Motion.facial_dynamics`: how far each keypoint is moved by the expression. What they begin with says
which part of the face they belong to (`vasa.drive.part_of`)."""
_DEGREES_PER_BIN, _OFFSET = 3.0, 97.5
AVERAGE_SCALE, AVERAGE_SHIFT = 1.40, (0.0, 0.08)
"""s and t of a face framed as the published programs frame a portrait, in a square of 2.3 times its landmarks' extent:
what the five older driving templates published with the code say (1.37 to 1.46, and 0.04 to 0.11), carried over from
their films, which show the face larger, by the landmarks in them."""
SHOWN: tuple[tuple[int, str], ...] = (
    *((k, "xyz") for k in (1, 2, 6, *range(11, 21))), (3, "y"), (4, "y"), (5, "z"), (8, "z"), (9, "yz"),
)  # fmt: skip
"""Keypoints and axes that take another person's expression as it is; the others carry the shape of a head, too."""
_LOG_UNIT = math.log(AVERAGE_SCALE) - AVERAGE_LOG_SCALE


def angle_of(logits: Tensor) -> Tensor:
    """The expected angle of a distribution over bins of 3 degrees, [..., bins] -> [...], radians."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=torch.float32)
    degrees = (logits.float().softmax(-1) * bins).sum(-1) * _DEGREES_PER_BIN - _OFFSET
    return degrees * (math.pi / 180)


def head_pose_of(angles: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Our head pose.

    Args:
        angles: (yaw, pitch, roll), radians, [..., 3].
        scale: s, [..., 1].
        shift: t_x, t_y, [..., 2].

    Returns:
        [..., 6], float32.
    """
    # a scale is near 1; the floor keeps what untrained weights say usable
    log_s = scale.float().clamp_min(0.05).log() - _LOG_UNIT
    return torch.cat([angles.float(), shift.float() - shift.new_tensor(AVERAGE_SHIFT).float(), log_s], dim=-1)


def scale_and_shift(head_pose: Tensor) -> tuple[Tensor, Tensor]:
    """(s [..., 1], t [..., 2]) of our head pose; inverts `head_pose_of`."""
    pose = head_pose.float()
    return (pose[..., 5:] + _LOG_UNIT).exp(), pose[..., 3:5] + pose.new_tensor(AVERAGE_SHIFT)


def posed(canonical: Tensor, head_pose: Tensor, delta: Tensor) -> Tensor:
    """Where the keypoints land.

    Args:
        canonical: x_c, [N or 1, K, 3].
        head_pose: [N, 6].
        delta: expression, [N, 3 K].

    Returns:
        [N, K, 3], float32.
    """
    scale, shift = scale_and_shift(head_pose)
    turned = canonical.float() @ rotation(head_pose[:, :3]).transpose(-1, -2) + delta.float().unflatten(-1, (-1, 3))
    return turned * scale[:, None] + F.pad(shift[:, None], (0, 1))
