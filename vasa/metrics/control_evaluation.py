"""`vasa evaluate controls`: the study of the controls as a run, from folders to docs/controls-results.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Generator, Tensor

from ..controls import Blink, Controls
from ..errors import InputError
from ..io.files import check_writable
from ..latents import DYNAMICS
from ..pipeline import Vasa
from ..synthetic.assets import load_pack
from ..synthetic.corpus import load_corpus
from .clips import draw_speech, require_unheard
from .control_report import defects, write_report
from .control_study import Response, clip_of, study
from .evaluate import FIRST_SEED, command
from .instrument import describe
from .people import read, render_people, render_talkers
from .real import load_speech
from .report import machine, model_hash

BLINKS = 15.0
"""A minute, at every level of every other control, so that they are compared under the same blinks."""
FULL, QUICK = (4, 8.0, None, 40), (2, 4.0, 10, 12)
"""Faces, seconds of each clip, denoising steps (None: as users get them), people on whose true pictures the reader is
judged."""


def evaluate_controls(
    model: str | Path,
    out: Path,
    *,
    corpus: Path | None = None,
    speech: Path | None = None,
    assets: Path | None = None,
    faces: int | None = None,
    quick: bool = False,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Response]:
    """Sweep every control on rendered people never trained on, and write table, matrix and plots.

    Args:
        model: a shipped model's name or a folder.
        out: Markdown file; the plots go into the folder `images` beside it.
        corpus: speech corpus of the validation split.
        speech: folder of sound files, in its place.
        assets: asset pack of the people; default: environment VASA_ASSETS, else the formula head.
        faces: how many.
        quick: fewer faces, shorter clips, fewer denoising steps.
        device: where the model runs.
        seed: of people, sentences and motion.
        progress: progress(stage, done, total).

    Raises:
        InputError: no speech, or a model without a reader or whose dynamics have no names.
    """
    started = time.perf_counter()
    check_writable(out, (".md",))
    people, seconds, steps, judged = QUICK if quick else FULL
    people = faces or people
    seed += FIRST_SEED
    sounds = _sounds(corpus, speech, people, seconds, seed)
    pipe = Vasa.from_pretrained(model, device=device)
    if pipe.models.reader is None or tuple(pipe.config.face.dynamics_names) != DYNAMICS:
        raise InputError(f"{model} has no face reader, or dynamics without names; its controls cannot be measured")
    pack = load_pack(assets)
    talkers = render_talkers(pipe, pack, people, seed)
    base = Controls(seed=seed, blink=Blink(BLINKS))
    base = base if steps is None else replace(base, steps=steps)
    responses = study(pipe, talkers, sounds, base, progress=progress, against_truth=True)
    held = render_people(pack, judged, 4, pipe.size, seed)
    judge = describe(read(pipe, held.images.flatten(0, 1)), held)
    options = {"corpus": corpus, "speech": speech, "assets": assets, "faces": faces, "quick": quick}
    minutes = (time.perf_counter() - started) / 60
    line = command(model, options).replace("vasa evaluate", "vasa evaluate controls")
    context = {
        "Command": f"`{line}`, {minutes:.1f} minutes",
        "Machine": machine(pipe.device, pipe.dtype),
        "Weights (SHA-256)": model_hash(model),
        "Clips": f"{people} rendered people, each saying {seconds:g} s of something else, {base.steps} steps, "
        f"{BLINKS:g} blinks a minute unless swept, the same seed at every level",
        "Scored by": f"the face reader in the model folder; {judge}",
        "Defects": f"{len(defects(responses))} of {len(responses)} controls",
    }
    write_report(out, out.parent / "images", Path(model).name, responses, context)
    return responses


def _sounds(corpus: Path | None, speech: Path | None, count: int, seconds: float, seed: int) -> list[Tensor]:
    if corpus is not None:
        loaded = load_corpus(corpus)
        require_unheard(loaded)
        waves = [spoken.waveform for spoken in draw_speech(loaded, count, Generator().manual_seed(seed))]
    elif speech is not None:
        waves = list(load_speech(speech, seconds).values())
    else:
        raise InputError("the controls need something to say; give --corpus FOLDER or --speech FOLDER")
    return [clip_of(waves[number % len(waves)], seconds) for number in range(count)]
