"""Posed volume -> picture (VASA-1, section 3.1), with the detail path of docs/decisions.md.

Detail path: the warped volume carries, besides features, the source position of everything in it. Softly choosing a
depth turns these into a 2D flow into the portrait; features refine it, and portrait pixels warped by it are blended
with painted ones under a predicted mask. Texture survives that way, and the network paints only what the portrait
does not show.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FaceConfig
from ..geometry import identity_grid, moved_by, step_in_picture
from .blocks import Modulations, NormAct, ResBlock, resize_pictures
from .texture import blend


@dataclass(frozen=True)
class Decoded:
    """A decoded batch.

    Attributes:
        image: [B, 3, S, S] in [0, 1].
        painted: what the volume decoder painted, before blending; `image` itself without the detail path.
        flow: sampling positions in the portrait, [B, 2, S, S], float32; None without the detail path.
        mask: share of the portrait's warped pixels, [B, 1, S, S]; None without the detail path.
        gain: brightness of the warped pixels over the portrait's, [B, 3, S, S]; None without relighting.
        behind: share of the background in what is painted, [B, 1, ., .]; None where none is painted with.
        agreement: of picture and portrait about who is seen, [B, 1, S, S]; None as `behind`.
    """

    image: Tensor
    painted: Tensor
    flow: Tensor | None = None
    mask: Tensor | None = None
    gain: Tensor | None = None
    behind: Tensor | None = None
    agreement: Tensor | None = None


@dataclass(frozen=True)
class Layers:
    """What the detail path answers for every pixel, each at a resolution of its own; `compose` makes a picture of it.

    Attributes:
        painted: colour to paint, [B, 3, ., .] in [0, 1].
        flow: where the pixel comes from in the portrait, [B, 2, ., .] in [-1, 1], float32.
        mask: how far the portrait's pixel is trusted, [B, 1, ., .] in [0, 1].
        gain: its brightness over the portrait's, [B, 3, ., .]; None without relighting.
        behind: share of the background in `painted`, [B, 1, ., .]; None where none is painted with.
        agreement: `vasa.face.background.agreement`, [B, 1, ., .], which bounds the trust; None as `behind`.
    """

    painted: Tensor
    flow: Tensor
    mask: Tensor
    gain: Tensor | None
    behind: Tensor | None = None
    agreement: Tensor | None = None

    def enlarged(self, size: int) -> Layers:
        """All that makes the picture at one size."""
        gain, agreement = (None if x is None else enlarge(x, size) for x in (self.gain, self.agreement))
        large = (enlarge(x, size) for x in (self.painted, self.flow, self.mask))
        return Layers(*large, gain, self.behind, agreement)

    def joined(self) -> Tensor:
        """All that makes the picture in one tensor of its own, [B, 9, ., .]; they need one size and a gain."""
        return torch.cat([self.painted, self.flow, self.mask, self.gain], dim=1)

    @staticmethod
    def split(joined: Tensor) -> Layers:
        """Inverse of `joined`."""
        return Layers(*joined.split([3, 2, 1, 3], dim=1))


def compose(layers: Layers, texture: Tensor) -> Decoded:
    """Picture = `blend` of what is painted and texture(flow) under the mask, from layers of one resolution.

    Args:
        layers: [B, ., H, W].
        texture: `texture_of` the portraits, [B, 4, ., .].
    """
    image = blend(layers.painted, sample_picture(texture, layers.flow), trusted(layers), layers.gain)
    return Decoded(image, *(getattr(layers, field.name) for field in fields(Layers)))


def trusted(drawn: Layers | Decoded) -> Tensor:
    """The share of the portrait in the picture, [B, 1, H, W]: the mask, where both show the same."""
    return drawn.mask if drawn.agreement is None else drawn.mask * drawn.agreement


_GAIN_RANGE = 0.7
"""Warped pixels get at most e^0.7 = 2 times brighter or darker."""


def gain_of(raw: Tensor) -> Tensor:
    """A network's output as a gain."""
    return (_GAIN_RANGE * torch.tanh(raw.float())).exp()


def code_size(config: FaceConfig) -> int:
    """Width of the code that modulates the decoder."""
    return config.dynamics_dim + (12 + config.identity_channels if config.pose_aware else 0)


@dataclass(frozen=True)
class Between:
    """How portrait and driving picture lie to each other.

    Attributes:
        turn: `vasa.geometry.turn_between` them, [B, 3, 3].
        closeness: of the camera, [B].
        surface: what `MeanSurface` says: flow [B, 2, s, s] and how far that holds, [B, 1, s, s].
    """

    turn: Tensor
    closeness: Tensor
    surface: tuple[Tensor, Tensor] | None = None

    def lean(self, flow: Tensor) -> Tensor:
        """How far a pixel's place in the portrait moves if what it shows lies one canonical unit deeper, as `flow`."""
        grid = identity_grid(flow.shape[2:], flow.device).movedim(-1, 0)[None]
        across = self.closeness[:, None, None, None] * grid
        x, y, z = self.turn[..., None, None].unbind(2)  # [B, 3, 1, 1] each
        return step_in_picture(x * across[:, :1] + y * across[:, 1:] + z, flow, self.closeness)


class Decoder(nn.Module):
    """Depth collapsed into channels, residual 2D blocks, upsampling blocks, sigmoid RGB."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        g = config.group_width
        code = code_size(config) if config.modulate else 0
        self.modulated = config.modulate
        self.detail = config.detail
        self.shuffle = config.head_shuffle
        width = config.decoder_width
        self.project = nn.Conv2d(config.volume_channels * config.volume_depth, width, 1)
        self.blocks = nn.ModuleList(ResBlock(width, width, g, code_dim=code) for _ in range(config.decoder_blocks))
        self.ups = nn.ModuleList()
        c = width
        for i, w in enumerate(config.decoder_widths):
            is_last = i == len(config.decoder_widths) - 1
            self.ups.append(ResBlock(c + (5 if config.detail and is_last else 0), w, g, code_dim=code))
            c = w
        self.norm = NormAct(c, g)
        self.codes: Modulations | None = None
        self.head = nn.Conv2d(c, 3 * self.shuffle**2, 3, padding=1)
        if self.detail:
            choices = config.volume_depth + 1 + config.pose_aware + (config.surface > 0)
            self.choose_depth = nn.Conv2d(width, choices, 3, padding=1)
            # refined at each resolution but the first, which `choose_depth` serves
            flow_widths = config.decoder_widths[:-1]
            moves = 2 + config.relief
            self.coarse_flow = nn.Conv2d(flow_widths[-1], moves, 3, padding=1) if flow_widths else None
            self.fine_flow = nn.Conv2d(c, moves * self.shuffle**2, 3, padding=1)
            self.mask = nn.Conv2d(c, self.shuffle**2, 3, padding=1)
            self.gain = nn.Conv2d(c, 3, 3, padding=1) if config.relight else None
            self.behind = nn.Conv2d(c, self.shuffle**2, 3, padding=1) if config.background else None
            self.shoulders = nn.Linear(code_size(config), 6) if config.pose_aware else None
            flows = self.choose_depth, self.coarse_flow, self.fine_flow, self.shoulders
            for layer in (*flows, self.mask, self.gain, self.behind):
                if layer is not None:
                    nn.init.zeros_(layer.weight)
                    nn.init.zeros_(layer.bias)
            nn.init.constant_(self.mask.bias, 1.0)
            if self.behind is not None:
                nn.init.constant_(self.behind.bias, -4.0)

    def forward(
        self,
        volume: Tensor,
        code: Tensor,
        source_positions: Tensor | None = None,
        portrait: Tensor | None = None,
        between: Between | None = None,
        background: Tensor | None = None,
    ) -> Tensor | Layers:
        """Render a posed volume: to a picture [B, 3, S, S], or with the detail path to the layers of one.

        Args:
            volume: posed features with depth-major channels, [B, D*C, H, W].
            code: what modulates the decoder's norms, [B, code_size(config)]: the driving dynamics, and where the
                configuration is pose-aware both poses and the mean identity code.
            source_positions: where each voxel lies in the portrait, [B, D, 2, H, W] float32.
            portrait: [B, 3, S, S] in [0, 1]; like `source_positions` only for the detail path.
            between: the two pictures' geometry, for the detail path.
            background: the portrait without its person, [B, 3, S, S], where the configuration asks for it.
        """
        x, plain = self.project(volume), code
        if self.codes is not None:
            code = self.codes(code)
        for block in self.blocks:
            x = block(x, code)
        if not self.detail:
            for up in self.ups:
                x = up.enlarged(x, (2, 2), code)
            return self._paint(x)
        flow, share = self._choose(x, source_positions, plain, between)
        for up in self.ups[:-1]:
            x = up.enlarged(x, (2, 2), code)
        flow = enlarge(flow, x.shape[-1])
        if self.coarse_flow is not None:
            flow = flow + _movement(self.coarse_flow(x).float(), flow, between)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        flow = enlarge(flow, x.shape[-1])
        if share is not None:
            found, met = between.surface
            flow = torch.lerp(flow, found, enlarge(share, x.shape[-1]) * met)
        seen = sample_picture(_resized(portrait, x.shape[-1]), flow)
        shift = flow - identity_grid(flow.shape[2:], flow.device).movedim(-1, 0)
        # channels-last like the features: of mixed layouts the sum would be plain, and the convolution would turn it
        added = torch.cat([seen, shift], dim=1).to(x.dtype, memory_format=torch.channels_last)
        x = self.ups[-1](torch.cat([x, added], dim=1), code)
        flow = enlarge(flow, x.shape[-1] * self.shuffle)
        fine = _movement(F.pixel_shuffle(self.fine_flow(x).float(), self.shuffle), flow, between)
        painted, uncovered = self._paint(x), None
        if self.behind is not None:
            uncovered = torch.sigmoid(F.pixel_shuffle(self.behind(x), self.shuffle).float())
            painted = torch.lerp(painted, _resized(background, painted.shape[-1]).float(), uncovered)
        return Layers(
            painted=painted,
            flow=flow + fine,
            mask=torch.sigmoid(F.pixel_shuffle(self.mask(x), self.shuffle).float()),
            gain=None if self.gain is None else gain_of(self.gain(x)),
            behind=uncovered,
        )

    def fold(self, dtype: torch.dtype) -> None:
        """As `WarpGenerator.fold`."""
        if self.modulated:
            self.codes = Modulations(self)
        for up in self.ups[:-1] if self.detail else self.ups:
            up.fold((2, 2), dtype)

    def _paint(self, x: Tensor) -> Tensor:
        return torch.sigmoid(F.pixel_shuffle(self.head(self.norm(x)), self.shuffle).float())

    def finest(self, features: Tensor) -> int:
        """Edge of the features in front of the last convolution, which the surface's flow joins."""
        return features.shape[-1] << len(self.ups)

    def _choose(self, x: Tensor, positions: Tensor, code: Tensor, between: Between) -> tuple[Tensor, Tensor | None]:
        """A softly chosen flow [B, 2, H, W], and where the surface's were the better choice, [B, 1, H, W]."""
        # extra choices: the pixel stays where it is (background), or moves with the shoulders
        scores = self.choose_depth(x).float()  # [B, choices, H, W]
        share = None
        if between.surface is not None:
            met = resize_pictures(between.surface[1], x.shape[-1])
            on_surface, scores = scores[:, :1] + met.clamp_min(1e-4).log(), scores[:, 1:]
            share = torch.sigmoid(on_surface - scores.logsumexp(1, keepdim=True))
        weights, positions = scores.softmax(dim=1), positions.float()
        still = identity_grid(positions.shape[-2:], x.device).movedim(-1, 0)
        others = [still.expand(len(x), -1, -1, -1)]
        if self.shoulders is not None:
            affine = self.shoulders(code).float().unflatten(-1, (2, 3))
            others.append(still + moved_by(affine, still[None]))
        choices = torch.cat([torch.stack(others, dim=1), positions], dim=1)
        return (weights[:, :, None] * choices).sum(1), share


def _movement(predicted: Tensor, flow: Tensor, between: Between) -> Tensor:
    """[B, 2 or 3, H, W] -> [B, 2, H, W]: a third channel is a depth."""
    return predicted if predicted.shape[1] == 2 else predicted[:, :2] + predicted[:, 2:] * between.lean(flow)


def enlarge(flow: Tensor, size: int) -> Tensor:
    """Positions (or a mask, or colours) at another resolution, [B, C, H, W] -> [B, C, size, size]; corners stay."""
    if flow.shape[-1] == size:
        return flow
    # a convolution's two or three channels last would take three times as long on a CPU
    return F.interpolate(flow.contiguous(), size=(size, size), mode="bilinear", align_corners=True)


def _resized(portrait: Tensor, size: int) -> Tensor:
    """`resize_pictures`, once for a portrait that the whole batch shares."""
    shared = len(portrait) > 1 and portrait.stride(0) == 0
    return resize_pictures(portrait[:1] if shared else portrait, size).expand(len(portrait), -1, -1, -1)


def sample_picture(picture: Tensor, flow: Tensor) -> Tensor:
    """Bilinear picture samples, [B, C, S, S] at [B, 2, H, W] -> [B, C, H, W] float32."""
    return F.grid_sample(picture.float(), flow.movedim(1, -1).float(), padding_mode="border", align_corners=True)
