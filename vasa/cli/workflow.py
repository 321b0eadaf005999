"""`vasa run`: a workflow file of the ComfyUI nodes, without ComfyUI."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .options import Progress


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("run", help="run a workflow of the ComfyUI nodes, without ComfyUI")
    parser.add_argument("workflow", help="file in API format, or the name of a shipped one, e.g. basic")
    parser.add_argument(
        "--set",
        type=assignment,
        action="append",
        default=[],
        metavar="INPUT=VALUE",
        help="replace an input: audio=speech.wav, seed=3, or 5.seed by the node's number",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("output"), metavar="FOLDER", help="where results go (output)"
    )
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="where the workflow's file names are looked up")
    parser.set_defaults(run=run)


def assignment(text: str) -> tuple[str, str]:
    """An argparse type: INPUT=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected INPUT=VALUE, got {text!r}")
    return name, value


def run(given: argparse.Namespace) -> None:
    from ..nodes.headless import run_workflow

    def notice(sentence: str) -> None:
        print(f"vasa: note: {sentence}", file=sys.stderr)

    if not given.out.exists() and given.out.parent.is_dir():
        given.out.mkdir()
    with Progress() as progress:
        saved = run_workflow(
            given.workflow, dict(given.set), given.out, input_dir=given.inputs, progress=progress, notice=notice
        )
    for path in saved:
        print(path)
