"""Waveform -> Wav2Vec2 features at the video frame rate (VASA-1, section 3.2).

Letters: `B` batch, `N` samples, `T` frames, `A` feature channels (the encoder's width plus one for loudness).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import AudioConfig

if TYPE_CHECKING:  # takes longer to import than torch, and `vasa --help` does without
    from transformers import Wav2Vec2Config, Wav2Vec2Model


class AudioEncoder(nn.Module):
    """Wav2Vec2 in every configuration: Facebook's base model or a small one of our own, through one code path."""

    def __init__(self, config: AudioConfig, encoder: Wav2Vec2Model | None = None) -> None:
        super().__init__()
        self.config = config
        if encoder is None:
            from transformers import Wav2Vec2Model

            encoder = Wav2Vec2Model(_encoder_config(config))
            if config.mel_bands:
                encoder.feature_extractor = MelFrontEnd(config)
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


class MelFrontEnd(nn.Module):
    """Log-mel bands and dilated convolutions, where Wav2Vec2 has seven convolutions over raw samples.

    [B, N] samples -> [B, C, N / 320]: 50 values a second, each about the middle of its 20 ms. A network that must first
    invent its own filters needs hours of speech and of training; on bands it hears vowels after a minute (docs/log.md).
    """

    _TRANSFORM, _WINDOW, _HOP = 512, 400, 160

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        width = config.overrides["conv_dim"][-1]
        bands = mel_filter_bank(
            self._TRANSFORM // 2 + 1, config.mel_bands, 60.0, 7600.0, config.sample_rate, mel_scale="htk"
        )
        self.register_buffer("bands", torch.from_numpy(bands).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self._WINDOW), persistent=False)
        self.lift = nn.Conv1d(config.mel_bands, width, 5, padding=2)
        self.halve = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(_DilatedBlock(width, dilation) for dilation in config.mel_dilations)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Energy of every band each 10 ms on a logarithmic scale, about -1 (silence) to 1, [B, bands, N / 160]."""
        count = waveform.shape[-1] // self._HOP
        side = (self._TRANSFORM - self._HOP) // 2
        padded = F.pad(waveform.float(), (side, side))
        spectrum = torch.stft(
            padded, self._TRANSFORM, self._HOP, self._WINDOW, self.window, center=False, return_complex=True
        )
        power = spectrum[..., :count].abs().square()
        return (torch.einsum("bft,fm->bmt", power, self.bands) + 1e-5).log10() / 3

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            bands = self.log_mel(waveform)
        x = self.halve(F.gelu(self.lift(bands)))
        for block in self.blocks:
            x = block(x)
        return x


class _DilatedBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.near = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + self.mix(F.gelu(self.near(normed)))


def loudness(waveform: Tensor, num_frames: int) -> Tensor:
    """Log root-mean-square of each frame, about -1.5 (silence) to 1 (loud), [B, N] -> [B, T, 1]."""
    power = F.adaptive_avg_pool1d(waveform.float().square()[:, None], num_frames)[:, 0]
    return ((power + 1e-7).log10() / 2 + 2)[..., None]


def _encoder_config(config: AudioConfig) -> Wav2Vec2Config:
    from transformers import Wav2Vec2Config

    # layerdrop and masking are pretraining devices; as frozen features they must be off
    settings = dict(layerdrop=0.0, apply_spec_augment=False, attn_implementation="sdpa")
    return Wav2Vec2Config(
        **(settings | {k: list(v) if isinstance(v, tuple) else v for k, v in config.overrides.items()})
    )
