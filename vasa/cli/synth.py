"""`vasa synth`: training people and training speech."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import number


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("synth", help="render training people, make training speech")
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    preview = kinds.add_parser("preview", help="contact sheet of rendered people")
    preview.add_argument("-o", "--out", type=Path, default=Path("people.png"))
    preview.add_argument("--people", type=number(1, 1000, int), default=24)
    preview.set_defaults(run=_run_synth_preview)
    render = kinds.add_parser("render", help="shards of labelled stills for training")
    render.add_argument("out", type=Path, metavar="FOLDER")
    render.add_argument("--people", type=number(1, 10**7, int), default=1000)
    render.add_argument("--frames", type=number(2, 1000, int), default=8, help="stills of each person")
    render.add_argument("--split", choices=("train", "test"), default="train")
    render.add_argument("--device", default="auto")
    render.set_defaults(run=_run_synth_render)
    for kind in (preview, render):
        kind.add_argument("--size", type=number(32, 2048, int), default=256, help="edge of the pictures, pixels")
        kind.add_argument("--assets", type=Path, help="asset pack folder (default: environment VASA_ASSETS)")
        kind.add_argument("--seed", type=number(0, 2**31 - 1, int), default=0)
    pack = kinds.add_parser("pack", help="build the asset pack from the upstream repositories' folders")
    pack.add_argument("--ict", type=Path, required=True, help="folder of ICT-FaceKit")
    pack.add_argument("--makehuman", type=Path, required=True, help="folder of MakeHuman's assets")
    pack.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    pack.set_defaults(run=_run_synth_pack)
    speech = kinds.add_parser("speech", help="speech with exact phone times")
    speech.add_argument("out", type=Path, metavar="FOLDER")
    speech.add_argument("--hours", type=number(0.01, 10_000), default=8.0)
    speech.add_argument("--seed", type=number(0, 2**31 - 1, int), default=0)
    speech.add_argument("--split", choices=("train", "validation"), default="train")
    speech.add_argument("--workers", type=number(1, 256, int), default=1)
    speech.set_defaults(run=_run_synth_speech)


def _run_synth_preview(given: argparse.Namespace) -> None:
    from ..io.files import check_writable
    from ..synthetic.preview import write_preview

    check_writable(given.out, (".png", ".jpg"))
    write_preview(given.out, people=given.people, size=given.size, seed=given.seed, assets=given.assets)
    print(given.out)


def _run_synth_render(given: argparse.Namespace) -> None:
    from ..synthetic.dataset import render_shards

    render_shards(
        given.out,
        people=given.people,
        frames=given.frames,
        size=given.size,
        seed=given.seed,
        split=given.split,
        assets=given.assets,
        device=given.device,
        report=print,
    )
    print(given.out)


def _run_synth_pack(given: argparse.Namespace) -> None:
    from ..synthetic.pack import build_pack

    build_pack(given.ict, given.makehuman, given.out)
    print(given.out)


def _run_synth_speech(given: argparse.Namespace) -> None:
    from ..synthetic.corpus import make_corpus

    make_corpus(given.out, given.hours, given.seed, given.split == "validation", given.workers)
    print(given.out)
