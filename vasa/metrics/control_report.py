"""The table, the cross-talk matrix and the plots of a study of the controls."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..io.files import replacing
from ..latents import EMOTIONS
from .control_study import QUANTITIES, Response, Source

LIMIT = 1 / 3
"""Cross-talk above this share of what a quantity's own control does is a defect."""
_WORST = 2
"""Defects of a control that the table spells out; the matrix has them all."""
RELATED: frozenset[tuple[str, str]] = frozenset(
    [("expression", name) for name in EMOTIONS]
    + [("mouth", name) for name in EMOTIONS]
    + [(name, "expression") for name in EMOTIONS]
    + [(a, b) for a in EMOTIONS for b in EMOTIONS]
)
"""(quantity of the lever, other quantity) that are the same thing by definition: intensity scales what an emotion makes
of the brows and the mouth, and the shapes of emotions overlap."""


def crosstalk(responses: Sequence[Response], source: Source = "frames") -> tuple[list[str], Tensor]:
    """How far every control moves every quantity, in units of what the quantity's own control does.

    Args:
        responses: R controls.
        source: what both are taken from.

    Returns:
        Names of the C quantities that have a control among the responses; and the matrix [R, C] >= 0, NaN where the
        two are related by definition.
    """
    quantities = list(QUANTITIES)
    own = {r.lever.quantity: r.effects(source)[quantities.index(r.lever.quantity)].abs() for r in responses}
    names = [name for name in quantities if name in own]
    columns = [quantities.index(name) for name in names]
    scale = torch.stack([own[name] for name in names]).clamp_min(1e-9)
    matrix = torch.stack([response.effects(source)[columns].abs() for response in responses]) / scale
    for row, response in enumerate(responses):
        for column, name in enumerate(names):
            if name != response.lever.quantity and (response.lever.quantity, name) in RELATED:
                matrix[row, column] = torch.nan
    return names, matrix


def defects(responses: Sequence[Response]) -> dict[str, list[str]]:
    """Control -> what is wrong with it, in words, the worst cross-talk first; only controls with a defect."""
    names, matrix = crosstalk(responses)
    true = crosstalk(responses, "truth")[1] if _with_truth(responses) else torch.full_like(matrix, torch.nan)
    found: dict[str, list[str]] = {}
    for response, row, beside in zip(responses, matrix, true, strict=True):
        said = [] if response.monotone else ["not monotone"]
        others = zip(row.tolist(), names, beside.tolist(), strict=True)
        for share, name, there in sorted(o for o in others if o[0] > LIMIT and o[1] != response.lever.quantity)[::-1]:
            aside = "" if math.isnan(there) else f" (true pictures: {there:.0%})"
            said.append(f"moves {name} by {share:.0%} of its range{aside}")
        if said:
            found[response.lever.name] = said
    return found


def _with_truth(responses: Sequence[Response]) -> bool:
    return all(response.rendered is not None for response in responses)


def write_report(path: Path, images: Path, model: str, responses: Sequence[Response], context: dict[str, str]) -> None:
    """Write the Markdown and its pictures `controls-response.png`, `controls-crosstalk.png`.

    Raises:
        InputError: matplotlib is not installed.
    """
    images.mkdir(parents=True, exist_ok=True)
    plot_responses(images / "controls-response.png", responses)
    plot_crosstalk(images / "controls-crosstalk.png", responses)
    wrong = defects(responses)
    lines = [f"# Controls of `{model}`", "", f"- Date: {datetime.date.today().isoformat()}"]
    lines += [f"- {subject}: {finding}" for subject, finding in context.items()]
    lines += [
        "",
        "Slope: answer per request, 1 is exact; in decoded frames as the face reader sees them; in true pictures of",
        "the same motion, for the reader shrinks and mixes by itself; and in that motion. A defect is a response that",
        "is not monotone, or cross-talk above a third.",
        "",
        "| control | asked for → read off the frames | slope, frames | slope, true pictures | slope, motion | monotone "
        "| defect |",
        "|---" * 7 + "|",
    ]
    for response in responses:
        lever = response.lever
        answers = ", ".join(
            f"{level:g} → {answer:.2f}"
            for level, answer in zip(lever.levels, response.curve().mean(0).tolist(), strict=True)
        )
        said = wrong.get(lever.name, ["–"])
        verdict = "; ".join(said[:_WORST]) + (f"; and {len(said) - _WORST} more" if len(said) > _WORST else "")
        monotone = "yes" if response.monotone else "no"
        true = response.slope("truth") if response.rendered is not None else math.nan
        shrunk = "–" if math.isnan(true) else f"{true:.2f}"
        slopes = f"{response.slope():.2f} | {shrunk} | {response.slope('motion'):.2f}"
        lines.append(f"| {lever.name} | {answers} | {slopes} | {monotone} | {verdict} |")
    names, matrix = crosstalk(responses)
    lines += ["", "## Cross-talk", "", "Change of a quantity when a control (row) goes through its whole sweep, in"]
    lines += ["percent of what the quantity's own control does to it; – where the two are one thing by definition.", ""]
    lines += ["| control | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for response, row in zip(responses, matrix.tolist(), strict=True):
        cells = ["–" if share != share else f"{100 * share:.0f}" for share in row]
        lines.append(f"| {response.lever.name} | " + " | ".join(cells) + " |")
    folder = images.name
    lines += ["", f"![response of every control]({folder}/controls-response.png)", ""]
    lines += [f"![cross-talk]({folder}/controls-crosstalk.png)"]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def plot_responses(path: Path, responses: Sequence[Response]) -> None:
    """One small diagram a control: request against answer, a line a face; dotted: the motion; grey: exact."""
    figure, axes = _subplots(len(responses))
    for axis, response in zip(axes, responses, strict=False):
        asked = response.requested
        middle = asked.mean()
        axis.plot(asked, asked, color="0.8", linewidth=3)
        for source, style in (("frames", "-"), ("motion", ":")):
            for face, curve in enumerate(response.curve(source)):
                shown = curve - curve.mean() + middle
                axis.plot(asked, shown, style, color=f"C{face}", linewidth=1)
        axis.set_title(f"{response.lever.name}: {response.slope():.2f}", fontsize=8)
        axis.tick_params(labelsize=6)
    for axis in axes[len(responses) :]:
        axis.set_axis_off()
    _save(figure, path)


def plot_crosstalk(path: Path, responses: Sequence[Response]) -> None:
    """The cross-talk matrix as a picture."""
    names, matrix = crosstalk(responses)
    figure = _figure(1.5 + 0.42 * len(names), 1.2 + 0.32 * len(responses))
    axis = figure.subplots()
    axis.imshow(matrix.numpy(), vmin=0, vmax=1, cmap="magma_r")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(responses)), [response.lever.name for response in responses], fontsize=7)
    for row, column in (matrix > LIMIT).nonzero().tolist():
        share = float(matrix[row, column])
        axis.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=6, color="white")
    _save(figure, path)


def _subplots(count: int):
    columns = min(4, count)
    rows = -(-count // columns)
    figure = _figure(2.2 * columns, 2.0 * rows)
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()


def _figure(width: float, height: float):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the plots need matplotlib; install it with: pip install 'vasa[train]'") from error
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def _save(figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
