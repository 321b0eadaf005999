"""Imports stay inside the arrows of CONTRIBUTING.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STORES = {"config", "latents", "geometry", "errors"}
MODEL = STORES | {"kernels"}
ARROWS = {
    "config": {"latents"},
    "latents": {"errors"},
    "geometry": set(),
    "errors": set(),
    "face": MODEL | {"face"},
    "audio": MODEL,
    "timeline": {"errors"},
    "blinks": set(),
    "controls": STORES | {"timeline", "blinks", "controls_json"},
    "controls_json": STORES | {"timeline", "controls"},
    "device": {"errors"},
    "graphs": set(),
    "compiled": set(),
    "batches": {"graphs", "compiled"},
    "runtime": MODEL | {"face", "batches"},
    "motion": MODEL | {"motion", "audio", "controls", "graphs"},
    "io": {"errors", "io"},
    "checkpoint": MODEL | {"face", "audio", "motion"},
    "aside": set(),
    "threads": set(),
    "stream": MODEL | {"motion", "controls", "aside"},
    "continuation": MODEL | {"motion", "controls"},
    "session_file": {"errors", "io"},
    "motion_file": {"errors", "latents", "io"},
    "track": STORES | {"io"},
    "live": MODEL | {"io", "stream", "motion", "controls"},
    "pipeline": MODEL
    | {"face", "audio", "motion", "controls", "checkpoint", "stream", "continuation", "runtime", "threads"}
    | {"device", "backends"},
    "backends": MODEL
    | {
        "face",
        "audio",
        "motion",
        "controls",
        "io",
        "checkpoint",
        "pipeline",
        "device",
        "runtime",
        "batches",
        "threads",
        "backends",
    },
    "synthetic": STORES | {"synthetic"},
    "training": MODEL | {"face", "audio", "motion", "controls", "synthetic", "training", "checkpoint", "device"},
    "metrics": MODEL
    | {"io"}
    | {"face", "audio", "motion", "controls", "synthetic", "training", "checkpoint", "pipeline", "metrics"},
}
OUTSIDE = {
    "kernels": {"torch", "triton"},
    "geometry": {"torch"},
    "latents": {"torch"},
    "config": set(),
    "face": {"torch", "torchvision", "einops"},
    "motion": {"torch", "einops"},
    "io": {"torch", "numpy", "PIL", "av", "skimage", "mediapipe", "pillow_heif"},
}


def imports(path: Path) -> tuple[set[str], set[str]]:
    """(rooms of vasa, outside packages) that a file imports anywhere."""
    rooms, outside = set(), set()
    depth = len(path.relative_to(ROOT / "vasa").parts) if "vasa" in path.parts else 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= depth, f"{path}: relative import leaves the package"
            if node.level == depth:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                rooms |= {name.split(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
    return rooms, outside


def files() -> list[Path]:
    return sorted((ROOT / "vasa").rglob("*.py")) + sorted((ROOT / "kernels").glob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_its_neighbours(path):
    rooms, outside = imports(path)
    parts = path.relative_to(ROOT).parts
    room = "kernels" if parts[0] == "kernels" else parts[1].removesuffix(".py")
    if room in ARROWS:
        inner = {room} if len(parts) > 2 and parts[0] == "vasa" else set()
        assert rooms <= ARROWS[room] | inner, f"{rooms - ARROWS[room]} is not next to {room}"
    if room in OUTSIDE:
        import sys

        assert outside - set(sys.stdlib_module_names) <= OUTSIDE[room]
    assert "vasa" not in outside, "imports inside the package are relative"


def test_no_room_is_a_junk_drawer():
    assert not [p for p in files() if p.stem in {"utils", "helpers", "common", "misc"}]


def test_kernels_folder_stays_a_plain_folder():
    assert not (ROOT / "kernels" / "__init__.py").exists(), "it would shadow Hugging Face's package of that name"
