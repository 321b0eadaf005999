"""Small draws from a CPU generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Generator

Item = TypeVar("Item")


def uniform(low: float, high: float, generator: Generator) -> float:
    """A number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def happens(probability: float, generator: Generator) -> bool:
    """True with the given probability."""
    return float(torch.rand((), generator=generator)) < probability


def choose(options: Sequence[Item], generator: Generator) -> Item:
    """One of the options, all equally likely."""
    return options[int(torch.randint(len(options), (1,), generator=generator))]
