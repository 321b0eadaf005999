"""The engine: frames = decode(portrait, motion(audio, controls)). Device and precision are decided here, once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint
from .config import VasaConfig
from .controls import Controls
from .errors import InputError
from .geometry import AVERAGE_LOG_SCALE, NECK, rotation
from .latents import FaceLatents, Motion
from .motion.blinks import with_blinks
from .motion.windows import WindowPlan, generate

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Vasa:
    """A loaded model.

    >>> vasa = Vasa.from_pretrained("vasa-mini")                    # doctest: +SKIP
    >>> face = vasa.encode(portrait)                                # doctest: +SKIP
    >>> motion = vasa.generate(waveform, face, Controls(seed=1))    # doctest: +SKIP
    >>> frames = torch.cat(list(vasa.decode(face, motion)))         # doctest: +SKIP
    """

    def __init__(self, models: checkpoint.Models, device: torch.device, dtype: torch.dtype) -> None:
        self.models = models
        self.device = device
        self.dtype = dtype

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path = "vasa-mini", *, device: str = "auto", precision: str = "auto"
    ) -> Vasa:
        """Load a model.

        Args:
            name_or_folder: a shipped model's name or a folder.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            precision: "auto", "fp32", "bf16" or "fp16".

        Raises:
            InputError: no such model, damaged weights, a device that is not there, or an unknown precision.
        """
        place = pick_device(device)
        dtype = pick_precision(precision, place)
        models = checkpoint.load(name_or_folder, place)
        for module in models.face.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
            elif isinstance(module, torch.nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)
        return cls(models, place, dtype)

    @property
    def config(self) -> VasaConfig:
        """Sizes of the model."""
        return self.models.config

    @property
    def size(self) -> int:
        """Edge of the pictures, pixels."""
        return self.config.face.image_size

    @property
    def fps(self) -> float:
        """Frames per second of the motion."""
        return self.config.motion.fps

    def _precision(self) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @torch.inference_mode()
    def read_pose(self, portrait: Tensor) -> Tensor:
        """Head pose [6] of a picture [3, S, S]; float32 on the CPU."""
        picture = portrait[None].to(self.device)
        reader = self.models.reader
        pose = reader(picture).head_pose if reader is not None else self.models.face.pose(picture)
        return pose[0].float().cpu()

    @torch.inference_mode()
    def encode(self, portrait: Tensor) -> FaceLatents:
        """Encode a portrait [3, S, S] in [0, 1], S = `size`, once for any number of clips.

        Raises:
            InputError: another shape.
        """
        if portrait.shape != (3, self.size, self.size):
            raise InputError(
                f"expected a portrait [3, {self.size}, {self.size}], got {list(portrait.shape)}; "
                "crop it with vasa.io.face.portrait_crop"
            )
        picture = portrait[None].to(self.device)
        head_pose, facial_dynamics = self.models.face.read(picture)
        with self._precision():
            return self.models.face.encode(picture, head_pose, facial_dynamics)

    @torch.inference_mode()
    def generate(
        self,
        waveform: Tensor,
        face: FaceLatents,
        controls: Controls | None = None,
        *,
        plan: WindowPlan | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Motion:
        """Motion for a whole clip, placed on the portrait's own shoulders.

        Args:
            waveform: mono 16 kHz in [-1, 1], [N].
            face: the portrait's latents.
            controls: what the user asks for.
            plan: how the clip is cut into windows.
            progress: progress(done, total) after each denoising step; may raise to cancel.

        Returns:
            ceil(seconds * fps) frames.
        """
        controls = controls or Controls()
        plan = plan or WindowPlan(window=self.config.motion.window)
        seconds = waveform.shape[-1] / self.config.audio.sample_rate
        num_frames = max(1, math.ceil(seconds * self.fps - 1e-6))
        total = plan.count(num_frames) * controls.steps
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        # float32 whatever the pictures' precision: bf16 motion trembles
        pieces = generate(
            self.models.motion, self.models.audio, waveform.to(self.device), controls.curves(num_frames),
            controls, num_frames, plan, step,
        )  # fmt: skip
        vectors = torch.cat(list(pieces), dim=1)[0]
        motion = with_blinks(
            Motion.from_vectors(vectors, self.fps), self.config.face.dynamics_names, controls.blinks, controls.seed
        )
        return on_shoulders(motion, face.head_pose[0])

    @torch.inference_mode()
    def decode(self, face: FaceLatents, motion: Motion, *, batch_size: int = 8) -> Iterator[Tensor]:
        """Frames of a motion on a face, [n, 3, S, S] float32 in [0, 1], n <= batch_size, on the CPU.

        Raises:
            InputError: the motion belongs to another backend.
        """
        if motion.backend != "vasa":
            raise InputError(f"this motion was made for the backend {motion.backend!r}, the model is 'vasa'")
        for start in range(0, len(motion), batch_size):
            pose = motion.head_pose[start : start + batch_size].to(self.device)
            dynamics = motion.facial_dynamics[start : start + batch_size].to(self.device)
            with self._precision():
                image = self.models.face.decode(face, pose, dynamics).image
            yield image.float().clamp(0, 1).cpu()


def on_shoulders(motion: Motion, portrait_pose: Tensor) -> Motion:
    """Generated motion becomes movement about the portrait's own pose, with the neck where the portrait's neck is.

    The generator works at the average framing, facing the camera, with the neck at exp(AVERAGE_LOG_SCALE) * NECK.
    A portrait in half profile stays one: turning it to the camera would show what the picture does not contain.

    Args:
        motion: generated motion.
        portrait_pose: head pose of the portrait, [6].
    """
    neck = portrait_pose.new_tensor(NECK)
    rest, scale = math.exp(AVERAGE_LOG_SCALE), portrait_pose[5].exp()
    pose = motion.head_pose.to(portrait_pose)
    sway = pose[:, 3:5] + pose[:, 5:].exp() * (rotation(pose[:, :3]) @ neck)[:, :2] - rest * neck[:2]
    portrait_neck = scale * (rotation(portrait_pose[:3]) @ neck)[:2] + portrait_pose[3:5]
    angles = pose[:, :3] + portrait_pose[:3]
    log_s = pose[:, 5:] - AVERAGE_LOG_SCALE + portrait_pose[5]
    t = portrait_neck + sway * (scale / rest) - log_s.exp() * (rotation(angles) @ neck)[:, :2]
    return Motion(torch.cat([angles, t, log_s], dim=-1), motion.facial_dynamics, motion.fps, motion.backend)


def pick_device(name: str) -> torch.device:
    """The device a name stands for; "auto" takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        InputError: unknown, or not present on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but PyTorch finds no CUDA GPU; use --device cpu")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format a name stands for; "auto" takes bf16 where the hardware computes in it."""
    if name != "auto" and name not in PRECISIONS:
        raise InputError(f"unknown precision {name!r}; use auto, {', '.join(PRECISIONS)}")
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    fast = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast and has_bf16_units() else torch.float32


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    capability = torch.backends.cpu.get_cpu_capability()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else capability == "AVX512"
