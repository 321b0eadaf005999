"""Pose and dynamics -> warping fields; the canonical volume and its 3D network (VASA-1, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FaceConfig
from .blocks import Modulations, NormAct, ResBlock, enlarge_nearest


class WarpEmbedding(nn.Module):
    """(z_dyn, z_id) -> the 4x4 map and the code that drive a warp generator, E = conv((dyn + id) / 2).

    Args:
        config: sizes.
        num_poses: head poses that join in where the configuration is pose-aware: neck and shoulders do not turn with
            the head, so how far it turns says how they bend.
    """

    def __init__(self, config: FaceConfig, num_poses: int = 1) -> None:
        super().__init__()
        width = config.warp_width
        self.dynamics = nn.Linear(config.dynamics_dim, width * 16)
        self.identity = nn.Conv2d(config.identity_channels, width, 1)
        self.mix = nn.Conv2d(width, width, 1)
        self.poses = nn.Linear(6 * num_poses, width * 16) if config.pose_aware else None
        if self.poses is not None:
            nn.init.zeros_(self.poses.weight)
            nn.init.zeros_(self.poses.bias)

    def forward(self, facial_dynamics: Tensor, identity_code: Tensor, poses: Tensor) -> Tensor:
        """[B, E], [B, I, 4, 4] and poses [B, 6 * num_poses] -> [B, width, 4, 4]."""
        dynamics = self.dynamics(facial_dynamics)
        if self.poses is not None:
            dynamics = dynamics + self.poses(poses)
        return self.mix((dynamics.unflatten(-1, (-1, 4, 4)) + self.identity(identity_code)) / 2)


class WarpGenerator(nn.Module):
    """W: non-rigid displacement field of the volume, [B, width, 4, 4] -> [B, 3, D, H, W] in unit-cube lengths.

    The last convolution starts at zero, so training starts from the purely rigid warp.
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        g = config.group_width
        depth = config.volume_depth
        for factor, _ in config.warp_upsamples:
            depth //= factor
        self.start_depth = max(1, depth)
        self.start = nn.Conv2d(config.warp_width, config.warp_widths[0] * self.start_depth, 1)
        c = config.warp_widths[0]
        self.blocks = nn.ModuleList()
        for width in config.warp_widths:
            self.blocks.append(ResBlock(c, width, g, dims=3, code_dim=config.warp_width))
            c = width
        self.upsamples = config.warp_upsamples
        self.norm = NormAct(c, g)
        self.codes: Modulations | None = None
        self.head = nn.Conv3d(c, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        code = embedding.mean((-2, -1))
        if self.codes is not None:
            code = self.codes(code)
        x = self.start(embedding).unflatten(1, (-1, self.start_depth))
        x, factors = self.blocks[0](x, code), self._factors()
        for block, larger in zip(self.blocks[1:], factors, strict=False):
            x = block.enlarged(x, larger, code)
        return torch.tanh(self.head(self.norm(enlarge_nearest(x, factors[-1]))).float())

    def _factors(self) -> list[tuple[int, int, int]]:
        return [(deep, wide, wide) for deep, wide in self.upsamples]

    def fold(self, dtype: torch.dtype) -> None:
        """Make enlarging part of the convolutions behind it, and one layer of all modulations; weights must not change
        afterwards."""
        self.codes = Modulations(self)
        for block, larger in zip(self.blocks[1:], self._factors(), strict=False):
            if set(larger) <= {1, 2} and larger != (1, 1, 1):
                block.fold(larger, dtype)


class CanonicalUNet(nn.Module):
    """G3D: refines the canonical volume, [B, C, D, H, W] -> same.

    Each level: residual block, (residual block on) skip, resampling; depth may grow where height and width shrink.
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        g = config.group_width
        widths = config.unet_widths
        steps = list(zip(widths, widths[1:], strict=False))
        self.scales = config.unet_scales
        self.down = nn.ModuleList(ResBlock(a, b, g, dims=3) for a, b in steps)
        self.skip = nn.ModuleList(
            ResBlock(b, b, g, dims=3) if config.unet_skip_blocks else nn.Identity() for _, b in steps
        )
        self.middle = ResBlock(widths[-1], widths[-1], g, dims=3)
        self.up = nn.ModuleList(ResBlock(b, a, g, dims=3) for a, b in steps)
        self.norm = NormAct(widths[0], g)
        self.head = nn.Conv3d(widths[0], widths[0], 3, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        skips, x = [], volume
        for block, skip, (deep, wide) in zip(self.down, self.skip, self.scales, strict=True):
            x = block(x)
            skips.append(skip(x))
            size = [max(1, round(x.shape[2] * deep)), round(x.shape[3] * wide), round(x.shape[4] * wide)]
            if deep > 1:
                x = F.interpolate(x, size=(size[0], *x.shape[3:]), mode="nearest")
            x = F.adaptive_avg_pool3d(x, size)
        x = self.middle(x)
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = block(F.interpolate(x, size=skip.shape[2:], mode="nearest") + skip)
        return self.head(self.norm(x))
