"""`vasa bench`: how fast this machine is, after checking that it computes the right thing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from .options import number


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    bench = commands.add_parser("bench", help="measure speed, side by side with plain PyTorch, after checking results")
    bench.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER",
                       help="model, or a configuration such as vasa-1 or liveportrait (random weights)")  # fmt: skip
    bench.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    bench.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    bench.add_argument("--seconds", type=number(0.01, 600), default=2.0, help="time for each contestant")
    bench.add_argument("--threads", type=number(1, 1024, int), help="CPU threads (default: PyTorch's choice)")
    bench.add_argument("--seed", type=number(0, 2**31, int), default=0)
    bench.add_argument("--quick", action="store_true", help="fewer sizes")
    bench.add_argument("--published", type=Path, metavar="CLONE",
                       help="with liveportrait: the published repository, whose modules take part")  # fmt: skip
    bench.add_argument("-o", "--out", type=Path, help="write OUT.csv and OUT.md, after every subject")
    bench.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    import torch

    from ..bench import family
    from ..bench.run import bench, write
    from ..bench.table import Row, to_markdown

    if given.published is not None and given.model != family.NAME:
        raise InputError(f"--published goes with --model {family.NAME} alone; leave one of them out")
    if given.threads:
        torch.set_num_threads(given.threads)

    def keep(rows: list[Row], device: torch.device) -> list[Path]:
        return write(rows, device, given.out) if given.out else []

    common = {"device": given.device, "precision": given.precision, "seconds": given.seconds, "quick": given.quick,
              "keep": keep, "progress": lambda line: print(line, file=sys.stderr)}  # fmt: skip
    if given.model == family.NAME:
        rows, device = family.bench_family(given.published, **common)
    else:
        rows, device = bench(given.model, seed=given.seed, **common)
    print(to_markdown(rows, device), end="")
    for path in keep(rows, device):
        print(path)
