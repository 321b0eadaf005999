"""What every measurement is given: the model, the asset pack, sizes and a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator

from ..pipeline import Vasa
from ..synthetic.person import HeadPack


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        people: rendered people.
        frames: pictures of each.
        pairs: people whose movement is lent to others.
        poses: requested poses per face.
        talkers: portraits that talk.
        clips: clips of speech that are decoded.
        clip_seconds: length of each.
        motion_seconds: speech for which motion alone is generated.
        sweeps: faces for which every control is swept.
        blinks: blinks that are decoded.
        real_seconds: of every real sound file.
    """

    people: int = 100
    frames: int = 6
    pairs: int = 64
    poses: int = 4
    talkers: int = 8
    clips: int = 20
    clip_seconds: float = 5.0
    motion_seconds: float = 420.0
    sweeps: int = 4
    blinks: int = 40
    real_seconds: float = 8.0


FULL = Sizes()
QUICK = Sizes(
    frames=4, pairs=24, poses=4, talkers=4, clips=6, clip_seconds=3.5, motion_seconds=160.0, sweeps=2,
    blinks=12, real_seconds=4.0,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One run of the evaluation.

    Attributes:
        pipe: the loaded model.
        pack: heads, skins and hair of the rendered people.
        sizes: how much is measured.
        seed: of everything drawn.
        progress: progress(stage, done, total).
    """

    pipe: Vasa
    pack: HeadPack
    sizes: Sizes
    seed: int
    progress: Callable[[str, int, int], None]

    def generator(self, stage: int) -> Generator:
        """Random numbers of one stage, whatever the other stages draw."""
        return Generator().manual_seed(1000 * self.seed + stage)

    def counter(self, stage: str, total: int) -> Callable[[int], None]:
        """Reports how much of a stage is done."""
        return lambda done: self.progress(stage, done, total)
