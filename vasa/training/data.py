"""Rendered stills for the face trainers: shards on disk -> batches with labels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..face.patches import mirror_dynamics, mirror_pose
from ..geometry import identity_grid
from ..synthetic.dataset import load_shard


@dataclass(frozen=True)
class Stills:
    """Pictures with labels; leading axes are free.

    Attributes:
        image: [..., 3, S, S] in [0, 1].
        head_pose: [..., 6].
        dynamics: [..., 59].
        landmarks: picture positions, [..., 68, 2].
        part: region indices, [..., S', S'].
    """

    image: Tensor
    head_pose: Tensor
    dynamics: Tensor
    landmarks: Tensor
    part: Tensor

    @property
    def person(self) -> Tensor:
        """Where the person is, [..., 1, S', S']."""
        return (self.part > 0).float().unsqueeze(-3)

    def __getitem__(self, index) -> Stills:
        return Stills(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> Stills:
        """The same on a device."""
        return Stills(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class PairBatch:
    """One source per person and several targets.

    Attributes:
        source: stills [B, ...].
        target: stills [B, N, ...] of the same people.
        flow: where each target point lies in the source, [B, N, 2, S', S'] in [-1, 1].
        visible: whether that point is seen in the source, [B, N, S', S'] in {0, 1}.
        person: index of each person, [B].
    """

    source: Stills
    target: Stills
    flow: Tensor
    visible: Tensor
    person: Tensor

    def to(self, device: torch.device | str) -> PairBatch:
        """The same on a device."""
        return PairBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


class StillShards:
    """All shards of a folder, memory-mapped; draws batches with an explicit generator."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.shards: list = []
        self.index: list[tuple[int, int]] = []
        self.refresh()
        if not self.index:
            raise InputError(
                f"expected .safetensors shards in {folder}, found none; render them with `vasa synth render`"
            )

    def refresh(self) -> None:
        """Pick up shards that have been finished since (rendering may still run)."""
        paths = sorted(self.folder.glob("*.safetensors"))
        for path in paths[len(self.shards) :]:
            self.shards.append(load_shard(path))
            people = self.shards[-1]["images"].shape[0]
            self.index += [(len(self.shards) - 1, i) for i in range(people)]

    def __len__(self) -> int:
        return len(self.index)

    def spread(self) -> Tensor:
        """Standard deviation of every channel of the dynamics over the people at hand, at least 0.02, [E]."""
        return torch.cat([shard["dynamics"].flatten(0, 1).float() for shard in self.shards]).std(0).clamp_min(0.02)

    def pairs(self, batch_size: int, targets: int, generator: torch.Generator, size: int | None = None) -> PairBatch:
        """Random people, for each a source frame and `targets` other frames, all at random; half of them mirrored."""
        picks = torch.randint(len(self.index), (batch_size,), generator=generator).tolist()
        sources, aims, flows, seen = [], [], [], []
        for pick in picks:
            shard, person = self.index[pick]
            data = self.shards[shard]
            frames, count = data["flow"].shape[1:3]
            source = int(torch.randint(count, (1,), generator=generator))
            others = torch.randperm(frames - 1, generator=generator)[:targets]
            order = torch.cat([torch.tensor([source]), others + (others >= source)])
            stills = _stills(data, person, order)
            flow = data["flow"][person, :, source].index_select(0, order[1:]).float()
            visible = data["visible"][person, :, source].index_select(0, order[1:]).float()
            if torch.rand((), generator=generator) < 0.5:
                stills, flow, visible = mirror(stills), _mirror_flow(flow), visible.flip(-1)
            sources.append(stills[0])
            aims.append(stills[1:])
            flows.append(flow)
            seen.append(visible)
        batch = PairBatch(_stack(sources), _stack(aims), torch.stack(flows), torch.stack(seen), torch.tensor(picks))
        return batch

    def stills(self, batch_size: int, generator: torch.Generator, frames_each: int = 1) -> tuple[Stills, Tensor]:
        """Random pictures and their person's index, [B, ...] and [B]; `frames_each` of every person drawn."""
        picks = torch.randint(len(self.index), (batch_size // frames_each,), generator=generator).tolist()
        made = []
        for pick in picks:
            shard, person = self.index[pick]
            data = self.shards[shard]
            frames = torch.randperm(data["images"].shape[1], generator=generator)[:frames_each]
            stills = _stills(data, person, frames)
            made.append(mirror(stills) if torch.rand((), generator=generator) < 0.5 else stills)
        joined = Stills(*(torch.cat([getattr(s, f.name) for s in made]) for f in fields(Stills)))
        return joined, torch.tensor(picks).repeat_interleave(frames_each)


def _stills(data: dict[str, Tensor], person: int, frames: Tensor) -> Stills:
    def of(name: str) -> Tensor:
        # index_select copies whole frames; indexing by a tensor went through them byte by byte, six times slower
        return data[name][person].index_select(0, frames)

    return Stills(
        of("images").float() / 255, of("head_pose").float(), of("dynamics").float(), of("landmarks").float(),
        of("part").long(),
    )  # fmt: skip


def _stack(stills: list[Stills]) -> Stills:
    return Stills(*(torch.stack([getattr(s, f.name) for s in stills]) for f in fields(Stills)))


_MIRROR_LANDMARKS = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1),
    *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip


def mirror(stills: Stills) -> Stills:
    """Left and right exchanged in pictures and labels alike."""
    landmarks = stills.landmarks[..., _MIRROR_LANDMARKS, :] * torch.tensor([-1.0, 1.0])
    return Stills(
        stills.image.flip(-1), mirror_pose(stills.head_pose), mirror_dynamics(stills.dynamics), landmarks,
        stills.part.flip(-1),
    )  # fmt: skip


def _mirror_flow(flow: Tensor) -> Tensor:
    return flow.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]


def moved(images: Tensor, head_pose: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures tilted (±14°), scaled (0.85 .. 1.18) and shifted (±0.08), with the poses that the heads then have.

    Args:
        images: [B, 3, S, S].
        head_pose: [B, 6].
        generator: draws one movement per picture.

    Returns:
        pictures [B, 3, S, S], poses [B, 6], and the affine map [B, 2, 3] of picture positions (old -> new).
    """
    draw = torch.rand(images.shape[0], 4, generator=generator) * 2 - 1
    tilt, scale, shift = draw[:, 0] * 0.24, (draw[:, 1] * 0.165).exp(), draw[:, 2:] * 0.08
    sin, cos = scale * tilt.sin(), scale * tilt.cos()
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    back = torch.linalg.inv(linear)
    grid = identity_grid(images.shape[-2:])
    grid = torch.einsum("bij,bhwj->bhwi", back, grid - shift[:, None, None])
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    t = torch.einsum("bij,bj->bi", linear, head_pose[:, 3:5]) + shift
    angles = torch.cat([head_pose[:, :2], head_pose[:, 2:3] + tilt[:, None]], -1)
    head_pose = torch.cat([angles, t, head_pose[:, 5:] + scale.log()[:, None]], -1)
    return images, head_pose, torch.cat([linear, shift[..., None]], -1)


def moved_landmarks(landmarks: Tensor, affine: Tensor) -> Tensor:
    """Picture positions [B, N, 2] after the movement of `moved`."""
    return torch.einsum("bij,bnj->bni", affine[..., :2], landmarks) + affine[:, None, :, 2]


def moved_parts(part: Tensor, affine: Tensor) -> Tensor:
    """Region indices [B, S', S'] after the movement of `moved`; what comes from outside is background, 0."""
    grid = identity_grid(part.shape[-2:]) - affine[:, None, None, :, 2]
    grid = torch.einsum("bij,bhwj->bhwi", torch.linalg.inv(affine[..., :2]), grid)
    return F.grid_sample(part[:, None].float(), grid, mode="nearest", align_corners=True)[:, 0].long()


def colour_jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and tint, one draw per leading index; [B, ..., 3, S, S]."""
    shape = (images.shape[0],) + (1,) * (images.dim() - 1)

    def draw(width: float) -> Tensor:
        return ((torch.rand(shape, generator=generator) * 2 - 1) * width).to(images.device)

    tint = (torch.rand(images.shape[0], *(1,) * (images.dim() - 4), 3, 1, 1, generator=generator) - 0.5) * 0.16
    grey = images.mean(-3, keepdim=True)
    images = grey + (images - grey) * (1 + draw(0.35))
    images = (images - 0.5) * (1 + draw(0.25)) + 0.5 + draw(0.12)
    return (images * (1 + tint.to(images.device))).clamp(0, 1)
