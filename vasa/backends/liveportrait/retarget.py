"""S and R: small networks that join the animated head to its shoulders, and open or close eyes and lips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import EXPRESSION_DIM

SIZES: dict[str, tuple[int, ...]] = {
    "stitching": (2 * EXPRESSION_DIM, 128, 128, 64, EXPRESSION_DIM + 2),
    "lip": (EXPRESSION_DIM + 2, 128, 128, 64, EXPRESSION_DIM),
    "eye": (EXPRESSION_DIM + 3, 256, 256, 128, 128, 64, EXPRESSION_DIM),
}
"""Widths of each network, from its input to its output."""


class Retargeting(nn.Module):
    """The three networks. Keypoints are [N, K, 3]."""

    def __init__(self) -> None:
        super().__init__()
        for name, widths in SIZES.items():
            layers: list[nn.Module] = []
            for a, b in zip(widths[:-1], widths[1:], strict=True):
                layers += [nn.Linear(a, b), nn.ReLU()]
            setattr(self, name, nn.Module())
            getattr(self, name).mlp = nn.Sequential(*layers[:-1])

    def stitched(self, source: Tensor, driving: Tensor) -> Tensor:
        """Driving keypoints whose shoulders stay where the portrait's are."""
        source = source.expand_as(driving)
        moved = self.stitching.mlp(torch.cat([source.flatten(1), driving.flatten(1)], dim=1).float())
        shift = torch.nn.functional.pad(moved[:, None, EXPRESSION_DIM:], (0, 1))
        return driving + moved[:, :EXPRESSION_DIM].unflatten(1, (-1, 3)) + shift

    def eyes(self, source: Tensor, ratios: Tensor) -> Tensor:
        """Movement that opens the eyes as far as asked.

        Args:
            source: the portrait's keypoints.
            ratios: height over width of (left eye, right eye) as they are and of both as they should be, [N, 3].
        """
        return self.eye.mlp(torch.cat([source.flatten(1), ratios], dim=1)).unflatten(1, (-1, 3))

    def lips(self, source: Tensor, ratios: Tensor) -> Tensor:
        """Movement that opens the lips as far as asked; ratios (as they are, as they should be), [N, 2]."""
        return self.lip.mlp(torch.cat([source.flatten(1), ratios], dim=1)).unflatten(1, (-1, 3))
