"""Motion of one head as motion of another: relative, enlarged, or taken over as it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...geometry import angles_of, rotation
from ...latents import FaceLatents, Motion
from .keypoints import SHOWN


def about(motion: Motion, rest: Tensor, face: FaceLatents, absolute: tuple[int, ...] = ()) -> Motion:
    """Movement about a rest as the same movement about a portrait's own pose and expression.

    Args:
        motion: [T, ...].
        rest: pose and expression that it is about, [69].
        face: the portrait.
        absolute: keypoints that take their expression as it is.
    """
    pose, delta = motion.head_pose, motion.facial_dynamics
    rest, own = rest.to(pose), face.head_pose[0].to(pose)
    turn = rotation(own[:3]) @ rotation(rest[:3]).transpose(-1, -2) @ rotation(pose[:, :3])
    head_pose = torch.cat([angles_of(turn), own[3:] + pose[:, 3:] - rest[3:6]], dim=-1)
    moved = (face.facial_dynamics.to(pose) + delta - rest[6:]).unflatten(-1, (-1, 3))
    moved[:, list(absolute)] = delta.unflatten(-1, (-1, 3))[:, list(absolute)]
    return replace(motion, head_pose=head_pose, facial_dynamics=moved.flatten(1), rest=own)


def enlarged(motion: Motion, rest: Tensor, log_size: Tensor, face: FaceLatents) -> Motion:
    """Turns and expressions about a rest, times the size of the head they were drawn for over the portrait's.

    Args:
        motion: [T, ...].
        rest: as for `about`.
        log_size: natural logarithm of that head's scale, as in head poses.
        face: the portrait.
    """
    pose, delta = motion.head_pose, motion.facial_dynamics
    rest, ratio = rest.to(pose), (log_size.to(pose) - face.head_pose[0, 5].to(pose)).exp()
    turned = rest[:3] + (pose[:, :3] - rest[:3]) * ratio
    moved = rest[6:] + (delta - rest[6:]) * ratio
    return replace(motion, head_pose=torch.cat([turned, pose[:, 3:]], dim=-1), facial_dynamics=moved)


def taken_over(motion: Motion, face: FaceLatents) -> Motion:
    """Absolute motion of another head: where it is and what its face does, but not what it is like.

    That is its size, and the expression of keypoints that are not in `keypoints.SHOWN`.
    """
    pose, delta = motion.head_pose, motion.facial_dynamics
    own, still = face.head_pose[0].to(pose), face.facial_dynamics[0].to(delta)
    shown = torch.zeros(len(still) // 3, 3, dtype=torch.bool, device=delta.device)
    for keypoint, axes in SHOWN:
        shown[keypoint, ["xyz".index(axis) for axis in axes]] = True
    head_pose = torch.cat([pose[..., :5], own[5:].expand(*pose.shape[:-1], 1)], dim=-1)
    return replace(motion, head_pose=head_pose, facial_dynamics=torch.where(shown.flatten(), delta, still))
