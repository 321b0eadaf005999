"""Trains the person's matte on rendered people."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..face.blocks import resize_pictures
from ..face.matte import MATTE_SIZE, PersonMatte
from ..synthetic.augment import sensor
from .data import StillShards, colour_jitter, moved
from .loop import TimeBox, Trainer


def train_matte(
    data: str | Path, out: str | Path, box: TimeBox, *, seed: int = 0, batch_size: int = 16,
    resume: str | Path | None = None, validation: str | Path | None = None,
) -> None:  # fmt: skip
    """Train a matte network.

    Args:
        data: folder of rendered shards.
        out: folder for weights and scores.
        box: time box.
        seed: initial weights, batches and augmentation.
        batch_size: pictures per step.
        resume: weights to start from.
        validation: folder of shards with people never trained on, scored at each checkpoint.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shards = StillShards(data)
    held_out = StillShards(validation) if validation else None
    trainer = Trainer(PersonMatte(), out, box, resume)
    device = trainer.accelerator.device

    def step(index: int) -> dict[str, Tensor]:
        image, person = draw(shards, batch_size, generator)
        image, person = image.to(device), person.to(device)
        with trainer.accelerator.autocast():
            logits = trainer.model(image)
        losses = matte_losses(logits, person)
        trainer.descend(sum(losses.values()))
        return losses

    scorer = PersonMatte().to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        return score_matte(trainer.with_average(scorer), held_out) if held_out else {}

    trainer.run(step, panel)


def draw(shards: StillShards, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented pictures [B, 3, 128, 128] and their persons [B, 1, 128, 128] in [0, 1].

    Half the people stand before another picture's background, so that light and palette do not tell person from
    background.
    """
    stills, _ = shards.stills(count, generator)
    image = resize_pictures(stills.image, MATTE_SIZE)
    person = F.interpolate((stills.part > 0).float()[:, None], size=(MATTE_SIZE, MATTE_SIZE), mode="area")
    both, _, _ = moved(torch.cat([image, person], dim=1), stills.head_pose, generator)
    image, person = both[:, :3], both[:, 3:]
    scenery = scenery_of(image.roll(1, 0), person.roll(1, 0))
    flips = torch.rand(2, generator=generator) < 0.5
    scenery = scenery.flip([axis for axis, flip in zip((-2, -1), flips.tolist(), strict=True) if flip])
    swap = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).float()
    image = torch.lerp(image, torch.lerp(scenery, image, person), swap)
    return sensor(colour_jitter(image, generator), generator), person


def scenery_of(image: Tensor, person: Tensor) -> Tensor:
    """Backgrounds without their persons: what is hidden is filled with the mean of what is seen around it."""
    seen = (F.max_pool2d(person, 5, 1, 2) < 0.01).float()
    colour, weight = [image * seen], [seen]
    for _ in range(6):
        colour.append(F.avg_pool2d(colour[-1], 2))
        weight.append(F.avg_pool2d(weight[-1], 2))
    filled = colour[-1].sum((2, 3), keepdim=True) / weight[-1].sum((2, 3), keepdim=True).clamp(min=1e-3)
    for near, share in zip(colour[::-1], weight[::-1], strict=True):
        near, share = (F.interpolate(x, size=image.shape[-2:], mode="bilinear") for x in (near, share))
        filled = torch.lerp(filled, near / share.clamp(min=1e-3), (share * 4).clamp(max=1))
    return torch.lerp(filled, image, seen)


def matte_losses(logits: Tensor, person: Tensor) -> dict[str, Tensor]:
    """Cross-entropy, three times as strong at the person's outline, and the Dice loss of the whole."""
    near = F.avg_pool2d(person, 9, 1, 4, count_include_pad=False)
    outline = 1 + 2 * ((near > 0.02) & (near < 0.98)).float()
    alpha = torch.sigmoid(logits)
    dice = 1 - (2 * (alpha * person).sum((1, 2, 3)) + 1) / ((alpha + person).sum((1, 2, 3)) + 1)
    return {
        "matte": (F.binary_cross_entropy_with_logits(logits, person, reduction="none") * outline).mean(),
        "dice": dice.mean() * 0.5,
    }


def score_matte(network: PersonMatte, shards: StillShards, count: int = 128) -> dict[str, float]:
    """Intersection over union and mean absolute error on people never seen."""
    generator = torch.Generator().manual_seed(1)
    stills, _ = shards.stills(count, generator)
    person = (stills.part > 0)[:, None]
    alpha = torch.cat([network.matte(images) for images in stills.image.split(16)])
    person = F.interpolate(person.float(), size=alpha.shape[-2:], mode="area")
    return {"val_iou": iou(alpha, person).mean().item(), "val_error": (alpha - person).abs().mean().item()}


def iou(alpha: Tensor, person: Tensor) -> Tensor:
    """Intersection over union of two mattes cut at one half, [B]."""
    a, b = alpha > 0.5, person > 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)
