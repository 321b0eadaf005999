"""What travels between the stages: face latents, motion, and the names of their channels.

Letters: `B` batch, `T` frames, `C D H W` volume, `M` = 6 + E motion channels, `E` dynamics channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_SIDED = (
    "PupilDilate browDown browInnerUp browOuterUp cheekPuff cheekRaiser cheekSquint eyeBlink eyeLookDown "
    "eyeLookIn eyeLookOut eyeLookUp eyeSquint eyeWide"
)
_MOUTH = (
    "jawForward jawLeft jawOpen jawRight mouthClose mouthDimple_L mouthDimple_R mouthFrown_L mouthFrown_R "
    "mouthFunnel mouthLeft mouthLowerDown_L mouthLowerDown_R mouthPress_L mouthPress_R mouthPucker mouthRight "
    "mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmile_L mouthSmile_R mouthStretch_L "
    "mouthStretch_R mouthUpperUp_L mouthUpperUp_R noseSneer_L noseSneer_R"
)
EXPRESSIONS: tuple[str, ...] = tuple(f"{n}_{side}" for n in _SIDED.split() for side in "LR") + tuple(_MOUTH.split())
"""Expression weights, 0 (rest) to 1 (full), in the order of the asset pack."""

DYNAMICS: tuple[str, ...] = (*EXPRESSIONS, "eyeYaw", "eyePitch")
"""Channels of the supervised dynamics code: expression weights, then eye-in-head rotation in radians."""

POSE: tuple[str, ...] = ("yaw", "pitch", "roll", "t_x", "t_y", "log_s")
"""Channels of `head_pose`: radians, unit-cube lengths, natural logarithm of the scale."""

EMOTIONS: tuple[str, ...] = (
    "neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted", "contempt",
)  # fmt: skip


@dataclass(frozen=True)
class FaceLatents:
    """One encoded portrait.

    Attributes:
        appearance_volume: canonical 3D appearance V_app, [B, C, D, H, W].
        identity_code: z_id, [B, I, 4, 4].
        head_pose: pose of the portrait itself, [B, 6], float32.
        facial_dynamics: dynamics code of the portrait itself, [B, E], float32.
        portrait: the picture itself, [B, 3, S, S] in [0, 1].
        mouth: features of its mouth for the close-up, [B, C', h, w]; None without close-ups.
        eyes: features of its eyes, [B, 2, C", h', w'].
        background: the picture without the person, [B, 3, S, S]; None where the model does not paint with it.
        texture: what the detail path samples from, `vasa.face.texture.texture_of` the portrait; None without that path.
        uncovered: share of the background that the decoder sees in the portrait, [B, 1, ., .]; None as `background`.
    """

    appearance_volume: Tensor
    identity_code: Tensor
    head_pose: Tensor
    facial_dynamics: Tensor
    portrait: Tensor
    mouth: Tensor | None = None
    eyes: Tensor | None = None
    background: Tensor | None = None
    texture: Tensor | None = None
    uncovered: Tensor | None = None

    def to(self, *args, **kwargs) -> FaceLatents:
        """Move every tensor; `head_pose` and `facial_dynamics` keep float32."""
        held = {k: getattr(self, k) for k in self.__dataclass_fields__}
        move = {k: v if v is None else v.to(*args, **kwargs) for k, v in held.items()}
        for name in ("head_pose", "facial_dynamics"):
            move[name] = move[name].float()
        return FaceLatents(**move)


@dataclass(frozen=True)
class Motion:
    """A motion sequence in physical units, with the backend that understands its dynamics.

    Attributes:
        head_pose: [T, 6] or [B, T, 6]: (yaw, pitch, roll, t_x, t_y, log_s).
        facial_dynamics: [T, E] or [B, T, E].
        fps: frames per second.
        backend: which face model speaks these dynamics, e.g. "vasa".
        rest: the pose this movement is about, [6]: that of the portrait it was made for, or of a driving video's first
            frame. `vasa.motion.place.place` turns it into the same movement about another portrait's pose. None: the
            poses are meant as they are, wherever the portrait's head is.
    """

    head_pose: Tensor
    facial_dynamics: Tensor
    fps: float = 25.0
    backend: str = "vasa"
    rest: Tensor | None = None

    def __post_init__(self) -> None:
        if self.head_pose.shape[-1] != len(POSE) or self.head_pose.shape[:-1] != self.facial_dynamics.shape[:-1]:
            raise ValueError(
                f"expected head_pose [..., 6] and facial_dynamics of the same frames, got "
                f"{tuple(self.head_pose.shape)} and {tuple(self.facial_dynamics.shape)}"
            )
        if self.rest is not None and self.rest.shape != (len(POSE),):
            raise ValueError(f"expected rest [6], got {tuple(self.rest.shape)}")

    def __len__(self) -> int:
        return self.head_pose.shape[-2]

    def __getitem__(self, frames: slice) -> Motion:
        return replace(
            self,
            head_pose=self.head_pose[..., frames, :],
            facial_dynamics=self.facial_dynamics[..., frames, :],
        )

    @property
    def vectors(self) -> Tensor:
        """Pose and dynamics side by side, [..., T, M]."""
        return torch.cat([self.head_pose, self.facial_dynamics], dim=-1)

    @classmethod
    def from_vectors(
        cls, vectors: Tensor, fps: float = 25.0, backend: str = "vasa", rest: Tensor | None = None
    ) -> Motion:
        """Split [..., T, M] into pose (first 6) and dynamics."""
        return cls(vectors[..., :6].float(), vectors[..., 6:].float(), fps, backend, rest)
