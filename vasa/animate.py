"""The file-to-file story: a portrait and a speech file become a talking video."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from .controls import Controls
from .errors import InputError
from .io.audio import iterate_soundtrack, load_audio
from .io.face import CropRequest, portrait_crop
from .io.files import check_writable
from .io.image import load_image
from .io.video import SOUND_RATE, VideoWriter, num_frames
from .latents import Motion
from .pipeline import Vasa

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
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Make `portrait` speak `speech` and write the video to `out`.

    Inputs and output are checked before the model is loaded; the output appears only when it is complete.

    Args:
        portrait: image file.
        speech: sound file, or a video file whose sound is used.
        out: mp4 file to write.
        model: name, folder, or an already loaded model.
        seed: random seed; overrides the one in `controls`.
        steps: denoising steps; overrides those in `controls`.
        controls: gaze, distance, emotion, guidance.
        crop: "auto", "none" or (x, y, size) in pixels of the upright picture.
        face: which face to take where there are several, 0 = largest.
        fps: frame rate of the video, 1 .. 60; default the model's own.
        device: "auto", "cpu", "cuda"; ignored with a loaded model, like `precision`.
        precision: "auto", "fp32", "bf16", "fp16".
        batch_size: frames decoded at a time.
        progress: progress(stage, done, total), stage "motion" or "frames"; may raise to cancel.

    Raises:
        InputError: an input, option or output that cannot be used, in one sentence with the remedy.
    """
    out = check_writable(out)
    if fps is not None and not FRAME_RATES[0] <= fps <= FRAME_RATES[1]:
        raise InputError(f"fps must be between {FRAME_RATES[0]:.0f} and {FRAME_RATES[1]:.0f}, got {fps}")
    given = asdict(controls or Controls())
    given["seed"] = given["seed"] if seed is None else seed
    given["steps"] = given["steps"] if steps is None else steps
    controls = Controls(**given)
    picture = load_image(portrait)
    sound = load_audio(speech)
    pipe = model
    if not isinstance(pipe, Vasa):
        pipe = Vasa.from_pretrained(model, device=device, precision=precision)

    started = time.perf_counter()
    framed = portrait_crop(picture.pixels, crop, face=face, size=pipe.size, refine=pipe.read_pose)
    latents = pipe.encode(framed.picture)
    motion = pipe.generate(
        sound.waveform,
        latents,
        controls,
        progress=progress and (lambda done, total: progress("motion", done, total)),
    )
    fps = pipe.fps if fps is None else fps
    total = num_frames(Fraction(len(sound.waveform), sound.sample_rate), fps)
    motion = retime(motion, fps, total)
    manifest = _manifest(model, controls, fps, total)
    with VideoWriter(out, pipe.size, fps, (iterate_soundtrack(speech), SOUND_RATE), manifest) as writer:
        for frames in pipe.decode(latents, motion, batch_size=batch_size):
            writer.write(frames)
            if progress is not None:
                progress("frames", writer.frames_written, total)
    notices = [*picture.notices, *sound.notices, *framed.notices]
    return Result(out, total, time.perf_counter() - started, fps, controls.seed, notices)


def retime(motion: Motion, fps: float, total: int) -> Motion:
    """The same motion at another frame rate, linearly interpolated; beyond its end the last pose holds.

    Args:
        motion: [T, ...].
        fps: wanted frames per second.
        total: wanted number of frames.
    """
    vectors = motion.vectors
    position = (torch.arange(total, dtype=torch.float64) * (motion.fps / fps)).clamp(max=len(vectors) - 1)
    before = position.floor().long()
    after = (before + 1).clamp(max=len(vectors) - 1)
    share = (position - before).to(vectors)[:, None]
    before, after = before.to(vectors.device), after.to(vectors.device)
    return Motion.from_vectors(torch.lerp(vectors[before], vectors[after], share), fps, motion.backend)


def _manifest(model: str | Path | Vasa, controls: Controls, fps: float, total: int) -> dict[str, Any]:
    """What the video says about itself; no paths, since they would tell who and where the user is."""
    from . import __version__

    return {
        "generator": f"vasa {__version__}",
        "digital_source_type": "trainedAlgorithmicMedia",
        "model": "custom" if isinstance(model, Vasa) else Path(model).name,
        "controls": asdict(controls),
        "fps": fps,
        "frames": total,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
