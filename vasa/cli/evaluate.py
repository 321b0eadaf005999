"""`vasa evaluate`: measure a model. `vasa evaluate controls`: measure what each control does."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Progress, number


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    evaluate = commands.add_parser("evaluate", help="measure a model and write docs/results.md")
    evaluate.add_argument(
        "what",
        nargs="?",
        choices=("results", "controls"),
        default="results",
        help="the table of results, or every control swept (docs/controls-results.md)",
    )
    evaluate.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    evaluate.add_argument("--data", type=Path, help="shards of people never trained on (default: rendered now)")
    evaluate.add_argument("--corpus", type=Path, help="speech corpus of a voice never trained on")
    evaluate.add_argument("--portraits", type=Path, help="folder of real pictures")
    evaluate.add_argument("--speech", type=Path, help="folder of real speech")
    evaluate.add_argument("--assets", type=Path, help="asset pack for rendering (VASA_ASSETS)")
    evaluate.add_argument("--people", type=number(4, 10_000, int), help="how many people")
    evaluate.add_argument("--faces", type=number(1, 1000, int), help="controls: how many faces")
    evaluate.add_argument("--clips", type=number(2, 10_000, int), help="how many clips of speech")
    evaluate.add_argument("--quick", action="store_true", help="smaller sizes, a few minutes on two CPU cores")
    evaluate.add_argument("--sheet", type=Path, help="contact sheet of the real pictures at ±20° yaw")
    evaluate.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    evaluate.add_argument("-o", "--out", type=Path, help="Markdown file (docs/results.md, docs/controls-results.md)")
    evaluate.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    if given.what == "controls":
        _controls(given)
        return
    from ..metrics.evaluate import evaluate

    out = given.out or Path("docs/results.md")
    names = ("data", "corpus", "portraits", "speech", "assets", "people", "clips", "quick", "sheet", "device")
    with Progress() as progress:
        rows = evaluate(given.model, out, progress=progress, **{name: getattr(given, name) for name in names})
    for row in rows:
        print(row)
    print(out)


def _controls(given: argparse.Namespace) -> None:
    from ..metrics.control_evaluation import evaluate_controls
    from ..metrics.control_report import defects

    out = given.out or Path("docs/controls-results.md")
    names = ("corpus", "speech", "assets", "faces", "quick", "device")
    with Progress() as progress:
        found = evaluate_controls(given.model, out, progress=progress, **{name: getattr(given, name) for name in names})
    wrong = defects(found)
    for response in found:
        verdict = "; ".join(wrong.get(response.lever.name, ["as it should be"]))
        print(f"{response.lever.name}: slope {response.slope():.2f}; {verdict}")
    print(out)
