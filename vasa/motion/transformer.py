"""The denoiser: a transformer encoder that predicts the clean motion x_0 of a window (VASA-1, section 3.2).

Letters: `B` batch, `K` previous and `L` current frames, `M` motion channels, `D` model width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MotionConfig
from ..kernels.dispatch import residual_layer_norm, short_attention
from .conditions import ConditionEmbedding, Conditions


class EncoderLayer(nn.Module):
    """Pre-norm transformer encoder layer with full self-attention."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        d = config.dim
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.feedforward = nn.Sequential(
            nn.Linear(d, config.feedforward),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward, d),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, change: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Takes and returns a residual stream and the change not yet added to it, so that sum and norm are one step."""
        x, normed = (x, self.norm1(x)) if change is None else add_and_norm(x, change, self.norm1)
        q, k, v = self.qkv(normed).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = short_attention(q, k, v).transpose(1, 2).flatten(2)
        x, normed = add_and_norm(x, self.dropout(self.out(attended)), self.norm2)
        return x, self.dropout(self.feedforward(normed))


def add_and_norm(x: Tensor, change: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """(x + change, norm(x + change))."""
    return residual_layer_norm(x, change, norm.weight, norm.bias, eps=norm.eps)


class Denoiser(nn.Module):
    """H(x_t, t, C) -> x_0.

    Tokens: time, K previous frames (clean motion and audio), L current frames (noisy motion, audio, controls).
    Motion is normalised with the statistics kept here (`mean`, `std`, and `low`/`high` for clamping).
    """

    guided: tuple[str, ...] = ("audio", "gaze", "distance", "emotion")
    """Conditions that guidance can push."""

    def __init__(self, config: MotionConfig, motion_dim: int, audio_dim: int) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self.embed = ConditionEmbedding(audio_dim, motion_dim, config.emotions, d, config.num_previous)
        self.motion_in = nn.Linear(motion_dim, d)
        self.audio_in = nn.Linear(d + 1, d)
        self.position = nn.Parameter(torch.randn(config.num_previous + config.window, d) * 0.02)
        self.segment = nn.Parameter(torch.randn(2, d) * 0.02)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, motion_dim)
        for name, value in (("mean", 0.0), ("std", 1.0), ("low", -1e4), ("high", 1e4)):
            self.register_buffer(name, torch.full((motion_dim,), value))

    def normalise(self, motion: Tensor) -> Tensor:
        """Physical units -> zero mean, unit variance, [..., M]."""
        return (motion - self.mean) / self.std

    def denormalise(self, motion: Tensor) -> Tensor:
        """Inverse of `normalise`."""
        return motion * self.std + self.mean

    def forward(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Predict x_0.

        Args:
            x_t: noisy normalised motion, [B, L, M], L <= window.
            t: diffusion time in [0, T), [B].
            conditions: what is known, with `empty` flags.

        Returns:
            [B, L, M], float32.
        """
        previous_motion, previous_audio, audio, controls = self.embed(conditions)
        k, n = self.config.num_previous, x_t.shape[1]
        motion = self.motion_in(torch.cat([previous_motion.to(x_t.dtype), x_t], dim=1))
        heard = F.pad(conditions.heard, (k, 0), value=1.0)[..., None]
        sound = torch.cat([previous_audio, audio], dim=1)
        sound = self.audio_in(torch.cat([sound, heard.to(sound.dtype)], dim=-1))
        segment = torch.cat([self.segment[:1].expand(k, -1), self.segment[1:].expand(n, -1)])
        time = self.time(sinusoid(t, self.config.dim).to(motion.dtype))[:, None]
        x = motion + sound + self.position[: k + n] + segment
        x = torch.cat([x[:, :k], x[:, k:] + controls + time], dim=1)
        x = torch.cat([time, x], dim=1)
        change = None
        for layer in self.layers:
            x, change = layer(x, change)
        _, x = add_and_norm(x[:, 1 + k :], change[:, 1 + k :], self.norm)
        return self.head(x).float()


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of diffusion time, [B] -> [B, dim]."""
    half = dim // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
