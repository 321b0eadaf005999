"""The kernels as PyTorch operations: tracing, gradients, falling back, and compiling for GPUs that are not here."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vasa.geometry import pose_matrix
from vasa.kernels import backend, dispatch, launch, ops, positions, reference, use_backend

ROOT = Path(__file__).resolve().parents[1]
interpreted = pytest.mark.skipif(not launch.interpreting(), reason="needs Triton's interpreter")


def normal(*size, seed=0, dtype=torch.float32):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problems(dtype=torch.float32):
    """Operation -> arguments, small."""
    volume, flow = normal(1, 4, 2, 3, 3, dtype=dtype), normal(2, 3, 2, 3, 3, seed=1, dtype=dtype) * 0.1
    theta, grid = pose_matrix(normal(2, 6, seed=2) * 0.2).to(dtype), normal(2, 2, 2, 3, 3, seed=3, dtype=dtype) * 0.5
    grad, norms = normal(2, 4, 2, 2, 3, seed=4, dtype=dtype), normal(2, 8, seed=5, dtype=dtype)
    q, k, v = normal(3, 2, 2, 5, 16, seed=6, dtype=dtype)
    levels = torch.tensor(reference.ddim_coefficients(0.4, 0.8), dtype=dtype)
    return {
        "warp3d": (volume, theta, flow, None, None, [2, 3, 3], True, True, True, True),
        "warp3d_grad_volume": (grad, volume, grid, True, True, False),
        "warp3d_grad_grid": (grad, volume, grid, False, False, False),
        "group_norm_silu": (normal(2, 8, 3, 3, dtype=dtype), 2, *norms, 1e-5, norms, norms.flip(0)),
        "residual_layer_norm": (*normal(2, 3, 8, dtype=dtype), *norms, 1e-5),
        "guided_step": (normal(2, 1, 3, 4, dtype=dtype), levels[:2], normal(1, 3, 4, dtype=dtype), levels, None, None),
        "short_attention": (q, k, v, normal(1, 2, 5, 5, dtype=dtype), torch.tensor([5, 3]), 1, 0.25),
    }


def with_gradients(arguments):
    return tuple(
        a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments
    )


@interpreted
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of opcheck's own making
@pytest.mark.parametrize("name", problems())
def test_an_operation_keeps_pytorchs_rules(name):
    arguments = problems()[name]
    if not name.startswith("warp3d_grad"):
        arguments = with_gradients(arguments)
    if name == "guided_step":
        arguments = (*arguments[:3], arguments[3].detach(), *arguments[4:])
    with use_backend("triton"):
        torch.library.opcheck(getattr(torch.ops.vasa, name).default, arguments)


@pytest.mark.parametrize("name", problems())
@pytest.mark.parametrize("wanted", [pytest.param("triton", marks=interpreted), "torch"])
def test_tracing_knows_shapes_and_strides(name, wanted):
    from torch._subclasses import FakeTensorMode

    arguments = problems()[name]
    with use_backend(wanted):
        real = getattr(ops, name)(*arguments)
    with FakeTensorMode() as mode:
        moved = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        fake = getattr(ops, name)(*moved)
    for r, f in zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (real, fake)), strict=True):
        assert (r.shape, r.stride(), r.dtype) == (f.shape, f.stride(), f.dtype)
        inputs = [a.data_ptr() for a in arguments if isinstance(a, torch.Tensor)]
        assert r.data_ptr() not in inputs, "an output shares memory with an input"


@pytest.mark.parametrize("name", [n for n in problems() if not n.startswith("warp3d_grad")])
def test_written_gradients_are_those_of_finite_differences(name):
    arguments = with_gradients(problems(torch.float64)[name])
    if name == "guided_step":
        arguments = (*arguments[:3], arguments[3].detach(), torch.full((4,), -0.5).double(), torch.ones(4).double())
    assert torch.autograd.gradcheck(getattr(ops, name), arguments, fast_mode=True)


@pytest.mark.parametrize("order", ["flow_then_rigid", "rigid_then_flow"])
@pytest.mark.parametrize("size", [(2, 3, 4), (3, 5, 2)])
def test_gradient_of_the_positions(order, size):
    theta = pose_matrix(normal(2, 6) * 0.3).double().requires_grad_()
    flow = (normal(1, 3, 2, 3, 4, seed=1, dtype=torch.float64) * 0.2).requires_grad_()
    for parts in ((theta, flow), (theta, None), (None, flow)):
        grid = positions.warp_grid(size, *parts, order, True)
        upstream = normal(*grid.shape, seed=2, dtype=torch.float64)
        written = positions.warp_grid_backward(upstream, size, *parts, order, True)
        recorded = torch.autograd.grad(grid, [p for p in parts if p is not None], upstream)
        for got, exact in zip([w for w in written if w is not None], recorded, strict=True):
            assert torch.allclose(got, exact, atol=1e-10)


class Everything(torch.nn.Module):
    """One program with every differentiable operation in it."""

    def forward(self, volume, theta, flow):
        moved = dispatch.warp_volume(volume, theta=theta, flow=flow, collapse_depth=True)
        x = dispatch.group_norm_silu(moved, 2, None, None)
        rows = x.flatten(2).transpose(1, 2)
        total, normed = dispatch.residual_layer_norm(rows, rows, rows.new_ones(8), rows.new_zeros(8))
        heads = normed.unflatten(-1, (2, 4)).transpose(1, 2)
        return dispatch.short_attention(heads, heads, heads).sum() + total.mean()


@interpreted
def test_a_traced_program_computes_the_same():
    arguments = with_gradients((normal(1, 4, 2, 3, 3), pose_matrix(normal(2, 6) * 0.1), normal(2, 3, 2, 3, 3) * 0.1))
    with use_backend("torch"):
        plain = Everything()(*arguments)
        exact = torch.autograd.grad(plain, arguments)
    with use_backend("triton"):
        torch.compiler.reset()
        compiled = torch.compile(Everything(), backend="aot_eager", fullgraph=True)(*arguments)
        assert torch.allclose(compiled, plain, rtol=1e-4)
        for got, want in zip(torch.autograd.grad(compiled, arguments), exact, strict=True):
            assert torch.allclose(got, want, atol=1e-4 * float(want.abs().max()))
        with torch.no_grad():
            batch = {0: torch.export.Dim("batch", min=2, max=16)}
            shapes = dict(volume=None, theta=batch, flow=batch)
            program = torch.export.export(Everything(), tuple(a.detach() for a in arguments), dynamic_shapes=shapes)
    named = {str(node.target) for node in program.graph.nodes}
    assert "vasa.warp3d.default" in named and "vasa.short_attention.default" in named
    four = [a.detach() if a.shape[0] == 1 else a.detach().repeat(2, *[1] * (a.dim() - 1)) for a in arguments]
    with use_backend("torch"):
        assert torch.allclose(program.module()(*four), Everything()(*four), rtol=1e-4)


@interpreted
def test_a_traced_program_does_not_ask_a_kernel_for_what_it_cannot_do():
    def attend(q):
        return dispatch.short_attention(q, q, q)

    for length, expected in ((16, True), (300, False)):
        with use_backend("triton"), torch.no_grad():
            graph = torch.export.export(Called(attend), (normal(1, 1, length, 16),)).graph
        assert any("vasa" in str(node.target) for node in graph.nodes) is expected


class Called(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.fixture
def fresh(monkeypatch):
    """No kernel tried yet; Triton wanted, on CPU tensors too."""
    monkeypatch.setattr(backend, "_checked", {})
    monkeypatch.setattr(backend, "interpreting", lambda: True)
    monkeypatch.setenv("VASA_KERNELS", "triton")
    monkeypatch.delenv("VASA_KERNELS_STRICT", raising=False)


def move():
    return dispatch.warp_volume(normal(1, 4, 2, 3, 3), theta=pose_matrix(torch.full((2, 6), 0.1)))


def test_without_triton_pytorch_runs_and_says_why(fresh, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(backend.importlib, "import_module", missing)
    assert move().shape == (2, 4, 2, 3, 3)
    assert "not installed" in dispatch.backend_report("cpu")["warp_volume"]


def test_a_broken_triton_is_named_once_and_replaced(fresh, monkeypatch):
    def broken(name):
        raise OSError("DLL load failed")

    monkeypatch.setattr(backend.importlib, "import_module", broken)
    with pytest.warns(RuntimeWarning, match="DLL load failed") as said:
        first = move()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(move(), first)
    assert len(said) == 1
    monkeypatch.setenv("VASA_KERNELS_STRICT", "1")
    with pytest.raises(RuntimeError, match="expected the Triton kernel"):
        move()


@interpreted
def test_a_kernel_that_computes_nonsense_is_not_used(fresh, monkeypatch):
    from vasa.kernels import norm

    monkeypatch.setattr(norm, "group_norm_silu", lambda x, *_, **__: torch.zeros_like(x))
    x = normal(1, 8, 3, 3).to(memory_format=torch.channels_last)
    with pytest.warns(RuntimeWarning, match="relative error"):
        assert dispatch.group_norm_silu(x, 2, None, None).abs().max() > 0
    monkeypatch.setattr(backend, "_checked", {})
    monkeypatch.setenv("VASA_KERNELS_STRICT", "1")
    with pytest.raises(RuntimeError, match="group_norm_silu failed"):
        dispatch.group_norm_silu(x, 2, None, None)


@interpreted
@pytest.mark.parametrize("operation", [name for name in backend.LOWEST_CAPABILITY if name != "short_attention"])
def test_bf16_is_part_of_the_self_test_where_the_device_computes_in_it(monkeypatch, operation):
    from vasa.kernels import selftest

    tried = []
    problem = selftest._PROBLEMS[operation]
    noted = lambda place, dtype, draw: (tried.append(dtype), problem(place, dtype, draw))[1]  # noqa: E731
    monkeypatch.setitem(selftest._PROBLEMS, operation, noted)
    monkeypatch.setattr(selftest, "interpreting", lambda: False)  # of which only products of bf16 matrices are wrong
    for has, expected in ((True, 3), (False, 2)):
        monkeypatch.setattr(selftest, "has_bfloat16", lambda place, has=has: has)
        tried.clear()
        selftest.run(operation, torch.device("cpu"))
        assert len(tried) == expected


@pytest.mark.parametrize(
    "capability,has,attends", [((7, 5), False, False), ((8, 0), True, True), ((7, 0), False, False)]
)
def test_older_gpus_get_what_they_can_do(fresh, monkeypatch, capability, has, attends):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place=None: capability)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr("vasa.kernels.selftest.run", lambda operation, place: None)
    monkeypatch.setattr(backend.importlib, "import_module", lambda name: SimpleNamespace(__version__="3.8"))
    gpu = torch.device("cuda", 0)
    chosen = {name: backend.on_device(name, gpu) for name in backend.LOWEST_CAPABILITY}
    assert (chosen["short_attention"].backend == "triton") is attends
    assert (chosen["warp_volume"].backend == "triton") is (capability >= (7, 5))
    assert backend.has_bfloat16(gpu) is has and backend.has_bfloat16(torch.device("cpu"))
    if not attends:
        assert "below 8.0" in chosen["short_attention"].reason
        assert "no bfloat16" in backend.on_device("warp_volume", gpu, torch.bfloat16).reason


@interpreted
def test_a_kernel_that_fails_later_is_replaced_but_full_memory_is_not_hidden(fresh, monkeypatch):
    from vasa.kernels import warp3d

    exact = move()

    def too_big(*_, **__):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(warp3d, "warp", too_big)
    with pytest.warns(RuntimeWarning, match="shared memory"):
        assert torch.allclose(move(), exact, atol=1e-5)
    monkeypatch.setattr(backend, "_checked", {("warp_volume", "cpu"): backend.Choice("triton", "")})

    def full(*_, **__):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(warp3d, "warp", full)
    with pytest.raises(torch.OutOfMemoryError):
        move()


def test_what_is_wanted_is_a_known_word(monkeypatch):
    monkeypatch.setenv("VASA_KERNELS", "cuda")
    with pytest.raises(ValueError, match="VASA_KERNELS"):
        backend.mode()
    with use_backend("torch"):
        assert backend.mode() == "torch"
    with pytest.raises(ValueError, match="fast"), use_backend("fast"):
        pass


def test_a_second_copy_uses_the_operations_of_the_first():
    code = (
        "import sys, importlib.util as u, types, torch\n"
        "import vasa.kernels.ops as first\n"
        "package = types.ModuleType('copy'); package.__path__ = ['kernels']; sys.modules['copy'] = package\n"
        "import importlib; second = importlib.import_module('copy.ops')\n"
        "assert second is not first and second.warp3d is first.warp3d\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


CEILINGS = {  # kernel: (instructions per element, of loops one turn with all around it; registers)
    "_warp_forward": ((41, 64), (60, 96)),
    "_warp_grad_volume": ((280, 184), (360, 136)),
    "_warp_grad_grid": ((90, 136), (124, 208)),
    "_channel_statistics": ((11, 104), (14, 176)),
    "_group_affine": ((14, 96), (18, 96)),
    "_affine_silu": ((19, 56), (48, 64)),
    "_residual_layer_norm": ((36, 32), (110, 32)),
    "_guided_step": ((56, 48), (88, 40)),
    "_attention": ((50, 72), (185, 144)),
}
"""On NVIDIA, on AMD."""
CASES = (
    "warp fused", "sample gradient, volume", "sample gradient, grid", "group norm", "residual layer norm",
    "guided step", "attention 61", "attention 61, causal",
)  # fmt: skip


def test_kernels_compile_for_gpus_that_are_not_here():
    targets = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_120", "gfx942", "gfx1100")
    pytest.importorskip("triton.backends.nvidia", reason="needs Triton's compilers")
    command = [sys.executable, "benchmarks/aot.py", "--json"]
    command += [word for t in targets for word in ("--target", t)] + [word for c in CASES for word in ("--case", c)]
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert {row["target"] for row in rows} == set(targets) and len(rows) == 10 * len(targets)
    limits = {"sm_80": 163, "sm_90": 227, "gfx942": 64, "gfx1100": 64}
    for row in rows:
        assert row["spilled"] == 0, row
        assert row["shared"] <= limits.get(row["target"], 99) * 1024, row
        instructions, registers = CEILINGS[row["kernel"]][not row["target"].startswith("sm")]
        assert row["registers"] <= registers, row
        assert 0 < row["per_element"] <= instructions, row
        if row["kernel"] == "_warp_forward" and row["target"].startswith("sm"):
            assert row["wide_loads"] >= 24, row
        if row["kernel"] == "_attention":
            assert row["tensor_core"] > 0, row
