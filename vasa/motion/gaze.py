"""Eyes that keep their aim when the head turns.

Gaze is the direction in the camera's frame, as the labels of the rendered people define it: turn of the head plus turn
of the eyes in the head, (yaw, pitch). The lids and the skin around the eyes follow the eyes by the rules those people
were made by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EYES: tuple[str, str] = ("eyeYaw", "eyePitch")
MAX_EYE = (math.radians(30.0), math.radians(20.0))
"""How far eyes turn in the head: yaw, pitch."""
_PITCH, _YAW = 2.0, 1.2
FOLLOWERS: dict[str, tuple[int, float]] = {
    "eyeLookDown_L": (1, _PITCH), "eyeLookDown_R": (1, _PITCH),
    "eyeLookUp_L": (1, -_PITCH), "eyeLookUp_R": (1, -_PITCH),
    "eyeLookIn_L": (0, _YAW), "eyeLookOut_R": (0, _YAW),
    "eyeLookOut_L": (0, -_YAW), "eyeLookIn_R": (0, -_YAW),
}  # fmt: skip
"""What follows the eyes: axis (0 yaw, 1 pitch) and weight per radian; positive yaw turns the left eye in."""

OVERSHOOT = 0.22
"""By how much the gaze goes too far under a guidance scale of 1. Measured on `vasa-mini` over voices, seeds and angles:
slope 1.02 without guidance, 1.10 to 1.30 with it."""


def told(gaze: Tensor, scales: dict[str, float]) -> Tensor:
    """The gaze to tell the generator so that under guidance it looks where it was asked to.

    Args:
        gaze: radians, [..., 2].
        scales: guidance scale per condition; beyond 1 the eyes reach their limits and overshoot no further.
    """
    return gaze / (1 + OVERSHOOT * min(scales.get("gaze", 0.0), 1.0))


def turned_eyes(dynamics: Tensor, names: tuple[str, ...], gaze: Tensor, turn: Tensor, roll: Tensor) -> Tensor:
    """Turn the eyes back by what the head was turned, as far as eyes go.

    Args:
        dynamics: [T, E].
        names: meaning of the channels; without "eyeYaw" and "eyePitch" nothing is changed.
        gaze: main gaze direction, radians, [T, 2].
        turn: (yaw, pitch) by which the head is turned beyond what the eyes know of, [T, 2].
        roll: tilt of the head that they do not know of, [T]; the eyes' axes tilt with it.
    """
    if not set(EYES) <= set(names):
        return dynamics
    column = [names.index(name) for name in EYES]
    eye = dynamics[..., column]
    cos, sin = roll.cos()[..., None], roll.sin()[..., None]
    yaw, pitch = gaze[..., :1], gaze[..., 1:]
    tilted = torch.cat([cos * yaw - sin * pitch, sin * yaw + cos * pitch], dim=-1)
    limit = eye.new_tensor(MAX_EYE)
    change = tilted - gaze - turn
    new = torch.where(change == 0, eye, (eye + change).clamp(-limit, limit))
    dynamics = dynamics.clone()
    dynamics[..., column] = new
    for name, (axis, weight) in FOLLOWERS.items():
        if name not in names:
            continue
        before, after = ((weight * angle[..., axis]).clamp_min(0) for angle in (eye, new))
        moved = after - before
        blink = f"eyeBlink{name[-2:]}"
        if axis == 1 and blink in names:
            # shut lids do not follow
            moved = moved * (1 - dynamics[..., names.index(blink)].clamp(0, 1))
        channel = names.index(name)
        followed = (dynamics[..., channel] + moved).clamp(0, 1)
        dynamics[..., channel] = torch.where(moved == 0, dynamics[..., channel], followed)
    return dynamics
