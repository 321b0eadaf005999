"""Controls on the command line: a file, flags over it, the metadata, and a video made again."""

import json
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vasa.cli import main
from vasa.controls import Blink, Controls, HeadPose
from vasa.errors import InputError
from vasa.io.video import VideoWriter, read_manifest, read_video
from vasa.motion_file import load_motion
from vasa.repeat import recipe_of

TINY = Path(__file__).parent / "data" / "tiny"


@pytest.fixture
def portrait(tmp_path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.fixture
def speech(tmp_path) -> Path:
    samples = 0.4 * np.sin(np.arange(8000) / 16000 * 2 * np.pi * 180)
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return tmp_path / "s.wav"


def frames(path: Path) -> torch.Tensor:
    return torch.stack([torch.as_tensor(frame) for frame in read_video(path).frames])


CONTROLS = {
    "gaze": {"keys": [{"time": 0, "value": [12.3, -4.5]}, {"time": 0.3, "value": [-7, 1]}]},
    "head_pose": {"offset": [8, 3, 2], "amplitude": 0.5},
    "blink": {"rate": 20, "at": [0.2]},
    "mouth": 1.7,
    "steps": 2,
    "seed": 9,
}


def test_a_video_is_made_again_like_an_earlier_one(portrait, speech, tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps(CONTROLS))
    first, again, other = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4"))
    usual = ["animate", str(portrait), str(speech), "--device", "cpu", "--model", str(TINY)]
    given = ["--controls", str(tmp_path / "c.json"), "--crop", "10,12,120", "--fps", "20"]
    assert main([*usual, *given, "-o", str(first)]) == 0
    manifest = read_manifest(first)
    assert Controls.from_json(manifest["controls"]) == Controls.from_json(CONTROLS)
    assert main([*usual, "--like", str(first), "-o", str(again)]) == 0
    assert torch.equal(frames(first), frames(again)) and len(frames(again)) == 10
    assert read_manifest(again)["controls"] == manifest["controls"]
    assert main([*usual, "--like", str(first), "--seed", "10", "--crop", "none", "-o", str(other)]) == 0
    changed = recipe_of(other)
    assert changed.controls.seed == 10 and changed.crop == "none" and changed.fps == 20
    assert changed.controls.gaze == Controls.from_json(CONTROLS).gaze


def test_a_clip_goes_on_from_a_motion_file(portrait, speech, tmp_path, capsys):
    usual = ["animate", str(portrait), str(speech), "--device", "cpu", "--model", str(TINY), "--crop", "none"]
    usual += ["--steps", "2"]
    video, second, again = (str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4"))
    files = [str(tmp_path / f"{name}.safetensors") for name in "abc"]
    assert main([*usual, "-o", video, "--save-motion", files[0]]) == 0
    assert main([*usual, "-o", second, "--seed", "1", "--continue-motion", files[0], "--save-motion", files[1]]) == 0
    a, b = (load_motion(path) for path in files[:2])
    inside = torch.cat([a.head_pose.diff(dim=0), b.head_pose.diff(dim=0)]).abs().amax(0).clamp_min(1e-4)
    assert ((b.head_pose[0] - a.head_pose[-1]).abs() < 0.6 * inside).all()
    capsys.readouterr()
    assert main([*usual, "-o", again, "--like", second]) == 2
    assert "went on from a motion; name that one with --continue-motion" in capsys.readouterr().err
    like = ["--like", second, "--continue-motion", files[0], "--save-motion", files[2]]
    assert main([*usual, "-o", again, *like]) == 0
    assert torch.equal(load_motion(files[2]).vectors, b.vectors)
    assert main([*usual, "-o", again, "--continue-motion", str(portrait)]) == 2
    assert "motion" in capsys.readouterr().err


def asked(monkeypatch, *flags: str) -> dict:
    """What `vasa animate` is told."""
    import importlib

    told = {}

    def animate(*args, **kwargs):
        told.update(kwargs)
        raise InputError("enough")

    monkeypatch.setattr(importlib.import_module("vasa.animate"), "animate", animate)
    assert main(["animate", "p.png", "s.wav", *flags]) == 2
    return told


def test_flags_become_controls(monkeypatch):
    told = asked(
        monkeypatch, "--gaze", "10", "-5", "--distance", "1.2", "--emotion", "happy=0.5,sad=0.1", "--head-pose", "3",
        "-2", "1", "--head-motion", "0.5", "--blink-rate", "12", "--expression", "1.5", "--mouth", "0.8",
        "--steps", "7", "--guidance", "audio=1", "--sampler", "dpm++", "--seed", "3",
    )  # fmt: skip
    r = math.radians
    assert told["controls"] == Controls(
        gaze=(r(10), r(-5)), distance=1.2, emotion={"happy": 0.5, "sad": 0.1}, expression=1.5, mouth=0.8, steps=7,
        head_pose=HeadPose((r(3), r(-2), r(1)), 0.5), blink=Blink(12.0),
        guidance={"audio": 1.0}, sampler="dpm++", seed=3,
    )  # fmt: skip
    assert (told["model"], told["crop"], told["face"], told["fps"]) == ("vasa-mini", "auto", 0, None)
    assert asked(monkeypatch)["controls"] == Controls()


def test_flags_override_the_file(monkeypatch, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(CONTROLS))
    told = asked(
        monkeypatch, "--controls", str(tmp_path / "c.json"), "--head-motion", "2", "--blink-rate", "0", "--seed", "1"
    )["controls"]
    file = Controls.from_json(CONTROLS)
    assert told.head_pose == HeadPose(file.head_pose.offset, 2.0) and told.blink == Blink(0.0, (0.2,))
    assert told.seed == 1 and told.gaze == file.gaze and told.mouth == 1.7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"gaze": [40, 0]}', "yaw must be a number between -30 and 30"),
        ("", "not JSON"),
        ('{"x": 1}', "unknown key 'x'"),
    ],
)
def test_a_broken_file_is_one_sentence(text, said, tmp_path, capsys):
    (tmp_path / "c.json").write_text(text)
    assert main(["animate", "p.png", "s.wav", "--controls", str(tmp_path / "c.json")]) == 2
    error = capsys.readouterr().err
    assert said in error and "c.json" in error and error.count("\n") == 1


@pytest.mark.parametrize("manifest", [{}, {"controls": {"gaze": [0.1, 0]}}, {"controls": {"version": 1}, "fps": "x"}])
def test_a_video_without_a_recipe_is_refused(manifest, tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 64, 25.0, None, manifest) as writer:
        writer.write(torch.zeros(2, 3, 64, 64))
    with pytest.raises(InputError, match=r"v\.mp4"):
        recipe_of(tmp_path / "v.mp4")


def test_an_offset_out_of_range_is_refused(capsys):
    assert main(["animate", "p.png", "s.wav", "--head-pose", "0", "25", "0"]) == 2
    assert "head_pose.offset: pitch must be a number between -20 and 20" in capsys.readouterr().err
