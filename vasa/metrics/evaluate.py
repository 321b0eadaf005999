"""Measure every row of the table of results, on people, voices and sentences never trained on.

The score of decoded pictures is given by the reader in the model folder, which served no loss.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ..errors import InputError
from ..face.reader import Reading
from ..io.files import check_writable
from ..pipeline import Vasa
from ..synthetic.assets import load_pack
from ..synthetic.corpus import Corpus, load_corpus
from . import control_rows, lip_rows, motion_rows, real_rows
from .bench import FULL, QUICK, Bench
from .clips import draw_speech, make_clips, require_unheard
from .face_rows import (
    IDENTITY_DEMANDS,
    POSE_DEMANDS,
    encode_sources,
    identity_rows,
    pose_rows,
    probe_rows,
    reenactment_rows,
)
from .instrument import describe
from .people import HeldOut, read, render_people, render_talkers, stored_people
from .real import load_speech
from .report import Row, machine, model_hash, not_measured, write_results

FIRST_SEED = 7000
"""Added to the seed, so that nobody in the table sat in a validation set that chose the weights."""
_NO_CORPUS = "no speech of an unheard voice was given (--corpus)"
_NO_READER = "the model folder has no reader.safetensors to score with"


def evaluate(
    model: str | Path,
    out: Path,
    *,
    data: Path | None = None,
    corpus: Path | None = None,
    portraits: Path | None = None,
    speech: Path | None = None,
    assets: Path | None = None,
    people: int | None = None,
    clips: int | None = None,
    quick: bool = False,
    sheet: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Row]:
    """Measure a model and write the table.

    Args:
        model: a shipped model's name or a folder.
        out: Markdown file.
        data: folder of shards of the test split; default: people are rendered for the run.
        corpus: speech corpus of the validation split; without it nothing about talking is measured.
        portraits: folder of real pictures.
        speech: folder of real speech.
        assets: asset pack of the rendered people; default: environment VASA_ASSETS, else the formula head.
        people: how many; the demand on identity wants 100.
        clips: how many clips of speech are decoded.
        quick: smaller sizes, a few minutes on two CPU cores.
        sheet: contact sheet of the real portraits at ±20° yaw, PNG, JPEG or WEBP.
        device: where the model runs.
        seed: people, sentences and motion.
        progress: progress(stage, done, total).

    Returns:
        The table; what could not be measured says why.

    Raises:
        InputError: a folder or the model cannot be used.
    """
    started = time.perf_counter()
    check_writable(out, (".md",))
    if sheet is not None:
        check_writable(sheet, (".png", ".jpg", ".jpeg", ".webp"))
    sizes = QUICK if quick else FULL
    given = {"people": people, "clips": clips}
    sizes = dataclasses.replace(sizes, **{name: n for name, n in given.items() if n is not None})
    if sizes.people < 4 or sizes.clips < 2:
        raise InputError(f"expected at least 4 people and 2 clips, got {sizes.people} and {sizes.clips}; raise them")
    spoken = load_corpus(corpus) if corpus is not None else None
    if spoken is not None:
        require_unheard(spoken)
    sounds = load_speech(speech, sizes.real_seconds) if speech is not None else None
    pipe = Vasa.from_pretrained(model, device=device)
    bench = Bench(pipe, load_pack(assets), sizes, seed + FIRST_SEED, progress or (lambda stage, done, total: None))
    held = _people(bench, data)
    seen = read(pipe, held.images.flatten(0, 1)) if pipe.models.reader is not None else None
    rows = [
        *_faces(bench, held, seen),
        *_talking(bench, spoken),
        *_portraits(bench, held, portraits, sheet),
        *_real_speech(bench, sounds),
    ]
    minutes = (time.perf_counter() - started) / 60
    options = {
        "data": data, "corpus": corpus, "portraits": portraits, "speech": speech, "assets": assets,
        "people": people, "clips": clips, "quick": quick, "seed": seed or None,
    }  # fmt: skip
    context = {
        "Command": f"`{command(model, options)}`, {minutes:.1f} minutes",
        "Machine": machine(pipe.device, pipe.dtype),
        "Weights (SHA-256)": model_hash(model),
        "People": f"{len(held)}, {held.images.shape[1]} pictures each, {held.origin}, {_kind(bench)}",
        "Scored by": f"the face reader in the model folder; {describe(seen, held)}" if seen else "no reader",
    }
    write_results(out, Path(model).name, rows, context)
    return rows


def command(model: str | Path, options: dict[str, object]) -> str:
    """The command line of a run; of folders only the last name, since paths would tell whose machine it was.

    >>> command("vasa-mini", {"corpus": Path("/home/me/speech"), "quick": True, "people": None})
    'vasa evaluate --model vasa-mini --corpus speech --quick'
    """
    words = [f"vasa evaluate --model {Path(model).name}"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words.append(f"--{name} {value.name if isinstance(value, Path) else value}")
    return " ".join(words)


def _people(bench: Bench, data: Path | None) -> HeldOut:
    sizes, size = bench.sizes, bench.pipe.size
    if data is not None:
        return stored_people(data, sizes.people, sizes.frames, size)
    count = bench.counter("rendering people", sizes.people)
    return render_people(bench.pack, sizes.people, sizes.frames, size, bench.seed, count)


def _kind(bench: Bench) -> str:
    return "heads of the asset pack" if bench.pack.hair else "the formula head (no asset pack)"


def _faces(bench: Bench, held: HeldOut, seen: Reading | None) -> list[Row]:
    faces = encode_sources(bench, held)
    return [
        *reenactment_rows(bench, held, faces),
        *(pose_rows(bench, held, faces, seen) if seen else _absent(POSE_DEMANDS, _NO_READER)),
        *(identity_rows(bench, held, faces, seen) if seen else _absent(IDENTITY_DEMANDS, _NO_READER)),
        *probe_rows(bench, held),
    ]


def _talking(bench: Bench, corpus: Corpus | None) -> list[Row]:
    """Everything that needs speech with known phones."""
    if corpus is None or bench.pipe.models.reader is None:
        demands = {**lip_rows.DEMANDS, **control_rows.DEMANDS, **motion_rows.DEMANDS}
        return _absent(demands, _NO_CORPUS if corpus is None else _NO_READER)
    talkers = render_talkers(bench.pipe, bench.pack, bench.sizes.talkers, bench.seed)
    speech = draw_speech(corpus, bench.sizes.clips, bench.generator(2))
    count = bench.counter("talking", len(speech))
    clips = make_clips(bench.pipe, talkers, speech, bench.sizes.clip_seconds, bench.seed, count)
    return [
        *lip_rows.lip_rows(clips),
        *control_rows.control_rows(bench, talkers, speech),
        *motion_rows.motion_rows(bench, talkers, corpus),
    ]


def _portraits(bench: Bench, held: HeldOut, folder: Path | None, sheet: Path | None) -> list[Row]:
    if folder is None or bench.pipe.models.reader is None:
        reason = "no folder of real pictures was given (--portraits)" if folder is None else _NO_READER
        return _absent(real_rows.PORTRAIT_DEMANDS, reason)
    return real_rows.portrait_rows(bench, held, folder, sheet)


def _real_speech(bench: Bench, sounds: dict[str, Tensor] | None) -> list[Row]:
    if sounds is None or bench.pipe.models.reader is None:
        reason = "no folder of real speech was given (--speech)" if sounds is None else _NO_READER
        return _absent(real_rows.SPEECH_DEMANDS, reason)
    talkers = render_talkers(bench.pipe, bench.pack, min(len(sounds), bench.sizes.talkers), bench.seed)
    return real_rows.real_speech_rows(bench, talkers, sounds)


def _absent(demands: dict[str, str], reason: str) -> list[Row]:
    return [not_measured(name, must, reason) for name, must in demands.items()]
