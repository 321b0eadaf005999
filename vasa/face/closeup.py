"""Close-ups: mouth and eyes get small decoders of their own, drawn from the front and laid into the picture.

Lips, teeth and lids are a few pixels wide in the whole picture, and learned last there. In a patch that moves with the
head only expression is left to learn, at four times the resolution of the decoder's features, and patches train faster
than pictures. A close-up answers what the decoder answers (where a pixel comes from in the portrait, how far to trust
that, its light, what to paint), and these answers are blended, not pictures, so no edge is seen twice. Not in
the paper.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import FaceConfig
from ..geometry import pose_matrix
from ..latents import FaceLatents
from .blocks import Modulations, NormAct, ResBlock
from .decoder import Layers, gain_of, sample_picture
from .patches import (
    EYES,
    MOUTH,
    Patch,
    cut_patch,
    mirror_dynamics,
    mirror_pose,
    patch_affine,
    patch_grid,
    patch_lean,
    to_patch,
    to_picture,
    view_of,
)

_BORDER = 0.25
"""Share of a patch's half edge over which it gives way to the picture around it."""
_REACH = 1.75
"""Edge of the window that a patch is laid into, over the patch's edge at the average head size: larger heads fit."""
_AVERAGE_SCALE = 0.75
_CODE = 64


class CloseUp(nn.Module):
    """One kind of patch: the portrait's patch -> features; features and codes -> layers of the driving patch.

    Args:
        dynamics_dim: E.
        size: edge of the patch in pixels, a multiple of 4.
        widths: channels at a quarter, half and full resolution.
        group_width: channels per normalisation group.
        refines: a flow is given, to which its own is added, instead of a still patch.
    """

    def __init__(
        self, dynamics_dim: int, size: int, widths: tuple[int, ...], group_width: int, refines: bool = False
    ) -> None:
        super().__init__()
        self.size = size
        coarse, middle, fine = widths
        self.stem = nn.Conv2d(12, middle, 3, padding=1, bias=False)
        self.look_near = ResBlock(middle, middle, group_width)
        self.look_far = ResBlock(middle, coarse, group_width)
        self.code = nn.Sequential(nn.Linear(2 * dynamics_dim + 6, 2 * _CODE), nn.SiLU(), nn.Linear(2 * _CODE, _CODE))
        self.place = nn.Parameter(torch.randn(1, 16, size // 4, size // 4) * 0.1)
        self.act = nn.Linear(_CODE, 16 * (size // 8) ** 2)
        self.join = nn.Conv2d(coarse + 32, coarse, 1)
        self.blocks = nn.ModuleList(ResBlock(coarse, coarse, group_width, code_dim=_CODE) for _ in range(2))
        self.up = ResBlock(coarse, middle, group_width, code_dim=_CODE)
        self.coarse_flow, self.coarse_relief = nn.Conv2d(middle, 2, 3, padding=1), nn.Conv2d(middle, 1, 3, padding=1)
        self.relief = None if refines else nn.Parameter(torch.zeros(1, 1, size // 2, size // 2))
        self.finish = ResBlock(middle + 5, fine, group_width, code_dim=_CODE)
        self.norm = NormAct(fine, group_width)
        self.codes: Modulations | None = None
        self.flow, self.mask, self.gain, self.paint = (nn.Conv2d(fine, c, 3, padding=1) for c in (3, 1, 3, 3))
        for layer in (self.coarse_flow, self.coarse_relief, self.flow, self.mask, self.gain):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.mask.bias, 1.0)

    def look(self, patch: Tensor) -> Tensor:
        """What the portrait shows, [B, 3, P, P] in [0, 1] -> [B, C, P/4, P/4]."""
        x = self.look_near(self.stem(F.pixel_unshuffle(patch * 2 - 1, 2)))
        return self.look_far(F.avg_pool2d(x, 2))

    def forward(
        self, features: Tensor, codes: Tensor, patch: Tensor, lean: Tensor, base: Tensor | None = None
    ) -> Layers:
        """Layers of the driving patch; `flow` holds positions in the portrait's patch.

        Its flow is the expression's, plus the face's relief times what the turn of the head makes of relief.

        Args:
            features: of `look`, [B, C, P/4, P/4].
            codes: driving dynamics, the portrait's, and the angles of both heads, [B, 2 E + 6].
            patch: the portrait's patch, [B, 3, P, P].
            lean: `patch_lean` of the portrait less that of the driving pose, [B, 2].
            base: the flow to refine, positions in the portrait's patch, [B, 2, P, P].
        """
        b = len(codes)
        code = self.code(codes)
        acted = F.interpolate(self.act(code).unflatten(1, (16, self.size // 8, -1)), scale_factor=2.0, mode="bilinear")
        place = self.place.to(features.dtype).expand(b, -1, -1, -1)
        if self.codes is not None:
            code = self.codes(code)
        x = torch.cat([features, place, acted.to(features.dtype)], dim=1)
        x = self.join(x.to(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x, code)
        x = self.up.enlarged(x, (2, 2), code)
        grid = patch_grid(self.size, x.device)
        lean = lean[..., None, None]
        relief = self.coarse_relief(x) if self.relief is None else self.relief + self.coarse_relief(x)
        shift = F.interpolate(self.coarse_flow(x).float() + relief.float() * lean, scale_factor=2.0, mode="bilinear")
        if base is not None:
            shift = shift + base - grid
        seen = sample_picture(patch, grid + shift)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        added = torch.cat([seen, shift * 4], dim=1).to(x.dtype, memory_format=torch.channels_last)
        x = self.norm(self.finish(torch.cat([x, added], dim=1), code))
        fine, relief = self.flow(x).float().split([2, 1], dim=1)
        return Layers(
            painted=torch.sigmoid(self.paint(x).float()),
            flow=grid + shift + fine + relief * lean,
            mask=torch.sigmoid(self.mask(x).float()),
            gain=gain_of(self.gain(x)),
        )

    def fold(self, dtype: torch.dtype) -> None:
        """As `WarpGenerator.fold`."""
        self.codes = Modulations(self)
        self.up.fold((2, 2), dtype)


class CloseUps(nn.Module):
    """The mouth's close-up and the eyes', which both eyes share, the right one mirrored."""

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        sizes = config.group_width, config.surface > 0
        self.mouth = CloseUp(config.dynamics_dim, config.mouth_size, config.mouth_widths, *sizes)
        self.eyes = CloseUp(config.dynamics_dim, config.eye_size, config.eye_widths, *sizes)

    def look(self, portrait: Tensor, head_pose: Tensor, closeness: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a portrait's mouth [B, C, h, w] and eyes [B, 2, C', h', w'], seen by a camera so near, [B]."""

        def cut(patch: Patch, size: int) -> Tensor:
            return cut_patch(portrait, view_of(head_pose, patch, closeness), patch, size)

        mouth = self.mouth.look(cut(MOUTH, self.mouth.size))
        eyes = [self.eyes.look(cut(eye, self.eyes.size)) for eye in EYES]
        return mouth, torch.stack(eyes, dim=1)

    def forward(
        self, layers: Layers, face: FaceLatents, head_pose: Tensor, facial_dynamics: Tensor, closeness: Tensor
    ) -> Layers:
        """Lay the close-ups into the layers of whole pictures, which have the portrait's size."""
        whole, poses = layers.joined(), (pose_matrix(face.head_pose), pose_matrix(head_pose))
        told = face, head_pose, facial_dynamics, poses, closeness
        whole = self._lay(self.mouth, MOUTH, face.mouth, whole, *told)
        for index, eye in enumerate(EYES):
            whole = self._lay(self.eyes, eye, face.eyes[:, index], whole, *told)
        return replace(Layers.split(whole), behind=layers.behind, agreement=layers.agreement)

    def _lay(
        self, close_up: CloseUp, patch: Patch, features: Tensor, whole: Tensor, face: FaceLatents,
        head_pose: Tensor, facial_dynamics: Tensor, poses: tuple[Tensor, Tensor], closeness: Tensor,
    ) -> Tensor:  # fmt: skip
        b, (there, here) = len(head_pose), (view_of(pose, patch, closeness[: len(pose)]) for pose in poses)
        codes = codes_of(facial_dynamics, face.facial_dynamics.expand(b, -1), head_pose, face.head_pose, patch)
        seen = cut_patch(face.portrait, there, patch, close_up.size).expand(b, -1, -1, -1)
        lean = patch_lean(there, patch) - patch_lean(here, patch)
        source, driving = patch_affine(there, patch).expand(b, -1, -1), patch_affine(here, patch)
        base = None
        if close_up.relief is None:
            base = base_flow(Layers.split(whole).flow, source, driving, close_up.size)
        drawn = close_up(features.expand(b, -1, -1, -1), codes, seen, lean, base)
        drawn = replace(drawn, flow=to_picture(drawn.flow, source))
        return lay_patch(whole, drawn, driving, patch)


def base_flow(flow: Tensor, source: Tensor, driving: Tensor, size: int) -> Tensor:
    """What the flow of whole pictures says in a patch, [B, 2, S, S] -> [B, 2, P, P] positions in the portrait's patch.

    Args:
        flow: positions in the portrait.
        source, driving: `patch_affine` in the portrait and in the driving picture, [B, 2, 3].
        size: P.
    """
    places = to_picture(patch_grid(size, flow.device).expand(len(flow), -1, -1, -1), driving)
    found = F.grid_sample(flow, places.movedim(1, -1), padding_mode="border", align_corners=True)
    return to_patch(found, source)


def codes_of(driving: Tensor, source: Tensor, head_pose: Tensor, source_pose: Tensor, patch: Patch) -> Tensor:
    """What a close-up is told, [B, 2 E + 6]; for a mirrored patch as it looks in the mirror."""
    source_pose = source_pose.expand(len(head_pose), -1)
    if patch.mirrored:
        driving, source = mirror_dynamics(driving), mirror_dynamics(source)
        head_pose, source_pose = mirror_pose(head_pose), mirror_pose(source_pose)
    return torch.cat([driving, source, head_pose[:, :3], source_pose[:, :3]], dim=-1).float()


def lay_patch(whole: Tensor, drawn: Layers, affine: Tensor, patch: Patch) -> Tensor:
    """Blend layers of a patch into layers of pictures of edge S; in place where no gradients are asked for.

    Args:
        whole: joined layers of the pictures, [B, 9, S, S].
        drawn: of the patch, [B, ., P, P]; `flow` already in picture positions of the portrait.
        affine: where the patch lies in the pictures, [B, 2, 3].
        patch: which one.
    """
    b, channels, size = whole.shape[:3]
    edge = min(size, round(size * patch.half * _AVERAGE_SCALE * _REACH))
    # a window of fixed size about the patch, as nothing may depend on values (CUDA graphs)
    corner = ((affine[..., 2] + 1) / 2 * (size - 1) - edge / 2).round().clamp(0, size - edge).long()
    steps = torch.arange(edge, device=whole.device)
    columns, rows = corner[:, :1] + steps, corner[:, 1:] + steps  # [B, edge]
    index = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)
    x, y = (2 * c.float() / (size - 1) - 1 for c in (columns, rows))
    places = torch.stack([x[:, None, :].expand(-1, edge, -1), y[:, :, None].expand(-1, -1, edge)], dim=1)
    inside = to_patch(places, affine)
    laid = F.grid_sample(drawn.joined(), inside.movedim(1, -1), padding_mode="border", align_corners=True).flatten(2)
    share = border_weight(inside).flatten(2)
    flat = whole.flatten(2)
    mixed = torch.lerp(flat.gather(2, index), laid, share)
    lay = flat.scatter if torch.is_grad_enabled() else flat.scatter_
    return lay(2, index, mixed).unflatten(2, (size, size))


def border_weight(inside: Tensor) -> Tensor:
    """How much of a patch is shown, from 0 at its border to 1 inside, [B, 2, H, W] -> [B, 1, H, W]."""
    near = ((1 - inside.abs().amax(dim=1, keepdim=True)) / _BORDER).clamp(0, 1)
    return near * near * (3 - 2 * near)
