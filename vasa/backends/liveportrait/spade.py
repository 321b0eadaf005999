"""G: the warped feature map -> a picture, by residual blocks whose norms follow the feature map everywhere (SPADE).

Every norm of a block needs a hidden map made from the same features; those of the blocks at the feature map's own
size are one convolution here. The larger blocks see the features repeated 2 x 2 and 4 x 4 (`layers.Repeated`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import RendererConfig
from .layers import Repeated

MIDDLE = 6
"""Blocks at the feature map's own size."""
_SLOPE = 0.2


class Modulation(nn.Module):
    """The hidden map -> 1 + gamma and beta, [N, C, H, W] each."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(hidden, 2 * channels, 3, padding=1)

    def forward(self, normalised: Tensor, hidden: Tensor) -> Tensor:
        scale, shift = self.conv(hidden).chunk(2, dim=1)
        return torch.addcmul(shift, normalised, scale)


class SpadeBlock(nn.Module):
    """Residual block of two modulated convolutions."""

    def __init__(self, c_in: int, c_out: int, hidden: int) -> None:
        super().__init__()
        middle = min(c_in, c_out)
        self.norm_0, self.norm_1 = Modulation(hidden, c_in), Modulation(hidden, middle)
        self.conv_0 = nn.Conv2d(c_in, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, c_out, 3, padding=1)
        self.norm_s = Modulation(hidden, c_in) if c_in != c_out else None
        self.conv_s = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else None

    @property
    def norms(self) -> int:
        """How many hidden maps the block takes."""
        return 2 if self.norm_s is None else 3

    def forward(self, x: Tensor, hidden: tuple[Tensor, ...]) -> Tensor:
        normalised = F.instance_norm(x)
        h = self.conv_0(F.leaky_relu(self.norm_0(normalised, hidden[0]), _SLOPE, inplace=True))
        h = self.conv_1(F.leaky_relu(self.norm_1(F.instance_norm(h), hidden[1]), _SLOPE, inplace=True))
        return h + (x if self.conv_s is None else self.conv_s(self.norm_s(normalised, hidden[2])))


class SpadeDecoder(nn.Module):
    """[N, F, H, W] -> pictures [N, 3, S, S] in [0, 1]."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        width, hidden, out = config.label_dim, config.label_width, config.width
        self.fc = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.middle = nn.ModuleList(SpadeBlock(2 * width, 2 * width, hidden) for _ in range(MIDDLE))
        self.middle_hidden = nn.Conv2d(width, 2 * MIDDLE * hidden, 3, padding=1)
        self.up_0 = SpadeBlock(2 * width, width, hidden)
        self.up_0_hidden = Repeated(width, 3 * hidden, dims=2, times=2)
        self.up_1 = SpadeBlock(width, out, hidden)
        self.up_1_hidden = Repeated(width, 3 * hidden, dims=2, times=4)
        self.conv_img = nn.Conv2d(out, 3 * config.shuffle**2, 3, padding=1)
        self.shuffle = config.shuffle

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.middle_hidden(features)).chunk(2 * MIDDLE, dim=1)
        x = self.fc(features)
        for i, block in enumerate(self.middle):
            x = block(x, hidden[2 * i : 2 * i + 2])
        for block, make_hidden in ((self.up_0, self.up_0_hidden), (self.up_1, self.up_1_hidden)):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(x, make_hidden(features).chunk(3, dim=1))
        x = self.conv_img(F.leaky_relu(x, _SLOPE))
        return torch.sigmoid(F.pixel_shuffle(x, self.shuffle) if self.shuffle > 1 else x)
