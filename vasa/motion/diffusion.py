"""Noise schedule, guidance and sampling (VASA-1, Eq. 1 and 2).

Letters: `B` batch, `L` frames, `M` motion channels, `T` diffusion steps of training.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from ..graphs import Graphed
from ..kernels.dispatch import ddim_coefficients, guided_step
from .conditions import NAMES, Conditions, stack
from .transformer import Denoiser

POSE_FADE, FACE_FADE = 25, 10
"""Frames over which a window leaves the offset of the frames it continues: slowly for the head, soon for the lips (and
over half of what a window draws at most)."""


class Known(NamedTuple):
    """Normalised motion that a window goes on from. The head's path is settled some frames further than the face.

    Attributes:
        head: pose channels of the first O + A frames, [B, O + A, P].
        face: the other channels of the first O frames, [B, O, M - P].
    """

    head: Tensor
    face: Tensor

    def continued(self, drawn: Tensor) -> Tensor:
        """Known frames in front; the offset between them and what was drawn fades out behind them, [B, L, M]."""
        poses = self.head.shape[2]
        # a short window's lips would else never leave the offset of the one before
        soon = min(FACE_FADE, (drawn.shape[1] - self.face.shape[1]) // 2 + 1)
        head = _continued(self.head, drawn[..., :poses], POSE_FADE)
        return torch.cat([head, _continued(self.face, drawn[..., poses:], soon)], dim=2)


def _continued(known: Tensor, drawn: Tensor, fade_frames: int) -> Tensor:
    # the fade starts with zero slope, so that the first step is the model's own
    count = known.shape[1]
    offset = known[:, -1:] - drawn[:, count - 1 : count]
    frame = torch.arange(1, drawn.shape[1] - count + 1, device=drawn.device)[:, None]
    fade = (1 + torch.cos(torch.pi * (frame / fade_frames).clamp(max=1))) / 2
    return torch.cat([known, drawn[:, count:] + offset * fade], dim=1)


def alpha_bar(t: Tensor | float, diffusion_steps: int) -> Tensor:
    """Cumulative signal level of the cosine schedule, 1 at t = -1 (clean) to about 0 at t = T - 1.

    >>> round(float(alpha_bar(-1.0, 1000)), 4)
    1.0
    """
    share = (torch.as_tensor(t, dtype=torch.float64) + 1) / diffusion_steps
    level = torch.cos((share + 0.008) / 1.008 * math.pi / 2).square() / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    return level.clamp(1e-5, 1.0)


def add_noise(x_0: Tensor, t: Tensor, noise: Tensor, diffusion_steps: int) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, [B, L, M] with t [B]."""
    level = alpha_bar(t, diffusion_steps).to(x_0)[:, None, None]
    return level.sqrt() * x_0 + (1 - level).sqrt() * noise


def guidance_weights(scales: dict[str, float]) -> tuple[list[str], Tensor]:
    """Conditions that need a row of their own, and the weights of Eq. 2: (1 + sum s_c, -s_c, ...).

    >>> guidance_weights({"audio": 0.5, "gaze": 0.0})[1].tolist()
    [1.5, -0.5]
    """
    used = [name for name, scale in scales.items() if scale != 0]
    return used, torch.tensor([1 + sum(scales[n] for n in used), *(-scales[n] for n in used)])


def sample(
    denoiser: Denoiser,
    conditions: Conditions,
    length: int,
    *,
    scales: dict[str, float],
    steps: int,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    known: Known | None = None,
    constrain: Callable[[Tensor], Tensor] | None = None,
    sampler: str = "ddim",
    progress: Callable[[], None] | None = None,
) -> Tensor:
    """Draw a window of motion by guided DDIM or DPM-Solver++.

    Where the first frames are known (they were emitted by the window before), they are put into every prediction of
    x_0, so that the rest grows out of them. What the model itself would have drawn for the last of them differs by
    some offset; it is faded out over the following frames, which leaves no seam. Not in the paper.

    Args:
        denoiser: H.
        conditions: of a batch of B windows.
        length: L, frames of the window.
        scales: guidance scale per condition name, >= 0; 0 leaves it unguided. Paper: audio 0.5, gaze 1.0.
        steps: denoising steps; 50 in the paper, 10 is nearly as good.
        generator: CPU generator, so that a seed means the same motion on every device; draws `noise` if not given.
        noise: x_T, [B, L, M] on any device.
        known: normalised motion of the first frames.
        constrain: replaces every prediction of x_0, [B, L, M] -> the same; in-painting puts known frames in.
        sampler: "ddim", or "dpm++": DPM-Solver++(2M), the same path followed to second order, better in few steps.
        progress: called after every step; may raise to stop.

    Returns:
        Normalised motion x_0, [B, L, M].
    """
    total = denoiser.config.diffusion_steps
    device, batch = conditions.audio.device, conditions.audio.shape[0]
    names, weights = guidance_weights(scales)
    rows = stack([conditions, *(conditions.without(name) for name in names)])
    low, high = denoiser.normalise(denoiser.low), denoiser.normalise(denoiser.high)
    if noise is None:
        noise = torch.randn(batch, length, denoiser.mean.numel(), generator=generator)
    x_t = noise.to(device)
    times = torch.linspace(total - 1, -1, steps + 1, dtype=torch.float64).round()
    levels = [float(level) for level in alpha_bar(times, total)]
    # everything the steps need is on the device before the first, so that none of them waits for the host
    path = [ddim_coefficients(now, then) for now, then in zip(levels[:-1], levels[1:], strict=True)]
    path, clock, weights = torch.tensor(path, dtype=x_t.dtype).to(device), times.float().to(device), weights.to(device)
    x_0 = x_t
    if constrain is None and sampler == "ddim":
        step = _recorded_step(denoiser)
        told = (
            weights,
            low,
            high,
            *(known or (None, None)),
            *(getattr(rows, name) for name in _GIVEN),
            *(rows.empty[n] for n in NAMES),
        )
        for i in range(steps):
            x_0, x_t = step(x_t, clock[i], path[i], *told)
            if progress is not None:
                progress()
        return x_0.clone()
    earlier: list[tuple[float, Tensor]] = []
    for i, (now, level, next_level) in enumerate(zip(clock, levels[:-1], levels[1:], strict=False)):
        t = now.expand(batch * len(weights))
        predictions = denoiser(x_t.repeat(len(weights), 1, 1), t, rows).unflatten(0, (len(weights), batch))
        guided = torch.einsum("r,rntm->ntm", weights, predictions).clamp(low, high)
        if known is not None:
            guided = known.continued(guided)
        if constrain is not None:
            guided = constrain(guided)
        if sampler == "dpm++":
            earlier = [*earlier[-1:], (level, guided)]
            guided = _leading(earlier, next_level)
        x_0, x_t = guided_step(guided[None], weights.new_ones(1), x_t, path[i])
        if progress is not None:
            progress()
    return x_0


def _leading(predictions: list[tuple[float, Tensor]], level: float) -> Tensor:
    """What DPM-Solver++(2M) puts in the place of DDIM's x_0 on the way to signal level `level`.

    It is the prediction carried on by half a step along its last change, steps being measured in the logarithm of the
    signal-to-noise ratio; alone it is the prediction itself, as is the last one, on the way to no noise at all.

    Args:
        predictions: (signal level, x_0 predicted there), the last two or fewer.
        level: to which the step leads.
    """
    now, x_0 = predictions[-1]
    before, old = predictions[max(len(predictions) - 2, 0)]
    # near pure noise the schedule stands still
    if before == now or level >= 1:
        return x_0
    ratio = (_log_snr(level) - _log_snr(now)) / (_log_snr(now) - _log_snr(before))
    return x_0 + ratio / 2 * (x_0 - old)


def _log_snr(level: float) -> float:
    return 0.5 * math.log(level / (1 - level))


_GIVEN = tuple(f.name for f in fields(Conditions) if f.name != "empty")
_RECORDED: weakref.WeakKeyDictionary[Denoiser, tuple[tuple[int, ...], Graphed]] = weakref.WeakKeyDictionary()


def _recorded_step(denoiser: Denoiser) -> Callable[..., tuple[Tensor, Tensor]]:
    """One DDIM step of a denoiser, from a CUDA graph where there is one; made anew when its weights have moved."""
    if not isinstance(denoiser, Denoiser):  # a function in its place has no weights to watch
        return functools.partial(_ddim_step, denoiser)
    place = tuple(p.data_ptr() for p in denoiser.parameters())
    if _RECORDED.get(denoiser, (None,))[0] != place:
        owner = weakref.ref(denoiser)
        _RECORDED[denoiser] = place, Graphed(lambda *tensors: _ddim_step(owner(), *tensors), "the denoising step")
    return _RECORDED[denoiser][1]


def _ddim_step(
    denoiser: Denoiser, x_t: Tensor, t: Tensor, coefficients: Tensor, weights: Tensor, low: Tensor, high: Tensor,
    head: Tensor | None, face: Tensor | None, *told: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    given, empty = told[: len(_GIVEN)], told[len(_GIVEN) :]
    rows = Conditions(**dict(zip(_GIVEN, given, strict=True)), empty=dict(zip(NAMES, empty, strict=True)))
    count = len(weights)
    predictions = denoiser(x_t.repeat(count, 1, 1), t.expand(count * len(x_t)), rows).unflatten(0, (count, len(x_t)))
    x_0, x_s = guided_step(predictions, weights, x_t, coefficients, low, high)
    if head is None:
        return x_0, x_s
    return guided_step(Known(head, face).continued(x_0)[None], weights.new_ones(1), x_t, coefficients)


def frame_noise(seed: int, frames: range, channels: int) -> Tensor:
    """The noise x_T of every frame, a function of seed and frame alone, [L, M] on the CPU.

    So a frame that is drawn again, because it was look-ahead or was interrupted, starts from the same noise, and a
    session has no generator whose state would have to be kept.
    """
    rows = [torch.randn(channels, generator=torch.Generator().manual_seed(_mixed(seed, f))) for f in frames]
    return torch.stack(rows)


def _mixed(seed: int, frame: int) -> int:
    """32 well mixed bits (splitmix64); PyTorch's generator looks at no more."""
    mask = (1 << 64) - 1
    x = ((seed << 32) + seed + (frame + 1) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 32
