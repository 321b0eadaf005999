"""The whole benchmark: judge every path, then time it; nothing is timed while something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..io.files import replacing
from ..kernels import backend_report
from ..pipeline import Vasa
from . import clock, engine, operations
from .table import Row, to_csv, to_markdown

FRAME_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 3e-2}
"""Largest relative L2 error of the fused path's frames."""
_ROUNDED_TWICE = 1.25
"""Or how much larger than the eager path's own error in the same precision, which grows with the network."""
MOTION_TOLERANCE = 2e-2
"""Largest difference from the eager path of a window of motion, whose steps amplify rounding."""


def bench(
    model: str = "vasa-mini", *, device: str = "auto", precision: str = "auto", seed: int = 0, seconds: float = 2.0,
    quick: bool = False, progress: Callable[[str], None] = lambda line: None,
    keep: Callable[[list[Row], torch.device], None] = lambda rows, device: None,
) -> tuple[list[Row], torch.device]:  # fmt: skip
    """Measure operations and engine.

    Args:
        model: shipped model, folder, or a configuration's name (random weights).
        device, precision: as in `Vasa.from_pretrained`.
        seed: of inputs and random weights.
        seconds: to spend on each contestant, about.
        quick: batches of 1 and 8 and the ten-step window only.
        progress: is told what is being done.
        keep: is given all rows there are, after every subject.

    Returns:
        The rows, and the device they belong to.

    Raises:
        InputError: a path computes something else than PyTorch; nothing is timed then.
    """
    vasa = engine.engine(model, device, precision, seed)
    cases = list(operations.cases(vasa.config.face, vasa.config.motion, vasa.device, vasa.dtype, seed))
    progress("checking that every path computes the same")
    errors = judge(cases) | judge_engine(vasa, seed)
    wrong = [f"{what} (error {error:.1e}, allowed {allowed:.0e})" for what, (error, allowed) in errors.items()
             if not error <= allowed]  # fmt: skip
    if wrong:
        raise InputError(
            f"the fused path differs from PyTorch in {', '.join(wrong)}; nothing was timed; "
            "run with VASA_KERNELS=torch and report it"
        )
    speed = clock.bandwidth(vasa.device), clock.arithmetic(vasa.device, vasa.dtype)
    rows: list[Row] = []
    with torch.inference_mode():
        for case in cases:
            progress(f"{case.name}, {case.shape}")
            rows += _operation(case, vasa.device, seconds, speed[0], errors)
    for subject, shape, frames, paths in subjects(vasa, seed, quick):
        progress(subject)
        rows += _subject(vasa, subject, shape, frames, paths, seconds, speed, errors)
        keep(rows, vasa.device)
    return rows, vasa.device


def judge(cases: list[operations.Case]) -> dict[str, tuple[float, float]]:
    """What -> (error of the fused path against float64, error allowed), for every operation."""
    errors = {}
    for case in cases:
        exact = case.exact()
        for provider, run in case.paths.items():
            allowed = case.tolerance if provider == "fused" else float("inf")
            errors[f"{case.name}, {case.shape}, {provider}"] = _distance(run(), exact), allowed
    return errors


def judge_engine(vasa: Vasa, seed: int) -> dict[str, tuple[float, float]]:
    """The same for frames against float32, where the eager path's own error is allowed, too; motion against eager."""
    with torch.inference_mode():
        face = vasa.encode(engine.portrait(vasa, seed))
        exact = engine.exact_frames(vasa, face, 2, seed)
        away = {path: _distance(run(), exact) for path, run in engine.decode_paths(vasa, face, 2, seed).items()}
        window = engine.window_paths(vasa, 10, seed)
        return {
            "frames": (away["fused"], max(FRAME_TOLERANCE[vasa.dtype], _ROUNDED_TWICE * away["eager"])),
            "motion": (_distance(window["fused"](), window["eager"]()), MOTION_TOLERANCE),
        }


def subjects(vasa: Vasa, seed: int, quick: bool):
    """What is timed of the engine: (subject, sizes, frames that one call makes, paths)."""
    shape = f"{vasa.size} px"
    picture = engine.portrait(vasa, seed)
    face = vasa.encode(picture)

    def plain_encode() -> object:
        with engine.plainly():
            return vasa.encode(picture)

    yield "encode", shape, 0, {"fused": lambda: vasa.encode(picture), "eager": plain_encode}
    for count in engine.BATCHES[:2] if quick else engine.BATCHES:
        yield f"decode, batch {count}", shape, count, engine.decode_paths(vasa, face, count, seed)
    config = vasa.config.motion
    for steps in engine.STEPS[-1:] if quick else engine.STEPS:
        sizes = f"3 x {1 + config.num_previous + config.window} x {config.dim}"
        yield f"window of {config.window} frames, {steps} steps", sizes, config.window, (
            engine.window_paths(vasa, steps, seed)
        )  # fmt: skip
    yield "first frame after a hop of sound", shape, 0, engine.hop_paths(vasa, face, 1.0, 10, seed)
    made = engine.session(vasa, face, 2.0, 10, seed).frames_ready
    yield "streaming, frames of 2 s of sound", shape, made, engine.stream_paths(vasa, face, 2.0, 10, seed)


def _operation(
    case: operations.Case,
    device: torch.device,
    seconds: float,
    bandwidth: float,
    errors: dict[str, tuple[float, float]],
) -> list[Row]:
    paths = case.paths
    if case.graph and device.type == "cuda":
        paths = {name: clock.graph_of(run) for name, run in paths.items()}
    timings = clock.race(paths, device, seconds=seconds / 4)
    rows = []
    for provider, timing in timings.items():
        rows.append(
            Row(
                case.name,
                case.shape,
                provider,
                timing.p20 * 1e3,
                timing.p50 * 1e3,
                timing.p80 * 1e3,
                timing.processor * 1e3,
                timing.judged / timings["fused"].judged,
                # a CPU's caches are faster than the copy that was measured
                roofline=case.bytes / bandwidth / timing.p50 if device.type == "cuda" else 0.0,
                error=errors[f"{case.name}, {case.shape}, {provider}"][0],
            )  # fmt: skip
        )
    return rows


def _subject(
    vasa: Vasa, subject: str, shape: str, frames: int, paths: dict[str, Callable[[], Tensor]], seconds: float,
    speed: tuple[float, float], errors: dict[str, tuple[float, float]],
) -> list[Row]:  # fmt: skip
    memory = {provider: clock.peak_memory(run, vasa.device) for provider, run in paths.items()}
    timings = clock.race(paths, vasa.device, seconds=seconds, flush=False, warm=True)
    work = engine.arithmetic_of(paths["eager"])
    what = "motion" if subject.startswith("window") else "frames"
    rows = []
    for provider, timing in timings.items():
        row = Row(
            subject, shape, provider, timing.p20 * 1e3, timing.p50 * 1e3, timing.p80 * 1e3, timing.processor * 1e3,
            timing.judged / timings["fused"].judged, frames / timing.p50, work / speed[1] / timing.judged,
            memory=memory[provider] / 1e6,
        )  # fmt: skip
        judged = subject.startswith(("decode", "window")) and provider == "fused"
        rows.append(replace(row, error=errors[what][0]) if judged else row)
    return rows


def write(rows: list[Row], device: torch.device, out: Path) -> list[Path]:
    """`out`.csv and `out`.md, complete or not at all."""
    report = "\n".join(f"- {name}: {choice}" for name, choice in backend_report(device).items())
    texts = {".csv": to_csv(rows, device), ".md": to_markdown(rows, device) + f"\nKernels:\n\n{report}\n"}
    written = []
    for ending, text in texts.items():
        path = out.with_suffix(ending)
        with replacing(path) as partial:
            partial.write_text(text)
        written.append(path)
    return written


def _distance(got: Tensor, exact: Tensor) -> float:
    exact = exact.double()
    return float((got.double() - exact).norm() / exact.norm().clamp_min(1e-30))
