"""Every size of the model, as frozen dataclasses that travel as JSON in the checkpoint's header.

Defaults are the paper's (or its ancestors', docs/paper.md); `TINY`, `VASA_MINI` and `VASA1` are the three
configurations one set of classes serves.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from .latents import DYNAMICS


@dataclass(frozen=True)
class TrunkConfig:
    """A picture -> 4x4 feature map."""

    kind: str = "plain"
    """"plain" (residual blocks with average pooling), "resnet18" / "resnet50" (torchvision, GroupNorm), or "none"."""
    input_size: int = 128
    """Pictures are resized to this many pixels first."""
    unshuffle: int = 1
    """Pixels folded into channels before the first convolution, per axis."""
    widths: tuple[int, ...] = ()
    """Channels of the plain trunk, one residual block and one halving each."""


@dataclass(frozen=True)
class FaceConfig:
    """Face encoder, warps and decoder."""

    image_size: int = 512
    working_size: int = 512
    """The appearance encoder and the decoder's features work at this size; the detail path blends at full size."""
    volume_channels: int = 96
    volume_depth: int = 16
    volume_size: int = 64
    group_width: int = 16
    """Channels per normalisation group (at most; never fewer than one group)."""

    stem_unshuffle: int = 1
    """Pixels folded into channels in front of the appearance encoder, per axis."""
    stem_kernel: int = 7
    stem_width: int = 64
    appearance_widths: tuple[int, ...] = (128, 256, 512)
    """Residual 2D blocks of the appearance encoder; `appearance_pools` of them end in a halving."""
    appearance_pools: int = 3
    appearance_blocks3d: int = 3
    unet_widths: tuple[int, ...] = (96, 192, 384, 512)
    """Channels of the canonical 3D U-Net per level; the first is the volume's."""
    unet_scales: tuple[tuple[float, float], ...] = ((2.0, 0.5), (0.5, 0.5), (0.5, 0.5))
    """(depth, height and width) factor on the way down to each further level."""
    unet_skip_blocks: bool = True

    identity_trunk: TrunkConfig = TrunkConfig("resnet50", 256)
    pose_trunk: TrunkConfig = TrunkConfig("resnet18", 128)
    dynamics_trunk: TrunkConfig = TrunkConfig("resnet18", 128)
    """E_dyn's view of the whole face; "none" where what is seen from near says it all (not in the paper)."""
    dynamics_patches: TrunkConfig = TrunkConfig("none")
    """E_dyn also looks at mouth and eyes from near, each through a trunk like this ("none": not, as in the paper)."""
    dynamics_brows: TrunkConfig = TrunkConfig("none")
    """And at the brows, likewise; every near trunk then also finds the landmarks in its patch."""
    identity_channels: int = 512
    dynamics_dim: int = 128
    dynamics_names: tuple[str, ...] = ()
    """Meaning of the leading dynamics channels where they were learned from labels; empty if unsupervised."""

    warp_width: int = 512
    warp_widths: tuple[int, ...] = (256, 128, 64, 32)
    warp_upsamples: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (1, 2), (1, 2))
    """(depth, height and width) factor after each block of the warp generators; they start at depth x 4 x 4."""

    decoder_width: int = 512
    decoder_blocks: int = 8
    decoder_widths: tuple[int, ...] = (256, 128, 64)
    """One upsampling block each."""
    head_shuffle: int = 1
    """The last convolution predicts this many pixels per feature and axis (pixel shuffle)."""
    modulate: bool = False
    """Dynamics also scale and shift the decoder's norms (not in the paper)."""
    detail: bool = False
    """Detail path: predict where each pixel comes from in the portrait and blend (not in the paper)."""
    pose_aware: bool = False
    """Source and driving pose steer both warps, and with the identity code the decoder's norms (not in the paper)."""
    closeness: float = 0.0
    """Half the picture's width over the camera's distance, on average; each portrait's own is predicted about it.
    0: the camera is infinitely far, as in the paper."""
    surface: int = 0
    """Detail path: cells per side of the mean face's depth map, by which geometry finds pixels of the face; close-ups
    then refine what was found. 0: none, as in the paper."""
    surface_fields: int = 0
    """Cells per side of the fields by which dynamics move that surface."""
    relief: bool = False
    """Detail path: it also predicts depths, which move pixels as far as the head's turn says (not in the paper)."""
    background: bool = False
    """Detail path: what a moving head uncovers is painted with the portrait without its person."""
    relight: bool = False
    """Detail path: warped pixels get a smooth predicted gain, as a head that turns changes its shading."""
    mouth_size: int = 64
    mouth_widths: tuple[int, ...] = ()
    """Close-up of the mouth: channels at a quarter, half and full size; empty: no close-ups (not in the paper)."""
    eye_size: int = 48
    eye_widths: tuple[int, ...] = ()
    """The same for the eyes."""


@dataclass(frozen=True)
class AudioConfig:
    """Wav2Vec2 features; the fields are `transformers.Wav2Vec2Config` overrides."""

    source: str = "facebook/wav2vec2-base-960h"
    """Hub name or folder of the encoder; "" when its weights are part of the checkpoint."""
    overrides: dict[str, Any] = field(default_factory=dict)
    feature_dim: int = 768
    sample_rate: int = 16_000
    normalise: bool = True
    """Zero mean and unit variance per stretch, as Facebook's encoder was trained; off where loudness matters."""
    mel_bands: int = 0
    """Log-mel bands in front of the transformer in the place of convolutions over raw samples; 0: none."""
    mel_dilations: tuple[int, ...] = ()
    """Residual convolutions over the bands, one each."""


@dataclass(frozen=True)
class MotionConfig:
    """Diffusion transformer over windows of head pose and facial dynamics."""

    dim: int = 512
    depth: int = 8
    heads: int = 8
    feedforward: int = 2048
    dropout: float = 0.1
    window: int = 50
    """W, frames generated at a time."""
    num_previous: int = 10
    """K, frames carried from the window before."""
    fps: float = 25.0
    emotions: int = 8
    diffusion_steps: int = 1000
    """T of the cosine schedule."""


PATCH_TRUNK = TrunkConfig("plain", 64, unshuffle=2, widths=(24, 48, 80))
BROW_TRUNK = TrunkConfig("plain", 64, unshuffle=2, widths=(16, 32, 48))


@dataclass(frozen=True)
class ReaderConfig:
    """Sizes of the face reader (not in the paper)."""

    group_width: int = 8
    locate: TrunkConfig = TrunkConfig("plain", 128, unshuffle=2, widths=(24, 48, 64, 96))
    crop_size: int = 128
    widths: tuple[int, ...] = (24, 48, 72, 112)
    """Channels of the crop's trunk; the crop enters folded 2x2 into channels."""
    patches: TrunkConfig = PATCH_TRUNK
    brows: TrunkConfig = TrunkConfig("none")
    """Brows are looked at from near, too, not only mouth and eyes, and landmarks are found there."""
    closeness: float = 0.0
    """As `FaceConfig.closeness`: what is looked at from near is sought where the average camera sees it."""
    summary: int = 128
    """Numbers that stand for the whole crop in front of the heads."""
    identity_dim: int = 64


@dataclass(frozen=True)
class VasaConfig:
    """A whole model."""

    name: str
    face: FaceConfig
    audio: AudioConfig
    motion: MotionConfig
    reader: ReaderConfig = ReaderConfig()

    def to_json(self) -> str:
        """The configuration as compact JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> VasaConfig:
        """Inverse of `to_json`; unknown or missing fields raise `TypeError` or `ValueError`."""
        return _build(cls, json.loads(text))

    @property
    def motion_dim(self) -> int:
        """M = 6 pose channels + dynamics."""
        return 6 + self.face.dynamics_dim


def _build(cls: type, values: dict[str, Any]) -> Any:
    hints = get_type_hints(cls)
    made = {}
    for name, value in values.items():
        hint = hints.get(name)
        if dataclasses.is_dataclass(hint):
            value = _build(hint, value)
        made[name] = _tuples(value)
    return cls(**made)


def _tuples(value: Any) -> Any:
    # JSON knows lists only, the configurations hold tuples
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


VASA1 = VasaConfig("vasa-1", FaceConfig(), AudioConfig(), MotionConfig())

VASA_MINI = VasaConfig(
    "vasa-mini",
    FaceConfig(
        image_size=256,
        working_size=128,
        volume_channels=24,
        volume_depth=8,
        volume_size=16,
        group_width=8,
        stem_unshuffle=4,
        stem_kernel=3,
        stem_width=64,
        appearance_widths=(96, 128),
        appearance_pools=1,
        appearance_blocks3d=2,
        unet_widths=(24, 32, 64),
        unet_scales=((1.0, 0.5), (0.5, 0.5)),
        unet_skip_blocks=False,
        identity_trunk=TrunkConfig("plain", 128, unshuffle=4, widths=(32, 64, 96)),
        pose_trunk=TrunkConfig("plain", 128, unshuffle=2, widths=(32, 64, 96, 160)),
        dynamics_trunk=TrunkConfig("none"),
        dynamics_patches=PATCH_TRUNK,
        dynamics_brows=BROW_TRUNK,
        identity_channels=64,
        dynamics_dim=59,
        dynamics_names=DYNAMICS,
        warp_width=128,
        warp_widths=(64, 48, 32, 16),
        warp_upsamples=((2, 2), (1, 2), (1, 2), (1, 1)),
        decoder_width=128,
        decoder_blocks=3,
        decoder_widths=(64, 32),
        head_shuffle=2,
        modulate=True,
        detail=True,
        pose_aware=True,
        closeness=0.36,
        surface=64,
        surface_fields=24,
        relief=True,
        background=True,
        relight=True,
        mouth_widths=(80, 48, 24),
        eye_widths=(56, 32, 16),
    ),
    AudioConfig(
        source="",
        overrides=dict(
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            conv_dim=(160,),
            conv_kernel=(640,),
            conv_stride=(320,),
            hidden_dropout=0.0,
            activation_dropout=0.0,
            attention_dropout=0.0,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=31,
            num_conv_pos_embedding_groups=8,
            hidden_act="gelu",
        ),
        feature_dim=192,
        normalise=False,
        mel_bands=64,
        mel_dilations=(1, 2, 4, 1, 2),
    ),
    MotionConfig(dim=256, depth=5, heads=4, feedforward=1024),
    ReaderConfig(brows=BROW_TRUNK, closeness=0.36, summary=72),
)

TINY = VasaConfig(
    "tiny",
    FaceConfig(
        image_size=64,
        working_size=64,
        volume_channels=8,
        volume_depth=4,
        volume_size=16,
        group_width=4,
        stem_unshuffle=2,
        stem_kernel=3,
        stem_width=16,
        appearance_widths=(16, 16),
        appearance_pools=1,
        appearance_blocks3d=1,
        unet_widths=(8, 16),
        unet_scales=((1.0, 0.5),),
        unet_skip_blocks=False,
        identity_trunk=TrunkConfig("plain", 32, unshuffle=2, widths=(8, 16)),
        pose_trunk=TrunkConfig("plain", 32, unshuffle=2, widths=(8, 16)),
        dynamics_trunk=TrunkConfig("plain", 32, unshuffle=2, widths=(8, 16)),
        identity_channels=16,
        dynamics_dim=59,
        dynamics_names=DYNAMICS,
        warp_width=16,
        warp_widths=(16, 8),
        warp_upsamples=((1, 2), (1, 2)),
        decoder_width=16,
        decoder_blocks=1,
        decoder_widths=(16,),
        head_shuffle=2,
        modulate=True,
        detail=True,
        pose_aware=True,
        relight=True,
    ),
    AudioConfig(
        source="",
        overrides=dict(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            conv_dim=(16, 16, 16),
            conv_kernel=(400, 4, 4),
            conv_stride=(80, 2, 2),
            num_feat_extract_layers=3,
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=15,
            num_conv_pos_embedding_groups=4,
        ),
        feature_dim=32,
        normalise=False,
    ),
    MotionConfig(dim=32, depth=2, heads=2, feedforward=64),
)

CONFIGS = {config.name: config for config in (TINY, VASA_MINI, VASA1)}
