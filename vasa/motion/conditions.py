"""The conditions C = [X_pre, A_pre; A, g, d, e] of VASA-1, section 3.2: their embedding and their emptying.

Letters: `B` batch, `L` frames of the current window, `K` previous frames, `A` audio channels, `M` motion channels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

NAMES: tuple[str, ...] = ("audio", "gaze", "distance", "emotion", "previous")


@dataclass(frozen=True)
class Conditions:
    """Everything the denoiser is told about a window.

    Attributes:
        audio: features of the current frames, [B, L, A].
        heard: 1 where the audio is known, 0 where it has not arrived yet, [B, L].
        gaze: main gaze direction in the camera's frame (yaw, pitch), radians, [B, L, 2].
        distance: natural logarithm of the head distance, 0 = average, [B, L, 1].
        emotion: weights over `vasa.latents.EMOTIONS`, [B, L, 8].
        previous_motion: the last frames of the window before, normalised, [B, K, M].
        previous_audio: their audio features, [B, K, A].
        empty: condition name -> [B] bool, True where the condition is withheld.
    """

    audio: Tensor
    heard: Tensor
    gaze: Tensor
    distance: Tensor
    emotion: Tensor
    previous_motion: Tensor
    previous_audio: Tensor
    empty: dict[str, Tensor]

    def __getitem__(self, rows) -> Conditions:
        kept = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "empty"}
        return Conditions(**kept, empty={name: mask[rows] for name, mask in self.empty.items()})

    def without(self, name: str) -> Conditions:
        """The same conditions with one of them emptied for the whole batch."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["empty"] = self.empty | {name: torch.ones_like(self.empty[name])}
        return Conditions(**values)


def stack(rows: list[Conditions]) -> Conditions:
    """Several batches of conditions one after the other."""
    joined = {f.name: torch.cat([getattr(r, f.name) for r in rows]) for f in fields(Conditions) if f.name != "empty"}
    return Conditions(**joined, empty={n: torch.cat([r.empty[n] for r in rows]) for n in NAMES})


def nothing_empty(batch: int, device: torch.device | str | None = None) -> dict[str, Tensor]:
    """All conditions given."""
    return {name: torch.zeros(batch, dtype=torch.bool, device=device) for name in NAMES}


def random_empty(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Training dropout: each condition with probability 0.1, the previous window (X_pre and A_pre together) 0.5."""
    chance = {name: 0.5 if name == "previous" else 0.1 for name in NAMES}
    return {name: torch.rand(batch, generator=generator) < chance[name] for name in NAMES}


class ConditionEmbedding(nn.Module):
    """Turns conditions into one embedding per token; a withheld condition becomes a learned vector."""

    def __init__(self, audio_dim: int, motion_dim: int, emotions: int, dim: int, num_previous: int) -> None:
        super().__init__()
        self.audio = nn.Linear(audio_dim, dim)
        self.gaze = nn.Linear(2, dim)
        self.distance = nn.Linear(1, dim)
        self.emotion = nn.Linear(emotions, dim)
        self.no_audio = nn.Parameter(torch.randn(dim) * 0.02)
        self.no_gaze = nn.Parameter(torch.randn(dim) * 0.02)
        self.no_distance = nn.Parameter(torch.randn(dim) * 0.02)
        self.no_emotion = nn.Parameter(torch.randn(dim) * 0.02)
        self.start_motion = nn.Parameter(torch.randn(num_previous, motion_dim) * 0.02)
        self.start_audio = nn.Parameter(torch.randn(num_previous, dim) * 0.02)

    def forward(self, c: Conditions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns previous motion [B, K, M], previous audio [B, K, dim], audio [B, L, dim], controls [B, L, dim]."""
        previous_motion = _unless(c.empty["previous"], c.previous_motion, self.start_motion)
        previous_audio = _unless(c.empty["previous"], self.audio(c.previous_audio), self.start_audio)
        audio = _unless(c.empty["audio"], self.audio(c.audio), self.no_audio)
        # frames whose sound has not arrived are told apart from frames without the audio condition
        audio = audio * c.heard[..., None].to(audio.dtype)
        controls = (
            _unless(c.empty["gaze"], self.gaze(c.gaze * 4), self.no_gaze)
            + _unless(c.empty["distance"], self.distance(c.distance * 4), self.no_distance)
            + _unless(c.empty["emotion"], self.emotion(c.emotion), self.no_emotion)
        )
        return previous_motion, previous_audio, audio, controls


def _unless(empty: Tensor, given: Tensor, learned: Tensor) -> Tensor:
    return torch.where(empty[:, None, None], learned.to(given.dtype), given)
