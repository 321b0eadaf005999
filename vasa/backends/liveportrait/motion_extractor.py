"""M: a picture -> canonical keypoints, head pose and expression (a ConvNeXt-V2 with seven linear heads)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import EXPRESSION_DIM, RendererConfig
from .keypoints import angle_of, head_pose_of

HEADS = {"kp": EXPRESSION_DIM, "scale": 1, "t": 3, "exp": EXPRESSION_DIM}
"""Outputs that are numbers, not bins."""
_EPS = 1e-6


@dataclass(frozen=True)
class Reading:
    """What M sees in pictures.

    Attributes:
        canonical: keypoints of the face at rest, [N, K, 3].
        head_pose: (yaw, pitch, roll, t_x, t_y, log_s), [N, 6].
        delta: expression, [N, 3 K].
    """

    canonical: Tensor
    head_pose: Tensor
    delta: Tensor


class ResponseNorm(nn.Module):
    """Global response normalisation of ConvNeXt-V2, channels last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        response = energy / (energy.mean(-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.beta, x, self.gamma * response + 1)


class Block(nn.Module):
    """Depthwise 7 x 7, LayerNorm, and a gated-by-energy feedforward, residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.grn = ResponseNorm(4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        h = self.pwconv2(self.grn(F.gelu(self.pwconv1(h))))
        return x + h.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [N, C, H, W]."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Backbone(nn.Module):
    """ConvNeXt-V2 and the heads on its pooled features."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        widths = config.backbone_widths
        stages = [nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), ChannelNorm(widths[0]))]
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            stages.append(nn.Sequential(ChannelNorm(a), nn.Conv2d(a, b, 2, stride=2)))
        self.downsample_layers = nn.ModuleList(stages)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width) for _ in range(depth)))
            for width, depth in zip(widths, config.backbone_depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=_EPS)
        for name, size in HEADS.items():
            setattr(self, f"fc_{name}", nn.Linear(widths[-1], size))
        for name in ("pitch", "yaw", "roll"):
            setattr(self, f"fc_{name}", nn.Linear(widths[-1], config.angle_bins))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        x = self.norm(x.mean((-2, -1)))
        return {name: getattr(self, f"fc_{name}")(x) for name in (*HEADS, "pitch", "yaw", "roll")}


class MotionExtractor(nn.Module):
    """Pictures [N, 3, S, S] in [0, 1] -> `Reading`."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.detector = Backbone(config)

    def forward(self, pictures: Tensor) -> Reading:
        seen = {name: value.float() for name, value in self.detector(pictures).items()}
        angles = [angle_of(seen[name]) for name in ("yaw", "pitch", "roll")]
        pose = head_pose_of(torch.stack(angles, dim=-1), seen["scale"], seen["t"][:, :2])
        return Reading(seen["kp"].unflatten(-1, (-1, 3)), pose, seen["exp"])
