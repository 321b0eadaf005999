"""Fault matrix as the command line sees it: one sentence, the right exit code, nothing half-written."""

import importlib
import os
import signal
import struct
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vasa.animate import animate, retime
from vasa.cli import main
from vasa.controls import Controls
from vasa.errors import InputError
from vasa.io.video import read_manifest, read_video
from vasa.latents import Motion

# The package exports the function under the module's name.
story = importlib.import_module("vasa.animate")
TINY = Path(__file__).parent / "data" / "tiny"
needs_tiny = pytest.mark.skipif(not TINY.is_dir(), reason="tests/data/tiny is not there yet")


@pytest.fixture
def portrait(tmp_path) -> Path:
    """A picture without a face: the tests that animate it use --crop none."""
    blocks = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.fixture
def speech(tmp_path) -> Path:
    return write_wav(tmp_path / "s.wav", 0.5)


def write_wav(path: Path, seconds: float, level: float = 0.4) -> Path:
    samples = level * np.sin(np.arange(round(16000 * seconds)) / 16000 * 2 * np.pi * 180)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def refused(capsys, arguments: list) -> str:
    """Run a command that must fail, and return its one sentence."""
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("vasa: ") and said.err.count("\n") == 1
    assert "Traceback" not in said.err and said.err.count("check the path") <= 1
    return said.err


@pytest.mark.parametrize(
    "option, words",
    [
        (["--distance", "0.4"], "between 0.5 and 2"),
        (["--distance", "nan"], "between 0.5 and 2"),
        (["--gaze", "31", "0"], "between -30 and 30"),
        (["--gaze", "3"], "expected 2 arguments"),
        (["--gaze", "left", "0"], "'left'"),
        (["--steps", "0"], "between 1 and 1000"),
        (["--steps", "1000000000"], "between 1 and 1000"),
        (["--steps", "2.5"], "whole number"),
        (["--guidance", "audio=6"], "between 0 and 5"),
        (["--guidance", "volume=1"], "audio, gaze"),
        (["--guidance", "audio"], "NAME=VALUE"),
        (["--emotion", "happy=2"], "between 0 and 1"),
        (["--emotion", "bored=0.5"], "neutral, happy"),
        (["--emotion", "happy=inf"], "between 0 and 1"),
        (["--fps", "0"], "between 1 and 60"),
        (["--fps", "1e9"], "between 1 and 60"),
        (["--seed", "-1"], "between 0"),
        (["--crop", "face"], "auto, none or X,Y,SIZE"),
        (["--crop", "1,2"], "auto, none or X,Y,SIZE"),
        (["--crop", "1,2,nan"], "auto, none or X,Y,SIZE"),
        (["--face", "-1"], "between 0"),
        (["--device", "tpu"], "invalid choice"),
        (["--precision", "int1"], "invalid choice"),
        (["--colour", "1"], "--colour"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, list) else None,
)
def test_options_out_of_range(capsys, portrait, speech, tmp_path, option, words):
    out = tmp_path / "out.mp4"
    assert words in refused(capsys, ["animate", portrait, speech, "-o", out, *option])
    assert not out.exists()


@pytest.mark.parametrize("arguments", [[], ["fly"], ["animate"], ["train"], ["synth", "paint"], ["train", "face"]])
def test_incomplete_commands(capsys, arguments):
    assert "--help" in refused(capsys, arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["animate", "--help"], ["train", "motion", "--help"]])
def test_help(capsys, arguments):
    assert main(arguments) == 0
    assert "usage: vasa" in capsys.readouterr().out


def test_bad_files_are_named_before_the_model_is_looked_for(capsys, portrait, speech, tmp_path):
    out = tmp_path / "out.mp4"
    empty, text, mute = tmp_path / "e.png", tmp_path / "t.png", write_wav(tmp_path / "short.wav", 0.1)
    empty.touch()
    text.write_text("no picture")
    for picture, sound, words in [
        (tmp_path / "absent.png", speech, "absent.png does not exist"),
        (empty, speech, "e.png is empty"),
        (text, speech, "t.png is not a readable image"),
        (tmp_path, speech, "is a folder"),
        (portrait, tmp_path / "absent.wav", "absent.wav does not exist"),
        (portrait, text, "t.png is not a readable audio"),
        (portrait, mute, "at least 0.2 s"),
        (portrait, "http://localhost/s.wav", "local file"),
        (portrait, "nul\0.wav", "speech"),
        ("x" * 300 + ".png", speech, "portrait"),
    ]:
        command = ["animate", picture, sound, "-o", out, "--model", tmp_path / "no model"]
        assert words in refused(capsys, command)
    assert not out.exists()


def test_outputs_that_cannot_be_written(capsys, portrait, speech, tmp_path):
    for out, words in [(tmp_path / "absent" / "out.mp4", "does not exist"), (tmp_path / "out.gif", ".mp4")]:
        assert words in refused(capsys, ["animate", portrait, speech, "-o", out])


def test_missing_weights_name_the_place_and_the_way(capsys, portrait, speech, tmp_path):
    said = refused(capsys, ["animate", portrait, speech, "-o", tmp_path / "o.mp4", "--model", tmp_path / "absent"])
    assert "absent" in said and "vasa train" in said
    (tmp_path / "hollow").mkdir()
    said = refused(capsys, ["animate", portrait, speech, "-o", tmp_path / "o.mp4", "--model", tmp_path / "hollow"])
    assert "face.safetensors" in said and "vasa train" in said


@pytest.mark.parametrize("name", ["weights.pt", "weights.pkl", "weights.ckpt"])
def test_pickles_are_refused_unopened(capsys, portrait, speech, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
    said = refused(capsys, ["animate", portrait, speech, "-o", tmp_path / "o.mp4", "--model", tmp_path / name])
    assert "pickle" in said and "safetensors" in said


HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**6) + b"{}",
        struct.pack("<Q", len(HEADER)) + HEADER,
        struct.pack("<Q", len(HEADER)) + HEADER + bytes(9),
        struct.pack("<Q", len(HEADER)) + HEADER.replace(b"[0,4]", b"[4,0]") + bytes(4),
        struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
        b"PK\3\4" + bytes(200),
    ],
    ids=["empty", "stub", "2^63", "beyond", "truncated", "trailing", "overlap", "foreign", "zip"],
)
def test_damaged_weights_are_named(capsys, portrait, speech, tmp_path, content):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "face.safetensors").write_bytes(content)
    said = refused(capsys, ["animate", portrait, speech, "-o", tmp_path / "o.mp4", "--model", tmp_path / "model"])
    assert "face.safetensors" in said


def test_debug_shows_the_traceback(monkeypatch, portrait, speech, tmp_path):
    monkeypatch.setenv("VASA_DEBUG", "1")
    with pytest.raises(InputError):
        main(["animate", str(portrait), str(tmp_path / "absent.wav"), "-o", str(tmp_path / "o.mp4")])


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "x.bin"), PermissionError(13, "No", "y")])
def test_errors_of_the_system_are_one_sentence(capsys, monkeypatch, portrait, speech, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(story, "animate", fail)
    assert str(error.filename) in refused(capsys, ["animate", portrait, speech])


class FakeVasa:
    """Frames that brighten with time; stands in where only the story around the model matters."""

    size, fps = 32, 25.0

    def read_pose(self, picture):
        return torch.tensor([0, 0, 0, 0, 0, -0.288])

    def encode(self, picture):
        assert picture.shape == (3, 32, 32)
        return picture

    def generate(self, waveform, face, controls, previous=None, progress=None):
        total = -(-len(waveform) * 25 // 16000)
        for step in range(controls.steps):
            if progress is not None:
                progress(step + 1, controls.steps)
        return Motion(torch.linspace(0, 1, total)[:, None].repeat(1, 6), torch.zeros(total, 3))

    def decode(self, face, motion, *, batch_size=8, finish=None):
        for pose in motion.head_pose.split(batch_size):
            pictures = pose[:, :1, None, None].expand(-1, 3, 32, 32)
            yield pictures if finish is None else finish(pictures)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(story, "Vasa", FakeVasa)
    monkeypatch.setattr(FakeVasa, "from_pretrained", classmethod(lambda cls, *a, **k: cls()), raising=False)


def test_story_from_files_to_file(capsys, fake, portrait, speech, tmp_path):
    out = tmp_path / "out.mp4"
    command = [
        "animate",
        portrait,
        speech,
        "-o",
        out,
        "--crop",
        "none",
        "--seed",
        "7",
        "--emotion",
        "happy=0.5",
        "--emotion",
        "surprised=0.2",
        "--guidance",
        "audio=2",
        "--gaze",
        "-10",
        "5",
        "--steps",
        "3",
    ]
    assert main([str(part) for part in command]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert str(out) in said and "13 frames" in said and "FPS" in said and "seed 7" in said
    video = read_video(out)
    brightness = [frame.mean().item() for frame in video.frames]
    assert len(brightness) == 13 and brightness == sorted(brightness)
    assert video.audio.waveform[:7000].abs().max() > 0.2
    manifest = read_manifest(out)
    assert manifest["controls"]["seed"] == 7 and manifest["controls"]["steps"] == 3
    assert manifest["controls"]["emotion"] == {"happy": 0.5, "surprised": 0.2}
    assert manifest["controls"]["guidance"] == {"audio": 2.0}
    assert manifest["controls"]["gaze"] == [-10.0, 5.0]
    assert manifest["digital_source_type"] == "trainedAlgorithmicMedia"
    assert str(tmp_path) not in str(manifest)


@pytest.mark.parametrize("fps, frames", [("12.5", 7), ("29.97", 15), ("60", 30)])
def test_other_frame_rates(fake, portrait, speech, tmp_path, fps, frames):
    out = tmp_path / "out.mp4"
    assert main(["animate", str(portrait), str(speech), "-o", str(out), "--crop", "none", "--fps", fps]) == 0
    video = read_video(out)
    assert len(list(video.frames)) == frames and video.fps == pytest.approx(float(fps), abs=0.01)


def test_notices_go_to_stderr(capsys, fake, portrait, tmp_path):
    silent = write_wav(tmp_path / "silent.wav", 0.5, level=0.0)
    assert main(["animate", str(portrait), str(silent), "-o", str(tmp_path / "o.mp4"), "--crop", "none"]) == 0
    said = capsys.readouterr()
    assert "silent" in said.err and "silent" not in said.out.replace("silent.wav", "")


def test_no_face_offers_the_crop(capsys, fake, portrait, speech, tmp_path):
    said = refused(capsys, ["animate", portrait, speech, "-o", tmp_path / "o.mp4"])
    assert "--crop X,Y,SIZE" in said


@pytest.mark.parametrize("stage", ["motion", "frames"])
def test_interruption_leaves_the_earlier_output(fake, portrait, speech, tmp_path, stage):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"earlier")

    def progress(now, done, total):
        if now == stage:
            raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        animate(portrait, speech, out, crop="none", progress=progress)
    assert out.read_bytes() == b"earlier" and set(tmp_path.iterdir()) == before


def test_interruption_is_exit_code_130(capsys, monkeypatch, portrait, speech):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(story, "animate", interrupted)
    assert main(["animate", str(portrait), str(speech)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_seed_and_steps_override_the_controls(fake, portrait, speech, tmp_path):
    controls = Controls(seed=5, steps=4)
    kept = animate(portrait, speech, tmp_path / "a.mp4", crop="none", controls=controls)
    overridden = animate(portrait, speech, tmp_path / "a.mp4", crop="none", controls=controls, seed=6, steps=2)
    assert (kept.seed, overridden.seed) == (5, 6)
    assert read_manifest(tmp_path / "a.mp4")["controls"]["steps"] == 2


def test_retime_keeps_the_course_of_motion():
    motion = Motion(torch.linspace(0, 1, 26)[:, None].repeat(1, 6), torch.zeros(26, 3))
    assert torch.equal(retime(motion, 25.0, 26).vectors, motion.vectors)
    doubled = retime(motion, 50.0, 60)
    assert len(doubled) == 60 and doubled.fps == 50.0
    assert doubled.head_pose[:51, 0].tolist() == pytest.approx(torch.linspace(0, 1, 51).tolist(), abs=1e-6)
    assert (doubled.head_pose[51:, 0] == 1).all()


def test_doctor_reports(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for subject in ("device", "torch", "kernel", "face detector", "weights", "free disk"):
        assert subject in said


@needs_tiny
def test_same_seed_same_video(capsys, portrait, speech, tmp_path):
    files = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        out = tmp_path / f"{name}.mp4"
        command = [
            "animate",
            portrait,
            speech,
            "-o",
            out,
            "--crop",
            "none",
            "--model",
            TINY,
            "--steps",
            "2",
            "--seed",
            seed,
            "--device",
            "cpu",
        ]
        assert main([str(part) for part in command]) == 0
        files.append(torch.stack(list(read_video(out).frames)))
    assert files[0].shape[0] == 13
    assert torch.equal(files[0], files[1]) and not torch.equal(files[0], files[2])


@needs_tiny
@pytest.mark.parametrize("word", ["missing", "NaN", "version"])
def test_weights_that_do_not_fit(capsys, portrait, speech, tmp_path, word):
    from safetensors import safe_open
    from safetensors.torch import save_file

    model = tmp_path / "model"
    model.mkdir()
    for path in TINY.glob("*.safetensors"):
        (model / path.name).write_bytes(path.read_bytes())
    with safe_open(TINY / "face.safetensors", framework="pt") as file:
        state, header = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())
    first = next(name for name, value in state.items() if value.is_floating_point())
    if word == "missing":
        del state[first]
    elif word == "NaN":
        state[first] = torch.full_like(state[first], torch.nan)
    else:
        header["format"] = "vasa/0"
    save_file(state, model / "face.safetensors", metadata=header)
    said = refused(capsys, ["animate", portrait, speech, "-o", tmp_path / "o.mp4", "--crop", "none", "--model", model])
    assert "face.safetensors" in said and (first in said or "vasa/0" in said)


@needs_tiny
@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_ctrl_c_in_a_real_process(portrait, tmp_path):
    speech = write_wav(tmp_path / "long.wav", 120.0)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"earlier")
    command = [
        sys.executable,
        "-m",
        "vasa",
        "animate",
        portrait,
        speech,
        "-o",
        out,
        "--crop",
        "none",
        "--model",
        TINY,
        "--steps",
        "2",
    ]
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=Path(__file__).parents[1],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a parent in the background may have left the signal ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(1800):
        if (tmp_path / ".out.partial.mp4").exists() or child.poll() is not None:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    said, complaint = child.communicate(timeout=60)
    assert child.returncode == 130 and complaint.strip().endswith("vasa: interrupted; nothing was written")
    assert "Traceback" not in complaint
    assert out.read_bytes() == b"earlier" and not (tmp_path / ".out.partial.mp4").exists()
