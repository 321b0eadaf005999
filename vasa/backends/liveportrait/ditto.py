"""Ditto's motion generator: a transformer that reads speech, emotion, eyes and keypoints through cross-attention.

Positions are told by rotating queries and keys before their projections; time and the mean of what is read scale and
shift every branch (FiLM). `ditto_portrait` gives it the interface of our denoiser.

Letters: `B` batch, `L` frames, `D` width, `C` condition channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.dispatch import short_attention
from .config import EXPRESSION_DIM, DittoConfig

ANGLE_BINS = 66
POSE_CHANNELS = 1 + 3 * ANGLE_BINS + 3
"""Scale - 1, then pitch, yaw and roll as distributions over bins, then translation."""
CHANNELS = POSE_CHANNELS + EXPRESSION_DIM
EMOTIONS, EYES_OPEN, EYEBALLS = 8, 2, 6
EXTRA = EMOTIONS + EYES_OPEN + EYEBALLS + EXPRESSION_DIM
"""What is read beside the speech, in this order; last the portrait's canonical keypoints."""
_READERS, _TIME_TOKENS = 2, 2


class Attention(nn.Module):
    """Attention whose queries and keys are rotated by their positions, and whose values are not."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        q, k = self.q(rotated(x, turn)), self.k(rotated(memory, turn))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, self.v(memory)))
        return self.out(short_attention(q, k, v).transpose(1, 2).flatten(2))


class Reader(nn.Module):
    """Pre-norm encoder layer over what is known of the window."""

    def __init__(self, config: DittoConfig) -> None:
        super().__init__()
        d = config.dim
        self.attention = Attention(d, config.heads)
        self.linear1, self.linear2 = nn.Linear(d, config.hidden), nn.Linear(config.hidden, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, turn)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class Writer(nn.Module):
    """Pre-norm decoder layer whose three branches are scaled and shifted by one vector."""

    def __init__(self, config: DittoConfig) -> None:
        super().__init__()
        d = config.dim
        self.attention, self.reading = Attention(d, config.heads), Attention(d, config.heads)
        self.linear1, self.linear2 = nn.Linear(d, config.hidden), nn.Linear(config.hidden, d)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.film = nn.Linear(d, 6 * d)

    def forward(self, x: Tensor, memory: Tensor, state: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        scale1, shift1, scale2, shift2, scale3, shift3 = self.film(F.mish(state))[:, None].chunk(6, dim=-1)
        h = self.norm1(x)
        x = x + (scale1 + 1) * self.attention(h, h, turn) + shift1
        x = x + (scale2 + 1) * self.reading(self.norm2(x), memory, turn) + shift2
        return x + (scale3 + 1) * self.linear2(F.gelu(self.linear1(self.norm3(x)))) + shift3


class Ditto(nn.Module):
    """(x_t, frame before, t, what is known) -> x_0."""

    def __init__(self, config: DittoConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self.motion_in = nn.Linear(2 * CHANNELS, d)
        self.known_in = nn.Linear(config.audio_dim + EXTRA, d)
        self.readers = nn.ModuleList(Reader(config) for _ in range(_READERS))
        self.summary = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.no_tokens = nn.Parameter(torch.zeros(config.window, d))
        self.no_summary = nn.Parameter(torch.zeros(d))
        self.time = nn.Linear(d, 4 * d)
        self.time_state, self.time_tokens = nn.Linear(4 * d, d), nn.Linear(4 * d, _TIME_TOKENS * d)
        self.norm_memory = nn.LayerNorm(d)
        self.writers = nn.ModuleList(Writer(config) for _ in range(config.depth))
        self.motion_out = nn.Linear(d, CHANNELS)
        for name, value in self.unlimited().items():
            self.register_buffer(name, value)
        if config.person:
            self.register_buffer("person", torch.zeros(CHANNELS))
            self.register_buffer("person_keypoints", torch.zeros(EXPRESSION_DIM))
            self.register_buffer("person_eyes", torch.zeros(EYES_OPEN + EYEBALLS))
        if config.blink:
            self.register_buffer("blink", torch.zeros(EXPRESSION_DIM))
        if config.moods:
            self.register_buffer("moods", torch.zeros(config.moods, EMOTIONS))

    @staticmethod
    def unlimited() -> dict[str, Tensor]:
        """Limits of the motion where none are known."""
        return {"low": torch.full((CHANNELS,), -1e4), "high": torch.full((CHANNELS,), 1e4)}

    def forward(self, x_t: Tensor, before: Tensor, t: Tensor, known: Tensor, empty: Tensor) -> Tensor:
        """Predict x_0.

        Args:
            x_t: noisy motion, [B, L, 265], L <= window.
            before: motion of the frame before the window, or of the portrait, [B, 265].
            t: diffusion time in [0, T), [B].
            known: speech, emotion, openness of the eyes, eyeballs, canonical keypoints, [B, L, C].
            empty: True where all of that is withheld, [B].

        Returns:
            [B, L, 265], float32.
        """
        length, d = x_t.shape[1], self.config.dim
        turn = turns(length + _TIME_TOKENS, d, x_t.device)
        tokens = self.known_in(known)
        for reader in self.readers:
            tokens = reader(tokens, turn)
        summary = torch.where(empty[:, None], self.no_summary, self.summary(tokens.mean(1)))
        tokens = torch.where(empty[:, None, None], self.no_tokens[:length], tokens)
        time = F.mish(self.time(sinusoid(t, d)))
        memory = torch.cat([tokens, self.time_tokens(time).unflatten(-1, (_TIME_TOKENS, d))], dim=1)
        memory, state = self.norm_memory(memory), self.time_state(time) + summary
        x = self.motion_in(torch.cat([x_t, before[:, None].expand_as(x_t)], dim=-1))
        for writer in self.writers:
            x = writer(x, memory, state, turn)
        return self.motion_out(x).float()


def sinusoid(position: Tensor, dim: int) -> Tensor:
    """All sines, then all cosines, [N] -> [N, dim]."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=position.device) * (-math.log(10_000.0) / (half - 1)))
    angles = position[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def turns(length: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotations of every position and pair of channels, each [L, dim]."""
    rates = 1.0 / (10_000 ** (torch.arange(0, dim, 2, device=device).float() / dim))
    angles = (torch.arange(length, device=device).float()[:, None] * rates).repeat_interleave(2, dim=-1)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Neighbouring channels turned as pairs by their position, [B, L, D]."""
    cos, sin = (part[: x.shape[1]].to(x.dtype) for part in turn)
    even, odd = x[..., ::2], x[..., 1::2]
    return x * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin


def published_shapes(config: DittoConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the published state dict with its shape, but for the tables of the rotations."""
    d, ff = config.dim, config.hidden
    shapes = {"null_cond_embed": (1, config.window, d), "null_cond_hidden": (1, d)}
    linears = {
        "time_mlp.1": (4 * d, d), "to_time_cond.0": (d, 4 * d), "to_time_tokens.0": (_TIME_TOKENS * d, 4 * d),
        "input_projection": (d, 2 * CHANNELS), "cond_projection": (d, config.audio_dim + EXTRA),
        "non_attn_cond_projection.1": (d, d), "non_attn_cond_projection.3": (d, d), "final_layer": (CHANNELS, d),
    }  # fmt: skip
    norms = ["norm_cond", "non_attn_cond_projection.0"]
    for stem, attentions, count in _stacks(config):
        norms += [f"{stem}.norm{n}" for n in range(1, count + 1)]
        linears |= {f"{stem}.linear1": (ff, d), f"{stem}.linear2": (d, ff)}
        if count == 3:
            linears |= {f"{stem}.film{n}.block.1": (2 * d, d) for n in range(1, 4)}
        for attention in attentions:
            linears[f"{stem}.{attention}.out_proj"] = (d, d)
            shapes |= {f"{stem}.{attention}.in_proj_weight": (3 * d, d), f"{stem}.{attention}.in_proj_bias": (3 * d,)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | {f"{name}.{kind}": (d,) for name in norms for kind in ("weight", "bias")}


def _stacks(config: DittoConfig) -> list[tuple[str, tuple[str, ...], int]]:
    """(published stem, its attentions, its norms) of every layer."""
    readers = [(f"cond_encoder.{i}", ("self_attn",), 2) for i in range(_READERS)]
    return readers + [(f"seqTransDecoder.stack.{i}", ("self_attn", "multihead_attn"), 3) for i in range(config.depth)]


def folded(state: dict[str, Tensor], config: DittoConfig) -> dict[str, Tensor]:
    """A published state dict, its keys verified, as ours; the buffers come from the settings."""
    made = {"no_tokens": state["null_cond_embed"][0], "no_summary": state["null_cond_hidden"][0]}
    pairs = {
        "motion_in": "input_projection", "known_in": "cond_projection", "summary.0": "non_attn_cond_projection.0",
        "summary.1": "non_attn_cond_projection.1", "summary.3": "non_attn_cond_projection.3", "time": "time_mlp.1",
        "time_state": "to_time_cond.0", "time_tokens": "to_time_tokens.0", "norm_memory": "norm_cond",
        "motion_out": "final_layer",
    }  # fmt: skip
    ours_of = {"self_attn": "attention", "multihead_attn": "reading"}
    for stem, attentions, count in _stacks(config):
        ours = stem.replace("cond_encoder", "readers").replace("seqTransDecoder.stack", "writers")
        pairs |= {f"{ours}.{n}": f"{stem}.{n}" for n in ("linear1", "linear2")}
        pairs |= {f"{ours}.norm{n}": f"{stem}.norm{n}" for n in range(1, count + 1)}
        for attention in attentions:
            pairs[f"{ours}.{ours_of[attention]}.out"] = f"{stem}.{attention}.out_proj"
            for kind in ("weight", "bias"):
                parts = state[f"{stem}.{attention}.in_proj_{kind}"].chunk(3)
                made |= {f"{ours}.{ours_of[attention]}.{n}.{kind}": p for n, p in zip("qkv", parts, strict=True)}
        if count == 3:
            for kind in ("weight", "bias"):
                films = [state[f"{stem}.film{n}.block.1.{kind}"] for n in range(1, 4)]
                made[f"{ours}.film.{kind}"] = torch.cat(films)
    for ours, theirs in pairs.items():
        made |= {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return {name: value.detach().float().contiguous() for name, value in made.items()}
