"""The JoyVASA motion generator behind the interface of our denoiser (`vasa.motion.transformer.Denoiser`).

So our windows, streaming, seeds, samplers and guidance drive it. Channels are kept in our order: the head pose first
(yaw, pitch, roll, t_x, t_y, scale), then 63 of expression, then the unused depth and what else the weights draw.

Letters: `B` batch, `K` previous and `L` current frames, `M` motion channels (70 or more), `D` width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.dispatch import short_attention
from ...motion.conditions import Conditions
from .config import EXPRESSION_DIM, GeneratorConfig
from .keypoints import LIPS, head_pose_of, scale_and_shift
from .sound import held

CHANNELS = 7 + EXPRESSION_DIM
"""Those that move the picture, and the depth. The published weights draw three more, which their program leaves aside;
the network was trained with them, so they are drawn and told to the next window here as well."""
SEEN = 6 + EXPRESSION_DIM
OURS_OF_THEIRS: tuple[int, ...] = (68, 67, 69, 64, 65, 63, *range(EXPRESSION_DIM), 66)
"""Published position (expression, scale, t, pitch, yaw, roll) of each of our first channels; the others stay last."""
_FREE = 1e4
"""A limit that nothing reaches."""
_DEGREE = math.pi / 180


class Layer(nn.Module):
    """Post-norm decoder layer whose cross-attention sees one key only, the frame's own sound: a linear map of it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.sound = nn.Linear(dim, dim)
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, sound: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = self.norm1(x + self.out(short_attention(q, k, v).transpose(1, 2).flatten(2)))
        x = self.norm2(x + self.sound(sound))
        return self.norm3(x + self.linear2(F.gelu(self.linear1(x))))


class JoyVasa(nn.Module):
    """H(x_t, t, C) -> x_0, conditioned on speech and the window before."""

    guided = ("audio",)
    absolute = LIPS
    """Keypoints that take the drawn shapes themselves instead of moving about the portrait's."""
    keeps_gaze = keeps_size = False

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        d, m = config.dim, config.channels
        self.start_motion = nn.Parameter(torch.zeros(config.num_previous, m))
        self.start_audio = nn.Parameter(torch.zeros(config.num_previous, d))
        self.no_audio = nn.Parameter(torch.zeros(d))
        self.audio_in = nn.Linear(config.audio_dim, d)
        self.time = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d))
        self.motion_in = nn.Linear(m, d)
        self.layers = nn.ModuleList(Layer(d, config.heads) for _ in range(config.depth))
        self.motion_out = nn.Sequential(nn.Linear(d, d // 2), nn.GELU(), nn.Linear(d // 2, m))
        # normalised motion times `scale` plus `shift` is degrees, lengths and keypoint movement; `mean` is of those
        for name, value in (("scale", 1.0), ("shift", 0.0), ("mean", 0.0)):
            self.register_buffer(name, torch.full((m,), value))
        # in our units, then those of the unseen channels
        for name, value in (("low", -_FREE), ("high", _FREE)):
            self.register_buffer(name, torch.full((m,), value))

    @property
    def rest(self) -> Tensor:
        """The mean motion in our units: what movement is about, [69]."""
        return self._physical(self.mean)

    def normalise(self, motion: Tensor) -> Tensor:
        """Our units [..., 69], the unseen channels behind them or not, -> [..., M]; left out they take their means."""
        scale, shift = scale_and_shift(motion[..., :6])
        unseen = motion[..., SEEN:]
        if not unseen.shape[-1]:
            unseen = self.mean[SEEN:].expand(*motion.shape[:-1], -1)
        raw = torch.cat([motion[..., :3] / _DEGREE, shift, scale, motion[..., 6:SEEN], unseen], dim=-1)
        return (raw - self.shift) / self.scale

    def denormalise(self, motion: Tensor) -> Tensor:
        """Inverse of `normalise`, [..., M] -> [..., 69]."""
        return self._physical(motion * self.scale + self.shift)

    @staticmethod
    def _physical(raw: Tensor) -> Tensor:
        pose = head_pose_of(raw[..., :3] * _DEGREE, raw[..., 5:6], raw[..., 3:5])
        return torch.cat([pose, raw[..., 6:SEEN].float()], dim=-1)

    def forward(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Predict x_0.

        Args:
            x_t: noisy normalised motion, [B, L, M], L <= window.
            t: diffusion time in [0, T), [B].
            conditions: what is known; all but the speech and the previous window is ignored.

        Returns:
            [B, L, M], float32.
        """
        empty, k = conditions.empty, self.config.num_previous
        past = empty["previous"][:, None, None]
        previous_motion = torch.where(past, self.start_motion, conditions.previous_motion)
        previous_sound = torch.where(past, self.start_audio, self.audio_in(conditions.previous_audio))
        sound = self.audio_in(held(conditions.audio, conditions.heard))
        sound = torch.where(empty["audio"][:, None, None], self.no_audio, sound)
        sound = torch.cat([previous_sound, sound], dim=1)
        x = self.motion_in(torch.cat([previous_motion, x_t], dim=1))
        # their time counts 1 .. T
        x = x + self._positions(x) + self.time(sinusoid(t + 1, self.config.dim))[:, None]
        for layer in self.layers:
            x = layer(x, sound)
        return self.motion_out(x)[:, k:].float()

    def _positions(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if self.config.legacy_pe:
            last = self.config.num_previous + self.config.window
            return sinusoid(torch.full((1,), last, device=x.device), self.config.dim)
        return sinusoid(torch.arange(length, device=x.device), self.config.dim)


def sinusoid(position: Tensor, dim: int) -> Tensor:
    """Sines and cosines in turn, [N] -> [N, dim]."""
    rates = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-math.log(10_000.0) / dim))
    angles = position[:, None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def ours_of_theirs(channels: int) -> list[int]:
    """`OURS_OF_THEIRS` of all channels."""
    return [*OURS_OF_THEIRS, *range(CHANNELS, channels)]


def published_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Every key of a published motion generator, without its audio encoder."""
    d, k, steps, net = config.dim, config.num_previous, config.diffusion_steps, "denoising_net"
    total, m = k + config.window, config.channels
    shapes = {
        "start_motion_feat": (1, k, m), "start_audio_feat": (1, k, d), "null_audio_feat": (1, 1, d),
        "audio_feature_map.weight": (d, config.audio_dim), "audio_feature_map.bias": (d,),
        f"{net}.alignment_mask": (total, total), f"{net}.PE.pe": (1, 600, d), f"{net}.TE.pe": (1, steps + 1, d),
    }  # fmt: skip
    for name in ("betas", "alphas", "alpha_bars", "sigmas_flex", "sigmas_inflex"):
        shapes[f"diffusion_sched.{name}"] = (steps + 1,)
    linears = {"diff_step_map.0": (d, d), "diff_step_map.2": (d, d), "feature_proj": (d, m),
               "motion_dec.0": (d // 2, d), "motion_dec.2": (m, d // 2)}  # fmt: skip
    for i in range(config.depth):
        layer = f"transformer.layers.{i}"
        linears |= {f"{layer}.linear1": (4 * d, d), f"{layer}.linear2": (d, 4 * d)}
        for attention in ("self_attn", "multihead_attn"):
            linears[f"{layer}.{attention}.out_proj"] = (d, d)
            shapes[f"{net}.{layer}.{attention}.in_proj_weight"] = (3 * d, d)
            shapes[f"{net}.{layer}.{attention}.in_proj_bias"] = (3 * d,)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= {f"{net}.{layer}.{norm}.weight": (d,), f"{net}.{layer}.{norm}.bias": (d,)}
    for name, shape in linears.items():
        shapes |= {f"{net}.{name}.weight": shape, f"{net}.{name}.bias": shape[:1]}
    return shapes


def folded(state: dict[str, Tensor], config: GeneratorConfig) -> dict[str, Tensor]:
    """A published state dict, its keys verified, as ours; the buffers come from `statistics`."""
    net, order = "denoising_net.", ours_of_theirs(config.channels)
    made = {
        "start_motion": state["start_motion_feat"][0][:, order], "start_audio": state["start_audio_feat"][0],
        "no_audio": state["null_audio_feat"][0, 0],
        "motion_in.weight": state[f"{net}feature_proj.weight"][:, order],
        "motion_in.bias": state[f"{net}feature_proj.bias"],
        "motion_out.2.weight": state[f"{net}motion_dec.2.weight"][order],
        "motion_out.2.bias": state[f"{net}motion_dec.2.bias"][order],
    }  # fmt: skip
    pairs = {"audio_in": "audio_feature_map", "time.0": f"{net}diff_step_map.0", "time.2": f"{net}diff_step_map.2",
             "motion_out.0": f"{net}motion_dec.0"}  # fmt: skip
    for i in range(config.depth):
        ours, theirs = f"layers.{i}", f"{net}transformer.layers.{i}"
        for name in ("linear1", "linear2", "norm1", "norm2", "norm3"):
            pairs[f"{ours}.{name}"] = f"{theirs}.{name}"
        pairs[f"{ours}.out"] = f"{theirs}.self_attn.out_proj"
        for kind in ("weight", "bias"):
            made[f"{ours}.qkv.{kind}"] = state[f"{theirs}.self_attn.in_proj_{kind}"]
        # attention to a single key returns its value
        value, bias = (state[f"{theirs}.multihead_attn.in_proj_{kind}"][-config.dim :] for kind in ("weight", "bias"))
        weight = state[f"{theirs}.multihead_attn.out_proj.weight"].double()
        made[f"{ours}.sound.weight"] = weight @ value.double()
        made[f"{ours}.sound.bias"] = weight @ bias.double() + state[f"{theirs}.multihead_attn.out_proj.bias"].double()
    for ours, theirs in pairs.items():
        for kind in ("weight", "bias"):
            made[f"{ours}.{kind}"] = state[f"{theirs}.{kind}"]
    return {name: value.detach().float().contiguous() for name, value in made.items()}


def statistics(raw: dict[str, Tensor], channels: int = CHANNELS) -> dict[str, Tensor]:
    """The buffers of `JoyVasa` from the published template.

    Args:
        raw: mean_x, std_exp, min_x, max_x with x of exp, scale, t, pitch, yaw, roll; flat tensors.
        channels: M; those beyond the 70 have no statistics, stay as drawn and have no limits.
    """
    order = list(OURS_OF_THEIRS)

    def joined(kind: str) -> Tensor:
        return torch.cat([raw[f"{kind}_{part}"] for part in ("exp", "scale", "t", "pitch", "yaw", "roll")])[order]

    lowest, highest, mean = joined("min"), joined("max"), joined("mean")
    expression = torch.zeros(CHANNELS, dtype=torch.bool)
    expression[6:SEEN] = True
    spread = torch.cat([raw["std_exp"], torch.zeros(7)])[order]
    scale = torch.where(expression, spread, highest - lowest)
    # a channel that never moves (the depth of t) has no scale to divide by
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    margin = 0.1 * (highest - lowest)
    more = torch.zeros(channels - CHANNELS)
    free = torch.full((channels - SEEN,), _FREE)
    return {
        "scale": torch.cat([scale, more + 1]),
        "shift": torch.cat([torch.where(expression, mean, lowest), more]),
        "mean": torch.cat([mean, more]),
        "low": torch.cat([JoyVasa._physical(lowest - margin), -free]),
        "high": torch.cat([JoyVasa._physical(highest + margin), free]),
    }
