"""The engine for LivePortrait's weights: `vasa.pipeline.Vasa` with another renderer and another motion generator."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...batches import Batches, mark_of
from ...checkpoint import find
from ...controls import ControlCurves, Controls
from ...device import pick_device, pick_precision
from ...errors import InputError
from ...face.blocks import resize_pictures
from ...geometry import angles_of, rotation
from ...latents import FaceLatents, Motion
from ...motion.plan import WindowPlan
from ...pipeline import Vasa
from ...runtime import lay_out
from ...runtime import precision as precise
from ...threads import fit_threads
from . import controls as asked
from .config import BACKEND
from .ditto import Ditto
from .ditto_portrait import Sitter, joined, moods_of
from .joyvasa import JoyVasa
from .keypoints import posed
from .motion_extractor import Reading
from .networks import Networks, load
from .placement import about, enlarged, taken_over
from .weights import RETARGETING


class LivePortrait(Vasa):
    """A loaded model of the LivePortrait family.

    Motion of this backend: `head_pose` as everywhere, `facial_dynamics` the movement of 21 implicit keypoints by the
    expression, 63 numbers (`DYNAMICS_NAMES`).
    """

    backend = BACKEND
    stitching = True
    """Whether the shoulders are kept where the portrait has them; best off where heads turn far."""

    def __init__(self, models: Networks, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(models, device, dtype)
        self._sitters: weakref.WeakKeyDictionary[FaceLatents | Ditto, Sitter] = weakref.WeakKeyDictionary()
        self._silence: Tensor | None = None
        self._batches: Batches | None = None

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, device: str = "auto", precision: str = "auto"
    ) -> LivePortrait:
        """Load a folder written by `vasa convert`.

        "auto" takes fp16 on a GPU, which the published programs run these weights in; bf16 keeps less of the field
        that moves the volume.

        Raises:
            InputError: no such folder, damaged weights, an unknown device or precision.
        """
        folder, place = find(name_or_folder), pick_device(device)
        if place.type == "cpu":
            fit_threads()
        networks = load(folder).to(place)
        lay_out(networks.face)
        if precision == "auto" and place.type == "cuda":
            precision = "fp16"
        return cls(networks, place, pick_precision(precision, place))

    def release(self) -> None:
        """Let go of recorded graphs; they are made again when frames are asked for."""
        self._batches = None

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
        return self.models.face["motion_extractor"](self._small(pictures.to(self.device)))

    def _small(self, pictures: Tensor) -> Tensor:
        return resize_pictures(pictures, self.config.renderer.input_size)

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
            volume = self.models.face["appearance"](self._small(picture))
        return FaceLatents(volume, seen.canonical, seen.head_pose, seen.delta, picture)

    def accepted(self, controls: Controls) -> Controls:
        """The controls as this motion generator takes them; see `controls.accepted`.

        Raises:
            InputError: the folder has no motion generator, or something is asked for that it cannot do.
        """
        return asked.accepted(controls, self.models.motion.config.kind)

    def live_plan(self, hop: int = 5, look_ahead: int = 2, steps: int | None = 10) -> WindowPlan:
        """The generators only know windows of their full length: most of each was given before.

        Before the first stands silence, as in Ditto's own live mode.
        """
        plan = super().live_plan(hop, look_ahead, steps)
        known = max(plan.overlap, self.models.motion.config.window - (plan.window - plan.overlap))
        return WindowPlan.live(hop, look_ahead, steps, known, lead=known)

    def told(self, curves: ControlCurves, frames: range) -> ControlCurves:
        """The controls of some frames as the generator is told them; Ditto's settings may say what neutral is."""
        network = self.models.motion
        if not isinstance(network, Ditto):
            return curves
        frame = torch.arange(frames.start, frames.stop, device=network.low.device)
        return replace(curves, emotion=moods_of(network, curves.emotion.to(frame.device), frame))

    def generator_for(self, face: FaceLatents) -> JoyVasa | Sitter:
        """The motion generator as it draws for a portrait.

        Ditto's is told the motion, keypoints and eyes of the person in its settings, or the portrait's where there is
        none.
        """
        network = self.models.motion
        if not isinstance(network, Ditto):
            return network
        sitting = network if network.config.person else face
        if sitting not in self._sitters:
            self._sitters[sitting] = self._sitter(network, face)
        return self._sitters[sitting]

    @torch.inference_mode()
    def _sitter(self, network: Ditto, face: FaceLatents) -> Sitter:
        if self._silence is None:
            # silence sounds alike in every stretch, but not in every frame of one
            length = 3 * self.models.audio.stride
            quiet = torch.zeros(1, round(length * network.config.sample_rate / self.fps), device=self.device)
            self._silence = self.models.audio(quiet, length)[0, length // 3 : 2 * length // 3]
        if network.config.person:
            sitter = Sitter.of_settings(network, self._silence)
        else:
            picture = face.portrait.to(self.device)
            seen = self.models.face["motion_extractor"].detector(self._small(picture))
            sitter = Sitter(network, joined(seen)[0], seen["kp"][0].float(), self._silence)
        _ = sitter.rest  # now, and not when the first hop is waited for
        return sitter

    def placed(self, vectors: Tensor, face: FaceLatents) -> Motion:
        """Generated motion as movement about the portrait's own pose and expression.

        The head turns, grows and moves, and the face moves, by as much as what was drawn differs from the
        generator's rest; JoyVASA's lips take the drawn shapes themselves, so that they close. Under Ditto the head
        keeps its size, the eyes are turned back by what the head turns, and what was drawn for the person in its
        settings is done by as much more as that one is larger in the picture than the portrait.

        Args:
            vectors: [T, 69] in our units.
            face: the portrait.
        """
        generator, drawn = self.generator_for(face), Motion.from_vectors(vectors, self.fps, self.backend)
        if isinstance(generator, Sitter) and generator.config.person:
            drawn = enlarged(drawn, generator.rest, generator.size, face)
        moved = about(drawn, generator.rest, face, generator.absolute)
        if generator.keeps_size:
            size = moved.rest[5:].expand(len(moved), 1)
            moved = replace(moved, head_pose=torch.cat([moved.head_pose[:, :5], size], dim=-1))
        return asked.eyes_kept(moved, face) if generator.keeps_gaze else moved

    def drawable(self, motion: Motion, face: FaceLatents) -> Tensor:
        """The inverse of `placed`, [T, 69]; Ditto's angles were distributions, which nothing gives back.

        Raises:
            InputError: the motion generator is Ditto's.
        """
        generator = self.generator_for(face)
        if isinstance(generator, Sitter):
            raise InputError(
                "Ditto's generator cannot go on from a given motion; leave the previous motion out and join the clips "
                "by editing (`vasa motion splice`, Edit Motion)"
            )
        pose, moved, rest = motion.head_pose, motion.facial_dynamics, generator.rest.to(motion.head_pose)
        own = face.head_pose[0].to(pose)
        turn = rotation(rest[:3]) @ rotation(own[:3]).transpose(-1, -2) @ rotation(pose[:, :3])
        head_pose = torch.cat([angles_of(turn), pose[:, 3:] - own[3:] + rest[3:6]], dim=-1)
        delta = (moved - face.facial_dynamics.to(pose) + rest[6:]).unflatten(-1, (-1, 3))
        lips = list(generator.absolute)
        delta[:, lips] = moved.unflatten(-1, (-1, 3))[:, lips]
        return torch.cat([head_pose, delta.flatten(1)], dim=-1)

    def adopted(self, motion: Motion, face: FaceLatents) -> Motion:
        """A motion that was made for another portrait, or read from a video, as movement of this one.

        Args:
            motion: with a rest; its first frame's expression counts as that of the rest. One without a rest is
                absolute: where the head is and what the face does is taken over, not what the head is like, which is
                its size and some of the keypoints (`keypoints.SHOWN`).
        """
        if motion.rest is None:
            return taken_over(motion, face)
        if len(motion) == 0 or torch.equal(motion.rest, face.head_pose[0].to(motion.rest)):
            return motion
        rest = torch.cat([motion.rest, motion.facial_dynamics[0]])
        return about(motion, rest, face)

    def shaped(self, motion: Motion, curves: ControlCurves, face: FaceLatents) -> Motion:
        """Controls that the generator does not know of, done to its motion; see `controls.shaped`."""
        if self.config.motion.kind != "ditto":
            return asked.shaped(motion, curves, face)
        shut = self.models.motion.blink if self.config.motion.blink else None
        return asked.shaped(motion, curves, face, keeps_gaze=True, shut=shut)

    @torch.inference_mode()
    def decode(
        self, face: FaceLatents, motion: Motion, *, batch_size: int = 8, on_device: bool = False,
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Frames of a motion on a face, [n, 3, S, S] float32 in [0, 1], n <= batch_size.

        Args:
            face: the portrait.
            motion: of this backend.
            batch_size: frames given at a time.
            on_device: leave them on the engine's device instead of the CPU.
            finish: done to each batch before it comes to the CPU; see `Vasa.decode`.

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
        for start in range(0, len(motion), batch_size):
            frames = motion[start : start + batch_size]
            driving = posed(canonical, frames.head_pose.to(self.device), frames.facial_dynamics.to(self.device))
            if self.stitching and RETARGETING in self.models.face:
                driving = self.models.face[RETARGETING].stitched(source, driving)
            shared = face.appearance_volume, source
            yield from self._drawing().frames((driving,), shared, batch_size, on_device, finish)

    @property
    def largest_batch(self) -> int | None:
        """Frames at a time that the memory allowed, once it was too small to decode more; None before."""
        return None if self._batches is None else self._batches.largest_batch

    def _drawing(self) -> Batches:
        """What makes pictures, anew once weights have moved or changed."""
        watched = [p for part in ("warping", "decoder") for p in self.models.face[part].parameters()]
        mark = (mark_of(watched), self.device, self.dtype)
        if self._batches is None or self._mark != mark:
            self._batches, self._mark = Batches(self._pictures, self.device), mark
        return self._batches

    def _pictures(self, driving: Tensor, volume: Tensor, source: Tensor) -> tuple[Tensor]:
        # on a CPU several frames at once are no faster, and take their memory
        pieces = driving.split(1) if self.device.type == "cpu" else (driving,)
        with precise(self.device, self.dtype):
            moved = (self.models.face["warping"](volume, some, source) for some in pieces)
            return (torch.cat([self.models.face["decoder"](one).float().clamp(0, 1) for one in moved]),)
