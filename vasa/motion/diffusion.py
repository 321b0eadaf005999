"""Noise schedule, guidance and sampling (VASA-1, Eq. 1 and 2).

Letters: `B` batch, `L` frames, `M` motion channels, `T` diffusion steps of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..kernels.dispatch import guided_x0_step
from .conditions import Conditions, stack
from .transformer import Denoiser

POSE_FADE, FACE_FADE = 25, 10
"""Frames over which a window leaves the offset of the frames it continues: slowly for the head, soon for the lips."""


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
    generator: torch.Generator,
    known: Tensor | None = None,
    progress: Callable[[], None] | None = None,
) -> Tensor:
    """Draw a window of motion by guided DDIM.

    Where the first frames are known (they were emitted by the window before), they are put into every prediction of
    x_0, so that the rest grows out of them. What the model itself would have drawn for the last of them differs by
    some offset; it is faded out over the following frames, which leaves no seam. Not in the paper.

    Args:
        denoiser: H.
        conditions: of a batch of B windows.
        length: L, frames of the window.
        scales: guidance scale per condition name, >= 0; 0 leaves it unguided. Paper: audio 0.5, gaze 1.0.
        steps: denoising steps; 50 in the paper, 10 is nearly as good.
        generator: CPU generator, so that a seed means the same motion on every device.
        known: normalised motion of the first O frames, [B, O, M].
        progress: called after every step; may raise to stop.

    Returns:
        Normalised motion x_0, [B, L, M].
    """
    total = denoiser.config.diffusion_steps
    device, batch = conditions.audio.device, conditions.audio.shape[0]
    names, weights = guidance_weights(scales)
    rows = stack([conditions, *(conditions.without(name) for name in names)])
    low, high = denoiser.normalise(denoiser.low), denoiser.normalise(denoiser.high)
    x_t = torch.randn(batch, length, denoiser.mean.numel(), generator=generator).to(device)
    times = torch.linspace(total - 1, -1, steps + 1, dtype=torch.float64).round()
    x_0 = x_t
    for now, then in zip(times[:-1], times[1:], strict=True):
        t = torch.full((batch * len(weights),), float(now), device=device)
        predictions = denoiser(x_t.repeat(len(weights), 1, 1), t, rows).unflatten(0, (len(weights), batch))
        guided = torch.einsum("r,rntm->ntm", weights.to(device), predictions).clamp(low, high)
        if known is not None:
            guided = _continue(known, guided)
        x_0, x_t = guided_x0_step(
            guided[None], torch.ones(1), x_t, float(alpha_bar(now, total)), float(alpha_bar(then, total))
        )
        if progress is not None:
            progress()
    return x_0


def _continue(known: Tensor, drawn: Tensor) -> Tensor:
    """Known frames in front; the offset between them and what was drawn fades out behind them.

    The fade starts with zero slope, so that the first step is the model's own.
    """
    count, channels = known.shape[1:]
    offset = known[:, -1:] - drawn[:, count - 1 : count]
    lengths = torch.full((channels,), float(FACE_FADE), device=drawn.device)
    lengths[:6] = POSE_FADE
    frame = torch.arange(1, drawn.shape[1] - count + 1, device=drawn.device)[:, None]
    fade = (1 + torch.cos(torch.pi * (frame / lengths).clamp(max=1))) / 2  # [L - O, M]
    return torch.cat([known, drawn[:, count:] + offset * fade], dim=1)
