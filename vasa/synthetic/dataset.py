"""Shards of rendered people: pictures with exact labels in safetensors files.

One shard holds P people with F frames each; frames of a person share light, camera and background. `python -m
vasa.synthetic.dataset OUT_DIR` renders shards in the background of other work.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from ..errors import InputError
from ..geometry import identity_grid
from .assets import load_pack
from .augment import stylise
from .chance import happens
from .people import sample_person
from .person import FrameLabels, HeadPack, Rendered
from .render import render
from .stills import sample_labels
from .studio import sample_studio

SPLITS = ("train", "test")
STYLISED_SHARE = 0.2
SOURCES = 3
"""The first frames of a person, which portraits are taken from; more of them are calm, as portraits are."""
_CALM_SOURCES, _CALM_TARGETS = 0.55, 0.12
_SAMPLES = 1.5
_DEPTH_TOLERANCE_CM = 0.35
_SEED_STRIDE = 1_000_003


def write_shard(
    path: str | Path,
    pack: HeadPack,
    people: int,
    frames: int,
    size: int,
    seed: int,
    split: str = "train",
    pose_range: float = 1.0,
    device: torch.device | str = "cpu",
) -> None:
    """Render people and store them.

    The file holds `images` uint8 [P, F, 3, S, S]; `head_pose` [P, F, 6], `dynamics` [P, F, 59] and
    `landmarks` [P, F, 68, 2], float32; `part` uint8 [P, F, S/2, S/2]; from each of the first R = min(F, 3) frames to
    every frame `flow` float16 [P, F target, R source, 2, S/2, S/2], where a target pixel's surface point lies in
    the source (x, y in [-1, 1], corners aligned), with `visible` uint8 of the same pixels; `seed` int64 [P].

    Args:
        path: file to write; it appears under its name only when complete.
        people: P.
        frames: F.
        size: S, even.
        seed: person i of the shard depends on (seed, split, i) alone.
        split: "train", or "test" with the held-out skin and hair and seeds of its own.
        pose_range: factor of the head's rotations.
        device: where pictures are rendered.

    Raises:
        InputError: the split or the size cannot be used.
    """
    if split not in SPLITS or size % 2:
        raise InputError(f"expected split train or test and an even size, got {split!r} and {size}; change them")
    seeds = [person_seed(seed, index, split) for index in range(people)]
    rows = [render_person(pack, frames, size, own, split, pose_range, device) for own in seeds]
    shard = {name: torch.stack([row[name] for row in rows]).cpu().contiguous() for name in rows[0]}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file(shard, unfinished, metadata={"split": split, "seed": str(seed)})
    os.replace(unfinished, path)


def render_shards(
    out: str | Path,
    people: int,
    frames: int,
    size: int,
    seed: int,
    split: str = "train",
    assets: str | Path | None = None,
    device: torch.device | str = "cpu",
    per_shard: int = 64,
    pose_range: float = 1.0,
    report: Callable[[str], None] | None = None,
) -> None:
    """Render people into a folder, `per_shard` a file; files that exist are kept, so that a run can resume.

    Args:
        out: folder; the files are named after split, size and seed.
        people: in all; the last file holds the rest.
        seed: of the first file; the next ones count up.
        assets: asset pack folder, None for VASA_ASSETS or the formula head.
        report: is told the rate after every file.
        frames, size, split, device, pose_range: as for `write_shard`.
    """
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    pack = load_pack(assets)
    for shard, first in enumerate(range(0, people, per_shard)):
        path = Path(out) / f"{split}-{size}-{seed + shard:05d}.safetensors"
        if path.exists():
            continue
        count, start = min(per_shard, people - first), time.perf_counter()
        write_shard(path, pack, count, frames, size, seed + shard, split, pose_range, device)
        if report is not None:
            report(f"{path.name}: {count * frames / (time.perf_counter() - start):.1f} frames/s")


def load_shard(path: str | Path) -> dict[str, Tensor]:
    """The tensors of `write_shard`, mapped from the file: only what is indexed is read."""
    return load_file(path)


def person_seed(seed: int, index: int, split: str) -> int:
    """The seed of one person; the two splits never share one."""
    return 2 * (seed * _SEED_STRIDE + index) + SPLITS.index(split)


def render_person(
    pack: HeadPack,
    frames: int,
    size: int,
    seed: int,
    split: str = "train",
    pose_range: float = 1.0,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Pictures and labels of one person, as in a shard without its first axis; one in five is stylised."""
    generator = Generator().manual_seed(seed)
    person = sample_person(pack, generator, split)
    studio = sample_studio(generator, size)
    calm = torch.full((frames,), _CALM_TARGETS)
    calm[:SOURCES] = _CALM_SOURCES
    labels = sample_labels(generator, frames, pose_range, calm)
    labels = FrameLabels(labels.head_pose.to(device), labels.dynamics.to(device), labels.body_shift.to(device))
    rendered = render(pack, person, studio, labels, size, samples=_SAMPLES)
    image = rendered.image
    if happens(STYLISED_SHARE, generator):
        image = stylise(image, generator)
    flow, visible = flow_pairs(rendered, size // 2, min(SOURCES, frames))
    return {
        "images": (image.clamp(0, 1) * 255).round().byte(),
        "head_pose": labels.head_pose.float(),
        "dynamics": labels.dynamics.float(),
        "landmarks": rendered.landmarks.float(),
        "part": rendered.part[:, ::2, ::2].contiguous(),
        "flow": flow.half(),
        "visible": visible.byte(),
        "seed": torch.tensor(seed, device=device),
    }


def flow_pairs(rendered: Rendered, cells: int, sources: int) -> tuple[Tensor, Tensor]:
    """Where the surface seen in every frame lies in the first frames.

    Args:
        rendered: T frames of one person.
        cells: edge of the grid on which flow is evaluated, corners aligned.
        sources: R, how many of the first frames are looked into.

    Returns:
        flow [T target, R source, 2, cells, cells] in [-1, 1] and visible [T, R, cells, cells] bool: nothing
        hides the point in the source and it lies inside the picture. Background maps to itself.
    """
    size = rendered.image.shape[-1]
    grid = identity_grid((cells, cells), rendered.vertices.device)
    nearest = ((grid[0, :, 0] + 1) / 2 * (size - 1)).round().long()
    rows, columns = nearest[:, None], nearest[None, :]
    triangle, weights = rendered.triangle[:, rows, columns].long(), rendered.weights[:, rows, columns]
    corners = rendered.faces.long()[triangle.clamp(min=0)]
    covered = triangle >= 0
    depth = torch.stack([_depth(rendered, t, size) for t in range(sources)])
    own = torch.stack([_place(rendered.vertices[t], corners[t], weights[t])[0] for t in range(len(triangle))])
    # The surface point was taken at a sample beside the grid point; the picture moves along with it.
    remainder = grid - own
    flows, visibles = [], []
    for source in range(sources):
        place, away = _place(rendered.vertices[source], corners, weights)
        place = torch.where(covered[..., None], place + remainder, grid)
        pixel = ((place + 1) / 2 * (size - 1)).clamp(0, size - 1)
        low, high = pixel.floor().long(), pixel.ceil().long()
        corner_depths = [depth[source, y[..., 1], x[..., 0]] for y in (low, high) for x in (low, high)]
        behind = torch.stack(corner_depths).amax(0)
        inside = (place.abs() <= 1).all(-1)
        seen = torch.where(covered, away <= behind + _DEPTH_TOLERANCE_CM, behind.isinf())
        flows.append(place.movedim(-1, 1))
        visibles.append(seen & inside)
    return torch.stack(flows, dim=1), torch.stack(visibles, dim=1)


def _place(vertices: Tensor, corners: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Picture position [..., 2] and distance in cm [...] of points with barycentric weights in triangles."""
    homogeneous = torch.cat([vertices[:, :2] * vertices[:, 2:], vertices[:, 2:]], dim=1)
    point = (homogeneous[corners] * weights[..., None]).sum(-2)
    return point[..., :2] / point[..., 2:].clamp(min=1e-3), point[..., 2]


def _depth(rendered: Rendered, frame: int, size: int) -> Tensor:
    """Distance of the surface from the camera in every pixel, infinite for background, [size, size] cm."""
    triangle = rendered.triangle[frame].long()
    corners = rendered.vertices[frame, :, 2][rendered.faces.long()[triangle.clamp(min=0)]]
    depth = (corners * rendered.weights[frame]).sum(-1)
    return depth.masked_fill(triangle < 0, torch.inf)


def main(arguments: list[str] | None = None) -> None:
    """Render shards of people into a folder; files that exist are left alone, so that a run can resume."""
    parser = argparse.ArgumentParser(prog="python -m vasa.synthetic.dataset", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder for the shards")
    parser.add_argument("--people", type=int, default=64, help="people per shard")
    parser.add_argument("--frames", type=int, default=6, help="frames per person")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first shard; the next ones count up")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--pose-range", type=float, default=1.0)
    parser.add_argument("--assets", type=Path, help="asset pack folder (default: VASA_ASSETS, else formulas)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; several processes use cores better")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    render_shards(
        given.out,
        people=given.people * given.shards,
        frames=given.frames,
        size=given.size,
        seed=given.seed,
        split=given.split,
        assets=given.assets,
        device=given.device,
        per_shard=given.people,
        pose_range=given.pose_range,
        report=lambda line: sys.stdout.write(line + "\n"),
    )


if __name__ == "__main__":
    main()
