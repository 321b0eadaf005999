"""The face latent model: encode a portrait once, decode it under any pose and dynamics (VASA-1, section 3.1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import FaceConfig
from ..geometry import (
    identity_grid,
    in_perspective,
    inverse_pose_matrix,
    moved_in_space,
    out_of_perspective,
    pose_matrix,
    turn_between,
)  # fmt: skip
from ..kernels.dispatch import warp_volume
from ..latents import FaceLatents
from .background import agreement, behind
from .blocks import resize_pictures
from .closeup import CloseUps
from .decoder import Between, Decoded, Decoder, Layers, compose
from .encoder import AppearanceEncoder, DynamicsEncoder, IdentityEncoder, PoseEncoder
from .surface import MeanSurface
from .texture import texture_of
from .warp import CanonicalUNet, WarpEmbedding, WarpGenerator


class FaceModel(nn.Module):
    """Encoders, both warps and the decoder.

    canonical volume = G3D(V_app(M_s (q + delta_s(q))));  picture = G2D(V_can(y + delta_d(y))), y = M_d^-1 p.
    Where the configuration says so, the camera is near: p and M_s q are seen in perspective; and the detail path may
    choose where geometry finds a pixel on the mean face's surface.
    """

    def __init__(self, config: FaceConfig) -> None:
        super().__init__()
        self.config = config
        self.appearance = AppearanceEncoder(config)
        self.identity = IdentityEncoder(config)
        self.pose = PoseEncoder(config)
        self.dynamics = DynamicsEncoder(config)
        self.embed_source = WarpEmbedding(config)
        self.embed_driving = WarpEmbedding(config, num_poses=2)
        self.warp_source = WarpGenerator(config)
        self.warp_driving = WarpGenerator(config)
        self.surface = MeanSurface(config) if config.surface else None
        self.camera = nn.Linear(config.identity_channels * 16, 1) if config.closeness else None
        if self.camera is not None:
            nn.init.zeros_(self.camera.weight)
            nn.init.zeros_(self.camera.bias)
        self.unet = CanonicalUNet(config)
        self.decoder = Decoder(config)
        self.closeups = CloseUps(config) if config.mouth_widths else None

    def closeness(self, identity_code: Tensor) -> Tensor:
        """How near the camera was, from the identity code, [B, I, 4, 4] -> [B] float32; 0: infinitely far."""
        if self.camera is None:
            return torch.zeros(len(identity_code), device=identity_code.device)
        return self.config.closeness * (0.7 * torch.tanh(self.camera(identity_code.flatten(1)).float()[:, 0])).exp()

    def read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Head pose [B, 6] and facial dynamics [B, E] of pictures [B, 3, S, S]."""
        head_pose = self.pose(pictures)
        return head_pose, self.dynamics(pictures, head_pose)

    def encode(
        self, portrait: Tensor, head_pose: Tensor | None = None, facial_dynamics: Tensor | None = None,
        person: Tensor | None = None,
    ) -> FaceLatents:  # fmt: skip
        """A portrait's canonical appearance and identity.

        Args:
            portrait: [B, 3, S, S] in [0, 1].
            head_pose, facial_dynamics: of the portrait, [B, 6] and [B, E]; read from the picture if not given.
            person: share of the person in every pixel, [B, 1, s, s], as `PersonMatte.matte` finds it.

        Raises:
            ValueError: no `person` for a model that paints with the background.
        """
        if self.config.background and person is None:
            raise ValueError("expected the person's matte, got None; this model paints with what is behind the person")
        if head_pose is None:
            head_pose = self.pose(portrait)
        if facial_dynamics is None:
            facial_dynamics = self.dynamics(portrait, head_pose)
        identity_code = self.identity(portrait)
        volume = self.appearance(resize_pictures(portrait, min(portrait.shape[-1], self.config.working_size)))
        delta = self.warp_source(self.embed_source(facial_dynamics, identity_code, head_pose))
        theta, closeness = pose_matrix(head_pose), self.closeness(identity_code)
        if self.camera is not None:
            back, q = inverse_pose_matrix(head_pose), _places(delta)
            delta = moved_in_space(back, in_perspective(moved_in_space(theta, q + delta), closeness)) - q
        canonical = self.unet(warp_volume(volume, theta=theta, flow=delta, order="flow_then_rigid"))
        if self.config.detail:
            # the same warp of the position grid itself: where each canonical voxel lies in the portrait
            positions = warp_volume(_position_volume(volume), theta=theta, flow=delta, padding_mode="border")
            canonical = torch.cat([canonical.float(), positions], dim=1)
        patches = (None, None) if self.closeups is None else self.closeups.look(portrait, head_pose, closeness)
        background = behind(portrait, person.to(portrait.device)) if self.config.background else None
        told = head_pose.float(), facial_dynamics.float()
        texture = texture_of(portrait) if self.config.detail else None
        face = FaceLatents(canonical, identity_code, *told, portrait, *patches, background, texture)
        if background is None:
            return face
        return replace(face, uncovered=self.drawn(face, *told).behind.detach())

    def decode(self, face: FaceLatents, head_pose: Tensor, facial_dynamics: Tensor) -> Decoded:
        """Show the face under another pose and other dynamics.

        Args:
            face: latents of one portrait, or of B.
            head_pose: [B, 6].
            facial_dynamics: [B, E].
        """
        drawn = self.drawn(face, head_pose, facial_dynamics)
        if isinstance(drawn, Tensor):
            return Decoded(drawn, drawn)
        layers = drawn.enlarged(face.portrait.shape[-1])
        if self.closeups is not None:
            closeness = self.closeness(face.identity_code).expand(len(head_pose))
            layers = self.closeups(layers, face, head_pose, facial_dynamics, closeness)
        return compose(layers, face.texture.expand(len(head_pose), -1, -1, -1))

    def drawn(self, face: FaceLatents, head_pose: Tensor, facial_dynamics: Tensor) -> Tensor | Layers:
        """What the decoder draws: a picture, or with the detail path layers of one at their own size, no close-ups."""
        b = head_pose.shape[0]
        identity_code = face.identity_code.expand(b, *face.identity_code.shape[1:])
        poses = torch.cat([face.head_pose.expand(b, -1), head_pose.float()], dim=-1)
        delta = self.warp_driving(self.embed_driving(facial_dynamics, identity_code, poses))
        code = facial_dynamics
        if self.config.pose_aware:
            code = torch.cat([facial_dynamics, poses, identity_code.mean((-2, -1)).to(poses.dtype)], dim=-1)
        back, closeness = inverse_pose_matrix(head_pose), self.closeness(identity_code)
        if self.camera is not None:
            y = _places(delta)
            straight = moved_in_space(back, out_of_perspective(moved_in_space(pose_matrix(head_pose), y), closeness))
            delta = delta + straight - y
        move = dict(theta=back, flow=delta, order="rigid_then_flow", collapse_depth=True)
        if not self.config.detail:
            return self.decoder(warp_volume(face.appearance_volume, **move), code)
        posed = warp_volume(face.appearance_volume, padding_mode="border", **move)
        posed = posed.unflatten(1, (self.config.volume_depth, -1))
        features, positions = posed[:, :, :-2].flatten(1, 2), posed[:, :, -2:]
        portrait = face.portrait.expand(b, *face.portrait.shape[1:])
        between = Between(turn_between(face.head_pose, head_pose), closeness)
        if self.surface is not None:
            told = face.head_pose, face.facial_dynamics, head_pose, facial_dynamics, closeness
            between = replace(between, surface=self.surface(*told, self.decoder.finest(features)))
        if face.background is None:
            return self.decoder(features, code, positions, portrait, between)
        background = face.background.expand(b, -1, -1, -1)
        layers = self.decoder(features, code, positions, portrait, between, background)
        if face.uncovered is None:
            return layers
        own = face.uncovered.expand(b, -1, -1, -1)
        return replace(layers, agreement=agreement(layers.behind, own, layers.flow))

    def forward(self, portrait: Tensor, head_pose: Tensor, facial_dynamics: Tensor, **source: Tensor) -> Decoded:
        """`decode(encode(portrait, **source), head_pose, facial_dynamics)`."""
        return self.decode(self.encode(portrait, **source), head_pose, facial_dynamics)


def _places(field: Tensor) -> Tensor:
    """The positions of a field's voxels, [B, 3, D, H, W] -> [1, 3, D, H, W]."""
    return identity_grid(field.shape[2:], field.device).movedim(-1, 0)[None]


def _position_volume(volume: Tensor) -> Tensor:
    """The picture position (x, y) of every voxel of a posed volume, [1, 2, D, H, W] float32."""
    d, h, w = volume.shape[2:]
    x = torch.linspace(-1, 1, w, device=volume.device).expand(d, h, w)
    y = torch.linspace(-1, 1, h, device=volume.device)[:, None].expand(d, h, w)
    return torch.stack([x, y])[None]
