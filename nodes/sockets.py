"""Socket types of the pack and what travels through them; everything but weights is kept on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .api import io
from .engine import InputError
from .hearing import CoreEncoder
from .host import host

CATEGORY = "VASA"
ModelSocket = io.Custom("VASA_MODEL")
FaceSocket = io.Custom("VASA_FACE")
CropSocket = io.Custom("VASA_CROP")
SpeechSocket = io.Custom("VASA_AUDIO_FEATURES")
ControlsSocket = io.Custom("VASA_CONTROLS")
MotionSocket = io.Custom("VASA_MOTION")

BYTES_PER_PIXEL = 1000
"""Working memory of decoding that is asked for, bytes per output pixel of a batch. vasa-mini took 117 (float32, CPU,
batches of 16 and 32); models with wider layers take more."""


@dataclass
class LoadedModel:
    """An engine whose weights the host moves between devices.

    Attributes:
        engine: `Vasa`, or another engine of the same interface.
        name: as chosen by the user.
        managed: the host's handle on the weights; None where they never move.
    """

    engine: Any
    name: str
    managed: Any = None

    @contextmanager
    def on_device(self, batch_size: int = 1, ears: CoreEncoder | None = None) -> Iterator[Any]:
        """The engine with its weights in place, ready for batches of that many pictures.

        Args:
            batch_size: pictures at a time.
            ears: what it is to hear with instead of its own audio encoder.
        """
        memory = batch_size * self.engine.size**2 * BYTES_PER_PIXEL
        device = host().ready(self.managed, memory, *(() if ears is None else (ears.managed,)))
        if device is not None:
            self.engine.device = device
        yield self.engine if ears is None else self.engine.hearing(ears)

    def batch_size(self, wanted: int) -> int:
        """Frames at a time; 0 becomes 1 where a frame takes long (so that Stop is quick), 8 on a GPU."""
        return wanted or (1 if torch.device(self.engine.device).type == "cpu" else 8)


@dataclass(frozen=True)
class Face:
    """One encoded portrait.

    Attributes:
        latents: what the engine's `encode` returned, on the CPU.
        backend: which engine understands it.
        picture: the portrait as the engine saw it, [3, S, S].
    """

    latents: Any
    backend: str
    picture: Tensor

    def on(self, engine: Any) -> Any:
        """The latents on the engine's device.

        Raises:
            InputError: they were made by another engine.
        """
        if self.backend != engine.backend:
            raise InputError(
                f"this face was encoded by the engine {self.backend!r}, the model is {engine.backend!r}; "
                "connect the same model to Encode Face and to this node"
            )
        return moved(self.latents, engine.device)


@dataclass(frozen=True)
class Framing:
    """Where a portrait was cut out, for pasting the result back.

    Attributes:
        original: the whole picture, [3, H, W] in [0, 1].
        crop: the square, `vasa.io.face.Crop`.
    """

    original: Tensor
    crop: Any


@dataclass(frozen=True)
class Speech:
    """Sound as the motion generator hears it.

    Attributes:
        waveform: mono 16 kHz in [-1, 1], [N].
        frames: video frames that cover it: ceil(seconds * fps).
        fps: frames per second.
        ears: ComfyUI's audio encoder, where the user connected one.
    """

    waveform: Tensor
    frames: int
    fps: float
    ears: CoreEncoder | None = None


def moved(value: Any, device: torch.device | str) -> Any:
    """A dataclass of tensors on a device."""
    if hasattr(value, "to"):
        return value.to(device)
    if is_dataclass(value):
        return type(value)(**{one.name: moved(getattr(value, one.name), device) for one in fields(value)})
    return value


class Weights(nn.ModuleDict):
    """Every module of an engine under one roof, so that they are moved together.

    When they are, as ComfyUI does to make room, what the engine made of them on the old device is let go too.
    """

    def __init__(self, engine: Any) -> None:
        models = engine.models
        found = (
            {one.name: getattr(models, one.name) for one in fields(models)} if is_dataclass(models) else vars(models)
        )
        super().__init__({name: module for name, module in found.items() if isinstance(module, nn.Module)})
        self.engine = engine

    def _apply(self, *args: Any, **kwargs: Any) -> Weights:
        super()._apply(*args, **kwargs)
        self.engine.release()
        return self


def as_pictures(images: Tensor) -> Tensor:
    """ComfyUI's IMAGE [B, H, W, C] to [B, 3, H, W] float32 on the CPU; grey becomes RGB, alpha is dropped."""
    pictures = images.detach().float().cpu().movedim(-1, 1)
    return pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures[:, :3]


def as_images(pictures: Tensor) -> Tensor:
    """[B, 3, H, W] to ComfyUI's IMAGE."""
    return host().pictures(pictures.movedim(1, -1))
