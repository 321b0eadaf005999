"""The engine for LivePortrait's weights: `vasa.pipeline.Vasa` with another renderer and another motion generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint import find, read_weights
from ...controls import ControlCurves, Controls
from ...errors import InputError
from ...face.blocks import resize_pictures
from ...geometry import angles_of, rotation
from ...latents import FaceLatents, Motion
from ...pipeline import Vasa, pick_device, pick_precision
from . import controls as asked
from .config import BACKEND, EXPRESSION_DIM, GeneratorConfig, RendererConfig
from .joyvasa import JoyVasa
from .keypoints import DYNAMICS_NAMES, LIPS, posed
from .motion_extractor import Reading
from .sound import SpeechEncoder
from .weights import GENERATOR, PARTS, RETARGETING, config_of, filled, load_part


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
    motion: GeneratorConfig
    audio: GeneratorConfig
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
        generator: JoyVasa | None = None,
        speech: SpeechEncoder | None = None,
    ) -> None:
        self.config = config
        self.face = nn.ModuleDict(parts)
        self._generator, self._speech = generator, speech

    @property
    def motion(self) -> JoyVasa:
        """The motion generator.

        Raises:
            InputError: the folder has none.
        """
        return self._given(self._generator)

    @property
    def audio(self) -> SpeechEncoder:
        """The audio encoder of the motion generator."""
        return self._given(self._speech)

    @staticmethod
    def _given(module: Any) -> Any:
        if module is None:
            raise InputError(
                "this model can show motion but not make it from speech; add a motion generator to its folder with "
                "`vasa convert joyvasa`, or drive it by a video or a motion file"
            )
        return module

    def to(self, device: torch.device) -> Networks:
        """Move every network."""
        for module in (self.face, self._generator, self._speech):
            if module is not None:
                module.to(device)
        return self


class LivePortrait(Vasa):
    """A loaded model of the LivePortrait family.

    Motion of this backend: `head_pose` as everywhere, `facial_dynamics` the movement of 21 implicit keypoints by the
    expression, 63 numbers (`DYNAMICS_NAMES`).
    """

    backend = BACKEND
    stitching = True
    """Whether the shoulders are kept where the portrait has them; best off where heads turn far."""

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, device: str = "auto", precision: str = "auto"
    ) -> LivePortrait:
        """Load a folder written by `vasa convert`.

        Raises:
            InputError: no such folder, damaged weights, an unknown device or precision.
        """
        folder, place = find(name_or_folder), pick_device(device)
        networks = load(folder).to(place)
        for module in networks.face.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
            elif isinstance(module, nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)
        return cls(networks, place, pick_precision(precision, place))

    @torch.inference_mode()
    def read_pose(self, portrait: Tensor) -> Tensor:
        """Head pose [6] of a picture [3, S, S]; float32 on the CPU."""
        return self._read(portrait[None]).head_pose[0].cpu()

    @torch.inference_mode()
    def read_motion(self, frames: Tensor, *, batch_size: int = 16) -> Motion:
        """Head pose and expression seen in pictures of a face [n, 3, S, S] in [0, 1]; n frames on the CPU.

        Raises:
            InputError: another shape.
        """
        if frames.dim() != 4 or frames.shape[1:] != (3, self.size, self.size):
            raise InputError(
                f"expected frames [n, 3, {self.size}, {self.size}], got {list(frames.shape)}; "
                "crop them with vasa.io.face.portrait_crop"
            )
        vectors = [torch.zeros(0, self.config.motion_dim)]
        for pictures in frames.split(batch_size):
            seen = self._read(pictures)
            vectors.append(torch.cat([seen.head_pose, seen.delta], dim=-1).cpu())
        return Motion.from_vectors(torch.cat(vectors), self.fps, self.backend)

    def _read(self, pictures: Tensor) -> Reading:
        # poses and keypoints are fp32 always: half precision steps show as jitter
        small = resize_pictures(pictures.to(self.device), self.config.renderer.input_size)
        return self.models.face["motion_extractor"](small)

    @torch.inference_mode()
    def encode(self, portrait: Tensor) -> FaceLatents:
        """Encode a portrait [3, S, S] in [0, 1], S = `size`.

        Returns:
            `identity_code` holds the canonical keypoints, [1, 21, 3].

        Raises:
            InputError: another shape.
        """
        if portrait.shape != (3, self.size, self.size):
            raise InputError(
                f"expected a portrait [3, {self.size}, {self.size}], got {list(portrait.shape)}; "
                "crop it with vasa.io.face.portrait_crop"
            )
        picture = portrait[None].to(self.device)
        seen = self._read(picture)
        with self._precision():
            volume = self.models.face["appearance"](resize_pictures(picture, self.config.renderer.input_size))
        return FaceLatents(volume, seen.canonical, seen.head_pose, seen.delta, picture)

    def generate(self, waveform: Tensor, face: FaceLatents, controls: Controls | None = None, **options: Any) -> Motion:
        """Motion for a whole clip; see `Vasa.generate`.

        Raises:
            InputError: the folder has no motion generator, or something is asked for that it cannot do.
        """
        controls = controls or Controls()
        asked.check_controls(controls)
        return super().generate(waveform, face, controls, **options)

    def placed(self, vectors: Tensor, face: FaceLatents) -> Motion:
        """Generated motion as movement about the portrait's own pose and expression.

        The head turns, grows and moves, and the face moves, by as much as what was drawn differs from the
        generator's mean; the lips take the drawn shapes themselves, so that they close.

        Args:
            vectors: [T, 69] in our units.
            face: the portrait.
        """
        return self._about(Motion.from_vectors(vectors, self.fps, self.backend), self.models.motion.rest, face)

    def adopted(self, motion: Motion, face: FaceLatents) -> Motion:
        """A motion that was made for another portrait, or read from a video, as movement of this one.

        Args:
            motion: with a rest; its first frame's expression counts as that of the rest. One without a rest is
                absolute and stays as it is.
        """
        if motion.rest is None or len(motion) == 0 or torch.equal(motion.rest, face.head_pose[0].to(motion.rest)):
            return motion
        rest = torch.cat([motion.rest, motion.facial_dynamics[0]])
        return self._about(motion, rest, face, lips=())

    def _about(self, motion: Motion, rest: Tensor, face: FaceLatents, lips: tuple[int, ...] = LIPS) -> Motion:
        pose, delta = motion.head_pose, motion.facial_dynamics
        rest, own = rest.to(pose), face.head_pose[0].to(pose)
        turn = rotation(own[:3]) @ rotation(rest[:3]).transpose(-1, -2) @ rotation(pose[:, :3])
        head_pose = torch.cat([angles_of(turn), own[3:] + pose[:, 3:] - rest[3:6]], dim=-1)
        moved = (face.facial_dynamics.to(pose) + delta - rest[6:]).unflatten(-1, (-1, 3))
        moved[:, list(lips)] = delta.unflatten(-1, (-1, 3))[:, list(lips)]
        return replace(motion, head_pose=head_pose, facial_dynamics=moved.flatten(1), rest=own)

    def shaped(self, motion: Motion, curves: ControlCurves, face: FaceLatents) -> Motion:
        """Controls that the generator does not know of, done to its motion; see `controls.shaped`."""
        return asked.shaped(motion, curves, face)

    @torch.inference_mode()
    def decode(
        self, face: FaceLatents, motion: Motion, *, batch_size: int = 8, on_device: bool = False
    ) -> Iterator[Tensor]:
        """Frames of a motion on a face, [n, 3, S, S] float32 in [0, 1], n <= batch_size.

        Args:
            face: the portrait.
            motion: of this backend.
            batch_size: frames given at a time.
            on_device: leave them on the engine's device instead of the CPU.

        Raises:
            InputError: the motion belongs to another backend.
        """
        if motion.backend != self.backend:
            raise InputError(
                f"this motion was made for the backend {motion.backend!r}, the model is {self.backend!r}; "
                "render it with the model that made it"
            )
        face = face.to(self.device)
        canonical = face.identity_code.float()
        source = posed(canonical, face.head_pose, face.facial_dynamics)
        # on a CPU several frames at once are no faster, and take their memory
        at_once = 1 if self.device.type == "cpu" else batch_size
        for start in range(0, len(motion), batch_size):
            frames = motion[start : start + batch_size]
            driving = posed(canonical, frames.head_pose.to(self.device), frames.facial_dynamics.to(self.device))
            if self.stitching and RETARGETING in self.models.face:
                driving = self.models.face[RETARGETING].stitched(source, driving)
            pictures = torch.cat([self._picture(face, source, some) for some in driving.split(at_once)])
            yield pictures if on_device else pictures.cpu()

    def _picture(self, face: FaceLatents, source: Tensor, driving: Tensor) -> Tensor:
        with self._precision():
            features = self.models.face["warping"](face.appearance_volume, driving, source)
            return self.models.face["decoder"](features).float().clamp(0, 1)


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
    motion = GeneratorConfig()
    path = folder / f"{GENERATOR}.safetensors"
    if path.is_file():
        state, header = read_weights(path)
        motion = config_of(header, GeneratorConfig, path)
        generator = filled(JoyVasa(motion), _inside(state, "generator."), path)
        speech = filled(SpeechEncoder(motion), _inside(state, "speech."), path)
    face = FaceSide(config.image_size)
    return Networks(EngineConfig(config.name, face, motion, motion, config), parts, generator, speech)


def _inside(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
