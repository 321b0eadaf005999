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
            layers = encoder.feature_extractor.conv_layers
            if layers[0].conv.kernel_size[0] >= 256:
                tune_to_mel_bands(layers, config.sample_rate)
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


def tune_to_mel_bands(layers: nn.ModuleList, sample_rate: int) -> None:
    """Start the first two convolutions as a bank of band energies; training goes on from there.

    The first holds Gabor filters on the mel scale, four phases to a band, as wide as the band and louder with
    frequency, as speech grows fainter. The activation rectifies them; the second adds up the phases of a band over
    its reach, in as many channels as there are bands. From random filters a small encoder learns to hear for hours,
    from these for minutes (docs/log.md).
    """
    first, second = layers[0].conv, layers[1].conv
    bands, length = first.out_channels // 4, first.kernel_size[0]
    mel = torch.linspace(*(2595 * math.log10(1 + f / 700) for f in (90.0, 0.45 * sample_rate)), bands)
    frequency = 700 * (10 ** (mel / 2595) - 1)
    spacing = frequency.diff(append=2 * frequency[-1:] - frequency[-2:-1])
    time = (torch.arange(length) - (length - 1) / 2) / sample_rate
    phase = torch.arange(4) * torch.pi / 2
    wave = torch.cos(2 * torch.pi * frequency[:, None, None] * time + phase[:, None])  # [bands, 4, length]
    # a Hann window of n seconds is 2 / n Hz wide
    width = (2.4 / spacing).clamp(max=length / sample_rate)[:, None, None]
    window = torch.cos(torch.pi * time / width).square() * (time.abs() < width / 2)
    filters = wave * window
    filters = filters / filters.square().sum(-1, keepdim=True).sqrt() * (frequency / 500).clamp(min=0.4)[:, None, None]
    with torch.no_grad():
        first.weight[: 4 * bands, 0] = filters.flatten(0, 1)
        if second.out_channels >= bands:
            second.weight[:bands] = 0.0
            for band in range(bands):
                second.weight[band, 4 * band : 4 * band + 4] = 1 / (4 * second.kernel_size[0]) ** 0.5


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
