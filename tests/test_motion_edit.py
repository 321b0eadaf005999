"""Cutting, joining and redrawing motion: what is kept is kept bit by bit, and no joint is seen."""

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vasa import Vasa
from vasa.cli import main
from vasa.controls import Controls
from vasa.errors import InputError
from vasa.io.audio import load_audio
from vasa.latents import DYNAMICS, Motion
from vasa.motion.curves import arkit_name, curves_table
from vasa.motion.edit import cut, loop, retime, smooth_pose, splice, swap, there_and_back
from vasa.motion.inpaint import bridge, close_loop, regenerate
from vasa.motion.place import GENERATOR_REST, place
from vasa.motion_file import load_motion, save_motion

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
REST = torch.tensor([0.2, -0.1, 0.05, 0.1, -0.05, -0.4])


def wave(frames=100, rest=REST, phase=0.0, fps=25.0) -> Motion:
    """A head that sways and a face that moves, smooth everywhere."""
    t = (torch.arange(frames) / fps)[:, None]
    pose = 0.1 * torch.sin(2 * t + phase + torch.arange(6)) + (0 if rest is None else rest)
    face = 0.5 + 0.4 * torch.sin(5 * t + phase + torch.arange(59))
    return Motion(pose, face, fps, "vasa", rest)


def steps(motion: Motion) -> torch.Tensor:
    return (motion.vectors[1:] - motion.vectors[:-1]).abs()


# --- cutting and joining


def test_a_splice_keeps_what_lies_outside_the_overlap():
    a, b = wave(80), wave(60, phase=2.0)
    joined = splice(a, b, overlap=25)
    assert len(joined) == 115
    assert torch.equal(joined.vectors[:55], a.vectors[:55]) and torch.equal(joined.vectors[80:], b.vectors[25:])
    assert torch.equal(splice(a, b, 0).vectors, torch.cat([a.vectors, b.vectors]))


def test_a_splice_hands_over_without_a_jump():
    a, b = wave(80), wave(60, phase=2.0)
    own = torch.maximum(steps(a).amax(0), steps(b).amax(0))
    cut_hard = steps(splice(a, b, 0)).amax(0)
    soft = steps(splice(a, b, 25)).amax(0)
    pose, face = slice(0, 6), slice(6, None)
    assert (cut_hard > 2 * own).any()
    # a fade over n frames of motions d apart adds at most d pi / 2n to a step
    assert (soft[pose] <= own[pose] + 0.2 * torch.pi / 50 + 1e-6).all()
    assert (soft[face] <= own[face] + 0.8 * torch.pi / 20 + 1e-6).all()


def test_a_hand_over_is_about_movement_not_about_two_portraits():
    a = wave(40)
    elsewhere = place(wave(40), torch.tensor([-0.3, 0.1, 0.0, -0.2, 0.1, -0.2]))
    assert torch.allclose(splice(a, elsewhere, 10).vectors, splice(a, wave(40), 10).vectors, atol=1e-5)


def test_rates_are_brought_together():
    joined = splice(wave(50), wave(100, fps=50.0), 0)
    assert joined.fps == 25 and len(joined) == 100


@pytest.mark.parametrize(
    "second, overlap, words",
    [
        (wave(20), 25, "overlap of 25"),
        (wave(50, rest=None), 5, "absolute"),
        (Motion(torch.zeros(50, 6), torch.zeros(50, 128), rest=REST), 5, "128"),
        (Motion(torch.zeros(50, 6), torch.zeros(50, 59), backend="other", rest=REST), 5, "'other'"),
    ],
    ids=["long", "absolute", "channels", "backend"],
)
def test_motions_that_cannot_be_joined_are_refused(second, overlap, words):
    with pytest.raises(InputError, match=words):
        splice(wave(50), second, overlap)


def test_a_loop_has_no_seam():
    motion = wave(100)
    twice = loop(motion, overlap=25, times=2)
    assert len(twice) == 150 and torch.equal(twice.vectors[:75], twice.vectors[75:])
    assert torch.equal(twice.vectors[25:75], motion.vectors[25:75])
    seam = (twice.vectors[75] - twice.vectors[74]).abs()
    assert (seam <= 1.2 * steps(motion).amax(0) + 1e-6).all()
    hard = (motion.vectors[0] - motion.vectors[-1]).abs()
    assert (hard > 3 * steps(motion).amax(0)).any(), "this motion would have jumped"
    with pytest.raises(InputError, match="at least 50 frames"):
        loop(wave(40), 25)


def test_retiming_keeps_the_course():
    motion = wave(100)
    slow = retime(motion, speed=0.5)
    assert len(slow) == 200 and slow.fps == 25 and torch.allclose(slow.vectors[::2], motion.vectors)
    fast = retime(motion, speed=2.0)
    assert len(fast) == 50 and torch.equal(fast.vectors, motion.vectors[::2])
    fine = retime(motion, 50.0)
    assert len(fine) == 200 and fine.fps == 50 and torch.equal(fine.rest, REST)
    with pytest.raises(InputError, match="speed"):
        retime(motion, speed=0.0)


def test_smoothing_calms_the_head_and_leaves_the_face():
    motion = wave(100)
    trembling = Motion(
        motion.head_pose + 0.01 * torch.randn(100, 6, generator=torch.Generator().manual_seed(0)),
        motion.facial_dynamics, rest=REST,
    )  # fmt: skip
    calm = smooth_pose(trembling, 0.12)
    assert torch.equal(calm.facial_dynamics, motion.facial_dynamics)
    assert (calm.head_pose - motion.head_pose).std() < 0.5 * (trembling.head_pose - motion.head_pose).std()
    assert torch.equal(smooth_pose(motion, 0.0).head_pose, motion.head_pose)


def test_pose_and_dynamics_can_be_exchanged():
    pose, face = wave(100), wave(60, phase=1.0)
    both = swap(pose, face)
    assert len(both) == 60
    assert torch.equal(both.head_pose, pose.head_pose[:60])
    assert torch.equal(both.facial_dynamics, face.facial_dynamics)
    still = swap(cut(pose, 7, 8), face)
    assert torch.equal(still.head_pose, pose.head_pose[7:8].expand(60, 6))


def test_a_short_head_track_goes_there_and_back():
    turned = there_and_back(wave(4), 9).head_pose[:, 0]
    course = wave(4).head_pose[:, 0]
    assert torch.equal(turned, course[[0, 1, 2, 3, 2, 1, 0, 1, 2]])


def test_frames_outside_of_the_motion_are_refused():
    with pytest.raises(InputError, match=r"0\.\.100"):
        cut(wave(100), 90, 120)


# --- curves


def test_curves_have_arkit_names_and_degrees():
    columns, rows = curves_table(wave(10), DYNAMICS)
    assert columns[:4] == ["time", "headYaw", "headPitch", "headRoll"] and len(rows) == 10
    assert {"jawOpen", "mouthSmileLeft", "eyeBlinkRight", "browInnerUp", "leftEyeYaw"} <= set(columns)
    assert not [name for name in columns if name.endswith(("_L", "_R"))] and len(set(columns)) == len(columns)
    motion = wave(10)
    row = dict(zip(columns, rows[3], strict=True))
    assert row["time"] == pytest.approx(0.12)
    assert row["headYaw"] == pytest.approx(float((motion.head_pose[3, 0] - REST[0]).rad2deg()), abs=1e-4)
    both = motion.facial_dynamics[3, [DYNAMICS.index(f"browInnerUp_{s}") for s in "LR"]]
    assert row["browInnerUp"] == pytest.approx(float(both.mean()), abs=1e-5)
    assert arkit_name("eyeLookIn_R") == "eyeLookInRight"


def test_channels_without_names_are_numbered():
    assert curves_table(wave(2))[0][-1] == "dynamics58"


# --- redrawing


@pytest.fixture(scope="module")
def models():
    loaded = Vasa.from_pretrained(TINY, device="cpu", precision="fp32").models
    return loaded.motion, loaded.audio


@pytest.fixture(scope="module")
def motion(models):
    """What the model itself draws for three seconds of silence, on a portrait's shoulders."""
    empty = Motion(torch.tensor(GENERATOR_REST).repeat(120, 1), torch.zeros(120, 59), rest=torch.tensor(GENERATOR_REST))
    return place(regenerate(*models, empty, 0, 120, controls=Controls(steps=3, seed=9)), REST)


@pytest.mark.parametrize("start, stop", [(60, 90), (60, 61), (30, 110), (0, 20), (100, 120), (4, 9), (0, 120)])
def test_redrawn_frames_leave_both_sides_as_they_are(models, motion, start, stop):
    new = regenerate(*models, motion, start, stop, controls=Controls(steps=3, seed=1))
    assert len(new) == len(motion) and torch.equal(new.rest, REST)
    assert torch.equal(new.vectors[:start], motion.vectors[:start])
    assert torch.equal(new.vectors[stop:], motion.vectors[stop:])
    assert not torch.equal(new.vectors[start:stop], motion.vectors[start:stop])


def test_the_same_seed_draws_the_same_take_and_speech_is_heard(models, motion):
    def take(seed, waveform=None):
        return regenerate(*models, motion, 50, 80, waveform, Controls(steps=3, seed=seed)).vectors

    noise = 0.3 * torch.randn(16000 * 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(take(2), take(2)) and not torch.equal(take(2), take(3))
    assert not torch.equal(take(2), take(2, noise))


def test_a_bridge_leads_from_one_motion_to_the_other(models, motion):
    first, second = motion[:40], place(motion[70:], torch.tensor(GENERATOR_REST))
    joined = bridge(*models, first, second, 15, controls=Controls(steps=3))
    assert len(joined) == 40 + 15 + 50 and torch.equal(joined.vectors[:40], first.vectors)
    assert torch.allclose(joined.vectors[55:], motion.vectors[70:], atol=1e-5)


@pytest.mark.parametrize("length", [100, 12])
def test_a_drawn_loop_closes(models, motion, length):
    whole = motion[:length]
    closed = close_loop(*models, whole, 20, controls=Controls(steps=3))
    assert len(closed) == length + 20 and torch.equal(closed.vectors[:length], whole.vectors)


# A trained model makes steps of a size that means something; random weights jump as they please.

GROUPS = [slice(0, 3), slice(3, 5), slice(5, 6), slice(6, None)]
"""Turns, place, size, face."""
QUICK = Controls(steps=4, seed=1)


@pytest.fixture(scope="module")
def trained():
    loaded = Vasa.from_pretrained("vasa-mini", device="cpu", precision="fp32").models
    return loaded.motion, loaded.audio


@pytest.fixture(scope="module")
def talk(trained):
    """Four seconds of talking, drawn by the model that ships."""
    waveform = load_audio(ROOT / "examples" / "speech.wav").waveform[: 4 * 16000]
    still = Motion(torch.tensor(GENERATOR_REST).repeat(100, 1), torch.zeros(100, 59), rest=torch.tensor(GENERATOR_REST))
    return waveform, place(regenerate(*trained, still, 0, 100, waveform, QUICK), REST)


def joints(motion: Motion, *places: int) -> torch.Tensor:
    """Largest step into any of these frames, per kind."""
    vectors = torch.stack([motion.vectors[i] - motion.vectors[i - 1] for i in places]).abs()
    return torch.stack([vectors[:, kind].max() for kind in GROUPS])


def own_steps(motion: Motion) -> torch.Tensor:
    """The model's own largest frame-to-frame step, per kind."""
    return joints(motion, *range(1, len(motion)))


@pytest.mark.parametrize("start, stop", [(40, 62), (40, 41)])
def test_a_redrawn_stretch_joins_without_a_jump(trained, talk, start, stop):
    waveform, motion = talk
    elsewhere = replace(QUICK, gaze=(0.5, 0.0), seed=5)
    new = regenerate(*trained, motion, start, stop, waveform, elsewhere, DYNAMICS)
    assert torch.equal(new.vectors[:start], motion.vectors[:start])
    assert torch.equal(new.vectors[stop:], motion.vectors[stop:])
    assert (joints(new, start, stop) <= own_steps(motion)).all()


def test_a_pasted_stretch_would_have_jumped(trained, talk):
    waveform, motion = talk
    other = regenerate(*trained, motion, 0, 100, None, replace(QUICK, gaze=(0.5, 0.0), seed=5), DYNAMICS)
    pasted = Motion.from_vectors(torch.cat([motion.vectors[:40], other.vectors[40:62], motion.vectors[62:]]))
    assert (joints(pasted, 40, 62) > own_steps(motion)).any()


def test_a_bridge_and_a_drawn_loop_join_without_a_jump(trained, talk):
    _, motion = talk
    joined = bridge(*trained, motion[:40], motion[70:], 15, controls=QUICK)
    assert (joints(joined, 40, 55) <= own_steps(motion)).all()
    closed = close_loop(*trained, motion, 20, QUICK)
    round_and_round = Motion.from_vectors(torch.cat([closed.vectors, closed.vectors[:1]]))
    assert (joints(round_and_round, 100, 120) <= own_steps(motion)).all()


def test_redrawing_counts_its_steps_and_can_be_cancelled(models, motion):
    seen = []
    regenerate(*models, motion, 20, 110, controls=Controls(steps=2), progress=lambda *done: seen.append(done))
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))] and len(seen) > 2

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regenerate(*models, motion, 20, 30, controls=Controls(steps=2), progress=stop)


@pytest.mark.parametrize(
    "other, words",
    [
        (Motion(torch.zeros(60, 6), torch.zeros(60, 128)), "134 channels"),
        (wave(60, fps=30.0), "30 frames per second"),
        (wave(15), r"0\.\.15"),
    ],
    ids=["channels", "rate", "frames"],
)
def test_motion_the_model_cannot_redraw_is_refused(models, other, words):
    with pytest.raises(InputError, match=words):
        regenerate(*models, other, 10, 20)


# --- the command line


def test_the_commands_do_what_the_functions_do(tmp_path, motion, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_motion("a.safetensors", motion, names=DYNAMICS, model="tiny", seed=9)
    save_motion("b.safetensors", wave(50), names=DYNAMICS, model="tiny")
    drawing = f"--model {shlex.quote(str(TINY))} --steps 2 --device cpu"
    expected = {
        "cut a.safetensors --frames 10..30": 20,
        "splice a.safetensors b.safetensors --overlap 10": 160,
        f"splice a.safetensors b.safetensors --bridge 10 {drawing}": 180,
        "loop a.safetensors --overlap 20 --times 2": 200,
        f"loop a.safetensors --bridge 10 {drawing}": 130,
        "retime a.safetensors --speed 2": 60,
        "smooth a.safetensors --seconds 0.2": 120,
        "swap a.safetensors b.safetensors": 50,
        f"regenerate a.safetensors --frames 40..60 --seed 3 {drawing}": 120,
    }
    for line, frames in expected.items():
        assert main(["motion", *shlex.split(line), "-o", "out.safetensors"]) == 0, capsys.readouterr().err
        assert len(load_motion("out.safetensors")) == frames, line
    assert main(["motion", "info", "out.safetensors"]) == 0
    said = capsys.readouterr().out
    assert 'history: ["regenerate"]' in said and "seed: 9" in said


def test_curves_are_exported_as_csv_and_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_motion("a.safetensors", wave(10), names=DYNAMICS)
    for out in ("c.csv", "c.json"):
        assert main(["motion", "export", "a.safetensors", "-o", out]) == 0
    table = list(csv.reader((tmp_path / "c.csv").read_text().splitlines()))
    told = json.loads((tmp_path / "c.json").read_text())
    assert table[0] == told["columns"] and len(table) == 11 and told["fps"] == 25 and told["relative"]
    assert [float(value) for value in table[4]] == told["frames"][3]


@pytest.mark.parametrize(
    "line, words",
    [
        ("cut a.safetensors --frames 30..10 -o o.safetensors", "START..STOP"),
        ("cut a.safetensors --frames 5..900 -o o.safetensors", "0..10"),
        ("cut absent.safetensors --frames 0..5 -o o.safetensors", "does not exist"),
        ("loop a.safetensors -o o.safetensors", "at least 50"),
        ("loop a.safetensors --overlap 2 -o o.mp4", "must end in .safetensors"),
        ("export a.safetensors -o c.xlsx", "must end in .csv"),
        ("regenerate a.safetensors --frames 2..5 --model nowhere -o o.safetensors", "no model at nowhere"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, monkeypatch, capsys, line, words):
    monkeypatch.chdir(tmp_path)
    save_motion("a.safetensors", wave(10))
    assert main(["motion", *shlex.split(line)]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
