"""The first lesson of E_dyn and the reader: the trunks that see mouth, eyes and brows from near, alone.

Such a step costs a third of one of the whole network, and landmarks are learned undisturbed by what else is to be read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..face.blocks import resize_pictures
from ..face.near import MARKS, PatchTrunks
from ..latents import DYNAMICS
from ..synthetic.augment import sensor
from ..synthetic.emotions import emotion_of
from .data import Stills, StillShards, colour_jitter
from .loop import Trainer
from .losses import dynamics_loss

NEAR_SHARE = 0.6
"""Of a time box."""
_FRAME_ERRORS = (0.03, 0.03, 0.03, 0.015, 0.015, 0.035)


def wrong_frame(head_pose: Tensor, generator: torch.Generator) -> Tensor:
    """The true pose with errors of the size that the first trunk makes, [B, 6]: the crop's frame in training."""
    noise = torch.randn(head_pose.shape, generator=generator) * torch.tensor(_FRAME_ERRORS)
    return head_pose + noise.to(head_pose.device)


def draw_near(shards: StillShards, batch_size: int, generator: torch.Generator) -> Stills:
    """Pictures in other colours; a quarter of them through a camera, the dearest part of making a batch."""
    stills, _ = shards.stills(batch_size, generator)
    image = colour_jitter(resize_pictures(stills.image, min(stills.image.shape[-1], 256)), generator)
    taken = max(batch_size // 4, 1)
    image = torch.cat([sensor(image[:taken], generator), image[taken:]])
    return Stills(image, stills.head_pose, stills.dynamics, stills.landmarks, stills.part)


def near_losses(near: PatchTrunks, fine: nn.Module, stills: Stills, frame: Tensor, spread: Tensor) -> dict[str, Tensor]:
    """What the near trunks alone say: landmarks, dynamics, and emotions where `fine` has them, too."""
    seen, marks = near(stills.image, frame)
    read = fine(seen).float()
    losses = {
        "landmarks": (marks - stills.landmarks[:, MARKS]).abs().mean() * 40,
        "dynamics": dynamics_loss(read[:, : len(DYNAMICS)], stills.dynamics, spread),
    }
    if read.shape[-1] > len(DYNAMICS):
        losses["emotion"] = emotion_loss(read[:, len(DYNAMICS) :].log_softmax(-1), stills.dynamics)
    return losses


def near_step(
    trainer: Trainer, near: PatchTrunks, fine: nn.Module, shards: StillShards, batch_size: int,
    generator: torch.Generator, spread: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """One step of this lesson; the losses, for the log."""
    stills = draw_near(shards, batch_size, generator).to(trainer.accelerator.device)
    frame = wrong_frame(stills.head_pose, generator)
    with trainer.accelerator.autocast():
        losses = near_losses(near, fine, stills, frame, spread)
    trainer.descend(sum(losses.values()))
    return losses


def emotion_loss(emotion: Tensor, dynamics: Tensor) -> Tensor:
    """Cross-entropy of log-probabilities [B, 8] against the emotions that the true dynamics show."""
    return -(emotion_of(dynamics) * emotion).sum(-1).mean() * 0.3
