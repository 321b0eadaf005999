"""Speech -> features, as the motion generators of the family hear it: HuBERT or Wav2Vec2 at twice the frame rate.

The encoder's convolutions give 50 features a second, which are stretched to two a frame before the transformer and
averaged back to one behind it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .config import GeneratorConfig

_UNIT, _REACH = 320, 80
"""Samples a feature of the encoder stands for, and those its convolutions want beyond."""


class SpeechEncoder(nn.Module):
    """[B, N] at 16 kHz -> [B, T, A]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)

    def forward(self, waveform: Tensor, num_frames: int) -> Tensor:
        """Features of a stretch of sound.

        Args:
            waveform: mono in [-1, 1], [B, N]; N samples last exactly `num_frames` video frames.
            num_frames: T.
        """
        waveform = _delayed(waveform, round(self.config.sound_delay * self.config.sample_rate / self.config.fps))
        features = self.encoder.feature_extractor(_padded(waveform))
        features = F.interpolate(features, size=2 * num_frames, mode="linear", align_corners=False)
        hidden = self.encoder.feature_projection(features.transpose(1, 2))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = self.encoder.encoder(hidden).last_hidden_state.transpose(1, 2).float()
        return F.interpolate(hidden, size=num_frames, mode="linear", align_corners=False).transpose(1, 2)


def held(features: Tensor, heard: Tensor) -> Tensor:
    """Features whose last heard frame stays where no sound has come yet, as the makers pad what is too short.

    Args:
        features: [B, T, A].
        heard: 1 where the sound is known, 0 behind it, [B, T].
    """
    last = (heard.sum(1).long() - 1).clamp_min(0)
    frame = torch.arange(features.shape[1], device=last.device).minimum(last[:, None])
    return features.gather(1, frame[..., None].expand_as(features))


def _delayed(waveform: Tensor, samples: int) -> Tensor:
    return F.pad(waveform, (samples, 0))[:, : waveform.shape[1]] if samples else waveform


def _padded(waveform: Tensor) -> Tensor:
    """Reflected to both sides, so that the encoder gives one feature per 320 samples."""
    length = waveform.shape[1]
    missing = math.ceil((length // _UNIT * _UNIT + _REACH - length) / 2)
    if missing < 0:
        return waveform
    for _ in range(2 if missing // 2 else 0):
        waveform = F.pad(waveform, (missing // 2, missing // 2), mode="reflect")
    return F.pad(waveform[:, None], (1, 1), mode="replicate")[:, 0] if missing % 2 else waveform


def _encoder(config: GeneratorConfig) -> nn.Module:
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    settings: dict[str, Any] = {"layerdrop": 0.0, "apply_spec_augment": False, "attn_implementation": "sdpa"}
    settings |= {k: list(v) if isinstance(v, tuple) else v for k, v in config.audio_overrides.items()}
    kinds = {"hubert": (HubertConfig, HubertModel), "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model)}
    settings_of, model_of = kinds[config.audio]
    model = model_of(settings_of(**settings))
    # its weight norm is folded, as all norms are
    parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    return model


def folded_sound(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `transformers` state dict with the weight norm of its position convolution folded, in the old or new names."""
    state = dict(state)
    stem = "encoder.pos_conv_embed.conv"
    for g, v in (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")):
        if f"{stem}.{g}" in state and f"{stem}.{v}" in state:
            size, direction = state.pop(f"{stem}.{g}").double(), state.pop(f"{stem}.{v}").double()
            norm = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
            state[f"{stem}.weight"] = (size * direction / norm).float()
    return state
