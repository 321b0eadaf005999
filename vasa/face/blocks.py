"""Residual and upsampling blocks shared by the encoders, the warps and the decoder.

Pre-activation throughout: GroupNorm - SiLU - conv 3 - GroupNorm - SiLU - conv 3, bias-free, with a 1x1 skip where
the channel count changes (MegaPortraits, appendix A; SiLU for its ReLU).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TrunkConfig
from ..kernels.dispatch import group_norm_silu


def num_groups(channels: int, group_width: int) -> int:
    """Groups of `group_width` channels, or one group where the channels do not divide."""
    return channels // group_width if channels % group_width == 0 else 1


class NormAct(nn.Module):
    """GroupNorm and SiLU; with a code, the norm's scale and shift follow it (zero-initialised)."""

    def __init__(self, channels: int, group_width: int, code_dim: int = 0) -> None:
        super().__init__()
        self.groups = num_groups(channels, group_width)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.modulation = nn.Linear(code_dim, 2 * channels) if code_dim else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, code: Tensor | Modulated | None = None) -> Tensor:
        if isinstance(code, dict):
            scale, shift = code[self].to(x.dtype).chunk(2, dim=-1)
            return group_norm_silu(x, self.groups, None, None, scale=scale, shift=shift)
        scale = shift = None
        if self.modulation is not None:
            scale, shift = self.modulation(code).to(x.dtype).chunk(2, dim=-1)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return group_norm_silu(x, self.groups, weight, bias, scale=scale, shift=shift)


Modulated = dict[NormAct, Tensor]
"""(scale, shift) of norms under one code, [B, 2 C] each; the norms' own weight and bias are part of them."""


class Modulations(nn.Module):
    """The modulations of all norms of a part as one linear layer: a frame has fifty of them, each a call of its own.

    w (1 + s) = 1 + (w - 1 + w s), and likewise for the shift, so each norm's affine map joins in, exactly.

    Args:
        part: its norms that follow the code; their weights must not change afterwards.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        norms = [m for m in part.modules() if isinstance(m, NormAct) and m.modulation is not None]
        self._norms, self._sizes = tuple(norms), [2 * len(norm.weight) for norm in norms]
        weights, biases = zip(*(_with_affine(norm) for norm in norms), strict=True)
        self.linear = nn.Linear(weights[0].shape[1], sum(self._sizes), device=weights[0].device).requires_grad_(False)
        self.linear.weight.copy_(torch.cat(weights))
        self.linear.bias.copy_(torch.cat(biases))

    def forward(self, code: Tensor) -> Modulated:
        return dict(zip(self._norms, self.linear(code).split(self._sizes, dim=-1), strict=True))


def _with_affine(norm: NormAct) -> tuple[Tensor, Tensor]:
    weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
    (scale, shift), (scale_bias, shift_bias) = (
        p.detach().float().chunk(2) for p in (norm.modulation.weight, norm.modulation.bias)
    )
    rows = torch.cat([weight[:, None] * scale, shift + bias[:, None] * scale])
    return rows, torch.cat([weight * (1 + scale_bias) - 1, shift_bias + bias * (1 + scale_bias)])


class ResBlock(nn.Module):
    """Residual block in two or three dimensions, optionally modulated by a code."""

    def __init__(self, c_in: int, c_out: int, group_width: int, dims: int = 2, code_dim: int = 0) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.norm1 = NormAct(c_in, group_width, code_dim)
        self.conv1 = conv(c_in, c_out, 3, padding=1, bias=False)
        self.norm2 = NormAct(c_out, group_width, code_dim)
        self.conv2 = conv(c_out, c_out, 3, padding=1, bias=False)
        self.skip = conv(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()
        self.folded: tuple[tuple[int, ...], Tensor] | None = None
        """Enlarging factors and the weights of `fold`; None where the block computes on enlarged features."""

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        h = self.conv1(self.norm1(x, code))
        h = self.conv2(self.norm2(h, code))
        return self.skip(x) + h

    def enlarged(self, x: Tensor, factors: tuple[int, ...], code: Tensor | None = None) -> Tensor:
        """forward(nearest-enlarged x): [B, C, H, W] -> [B, C', 2 H, 2 W], or in 3D by each axis' factor, 1 or 2."""
        if self.folded is None or self.folded[0] != factors:
            return self(enlarge_nearest(x, factors), code)
        padding = (1,) * len(factors)
        transposed = F.conv_transpose2d if len(factors) == 2 else F.conv_transpose3d
        # mean and variance of enlarged features are those of the features
        h = transposed(self.norm1(x, code), self.folded[1], stride=factors, padding=padding)
        h = self.conv2(self.norm2(h, code))
        return enlarge_nearest(self.skip(x), factors) + h

    def fold(self, factors: tuple[int, ...], dtype: torch.dtype) -> None:
        """Prepare `enlarged` for these factors: enlarging and the first convolution become one of fewer products.

        A 3-tap convolution of values that each stand twice is a transposed convolution of stride 2 with the taps
        (w2, w1 + w2, w0 + w1, w0); exact. The weights must not change afterwards; they are stored in `dtype`.
        """
        weight = self.conv1.weight.detach().float()
        for axis, factor in enumerate(factors, start=2):
            first, middle, last = weight.unbind(axis)
            taps = [last, middle, first] if factor == 1 else [last, middle + last, first + middle, first]
            weight = torch.stack(taps, dim=axis)
        layout = torch.channels_last if len(factors) == 2 else torch.channels_last_3d
        self.folded = factors, weight.transpose(0, 1).to(dtype).contiguous(memory_format=layout)


def enlarge_nearest(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Every value repeated along each axis of space, by its factor."""
    if set(factors) == {1}:
        return x
    return F.interpolate(x, scale_factor=tuple(float(f) for f in factors), mode="nearest")


def resize_pictures(pictures: Tensor, size: int) -> Tensor:
    """Pictures at another square size, [B, C, S, S] -> [B, C, size, size]; averages when shrinking."""
    if pictures.shape[-1] == size:
        return pictures
    if pictures.shape[-1] % size == 0:
        return F.avg_pool2d(pictures, pictures.shape[-1] // size)
    return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


class Trunk(nn.Module):
    """A picture -> feature map of 4x4 cells.

    `channels` tells how many features a cell has.
    """

    def __init__(self, config: TrunkConfig, group_width: int) -> None:
        super().__init__()
        self.config = config
        if config.kind == "plain":
            c = 3 * config.unshuffle**2
            blocks: list[nn.Module] = [nn.Conv2d(c, config.widths[0], 3, padding=1, bias=False)]
            c = config.widths[0]
            for width in config.widths:
                blocks += [ResBlock(c, width, group_width), nn.AvgPool2d(2)]
                c = width
            self.body = nn.Sequential(*blocks, NormAct(c, group_width))
            self.channels = c
        else:
            from torchvision.models import resnet  # half a second that the plain trunk does without

            make = {"resnet18": resnet.resnet18, "resnet50": resnet.resnet50}[config.kind]
            body = make(norm_layer=lambda c: nn.GroupNorm(num_groups(c, group_width), c))
            self.channels = body.fc.in_features
            body.avgpool, body.fc = nn.Identity(), nn.Identity()
            self.body = nn.Sequential(*list(body.children())[:-2])

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, S, S] in [0, 1] -> [B, channels, 4, 4]."""
        return F.adaptive_avg_pool2d(self.body(self.prepared(pictures)), 4)

    def prepared(self, pictures: Tensor) -> Tensor:
        """Pictures at the trunk's size in [-1, 1], folded into channels."""
        x = resize_pictures(pictures, self.config.input_size) * 2 - 1
        return F.pixel_unshuffle(x, self.config.unshuffle) if self.config.unshuffle > 1 else x
