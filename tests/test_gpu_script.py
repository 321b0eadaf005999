"""`benchmarks/gpu.py`, as far as it can be tried without a GPU: it must be ready when there is one."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vasa.bench.table import Row
from vasa.kernels import launch

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_MEDIA = "import sys; sys.modules.update({m: None for m in ('av', 'gradio', 'skimage', 'mediapipe')}); "


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = os.environ.copy()
    module = importlib.import_module("gpu")
    os.environ.clear()
    os.environ.update(before)  # it asks for the kernels, which is not for the other tests
    return module


def run(code, *words, **environment):
    command = [sys.executable, "-c", WITHOUT_MEDIA + code, *words]
    given = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"} | environment
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True)


def test_it_needs_no_package_that_reads_or_writes_media():
    done = run("import gpu, vasa; print(vasa.Vasa); vasa.animate")
    assert "vasa.pipeline.Vasa" in done.stdout
    assert "vasa.animate reads and writes files and needs" in done.stderr and done.returncode == 1


@pytest.mark.skipif(not launch.interpreting(), reason="needs Triton's interpreter")
def test_a_piece_of_the_checks_passes_in_the_interpreter():
    done = run("import gpu; sys.exit(gpu.main())", "--small", "--piece", "float32 0", VASA_KERNELS="triton")
    assert done.returncode == 0 and "36 checks, 0 wrong" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(not launch.interpreting(), reason="needs Triton's interpreter")
def test_the_checks_see_a_wrong_kernel_and_a_store_outside(script, monkeypatch):
    from vasa.kernels import attention, dispatch, norm, use_backend

    checks = sys.modules["gpu_checks"]
    draw = checks.Draw(0, torch.device("cpu"))
    real = norm.residual_layer_norm
    with use_backend("triton"):
        dispatch.residual_layer_norm(*draw(2, 2, 8), *draw(2, 8))  # the self-test is over
        monkeypatch.setattr(norm, "residual_layer_norm", lambda *given: [1.01 * out for out in real(*given)])
        judge = checks.Judge()
        checks.the_rest(judge, draw, torch.float32)
        assert judge.checked and all("layer norm" in line for line in judge.wrong) and judge.wrong
        monkeypatch.setattr(launch, "empty", checks.guarded_empty)
        real_attention = attention.short_attention

        def beyond(q, *given, **options):
            out = real_attention(q, *given, **options)
            torch.as_strided(out, (1,), (1,), out.storage_offset() + out.numel()).fill_(1.0)
            return out

        monkeypatch.setattr(attention, "short_attention", beyond)
        judge = checks.Judge()
        q = draw(3, 1, 2, 5, 16)
        judge.close("attention", dispatch.short_attention(*q), checks.reference.short_attention(*q.double()), 1e-5)
    assert judge.wrong == ["attention: wrote outside of its output"]


def test_what_breaks_is_reported_and_what_would_not_end_is_not_begun(script, tmp_path):
    report = script.Report(tmp_path, limit=100.0)

    def broken(report):
        raise RuntimeError("no such thing")

    assert report.step("first", 10, lambda report: "done") == "done" and not report.wrong
    report.step("second", 10, broken)
    report.step("third", 1000, broken)
    text = (tmp_path / "report.md").read_text()
    assert report.wrong and "no such thing" in text and "## third\nnot begun: " in text


def test_pieces_cover_every_shape_and_dtype(script):
    pieces = script.slices()
    assert len(pieces) == len(set(pieces)) == 3 * (len(script.SHAPES) + 1)


def test_a_missing_sanitizer_is_said(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script.shutil, "which", lambda *_, **__: None)
    report = script.Report(tmp_path, limit=100.0)
    script.sanitize(report)
    assert "not installed" in (tmp_path / "report.md").read_text() and not report.wrong


def test_goals_are_read_off_the_table(script):
    def row(subject, shape, provider, speedup=1.0, p50=1.0, rate=0.0):
        return Row(subject, shape, provider, p50, p50, p50, speedup=speedup, rate=rate)

    rows = [
        row("warp, one volume for all frames", "1 x 96", "fused", p50=0.010),
        row("warp, one volume for all frames", "8 x 96", "fused", p50=0.060),
        row("warp, one volume for all frames", "8 x 96", "ancestors", speedup=6.0),
        row("decode, batch 32", "512 px", "fused", rate=350.0),
        row("first frame after a hop of sound", "512 px", "fused", p50=45.0),
    ]
    lines = script.goals(rows)
    assert any(line.startswith("G1 ") and line.endswith("6.00, goal at least 5: met") for line in lines)
    assert any(line.startswith("G5 ") and line.endswith("10.00, goal at most 12: met") for line in lines)
    assert any(
        line.startswith("decode, batch 32, frames") and line.endswith("350.00, goal at least 400: MISSED")
        for line in lines
    )  # noqa: E501
    assert any(line.startswith("first frame") and line.endswith("45.00, goal at most 60: met") for line in lines)
    # what was not measured is not met
    assert any(line.startswith("G8 window") and "nan" in line and line.endswith("MISSED") for line in lines)


def test_without_a_gpu_it_says_so(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main() == 2 and "no GPU here" in capsys.readouterr().out
