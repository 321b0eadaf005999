"""Trains the face reader on rendered people."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VasaConfig
from ..face.blocks import resize_pictures
from ..face.encoder import align_grid
from ..face.reader import FaceReader, Reading
from ..latents import DYNAMICS
from ..synthetic.augment import add_occluder, sensor
from ..synthetic.emotions import emotion_of
from .data import Stills, StillShards, colour_jitter, moved, moved_landmarks, moved_parts
from .loop import TimeBox, Trainer
from .losses import dynamics_loss
from .near import NEAR_SHARE, emotion_loss, near_step, wrong_frame


def reader_losses(
    reading: Reading, stills: Stills, head: nn.Linear, person: Tensor, spread: Tensor
) -> dict[str, Tensor]:
    """Supervised losses of every head of the reader; their sum is minimised."""
    cosine = F.linear(reading.identity, F.normalize(head.weight, dim=-1))
    margin = F.one_hot(person, cosine.shape[-1]) * 0.2
    named = F.cross_entropy((cosine - margin) * 30, person)
    return {
        "pose": (reading.head_pose - stills.head_pose).abs().mean() * 8,
        "landmarks": (reading.landmarks - stills.landmarks).abs().mean() * 20,
        "dynamics": dynamics_loss(reading.dynamics, stills.dynamics, spread),
        "emotion": emotion_loss(reading.emotion, stills.dynamics),
        "identity": named * 0.15 + likeness_loss(reading.identity, person) * 0.5,
    }


def likeness_loss(identity: Tensor, person: Tensor, temperature: float = 0.1) -> Tensor:
    """Pictures of one person are more alike than those of two (InfoNCE over the batch).

    Names alone (a class for everybody) leave the codes of strangers at a cosine of 0.96: what all people share is
    cheaper to keep than to subtract.

    Args:
        identity: unit vectors, [B, C].
        person: [B], at least two pictures of each.
        temperature: of the softmax over cosines.
    """
    cosine = identity @ identity.T / temperature
    itself = torch.eye(len(person), dtype=torch.bool, device=person.device)
    same = (person[:, None] == person) & ~itself
    ranked = cosine.masked_fill(itself, -1e4).log_softmax(-1)
    return -(ranked * same).sum() / same.sum().clamp_min(1)


def _aligned_parts(part: Tensor, head_pose: Tensor, size: int) -> Tensor:
    grid = align_grid(head_pose, size)
    return F.grid_sample(part[:, None].float(), grid, mode="nearest", align_corners=True)[:, 0].long()


def train_reader(
    data: str | Path, out: str | Path, box: TimeBox, config: VasaConfig, *, seed: int = 0, batch_size: int = 32,
    resume: str | Path | None = None, validation: str | Path | None = None,
) -> None:  # fmt: skip
    """Train a reader.

    Args:
        data: folder of rendered shards.
        out: folder for weights and scores.
        box: time box.
        config: which model's reader.
        seed: initial weights, batches and augmentation; two readers with other seeds judge independently.
        batch_size: pictures per step.
        resume: weights to start from.
        validation: folder of shards with people never trained on, scored at each checkpoint.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shards = StillShards(data)
    held_out = StillShards(validation) if validation else None
    spread = shards.spread()
    reader = FaceReader(config.reader)
    trainer = Trainer(reader, out, box, resume)
    device = trainer.accelerator.device
    people = nn.Linear(reader.config.identity_dim, len(shards), bias=False).to(device)
    people_optimiser = torch.optim.AdamW(people.parameters(), lr=2e-3)

    def step(index: int) -> dict[str, Tensor]:
        if trainer.raw.fine is not None and trainer.progress < NEAR_SHARE:
            return near_step(trainer, trainer.raw.near, trainer.raw.fine, shards, batch_size, generator, spread)
        stills, person = shards.stills(batch_size, generator, frames_each=2)
        image, head_pose, affine = moved(stills.image, stills.head_pose, generator)
        landmarks = moved_landmarks(stills.landmarks, affine)
        part = moved_parts(stills.part, affine)
        stills = Stills(image, head_pose, stills.dynamics, landmarks, part)
        image = sensor(colour_jitter(image, generator), generator)
        if torch.rand((), generator=generator) < 0.3:
            image, _ = add_occluder(image, generator)
        stills = Stills(*(getattr(stills, f).to(device) for f in Stills.__dataclass_fields__))
        image = resize_pictures(image.to(device), min(image.shape[-1], 256))
        frame = wrong_frame(stills.head_pose, generator)
        with trainer.accelerator.autocast():
            rough = reader.find(image)
            reading = trainer.model(image, frame)
        losses = reader_losses(reading, stills, people, person.to(device), spread)
        losses["rough"] = (rough - stills.head_pose).abs().mean() * 8
        losses["parts"] = (
            F.cross_entropy(reading.parts, _aligned_parts(stills.part, frame, reading.parts.shape[-1])) * 0.2
        )
        people_optimiser.zero_grad(set_to_none=True)
        trainer.descend(sum(losses.values()))
        people_optimiser.step()
        return losses

    scorer = FaceReader(config.reader).to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        if held_out is None:
            return {}
        return score_reader(trainer.with_average(scorer), held_out, min(96, 8 * len(held_out)))

    trainer.run(step, panel)


def score_reader(reader: FaceReader, shards: StillShards, count: int = 96) -> dict[str, float]:
    """Scores on people never seen: those of `score_readings`, landmark error in picture widths, how many find their own
    other picture among 48, and how many of the emotions shown are named."""
    generator = torch.Generator().manual_seed(1)
    stills, _ = shards.stills(count, generator)
    device = next(reader.parameters()).device
    with torch.inference_mode():
        reading = reader(resize_pictures(stills.image.to(device), 256))
    scores = score_readings(stills, reading.head_pose.cpu(), reading.dynamics.cpu())
    away = (reading.landmarks.cpu() - stills.landmarks).norm(dim=-1).mean() / 2
    pairs, _ = shards.stills(count, generator, frames_each=2)
    with torch.inference_mode():
        identity = reader(resize_pictures(pairs.image.to(device), 256)).identity
    found = (identity[::2] @ identity[1::2].T).argmax(1).cpu() == torch.arange(count // 2)
    shown, seen = emotion_of(stills.dynamics).argmax(-1), reading.emotion.argmax(-1).cpu()
    moved = shown > 0
    return scores | {
        "val_landmarks": away.item(),
        "val_identity": found.float().mean().item(),
        "val_emotion": (shown == seen)[moved].float().mean().item(),
    }


def score_readings(stills: Stills, head_pose: Tensor, dynamics: Tensor) -> dict[str, float]:
    """Errors of poses (degrees, unit-cube lengths) and dynamics (correlations, gaze in degrees) against labels."""
    pose = (head_pose - stills.head_pose).abs().mean(0)

    def follows(name: str) -> float:
        i = DYNAMICS.index(name)
        read, true = (x[:, i] - x[:, i].mean() for x in (dynamics, stills.dynamics))
        return float(F.cosine_similarity(read, true, dim=0))  # 0, not NaN, where nothing moves

    shown, read = stills.dynamics[:, :-2], dynamics[:, :-2]
    unexplained = (read - shown).square().sum() / (shown - shown.mean(0)).square().sum().clamp_min(1e-9)
    gaze = (dynamics[:, -2:] - stills.dynamics[:, -2:]).abs().mean()
    return {
        "val_yaw_deg": pose[0].rad2deg().item(),
        "val_pitch_deg": pose[1].rad2deg().item(),
        "val_roll_deg": pose[2].rad2deg().item(),
        "val_t": pose[3:5].mean().item(),
        "val_log_s": pose[5].item(),
        "val_jaw_r": follows("jawOpen"),
        "val_blink_r": follows("eyeBlink_L"),
        "val_smile_r": follows("mouthSmile_L"),
        "val_expression_r2": 1 - unexplained.item(),
        "val_gaze_deg": gaze.rad2deg().item(),
    }
