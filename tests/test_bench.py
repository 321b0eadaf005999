"""The benchmark judges before it times, and writes what it measured."""

import csv
from pathlib import Path

import pytest
import torch

from vasa.bench import engine, operations, run, table
from vasa.bench.clock import Timing
from vasa.config import TINY
from vasa.errors import InputError
from vasa.io import encoder

FOLDER = Path(__file__).parent / "data" / "tiny"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """Every contestant runs once; nothing is timed."""

    def race(contestants, device, **_):
        for contestant in contestants.values():
            contestant()
        return {name: Timing(1.0, 1.0, 1.0, 2.0 if name == "eager" else 1.0, 1) for name in contestants}

    monkeypatch.setattr(run.clock, "race", race)
    monkeypatch.setattr(run.clock, "bandwidth", lambda device: 1e9)
    monkeypatch.setattr(run.clock, "arithmetic", lambda device, dtype: 1e12)


def test_every_subject_is_judged_measured_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BATCHES", (1, 2))
    rows, device = run.bench(str(FOLDER), device="cpu", precision="fp32", quick=True)
    subjects = {row.subject for row in rows}
    assert {"encode", "decode, batch 1", "decode, batch 2", "warp, one volume for all frames"} <= subjects
    assert all(row.speedup == 2 for row in rows if row.provider == "eager")
    judged = [row.error for row in rows if row.subject.startswith("decode") and row.provider == "fused"]
    assert judged and all(0 <= error < 1e-3 for error in judged)
    text, lines = run.write(rows, device, tmp_path / "speed")[::-1]
    assert "PyTorch" in text.read_text() and "warp_volume: torch" in text.read_text()
    assert len(list(csv.DictReader(lines.read_text().splitlines()))) == len(rows)


def test_nothing_is_timed_while_something_is_wrong(monkeypatch):
    monkeypatch.setattr(operations, "warp_volume", lambda volume, **_: torch.zeros(1, 32, 16, 16))
    with pytest.raises(InputError, match="nothing was timed"):
        run.bench(str(FOLDER), device="cpu", precision="fp32", quick=True)


def test_the_ancestors_chain_moves_the_same_way():
    """Two resamplings blur, but of a smooth volume the same picture remains."""
    axis = torch.linspace(-1, 1, 16)
    volume = (axis[:, None, None] + 2 * axis[:, None] - axis)[None, None]
    theta = torch.eye(3, 4)[None] * 0.8
    flow = torch.full((1, 3, 16, 16, 16), 0.05)
    once = operations.warp_volume(volume, theta=theta, flow=flow, order="rigid_then_flow")
    twice = operations.ancestors_warp(volume, theta, flow).view(once.shape)
    middle = (..., slice(4, 12), slice(4, 12), slice(4, 12))
    assert torch.allclose(once[middle], twice[middle], atol=1e-4)


def test_a_configuration_without_weights_gets_random_ones():
    vasa = engine.engine(TINY.name, "cpu", "fp32", seed=0)
    assert vasa.config == TINY and vasa.models.face.warp_driving.head.weight.abs().max() > 0


def test_a_table_names_machine_and_commit():
    row = table.Row("warp", "8", "eager", 1.0, 2.0, 3.0, speedup=1.5)
    text = table.to_markdown([row], CPU)
    assert "commit" in text and "| warp | 8 | eager | 2 (1 – 3) |" in text and "1.50 ×" in text


@pytest.mark.parametrize("wanted", ["h264_nvenc", "mpeg9"])
def test_an_encoder_that_is_not_there_is_replaced_by_x264(monkeypatch, wanted):
    if torch.cuda.is_available():
        pytest.skip("this machine may have the encoder")
    monkeypatch.setenv("VASA_VIDEO_ENCODER", wanted)
    with pytest.warns(RuntimeWarning, match=f"{wanted} .*libx264 writes the video"):
        assert encoder.choose("libx264", {"crf": "18"}, 256, 256) == ("libx264", {"crf": "18"})
    assert encoder.choose("prores_ks", {}, 256, 256) == ("prores_ks", {})
