"""The same frames and the same motion on every path of the engine, on a device."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vasa import Controls, Vasa
from vasa.backends.liveportrait.config import GeneratorConfig, RendererConfig
from vasa.backends.liveportrait.engine import LivePortrait
from vasa.backends.liveportrait.networks import EngineConfig, FaceSide, Networks
from vasa.backends.liveportrait.weights import PARTS
from vasa.backends.seeded import inputs
from vasa.bench.engine import drivers, portrait
from vasa.bench.published import seeded_part
from vasa.kernels import use_backend
from vasa.latents import FaceLatents, Motion
from vasa.runtime import lay_out
from vasa.stream import Session

FRAMES = 12
CLOSE = {torch.float32: 1e-3, torch.float16: 3e-3, torch.bfloat16: 1e-2}
"""Largest mean absolute difference of pictures in [0, 1] from plain float32 (whose convolutions may be TF32)."""
MOTION = 5e-2
"""The same for a generated motion, in radians and shares of a movement: guided steps amplify rounding."""


def paths_agree(device: torch.device, report: Any, model: str) -> list[str]:
    """Compare; lines for the report. Sets `report.wrong` where something differs."""
    lines = []

    def judge(what: str, got: Tensor, exact: Tensor, allowed: float) -> None:
        error = float((got.double() - exact.double()).abs().mean())
        fine = got.shape == exact.shape and error <= allowed
        report.wrong |= not fine
        lines.append(f"- {what}: mean difference {error:.1e}, allowed {allowed:.0e}{'' if fine else ' WRONG'}")

    count = FRAMES if device.type == "cuda" else 2  # the interpreter is slow
    sound = 0.1 * torch.randn(32_000 if count == FRAMES else 6_400, generator=torch.Generator().manual_seed(2))
    asked = Controls(steps=5 if count == FRAMES else 1, seed=1)
    formats = ("fp32",) if device.type == "cpu" else ("fp32", "bf16", "fp16")
    for name in formats:
        vasa = Vasa.from_pretrained(model, device=str(device), precision=name)
        face, allowed = vasa.encode(portrait(vasa, 0)), CLOSE[vasa.dtype]
        motion = Motion(*drivers(vasa, count, 3))
        with plainly():
            exact = frames(Vasa.from_pretrained(model, device=str(device), precision="fp32"), face, motion)
            plain_motion = vasa.generate(sound, face, asked).vectors
            judge(f"{name}, plain PyTorch", frames(vasa, face, motion), exact, allowed)
        judge(f"{name}, kernels and graphs", frames(vasa, face, motion), exact, allowed)
        judge(f"{name}, again", frames(vasa, face, motion), exact, allowed)
        judge(f"{name}, one by one", frames(vasa, face, motion, batch_size=1), exact, allowed)
        judge(f"{name}, left on the device", frames(vasa, face, motion, on_device=True).cpu(), exact, allowed)
        with environment(VASA_GRAPHS="0"):
            judge(f"{name}, kernels without graphs", frames(vasa, face, motion), exact, allowed)
        judge(f"{name}, motion", vasa.generate(sound, face, asked).vectors, plain_motion, MOTION)
        lines += streams(vasa, face, sound, asked, report)
    return lines


def family_agrees(device: torch.device, report: Any, config: RendererConfig) -> list[str]:
    """The LivePortrait family's decoder recorded and plain, in fp16 and at two batch sizes."""
    parts = {part: seeded_part(part, config) for part in PARTS}
    sizes = EngineConfig("random", FaceSide(config.image_size), GeneratorConfig(), GeneratorConfig(), config)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    engine = LivePortrait(Networks(sizes, parts).to(device), device, dtype)
    lay_out(engine.models.face)
    edge = config.volume_size
    volume = inputs("volume", 1, config.volume_channels, config.volume_depth, edge, edge)
    face = FaceLatents(volume, inputs("canonical", 1, 21, 3) * 0.3, torch.zeros(1, 6), torch.zeros(1, 63), volume)
    motion = Motion(0.1 * inputs("pose", 6, 6), 0.02 * inputs("delta", 6, 63), 25.0, engine.backend)
    with plainly():
        exact = frames(engine, face, motion, batch_size=2)
    lines = []
    for count in (1, 4):
        got = frames(engine, face, motion, batch_size=count)
        error, allowed = float((got - exact).abs().mean()), CLOSE[dtype]
        report.wrong |= not error <= allowed
        lines.append(f"- LivePortrait, batch {count}: mean difference {error:.1e}, allowed {allowed:.0e}")
    return lines


def frames(vasa: Vasa, face: Any, motion: Motion, **options: Any) -> Tensor:
    """All pictures."""
    return torch.cat(list(vasa.decode(face, motion, **options)))


def streams(vasa: Vasa, face: Any, sound: Tensor, asked: Controls, report: Any) -> list[str]:
    """Hearing and moving on a stream of their own: the same frames as on one stream, in three runs."""
    made = []
    for word in ("0", "1", "1", "1"):
        with environment(VASA_STREAMS=word):
            session = Session(vasa, face, asked, vasa.live_plan(steps=asked.steps))
            session.push_audio(sound)
            session.flush()
            made.append(torch.cat(list(session.frames(1))))
    far = max(float((one - made[0]).abs().mean()) for one in made[1:])
    report.wrong |= not far <= 1e-4  # cuBLAS may round otherwise on another stream; a race would show
    same = all(torch.equal(one, made[0]) for one in made[1:])
    return [f"- {len(made[0])} frames on two streams: {'the same bits' if same else f'mean difference {far:.1e}'}"]


def tight(device: torch.device, report: Any) -> list[str]:
    """Decode with less memory than a large batch wants: it is halved and the frames are the same."""
    vasa = Vasa.from_pretrained("vasa-mini", device=str(device))
    face, motion = vasa.encode(portrait(vasa, 0)), Motion(*drivers(vasa, 256, 3))
    exact = frames(vasa, face, motion, batch_size=8)
    own = Vasa(vasa.models, vasa.device, vasa.dtype)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    share = (torch.cuda.memory_reserved(device) + (600 << 20)) / total
    torch.cuda.set_per_process_memory_fraction(share, device)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            got = frames(own, face, motion, batch_size=len(motion))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    far = float((got - exact).abs().mean())
    report.wrong |= not far <= 1e-3
    return [f"- {len(motion)} frames at once with 600 MB: mean difference {far:.1e}", *(f"- {w.message}" for w in said)]


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Eager PyTorch."""
    with environment(VASA_GRAPHS="0"), use_backend("torch"):
        yield
