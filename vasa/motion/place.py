"""Movement about one head's rest becomes the same movement about another's.

A motion remembers the pose it is about (`Motion.rest`). Shown on another portrait, angles are added to that portrait's
own, the head's size changes by the same factor, and the neck sways about the place where the portrait's neck is, in
proportion to its size. A portrait in half profile stays one: turning it to the camera would show what the picture
does not contain. The eyes turn back by what the head was turned, so that a gaze into the camera stays one.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry import AVERAGE_LOG_SCALE, NECK, rotation
from ..latents import Motion
from .gaze import turned_eyes

GENERATOR_REST: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, AVERAGE_LOG_SCALE)
"""The rest of what the generator draws: facing the camera at the average framing."""


def place(motion: Motion, rest: Tensor, names: tuple[str, ...] = ()) -> Motion:
    """The same movement about another pose.

    Args:
        motion: [..., T] frames. One without a rest is absolute and stays as it is.
        rest: the new rest, e.g. the head pose of the portrait to be moved, [6].
        names: meaning of the dynamics channels; without names the eyes keep their turn in the head.

    Returns:
        Motion whose `rest` is the new one (float32, on the motion's device). Placing where it already is changes no
        bit.
    """
    if motion.rest is None:
        return motion
    pose = motion.head_pose.float()
    new, old = rest.detach().to(pose), motion.rest.to(pose)
    if torch.equal(new, old):
        return replace(motion, rest=new)
    neck = pose.new_tensor(NECK)
    ratio = (new[5] - old[5]).exp()
    sway = _neck_of(pose, neck) - _neck_of(old, neck)
    angles = pose[..., :3] - old[:3] + new[:3]
    log_s = pose[..., 5:] - old[5] + new[5]
    t = _neck_of(new, neck) + sway * ratio - log_s.exp() * (rotation(angles) @ neck)[..., :2]
    dynamics = turned_eyes(motion.facial_dynamics, names, pose.new_zeros(2), new[:2] - old[:2], pose.new_zeros(()))
    return replace(motion, head_pose=torch.cat([angles, t, log_s], dim=-1), facial_dynamics=dynamics, rest=new)


def generator_rest(like: Tensor) -> Tensor:
    """`GENERATOR_REST` as a tensor [6] on the device of `like`."""
    return torch.tensor(GENERATOR_REST, device=like.device)


def _neck_of(pose: Tensor, neck: Tensor) -> Tensor:
    """Where the neck is in the picture plane, [..., 6] -> [..., 2]."""
    return pose[..., 3:5] + pose[..., 5:].exp() * (rotation(pose[..., :3]) @ neck)[..., :2]
