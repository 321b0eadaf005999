"""Is it still the same person?"""

from __future__ import annotations

import torch
from torch import Tensor


def retrieval(queries: Tensor, gallery: Tensor) -> float:
    """Share of queries whose most similar entry of the gallery is the entry of the same number.

    Args:
        queries: unit vectors, [N, C].
        gallery: unit vectors, [N, C].
    """
    return float(((queries @ gallery.T).argmax(1) == torch.arange(len(queries), device=queries.device)).float().mean())


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of unit vectors, [..., C] and [..., C] -> [...]."""
    return (first * second).sum(-1)


def percentile(values: Tensor, share: float) -> float:
    """The value below which a share of the values lies."""
    return float(values.float().flatten().quantile(share))
