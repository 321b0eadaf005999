"""Real portraits and real speech, for which no truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import make_grid

from ..controls import Controls
from ..errors import InputError
from ..io.audio import load_audio
from ..io.face import portrait_crop
from ..io.image import load_image, save_image
from ..latents import FaceLatents
from ..pipeline import Vasa
from ..synthetic.prosody import RATE as PROSODY_RATE
from ..synthetic.prosody import prosody, smooth
from ..synthetic.visemes import JAW_OPEN
from .clips import RATE, frame_times
from .identity import similarity
from .lips import CLOSED_SHARE, correlation
from .people import Talker, decode, read, watch
from .pose import at_yaw

TURNS_DEGREES = (-20.0, 20.0)
_OPEN_JAW = 0.5
_BLUR_SECONDS = 0.06
_PAUSE_SECONDS = 0.12
_QUIET = 0.15
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp")
_SOUNDS = (".wav", ".mp3", ".m4a", ".flac", ".ogg", ".mp4")


@dataclass(frozen=True)
class Portrait:
    """A real portrait.

    Attributes:
        name: of its file.
        picture: cropped, [3, S, S].
    """

    name: str
    picture: Tensor


def load_portraits(pipe: Vasa, folder: Path) -> tuple[list[Portrait], list[str]]:
    """Every picture of a folder, cropped as `vasa animate` does, and the names of those without a face.

    Raises:
        InputError: the folder holds no pictures.
    """
    found, refused = [], []
    for path in _files(folder, _PICTURES, "pictures"):
        try:
            crop = portrait_crop(load_image(path).pixels, size=pipe.size, refine=pipe.read_pose)
        except InputError:
            refused.append(path.name)
            continue
        found.append(Portrait(path.name, crop.picture))
    return found, refused


def load_speech(folder: Path, seconds: float) -> dict[str, Tensor]:
    """The beginning of every sound file of a folder, [N] at 16 kHz by name.

    Raises:
        InputError: the folder holds no sound, or a file cannot be read.
    """
    return {
        p.name: load_audio(p, RATE).waveform[: round(seconds * RATE)] for p in _files(folder, _SOUNDS, "sound files")
    }


def _files(folder: Path, endings: Sequence[str], what: str) -> list[Path]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in endings) if folder.is_dir() else []
    if not paths:
        raise InputError(f"expected a folder with {what}, found none in {folder}; check the path")
    return paths


def turned(pipe: Vasa, face: FaceLatents) -> Tensor:
    """The face at 20° yaw to either side, with its own expression, [2, 3, S, S]."""
    poses = at_yaw(face.head_pose[0].cpu(), TURNS_DEGREES)
    return decode(pipe, face, poses, face.facial_dynamics.cpu().expand(len(poses), -1))


def likeness(pipe: Vasa, portraits: Sequence[Tensor]) -> Tensor:
    """Mean similarity of each portrait [3, S, S] and its pictures at ±20° yaw, for the reader, [N]."""
    found = []
    for portrait in portraits:
        frames = turned(pipe, pipe.encode(portrait))
        seen = read(pipe, torch.cat([portrait[None], frames])).identity
        found.append(similarity(seen[1:], seen[:1]).mean())
    return torch.stack(found)


def write_sheet(pipe: Vasa, portraits: Sequence[Portrait], path: Path) -> None:
    """Contact sheet to look at: portrait, -20° yaw, as it is, +20° yaw, mouth open; one row each."""
    rows = []
    for portrait in portraits:
        face = pipe.encode(portrait.picture)
        own_pose, own = face.head_pose.cpu(), face.facial_dynamics.cpu()
        speaking = own.clone()
        speaking[:, JAW_OPEN] = _OPEN_JAW
        left, right = turned(pipe, face)
        still = decode(pipe, face, own_pose.expand(2, -1), torch.cat([own, speaking]))
        rows += [portrait.picture, left, still[0], right, still[1]]
    save_image(make_grid(torch.stack(rows), nrow=5, padding=2), path)


@dataclass(frozen=True)
class Heard:
    """How a mouth answers to real speech.

    Attributes:
        correlation: of mouth opening and voiced energy.
        pauses: frames in pauses.
        closed: how many of them show closed lips.
    """

    correlation: float
    pauses: int
    closed: int


def answer_to_speech(pipe: Vasa, talker: Talker, waveform: Tensor, seed: int) -> Heard:
    """Let a portrait say real speech and compare the mouth that is read with loudness where the voice sounds.

    Args:
        pipe: the model.
        talker: who is shown.
        waveform: [N], 16 kHz.
        seed: of the motion.
    """
    motion = pipe.generate(waveform, talker.face, Controls(seed=seed))
    opening = watch(pipe, talker.face, motion).mouth_opening
    energy, quiet = voiced_energy(waveform, len(motion), pipe.fps)
    limit = talker.lips_closed + CLOSED_SHARE * (talker.lips_open - talker.lips_closed)
    return Heard(correlation(opening, energy), int(quiet.sum()), int((opening[quiet] <= limit).sum()))


def voiced_energy(waveform: Tensor, frames: int, fps: float) -> tuple[Tensor, Tensor]:
    """Loudness where the voice sounds, smoothed by 60 ms, [T]; frames amid 0.24 s of quiet, [T] bool."""
    said = prosody(waveform)
    energy = smooth(said.loudness * said.voiced, _BLUR_SECONDS * PROSODY_RATE)
    index = (frame_times(frames, fps) * PROSODY_RATE).long().clamp(max=len(energy) - 1)
    loud = F.max_pool1d(said.loudness[None, None], 5, 1, 2)[0, 0, index] > _QUIET
    reach = round(_PAUSE_SECONDS * fps)
    near = F.max_pool1d(loud.float()[None, None], 2 * reach + 1, 1, reach)[0, 0]
    return energy[index], near == 0
