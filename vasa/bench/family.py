"""The LivePortrait family: our networks against our eager path, and against the published ones where a clone is given.

All contestants have the same seeded random weights and the same input; speed does not depend on what weights say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..backends.liveportrait.config import RendererConfig
from ..backends.liveportrait.weights import PARTS
from ..backends.seeded import inputs
from ..device import pick_device, pick_precision
from ..errors import InputError
from ..graphs import Graphed
from ..runtime import lay_out
from ..runtime import precision as precise
from . import clock
from .engine import arithmetic_of, plainly
from .published import paired, published, renderer, seeded_part
from .table import Row

NAME = "liveportrait"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}
"""Largest relative L2 difference from the published modules in float32, or from our eager path where there are none."""
BATCHES = (1, 8)
Paths = dict[str, Callable[[], Tensor]]


def bench_family(
    clone: Path | None = None, *, device: str = "auto", precision: str = "auto", seconds: float = 2.0,
    quick: bool = False, config: RendererConfig | None = None, progress: Callable[[str], None] = lambda line: None,
    keep: Callable[[list[Row], torch.device], None] = lambda rows, device: None,
) -> tuple[list[Row], torch.device]:  # fmt: skip
    """Measure extractors, warp and decoder.

    Args:
        clone: folder of the published LivePortrait repository; None: no published contestant.
        device, precision: as in `Vasa.from_pretrained`. The published modules run as published: half precision on a
            GPU, float32 on a CPU, frame by frame.
        seconds: to spend on each contestant, about.
        quick: single frames only.
        config: sizes; default the published ones.
        progress: is told what is being done.
        keep: is given all rows there are, after every subject.

    Returns:
        The rows, and the device they belong to.

    Raises:
        InputError: our networks compute something else; nothing is timed then.
    """
    place = pick_device(device)
    dtype = pick_precision(precision, place)
    config = config or RendererConfig()
    theirs = {} if clone is None else renderer(published(clone, "published_liveportrait"), config)
    ours = nn.ModuleDict({p: paired(theirs[p], p, config) if theirs else seeded_part(p, config) for p in PARTS})
    lay_out(ours.to(place))
    published_parts = nn.ModuleDict(theirs).to(place)
    progress("checking that every path computes the same")
    cases = _cases(config, place, dtype, ours, published_parts, BATCHES[:1] if quick else BATCHES)
    errors = {what: _difference(paths, exact) for what, (_, paths, exact) in cases.items()}
    wrong = [
        f"{what} (error {error:.1e}, allowed {TOLERANCE[dtype]:.0e})" for what, error in errors.items()
        if not error <= TOLERANCE[dtype]
    ]  # fmt: skip
    if wrong:
        raise InputError(f"our networks differ from the published ones in {', '.join(wrong)}; nothing was timed")
    rows, speed = [], clock.arithmetic(place, dtype)
    for what, (frames, paths, _) in cases.items():
        progress(what)
        memory = {provider: clock.peak_memory(run, place) for provider, run in paths.items()}
        timings = clock.race(paths, place, seconds=seconds, flush=False, warm=True)
        work = arithmetic_of(paths["eager"])
        for provider, timing in timings.items():
            rows.append(
                Row(
                    what,
                    f"{config.image_size} px",
                    provider,
                    timing.p20 * 1e3,
                    timing.p50 * 1e3,
                    timing.p80 * 1e3,
                    timing.processor * 1e3,
                    timing.judged / timings["fused"].judged,
                    frames / timing.p50,
                    work / speed / timing.judged,
                    errors[what] if provider == "fused" else 0.0,
                    memory[provider] / 1e6,
                )  # fmt: skip
            )
        keep(rows, place)
    return rows, place


def _cases(
    config: RendererConfig, place: torch.device, dtype: torch.dtype, ours: nn.ModuleDict, theirs: nn.ModuleDict,
    batches: tuple[int, ...],
) -> dict[str, tuple[int, Paths, Callable[[], Tensor]]]:  # fmt: skip
    """Subject -> (frames a call makes, contestants, the truth)."""
    size = config.volume_size
    picture = inputs("picture", 1, 3, config.input_size, config.input_size).sigmoid().to(place)
    volume = inputs("volume", 1, config.volume_channels, config.volume_depth, size, size).to(place)
    source = inputs("source", 1, 21, 3).to(place) * 0.3
    as_published = torch.float16 if place.type == "cuda" else torch.float32
    found: dict[str, tuple[int, Paths, Callable[[], Tensor]]] = {}

    def add(
        what: str,
        frames: int,
        given: tuple[Tensor, ...],
        mine: Callable[..., Tensor],
        published_one: Callable[..., Tensor],
    ) -> None:
        recorded = Graphed(lambda *tensors: (mine(*tensors),), what)
        paths = {
            "fused": _inferring(lambda: recorded(*given)[0], place, dtype),
            "eager": _plain(_inferring(lambda: mine(*given), place, dtype)),
        }
        exact = _plain(_inferring(lambda: mine(*given), place, torch.float32))
        if len(theirs):
            paths["published"] = _inferring(lambda: published_one(*given), place, as_published)
            exact = _inferring(lambda: published_one(*given), place, torch.float32)
        found[what] = frames, paths, exact

    def warp(driving: Tensor, volume: Tensor, source: Tensor) -> Tensor:
        return ours["warping"](volume, driving, source)

    def their_warp(driving: Tensor, volume: Tensor, source: Tensor) -> Tensor:
        return torch.cat([theirs["warping"](volume, kp_driving=d[None], kp_source=source)["out"] for d in driving])

    def their_decode(features: Tensor) -> Tensor:
        return torch.cat([theirs["decoder"](f[None]) for f in features])

    add("appearance", 0, (picture,), lambda x: ours["appearance"](x), lambda x: theirs["appearance"](x))
    add("motion extractor", 1, (picture,), lambda x: _row(ours["motion_extractor"].detector(x)),
        lambda x: _row(theirs["motion_extractor"](x)))  # fmt: skip
    for count in batches:
        move = inputs("driving", count, 21, 3).to(place) * 0.3, volume, source
        features = inputs("features", count, config.label_dim, size, size).to(place)
        add(f"warp, batch {count}", count, move, warp, their_warp)
        add(f"decode, batch {count}", count, (features,), lambda x: ours["decoder"](x), their_decode)
        add(
            f"warp + decode, batch {count}",
            count,
            move,
            lambda *given: ours["decoder"](warp(*given)),
            lambda *given: their_decode(their_warp(*given)),
        )
    return found


def _row(seen: dict[str, Tensor]) -> Tensor:
    return torch.cat([seen[name] for name in ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")], 1)


def _inferring(run: Callable[[], Tensor], place: torch.device, dtype: torch.dtype) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def inferred() -> Tensor:
        with precise(place, dtype):
            return run()

    return inferred


def _plain(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def plain() -> Tensor:
        with plainly():
            return run()

    return plain


def _difference(paths: Paths, exact: Callable[[], Tensor]) -> float:
    truth = exact().double()
    return float((paths["fused"]().double() - truth).norm() / truth.norm())
