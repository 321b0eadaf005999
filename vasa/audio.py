"""Waveform -> Wav2Vec2 features at the video frame rate (VASA-1, section 3.2).

Letters: `B` batch, `N` samples, `T` frames, `A` feature channels (the encoder's width plus one for loudness).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from .config import AudioConfig


class AudioEncoder(nn.Module):
    """Wav2Vec2 in every configuration: Facebook's base model or a small one of our own, through one code path."""

    def __init__(self, config: AudioConfig, encoder: Wav2Vec2Model | None = None) -> None:
        super().__init__()
        self.config = config
        if encoder is None:
            encoder = Wav2Vec2Model(_encoder_config(config))
            first = encoder.feature_extractor.conv_layers[0].conv
            if first.kernel_size[0] >= 256:
                tune_to_mel_bands(first, config.sample_rate)
        self.encoder = encoder

    @property
    def feature_dim(self) -> int:
        """A: channels of the features."""
        return self.config.feature_dim + 1

    def forward(self, waveform: Tensor, num_frames: int) -> Tensor:
        """Features of a stretch of sound.

        Args:
            waveform: mono at 16 kHz in [-1, 1], [B, N]; N samples last exactly `num_frames` video frames.
            num_frames: T.

        Returns:
            [B, T, A]: Wav2Vec2's last hidden states interpolated to the frame rate, then log loudness.
        """
        if self.config.normalise:
            # the floor keeps silence silent
            waveform = (waveform - waveform.mean(-1, keepdim=True)) / waveform.std(-1, keepdim=True).clamp_min(0.01)
        hidden = self.encoder(waveform).last_hidden_state
        features = F.interpolate(hidden.transpose(1, 2).float(), size=num_frames, mode="linear", align_corners=False)
        return torch.cat([features.transpose(1, 2), loudness(waveform, num_frames)], dim=-1)


def tune_to_mel_bands(conv: nn.Conv1d, sample_rate: int) -> None:
    """Start a long first convolution as Gabor filters on the mel scale, four phases to a band.

    From random filters a small encoder learns to hear for hours; from these, for minutes (docs/log.md).
    """
    bands, length = conv.out_channels // 4, conv.kernel_size[0]
    mel = torch.linspace(*(2595 * math.log10(1 + f / 700) for f in (70.0, 0.47 * sample_rate)), bands)
    frequency = 700 * (10 ** (mel / 2595) - 1)
    time = (torch.arange(length) - length / 2) / sample_rate
    phase = torch.arange(4) * torch.pi / 2
    wave = torch.cos(2 * torch.pi * frequency[:, None, None] * time + phase[:, None])  # [bands, 4, length]
    filters = (wave * torch.hann_window(length, periodic=False)).flatten(0, 1)
    with torch.no_grad():
        conv.weight[: len(filters), 0] = filters / filters.norm(dim=-1, keepdim=True)


def loudness(waveform: Tensor, num_frames: int) -> Tensor:
    """Log root-mean-square of each frame, about -1.5 (silence) to 1 (loud), [B, N] -> [B, T, 1]."""
    power = F.adaptive_avg_pool1d(waveform.float().square()[:, None], num_frames)[:, 0]
    return ((power + 1e-7).log10() / 2 + 2)[..., None]


def _encoder_config(config: AudioConfig) -> Wav2Vec2Config:
    # layerdrop and masking are pretraining devices; as frozen features they must be off
    settings = dict(layerdrop=0.0, apply_spec_augment=False, attn_implementation="sdpa")
    return Wav2Vec2Config(
        **(settings | {k: list(v) if isinstance(v, tuple) else v for k, v in config.overrides.items()})
    )
