"""The mean face's surface: where a pixel of it comes from in the portrait follows from poses and expressions alone.

Not in the paper. A network that has to find this out learns for days what geometry knows: with the surface of the mean
head half of the skin is found to 1.3 pixels of 256 on people never seen (docs/log.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FaceConfig
from ..geometry import (
    identity_grid,
    in_perspective,
    inverse_pose_matrix,
    moved_in_space,
    out_of_perspective,
    pose_matrix,
    times,
)  # fmt: skip

MIDDLE, HALF = (0.0, 0.0), 1.1
"""The square over the canonical plane that the maps cover."""
_START = -0.4
"""Where rays begin to look for the surface, canonical z."""
_STEPS = 10
_TOUCHING = 0.04
"""A ray has met the surface where it is nearer than this, canonical units."""


class MeanSurface(nn.Module):
    """Depths of the mean face seen from the front, and fields B_e that every channel of the dynamics moves it by.

    Attributes:
        depth: canonical z, [1, n, n].
        support: where there is a surface, [1, n, n].
        fields: [E, 3, m, m].
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        n, m = config.surface, config.surface_fields
        self.depth = nn.Parameter(torch.full((1, n, n), _START))
        self.fields = nn.Parameter(torch.zeros(config.dynamics_dim, 3, m, m))
        self.register_buffer("support", torch.ones(1, n, n))

    def fill(self, depth: Tensor, support: Tensor, fields: Tensor) -> None:
        """Start from a known surface, of maps at any size."""
        with torch.no_grad():
            for own, given in ((self.depth, depth[None]), (self.support, support[None]), (self.fields, fields)):
                given = F.interpolate(given, size=own.shape[-2:], mode="bilinear", align_corners=True)
                own.copy_(given.view_as(own))

    def forward(
        self, source_pose: Tensor, source_dynamics: Tensor, head_pose: Tensor, dynamics: Tensor, closeness: Tensor,
        size: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Where the pixels of a driving picture come from in the portrait, if they show the mean face.

        A ray through the pixel meets the surface where depths agree; expressions move that point in the head.

        Args:
            source_pose, source_dynamics: the portrait's, [B or 1, 6] and [B or 1, E].
            head_pose, dynamics: the driving ones, [B, 6] and [B, E].
            closeness: of the camera, [B].
            size: s, edge of the answer.

        Returns:
            flow [B, 2, s, s] in [-1, 1], and how far the ray met the surface, [B, 1, s, s] in [0, 1].
        """
        b, s = len(head_pose), size
        back, there = inverse_pose_matrix(head_pose), pose_matrix(source_pose)
        here, apart = self._moved(dynamics), self._moved(source_dynamics - dynamics)
        ground = torch.cat([self.depth, self.support])[None]
        steep = 1 / back[:, 2, 2].clamp_min(0.3)[:, None, None, None]

        def met(z: Tensor) -> tuple[Tensor, ...]:
            """Depth of the pixels -> the point, where it is at rest, what the maps say there, how much deeper it is."""
            pixels = identity_grid(z.shape[2:], z.device).movedim(-1, 0)[None].expand(b, -1, -1, -1)
            point = moved_in_space(back, out_of_perspective(torch.cat([pixels, z], dim=1), closeness))
            rest = point - self._at(here, point)
            rest = point - (moved := self._at(here, rest))
            found = self._at(ground, rest)
            return point, rest, found, found[:, :1] + moved[:, 2:] - point[:, 2:]

        z = (_START * head_pose[:, 5].float().exp())[:, None, None, None].expand(-1, 1, s // 2, s // 2)
        with torch.no_grad():
            for _ in range(_STEPS):  # in a picture of half the size, then in the whole
                z = z + 0.6 * steep * met(z)[-1]
            z = F.interpolate(z, size=(s, s), mode="bilinear", align_corners=True)
            z = z + 0.8 * steep * met(z)[-1]
        z = z + steep * met(z)[-1]  # one step that gradients see
        point, rest, found, deeper = met(z)
        seen = in_perspective(moved_in_space(there, point + self._at(apart, rest)), closeness)[:, :2]
        touching = torch.exp(-(deeper.detach() / _TOUCHING).square())
        return seen, (found[:, 1:] * touching).clamp(0, 1)

    def _moved(self, dynamics: Tensor) -> Tensor:
        return times(self.fields.float().flatten(1).T, dynamics.float()).unflatten(1, self.fields.shape[1:])

    @staticmethod
    def _at(maps: Tensor, places: Tensor) -> Tensor:
        """Maps [B or 1, C, n, n] at canonical places [B, 3, H, W]; beyond the square as at its border."""
        local = (places[:, :2] - places.new_tensor(MIDDLE)[:, None, None]) / HALF
        maps = maps.expand(len(places), -1, -1, -1)
        return F.grid_sample(maps, local.movedim(1, -1), padding_mode="border", align_corners=True)
