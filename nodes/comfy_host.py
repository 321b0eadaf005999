"""ComfyUI as the host: its folders, its progress bar and Stop button, its model management."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .api import ui
from .engine import InputError
from .host import Host, Step, inside

LOG = logging.getLogger("vasa")
FOLDER = "vasa"
"""Weights live in models/vasa, one folder per model."""
PREVIEW_SIDE = 512
AUTOCAST_DEVICES = ("cuda", "cpu", "xpu", "mps")
EVERYTHING = 1e32
"""Bytes to load that ComfyUI takes for no limit."""


class Whole(comfy.model_patcher.ModelPatcher):
    """Weights that are on a device with all their layers or with none.

    Where memory is short ComfyUI leaves layers behind, which its own then fetch one by one while they compute. Ours do
    not: they would meet pictures on another device.
    """

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, **more: Any) -> Any:
        """Load every layer, however little memory there seems to be."""
        return super().partially_load(device_to, EVERYTHING, **more)

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0, **more: Any) -> int:
        """Free nothing, upon which ComfyUI takes all layers away."""
        return 0


class ComfyHost(Host):
    """ComfyUI."""

    def __init__(self) -> None:
        super().__init__()
        place = os.path.join(folder_paths.models_dir, FOLDER)
        folder_paths.add_model_folder_path(FOLDER, place)
        paths, endings = folder_paths.folder_names_and_paths[FOLDER]
        folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"} | (set(endings) - {""}))
        try:
            os.makedirs(place, exist_ok=True)
        except OSError as error:
            LOG.warning("VASA: the folder for weights %s cannot be made (%s)", place, error.strerror)

    def input_files(self, endings: tuple[str, ...]) -> list[str]:
        self.inputs = Path(folder_paths.get_input_directory())
        return super().input_files(endings)

    def _from_folders(self, name: str) -> Path:
        plain, base = folder_paths.annotated_filepath(name)
        return inside(base or folder_paths.get_input_directory(), plain)

    def output_path(self, prefix: str, suffix: str) -> Path:
        self.outputs = Path(folder_paths.get_output_directory())
        return super().output_path(prefix, suffix)

    def output_files(self, endings: tuple[str, ...]) -> list[str]:
        self.outputs = Path(folder_paths.get_output_directory())
        return super().output_files(endings)

    def temporary_path(self, suffix: str) -> Path:
        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        return folder / super().temporary_name(suffix)

    def models(self) -> dict[str, str]:
        found = super().models()
        for base in folder_paths.get_folder_paths(FOLDER):
            for place in sorted(Path(base).iterdir()) if os.path.isdir(base) else []:
                if place.is_dir() and any(place.glob("*.safetensors")):
                    found.setdefault(place.name, str(place))
        return found

    def steps(self, total: int) -> Step:
        bar = comfy.utils.ProgressBar(total)

        def step(done: int, preview: Tensor | None = None) -> None:
            management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total, preview if preview is None else _jpeg(preview))

        step(0)
        return step

    def notice(self, sentence: str) -> None:
        LOG.warning("VASA: %s", sentence)

    def show(self, pictures: Tensor, node: type) -> Any:
        return ui.PreviewImage(pictures, cls=node)

    def places(self) -> tuple[torch.device, torch.device]:
        return management.get_torch_device(), management.unet_offload_device()

    def precision(self, name: str, device: torch.device | str, parameters: int) -> str:
        device = torch.device(device)
        if device.type not in AUTOCAST_DEVICES:
            if name not in ("auto", "fp32"):
                raise InputError(f"{name} cannot be computed on {device}; choose precision fp32")
            return "fp32"
        if name != "auto" or device.type == "cpu":
            return name
        wanted = [torch.bfloat16, torch.float16, torch.float32]
        dtype = management.unet_dtype(device, parameters, supported_dtypes=wanted)
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")

    def manage(self, weights: nn.Module) -> Any:
        return Whole(weights, *self.places())

    def ready(self, managed: Any, memory: int, *others: Any) -> torch.device:
        management.load_models_gpu([managed, *others], memory_required=memory)
        return managed.load_device

    def pictures(self, frames: Tensor) -> Tensor:
        # ComfyUI 0.12 knows no other precision than this one
        dtype = getattr(management, "intermediate_dtype", lambda: torch.float32)()
        return frames.to(management.intermediate_device(), dtype)


def _jpeg(picture: Tensor) -> tuple[str, Image.Image, int]:
    """A picture [3, H, W] as the progress bar takes previews."""
    pixels = (picture.detach().float().clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()
    return "JPEG", Image.fromarray(np.ascontiguousarray(pixels)), PREVIEW_SIDE


COMFYUI = ComfyHost()
