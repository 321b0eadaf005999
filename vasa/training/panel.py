"""Pictures of training progress: pose swap, expression swap and identity swap on people never trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from ..face.blocks import resize_pictures
from ..face.model import FaceModel
from .data import StillShards
from .loop import mixed_precision


def write_panel(model: FaceModel, shards: StillShards, path: Path, size: int, people: int = 5) -> None:
    """One row per person: source, target, reconstruction, pose only, expression only, another person's motion.

    Args:
        model: the face model, in evaluation mode.
        shards: rendered people.
        path: a JPEG.
        size: picture edge.
        people: rows.
    """
    generator = torch.Generator().manual_seed(3)
    batch = shards.pairs(people, 1, generator)
    device = next(model.parameters()).device
    source = resize_pictures(batch.source.image.to(device), size)
    target = resize_pictures(batch.target.image[:, 0].to(device), size)
    pose, own_pose = batch.target.head_pose[:, 0].to(device), batch.source.head_pose.to(device)
    with torch.inference_mode(), mixed_precision(device):
        dynamics, own_dynamics = batch.target.dynamics[:, 0].to(device), batch.source.dynamics.to(device)
        if not model.config.dynamics_names:
            dynamics, own_dynamics = model.read(target)[1], model.read(source)[1]
        face = model.encode(source, person=batch.source.person.to(device))

        def show(p: Tensor, d: Tensor) -> Tensor:
            return model.decode(face, p, d).image

        columns = [
            source, target, show(pose, dynamics), show(pose, own_dynamics), show(own_pose, dynamics),
            show(pose.roll(1, 0), dynamics.roll(1, 0)), model.decode(face, pose, dynamics).painted,
        ]  # fmt: skip
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    to_pil_image(make_grid(rows.float().clamp(0, 1), nrow=len(columns), padding=2)).save(path, quality=88)
