"""What `vasa doctor` reports: everything about this machine that decides whether and how fast vasa runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import torch

from .checkpoint import PACKAGED
from .device import has_bf16_units, pick_device, pick_precision
from .io.face import detector_name
from .kernels.dispatch import backend_report

PACKAGES = ("torch", "triton", "transformers", "safetensors", "accelerate", "numpy", "einops", "av", "pillow",
            "scikit-image", "mediapipe", "onnxruntime", "pillow-heif", "gradio")  # fmt: skip


def report() -> list[tuple[str, str]]:
    """Rows of (subject, finding), in the order they are worth reading."""
    device = pick_device("auto")
    rows = [
        ("vasa", _version("vasa") or "not installed, running from its folder"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("device", _device_line(device)),
        ("precision", str(pick_precision("auto", device)).removeprefix("torch.")),
        ("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {_cpu_line()}"),
    ]
    rows += [(f"kernel {name}", backend) for name, backend in backend_report().items()]
    rows += [(name, _version(name) or "not installed") for name in PACKAGES]
    rows.append(("face detector", detector_name()))
    rows += _weights()
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    rows.append(("free disk", f"{free:.1f} GB here"))
    return rows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device_line(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"


def _cpu_line() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{capability}, bf16 in hardware: {'yes' if has_bf16_units() else 'no'}"


def _weights() -> list[tuple[str, str]]:
    """One row per shipped model with its files' sizes."""
    folders = sorted(p for p in PACKAGED.iterdir() if p.is_dir()) if PACKAGED.is_dir() else []
    rows = []
    for folder in folders:
        sizes = {path.stem: path.stat().st_size / 1e6 for path in sorted(folder.glob("*.safetensors"))}
        if sizes:
            files = ", ".join(f"{stem} {size:.1f} MB" for stem, size in sizes.items())
            rows.append((f"weights {folder.name}", f"{files} in {folder}"))
    return rows or [("weights", f"none in {PACKAGED}; train a model with `vasa train`")]
