"""Motion to frames as fast as the device allows, with the same frames everywhere.

Weights are converted to the working precision once and not at every call; on CUDA each batch size is one graph, and
finished frames travel to pinned memory while the next batch is computed. Where the memory does not suffice, batches
are halved.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from . import graphs
from .face.blocks import NormAct
from .face.decoder import Decoder
from .face.model import FaceModel
from .face.warp import WarpGenerator
from .graphs import Graphed
from .latents import FaceLatents

_DECODING = ("embed_driving", "warp_driving", "decoder")
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
        self.largest_batch: int | None = None
        """Frames at a time that the memory allows, once it was too small; None before."""
        self._weights: tuple | None = None

    def frames(
        self, face: FaceLatents, head_pose: Tensor, facial_dynamics: Tensor, batch_size: int, on_device: bool = False
    ) -> Iterator[Tensor]:
        """Decode poses [T, 6] and dynamics [T, E].

        Args:
            face: latents of one portrait.
            batch_size: frames at a time; fewer once the memory was too small.
            on_device: leave the frames where they are made.

        Yields:
            [n, 3, S, S] float32 in [0, 1], n <= batch_size.
        """
        self._refresh()
        face = face.to(self.device)
        head_pose, facial_dynamics = head_pose.to(self.device), facial_dynamics.to(self.device)
        outgoing: list[tuple[Tensor, torch.cuda.Event | None]] = []
        ahead = 1 if self.device.type == "cuda" else 0  # the device is busy with a batch while the last one travels
        start = 0
        while start < len(head_pose):
            count = min(batch_size, self.largest_batch or batch_size)
            stop = min(start + count, len(head_pose))
            pictures = None
            try:
                # copies: kernels may round otherwise where memory begins elsewhere, and frames must not depend on that
                pictures = self._decode(face, head_pose[start:stop].clone(), facial_dynamics[start:stop].clone())
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise
            if pictures is None:  # outside of the handler, whose traceback holds on to the memory
                self._halve(stop - start)
                continue
            outgoing.append((pictures, None) if on_device else _to_cpu(pictures))
            start = stop
            if len(outgoing) > ahead:
                yield _arrived(*outgoing.pop(0))
        for pictures, event in outgoing:
            yield _arrived(pictures, event)

    def _decode(self, face: FaceLatents, head_pose: Tensor, facial_dynamics: Tensor) -> Tensor:
        tensors = [getattr(face, name) for name in FaceLatents.__dataclass_fields__]
        (pictures,) = self._graphed(head_pose, facial_dynamics, *tensors)
        # a replay writes to the same place every time
        return pictures.clone() if graphs.graphs_wanted((head_pose,)) else pictures

    def _pictures(self, head_pose: Tensor, facial_dynamics: Tensor, *latents: Tensor) -> tuple[Tensor]:
        with precision(self.device, self.dtype):
            image = self._light.decode(FaceLatents(*latents), head_pose, facial_dynamics).image
        return (image.float().clamp_(0, 1),)

    def _halve(self, count: int) -> None:
        self.largest_batch = count // 2
        self._graphed.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"the memory does not suffice to decode {count} frames at a time; going on with {count // 2}",
            RuntimeWarning, stacklevel=3,
        )  # fmt: skip

    def _refresh(self) -> None:
        """Convert the weights, again if they have changed or moved."""
        if self._weights is None:
            self._watched = [p for name in _DECODING for p in getattr(self.model, name).parameters()]
        weights = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self._watched)
        if weights != self._weights:
            self._light = decoding_copy(self.model, self.dtype)
            self._graphed = Graphed(self._pictures, "decoding")
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
        part = copy.deepcopy(model._modules[name]).requires_grad_(False).eval()
        if isinstance(part, WarpGenerator | Decoder):
            part.fold(dtype)  # first: sums of rounded weights would be rounded twice
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


def _to_cpu(pictures: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if pictures.device.type != "cuda":
        return pictures.cpu(), None
    computed, copied = torch.cuda.Event(), torch.cuda.Event()
    computed.record()
    landing = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True)
    with torch.cuda.stream(_copies(pictures.device)):
        computed.wait()
        landing.copy_(pictures, non_blocking=True)
        pictures.record_stream(torch.cuda.current_stream())
        copied.record()
    return landing, copied


_copy_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copies(device: torch.device) -> torch.cuda.Stream:
    if device not in _copy_streams:
        _copy_streams[device] = torch.cuda.Stream(device)
    return _copy_streams[device]


def _arrived(pictures: Tensor, event: torch.cuda.Event | None) -> Tensor:
    if event is not None:
        event.synchronize()
    return pictures
