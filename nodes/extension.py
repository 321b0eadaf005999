"""The pack: every node, in the order of the pipeline."""

from __future__ import annotations

from .api import ComfyExtension, io
from .audio import AudioFeatures, LoadSpeech
from .controls import ControlsFromJSON, ControlSignals
from .frames import DecodeFrames, DecodeVideo, Disentangle, PasteBack
from .model import LoadModel
from .motion import EditMotion, LoadDrivingVideo, LoadMotion, MotionDiffusion, MotionFromVideo, SaveMotion
from .portrait import CropPortrait, EncodeFace, LoadPortrait

NODES: tuple[type[io.ComfyNode], ...] = (
    LoadModel, LoadPortrait, CropPortrait, EncodeFace, LoadSpeech, AudioFeatures, ControlSignals, ControlsFromJSON,
    MotionDiffusion, LoadDrivingVideo, MotionFromVideo, SaveMotion, LoadMotion, EditMotion, DecodeFrames, DecodeVideo,
    PasteBack, Disentangle,
)  # fmt: skip


class VasaExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .sample_route import add_route

        # not in `on_load`, which ComfyUI 0.12 never calls
        add_route()
        return list(NODES)
