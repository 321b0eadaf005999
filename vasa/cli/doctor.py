"""`vasa doctor`: device, kernels, versions, weights."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    commands.add_parser("doctor", help="report device, kernels, versions and weights").set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from ..doctor import report

    rows = report()
    width = max(len(subject) for subject, _ in rows)
    for subject, finding in rows:
        print(f"{subject:<{width}}  {finding}")
