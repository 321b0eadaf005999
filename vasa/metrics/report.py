"""Rows of the table of results, and the Markdown file they end up in."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint import find, sha256
from ..io.files import replacing

KEPT = "## Other measurements"
"""From this line on, a file of results is written by hand and stays when the table is measured again."""
_HASH_DIGITS = 12


@dataclass(frozen=True)
class Row:
    """One figure of the table.

    Attributes:
        measure: what was measured.
        must_reach: the demand, in words.
        measured: the figure with its unit, or "not measured: reason".
        met: whether the demand is met; None where nothing was measured or a person must look.
        note: how it was taken, and figures that help to judge it.
    """

    measure: str
    must_reach: str
    measured: str
    met: bool | None
    note: str = ""

    def __str__(self) -> str:
        verdict = {True: "met", False: "not met", None: "open"}[self.met]
        return f"{self.measure}: {self.measured} (must reach {self.must_reach}: {verdict})"


def not_measured(measure: str, must_reach: str, reason: str) -> Row:
    """A row whose data is absent."""
    return Row(measure, must_reach, f"not measured: {reason}", None)


def machine(device: torch.device, dtype: torch.dtype) -> str:
    """The machine in words: processor, cores, PyTorch, device, number format; no names of hosts or users."""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    number_format = str(dtype).removeprefix("torch.")
    software = f"PyTorch {torch.__version__}, decoding on {place} in {number_format}"
    return f"{_processor()}, {os.cpu_count()} cores, {software}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def model_hash(name_or_folder: str | Path) -> str:
    """First digits of the SHA-256 of every weight file of a model, "face 0123…, motion …"."""
    files = sorted(find(name_or_folder).glob("*.safetensors"))
    return ", ".join(f"{path.stem} {sha256(path)[:_HASH_DIGITS]}" for path in files)


def write_results(path: Path, model: str, rows: Sequence[Row], context: dict[str, str]) -> None:
    """Write the table; the file appears under its name only when it is complete, and keeps what follows `KEPT`.

    Args:
        path: Markdown file.
        model: its name, for the title.
        rows: the table.
        context: what the reader must know about the run, one line each.
    """
    lines = [f"# Results of `{model}`", "", f"- Date: {datetime.date.today().isoformat()}"]
    lines += [f"- {subject}: {finding}" for subject, finding in context.items()]
    lines += ["", "| measure | must reach | measured | met? |", "|---|---|---|---|"]
    lines += [f"| {row.measure} | {row.must_reach} | {row.measured} | {_verdict(row.met)} |" for row in rows]
    lines += ["", "## How the figures were taken", ""]
    lines += [f"- **{row.measure}**: {row.note}" for row in rows if row.note]
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    kept = "\n" + before[before.index(KEPT) :] if KEPT in before else ""
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n" + kept, encoding="utf-8")


def _verdict(met: bool | None) -> str:
    return "–" if met is None else "yes" if met else "no"
