"""How much of a label a code tells: linear probes in closed form.

Letters: `N` samples, `C` channels of the code, `Y` channels of the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY = 1e-2
"""Ridge penalty on standardised codes, per sample."""
HELD_OUT_SHARE = 0.3


@dataclass(frozen=True)
class Probe:
    """A fitted linear map from codes to labels.

    Attributes:
        mean, scale: of the codes it was fitted on, [C].
        weight: [C, Y].
        bias: [Y].
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, codes: Tensor) -> Tensor:
        """[N, C] -> [N, Y], float64."""
        return ((codes.double() - self.mean) / self.scale) @ self.weight + self.bias


def fit(codes: Tensor, labels: Tensor, penalty: float = PENALTY) -> Probe:
    """Ridge regression, W = (X^T X / N + penalty I)^-1 X^T Y / N on standardised codes and centred labels.

    Args:
        codes: [N, C].
        labels: [N, Y].
        penalty: >= 0.
    """
    codes, labels = codes.double(), labels.double()
    mean, scale = codes.mean(0), codes.std(0).clamp_min(1e-6)
    x, bias = (codes - mean) / scale, labels.mean(0)
    gram = x.T @ x / len(x) + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return Probe(mean, scale, torch.linalg.solve(gram, x.T @ (labels - bias) / len(x)), bias)


def r_squared(predicted: Tensor, truth: Tensor) -> float:
    """Share of the truth's variance that is explained, all channels together, [N, Y]; can be negative."""
    predicted, truth = predicted.double(), truth.double()
    spread = (truth - truth.mean(0)).square().sum().clamp_min(1e-12)
    return 1.0 - float((truth - predicted).square().sum() / spread)


def explained(codes: Tensor, labels: Tensor, people: Tensor) -> float:
    """R² of a linear probe on people it was not fitted on.

    Args:
        codes: [N, C].
        labels: [N, Y].
        people: whose picture each sample is, [N]; the last 30 % of the people are held out.
    """
    known = people < people.max() * (1 - HELD_OUT_SHARE)
    return r_squared(fit(codes[known], labels[known])(codes[~known]), labels[~known])


def named(codes: Tensor, people: Tensor, frames: Tensor) -> float:
    """Share of pictures whose person a linear classifier names, fitted on the person's other pictures.

    Args:
        codes: [N, C].
        people: [N] int64, counted from 0.
        frames: number of the picture among those of its person, [N]; the last one is held out.
    """
    known = frames < frames.max()
    probe = fit(codes[known], F.one_hot(people[known]).double())
    return float((probe(codes[~known]).argmax(1) == people[~known]).double().mean())
