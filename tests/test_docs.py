"""What the documents say exists, exists: functions, flags, commands, links, sizes."""

import argparse
import ast
import contextlib
import functools
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from vasa import checkpoint, cli
from vasa.audio import AudioEncoder
from vasa.config import CONFIGS, TINY, VASA1
from vasa.face.model import FaceModel
from vasa.face.reader import FaceReader
from vasa.motion.transformer import Denoiser

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAPER = ROOT / "docs" / "paper.md"
TRAINING = ROOT / "docs" / "training.md"
CARD = ROOT / "vasa" / "weights" / "vasa-mini" / "README.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), CARD]
REFERENCE = re.compile(r"`((?:vasa|kernels)/[\w/]+\.py):([\w.]+)`")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """Fenced code blocks of a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@functools.cache
def tree_of(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def names_of(node: ast.AST) -> dict[str, ast.AST]:
    """Everything that a module or class defines by name."""
    found: dict[str, ast.AST] = {}
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[child.name] = child
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            found |= {target.id: child for target in targets if isinstance(target, ast.Name)}
    return found


def is_defined(file: str, dotted: str) -> bool:
    node: ast.AST | None = tree_of(file) if (ROOT / file).is_file() else None
    for name in dotted.split("."):
        node = names_of(node).get(name) if node is not None else None
    return node is not None


@functools.cache
def all_flags(parser: argparse.ArgumentParser) -> set[str]:
    """Long options of a parser and of every command below it."""
    flags = set()
    for action in parser._actions:
        flags |= {flag for flag in action.option_strings if flag.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            flags |= set().union(*(all_flags(command) for command in action.choices.values()))
    return flags


def flags_of(*command: str) -> frozenset[str]:
    """Flags that the help of a command names."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert cli.main([*command, "--help"]) == 0
    return frozenset(re.findall(r"--[a-z-]+", said.getvalue()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_functions_that_are_named_exist(document):
    named = REFERENCE.findall(document.read_text())
    assert [f"{file}:{name}" for file, name in named if not is_defined(file, name)] == []


def test_the_paper_is_mapped_to_many_functions():
    assert len(set(REFERENCE.findall(PAPER.read_text()))) > 50
    assert not is_defined("vasa/motion/diffusion.py", "absent") and not is_defined("vasa/absent.py", "sample")


def test_every_equation_and_section_is_mapped():
    text = PAPER.read_text()
    for part in ("**Eq. 1**", "**Eq. 2**", "Section 3.1", "Section 3.2", "Section 3.3", "Section 4"):
        assert part in text


def test_the_option_table_is_the_command_line():
    rows = [line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `-")]
    described = {flag for row in rows for flag in re.findall(r"--[a-z-]+", row)}
    assert described == flags_of("animate") - {"--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_commands_can_be_parsed(document):
    lines = "\n".join(blocks(document, "bash")).replace("&&", "\n").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.strip().startswith("vasa ")]
    if document in (README, TRAINING):
        assert commands
    parser = cli.parser()
    for command in commands:
        assert parser.parse_args(command).run is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_flags_in_running_text_exist(document):
    # gradio need not be installed, so the app's own flags are read from its text
    real = all_flags(cli.parser()) | set(
        re.findall(r'add_argument\(\s*"(--[a-z-]+)"', (ROOT / "gradio_app.py").read_text())
    )
    named = set(re.findall(r"`(--[a-z-]+)", document.read_text()))
    assert named <= real


def test_a_newcomer_finds_the_first_commands_at_once():
    lines = README.read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if "pip install" in line)
    assert first <= 20
    assert any("vasa animate" in line for line in lines[:25]) and any("pytest" in line for line in lines[:25])


def test_python_of_the_readme_uses_names_that_exist():
    (block,) = blocks(README, "python")
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    from vasa import Vasa

    used = set(re.findall(r"\bvasa\.([a-z_]+)", re.sub(r"^from .*$", "", block, flags=re.MULTILINE)))
    assert used and [name for name in used if not hasattr(Vasa, name)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (document.parent / target).exists()] == []


def test_parts_become_a_model_as_the_document_shows(tmp_path, monkeypatch):
    (line,) = [x for b in blocks(TRAINING, "bash") for x in b.splitlines() if x.startswith("vasa export")]
    monkeypatch.chdir(tmp_path)
    from vasa.training.audio import AudioTrainee

    trainee = AudioTrainee(TINY)
    denoiser = Denoiser(TINY.motion, TINY.motion_dim, trainee.encoder.feature_dim)
    parts = {"face-256": FaceModel(TINY.face), "audio": trainee, "motion": denoiser}
    parts["reader"] = FaceReader(TINY.reader)
    for name, module in parts.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_file(module.state_dict(), tmp_path / "runs" / name / "weights.safetensors")
    assert cli.main([*shlex.split(line)[1:], "--config", "tiny"]) == 0
    models = checkpoint.load(tmp_path / "my-model")
    assert models.config == TINY and models.reader is not None
    kept = models.motion.state_dict()["head.weight"]
    assert torch.allclose(kept, denoiser.state_dict()["head.weight"], atol=1e-3)


def table_of_vasa_1() -> dict[str, list[str]]:
    """Rows of the size table, by the module's name."""
    section = PAPER.read_text().split("## Size of `vasa-1`")[1]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[1].strip("`"): row for row in rows if row[1].startswith("`")}


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_sizes_of_vasa_1_are_those_of_the_code():
    with torch.device("meta"):
        model = FaceModel(VASA1.face).requires_grad_(False)
        denoiser = Denoiser(VASA1.motion, VASA1.motion_dim, VASA1.audio.feature_dim + 1)
        picture, pose = torch.zeros(1, 3, 512, 512), torch.zeros(1, 6)
        calls = {
            "appearance": lambda: model.appearance(picture),
            "identity": lambda: model.identity(picture),
            "dynamics": lambda: model.dynamics(picture, pose),
            "warp_driving": lambda: model.warp_driving(torch.zeros(1, 512, 4, 4)),
            "unet": lambda: model.unet(torch.zeros(1, 96, 16, 64, 64)),
            "decoder": lambda: model.decoder(torch.zeros(1, 96 * 16, 64, 64), torch.zeros(1, 128)),
        }
        rows = table_of_vasa_1()
        assert rows.keys() == dict(model.named_children()).keys()
        for name, module in model.named_children():
            assert float(rows[name][2]) == pytest.approx(millions(module), abs=0.006), name
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                call()
            assert float(rows[name][4]) == pytest.approx(counter.get_total_flops() / 1e9, rel=0.01), name
    text = PAPER.read_text()
    assert f"{millions(model):.2f}" in text and f"{millions(denoiser):.2f}" in text


def test_arithmetic_of_vasa_mini_is_that_of_its_weights():
    face = checkpoint.load("vasa-mini").config.face
    with torch.device("meta"):
        model, pose = FaceModel(face).requires_grad_(False), torch.zeros(1, 6)
        with FlopCounterMode(display=False) as encoding:
            picture, person = torch.zeros(1, 3, face.image_size, face.image_size), torch.zeros(1, 1, 128, 128)
            latents = model.encode(picture, person=person)
        with FlopCounterMode(display=False) as decoding:
            model.decode(latents, pose, torch.zeros(1, face.dynamics_dim))
    encode, decode = (f"{counter.get_total_flops() / 1e9:.1f}" for counter in (encoding, decoding))
    card, paper, readme = (path.read_text() for path in (CARD, PAPER, README))
    assert f"{decode} GFLOP per frame, {encode} GFLOP once per portrait" in card
    assert f"(encode {encode} GFLOP, decode {decode})" in paper
    assert f"| {decode} GFLOP |" in readme
    volume = [face.volume_channels, face.volume_depth, face.volume_size, face.volume_size]
    assert "volume " + " × ".join(map(str, volume)) in card


def test_sizes_in_the_readme_are_those_of_the_code():
    for line in README.read_text().splitlines():
        name = line.split("|")[1].strip(" `") if line.startswith("| `") else ""
        if name not in CONFIGS:
            continue
        face, motion = (float(number) for number in re.findall(r"([\d.]+) M", line)[:2])
        config = CONFIGS[name]
        with torch.device("meta"):
            audio = AudioEncoder(config.audio)
            built = FaceModel(config.face), Denoiser(config.motion, config.motion_dim, audio.feature_dim)
        assert (face, motion) == pytest.approx(tuple(millions(m) for m in built), rel=0.07), name
