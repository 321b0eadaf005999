"""The file-to-file stories: a portrait and speech, or a portrait and a saved motion, become a video."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .controls import Controls
from .errors import InputError
from .io.alpha import check_output
from .io.audio import iterate_soundtrack, load_audio
from .io.face import CropRequest, portrait_crop
from .io.files import check_writable
from .io.image import load_image
from .io.video import SOUND_RATE, VideoWriter, num_frames, yuv420
from .latents import FaceLatents, Motion
from .motion.edit import retime
from .motion_file import SUFFIX, MotionFile, read_motion_file, save_motion
from .pipeline import Vasa
from .provenance import marked
from .screen import Screen
from .signature import sign_as_configured

FRAME_RATES = (1.0, 60.0)


@dataclass(frozen=True)
class Result:
    """What was made.

    Attributes:
        path: the video.
        frames: how many it has.
        seconds: time it took once the model was loaded.
        fps: the video's frame rate.
        seed: the random seed; the same seed, inputs and device give the same frames.
        notices: sentences the user should see.
    """

    path: Path
    frames: int
    seconds: float
    fps: float
    seed: int
    notices: list[str] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Frames made per second."""
        return self.frames / max(self.seconds, 1e-9)


def animate(
    portrait: str | os.PathLike,
    speech: str | os.PathLike,
    out: str | os.PathLike,
    *,
    model: str | Path | Vasa = "vasa-mini",
    seed: int | None = None,
    steps: int | None = None,
    controls: Controls | None = None,
    crop: CropRequest = "auto",
    face: int = 0,
    fps: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 8,
    save_motion_to: str | os.PathLike | None = None,
    previous: str | os.PathLike | Motion | None = None,
    paste_back: bool = False,
    lock: bool = True,
    alpha: bool = False,
    mark: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Make `portrait` speak `speech` and write the video to `out`.

    Inputs and output are checked before the model is loaded; the output appears only when it is complete.

    Args:
        portrait: image file.
        speech: sound file, or a video file whose sound is used.
        out: mp4 file to write; with `alpha` a .webm or .mov file, or a folder for PNG pictures.
        model: name, folder, or an already loaded model.
        seed: random seed; overrides the one in `controls`.
        steps: denoising steps; overrides those in `controls`.
        controls: what the user asks for, constant or over time.
        crop: "auto", "none" or (x, y, size) in pixels of the upright picture.
        face: which face to take where there are several, 0 = largest.
        fps: frame rate of the video, 1 .. 60; default the model's own.
        device: "auto", "cpu", "cuda"; ignored with a loaded model, like `precision`.
        precision: "auto", "fp32", "bf16", "fp16".
        batch_size: frames decoded at a time.
        save_motion_to: also keep the motion in this .safetensors file (`vasa/motion_file.py`).
        previous: motion, or file of one, that the clip goes on from, so that both join without a jump.
        paste_back: show the frames in the whole picture instead of the crop alone.
        lock: with `paste_back`: the original pixels stay wherever the person is not.
        alpha: cut the person out; the picture around it becomes transparent.
        mark: lay the invisible mark "made by vasa" over the frames (`vasa/provenance.py`); the manifest says so.
        progress: progress(stage, done, total), stage "motion" or "frames"; may raise to cancel.

    Raises:
        InputError: an input, option or output that cannot be used, in one sentence with the remedy.
    """
    out = check_output(out, alpha)
    if save_motion_to is not None:
        check_writable(save_motion_to, (SUFFIX,))
    check_fps(fps)
    chosen = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    controls = replace(controls or Controls(), **chosen)
    picture = load_image(portrait)
    sound = load_audio(speech)
    if isinstance(previous, str | os.PathLike):
        previous = read_motion_file(previous).motion
    pipe = opened(model, device, precision)

    started = time.perf_counter()
    framed = portrait_crop(picture.pixels, crop, face=face, size=pipe.size, refine=pipe.read_pose)
    latents = pipe.encode(framed.picture)
    motion = pipe.generate(
        sound.waveform,
        latents,
        controls,
        previous=previous,
        progress=progress and (lambda done, total: progress("motion", done, total)),
    )
    if save_motion_to is not None:
        about = {"names": names_of(pipe), "model": name_of(model), "seed": controls.seed}
        about["controls"] = controls.to_json()
        save_motion(save_motion_to, replace(motion, rest=latents.head_pose[0]), **about)
    fps = pipe.fps if fps is None else fps
    total = num_frames(Fraction(len(sound.waveform), sound.sample_rate), fps)
    about = {"controls": controls.to_json(), "crop": crop, "face": face, "continues": previous is not None}
    manifest = manifest_of(model, fps, total, mark=mark, **about)
    soundtrack = iterate_soundtrack(speech)
    screen = Screen(pipe.size, latents, picture.pixels, framed, paste_back=paste_back, lock=lock, alpha=alpha)
    film = retime(motion, fps, total)
    unsigned = write_video(out, pipe, latents, film, soundtrack, manifest, batch_size, progress, screen)
    notices = [*picture.notices, *sound.notices, *framed.notices, *unsigned]
    return Result(out, total, time.perf_counter() - started, fps, controls.seed, notices)


def render(
    portrait: str | os.PathLike,
    motion: str | os.PathLike | MotionFile,
    out: str | os.PathLike,
    *,
    audio: str | os.PathLike | None = None,
    model: str | Path | Vasa = "vasa-mini",
    crop: CropRequest = "auto",
    face: int = 0,
    fps: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 8,
    paste_back: bool = False,
    lock: bool = True,
    alpha: bool = False,
    mark: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Show a saved motion on a portrait.

    A motion that is about a rest pose moves the portrait about its own; an absolute one puts the head where the
    motion has it.

    Args:
        portrait: image file.
        motion: motion file, or one that is already read.
        out: mp4 file to write, as long as the motion.
        audio: sound to carry along from its beginning; cut or padded with silence.
        model: the model to render with; it must speak the motion's dynamics.
        crop, face, fps, device, precision, batch_size, paste_back, lock, alpha, mark, progress: as in
            `animate`.

    Raises:
        InputError: an input, option or output that cannot be used, or a motion of another model.
    """
    out = check_output(out, alpha)
    check_fps(fps)
    picture = load_image(portrait)
    if not isinstance(motion, MotionFile):
        motion = read_motion_file(motion)
    notices = []
    if audio is not None:
        sound = load_audio(audio)
        notices = sound.notices
        seconds = len(motion.motion) / motion.motion.fps
        if sound.seconds > seconds + 0.1:
            notices = [*notices, f"the sound lasts {sound.seconds:.1f} s, the motion {seconds:.1f} s; the rest is cut"]
    pipe = opened(model, device, precision)
    check_speaks(pipe, motion.motion)

    started = time.perf_counter()
    framed = portrait_crop(picture.pixels, crop, face=face, size=pipe.size, refine=pipe.read_pose)
    latents = pipe.encode(framed.picture)
    fps = motion.motion.fps if fps is None else fps
    placed = retime(pipe.adopted(motion.motion, latents), fps)
    seed = motion.info.get("seed")
    manifest = manifest_of(model, fps, len(placed), mark=mark, motion=motion.info)
    soundtrack = None if audio is None else iterate_soundtrack(audio)
    screen = Screen(pipe.size, latents, picture.pixels, framed, paste_back=paste_back, lock=lock, alpha=alpha)
    unsigned = write_video(out, pipe, latents, placed, soundtrack, manifest, batch_size, progress, screen)
    notices = [*picture.notices, *notices, *framed.notices, *unsigned]
    return Result(out, len(placed), time.perf_counter() - started, fps, seed if isinstance(seed, int) else 0, notices)


def write_video(
    out: str | os.PathLike,
    pipe: Vasa,
    latents: FaceLatents,
    motion: Motion,
    soundtrack: Iterator[np.ndarray] | None,
    manifest: dict[str, Any],
    batch_size: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
    screen: Screen | None = None,
) -> list[str]:
    """Decode a motion, placed and at its final frame rate, on a face and write the video.

    The frames carry the invisible mark if the manifest says so; the file is signed if the environment names a key.

    Args:
        soundtrack: stereo blocks [2, n] at `SOUND_RATE`; None for a silent film without a track.
        progress: progress("frames", done, total); may raise to cancel.
        screen: where the frames are shown; default: alone.

    Returns:
        Sentences the user should see, of a signature that failed.
    """
    paste = None if screen is None else screen.paste
    audio = None if soundtrack is None else (soundtrack, SOUND_RATE)
    if screen is None:
        writer = VideoWriter(out, pipe.size, motion.fps, audio, manifest)
    else:
        writer = screen.writer(out, motion.fps, audio, manifest)
        latents, batch_size = screen.latents, min(batch_size, screen.batch_size)

    def finished(pictures: Tensor) -> Tensor:
        return marked(pictures, paste) if manifest.get("mark") else pictures

    # frames that are shown as they are become YUV where they are made: an eighth of the bytes then travel
    at_once = screen is None or screen.shows_all
    convert = (lambda frames: yuv420(finished(frames))) if at_once else None
    with writer:
        for frames in pipe.decode(latents, motion, batch_size=batch_size, finish=convert):
            if at_once:
                writer.write_planes(frames)
            else:
                for pictures in screen.show(frames):
                    writer.write(finished(pictures))
            if progress is not None:
                progress("frames", writer.frames_written, len(motion))
    problem = sign_as_configured(out, manifest)
    return [problem] if problem else []


def opened(model: str | Path | Vasa, device: str, precision: str) -> Vasa:
    """A model by name or folder, or the loaded one that was given."""
    if isinstance(model, str | os.PathLike):
        return Vasa.from_pretrained(model, device=device, precision=precision)
    return model


def check_fps(fps: float | None) -> None:
    """Raise InputError for a frame rate no video of ours has."""
    if fps is not None and not FRAME_RATES[0] <= fps <= FRAME_RATES[1]:
        raise InputError(f"fps must be between {FRAME_RATES[0]:.0f} and {FRAME_RATES[1]:.0f}, got {fps}")


def check_speaks(pipe: Vasa, motion: Motion) -> None:
    """Raise InputError unless the model understands the motion's dynamics."""
    channels, ours = motion.facial_dynamics.shape[-1], pipe.config.face.dynamics_dim
    if motion.backend != pipe.backend:
        raise InputError(
            f"the motion was made for the backend {motion.backend!r}, the model is {pipe.backend!r}; "
            "render it with the model that made it"
        )
    if channels != ours:
        raise InputError(
            f"the motion has {channels} dynamics channels, the model has {ours}; render it with the model that made it"
        )


def names_of(pipe: Vasa) -> tuple[str, ...]:
    """Meaning of the model's dynamics channels; empty where they have no names."""
    return tuple(pipe.config.face.dynamics_names)


def name_of(model: str | Path | Vasa) -> str:
    """What files call the model; no paths, since they would tell who and where the user is."""
    return Path(model).name if isinstance(model, str | os.PathLike) else "custom"


def manifest_of(model: str | Path | Vasa, fps: float, total: int, **origin: Any) -> dict[str, Any]:
    """What the video says about itself.

    Args:
        origin: where the motion came from, JSON values, e.g. `controls`.
    """
    from . import __version__

    return {
        "generator": f"vasa {__version__}",
        "digital_source_type": "trainedAlgorithmicMedia",
        "model": name_of(model),
        **origin,
        "fps": fps,
        "frames": total,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
