"""The goals read off the tables that `benchmarks/gpu.py` measured."""

from __future__ import annotations

from vasa.bench.table import Row


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
