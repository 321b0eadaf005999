"""Examples that were made once play at once: their pieces are kept on disk by what they were made of."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..animate import name_of
from ..checkpoint import find
from ..controls import Controls
from ..errors import InputError
from ..io.segments import Segment
from .performance import Event, Status, Wishes, perform
from .player import keep, seconds_of
from .studio import Job, Stopped, Studio

ATTEMPTS = 3
"""How often an example is begun anew after a user came."""
PAUSE_SECONDS = 5.0


def cache_folder() -> Path:
    """Where examples are kept: $VASA_CACHE, else the user's cache folder."""
    home = os.environ.get("VASA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vasa"
    return Path(home) / "examples"


def example_events(studio: Studio, job: Job, folder: Path, portrait: str, speech: str) -> Iterator[Event]:
    """The events of `perform` with default controls, out of the cache where they are in it."""
    kept = cache_folder() / _key(studio, portrait, speech)
    if (kept / "report.json").exists():
        report = json.loads((kept / "report.json").read_text())
        status = Status(f"Made before: {report['frames']} frames, {report['frames'] / report['fps']:.1f} s.", 1.0)
        for path in sorted(kept.glob("*.ts"), key=lambda path: int(path.stem.split("_")[1])):
            yield Event(status, Segment(path.read_bytes(), seconds_of(path)))
        video, motion = (
            Path(shutil.copy(kept / name, folder / name)) for name in ("talking.mp4", "motion.safetensors")
        )
        yield Event(status, None, video, motion, report)
        return
    sound = studio.speech(speech)
    pieces: list[Segment] = []
    for event in perform(studio, job, folder, lambda: studio.portrait(portrait), speech, Controls(), Wishes(), sound):
        if event.segment is not None:
            pieces.append(event.segment)
        if event.video is not None and event.report["complete"]:
            _store(kept, pieces, event)
        yield event


def make_examples(studio: Studio, pairs: list[tuple[str, str]]) -> None:
    """Make the examples (portrait, speech) that are not kept yet, while nobody uses the page: users go first."""
    for portrait, speech in pairs:
        for _ in range(ATTEMPTS):
            if (cache_folder() / _key(studio, portrait, speech) / "report.json").exists():
                break
            while (job := studio.begin_in_background()) is None:
                if studio.closing.wait(PAUSE_SECONDS):
                    return
            try:
                collections.deque(example_events(studio, job, studio.folder("examples"), portrait, speech), maxlen=0)
            except Stopped:
                studio.closing.wait(PAUSE_SECONDS)
            except (InputError, OSError):
                return


def _store(kept: Path, pieces: list[Segment], event: Event) -> None:
    """Keep a run, whole or not at all; a cache that cannot be written is no reason to fail."""
    making = kept.with_name(f".{kept.name}-{os.getpid()}")
    try:
        for left in kept.parent.glob(f".{kept.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        making.mkdir(parents=True)
        for index, piece in enumerate(pieces):
            Path(keep(piece, making)).rename(making / f"{round(piece.seconds * 1e6)}-_{index}.ts")
        shutil.copy(event.video, making / "talking.mp4")
        shutil.copy(event.motion, making / "motion.safetensors")
        (making / "report.json").write_text(json.dumps(event.report))
        shutil.rmtree(kept, ignore_errors=True)
        if not (kept / "report.json").exists():  # half an example, of an earlier version
            shutil.rmtree(kept, ignore_errors=True)
        making.rename(kept)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)


def _key(studio: Studio, portrait: str, speech: str) -> str:
    """Changes with the inputs, the weights and the version."""
    digest = hashlib.sha256()
    for path in (portrait, speech):
        digest.update(Path(path).read_bytes())
    digest.update(f"{__version__} {name_of(studio.model)} {_weights(studio.model)}".encode())
    return digest.hexdigest()[:24]


def _weights(model: Any) -> str:
    """What identifies a model's weights without reading them: sizes and times of its files."""
    if not isinstance(model, str | os.PathLike):
        return str(id(model))
    files = sorted(find(model).glob("*.safetensors"))
    return json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
