"""The whole engine: encode, decode, a diffusion window, the first frame after a hop of sound, streaming."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .. import checkpoint
from ..audio import AudioEncoder
from ..config import CONFIGS
from ..controls import Controls
from ..device import pick_device, pick_precision
from ..errors import InputError
from ..face.model import FaceModel
from ..kernels import use_backend
from ..latents import FaceLatents
from ..live import frames_at_a_time
from ..motion.conditions import Conditions, nothing_empty
from ..motion.diffusion import sample
from ..motion.transformer import Denoiser
from ..pipeline import Vasa
from ..runtime import lay_out, precision
from ..stream import Session

BATCHES = (1, 8, 32)
STEPS = (50, 10)


def engine(name_or_folder: str, device: str, number_format: str, seed: int) -> Vasa:
    """A model from its folder, or a configuration without weights (such as "vasa-1") with random ones."""
    if name_or_folder not in CONFIGS and (backend := checkpoint.backend_of(name_or_folder)) != "vasa":
        raise InputError(
            f"{name_or_folder} is a model of the backend {backend!r}; measure its networks with random weights by "
            f"`vasa bench --model {backend}`"
        )
    known = CONFIGS.get(name_or_folder)
    if known is None or (checkpoint.PACKAGED / name_or_folder).is_dir():
        return Vasa.from_pretrained(name_or_folder, device=device, precision=number_format)
    place = pick_device(device)
    torch.manual_seed(seed)
    # a downloaded audio encoder is of the same size with random weights
    audio = AudioEncoder(replace(known.audio, source=""))
    models = checkpoint.Models(
        known, _awake(FaceModel(known.face)), _awake(Denoiser(known.motion, known.motion_dim, audio.feature_dim)),
        audio, None,
    )  # fmt: skip
    for module in (models.face, models.motion, models.audio):
        module.to(place).eval().requires_grad_(False)
    lay_out(models.face)
    return Vasa(models, place, pick_precision(number_format, place))


def _awake(module: torch.nn.Module) -> torch.nn.Module:
    # what starts at zero would hide errors: give it small values
    for parameter in module.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    return module


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Our own eager PyTorch path: no Triton kernel, no graph."""
    before = os.environ.get("VASA_GRAPHS")
    os.environ["VASA_GRAPHS"] = "0"
    try:
        with use_backend("torch"):
            yield
    finally:
        os.environ.pop("VASA_GRAPHS")
        if before is not None:
            os.environ["VASA_GRAPHS"] = before


def drivers(vasa: Vasa, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Poses [count, 6] and dynamics [count, E] like those of speech."""
    draw = torch.Generator().manual_seed(seed)
    pose = torch.randn(count, 6, generator=draw) * torch.tensor([0.15, 0.1, 0.08, 0.03, 0.03, 0.03])
    dynamics = torch.rand(count, vasa.config.face.dynamics_dim, generator=draw) * 0.4
    return pose.to(vasa.device), dynamics.to(vasa.device)


def portrait(vasa: Vasa, seed: int) -> Tensor:
    """A smooth random picture; speed does not depend on what it shows."""
    draw = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 16, 16, generator=draw)
    return torch.nn.functional.interpolate(small, size=(vasa.size, vasa.size), mode="bilinear")[0]


def decode_paths(vasa: Vasa, face: FaceLatents, count: int, seed: int) -> dict[str, Callable[[], Tensor]]:
    """Decoding one batch: vasa's path, and the eager one that converts weights at every call."""
    pose, dynamics = drivers(vasa, count, seed)

    @torch.inference_mode()
    def fused() -> Tensor:
        return torch.cat(list(vasa.renderer.frames(face, pose, dynamics, count, on_device=True)))

    @torch.inference_mode()
    def eager() -> Tensor:
        with plainly(), precision(vasa.device, vasa.dtype):
            return vasa.models.face.decode(face, pose, dynamics).image.float().clamp(0, 1)

    return {"fused": fused, "eager": eager}


@torch.inference_mode()
def exact_frames(vasa: Vasa, face: FaceLatents, count: int, seed: int) -> Tensor:
    """What `decode_paths` should give, eager in float32."""
    with plainly():
        return vasa.models.face.decode(face.to(torch.float32), *drivers(vasa, count, seed)).image.clamp(0, 1)


def window_paths(vasa: Vasa, steps: int, seed: int) -> dict[str, Callable[[], Tensor]]:
    """One diffusion window with audio and gaze guided, three rows."""
    config, device = vasa.config.motion, vasa.device
    k, w, m, a = config.num_previous, config.window, vasa.config.motion_dim, vasa.models.audio.feature_dim
    draw = torch.Generator().manual_seed(seed)
    random = lambda *size: torch.randn(size, generator=draw).to(device)  # noqa: E731
    conditions = Conditions(
        audio=random(1, w, a), heard=torch.ones(1, w, device=device), gaze=0.1 * random(1, w, 2),
        distance=0.1 * random(1, w, 1), emotion=torch.zeros(1, w, config.emotions, device=device),
        previous_motion=random(1, k, m), previous_audio=random(1, k, a), empty=nothing_empty(1, device),
    )  # fmt: skip
    noise = random(1, w, m)

    @torch.inference_mode()
    def fused() -> Tensor:
        return sample(vasa.models.motion, conditions, w, scales={"audio": 0.5, "gaze": 1.0}, steps=steps, noise=noise)

    def eager() -> Tensor:
        with plainly():
            return fused()

    return {"fused": fused, "eager": eager}


def arithmetic_of(run: Callable[[], object]) -> float:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def session(vasa: Vasa, face: FaceLatents, seconds: float, steps: int, seed: int) -> Session:
    """A live session that has just been given sound."""
    draw = torch.Generator().manual_seed(seed)
    live = Session(vasa, face, Controls(seed=seed, steps=steps), vasa.live_plan(steps=steps))
    live.push_audio(0.1 * torch.randn(round(16_000 * seconds), generator=draw))
    return live


def hop_paths(vasa: Vasa, face: FaceLatents, seconds: float, steps: int, seed: int) -> dict[str, Callable[[], object]]:
    """From the sound of the first hop to its first frame, with those that live use decodes together with it."""

    def fused() -> object:
        return next(iter(session(vasa, face, seconds, steps, seed).frames(frames_at_a_time(vasa))))

    def eager() -> object:
        with plainly():
            return fused()

    return {"fused": fused, "eager": eager}


def stream_paths(
    vasa: Vasa, face: FaceLatents, seconds: float, steps: int, seed: int
) -> dict[str, Callable[[], object]]:
    """All frames that some sound gives, as many at a time as in live use."""

    def fused() -> object:
        for frames in session(vasa, face, seconds, steps, seed).frames(frames_at_a_time(vasa)):
            last = frames
        return last

    def eager() -> object:
        with plainly():
            return fused()

    return {"fused": fused, "eager": eager}
