"""Motion to frames as fast as the device allows, with the same frames everywhere.

Weights are converted to the working precision once and not at every call; `vasa.batches` does the rest.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .batches import Batches, mark_of
from .face.blocks import NormAct
from .face.closeup import CloseUp
from .face.decoder import Decoder
from .face.model import FaceModel
from .face.warp import WarpGenerator
from .latents import FaceLatents

_DECODING = ("embed_driving", "warp_driving", "camera", "surface", "decoder", "closeups")
"""Parts of the face model that work on every frame."""


class Renderer:
    """Decodes on one device.

    Args:
        model: the face model, on `device`.
        device: where it works.
        dtype: precision of the network; positions, poses and the finished pictures are float32.
    """

    def __init__(self, model: FaceModel, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self._weights: tuple | None = None
        self._light: FaceModel | None = None
        self._batches: Batches | None = None

    def frames(
        self, face: FaceLatents, head_pose: Tensor, facial_dynamics: Tensor, batch_size: int, on_device: bool = False,
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Decode poses [T, 6] and dynamics [T, E].

        Args:
            face: latents of one portrait.
            batch_size: frames at a time; fewer once the memory was too small.
            on_device: leave the frames where they are made.
            finish: done to each batch before it travels.

        Yields:
            [n, 3, S, S] float32 in [0, 1], n <= batch_size, or what `finish` makes of it.
        """
        self._refresh()
        face = face.to(self.device)
        shared = tuple(getattr(face, name) for name in FaceLatents.__dataclass_fields__)
        own = head_pose.to(self.device), facial_dynamics.to(self.device)
        yield from self._batches.frames(own, shared, batch_size, on_device, finish)

    @property
    def largest_batch(self) -> int | None:
        """Frames at a time that the memory allowed, once it was too small; None before."""
        return None if self._batches is None else self._batches.largest_batch

    def forget(self) -> None:
        """Let go of the converted weights and of what was recorded; both are made again when frames are asked for."""
        self._weights = self._light = self._batches = None

    def _pictures(self, head_pose: Tensor, facial_dynamics: Tensor, *latents: Tensor) -> tuple[Tensor]:
        with precision(self.device, self.dtype):
            image = self._light.decode(FaceLatents(*latents), head_pose, facial_dynamics).image
        return (image.float().clamp_(0, 1),)

    def _refresh(self) -> None:
        """Convert the weights, again if they have changed or moved."""
        if self._weights is None:
            parts = [getattr(self.model, name) for name in _DECODING]
            self._watched = [p for part in parts if part is not None for p in part.parameters()]
        weights = mark_of(self._watched)
        if weights != self._weights:
            self._light = decoding_copy(self.model, self.dtype)
            self._batches = Batches(self._pictures, self.device)
            self._weights = weights


def lay_out(model: nn.Module) -> None:
    """Give convolutions channels-last weights, which they are fastest with; Apple's GPUs keep the plain layout."""
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d) or module.weight.device.type == "mps":
            continue
        is_flat = isinstance(module, nn.Conv2d)
        module.to(memory_format=torch.channels_last if is_flat else torch.channels_last_3d)


def decoding_copy(model: FaceModel, dtype: torch.dtype) -> FaceModel:
    """The same model whose per-frame parts hold their weights in `dtype`, convolutions channels-last.

    In mixed precision PyTorch would convert them anew at every call. Enlarging is folded into the convolutions.
    """
    light = copy.copy(model)
    light._modules = dict(model._modules)
    for name in _DECODING:
        if getattr(model, name) is None:
            continue
        part = copy.deepcopy(getattr(model, name)).requires_grad_(False).eval()
        for module in part.modules():
            if isinstance(module, WarpGenerator | Decoder | CloseUp):
                module.fold(dtype)  # first: sums of rounded weights would be rounded twice
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear | NormAct):
                module.to(dtype)
        lay_out(part)
        light._modules[name] = part
    return light


def precision(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Mixed precision in `dtype`; float32 is no context at all."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    # cached conversions would not outlive the recording of a graph
    return torch.autocast(device.type, dtype, cache_enabled=False)
