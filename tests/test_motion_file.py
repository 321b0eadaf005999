"""Motion on disk and on other shoulders: exact there and back, and one sentence for whatever is not a motion."""

import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vasa.cli import main
from vasa.errors import InputError
from vasa.geometry import NECK, rotation
from vasa.latents import DYNAMICS, Motion
from vasa.motion.place import GENERATOR_REST, place
from vasa.motion_file import load_motion, read_motion_file, save_motion

TINY = Path(__file__).parent / "data" / "tiny"
REST = torch.tensor([0.3, -0.1, 0.05, 0.1, -0.05, -0.4])


def some_motion(frames=8, rest=REST, seed=0) -> Motion:
    draw = torch.Generator().manual_seed(seed)
    pose = 0.1 * torch.randn(frames, 6, generator=draw) + (0 if rest is None else rest)
    return Motion(pose, torch.rand(frames, len(DYNAMICS), generator=draw), 25.0, "vasa", rest)


@pytest.mark.parametrize("rest", [REST, None], ids=["relative", "absolute"])
def test_there_and_back_is_exact(tmp_path, rest):
    motion = some_motion(rest=rest)
    save_motion(tmp_path / "m.safetensors", motion, names=DYNAMICS, model="tiny", seed=3, controls={"gaze": [1, 2]})
    file = read_motion_file(tmp_path / "m.safetensors", backend="vasa")
    assert torch.equal(file.motion.vectors, motion.vectors)
    assert (file.motion.fps, file.motion.backend) == (25.0, "vasa")
    assert file.motion.rest is None if rest is None else torch.equal(file.motion.rest, rest)
    assert file.names == DYNAMICS and file.model == "tiny"
    assert file.info == {"seed": 3, "controls": {"gaze": [1, 2]}}
    assert torch.equal(load_motion(tmp_path / "m.safetensors").vectors, motion.vectors)


def test_the_same_motion_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_motion(tmp_path / f"{name}.safetensors", some_motion(), model="x", seed=1, note="n")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def written(path: Path, tensors=None, **header) -> Path:
    """A motion file made by somebody else."""
    motion = some_motion()
    tensors = tensors or {"head_pose": motion.head_pose, "facial_dynamics": motion.facial_dynamics}
    about = {"format": "vasa-motion/1", "backend": "vasa", "model": "", "fps": 25.0, "names": [], "info": {}} | header
    save_file(tensors, path, metadata={"motion": json.dumps(about)})
    return path


def damaged(path: Path, kind: str) -> Path:
    pose, dynamics = torch.zeros(4, 6), torch.zeros(4, 59)
    spoilt = dynamics.clone()
    spoilt[2, 5] = torch.nan
    good = written(path).read_bytes()
    match kind:
        case "missing":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(3000))
        case "cut off":
            path.write_bytes(good[: len(good) // 2])
        case "header":
            path.write_bytes(good[:20] + b"\xff\xff" + good[22:])
        case "deep":
            text = b"[" * 200_000
            path.write_bytes(len(text).to_bytes(8, "little") + text)
        case "pickle":
            torch.save({"head_pose": pose}, path)
        case "nan":
            written(path, {"head_pose": pose, "facial_dynamics": spoilt})
        case "far":
            written(path, {"head_pose": pose + 5, "facial_dynamics": dynamics})
        case "channels":
            written(path, {"head_pose": torch.zeros(4, 7), "facial_dynamics": dynamics})
        case "frames":
            written(path, {"head_pose": pose, "facial_dynamics": dynamics[:3]})
        case "half":
            written(path, {"head_pose": pose.half(), "facial_dynamics": dynamics.half()})
        case "lacking":
            written(path, {"head_pose": pose})
        case "other file":
            save_file({"weight": pose}, path)
        case "version":
            written(path, format="vasa-motion/9")
        case "rate":
            written(path, fps=float("nan"))
        case "names":
            written(path, names=["jawOpen"] * 60)
        case "types":
            written(path, names="jawOpen")
        case "backend":
            written(path, backend="other")
    return path


FAULTS = {
    "missing": "does not exist", "folder": "is a folder", "empty": "is empty", "noise": "damaged or cut off",
    "cut off": "damaged or cut off", "header": "damaged or cut off", "deep": "damaged or cut off",
    "pickle": "is a pickle file", "nan": "facial_dynamics from frame 2", "far": "outside of any picture",
    "channels": r"head_pose \[4, 7\]", "frames": r"facial_dynamics \[3, 59\]", "half": "float32",
    "lacking": "lacks", "other file": "not a motion", "version": "vasa-motion/9", "rate": "frames per second",
    "names": "names 60", "types": "header", "backend": "backend 'other'",
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_not_a_motion_is_named(tmp_path, kind):
    with pytest.raises(InputError, match=FAULTS[kind]):
        read_motion_file(damaged(tmp_path / "m.safetensors", kind), backend="vasa")


def test_a_pickle_is_not_opened_whatever_its_name(tmp_path):
    (tmp_path / "m.pt").write_bytes(written(tmp_path / "m.safetensors").read_bytes())
    with pytest.raises(InputError, match="pickle"):
        read_motion_file(tmp_path / "m.pt")


def test_a_header_of_any_length_is_no_pickle(tmp_path):
    """The first bytes of a safetensors file are a length, which may look like the start of a pickle."""
    firsts = set()
    for length in range(0, 300, 8):
        save_motion(tmp_path / "m.safetensors", some_motion(2), note="x" * length)
        firsts.add((tmp_path / "m.safetensors").read_bytes()[0])
        load_motion(tmp_path / "m.safetensors")
    assert 0x80 in firsts


def test_notes_in_a_file_cannot_pass_for_arguments(tmp_path):
    path = written(tmp_path / "m.safetensors", info={"path": "x", "motion": 1, "seed": 2})
    file = read_motion_file(path)
    save_motion(tmp_path / "n.safetensors", file.motion, **file.info)
    assert file.info == {"seed": 2}


def test_a_broken_motion_is_not_written_and_an_earlier_file_stays(tmp_path):
    path = tmp_path / "m.safetensors"
    save_motion(path, some_motion())
    earlier = path.read_bytes()
    motion = some_motion()
    motion.head_pose[3, 1] = torch.inf
    with pytest.raises(InputError, match="head_pose from frame 3"):
        save_motion(path, motion)
    with pytest.raises(InputError, match="must end in .safetensors"):
        save_motion(tmp_path / "m.pt", some_motion())
    assert path.read_bytes() == earlier and list(tmp_path.iterdir()) == [path]


# --- on other shoulders


def neck_of(pose):
    neck = torch.tensor(NECK)
    return pose[..., 5:].exp() * (rotation(pose[..., :3]) @ neck)[..., :2] + pose[..., 3:5]


def test_placing_is_about_the_rest_alone():
    """The way over a third portrait makes no difference, and the way back leads back."""
    motion, other = some_motion(), torch.tensor([-0.2, 0.1, -0.1, -0.2, 0.1, -0.2])
    third = torch.tensor(GENERATOR_REST)
    direct, detour = place(motion, other), place(place(motion, third), other)
    assert torch.allclose(direct.head_pose, detour.head_pose, atol=1e-5)
    assert torch.allclose(place(direct, REST).head_pose, motion.head_pose, atol=1e-5)
    assert torch.equal(direct.rest, other) and torch.equal(direct.facial_dynamics, motion.facial_dynamics)


def test_the_neck_sways_about_the_portraits_own_neck():
    motion, other = some_motion(), torch.tensor([-0.2, 0.1, -0.1, -0.2, 0.1, -0.2])
    moved = place(motion, other)
    sway = (neck_of(motion.head_pose) - neck_of(REST)) * (other[5] - REST[5]).exp()
    assert torch.allclose(neck_of(moved.head_pose) - neck_of(other), sway, atol=1e-5)
    assert torch.allclose(moved.head_pose[:, :3] - other[:3], motion.head_pose[:, :3] - REST[:3], atol=1e-6)
    still = place(Motion(REST.repeat(2, 1), torch.zeros(2, 59), rest=REST), other)
    assert torch.allclose(still.head_pose, other.expand(2, 6), atol=1e-6)


def test_placing_in_place_and_absolute_motion_change_no_bit():
    motion = some_motion()
    assert torch.equal(place(motion, REST.clone()).vectors, motion.vectors)
    absolute = some_motion(rest=None)
    assert torch.equal(place(absolute, REST).vectors, absolute.vectors)


def test_eyes_keep_their_aim_where_their_channels_are_known():
    yaw = DYNAMICS.index("eyeYaw")
    motion = Motion(REST.repeat(2, 1), torch.zeros(2, 59), rest=REST)
    turned = replace(motion, rest=REST)
    target = REST + torch.tensor([0.2, 0, 0, 0, 0, 0])
    assert place(turned, target, DYNAMICS).facial_dynamics[0, yaw] == pytest.approx(-0.2, abs=1e-5)
    assert place(turned, target).facial_dynamics[0, yaw] == 0


def test_a_rest_has_six_numbers():
    with pytest.raises(ValueError, match="rest"):
        Motion(torch.zeros(2, 6), torch.zeros(2, 59), rest=torch.zeros(2, 6))


# --- the command line


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Two portraits, half a second of speech, and what `vasa animate` made of the first."""
    folder = tmp_path_factory.mktemp("motion")
    for seed, name in enumerate(("a.png", "b.png")):
        blocks = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(folder / name)
    samples = 0.4 * np.sin(np.arange(8000) / 16000 * 2 * np.pi * 180)
    with wave.open(str(folder / "s.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    made = run(folder, "animate", "a.png", "s.wav", "-o", "a.mp4", "--save-motion", "m.safetensors",
               "--steps", "2", "--seed", "5", "--crop", "none", "--model", TINY)  # fmt: skip
    assert made == 0
    return folder


def run(folder: Path, *arguments) -> int:
    """Run a command; names with an ending are files of the folder."""
    return main(
        [str(folder / a) if isinstance(a, str) and "." in a[-12:] and "/" not in a else str(a) for a in arguments]
    )


def test_rendering_a_saved_motion_on_its_portrait_repeats_the_pictures(files):
    from vasa.io.video import read_video

    assert run(files, "render", "a.png", "m.safetensors", "--audio", "s.wav", "-o", "r.mp4", "--crop", "none",
               "--model", TINY) == 0  # fmt: skip
    first, again = (torch.stack(list(read_video(files / name).frames)) for name in ("a.mp4", "r.mp4"))
    assert torch.equal(first, again)


def test_a_motion_file_tells_where_it_comes_from(files, capsys):
    assert run(files, "motion", "info", "m.safetensors") == 0
    said = capsys.readouterr().out
    assert "13 frames" in said and "model tiny" in said and "seed: 5" in said and "rest pose" in said


def test_a_motion_moves_another_portrait_about_its_own_pose(files):
    from vasa import Vasa
    from vasa.animate import render
    from vasa.io.video import read_manifest

    pipe = Vasa.from_pretrained(TINY, device="cpu", precision="fp32")
    result = render(files / "b.png", files / "m.safetensors", files / "b.mp4", model=pipe, crop="none", fps=12.5)
    manifest = read_manifest(files / "b.mp4")
    assert (result.frames, manifest["frames"], manifest["motion"]["seed"]) == (7, 7, 5)


def test_motion_of_another_model_is_refused(files, capsys):
    save_motion(files / "wide.safetensors", Motion(torch.zeros(3, 6), torch.zeros(3, 128)))
    save_motion(files / "other.safetensors", Motion(torch.zeros(3, 6), torch.zeros(3, 59), backend="other"))
    for name, words in (("wide", "128 dynamics channels"), ("other", "backend 'other'")):
        capsys.readouterr()
        assert (
            run(files, "render", "a.png", f"{name}.safetensors", "-o", "x.mp4", "--crop", "none", "--model", TINY) == 2
        )
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and not (files / "x.mp4").exists()
