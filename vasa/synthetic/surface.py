"""The mean head's surface seen from the front, and how expressions move it, as maps: where the face model starts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import CANONICAL_CM, HEAD_CENTRE_CM, identity_grid
from ..latents import DYNAMICS
from .anatomy import neck_follow
from .person import HeadPack

_SKIN = ("M_Face", "M_BackHead")
_TURNING = 0.9
"""What follows the head by less is neck."""
_SKIN_DEPTH = 0.12
"""What lies that much behind the foremost skin is another part of the head, canonical units."""
_BEHIND = 0.3
"""Depth beyond the head's border."""


def mean_surface(pack: HeadPack, middle: tuple[float, float], half: float, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maps over a square of the canonical plane.

    Args:
        pack: whose mean head.
        middle, half: the square.
        size: cells per side.

    Returns:
        depth [1, size, size], canonical z; support, 1 where there is skin and 0 beyond its border, [1, size, size];
        and what every channel of the dynamics moves, [59, 3, size, size].
    """
    flip = torch.tensor([1.0, -1.0, -1.0])
    kinds = torch.tensor([pack.materials.index(name) for name in _SKIN])
    turning = (neck_follow(pack.neutral)[pack.faces] > _TURNING).all(1)
    skin = pack.faces[torch.isin(pack.face_material, kinds) & turning]
    corners = skin.unique()

    def points(vertices: Tensor) -> Tensor:
        """Corners and middles of the triangles, which on a forehead are wide, [..., V, 3] -> [..., N, 3]."""
        return torch.cat([vertices[..., corners, :], vertices[..., skin, :].mean(-2)], dim=-2)

    place = points(pack.neutral - torch.tensor(HEAD_CENTRE_CM)) / CANONICAL_CM * flip
    moved = points(pack.expression) / CANONICAL_CM * flip
    grid = identity_grid((size, size)).flatten(0, 1) * half + torch.tensor(middle)
    away = torch.cdist(grid, place[:, :2]) / max(2 * half / (size - 1), 0.025)
    near = torch.where(away < 2, torch.exp(-0.5 * away.square()), 0.0)
    # of what lies behind one another the front is seen
    nearest = torch.where(near > 0, place[:, 2], torch.inf).amin(1, keepdim=True)
    share = near * (place[:, 2] < nearest + _SKIN_DEPTH)
    total = share.sum(1, keepdim=True)
    share, support = share / total.clamp_min(1e-9), (total[:, 0] > 0).float()
    depth = torch.where(support > 0, share @ place[:, 2], _BEHIND)
    fields = (moved.movedim(-1, 1) @ share.T) * support
    fields = torch.cat([fields, fields.new_zeros(len(DYNAMICS) - len(fields), *fields.shape[1:])])
    return tuple(x.unflatten(-1, (size, size)) for x in (depth[None], support[None], fields))
