"""The rows of the controls: gaze, distance, emotion."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..latents import EMOTIONS
from .bench import Bench
from .clips import Spoken
from .controls import Sweep, distance_sweep, emotion_sweep, gaze_sweep, is_monotone, name_emotions, slope
from .people import Talker
from .report import Row

YAW, PITCH, DISTANCE = "gaze yaw swept ±20°", "gaze pitch swept ±12°", "distance swept 0.8 – 1.3"
NAMED, STRENGTH = "emotion at full weight named by the reader", "emotion weight swept 0 – 0.5 – 1"
DEMANDS = {
    **dict.fromkeys((YAW, PITCH, DISTANCE), "monotone, slope 0.85 – 1.15"),
    NAMED: "≥ 70 %",
    STRENGTH: "monotone",
}  # fmt: skip


def control_rows(bench: Bench, talkers: Sequence[Talker], speech: Sequence[Spoken]) -> list[Row]:
    """Sweep every control on a few faces that all say something else."""
    pipe, seed = bench.pipe, bench.seed
    faces = list(talkers[: bench.sizes.sweeps])
    said = list(speech[: len(faces)])
    count, total = bench.progress, 3 + len(EMOTIONS)
    rows = []
    for done, (name, axis) in enumerate(((YAW, 0), (PITCH, 1))):
        rows.append(_swept(name, gaze_sweep(pipe, faces, said, axis, seed), True))
        count("controls", done + 1, total)
    rows.append(_swept(DISTANCE, distance_sweep(pipe, faces, said, seed), False))
    rising = {}
    for emotion in range(1, len(EMOTIONS)):
        rising[EMOTIONS[emotion]] = emotion_sweep(pipe, faces[:1], said[:1], emotion, seed)
        count("controls", 3 + emotion, total)
    named = name_emotions(pipe, faces, said, seed)
    count("controls", total, total)
    hits, true = zip(*[(asked == a, asked == b) for asked, pairs in named.items() for a, b in pairs], strict=True)
    share = sum(hits) / len(hits)
    told = "; ".join(f"{asked}: {', '.join(answer for answer, _ in pairs)}" for asked, pairs in named.items())
    rows.append(
        Row(
            NAMED,
            DEMANDS[NAMED],
            f"{share:.0%}",
            share >= 0.7,
            f"{len(hits)} clips of one window while speaking: {told}. Off true pictures of the same motion "
            f"{sum(true) / len(true):.0%} are named.",
        )
    )
    failing = [name for name, found in rising.items() if not is_monotone(found.measured)]
    gains = ", ".join(
        f"{name} {_rise(found.measured)} ({_rise(found.rendered)}, {_rise(found.generated)})"
        for name, found in rising.items()
    )
    note = (
        "projection of the expression that is read on the emotion's shape, rise from weight 0 to 1 (in "
        f"brackets: as read off true pictures of the same motion, and in that motion): {gains}."
    )
    measured = f"{len(rising) - len(failing)} of {len(rising)} emotions"
    rows.append(Row(STRENGTH, DEMANDS[STRENGTH], measured, not failing, note))
    return rows


def _rise(answers: Tensor) -> str:
    return f"{answers[0, -1] - answers[0, 0]:+.2f}"


def _swept(name: str, found: Sweep, is_angle: bool) -> Row:
    rises = is_monotone(found.measured)
    answers = found.measured.mean(0)
    asked = found.requested.rad2deg() if is_angle else found.requested.exp()
    answers = answers.rad2deg() if is_angle else (answers - answers[found.requested.abs().argmin()]).exp()
    unit = "°" if is_angle else ""
    listed = ", ".join(f"{a:.3g}{unit} → {b:.3g}{unit}" for a, b in zip(asked.tolist(), answers.tolist(), strict=True))
    note = (
        f"{len(found.measured)} faces, read off decoded frames: {listed}. Slope in the motion before "
        f"decoding {slope(found.requested, found.generated):.2f}."
    )
    measured = f"slope {found.slope:.2f}"
    if found.rendered is not None:
        measured += f" ({slope(found.requested, found.measured):.2f} as read)"
        true = slope(found.requested, found.rendered)
        note += f" Off true pictures of the same motion the reader reads {true:.2f}; that much it shrinks what it sees."
    measured += f", {'' if rises else 'not '}monotone"
    return Row(name, DEMANDS[name], measured, rises and 0.85 <= found.slope <= 1.15, note)
