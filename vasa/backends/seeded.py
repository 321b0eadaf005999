"""Random weights from key names alone, so that tests rebuild what the published modules were given.

`benchmarks/liveportrait.py` puts them through the published modules and ours; the figures it prints are the golden
figures of the tests.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor


def seeded(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Published key -> tensor, a function of the key and the shape alone; spectral vectors fit their weights."""
    state = {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}
    for name in [n for n in state if n.endswith(".weight_orig")]:
        stem, weight = name.removesuffix("_orig"), state[name].flatten(1)
        u = torch.nn.functional.normalize(state[f"{stem}_u"], dim=0)
        for _ in range(4):
            v = torch.nn.functional.normalize(weight.T @ u, dim=0)
            u = torch.nn.functional.normalize(weight @ v, dim=0)
        state[f"{stem}_u"], state[f"{stem}_v"] = u, v
    return state


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    value = torch.randn(shape, generator=generator)
    if name.endswith("running_var"):
        return 0.75 + 0.5 * value.sigmoid()
    if name.endswith("running_mean"):
        return 0.1 * value
    if len(shape) > 1:
        return value * math.sqrt(2 / math.prod(shape[1:]))
    return 1 + 0.1 * value if name.endswith("weight") else 0.1 * value


def inputs(name: str, *shape: int) -> Tensor:
    """Seeded standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
