"""Argument types and progress shared by the commands."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from tqdm import tqdm

from ..errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def number(low: float, high: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """An argparse type: a number within [low, high]; NaN is outside of every range."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            whole = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"expected a {whole} between {low:g} and {high:g}, got {text!r}")
        return value

    return parse


def weights_of(names: Sequence[str], high: float) -> Callable[[str], dict[str, float]]:
    """An argparse type: NAME=VALUE[,NAME=VALUE...] with known names and values in [0, high]."""
    value_of = number(0.0, high)
    known = ", ".join(names)

    def parse(text: str) -> dict[str, float]:
        weights = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if name.strip() not in names or not equals:
                raise argparse.ArgumentTypeError(f"expected NAME=VALUE, NAME one of {known}, got {part!r}")
            weights[name.strip()] = value_of(value)
        return weights

    return parse


def crop(text: str) -> str | tuple[float, float, float]:
    if text in ("auto", "none"):
        return text
    try:
        x, y, size = (float(part) for part in text.split(","))
    except ValueError:
        x = y = size = math.nan
    if not (math.isfinite(x + y + size) and size > 0):
        raise argparse.ArgumentTypeError(f"expected auto, none or X,Y,SIZE in pixels, got {text!r}")
    return x, y, size


def add_screen_options(parser: argparse.ArgumentParser) -> None:
    """Where frames are shown: `vasa.screen.Screen`."""
    parser.add_argument("--paste-back", action="store_true", help="show the frames in the whole picture")
    parser.add_argument("--no-lock", action="store_true", help="with --paste-back: let the background near move too")
    parser.add_argument("--alpha", action="store_true", help="cut the person out; write .webm, .mov or a folder of PNG")


def screen_options(given: argparse.Namespace) -> dict[str, bool]:
    """What `add_screen_options` was given, as `vasa.animate`'s arguments."""
    return {"paste_back": given.paste_back, "lock": not given.no_lock, "alpha": given.alpha}


class Progress:
    """One line on a terminal: denoising steps first, then frames."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._stage:
            self.__exit__()
            self._stage, self._done = stage, 0
            unit = " frames" if stage == "frames" else " steps"
            # disable=None: silent where nobody watches, such as a pipe
            self._bar = tqdm(total=total, desc=stage, unit=unit, leave=False, disable=None, dynamic_ncols=True)
        self._bar.update(done - self._done)
        self._done = done
