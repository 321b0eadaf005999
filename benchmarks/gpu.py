"""Everything that needs a GPU, in one call: is it right, is it repeatable, is it fast.

    python benchmarks/gpu.py --out "$OUT"          # about five minutes on one GPU
    python benchmarks/gpu.py --small               # correctness on small shapes only (what compute-sanitizer runs)

1. Every kernel against float64: all modes, dtypes, three seeds, outputs poisoned with NaN between guard bands.
2. The same bits in twenty runs, for every kernel without atomic additions.
3. compute-sanitizer's memcheck over the small shapes, where it is installed.
4. The tables of `vasa bench` for vasa-mini and vasa-1, and the goals G1-G8 read off them.

Nothing is timed if 1 or 2 fails. Exit code 0 means correct; missed goals are printed, not failed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("VASA_KERNELS", "triton")
os.environ.setdefault("VASA_KERNELS_STRICT", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from vasa.bench.table import Row, machine  # noqa: E402
from vasa.geometry import pose_matrix  # noqa: E402
from vasa.kernels import dispatch, launch, reference  # noqa: E402

SEEDS, REPEATS, GUARD = (0, 1, 2), 20, 256
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 4e-3, torch.float16: 6e-4}
MATRIX_TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Of attention, whose weights are rounded to the working precision before the second product."""
_guards: list[torch.Tensor] = []


def guarded_empty(size, like, dtype=None, layout=None):
    """`launch.empty` with NaN inside and guard bands around."""
    dtype = dtype or like.dtype
    strides = torch.empty(size, device="meta", memory_format=layout or torch.contiguous_format).stride()
    count = math.prod(size)
    buffer = torch.full((count + 2 * GUARD,), float("nan"), dtype=dtype, device=like.device)
    buffer[:GUARD] = buffer[GUARD + count :] = 7.0
    _guards.append(buffer)
    return buffer[GUARD : GUARD + count].as_strided(size, strides, GUARD)


def guards_hold() -> bool:
    """Whether no kernel has written outside of its output since the last call."""
    held = all(bool((torch.cat([b[:GUARD], b[-GUARD:]]) == 7.0).all()) for b in _guards)
    _guards.clear()
    return held


class Judge:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.checked, self.wrong = 0, []

    def close(self, what: str, got: torch.Tensor, exact: torch.Tensor, tolerance: float) -> None:
        """Note an error above tolerance, a value that is not finite, a broken guard."""
        exact = exact.double()
        error = float((got.double() - exact).norm() / exact.norm().clamp_min(1e-30))
        self.checked += 1
        if not error <= tolerance:
            self.wrong.append(f"{what}: relative error {error:.2e}, allowed {tolerance:.0e}")
        if not guards_hold():
            self.wrong.append(f"{what}: wrote outside of its output")

    def same(self, what: str, run) -> None:
        """Note bits that differ between runs."""
        first = run()
        self.checked += 1
        if any(not torch.equal(run(), first) for _ in range(REPEATS)):
            self.wrong.append(f"{what}: other bits in {REPEATS} runs")
        _guards.clear()


def correctness(device: torch.device, small: bool) -> Judge:
    """Every kernel in all modes against float64."""
    judge = Judge()
    shapes = [(1, 5, 3, 4, 6), (2, 26, 4, 7, 5)] + ([] if small else [(1, 96, 16, 64, 64), (2, 96, 8, 16, 16)])
    for seed, dtype in itertools.product(SEEDS[:1] if small else SEEDS, TOLERANCE):
        draw = Draw(seed, device)
        for shape, padding, align in itertools.product(shapes, ("zeros", "border"), (True, False)):
            warps(judge, draw, dtype, shape, dict(padding_mode=padding, align_corners=align))
        for shape, groups in (((2, 24, 9, 7), 3), ((1, 69, 32, 32), 1), ((2, 32, 2, 5, 3), 4)):
            group_norms(judge, draw, dtype, shape, groups)
        for length, width in ((5, 16), (61, 64), (160, 64), (256, 32)):
            attentions(judge, draw, dtype, length, width)
        the_rest(judge, draw, dtype)
    return judge


class Draw:
    """Random tensors on a device, the same for a seed everywhere."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(size, generator=self._generator).to(self.device, dtype)


def warps(judge: Judge, draw: Draw, dtype: torch.dtype, shape: tuple[int, ...], kind: dict) -> None:
    """Sampling, both orders of the warp and all gradients."""
    label = f"{shape} {dtype} seed {draw.seed} {kind}"
    volume = draw(*shape, dtype=dtype)
    theta, flow = pose_matrix(0.2 * draw(2, 6)), 0.2 * draw(2, 3, *shape[2:])
    grid = 0.7 * draw(2, *shape[2:], 3)
    grid[0, 0, 0, 0] = torch.tensor([float("inf"), 1e30, 0.0])
    exact = reference.grid_sample_3d(volume.double(), grid.double(), **kind)
    judge.close(f"sample {label}", dispatch.grid_sample_3d(volume, grid, **kind), exact, TOLERANCE[dtype])
    for order, collapse in itertools.product(("flow_then_rigid", "rigid_then_flow"), (False, True)):
        options = dict(theta=theta, flow=flow, order=order, collapse_depth=collapse, **kind)
        exact = reference.warp_volume(volume.double(), **options | dict(theta=theta.double(), flow=flow.double()))
        run = functools.partial(dispatch.warp_volume, volume, **options)
        judge.close(f"warp {order} collapse {collapse} {label}", run(), exact, TOLERANCE[dtype])
    judge.same(f"warp {label}", run)
    upstream = draw(2, *shape[1:], dtype=dtype)
    results = []
    for move, wide in ((dispatch.warp_volume, dtype), (reference.warp_volume, torch.float64)):
        leaves = [volume.detach().to(wide), *(x.detach().to(torch.promote_types(wide, x.dtype)) for x in (theta, flow))]
        leaves = [x.clone().requires_grad_() for x in leaves]
        moved = move(leaves[0], theta=leaves[1], flow=leaves[2], order="rigid_then_flow", **kind)
        moved.backward(upstream.to(moved.dtype))
        results.append([x.grad for x in leaves])
    # in float32 a position next to a voxel's edge may fall on its other side, where the slope differs
    for name, got, exact, allowed in zip(("volume", "theta", "flow"), *results, (4e-3, 2e-2, 2e-2), strict=True):
        judge.close(f"gradient of {name} {label}", got, exact, allowed)


def group_norms(judge: Judge, draw: Draw, dtype: torch.dtype, shape: tuple[int, ...], groups: int) -> None:
    """Adaptive group norm with SiLU."""
    x = (draw(*shape) + 3).to(dtype)
    x = x.contiguous(memory_format=launch.channels_last(x))
    weight, bias = draw(2, shape[1], dtype=dtype)
    scale, shift = draw(2, shape[0], shape[1], dtype=dtype)
    run = functools.partial(dispatch.group_norm_silu, x, groups, weight, bias, scale=scale, shift=shift)
    wide = [t.double() for t in (weight, bias, scale, shift)]
    with torch.enable_grad():  # the plain formula
        exact = reference.group_norm_silu(x.double(), groups, *wide[:2], scale=wide[2], shift=wide[3])
    judge.close(f"group norm {shape} {dtype} seed {draw.seed}", run(), exact, max(TOLERANCE[dtype], 2e-5))
    judge.same(f"group norm {shape} {dtype}", run)


def attentions(judge: Judge, draw: Draw, dtype: torch.dtype, length: int, width: int) -> None:
    """Attention from a packed projection, with and without bias and key lengths."""
    q, k, v = draw(2, length, 3, 4, width, dtype=dtype).permute(2, 0, 3, 1, 4)
    bias, lengths = draw(1, 4, length, length, dtype=dtype), torch.tensor([length, length // 2], device=draw.device)
    several = dict(bias=bias, key_lengths=lengths)
    causal = dict(causal_prefix=0), several | dict(causal_prefix=length // 3)
    for options in (dict(), dict(bias=bias), dict(key_lengths=lengths), several, *causal):
        wide = options | (dict(bias=bias.double()) if "bias" in options else {})
        exact = reference.short_attention(q.double(), k.double(), v.double(), **wide)
        run = functools.partial(dispatch.short_attention, q, k, v, **options)
        label = f"attention {length} x {width} {dtype} {sorted(options)} seed {draw.seed}"
        judge.close(label, run(), exact, MATRIX_TOLERANCE[dtype])
        judge.same(label, run)


def the_rest(judge: Judge, draw: Draw, dtype: torch.dtype) -> None:
    """Residual layer norm and guided step."""
    parts = *draw(2, 7, 512, dtype=dtype), *draw(2, 512, dtype=dtype)
    exact = reference.residual_layer_norm(*(t.double() for t in parts))
    for got, want in zip(dispatch.residual_layer_norm(*parts), exact, strict=True):
        judge.close(f"layer norm {dtype} seed {draw.seed}", got, want, 2 * TOLERANCE[dtype])
    levels = torch.tensor(reference.ddim_coefficients(0.3, 0.6), device=draw.device)
    weights, bounds = torch.tensor([2.5, -0.5, -1.0], device=draw.device), draw(2, 65).abs()
    parts = draw(3, 1, 50, 65), weights, draw(1, 50, 65), levels, -bounds[0], bounds[1]
    exact = reference.guided_step(*(t.double() for t in parts))
    for got, want in zip(dispatch.guided_step(*parts), exact, strict=True):
        judge.close(f"guided step seed {draw.seed}", got, want, TOLERANCE[torch.float32])


def other_device() -> str:
    """Kernels on a GPU that is not the current one."""
    if torch.cuda.device_count() < 2:
        return "one GPU, not tested"
    volume = torch.randn(1, 8, 4, 4, 4, device="cuda:1")
    theta = pose_matrix(torch.full((1, 6), 0.1, device="cuda:1"))
    exact = reference.warp_volume(volume.double(), theta=theta.double())
    error = float((dispatch.warp_volume(volume, theta=theta).double() - exact).norm() / exact.norm())
    return f"relative error {error:.1e}"


def sanitize(out: Path) -> str:
    """compute-sanitizer over the small shapes."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if tool is None:
        return "compute-sanitizer is not installed: not run"
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, __file__, "--small"]
    done = subprocess.run(command, capture_output=True, text=True)
    (out / "sanitizer.txt").write_text(done.stdout + done.stderr)
    return "memcheck: no error" if done.returncode == 0 else f"memcheck: FAILED, see {out / 'sanitizer.txt'}"


def goals(rows: list[Row]) -> list[str]:
    """G1-G8 of the kernels' plan and the engine's, met or missed."""

    def times(subject: str, shape: str, provider: str) -> float:
        found = [
            r.speedup for r in rows if r.subject == subject and r.shape.startswith(shape) and r.provider == provider
        ]
        return min(found, default=float("nan"))

    def value(subject: str, field: str) -> float:
        found = [getattr(r, field) for r in rows if r.subject == subject and r.provider == "fused"]
        return found[0] if found else float("nan")

    slopes = "sampling with its gradients"
    warp, window = "warp, one volume for all frames", "window of 50 frames, 50 steps"
    native = next(
        (r.provider for r in rows if r.subject == "sampling" and r.provider not in ("fused", "native float32")), ""
    )
    wanted = [
        ("G1 fused warp, 8 frames, against the ancestors' chain", times(warp, "8", "ancestors"), 5.0),
        ("G2 sampling against native in the same precision", times("sampling", "8", native), 1.8),
        ("G3 sampling against native float32", times("sampling", "8", "native float32"), 2.2),
        ("G4 sampling with gradients against native float32", times(slopes, "8", "native float32"), 1.2),
        ("G4 the same against native in the same precision", times(slopes, "8", native), 3.0),
        ("G6 group norm and SiLU against PyTorch, worst size", times("group norm and SiLU", "8", "eager"), 2.5),
        ("upsampling block against plain convolutions, worst size", times("upsampling block", "8", "eager"), 1.0),
        ("G7 attention against SDPA, worst length", times("attention", "3", "eager"), 1.0),
        ("G7 attention with bias against SDPA, worst length", times("attention, bias", "3", "eager"), 1.3),
        ("G8 window of 50 steps against eager", times(window, "3", "eager"), 5.0),
        ("decode, batch 32, against eager", times("decode, batch 32", "512", "eager"), 3.0),
        ("decode, batch 32, frames per second", value("decode, batch 32", "rate"), 400.0),
        ("decode, batch 1, frames per second", value("decode, batch 1", "rate"), 250.0),
    ]  # fmt: skip
    limits = [
        ("G5 warp of one frame, microseconds", 1e3 * value(warp, "p50"), 12.0),
        ("50-step window, ms", value(window, "p50"), 10.0),
        ("G8 one step, microseconds", 1e3 * value(window, "p50") / 50, 200.0),
    ]
    lines = [
        f"{what}: {got:.2f}, goal at least {goal:g}: {'met' if got >= goal else 'MISSED'}" for what, got, goal in wanted
    ]
    return lines + [
        f"{what}: {got:.2f}, goal at most {goal:g}: {'met' if got <= goal else 'MISSED'}" for what, got, goal in limits
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for tables and logs")
    parser.add_argument("--small", action="store_true", help="correctness on small shapes only")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each contestant")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here; everything that needs none is tested by pytest")
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda", torch.cuda.current_device())
    print(machine(device))
    for name, choice in dispatch.backend_report(device).items():
        print(f"{name}: {choice}")
    plain, launch.empty = launch.empty, guarded_empty
    judge = correctness(device, given.small)
    launch.empty = plain
    print(f"{judge.checked} checks, {len(judge.wrong)} wrong; other GPU: {other_device()}")
    for line in judge.wrong:
        print(f"WRONG {line}")
    if judge.wrong or given.small:
        return 1 if judge.wrong else 0
    print(sanitize(given.out))
    os.environ["VASA_KERNELS"] = "auto"  # the tables show what users get
    from vasa.bench.run import bench, write

    for model in ("vasa-1", "vasa-mini"):
        rows, place = bench(model, device="cuda", seconds=given.seconds, progress=print)
        print(*write(rows, place, given.out / f"bench-{model}"), sep="\n")
        if model == "vasa-1":
            print(*goals(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
