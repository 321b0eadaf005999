"""The goals read off the tables that `benchmarks/gpu.py` measured."""

from __future__ import annotations

from vasa.bench.table import Row


def goals(rows: list[Row]) -> list[str]:
    """G1-G8 of the kernels' plan and the engine's, met or missed."""

    def figures(field: str, subject: str, shape: str = "", provider: str = "fused") -> list[float]:
        found = [r for r in rows if r.subject == subject and r.shape.startswith(shape) and r.provider == provider]
        return [getattr(r, field) for r in found] or [float("nan")]

    def times(subject: str, shape: str, provider: str) -> float:
        return min(figures("speedup", subject, shape, provider))

    def value(field: str, subject: str, shape: str = "") -> float:
        return figures(field, subject, shape)[0]

    slopes = "sampling with its gradients"
    warp, window = "warp, one volume for all frames", "window of 50 frames, 50 steps"
    hop, norm = "first frame after a hop of sound", "group norm and SiLU"
    native = next(
        (r.provider for r in rows if r.subject == "sampling" and r.provider not in ("fused", "native float32")), ""
    )
    wanted = [
        ("G1 fused warp, 8 frames, against the ancestors' chain", times(warp, "8", "ancestors"), 5.0),
        ("G2 sampling against native in the same precision", times("sampling", "8", native), 1.8),
        ("G2 error of native in the same precision over ours",
         figures("error", "sampling", "8", native)[0] / max(value("error", "sampling", "8"), 1e-12), 60.0),
        ("G3 sampling against native float32", times("sampling", "8", "native float32"), 2.2),
        ("G4 sampling with gradients against native float32", times(slopes, "8", "native float32"), 1.2),
        ("G4 the same against native in the same precision", times(slopes, "8", native), 3.0),
        ("G6 group norm and SiLU against PyTorch, worst size", times(norm, "8", "eager"), 2.5),
        ("G6 share of the bandwidth, worst size", min(figures("roofline", norm, "8")), 0.7),
        ("upsampling block against plain convolutions, worst size", times("upsampling block", "8", "eager"), 1.0),
        ("G7 attention against SDPA, worst length", times("attention", "3", "eager"), 1.0),
        ("G7 attention with bias against SDPA, worst length", times("attention, bias", "3", "eager"), 1.3),
        ("G8 window of 50 steps against eager", times(window, "3", "eager"), 5.0),
        ("decode, batch 32, against eager", times("decode, batch 32", "512", "eager"), 3.0),
        ("decode, batch 32, frames per second", value("rate", "decode, batch 32"), 400.0),
        ("decode, batch 1, frames per second", value("rate", "decode, batch 1"), 250.0),
    ]  # fmt: skip
    limits = [
        ("G1 fused warp, 8 frames, microseconds", 1e3 * value("p50", warp, "8"), 75.0),
        ("G4 error of the gradients, percent", 100 * value("error", slopes, "8"), 0.5),
        ("G5 warp of one frame, microseconds", 1e3 * value("p50", warp, "1"), 12.0),
        ("50-step window, ms", value("p50", window), 10.0),
        ("G8 one step, microseconds", 1e3 * value("p50", window) / 50, 200.0),
        ("first frame after the hop, ms", value("p50", hop), 60.0),
    ]
    lines = [
        f"{what}: {got:.2f}, goal at least {goal:g}: {'met' if got >= goal else 'MISSED'}" for what, got, goal in wanted
    ]
    return lines + [
        f"{what}: {got:.2f}, goal at most {goal:g}: {'met' if got <= goal else 'MISSED'}" for what, got, goal in limits
    ]
