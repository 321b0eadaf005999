"""W: keypoints -> a dense field, and the volume moved by it.

Letters: `N` frames, `K` keypoints, `C D H W` volume.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...geometry import identity_grid
from ...kernels.dispatch import grid_sample_3d
from .config import NUM_KEYPOINTS, RendererConfig
from .layers import ConvReLU, Halving, Repeated

_VARIANCE = 0.01
"""Of the Gaussians around keypoints, squared cube lengths."""


class Encoder(nn.Module):
    """Halvings of the hourglass; returns every level."""

    def __init__(self, c_in: int, widths: list[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(Halving(a, b, dims=3) for a, b in zip([c_in, *widths], widths, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class Decoder(nn.Module):
    """Doublings of the hourglass, each joined by its level of the encoder."""

    def __init__(self, c_in: int, width: int, widths: list[int]) -> None:
        super().__init__()
        outs = [*widths[-2::-1], width]
        ins = [widths[-1], *(2 * out for out in outs[:-1])]
        self.up_blocks = nn.ModuleList(Repeated(a, b, dims=3, times=2) for a, b in zip(ins, outs, strict=True))
        self.last = ConvReLU(width + c_in, width + c_in, dims=3)

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, level in zip(self.up_blocks, levels[-2::-1], strict=True):
            x = torch.cat([block(x), level], dim=1)
        return self.last(x)


class Hourglass(nn.Module):
    """3D encoder and decoder that halve height and width only."""

    def __init__(self, c_in: int, config: RendererConfig) -> None:
        super().__init__()
        widths = [min(config.flow_max, config.flow_width * 2 ** (i + 1)) for i in range(config.flow_halvings)]
        self.encoder = Encoder(c_in, widths)
        self.decoder = Decoder(c_in, config.flow_width, widths)
        self.channels = c_in + config.flow_width

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class DenseMotion(nn.Module):
    """A field that says where each cell of the driving volume comes from, and what is hidden.

    Every keypoint proposes to shift the whole volume by its own movement, the background to leave it; a softmax over
    these K + 1 proposals, made from how the volume looks after each of them, mixes the field.
    """

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.compress = ConvReLU(config.volume_channels, config.flow_compress, kernel=1, dims=3)
        self.hourglass = Hourglass((NUM_KEYPOINTS + 1) * (config.flow_compress + 1), config)
        self.mask = SlicedConv(self.hourglass.channels, NUM_KEYPOINTS + 1, 7)
        self.occlusion = nn.Conv2d(self.hourglass.channels * config.volume_depth, 1, 7, padding=3)

    def forward(self, volume: Tensor, driving: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """See `Warping`; returns the field [N, D, H, W, 3] in float32 and the visible share [N, 1, H, W]."""
        size = volume.shape[2:]
        shift = F.pad(source - driving, (0, 0, 1, 0))  # [N, K + 1, 3], the background first
        proposals = identity_grid(tuple(size), volume.device) + shift[:, :, None, None, None]
        looks = self.compress(volume).expand(len(shift), -1, -1, -1, -1)
        # one volume is shared by all proposals about it
        moved = [
            grid_sample_3d(looks[i : i + 1], grids, align_corners=False) for i, grids in enumerate(proposals.unbind())
        ]
        near = gaussians(driving, size) - gaussians(source, size)
        near = F.pad(near, (0, 0, 0, 0, 0, 0, 1, 0))[:, :, None]  # [N, K + 1, 1, D, H, W]
        seen = torch.cat([near.to(looks.dtype), torch.stack(moved)], dim=2).flatten(1, 2)
        features = self.hourglass(seen)
        share = self.mask(features).float().softmax(1)
        field = identity_grid(tuple(size), volume.device) + torch.einsum("nkdhw,nkc->ndhwc", share, shift)
        visible = torch.sigmoid(self.occlusion(features.flatten(1, 2)))
        return field, visible


class SlicedConv(nn.Module):
    """A 3D convolution as one 2D convolution of all slices, whose results are added up along the depth.

    The same products; but 2D convolutions of this size run at several times the speed of 3D ones.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(c_in, c_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        n, _, depth = x.shape[:3]
        weight = self.conv.weight
        reach = weight.shape[2] // 2
        flat = weight.transpose(1, 2).flatten(0, 1)  # [O * taps, C, k, k]
        slices = x.transpose(1, 2).flatten(0, 1)
        y = F.conv2d(slices, flat, padding=reach).unflatten(1, (weight.shape[0], -1)).unflatten(0, (n, depth))
        y = F.pad(y, (0, 0, 0, 0, 0, 0, 0, 0, reach, reach))  # [N, D + 2 reach, O, taps, H, W]
        total = sum(y[:, tap : tap + depth, :, tap] for tap in range(weight.shape[2]))
        return total.transpose(1, 2) + self.conv.bias.view(1, -1, 1, 1, 1).to(y.dtype)


def gaussians(points: Tensor, size: torch.Size) -> Tensor:
    """A blob of height 1 around each keypoint, [N, K, 3] -> [N, K, D, H, W]; a product of one along each axis."""
    d, h, w = (
        (torch.linspace(-1, 1, n, device=points.device) - points[..., axis, None]).square().mul(-0.5 / _VARIANCE).exp()
        for n, axis in zip(size, (2, 1, 0), strict=True)
    )
    return d[..., :, None, None] * h[..., None, :, None] * w[..., None, None, :]


class Warping(nn.Module):
    """The portrait's volume, moved, collapsed to a feature map, and dimmed where nothing of it is visible."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotion(config)
        self.third = ConvReLU(config.feature_dim, config.label_dim, slope=0.01)
        self.fourth = nn.Conv2d(config.label_dim, config.label_dim, 1)

    def forward(self, volume: Tensor, driving: Tensor, source: Tensor) -> Tensor:
        """Move a volume.

        Args:
            volume: of one portrait for all frames, or of each, [1 or N, C, D, H, W].
            driving: keypoints of the frames, [N, K, 3] float32.
            source: keypoints of the portrait, [1 or N, K, 3] float32.

        Returns:
            [N, F, H, W].
        """
        field, visible = self.dense_motion_network(volume, driving, source)
        moved = grid_sample_3d(volume, field, align_corners=False)
        return self.fourth(self.third(moved.flatten(1, 2))) * visible
