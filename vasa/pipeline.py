"""The engine: frames = decode(portrait, motion(audio, controls)). Device and precision are decided here, once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint
from .audio import AudioEncoder
from .config import VasaConfig
from .continuation import continue_from
from .controls import ControlCurves, Controls
from .device import pick_device, pick_precision
from .errors import InputError
from .face.blocks import resize_pictures
from .latents import DYNAMICS, FaceLatents, Motion
from .motion.place import generator_rest, place
from .motion.plan import WindowPlan
from .motion.shape import shape
from .runtime import Renderer, lay_out
from .stream import Session
from .threads import fit_threads

_PIECE = 30 * 16_000
"""Samples that a session is fed at a time, so that an hour of sound is not copied again with every window."""


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
        self._renderer: Renderer | None = None

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
        if cls is Vasa and checkpoint.backend_of(name_or_folder) == "liveportrait":
            from .backends.liveportrait.engine import LivePortrait

            return LivePortrait.from_pretrained(name_or_folder, device=device, precision=precision)
        place = pick_device(device)
        if place.type == "cpu":
            fit_threads()
        dtype = pick_precision(precision, place)
        models = checkpoint.load(name_or_folder, place)
        lay_out(models.face)
        return cls(models, place, dtype)

    @property
    def renderer(self) -> Renderer:
        """What decodes frames, on the present device in the present precision."""
        if self._renderer is None or (self._renderer.device, self._renderer.dtype) != (self.device, self.dtype):
            self._renderer = Renderer(self.models.face, self.device, self.dtype)
        return self._renderer

    def release(self) -> None:
        """Let go of everything on the device that was made of the weights and is made again when it is needed.

        For whoever moves the weights away to make room: copies in the working precision and recorded graphs would stay.
        """
        if self._renderer is not None:
            self._renderer.forget()

    backend = "vasa"
    """Which motion this engine makes and understands, `Motion.backend`."""

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
    def read_motion(self, frames: Tensor, *, batch_size: int = 16) -> Motion:
        """Head pose and facial dynamics seen in pictures of a face: what makes a video drive a portrait.

        The face reader reads them where the dynamics code has names (it was trained on the same ones), else the
        model's own encoders E_pose and E_dyn.

        Args:
            frames: crops framed like a portrait, [n, 3, S, S] in [0, 1], S = `size`.
            batch_size: pictures read at a time.

        Returns:
            n frames at the model's frame rate, on the CPU; `dataclasses.replace` another rate.

        Raises:
            InputError: another shape.
        """
        if frames.dim() != 4 or frames.shape[1:] != (3, self.size, self.size):
            raise InputError(
                f"expected frames [n, 3, {self.size}, {self.size}], got {list(frames.shape)}; "
                "crop them with vasa.io.face.portrait_crop"
            )
        reader = self.models.reader if self.config.face.dynamics_names == DYNAMICS else None
        vectors = [torch.zeros(0, self.config.motion_dim)]
        for pictures in frames.split(batch_size):
            pictures = pictures.to(self.device)
            if reader is not None:
                seen = reader(resize_pictures(pictures, min(self.size, 256)))
                pose_and_dynamics = seen.head_pose, seen.dynamics
            else:
                pose_and_dynamics = self.models.face.read(pictures)
            vectors.append(torch.cat(pose_and_dynamics, dim=-1).float().cpu())
        return Motion.from_vectors(torch.cat(vectors), self.fps, self.backend)

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
        person = None if self.models.matte is None else self.models.matte.matte(picture)
        with self._precision():
            return self.models.face.encode(picture, head_pose, facial_dynamics, person)

    @torch.inference_mode()
    def generate(
        self,
        waveform: Tensor,
        face: FaceLatents,
        controls: Controls | None = None,
        *,
        plan: WindowPlan | None = None,
        previous: Motion | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Motion:
        """Motion for a whole clip, placed on the portrait's own shoulders.

        Args:
            waveform: mono 16 kHz in [-1, 1], [N].
            face: the portrait's latents.
            controls: what the user asks for.
            plan: how the clip is cut into windows.
            previous: a motion that the clip goes on from, so that both join without a jump; default: from nothing.
            progress: progress(done, total) after each denoising step; may raise to cancel.

        Returns:
            ceil(seconds * fps) frames, those of `previous` not among them.

        Raises:
            InputError: controls that this engine cannot do, or a `previous` motion that it cannot take up.
        """
        controls = self.accepted(controls or Controls())
        plan = plan or WindowPlan.full(self.config.motion.window)
        seconds = waveform.shape[-1] / self.config.audio.sample_rate
        num_frames = max(1, math.ceil(seconds * self.fps - 1e-6))
        windows = plan.count(num_frames) if previous is None else math.ceil(num_frames / plan.hop)
        total = windows * (plan.steps or controls.steps)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        before = None if previous is None else continue_from(self, previous, face, controls, plan)
        past = None if before is None else before.past
        session = Session(self, face, controls, plan, max_pending=None, past=past, progress=step)
        pieces = []
        for piece in waveform.split(_PIECE):
            session.push_audio(piece)
            pieces += iter(session.pop_motion, None)
        if not len(waveform):
            session.push_silence(1)
        session.flush()
        pieces += iter(session.pop_motion, None)
        # behind known frames the sound begins on a whole sample, which may make a frame more
        vectors = torch.cat([piece.vectors for piece in pieces])[:num_frames]
        vectors = vectors if before is None else before.joined(vectors)
        return Motion.from_vectors(vectors, self.fps, self.backend, pieces[0].rest)

    def hearing(self, encoder: nn.Module) -> Vasa:
        """This engine, sharing its weights, with a public audio encoder brought from elsewhere.

        Args:
            encoder: samples [B, N] -> `last_hidden_state` [B, t, A], with an attribute `feature_dim` = A; the one that
                the motion generator was trained with, which `config.audio.source` names.

        Raises:
            InputError: the generator was trained with an encoder of its own, or one of another width.
        """
        source = getattr(self.config.audio, "source", "")
        if not source:
            raise InputError(
                "this model hears with an audio encoder of its own, which it was trained with; disconnect the other one"
            )
        if encoder.feature_dim != self.config.audio.feature_dim:
            raise InputError(
                f"the audio encoder gives {encoder.feature_dim} features, the model was trained on the "
                f"{self.config.audio.feature_dim} of {source}; load that one"
            )
        models = replace(self.models, audio=AudioEncoder(self.config.audio, encoder))
        return Vasa(models, self.device, self.dtype)

    def accepted(self, controls: Controls) -> Controls:
        """The controls as the motion generator takes them; other engines refuse here what they cannot do."""
        return controls

    def told(self, curves: ControlCurves, frames: range) -> ControlCurves:
        """The controls of some frames as the motion generator is told them; ours is told what was asked for."""
        return curves

    def live_plan(self, hop: int = 5, look_ahead: int = 2, steps: int | None = 10) -> WindowPlan:
        """How a live stream is cut for this engine's motion generator; see `WindowPlan.live`."""
        return WindowPlan.live(hop, look_ahead, steps)

    def generator_for(self, face: FaceLatents) -> Any:
        """The motion generator as it draws for a portrait: ours knows nothing of portraits."""
        return self.models.motion

    def placed(self, vectors: Tensor, face: FaceLatents) -> Motion:
        """What the generator drew, [T, M] in physical units, as motion on the portrait's own shoulders."""
        return on_shoulders(Motion.from_vectors(vectors, self.fps, self.backend), face.head_pose[0])

    def drawable(self, motion: Motion, face: FaceLatents) -> Tensor:
        """The inverse of `placed`: motion on the portrait's shoulders as the generator would have drawn it, [T, M]."""
        about = replace(motion, rest=face.head_pose[0])
        return place(about, generator_rest(motion.head_pose), tuple(self.config.face.dynamics_names)).vectors

    def adopted(self, motion: Motion, face: FaceLatents) -> Motion:
        """A motion made for another portrait, or read from a video, as movement of this one."""
        return place(motion, face.head_pose[0], tuple(self.config.face.dynamics_names))

    def shaped(self, motion: Motion, curves: ControlCurves, face: FaceLatents) -> Motion:
        """Controls that the generator does not know of, done to its motion, placed on the portrait."""
        return shape(motion, curves, face, tuple(self.config.face.dynamics_names))

    @torch.inference_mode()
    def decode(
        self, face: FaceLatents, motion: Motion, *, batch_size: int = 8, on_device: bool = False,
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Frames of a motion on a face, [n, 3, S, S] float32 in [0, 1], n <= batch_size.

        Args:
            face: the portrait's latents.
            motion: motion of the same backend.
            batch_size: frames at a time; fewer, with a warning, where the memory does not suffice.
            on_device: leave the frames on the model's device instead of bringing them to the CPU.
            finish: done to each batch on a CUDA device before it comes to the CPU, elsewhere afterwards; its result is
                what is yielded.

        Raises:
            InputError: the motion belongs to another backend.
        """
        if motion.backend != self.backend:
            raise InputError(
                f"this motion was made for the backend {motion.backend!r}, the model is {self.backend!r}; "
                "render it with the model that made it"
            )
        pose, dynamics = motion.head_pose, motion.facial_dynamics
        yield from self.renderer.frames(face, pose, dynamics, batch_size, on_device, finish)

    @property
    def largest_batch(self) -> int | None:
        """Frames at a time that the memory allowed, once it was too small to decode more; None before."""
        return self.renderer.largest_batch


def on_shoulders(motion: Motion, portrait_pose: Tensor) -> Motion:
    """Generated motion becomes movement about the portrait's own pose, with the neck where the portrait's neck is.

    The generator works at the average framing, facing the camera, with the neck at exp(AVERAGE_LOG_SCALE) * NECK.
    A portrait in half profile stays one: turning it to the camera would show what the picture does not contain.

    Args:
        motion: generated motion.
        portrait_pose: head pose of the portrait, [6].
    """
    return place(replace(motion, rest=generator_rest(motion.head_pose)), portrait_pose)
