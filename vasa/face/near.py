"""Mouth, eyes and brows seen from near: features, and where their landmarks are. E_dyn and the face reader look so.

Not in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TrunkConfig
from ..geometry import identity_grid, times
from .blocks import NormAct, Trunk
from .patches import BROWS, EYES, MOUTH, Patch, cut_patch, patch_affine, to_picture, view_of

MARKS = [*range(17, 27), *range(36, 68)]
"""Landmarks that are found from near: brows, eyes, mouth (iBUG order)."""
_MOUTH_MARKS = tuple(range(48, 68))
# the person's left side, then, in the same order, its twins on the right
_EYE_MARKS = ((42, 43, 44, 45, 46, 47), (39, 38, 37, 36, 41, 40))
_BROW_MARKS = ((22, 23, 24, 25, 26), (21, 20, 19, 18, 17))


class PatchTrunks(nn.Module):
    """Mouth, eyes and, if asked for, brows seen from near: pictures [B, 3, S, S] and poses [B, 6] -> [B, channels].

    Lids, lips and brows move by a few pixels; in the crop of the whole face that is less than one feature. With brows
    also the picture positions of the landmarks `MARKS`, [B, 42, 2]; their places in the patches are among the channels.
    """

    _MOUTH, _EYE, _BROW = 112, 64, 48

    def __init__(self, config: TrunkConfig, group_width: int, brows: TrunkConfig, closeness: float = 0.0) -> None:
        super().__init__()
        self.closeness = closeness
        finds = brows.kind != "none"

        def trunk(config: TrunkConfig, marks: int) -> Trunk:
            return MarkTrunk(config, group_width, marks) if finds else Trunk(config, group_width)

        self.mouth, self.eyes = trunk(config, len(_MOUTH_MARKS)), trunk(config, len(_EYE_MARKS[0]))
        self.mouth_head = nn.Linear(self.mouth.channels * 16, self._MOUTH)
        self.eye_head = nn.Linear(self.eyes.channels * 16, self._EYE)
        self.size = config.input_size
        self.channels = self._MOUTH + 2 * self._EYE
        self.brows = None
        if finds:
            self.brows = trunk(brows, len(_BROW_MARKS[0]))
            self.brow_head = nn.Linear(self.brows.channels * 16, self._BROW)
            self.channels += 2 * self._BROW + 2 * len(MARKS)

    def forward(self, pictures: Tensor, head_pose: Tensor) -> tuple[Tensor, Tensor | None]:
        places = []
        features = [self._see(self.mouth, self.mouth_head, (MOUTH,), pictures, head_pose, places)]
        features.append(self._see(self.eyes, self.eye_head, EYES, pictures, head_pose, places))
        if self.brows is None:
            return F.silu(torch.cat(features, dim=-1)), None
        features.append(self._see(self.brows, self.brow_head, BROWS, pictures, head_pose, places))
        patches, order = (MOUTH, *EYES, *BROWS), [*_MOUTH_MARKS, *sum(_EYE_MARKS + _BROW_MARKS, ())]
        marks = [
            to_picture(p.mT[..., None], patch_affine(self._view(head_pose, patch), patch))
            for p, patch in zip(places, patches, strict=True)
        ]
        found = torch.cat(marks, dim=2)[..., 0].mT[:, [order.index(i) for i in MARKS]]
        near = F.silu(torch.cat(features, dim=-1))
        return torch.cat([near, *(4 * p.flatten(1).to(near.dtype) for p in places)], dim=-1), found

    def _see(
        self, trunk: Trunk, head: nn.Linear, patches: tuple[Patch, ...], pictures: Tensor, head_pose: Tensor,
        places: list[Tensor],
    ) -> Tensor:  # fmt: skip
        """Features of a patch, or of two that mirror each other, side by side; landmarks found go into `places`."""
        views = [self._view(head_pose, patch) for patch in patches]
        cut = torch.cat([cut_patch(pictures, v, p, self.size) for v, p in zip(views, patches, strict=True)])
        if isinstance(trunk, MarkTrunk):
            cells, found = trunk.find(cut)
            places += found.chunk(len(patches))
        else:
            cells = trunk(cut)
        return torch.cat(head(cells.flatten(1)).chunk(len(patches)), dim=-1)

    def _view(self, head_pose: Tensor, patch: Patch) -> Tensor:
        """A patch as the average camera sees it: how near it was is not known yet."""
        return view_of(head_pose, patch, head_pose.new_full((len(head_pose),), self.closeness))


class MarkTrunk(Trunk):
    """A trunk that also finds landmarks: where, on average, a map of every landmark is warm (soft-argmax).

    A linear layer over 4x4 cells learns a position for each of its appearances; a map learns the appearance once.
    """

    def __init__(self, config: TrunkConfig, group_width: int, marks: int) -> None:
        super().__init__(config, group_width)
        fine, coarse = config.widths[-2:]
        self.spread = nn.Conv2d(coarse, fine, 1)
        self.maps = nn.Sequential(NormAct(fine, group_width), nn.Conv2d(fine, marks, 3, padding=1))

    def find(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> cells [B, channels, 4, 4] and positions in [-1, 1], [B, marks, 2] float32."""
        *early, pool, last, _, norm = self.body
        x = self.prepared(pictures)
        for layer in early:
            x = layer(x)
        coarse = last(pool(x))
        maps = self.maps(x + F.interpolate(self.spread(coarse), size=x.shape[-2:], mode="nearest")).float()
        # a cell stands for the middle of the pixels it was pooled from
        size = self.config.input_size
        middle = identity_grid(maps.shape[-2:], maps.device) * (size - size // maps.shape[-1]) / (size - 1)
        places = times(middle.flatten(0, 1).T, maps.flatten(2).softmax(-1))
        return F.adaptive_avg_pool2d(norm(F.avg_pool2d(coarse, 2)), 4), places


def near_head(channels: int, out: int) -> nn.Sequential:
    """What is seen from near -> dynamics: how high a brow is follows from where it lies over the eye, not linearly."""
    return nn.Sequential(nn.Linear(channels, 96), nn.SiLU(), nn.Linear(96, out))
