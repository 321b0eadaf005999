"""The benchmark judges before it times, and writes what it measured."""

import csv
from pathlib import Path

import pytest
import torch

from vasa import cli
from vasa.backends.liveportrait.config import RendererConfig
from vasa.bench import clock, engine, family, operations, run, table
from vasa.bench.clock import Timing
from vasa.config import TINY
from vasa.errors import InputError
from vasa.io import encoder

FOLDER = Path(__file__).parent / "data" / "tiny"
CPU = torch.device("cpu")
RACE = clock.race


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    """Every contestant runs once; nothing is timed."""

    def race(contestants, device, **_):
        for contestant in contestants.values():
            contestant()
        return {name: Timing(1.0, 1.0, 1.0, 2.0 if name == "eager" else 1.0, 1) for name in contestants}

    monkeypatch.setattr(run.clock, "race", race)  # the module, which the family's benchmark uses too
    monkeypatch.setattr(run.clock, "bandwidth", lambda device: 1e9)
    monkeypatch.setattr(run.clock, "arithmetic", lambda device, dtype: 1e12)


def test_every_subject_is_judged_measured_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BATCHES", (1, 2))
    kept = []
    rows, device = run.bench(
        str(FOLDER), device="cpu", precision="fp32", quick=True, keep=lambda rows, _: kept.append(len(rows))
    )
    assert len(kept) > 4 and kept == sorted(set(kept)) and kept[-1] == len(rows)
    subjects = {row.subject for row in rows}
    expected = {"encode", "decode, batch 1", "decode, batch 2", "warp, one volume for all frames", "guided step"}
    assert expected <= subjects
    assert all(row.speedup == 2 for row in rows if row.provider == "eager")
    judged = [row.error for row in rows if row.subject.startswith("decode") and row.provider == "fused"]
    assert judged and all(0 <= error < 1e-3 for error in judged)
    text, lines = run.write(rows, device, tmp_path / "speed")[::-1]
    assert "PyTorch" in text.read_text() and "warp_volume: torch" in text.read_text()
    stored = list(csv.DictReader(lines.read_text().splitlines()))
    assert len(stored) == len(rows) and all(row["commit"] and row["device"] and row["torch"] for row in stored)
    if Path("/proc/self/clear_refs").exists():
        assert all(row.memory > 50 for row in rows if row.subject == "encode")


def test_slow_work_is_not_repeated():
    def turns(seconds_a_turn, warm):
        now = [0.0]
        runs = []

        def run():
            runs.append(1)
            now[0] += seconds_a_turn

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock.time, "perf_counter", lambda: now[0])
            taken = RACE({"one": run}, CPU, seconds=1.0, warm=warm)["one"].turns
        return taken, len(runs)

    assert turns(0.1, warm=False) == (11, 12)
    assert turns(25.0, warm=True) == (3, 3)
    assert turns(100.0, warm=True) == (1, 1)


def test_nothing_is_timed_while_something_is_wrong(monkeypatch):
    monkeypatch.setattr(operations, "warp_volume", lambda volume, **_: torch.zeros(1, 32, 16, 16))
    with pytest.raises(InputError, match="nothing was timed"):
        run.bench(str(FOLDER), device="cpu", precision="fp32", quick=True)


FAMILY = RendererConfig(
    name="tiny", input_size=32, image_size=64, width=8, volume_channels=8, volume_depth=4, resblocks=1,
    flow_width=8, flow_halvings=1, flow_max=16, label_width=16,
    backbone_depths=(1, 1, 1, 1), backbone_widths=(8, 8, 16, 16),
)  # fmt: skip


class Published(torch.nn.Module):
    """A network of ours behind the calls of a published one."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, kp_driving=None, kp_source=None):
        if kp_driving is not None:
            return {"out": self.network(x, kp_driving, kp_source)}
        return self.network.detector(x) if hasattr(self.network, "detector") else self.network(x)


@pytest.fixture
def clone(monkeypatch, tmp_path):
    """A clone whose networks are copies of ours, seeded alike."""
    (tmp_path / "src").mkdir()
    theirs = {part: Published(family.seeded_part(part, FAMILY)) for part in family.PARTS}
    monkeypatch.setattr(family, "renderer", lambda package, config: theirs)
    monkeypatch.setattr(family, "paired", lambda theirs, part, config: family.seeded_part(part, config))
    return tmp_path, theirs


def test_the_published_family_takes_part_frame_by_frame(clone):
    rows, device = family.bench_family(clone[0], device="cpu", precision="fp32", seconds=0.0, config=FAMILY)
    assert device == CPU and {row.provider for row in rows} == {"fused", "eager", "published"}
    assert {"warp, batch 1", "decode, batch 8", "warp + decode, batch 8"} <= {row.subject for row in rows}
    assert all(row.error < 1e-4 for row in rows)


def test_without_a_clone_the_family_is_judged_by_itself():
    rows, _ = family.bench_family(device="cpu", precision="fp32", seconds=0.0, quick=True, config=FAMILY)
    assert {row.provider for row in rows} == {"fused", "eager"}


def test_no_family_is_timed_that_computes_something_else(clone):
    with torch.no_grad():
        clone[1]["decoder"].network.conv_img.bias += 5
    with pytest.raises(InputError, match=r"differ from the published ones in decode, batch 1 .* nothing was timed"):
        family.bench_family(clone[0], device="cpu", precision="fp32", seconds=0.0, quick=True, config=FAMILY)


def test_what_cannot_be_measured_is_said(tmp_path, capsys):
    with pytest.raises(InputError, match="holds no folder 'src'"):
        family.bench_family(tmp_path, device="cpu", config=FAMILY)
    assert cli.main(["bench", "--published", str(tmp_path)]) == 2
    assert "--published goes with --model liveportrait" in capsys.readouterr().err


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
