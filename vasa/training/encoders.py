"""Trains E_pose and E_dyn on rendered people, before the face model that then keeps them frozen."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import VasaConfig
from ..face.blocks import resize_pictures
from ..face.encoder import DynamicsEncoder, PoseEncoder
from ..face.near import MARKS
from ..synthetic.augment import add_occluder, sensor
from .data import StillShards, colour_jitter, moved, moved_landmarks
from .loop import TimeBox, Trainer
from .losses import dynamics_loss
from .near import NEAR_SHARE, near_step, wrong_frame
from .reader import score_readings


class Encoders(nn.Module):
    """E_pose and E_dyn under the names they have in `FaceModel`."""

    def __init__(self, config: VasaConfig) -> None:
        super().__init__()
        self.pose = PoseEncoder(config.face)
        self.dynamics = DynamicsEncoder(config.face)

    def forward(self, pictures: Tensor, frame: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Head pose, dynamics and landmarks; the dynamics' crop follows `frame`, or the pose just read."""
        head_pose = self.pose(pictures)
        return head_pose, *self.dynamics.look(pictures, head_pose.detach() if frame is None else frame)


def train_encoders(
    data: str | Path, out: str | Path, box: TimeBox, config: VasaConfig, *, seed: int = 0, batch_size: int = 32,
    resume: str | Path | None = None, validation: str | Path | None = None,
) -> None:  # fmt: skip
    """Train both encoders with labels.

    Args:
        data: folder of rendered shards.
        out: folder for weights and scores.
        box: time box.
        config: which model; its dynamics must be the supervised ones.
        seed: initial weights, batches, augmentation.
        batch_size: pictures per step.
        resume: weights to start from.
        validation: shards of people never trained on.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shards = StillShards(data)
    held_out = StillShards(validation) if validation else None
    spread = shards.spread()
    trainer = Trainer(Encoders(config), out, box, resume)
    device = trainer.accelerator.device

    def step(index: int) -> dict[str, Tensor]:
        if index % 200 == 0:
            shards.refresh()
        if trainer.raw.dynamics.fine is not None and trainer.progress < NEAR_SHARE:
            return near_step(
                trainer, trainer.raw.dynamics.near, trainer.raw.dynamics.fine, shards, batch_size, generator, spread
            )
        stills, _ = shards.stills(batch_size, generator)
        image = resize_pictures(stills.image, min(stills.image.shape[-1], 256))
        image, truth, affine = moved(image, stills.head_pose, generator)
        landmarks = moved_landmarks(stills.landmarks, affine).to(device)
        image = sensor(colour_jitter(image, generator), generator)
        if torch.rand((), generator=generator) < 0.2:
            image, _ = add_occluder(image, generator)
        truth, dynamics = truth.to(device), stills.dynamics.to(device)
        with trainer.accelerator.autocast():
            head_pose, read, marks = trainer.model(image.to(device), wrong_frame(truth, generator))
        losses = {"pose": (head_pose - truth).abs().mean() * 8, "dynamics": dynamics_loss(read, dynamics, spread)}
        if marks is not None:
            losses["landmarks"] = (marks - landmarks[:, MARKS]).abs().mean() * 20
        trainer.descend(sum(losses.values()))
        return losses

    scorer = Encoders(config).to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        if held_out is None:
            return {}
        averaged = trainer.with_average(scorer)
        stills, _ = held_out.stills(144, torch.Generator().manual_seed(1))
        with torch.inference_mode():
            head_pose, dynamics, _ = averaged(stills.image.to(device))
        return score_readings(stills, head_pose.cpu(), dynamics.cpu())

    trainer.run(step, panel)
