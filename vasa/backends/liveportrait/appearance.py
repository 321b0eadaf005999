"""F: a picture -> the appearance volume."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import RendererConfig
from .layers import ConvReLU, Halving


class Affine(nn.Module):
    """A batch norm with fixed statistics that no convolution could take in: scale and shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, 1, 1, 1)
        return torch.addcmul(self.bias.to(x.dtype).view(shape), x, self.weight.to(x.dtype).view(shape))


class VolumeBlock(nn.Module):
    """Residual block: norm (an affine map, as its statistics are fixed), ReLU, conv, ReLU, conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = Affine(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(h))


class AppearanceExtractor(nn.Module):
    """[N, 3, S, S] in [0, 1] -> volume [N, C, D, S / 4, S / 4]."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        most, widths = config.feature_dim, [config.width * 2**i for i in range(config.halvings + 1)]
        widths = [min(most, width) for width in widths]
        self.first = ConvReLU(3, widths[0])
        self.down_blocks = nn.ModuleList(Halving(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.second = nn.Conv2d(widths[-1], most, 1)
        self.resblocks_3d = nn.ModuleDict(
            {f"3dr{i}": VolumeBlock(config.volume_channels) for i in range(config.resblocks)}
        )

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.first(pictures)
        for block in self.down_blocks:
            x = block(x)
        x = self.second(x).unflatten(1, (self.config.volume_channels, self.config.volume_depth))
        for block in self.resblocks_3d.values():
            x = block(x)
        return x
