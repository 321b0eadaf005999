"""Load VASA Model."""

from __future__ import annotations

from .api import io
from .engine import InputError, Vasa, room
from .host import host
from .sockets import CATEGORY, LoadedModel, ModelSocket, Weights


class LoadModel(io.ComfyNode):
    """Weights from the pack itself or from models/vasa."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_LoadModel",
            display_name="Load VASA Model",
            category=CATEGORY,
            description="Loads a talking-face model: the one that comes with the pack, or a folder in models/vasa.",
            search_aliases=["vasa-1", "talking head", "lip sync model", "audio driven portrait"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(host().models()),
                    tooltip="vasa-mini comes with the pack (256 px, runs on a CPU). Put other models into models/vasa, "
                    "one folder each, and refresh.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "bf16", "fp16", "fp32"],
                    default="auto",
                    tooltip="Number format of the picture networks. auto takes bf16 where the hardware computes in it. "
                    "If frames come out black, choose fp32. Motion is always computed in fp32.",
                ),
            ],
            outputs=[ModelSocket.Output("model", tooltip="Connect to every VASA node that asks for a model.")],
        )

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        choices = host().models()
        if model not in choices:
            raise InputError(f"there is no model {model!r}; choose among {', '.join(choices)} or fill models/vasa")
        device, resting = host().places()
        engine = Vasa.from_pretrained(choices[model], device=str(resting), precision="fp32")
        if device != "auto":
            engine.device = device
        weights = Weights(engine)
        name = host().precision(precision, engine.device, sum(p.numel() for p in weights.parameters()))
        engine.dtype = room("device").pick_precision(name, engine.device)
        return io.NodeOutput(LoadedModel(engine, model, host().manage(weights)))
