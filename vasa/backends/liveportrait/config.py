"""Sizes of the LivePortrait networks, as they travel in the headers of converted weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, get_type_hints

FORMAT = "liveportrait/1"
BACKEND = "liveportrait"
NUM_KEYPOINTS = 21
EXPRESSION_DIM = 3 * NUM_KEYPOINTS


@dataclass(frozen=True)
class RendererConfig:
    """Appearance extractor F, motion extractor M, warping network W and decoder G. Defaults are the published ones."""

    name: str = "liveportrait"
    input_size: int = 256
    """The networks see pictures of this size."""
    image_size: int = 512
    """Edge of the pictures that come out; portraits come in at this size, too."""
    width: int = 64
    """Channels of the first convolution of F and the last of G."""
    halvings: int = 2
    volume_channels: int = 32
    volume_depth: int = 16
    resblocks: int = 6
    backbone_depths: tuple[int, ...] = (3, 3, 9, 3)
    backbone_widths: tuple[int, ...] = (96, 192, 384, 768)
    angle_bins: int = 66
    flow_width: int = 32
    """Channels of the hourglass at full size; they double with each of `flow_halvings`, up to `flow_max`."""
    flow_halvings: int = 5
    flow_max: int = 1024
    flow_compress: int = 4
    """Channels of the volume as the dense motion network sees it."""
    label_width: int = 128
    """Hidden channels of the decoder's spatially adaptive norms."""

    @property
    def feature_dim(self) -> int:
        """Channels of the collapsed volume."""
        return self.volume_channels * self.volume_depth

    @property
    def label_dim(self) -> int:
        """Channels of what the warp hands to the decoder."""
        return self.width * 2**self.halvings

    @property
    def volume_size(self) -> int:
        """Height and width of the volume."""
        return self.input_size // 2**self.halvings

    @property
    def shuffle(self) -> int:
        """Pixels per feature and axis that the last convolution predicts."""
        return self.image_size // self.input_size


@dataclass(frozen=True)
class GeneratorConfig:
    """JoyVASA's motion generator: a transformer that draws windows of motion channels from speech."""

    name: str = "joyvasa"
    kind: str = "joyvasa"
    dim: int = 512
    depth: int = 8
    heads: int = 8
    window: int = 100
    """Frames drawn at a time."""
    num_previous: int = 10
    channels: int = 70
    fps: float = 25.0
    diffusion_steps: int = 500
    legacy_pe: bool = True
    """Every frame gets the encoding of position window + num_previous: a slip of the published code until December
    2025, with which the published weights were trained."""
    sound_delay: int = 2
    """Frames by which the sound is put off before it is listened to, as the published pipeline does."""
    audio: str = "hubert"
    """Kind of the audio encoder: "hubert" or "wav2vec2"."""
    audio_overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the `transformers` configuration that differ from its defaults."""
    audio_dim: int = 768
    sample_rate: int = 16_000


@dataclass(frozen=True)
class DittoConfig:
    """Ditto's motion generator: a transformer that draws windows of 265 motion channels from speech, emotion, eyes and
    the portrait's own keypoints."""

    name: str = "ditto"
    kind: str = "ditto"
    dim: int = 512
    hidden: int = 1024
    depth: int = 8
    heads: int = 8
    window: int = 80
    num_previous: int = 1
    """One frame before the window is told to it."""
    continued: int = 202
    """Leading channels of that frame that are told as they were drawn (the head's pose); the others are told as they
    were at first, so that the face does not drift: `fix_kp_cond_dim` of the published live settings."""
    person: bool = False
    """Whether the weights hold a person who is told in place of the portrait."""
    blink: bool = False
    """Whether the weights hold how far the eyes' keypoints move to shut them."""
    moods: int = 0
    """Frames of emotion weights in the weights that neutral stands for, over and over; 0: neutral is neutral."""
    fps: float = 25.0
    diffusion_steps: int = 1000
    audio_dim: int = 1024
    sample_rate: int = 16_000


def to_json(config: RendererConfig | GeneratorConfig | DittoConfig) -> str:
    """A configuration as compact JSON."""
    return json.dumps(dataclasses.asdict(config))


def from_json(cls: type, text: str) -> Any:
    """Inverse of `to_json`; unknown fields raise `TypeError`, values of a wrong kind `ValueError`."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("expected an object")
    hints = get_type_hints(cls)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
        plain = hints.get(name)
        if plain in (int, float, str, bool) and (
            not isinstance(value, int | float if plain is float else plain)
            or (isinstance(value, bool) and plain is not bool)
        ):
            raise ValueError(f"{name} must be {plain.__name__}, got {value!r}")
    return cls(**values)
