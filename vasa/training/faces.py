"""One time box for everything that sees: renders people, then trains encoders, readers, and the face with close-ups.

What `docs/training.md` does command by command, for a GPU that is lent by the minute.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from .. import checkpoint
from ..device import pick_device
from ..errors import InputError
from ..face.reader import FaceReader
from ..synthetic.assets import load_pack
from ..synthetic.dataset import write_shard
from .encoders import train_encoders
from .face import FaceLossWeights, train_face
from .loop import TimeBox, load_matching
from .reader import train_reader

SHARES = {"people": 0.2, "encoders": 0.1, "critic": 0.08, "reader": 0.1, "face": 0.52}
"""Of the time box."""
LOSSES = FaceLossWeights(perceptual=0.5, identity=0.2, expression=0.2, head=0.8, adversarial=0.1, matching=2.0)
_TEST_SHARDS = 2
_BATCHES = {"cpu": (4, 2, 32), "cuda": (16, 4, 128)}
"""Portraits a step, targets of each, single pictures a step."""


def train_faces(
    out: str | Path, minutes: float, *, model: str | Path = "vasa-mini", assets: str | Path | None = None,
    workers: int = 1, seed: int = 0, size: int = 256, weights: FaceLossWeights = LOSSES,
    shard: tuple[int, int] = (32, 8),
) -> Path:  # fmt: skip
    """Go on with a model's face for so many minutes.

    Two readers are trained: the critic from nothing, which serves the face's losses, and the model's own, which is
    exported and has served none.

    Args:
        out: folder for people, runs and the model.
        minutes: in all, in `SHARES`; loading and the last shards come on top.
        model: name or folder to go on with; its audio and motion are taken over as they are.
        assets: asset pack folder, None for VASA_ASSETS or the formula head.
        workers: processes that render.
        seed: of people, batches and augmentation; another one shows other people.
        size: picture edge.
        weights: of the face's losses.
        shard: people, and pictures of each, that a process renders at a time.

    Returns:
        The model folder, OUT/model.

    Raises:
        InputError: the model has dynamics without labels.
    """
    out, models = Path(out), checkpoint.load(model)
    if not models.config.face.dynamics_names:
        raise InputError(f"the dynamics of {model} have no names, so labels cannot teach them; use vasa-mini")
    portraits, targets, singles = _BATCHES.get(pick_device("auto").type, _BATCHES["cpu"])
    people, test, start = out / "people", out / "people-test", out / "start"
    render_for(SHARES["people"] * minutes * 60, people, test, workers, seed, (*shard, size), assets)
    face = _keep(models.face, start / "face.safetensors")
    reader = models.reader or FaceReader(models.config.reader)

    def box(part: str) -> TimeBox:
        return TimeBox(SHARES[part] * minutes, save_minutes=max(SHARES[part] * minutes / 4, 0.5), warmup=100)

    shared = {"config": models.config, "validation": test}
    train_encoders(people, out / "encoders", box("encoders"), batch_size=singles, resume=face, seed=seed, **shared)
    train_reader(people, out / "critic", box("critic"), batch_size=singles, seed=seed + 1, **shared)
    own = _keep(reader, start / "reader.safetensors") if models.reader else None
    train_reader(people, out / "reader", box("reader"), batch_size=singles, seed=seed + 2, resume=own, **shared)
    closeups = None
    if models.face.closeups is not None:
        closeups = _keep(models.face.closeups, start / "closeups" / "weights.safetensors").parent
    train_face(
        people, out / "face", box("face"), batch_size=portraits, targets=targets, size=size, seed=seed, resume=face,
        encoders=out / "encoders", reader=out / "critic", closeups=closeups, weights=weights, **shared,
    )  # fmt: skip
    for module, run in ((models.face, "face"), (reader, "reader")):
        load_matching(module, out / run / "weights.safetensors")
    parts = {"face": models.face, "motion": models.motion, "audio": models.audio, "reader": reader}
    checkpoint.save(out / "model", models.config, parts)
    return out / "model"


def render_for(
    seconds: float,
    people: Path,
    test: Path,
    workers: int,
    seed: int,
    shard: tuple[int, int, int],
    assets: str | Path | None,
) -> None:
    """Render people never trained on, then as many to train on as the time allows, one shard of them at least.

    Args:
        seconds: afterwards unfinished shards are dropped.
        people, test: folders.
        workers: processes at once.
        seed: of the first person.
        shard: people, pictures of each, edge of the pictures.
        assets: asset pack folder.
    """
    deadline = time.monotonic() + seconds
    jobs = [(test / f"test-{i}.safetensors", "test", seed + i) for i in range(_TEST_SHARDS)]
    jobs += [(people / f"train-{i:05d}.safetensors", "train", 10_000 * (seed + 1) + i) for i in range(10_000)]
    # threads of a process that uses CUDA do not survive a fork
    with multiprocessing.get_context("spawn").Pool(workers, _prepare, (assets,)) as pool:
        done = [pool.apply_async(_render, (path, split, own, shard)) for path, split, own in jobs]
        while time.monotonic() < deadline or not done[_TEST_SHARDS].ready():
            time.sleep(0.2)
            for job in done:
                if job.ready():
                    job.get()
    for unfinished in (*people.glob("*.part"), *test.glob("*.part")):
        unfinished.unlink()


_pack = None


def _prepare(assets: str | Path | None) -> None:
    global _pack
    torch.set_num_threads(1)
    _pack = load_pack(assets)


def _render(path: Path, split: str, seed: int, shard: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, _pack, *shard, seed, split, device=pick_device("auto"))


def _keep(module: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.float().contiguous() for name, value in module.state_dict().items()}, path)
    return path
