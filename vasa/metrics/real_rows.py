"""The rows of real portraits and real speech."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .bench import Bench
from .identity import percentile
from .people import HeldOut, Talker
from .real import Heard, answer_to_speech, likeness, load_portraits, write_sheet
from .report import Row, not_measured

LIKENESS = "real pictures at ±20° yaw: identity against the source"
TEARING = "real pictures at ±20° yaw: no tearing or ghosting"
SYNC, PAUSES = "real speech: mouth opening against voiced energy", "real speech: lips closed in pauses"
PORTRAIT_DEMANDS = {
    LIKENESS: "≥ 5th percentile of the rendered test set",
    TEARING: "looked at, all of them",
}
SPEECH_DEMANDS = {SYNC: "≥ 0.4", PAUSES: "≥ 90 % of frames"}
_RENDERED = 40


def portrait_rows(bench: Bench, held: HeldOut, folder: Path, sheet: Path | None) -> list[Row]:
    """Turn real portraits and rendered ones alike and compare how much they still look like themselves."""
    bench.progress("real portraits", 0, 1)
    portraits, refused = load_portraits(bench.pipe, folder)
    absent = f" No usable face found in {', '.join(refused)}." if refused else ""
    if not portraits:
        return [
            not_measured(name, PORTRAIT_DEMANDS[name], f"no usable face in {folder.name}") for name in PORTRAIT_DEMANDS
        ]
    rendered = likeness(bench.pipe, list(held.images[:_RENDERED, 0]))
    real = likeness(bench.pipe, [p.picture for p in portraits])
    limit = percentile(rendered, 0.05)
    enough = int((real >= limit).sum())
    listed = ", ".join(f"{p.name} {value:.2f}" for p, value in zip(portraits, real.tolist(), strict=True))
    note = (
        f"mean similarity for the reader; 5th percentile of {len(rendered)} rendered people {limit:.2f}, "
        f"their median {rendered.median():.2f}. {listed}.{absent}"
    )
    if sheet is not None:
        write_sheet(bench.pipe, portraits, sheet)
    bench.progress("real portraits", 1, 1)
    looked = (
        f"contact sheet {sheet.name} written; judge it by eye" if sheet else "not measured: no contact sheet asked for"
    )
    return [
        Row(
            LIKENESS,
            PORTRAIT_DEMANDS[LIKENESS],
            f"{enough} of {len(portraits)} pictures",
            enough == len(real) and not refused,
            note,
        ),
        Row(TEARING, PORTRAIT_DEMANDS[TEARING], looked, None),
    ]


def real_speech_rows(bench: Bench, talkers: Sequence[Talker], speech: dict[str, Tensor]) -> list[Row]:
    """Let rendered people say real speech."""
    count = bench.counter("real speech", len(speech))
    heard: dict[str, Heard] = {}
    for number, (name, waveform) in enumerate(speech.items()):
        heard[name] = answer_to_speech(bench.pipe, talkers[number % len(talkers)], waveform, bench.seed + number)
        count(number + 1)
    middle = float(torch.tensor([one.correlation for one in heard.values()]).median())
    listed = ", ".join(f"{name} {one.correlation:.2f}" for name, one in heard.items())
    note = (
        f"first {bench.sizes.real_seconds:g} s of every file, distance of the lips against loudness where "
        f"voiced, median; {listed}."
    )
    rows = [Row(SYNC, SPEECH_DEMANDS[SYNC], f"{middle:.2f}", middle >= 0.4, note)]
    pauses, closed = (sum(getattr(one, what) for one in heard.values()) for what in ("pauses", "closed"))
    if not pauses:
        return [*rows, not_measured(PAUSES, SPEECH_DEMANDS[PAUSES], "the files have no pauses")]
    share = closed / pauses
    told = f"{pauses} frames; closed as for p, b and m."
    return [*rows, Row(PAUSES, SPEECH_DEMANDS[PAUSES], f"{share:.0%}", share >= 0.9, told)]
