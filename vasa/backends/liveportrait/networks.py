"""What a folder of converted weights holds: the renderer, and perhaps a motion generator with its ears."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...checkpoint import read_weights
from ...errors import InputError
from .config import EXPRESSION_DIM, DittoConfig, GeneratorConfig, RendererConfig
from .ditto import Ditto
from .ditto_sound import OnnxHubert, StretchEncoder
from .joyvasa import JoyVasa
from .keypoints import DYNAMICS_NAMES
from .sound import SpeechEncoder
from .weights import EARS, GENERATOR, PARTS, RETARGETING, config_of, filled, load_part


@dataclass(frozen=True)
class FaceSide:
    """What the rest of vasa asks of a face model's configuration."""

    image_size: int
    dynamics_dim: int = EXPRESSION_DIM
    dynamics_names: tuple[str, ...] = DYNAMICS_NAMES


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of the engine, under the names of `vasa.config.VasaConfig`."""

    name: str
    face: FaceSide
    motion: GeneratorConfig | DittoConfig
    audio: GeneratorConfig | DittoConfig
    renderer: RendererConfig

    @property
    def motion_dim(self) -> int:
        """Pose and expression channels."""
        return 6 + self.face.dynamics_dim


class Networks:
    """Everything a folder of converted weights holds, under the names of `vasa.checkpoint.Models`."""

    reader = None

    def __init__(
        self,
        config: EngineConfig,
        parts: dict[str, nn.Module],
        generator: JoyVasa | Ditto | None = None,
        speech: SpeechEncoder | StretchEncoder | None = None,
    ) -> None:
        self.config = config
        self.face = nn.ModuleDict(parts)
        self._generator, self._speech = generator, speech

    @property
    def motion(self) -> JoyVasa | Ditto:
        """The motion generator.

        Raises:
            InputError: the folder has none.
        """
        if self._generator is None:
            raise InputError(
                "this model can show motion but not make it from speech; add a motion generator to its folder with "
                "`vasa convert joyvasa`, or drive it by a video or a motion file"
            )
        return self._generator

    @property
    def audio(self) -> SpeechEncoder | StretchEncoder:
        """The audio encoder of the motion generator.

        Raises:
            InputError: the folder has none.
        """
        if self.motion is not None and self._speech is None:
            raise InputError(
                "this model's motion generator has no speech encoder; convert Ditto again from a folder that holds "
                "hubert_streaming_fix_kv.onnx too (`vasa download ditto` fetches it)"
            )
        return self._speech

    def to(self, device: torch.device) -> Networks:
        """Move every network."""
        for module in (self.face, self._generator, self._speech):
            if module is not None:
                module.to(device)
        return self


def load(folder: Path) -> Networks:
    """The networks in a folder of converted weights, on the CPU.

    Raises:
        InputError: a file is missing, damaged, or does not fit the others.
    """
    parts, config = {}, None
    for part in (*PARTS, RETARGETING):
        path = folder / f"{part}.safetensors"
        if part == RETARGETING and not path.is_file():
            continue
        parts[part], config, _ = load_part(path, config, read_weights)
    generator = speech = None
    motion: GeneratorConfig | DittoConfig = GeneratorConfig()
    path = folder / f"{GENERATOR}.safetensors"
    if path.is_file():
        state, header = read_weights(path)
        if _kind(header) == "ditto":
            motion = config_of(header, DittoConfig, path)
            generator = filled(Ditto(motion), state, path)
            if (folder / EARS).is_file():
                speech = StretchEncoder(motion, OnnxHubert(folder / EARS, motion.audio_dim))
        else:
            motion = config_of(header, GeneratorConfig, path)
            generator = filled(JoyVasa(motion), _inside(state, "generator."), path)
            speech = filled(SpeechEncoder(motion), _inside(state, "speech."), path)
    face = FaceSide(config.image_size)
    return Networks(EngineConfig(config.name, face, motion, motion, config), parts, generator, speech)


def _kind(header: dict[str, str]) -> str:
    try:
        return str(json.loads(header["config"])["kind"])
    except (KeyError, TypeError, ValueError):
        return ""  # `config_of` says what is wrong


def _inside(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
