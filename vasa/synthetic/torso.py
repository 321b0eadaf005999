"""Shoulders and a garment with a neckline, as a grid of rings around the neck."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_RINGS, _SPOKES = 20, 56
_AXIS_Z = -1.0
# Thickness and offset of the garment, cm.
_CLEARANCE = 0.3
# How far out on the neck and the shoulders the collar lies: height minus 0.7 times the distance from the
# neck's axis.
_COLLAR, _LOWEST_COLLAR = -17.4, -22.3


@dataclass(frozen=True)
class Torso:
    """A torso that fits a person's neck.

    Attributes:
        head: [V, 3] the head's vertices with the skin below the collar pushed under the garment.
        vertices: [N, 3] cm; faces: [F, 3]; uv: [F, 3, 2].
    """

    head: Tensor
    vertices: Tensor
    faces: Tensor
    uv: Tensor


def build_torso(head: Tensor, head_faces: Tensor, follow: Tensor, torso: Tensor) -> Torso:
    """Dress a person.

    Args:
        head: [V, 3] the person's neutral head with its neck, cm.
        head_faces: [F, 3] skin.
        follow: [V] 1 head .. 0 torso.
        torso: (shoulder half-width cm, shoulder slope, neckline depth cm).
    """
    half_width, slope, depth = torso.tolist()
    spoke = torch.linspace(0, 2 * math.pi, _SPOKES + 1)[:-1]
    side, front = spoke.sin(), spoke.cos()
    collar = (_COLLAR - depth * ((1 + front) / 2) ** 2.5).clamp(min=_LOWEST_COLLAR)

    neck = head_faces[(follow[head_faces] < 0.6).all(1)]
    corner = head[neck]
    samples = torch.cat([corner.mean(1), (corner + corner.roll(1, 1)).flatten(0, 1) / 2, corner.flatten(0, 1)])
    angle, radius, level = _around_neck(samples)
    gap = torch.remainder(angle[:, None] - spoke + math.pi, 2 * math.pi) - math.pi
    near = torch.exp(-((gap / 0.16) ** 2) - ((level[:, None] - collar) / 0.6) ** 2) + 1e-9
    share = near / near.sum(0)
    start = (share * radius[:, None]).sum(0)
    height = collar + 0.7 * start
    kernel = torch.tensor([0.25, 0.5, 0.25])
    start, height = (
        torch.nn.functional.conv1d(torch.cat([v[-1:], v, v[:1]])[None, None], kernel[None, None])[0, 0]
        for v in (start, height)
    )

    # A shoulder is wide and slopes, the chest and the back are steep from the collar on.
    goal = 1.0 / ((side / half_width).abs() ** 2.5 + (front / 11.0).abs() ** 2.5) ** (1 / 2.5)
    goal = torch.maximum(goal, start + 1.0)
    steep = torch.lerp(torch.full_like(side, 1.1), torch.full_like(side, slope), side.abs() ** 1.5)
    hem = (start - 0.3, height - 0.35), (start + _CLEARANCE, height + _CLEARANCE)
    rings = [torch.stack([r * side, y, r * front + _AXIS_Z], dim=1) for r, y in hem]
    for step in torch.linspace(0, 1, _RINGS - 2).tolist():
        turn = min(step / 0.65, 1.0) * math.pi / 2
        down = max(step - 0.65, 0.0) / 0.35
        out = (goal - start - _CLEARANCE) * math.sin(turn)
        r = (start + _CLEARANCE + 0.15 + out) * (1 - 0.06 * down)
        y = height + 0.1 - out * steep - (goal - start) * 0.55 * (1 - math.cos(turn)) - 45.0 * down**1.5
        rings.append(torch.stack([r * side, y, r * front + _AXIS_Z], dim=1))
    vertices = torch.stack(rings)
    index = torch.arange(_RINGS * _SPOKES).view(_RINGS, _SPOKES)
    a, b = index[:-1], index[:-1].roll(-1, 1)
    c, d = index[1:], index[1:].roll(-1, 1)
    faces = torch.cat([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)]).view(-1, 3)
    vertices = vertices.view(-1, 3)
    uv = torch.stack([0.5 + vertices[:, 0] / 60.0, (-vertices[:, 1] - 10.0) / 60.0], dim=-1).clamp(0, 1)
    return Torso(_tucked_in(head, collar, follow), vertices, faces, uv[faces])


def _around_neck(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angle (0 = front), distance from the neck's axis, and level: it falls along neck and shoulders."""
    x, z = points[:, 0], points[:, 2] - _AXIS_Z
    radius = (x * x + z * z).sqrt()
    return torch.atan2(x, z), radius, points[:, 1] - 0.7 * radius


def _tucked_in(head: Tensor, collar: Tensor, follow: Tensor) -> Tensor:
    """Push skin below the collar inwards and down, so that it never pokes through the garment."""
    angle, radius, level = _around_neck(head)
    place = torch.remainder(angle / (2 * math.pi), 1.0) * len(collar)
    left = place.floor().long() % len(collar)
    line = torch.lerp(collar[left], collar[(left + 1) % len(collar)], place - place.floor())
    below = ((line - 0.2 - level) / 1.0).clamp(0, 1) * (follow < 0.6)
    inward = torch.stack([-head[:, 0], torch.zeros_like(radius), -(head[:, 2] - _AXIS_Z)], dim=1)
    shift = inward / radius.clamp(min=1.0)[:, None] * 1.2
    shift[:, 1] = -1.6
    return head + below[:, None] * shift
