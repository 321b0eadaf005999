"""`vasa convert` and `vasa download`: weights of other makers for our engine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Register the commands."""
    parser = commands.add_parser("convert", help="make a model folder from published weights (docs/photoreal.md)")
    parser.add_argument("family", choices=("liveportrait", "joyvasa", "ditto"), help="whose weights")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder that holds the published files")
    parser.add_argument("dest", type=Path, metavar="DEST", help="model folder to write, for --model")
    parser.add_argument(
        "--fixed-positions",
        action="store_true",
        help="joyvasa: weights trained with the code of December 2025 or later",
    )
    parser.set_defaults(run=convert)

    parser = commands.add_parser("download", help="fetch published weights after showing licence and size")
    parser.add_argument("name", choices=("liveportrait", "joyvasa", "ditto"))
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder for the published files")
    parser.add_argument("--mirror", metavar="URL", help="another hub address")
    parser.add_argument("--yes", action="store_true", help="agree to licence and size without being asked")
    parser.set_defaults(run=download)


def convert(given: argparse.Namespace) -> None:
    """Run `vasa convert`."""
    from ..backends.liveportrait.convert import convert_renderer
    from ..backends.liveportrait.convert_ditto import convert_ditto
    from ..backends.liveportrait.convert_joyvasa import convert_joyvasa

    if given.fixed_positions and given.family != "joyvasa":
        raise InputError("--fixed-positions is for joyvasa alone; leave it out")
    if given.family == "joyvasa":
        convert_joyvasa(given.source, given.dest, not given.fixed_positions, report=print)
    elif given.family == "liveportrait":
        convert_renderer(given.source, given.dest, report=print)
    else:
        convert_ditto(given.source, given.dest, report=print)
    print(f"{given.dest}: ready for --model {given.dest}")


def download(given: argparse.Namespace) -> None:
    """Run `vasa download`."""
    from ..backends.liveportrait.download import fetch, offer

    made = offer(given.name, given.mirror)
    print(made.text)
    if not given.yes:
        if not sys.stdin.isatty():
            raise InputError("nobody is there to agree to the licence; read it above and repeat with --yes")
        if input(f"{made.summary}. Download? [y/N] ").strip().lower() not in ("y", "yes"):
            raise InputError("nothing was downloaded")
    fetch(made, given.dest, given.mirror, print)
    print(f"next: vasa convert {given.name} {given.dest} MODEL_FOLDER")
