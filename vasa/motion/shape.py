"""What the user asks for beyond the generator's conditions, done to the motion itself, frame by frame.

Every frame is changed by its own controls alone, so that pieces of a stream equal the whole. Where the dynamics code
names no channels, only the head can be shaped.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..controls import ControlCurves
from ..geometry import NECK, rotation, turn_about_neck
from ..latents import FaceLatents, Motion
from .gaze import turned_eyes

LIDS: tuple[str, ...] = ("eyeBlink_L", "eyeBlink_R")


def shape(
    motion: Motion,
    curves: ControlCurves,
    face: FaceLatents | None = None,
    names: tuple[str, ...] = (),
    start: int = 0,
) -> Motion:
    """Apply head-pose offset and amplitude, expression and mouth intensity, blinks, and eyes that keep their aim.

    The head moves about the neck. The eyes make up for every turn of the head that the generator did not know of
    (the portrait's own angle, offset and amplitude), so that the gaze stays where it was asked to be.

    Args:
        motion: placed on the portrait, [T, ...].
        curves: controls of these frames, T of them from `start` on.
        face: the portrait; its pose is the rest of a motion that names none.
        names: what the dynamics channels mean; () where they have no names.
        start: which of the curves' frames is the motion's first.

    Returns:
        The same motion, bit for bit, where the controls ask for nothing and the portrait faces the camera.

    Raises:
        ValueError: fewer curves than frames.
    """
    stop = start + len(motion)
    if stop > len(curves):
        raise ValueError(f"expected curves of at least {stop} frames, got {len(curves)}")
    rest = motion.rest if motion.rest is not None else None if face is None else face.head_pose[0]
    rest = motion.head_pose.new_zeros(6) if rest is None else rest.to(motion.head_pose)

    def at(curve: Tensor) -> Tensor:
        return curve[start:stop].to(motion.head_pose)

    pose = _amplified(motion.head_pose, rest, at(curves.head_amplitude))
    offset = at(curves.head_offset)
    pose = torch.where((offset != 0).any(-1, keepdim=True), turn_about_neck(pose, offset), pose)
    dynamics = motion.facial_dynamics
    if names:
        factor = _factors(names, at(curves.expression), at(curves.mouth))
        dynamics = torch.where(factor == 1, dynamics, (dynamics * factor).clamp(max=1))
        # the generator moved a head that rests facing the camera
        unknown = pose[..., :3] - (motion.head_pose[..., :3] - rest[:3])
        roll = rest[2] + offset[..., 2]
        dynamics = turned_eyes(dynamics, names, at(curves.gaze), unknown[..., :2], roll)
        dynamics = _blinking(dynamics, names, at(curves.closure), at(curves.own_blinks))
    return replace(motion, head_pose=pose, facial_dynamics=dynamics)


def _amplified(pose: Tensor, rest: Tensor, amplitude: Tensor) -> Tensor:
    """Scale the turns, and the sway of the neck, about a rest; the distance stays, [T, 6]."""
    neck = pose.new_tensor(NECK)
    size = pose[..., 5:].exp()
    angles = rest[:3] + amplitude * (pose[..., :3] - rest[:3])
    # where the neck of a head at rest would be at this frame's distance
    still = rest[3:5] + rest[5].exp() * (rotation(rest[:3]) @ neck)[:2] + (size - rest[5].exp()) * neck[:2]
    sway = pose[..., 3:5] + size * (rotation(pose[..., :3]) @ neck)[..., :2] - still
    t = still + amplitude * sway - size * (rotation(angles) @ neck)[..., :2]
    return torch.where(amplitude == 1, pose, torch.cat([angles, t, pose[..., 5:]], dim=-1))


def _factors(names: tuple[str, ...], expression: Tensor, mouth: Tensor) -> Tensor:
    """Factor of every channel: mouth, expression, or 1 for what the eyes and blinks do, [T, E]."""
    is_mouth = expression.new_tensor([name.startswith(("mouth", "jaw")) for name in names], dtype=torch.bool)
    fixed = ("eyeBlink", "eyeLook", "eyeYaw", "eyePitch", "PupilDilate")
    is_fixed = torch.tensor([name.startswith(fixed) for name in names], device=expression.device)
    factor = torch.where(is_mouth, mouth, expression)
    return torch.where(is_fixed, torch.ones_like(factor), factor)


def _blinking(dynamics: Tensor, names: tuple[str, ...], closure: Tensor, own: Tensor) -> Tensor:
    """Lids as generated where `own` is 1 and open where it is 0; closed at least as far as `closure`."""
    lids = [names.index(name) for name in LIDS if name in names]
    closed = torch.maximum(dynamics[..., lids] * own, closure)
    dynamics = dynamics.clone()
    dynamics[..., lids] = torch.where((own == 1) & (closure == 0), dynamics[..., lids], closed)
    return dynamics
