"""What `benchmarks/gpu.py` checks: every kernel in all modes against float64, and that it repeats itself bit by bit.

Outputs start as NaN between guard bands. Runs on a GPU, and in Triton's interpreter to rehearse.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch
from vasa.kernels.selftest import relative_error

from vasa.geometry import pose_matrix
from vasa.kernels import dispatch, launch, reference

SEEDS, GUARD = (0, 1, 2), 256
REPEATS = 2 if launch.interpreting() else 20
"""Runs that must give the same bits; the interpreter has no threads that could race."""
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 4e-3, torch.float16: 6e-4}
MATRIX_TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Of attention, whose weights are rounded to the working precision before the second product."""
SHAPES = ((1, 5, 3, 4, 6), (2, 26, 4, 7, 5), (2, 96, 8, 16, 16), (1, 96, 16, 64, 64))
"""Of volumes; the first two are small."""
_NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
        error = relative_error(got, exact)
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


def slices() -> list[str]:
    """Pieces of the whole check that can be run beside each other: each compiles kernels of its own."""
    return [f"{dtype} {number}" for dtype in _NAMES for number in range(len(SHAPES))] + [f"{d} rest" for d in _NAMES]


def check(piece: str, device: torch.device, small: bool = False) -> Judge:
    """One of `slices`, with three seeds; "small": small shapes of all dtypes, one seed."""
    judge = Judge()
    plain, launch.empty = launch.empty, guarded_empty
    try:
        name, _, part = piece.partition(" ")
        for seed in SEEDS[:1] if small else SEEDS:
            draw, dtype = Draw(seed, device), _NAMES[name]
            if part == "rest":
                _rest(judge, draw, dtype)
                continue
            for padding, align in itertools.product(("zeros", "border"), (True, False)):
                warps(judge, draw, dtype, SHAPES[int(part)], dict(padding_mode=padding, align_corners=align))
    finally:
        launch.empty = plain
    return judge


def _rest(judge: Judge, draw: Draw, dtype: torch.dtype) -> None:
    for shape, groups in (((2, 24, 9, 7), 3), ((1, 69, 32, 32), 1), ((2, 32, 2, 5, 3), 4)):
        group_norms(judge, draw, dtype, shape, groups)
    # the interpreter's bf16 matrix product is wrong
    interpreted = draw.device.type == "cpu" and dtype == torch.bfloat16
    for length, width in () if interpreted else ((5, 16), (61, 64), (160, 64), (256, 32)):
        attentions(judge, draw, dtype, length, width)
    the_rest(judge, draw, dtype)


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
    # PyTorch's own float32 rounds positions too, and a rough field multiplies it
    rounding = relative_error(reference.grid_sample_3d(volume.float(), grid, **kind), exact)
    sampled = dispatch.grid_sample_3d(volume, grid, **kind)
    judge.close(f"sample {label}", sampled, exact, max(TOLERANCE[dtype], 2 * rounding))
    for order, collapse in itertools.product(("flow_then_rigid", "rigid_then_flow"), (False, True)):
        options = dict(theta=theta, flow=flow, order=order, collapse_depth=collapse, **kind)
        exact = reference.warp_volume(volume.double(), **options | dict(theta=theta.double(), flow=flow.double()))
        rounding = relative_error(reference.warp_volume(volume.float(), **options), exact)
        run = functools.partial(dispatch.warp_volume, volume, **options)
        judge.close(f"warp {order} collapse {collapse} {label}", run(), exact, max(TOLERANCE[dtype], 2 * rounding))
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
