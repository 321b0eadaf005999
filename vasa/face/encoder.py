"""Portrait -> appearance volume, identity code, head pose and facial dynamics (VASA-1, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import FaceConfig
from ..geometry import identity_grid, moved_by, rotation, times
from .blocks import NormAct, ResBlock, Trunk, resize_pictures
from .near import PatchTrunks, near_head

FACE_CENTRE = (0.0, 0.2, -0.4)
"""Middle of the face (between the eyes and the chin, on the surface) in canonical coordinates."""
FACE_HALF_WIDTH = 0.62
"""Half the edge of the pose-aligned crop, canonical units."""


class AppearanceEncoder(nn.Module):
    """E_app: the posed appearance volume, [B, 3, S, S] -> [B, C, D, H, W] (MegaPortraits, figure 9)."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        g = config.group_width
        self.unshuffle = config.stem_unshuffle
        self.depth = config.volume_depth
        c = config.stem_width
        self.stem = nn.Conv2d(3 * self.unshuffle**2, c, config.stem_kernel, padding=config.stem_kernel // 2, bias=False)
        blocks: list[nn.Module] = []
        for i, width in enumerate(config.appearance_widths):
            blocks.append(ResBlock(c, width, g))
            if i < config.appearance_pools:
                blocks.append(nn.AvgPool2d(2))
            c = width
        out = config.volume_channels * config.volume_depth
        self.body = nn.Sequential(*blocks, NormAct(c, g), nn.Conv2d(c, out, 1))
        self.body3d = nn.Sequential(
            *(
                ResBlock(config.volume_channels, config.volume_channels, g, dims=3)
                for _ in range(config.appearance_blocks3d)
            )
        )

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures * 2 - 1
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)
        x = self.body(self.stem(x))
        return self.body3d(rearrange(x, "b (c d) h w -> b c d h w", d=self.depth))


class IdentityEncoder(nn.Module):
    """E_id: identity code z_id, [B, 3, S, S] -> [B, I, 4, 4]."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config.identity_trunk, config.group_width)
        self.head = nn.Conv2d(self.trunk.channels, config.identity_channels, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.trunk(pictures))


class PoseEncoder(nn.Module):
    """E_pose: head pose z_pose, [B, 3, S, S] -> [B, 6] float32."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.trunk = Trunk(config.pose_trunk, config.group_width)
        self.head = nn.Linear(self.trunk.channels * 16, 6)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.trunk(pictures).flatten(1)).float()


class DynamicsEncoder(nn.Module):
    """E_dyn: facial dynamics z_dyn from a crop aligned by the head pose, [B, 3, S, S] + [B, 6] -> [B, E] float32.

    The crop undoes translation, scale and in-plane rotation, so that pose has no way into the code
    (EMOPortraits' expression embedder).
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.trunk, features = None, 0
        if config.dynamics_trunk.kind != "none":
            self.trunk = Trunk(config.dynamics_trunk, config.group_width)
            features = self.trunk.channels * 16
        self.near = self.fine = None
        if config.dynamics_patches.kind != "none":
            g, closeness = config.group_width, config.closeness
            self.near = PatchTrunks(config.dynamics_patches, g, config.dynamics_brows, closeness)
            features += self.near.channels
            if self.near.brows is not None:
                self.fine = near_head(self.near.channels, config.dynamics_dim)
        self.head = None
        if self.fine is None or self.trunk is not None:
            self.head = nn.Linear(features, config.dynamics_dim)
        if self.fine is not None and self.head is not None:  # whose corrections it then makes
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, pictures: Tensor, head_pose: Tensor) -> Tensor:
        return self.look(pictures, head_pose)[0]

    def look(self, pictures: Tensor, head_pose: Tensor) -> tuple[Tensor, Tensor | None]:
        """Dynamics, and the landmarks `near.MARKS` in the picture where the configuration finds them, [B, 42, 2]."""
        features, marks, dynamics = [], None, 0.0
        if self.trunk is not None:
            features.append(self.trunk(align_face(pictures, head_pose, self.trunk.config.input_size)).flatten(1))
        if self.near is not None:
            near, marks = self.near(pictures, head_pose)
            features.append(near)
            if self.fine is not None:
                dynamics = self.fine(near).float()
        if self.head is not None:
            dynamics = dynamics + self.head(torch.cat(features, dim=-1)).float()
        return dynamics, marks


def align_face(pictures: Tensor, head_pose: Tensor, size: int) -> Tensor:
    """Cut the face out upright, centred and at one scale.

    Args:
        pictures: [B, 3, S, S].
        head_pose: pose of the head in each picture, [B, 6].
        size: edge of the crop in pixels.

    Returns:
        [B, 3, size, size], dtype of `pictures`; outside the picture the border is repeated.
    """
    grid = align_grid(head_pose, size)
    if size * 2 <= pictures.shape[-1] * FACE_HALF_WIDTH:
        pictures = resize_pictures(pictures, pictures.shape[-1] // 2)
    cut = F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=True)
    return cut.to(pictures.dtype)


def align_grid(head_pose: Tensor, size: int) -> Tensor:
    """Picture positions of the aligned crop's pixels, [B, 6] -> [B, size, size, 2]."""
    head_pose = head_pose.float()
    scale = head_pose[:, 5].exp()
    centre = times(rotation(head_pose[:, :3]), head_pose.new_tensor(FACE_CENTRE))[:, :2]
    centre = scale[:, None] * centre + head_pose[:, 3:5]
    sin, cos = head_pose[:, 2].sin(), head_pose[:, 2].cos()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [B, 2, 2]
    turn = turn * (scale * FACE_HALF_WIDTH)[:, None, None]
    square = identity_grid((size, size), head_pose.device).movedim(-1, 0)
    return moved_by(torch.cat([turn, centre[..., None]], dim=-1), square[None]).movedim(1, -1)
