"""The study of the controls: a face that obeys passes, one that does not is found out."""

import re
from types import SimpleNamespace

import pytest
import torch

from vasa.cli import main
from vasa.controls import Blink, Controls
from vasa.latents import DYNAMICS, Motion
from vasa.metrics import control_study
from vasa.metrics.control_report import LIMIT, crosstalk, defects, write_report
from vasa.metrics.control_study import QUANTITIES, clip_of, levers, study
from vasa.motion.place import generator_rest
from vasa.motion.shape import shape
from vasa.synthetic.emotions import EMOTION_SHAPES

EYE = DYNAMICS.index("eyeYaw")
NAMES = ["gaze, yaw", "distance", "head pose, roll", "head amplitude", "blink rate", "expression", "mouth"]
BASE = Controls(seed=1, blink=Blink(15.0))


class Puppet:
    """A generator and a decoder that do exactly what they are told; `spoil` changes the motion."""

    fps = 25.0

    def __init__(self, spoil=lambda motion, controls: motion):
        self.spoil = spoil

    def generate(self, waveform, face, controls):
        count = round(len(waveform) / 640)
        curves = controls.curves(count)
        wave = torch.sin(torch.arange(count) / 3)[:, None]
        pose = generator_rest(wave) + torch.cat([0.03 * wave.expand(count, 3), torch.zeros(count, 3)], dim=1)
        pose[:, 5:] -= curves.distance
        dynamics = torch.zeros(count, len(DYNAMICS))
        dynamics[:, :-2] = curves.emotion @ EMOTION_SHAPES
        dynamics[:, DYNAMICS.index("jawOpen")] += 0.3 * (1 + wave[:, 0])
        dynamics[:, EYE:] = curves.gaze - pose[:, :2]
        motion = Motion(pose, dynamics, rest=generator_rest(wave))
        return self.spoil(shape(motion, curves, face, DYNAMICS), controls)


@pytest.fixture
def seen(monkeypatch):
    def watch(pipe, face, motion):
        opening = motion.facial_dynamics[:, DYNAMICS.index("jawOpen")]
        return SimpleNamespace(head_pose=motion.head_pose, dynamics=motion.facial_dynamics, mouth_opening=opening)

    monkeypatch.setattr(control_study, "watch", watch)


def responses(puppet, names=NAMES):
    talker = SimpleNamespace(face=None, lids_closed=1.0)
    return study(puppet, [talker], [torch.zeros(16000 * 12)], BASE, names)


def test_every_lever_asks_for_something_else_at_every_level():
    known = levers(BASE)
    assert {lever.quantity for lever in known} == set(QUANTITIES)
    for lever in known:
        asked = [str(lever.setting(level).to_json()) for level in lever.levels]
        assert len(set(asked)) == len(asked), lever.name
        assert list(lever.levels) == sorted(lever.levels)


def test_a_face_that_obeys_has_slope_one_and_no_defect(seen):
    found = responses(Puppet())
    assert [response.lever.name for response in found] == NAMES
    assert defects(found) == {}
    for response in found:
        assert response.slope() == pytest.approx(1, abs=0.12), response.lever.name
        assert response.slope("motion") == pytest.approx(response.slope(), abs=1e-4)


def test_a_dead_control_and_a_leaking_one_are_found(seen):
    def spoil(motion, controls):
        motion.head_pose[:, 2] = 0
        motion.head_pose[:, 5] -= 0.5 * controls.gaze[0]
        return motion

    wrong = defects(responses(Puppet(spoil), ["gaze, yaw", "distance", "head pose, roll"]))
    assert wrong["head pose, roll"] == ["not monotone"]
    assert len(wrong["gaze, yaw"]) == 1 and wrong["gaze, yaw"][0].startswith("moves distance by 7")
    assert "distance" not in wrong


def test_crosstalk_is_one_on_the_diagonal_and_blank_where_two_are_one_thing(seen):
    found = responses(Puppet(), ["distance", "expression", "emotion, happy", "emotion, angry"])
    names, matrix = crosstalk(found)
    assert names == ["distance", "expression", "happy", "angry"]
    assert torch.allclose(matrix.diag(), torch.ones(4))
    assert matrix.isnan().sum() == 6 and (matrix[0, 1:] < LIMIT).all()


def test_what_the_reader_does_to_true_pictures_stands_beside(seen, monkeypatch, tmp_path):
    def read(pipe, pictures):
        head_pose, dynamics = pictures
        head_pose[:, 2] *= 0.5
        dynamics[:, :-2] += 2 * head_pose[:, 2:3] * EMOTION_SHAPES[1]
        return SimpleNamespace(head_pose=head_pose, dynamics=dynamics, mouth_opening=dynamics[:, 0])

    def spoil(motion, controls):
        motion.facial_dynamics[:, :-2] += motion.head_pose[:, 2:3] * EMOTION_SHAPES[1]
        return motion

    monkeypatch.setattr(control_study, "read", read)
    talker = SimpleNamespace(face=None, lids_closed=1.0, truth=lambda pose, dynamics: (pose.clone(), dynamics.clone()))
    names = ["head pose, roll", "blink rate", "emotion, happy"]
    found = study(Puppet(spoil), [talker], [torch.zeros(16000 * 4)], BASE, names, against_truth=True)
    roll, blinks, _ = found
    assert roll.slope() == pytest.approx(1, abs=0.1) and roll.slope("truth") == pytest.approx(0.5, abs=0.05)
    assert torch.tensor(blinks.slope("truth")).isnan()
    matrices = [crosstalk(found, source)[1] for source in ("frames", "truth")]
    shares = [float(matrix[0, -1]) for matrix in matrices]
    assert shares[1] == pytest.approx(2 * shares[0], rel=0.1) and shares[0] > LIMIT
    assert defects(found)["head pose, roll"] == [
        f"moves happy by {shares[0]:.0%} of its range (true pictures: {shares[1]:.0%})"
    ]
    write_report(tmp_path / "r.md", tmp_path / "images", "puppet", found, {})
    text = (tmp_path / "r.md").read_text()
    assert re.search(r"\| head pose, roll \| .* \| 1\.0\d \| 0\.5\d \| ", text)
    assert re.search(r"\| blink rate \| .* \| – \| ", text)


def test_the_report_has_a_row_a_control_and_its_pictures(seen, tmp_path):
    found = responses(Puppet(), ["gaze, yaw", "mouth"])
    write_report(tmp_path / "r.md", tmp_path / "images", "puppet", found, {"Machine": "none"})
    text = (tmp_path / "r.md").read_text()
    assert re.search(r"\| gaze, yaw \| -20 → -\d+\.\d\d, .*\| 1\.00 \| – \| 1\.00 \| yes \| – \|", text)
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (tmp_path / link).stat().st_size > 1000


def test_clips_are_repeated_or_cut_to_length():
    assert clip_of(torch.arange(5.0), 0.0005).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert len(clip_of(torch.zeros(40_000), 1.0)) == 16_000


def test_without_speech_it_says_what_is_missing(capsys, tmp_path):
    assert main(["evaluate", "controls", "-o", str(tmp_path / "r.md")]) == 2
    assert "--corpus FOLDER or --speech FOLDER" in capsys.readouterr().err
