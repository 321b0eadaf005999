"""Contact sheets of rendered people."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor

from .assets import load_pack
from .augment import stylise
from .chance import happens
from .dataset import STYLISED_SHARE, person_seed
from .people import sample_person
from .person import HeadPack
from .render import render
from .stills import sample_labels
from .studio import sample_studio


def contact_sheet(
    pack: HeadPack, people: int, frames: int = 1, seed: int = 0, size: int = 256, split: str = "train"
) -> Tensor:
    """Pictures of random people side by side, as they would be in a shard of this seed.

    Args:
        people: how many; each has `frames` neighbouring pictures.
        size: edge of a picture in pixels.

    Returns:
        [3, H, W] in [0, 1], a sheet about as wide as it is high.
    """
    strips = []
    for index in range(people):
        generator = Generator().manual_seed(person_seed(seed, index, split))
        person = sample_person(pack, generator, split)
        studio = sample_studio(generator, size)
        labels = sample_labels(generator, frames)
        image = render(pack, person, studio, labels, size, samples=1.5).image
        if happens(STYLISED_SHARE, generator):
            image = stylise(image, generator)
        strips.append(torch.cat(list(image), dim=2))
    columns = max(1, min(people, round((people / frames) ** 0.5)))
    strips += [torch.zeros_like(strips[0])] * (-people % columns)
    rows = [torch.cat(strips[first : first + columns], dim=2) for first in range(0, len(strips), columns)]
    return torch.cat(rows, dim=1).clamp(0, 1)


def write_preview(
    out: str | Path,
    people: int = 24,
    frames: int = 1,
    seed: int = 0,
    assets: str | Path | None = None,
    size: int = 256,
) -> None:
    """Write a contact sheet of random people as a picture file; arguments as for `contact_sheet`."""
    from PIL import Image

    sheet = contact_sheet(load_pack(assets), people, frames, seed, size)
    pixels = (sheet * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(out)
