"""The face reader: what a picture of a face shows, in one pass.

A first trunk finds the head (pose) in the whole picture; by that pose the face is cut out upright, and mouth, eyes and
brows from near, and further trunks read them: landmarks, expression, gaze, emotion, identity, regions. Trained on
rendered people, it refines crops, labels real video, and scores the face model. Not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ReaderConfig
from ..latents import DYNAMICS, EMOTIONS
from .blocks import NormAct, ResBlock, Trunk, resize_pictures
from .encoder import align_face, align_grid
from .near import MARKS, PatchTrunks, near_head

NUM_PARTS = 9


@dataclass(frozen=True)
class Reading:
    """What the reader saw.

    Attributes:
        head_pose: (yaw, pitch, roll, t_x, t_y, log_s), [B, 6].
        dynamics: expression weights and eye-in-head rotation, [B, 59]; see `vasa.latents.DYNAMICS`.
        landmarks: picture positions in [-1, 1], [B, 68, 2] (iBUG order).
        emotion: log-probabilities over `vasa.latents.EMOTIONS`, [B, 8].
        identity: unit vector, [B, 64]; cosine similarity compares people.
        parts: region logits of the aligned crop, [B, 9, 16, 16].
    """

    head_pose: Tensor
    dynamics: Tensor
    landmarks: Tensor
    emotion: Tensor
    identity: Tensor
    parts: Tensor

    @property
    def mouth_opening(self) -> Tensor:
        """Distance of the inner lips over the width of the face, [B]."""
        upper, lower = self.landmarks[:, 61:64].mean(1), self.landmarks[:, 65:68].mean(1)
        width = (self.landmarks[:, 16] - self.landmarks[:, 0]).norm(dim=-1)
        return (upper - lower).norm(dim=-1) / width.clamp_min(1e-3)


class FaceReader(nn.Module):
    """Pictures [B, 3, S, S] in [0, 1] -> `Reading`."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        g = config.group_width
        self.locate = Trunk(config.locate, g)
        self.locate_head = nn.Linear(self.locate.channels * 16, 6)
        c = 12
        self.stages = nn.ModuleList()
        for width in config.widths:
            self.stages.append(ResBlock(c, width, g))
            c = width
        self.norm = NormAct(c, g)
        self.parts = nn.Sequential(NormAct(config.widths[1], g), nn.Conv2d(config.widths[1], NUM_PARTS, 3, padding=1))
        self.summary = nn.Linear(c * 16, config.summary)
        self.near = PatchTrunks(config.patches, g, config.brows, config.closeness)
        flat = config.summary + self.near.channels
        self.pose = nn.Linear(flat, 6)
        found = [] if self.near.brows is None else MARKS
        others = [i for i in range(68) if i not in found]
        self.order = [[*others, *found].index(i) for i in range(68)]
        self.landmarks = nn.Linear(flat, len(others) * 2)
        self.dynamics = nn.Linear(flat, len(DYNAMICS))
        self.fine = near_head(self.near.channels, len(DYNAMICS) + len(EMOTIONS)) if found else None
        self.emotion = nn.Linear(flat, len(EMOTIONS))
        self.identity = nn.Linear(flat, config.identity_dim)
        # corrections of what another part says
        corrections = [self.pose] if self.fine is None else [self.pose, self.dynamics, self.emotion]
        for layer in corrections:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def find(self, pictures: Tensor) -> Tensor:
        """Rough head pose from the whole picture alone, [B, 6]."""
        return self.locate_head(self.locate(pictures).flatten(1)).float()

    def features(self, pictures: Tensor, head_pose: Tensor) -> list[Tensor]:
        """Feature maps of the aligned crop, fine to coarse; the perceptual loss compares them."""
        crop = align_face(pictures, head_pose, self.config.crop_size)
        x, maps = F.pixel_unshuffle(crop * 2 - 1, 2), []
        for stage in self.stages:
            x = F.avg_pool2d(stage(x), 2)
            maps.append(x)
        return maps

    def forward(self, pictures: Tensor, head_pose: Tensor | None = None) -> Reading:
        """Read pictures; `head_pose` replaces the reader's own rough pose as the crop's frame (training)."""
        rough = self.find(pictures) if head_pose is None else head_pose
        maps = self.features(pictures, rough.detach())
        whole = F.silu(self.summary(F.adaptive_avg_pool2d(self.norm(maps[-1]), 4).flatten(1)))
        near, marks = self.near(pictures, rough.detach())
        flat = torch.cat([whole, near], dim=-1)
        landmarks = _to_picture(self.landmarks(flat).float().unflatten(-1, (-1, 2)), rough.detach())
        dynamics, emotion = self.dynamics(flat).float(), self.emotion(flat).float()
        if self.fine is not None:
            landmarks = torch.cat([landmarks, marks], dim=1)[:, self.order]
            fine = self.fine(near).float()
            dynamics, emotion = dynamics + fine[:, : len(DYNAMICS)], emotion + fine[:, len(DYNAMICS) :]
        return Reading(
            head_pose=rough + self.pose(flat).float(),
            dynamics=dynamics,
            landmarks=landmarks,
            emotion=emotion.log_softmax(-1),
            identity=F.normalize(self.identity(flat).float(), dim=-1),
            parts=self.parts(maps[1]).float(),
        )


def _to_picture(local: Tensor, head_pose: Tensor) -> Tensor:
    """Crop positions -> picture positions; the aligned grid is affine, so its corners define the map."""
    corners = align_grid(head_pose, 2)  # [B, 2, 2, 2]
    origin = corners.mean((1, 2))
    right = (corners[:, 0, 1] - corners[:, 0, 0]) / 2
    down = (corners[:, 1, 0] - corners[:, 0, 0]) / 2
    return origin[:, None] + local[..., :1] * right[:, None] + local[..., 1:] * down[:, None]


def read_pictures(reader: FaceReader, pictures: Tensor, batch_size: int = 32) -> Reading:
    """Read many pictures [N, 3, S, S] in batches, without gradients."""
    with torch.inference_mode():
        parts = [reader(resize_pictures(p, min(p.shape[-1], 256))) for p in pictures.split(batch_size)]
    return Reading(*(torch.cat([getattr(r, f) for r in parts]) for f in Reading.__dataclass_fields__))
