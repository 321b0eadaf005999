"""DPM-Solver++(2M) beside DDIM: the same end of the path, reached in fewer steps."""

import pytest
import torch

from vasa.config import TINY
from vasa.motion import diffusion
from vasa.motion.conditions import Conditions, nothing_empty

M, L = 8, 12
MEAN = torch.linspace(-1, 1, M)
SPREAD = torch.linspace(0.2, 1.5, M)


class Gaussian:
    """The perfect denoiser of data that are N(MEAN, SPREAD²): its path from noise to x_0 is known exactly."""

    config = TINY.motion
    mean, low, high = torch.zeros(M), torch.full((M,), -100.0), torch.full((M,), 100.0)

    @staticmethod
    def normalise(x):
        return x

    def __call__(self, x_t, t, rows):
        level = diffusion.alpha_bar(t.double(), self.config.diffusion_steps).float()[:, None, None]
        variance = level * SPREAD**2 + 1 - level
        return MEAN + level.sqrt() * SPREAD**2 / variance * (x_t - level.sqrt() * MEAN)


def conditions() -> Conditions:
    return Conditions(
        torch.zeros(1, L, 3), torch.ones(1, L), torch.zeros(1, L, 2), torch.zeros(1, L, 1), torch.zeros(1, L, 8),
        torch.zeros(1, 10, M), torch.zeros(1, 10, 3), nothing_empty(1),
    )  # fmt: skip


NOISE = torch.randn(1, L, M, generator=torch.Generator().manual_seed(0))


def end(sampler: str, steps: int, **given) -> torch.Tensor:
    return diffusion.sample(
        Gaussian(), conditions(), L, scales={}, steps=steps, noise=NOISE, sampler=sampler, **given
    )  # fmt: skip


def exact() -> torch.Tensor:
    """Along the path (x_t - sqrt(a) mean) / sqrt(a spread² + 1 - a) stays what it was at the beginning."""
    level = diffusion.alpha_bar(TINY.motion.diffusion_steps - 1, TINY.motion.diffusion_steps).float()
    return MEAN + SPREAD * (NOISE - level.sqrt() * MEAN) / (level * SPREAD**2 + 1 - level).sqrt()


def error(sampler: str, steps: int) -> float:
    return float((end(sampler, steps) - exact()).square().mean().sqrt())


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_many_steps_reach_the_end_of_the_path(sampler):
    assert error(sampler, 500) < 0.01
    assert error(sampler, 500) < error(sampler, 50) < error(sampler, 10)


@pytest.mark.parametrize("steps", [5, 10, 25, 50])
def test_dpm_solver_comes_closer_in_as_many_steps(steps):
    assert error("dpm++", steps) < 0.7 * error("ddim", steps)


def test_dpm_solver_is_of_second_order_and_ddim_of_first():
    orders = {name: error(name, 25) / error(name, 100) for name in ("ddim", "dpm++")}
    assert orders["ddim"] < 6 < orders["dpm++"], orders


def test_one_step_is_the_same_and_known_frames_stay():
    assert torch.equal(end("dpm++", 1), end("ddim", 1))
    known = torch.randn(1, 5, M)
    leading = diffusion.Known(head=known[..., :6], face=known[..., 6:])
    assert torch.equal(end("dpm++", 6, known=leading)[:, :5], known)
