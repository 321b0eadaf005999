"""Rows of the speed table, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        subject: what was done, "decode, batch 8".
        shape: sizes in words.
        provider: which of the contestants, "fused", "eager", "ancestors".
        p20, p50, p80: milliseconds.
        processor: milliseconds of processor time (CPU only, else 0).
        speedup: of the fused path against this one; 1 for the fused path itself, 0 where there is none.
        rate: frames per second, where frames are made.
        roofline: share of the floor (arithmetic and bandwidth measured on this machine) that is reached; 0 if unknown.
        error: relative L2 error against float64, or against the eager path in float32.
        memory: peak MB of the device; on a CPU of the process (Linux only, else 0).
    """

    subject: str
    shape: str
    provider: str
    p20: float
    p50: float
    p80: float
    processor: float = 0.0
    speedup: float = 0.0
    rate: float = 0.0
    roofline: float = 0.0
    error: float = 0.0
    memory: float = 0.0


def to_csv(rows: list[Row], device: torch.device) -> str:
    """All columns, one row each, with device, versions and commit in every row: tables may be laid together."""
    text, about = io.StringIO(), _about(device)
    writer = csv.DictWriter(text, [*(f.name for f in fields(Row)), *about], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()} | about)
    return text.getvalue()


def to_markdown(rows: list[Row], device: torch.device) -> str:
    """The table under a line that names machine, versions and commit."""
    lines = [
        machine(device),
        "",
        "| what | sizes | path | ms (p20 – p80) | processor ms | fused is faster by | frames/s | of the floor "
        "| rel. error | peak MB |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [
            row.subject, row.shape, row.provider, f"{row.p50:.3g} ({row.p20:.3g} – {row.p80:.3g})",
            _or_dash(row.processor),
            f"{row.speedup:.2f} ×" if row.speedup and row.provider != "fused" else "–", _or_dash(row.rate),
            f"{row.roofline:.0%}" if row.roofline else "–", f"{row.error:.1e}" if row.error else "–",
            f"{row.memory:.0f}" if row.memory else "–",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _or_dash(value: float) -> str:
    return f"{value:.3g}" if value else "–"


def machine(device: torch.device) -> str:
    """Device, versions and commit, in a sentence."""
    about = _about(device)
    return f"{about['device']}; PyTorch {about['torch']}, Triton {about['triton']}; commit {about['commit']}"


def _about(device: torch.device) -> dict[str, str]:
    if device.type == "cuda":
        place = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda or torch.version.hip}"
    else:
        place = f"{_processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return {"device": place, "torch": torch.__version__, "triton": _triton(), "commit": commit()}


def _processor() -> str:
    source = Path("/proc/cpuinfo")
    lines = source.read_text().splitlines() if source.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _triton() -> str:
    try:
        import triton
    except Exception:  # a broken toolchain raises anything
        return "absent"
    return triton.__version__


def commit() -> str:
    """Short hash of the checkout; "unknown" for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
