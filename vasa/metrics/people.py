"""Rendered people never trained on: stills with labels, drivers for them, and faces that talk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Generator, Tensor

from ..errors import InputError
from ..face.reader import Reading, read_pictures
from ..geometry import AVERAGE_LOG_SCALE
from ..latents import DYNAMICS, FaceLatents, Motion
from ..pipeline import Vasa
from ..synthetic.dataset import load_shard, person_seed, render_person
from ..synthetic.people import sample_person
from ..synthetic.person import FrameLabels, HeadPack
from ..synthetic.render import render
from ..synthetic.stills import sample_labels
from ..synthetic.studio import sample_studio
from ..synthetic.visemes import named_weights

_SAMPLES = 1.5
_OPEN_MOUTH = "jawOpen .55 mouthLowerDown .15"
"""The shape of the vowel "ah", the widest that speech asks for."""
_BLINK = (DYNAMICS.index("eyeBlink_L"), DYNAMICS.index("eyeBlink_R"))
DRIVER_SEED = 500
"""Added to the seed for the people who lend their movement."""
TALKER_SEED = 900


@dataclass(frozen=True)
class HeldOut:
    """P people with F pictures each.

    Attributes:
        images: [P, F, 3, S, S] in [0, 1].
        head_pose: [P, F, 6].
        dynamics: [P, F, 59].
        part: region indices, [P, F, S/2, S/2].
        origin: where they come from, in words.
    """

    images: Tensor
    head_pose: Tensor
    dynamics: Tensor
    part: Tensor
    origin: str

    def __len__(self) -> int:
        return self.images.shape[0]


@dataclass(frozen=True)
class Talker:
    """A rendered person whose portrait is made to talk, with what the reader sees in true pictures of them.

    Attributes:
        face: latents of the portrait, whose lips and eyes are relaxed.
        lips_closed: mouth opening read off the true picture at rest.
        lips_open: the same, saying "ah".
        lids_closed: eyeBlink read off the true picture with shut eyes.
        truth: renders the person, head poses [N, 6] and dynamics [N, 59] -> [N, 3, S, S].
    """

    face: FaceLatents
    lips_closed: float
    lips_open: float
    lids_closed: float
    truth: Callable[[Tensor, Tensor], Tensor]


def render_people(
    pack: HeadPack,
    people: int,
    frames: int,
    size: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> HeldOut:
    """Render people of the test split, each with random poses, expressions, light and background."""
    rows = []
    for index in range(people):
        shard = render_person(pack, frames, size, person_seed(seed, index, "test"), "test")
        rows.append([shard[name] for name in ("images", "head_pose", "dynamics", "part")])
        if progress is not None:
            progress(index + 1)
    images, head_pose, dynamics, part = (torch.stack(column) for column in zip(*rows, strict=True))
    return HeldOut(images.float() / 255, head_pose, dynamics, part, f"rendered for this run, seed {seed}")


def stored_people(folder: Path, people: int, frames: int, size: int) -> HeldOut:
    """The first people of a folder of shards.

    Raises:
        InputError: no shards, shards of training people, or another picture size.
    """
    kept: dict[str, list[Tensor]] = {name: [] for name in ("images", "head_pose", "dynamics", "part")}
    for path in sorted(folder.glob("*.safetensors")):
        if not path.name.startswith("test"):
            raise InputError(
                f"expected shards of the test split in {folder}, got {path.name}; render them with --split test"
            )
        shard = load_shard(path)
        if shard["images"].shape[-1] != size:
            raise InputError(
                f"expected pictures of {size} pixels in {path.name}, got {shard['images'].shape[-1]}; render anew"
            )
        for name, rows in kept.items():
            rows.append(shard[name][: people - sum(map(len, rows)), :frames])
        if sum(map(len, kept["images"])) >= people:
            break
    if not kept["images"]:
        raise InputError(f"expected .safetensors shards in {folder}, found none; render them with `vasa synth render`")
    columns = {name: torch.cat(rows) for name, rows in kept.items()}
    columns["images"] = columns["images"].float() / 255
    return HeldOut(**columns, origin="stored shards of the test split")


def render_drivers(pack: HeadPack, head_pose: Tensor, dynamics: Tensor, size: int, seed: int) -> Tensor:
    """Other people of the test split, one per pose and expression, [P, 6] and [P, 59] -> [P, 3, S, S]."""
    pictures = []
    for index in range(len(head_pose)):
        generator = Generator().manual_seed(person_seed(seed + DRIVER_SEED, index, "test"))
        person, studio = sample_person(pack, generator, "test"), sample_studio(generator, size)
        labels = FrameLabels(head_pose[index : index + 1], dynamics[index : index + 1], torch.zeros(1, 2))
        pictures.append(render(pack, person, studio, labels, size, samples=_SAMPLES).image[0])
    return torch.stack(pictures)


def render_talkers(pipe: Vasa, pack: HeadPack, count: int, seed: int) -> list[Talker]:
    """People of the test split: relaxed portraits, and true pictures with shut lips, open lips, shut lids."""
    return [_talker(pipe, pack, person_seed(seed + TALKER_SEED, index, "test")) for index in range(count)]


def _talker(pipe: Vasa, pack: HeadPack, seed: int) -> Talker:
    generator = Generator().manual_seed(seed)
    person, studio = sample_person(pack, generator, "test"), sample_studio(generator, pipe.size)
    portrait = sample_labels(generator, 1, calm_share=1.0)
    head_pose = torch.zeros(4, 6)
    head_pose[:, 5] = AVERAGE_LOG_SCALE
    head_pose[0] = portrait.head_pose[0]
    dynamics = torch.zeros(4, len(DYNAMICS))
    dynamics[0] = portrait.dynamics[0]
    dynamics[0, list(_BLINK)] = 0
    dynamics[2, : len(DYNAMICS) - 2] = named_weights(_OPEN_MOUTH)
    dynamics[3, list(_BLINK)] = 1

    def truth(head_pose: Tensor, dynamics: Tensor) -> Tensor:
        labels = FrameLabels(head_pose, dynamics, torch.zeros(len(head_pose), 2))
        return render(pack, person, studio, labels, pipe.size, samples=_SAMPLES).image.clamp(0, 1)

    images = truth(head_pose, dynamics)
    seen = read(pipe, images)
    closed, wide = seen.mouth_opening[1:3].tolist()
    return Talker(pipe.encode(images[0]), closed, wide, float(blink_of(seen.dynamics)[3]), truth)


def read(pipe: Vasa, pictures: Tensor) -> Reading:
    """What the model folder's reader sees in pictures [N, 3, S, S], on the CPU."""
    seen = read_pictures(pipe.models.reader, pictures.to(pipe.device))
    return Reading(*(getattr(seen, f.name).cpu() for f in fields(Reading)))


def decode(pipe: Vasa, face: FaceLatents, head_pose: Tensor, dynamics: Tensor) -> Tensor:
    """All frames of a motion on one face, [N, 6] and [N, E] -> [N, 3, S, S]."""
    return torch.cat(list(pipe.decode(face, Motion(head_pose, dynamics, pipe.fps))))


def watch(pipe: Vasa, face: FaceLatents, motion: Motion, batch_size: int = 16) -> Reading:
    """Decode a motion and read the frames, without keeping the pictures."""
    parts = [read(pipe, frames) for frames in pipe.decode(face, motion, batch_size=batch_size)]
    return Reading(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Reading)))


def blink_of(dynamics: Tensor) -> Tensor:
    """Closure of the lids, mean of both eyes, [..., 59] -> [...]."""
    return dynamics[..., list(_BLINK)].mean(-1)
