"""The input doctor: what is seen in a portrait, heard in speech, and claimed by a video, each with a remedy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..io.audio import LoadedAudio, iterate_soundtrack
from ..io.face import Crop, CropRequest, crop_square, detector_name, find_faces
from ..io.preview import draw_faces, face_at
from ..latents import Motion
from ..provenance import Report, verify
from .studio import Studio
from .words import capital, sentence

MIN_FACE, MAX_YAW, MAX_PITCH = 110, math.radians(25), math.radians(20)
BLURRED, DARK, BRIGHT = 0.001, 0.18, 0.85
SPARSE, QUIET_DB, CLIPPED, FULL_SCALE = 0.3, -40.0, 0.001, 0.99
ACTIVE_DB = 30.0
"""Blocks within so much of the loudest count as speech."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        subject: what was looked at.
        finding: what was found.
        remedy: what to do; "" if all is well.
        kind: "", "warn" or "bad".
    """

    subject: str
    finding: str
    remedy: str = ""
    kind: str = ""

    @property
    def row(self) -> tuple[str, str, str, str]:
        return self.subject, capital(self.finding), self.remedy, self.kind


def faces_picture(pixels: Tensor, framed: Crop, crop: CropRequest = "auto") -> np.ndarray:
    """A picture with the faces that the detector sees and the square that the model gets, [h, w, 3] uint8."""
    boxes = find_faces(pixels) if crop == "auto" else []
    drawn = draw_faces(torch.rot90(pixels, framed.quarter_turns, (1, 2)), boxes, [framed])
    return (drawn * 255).round().byte().permute(1, 2, 0).numpy()


def face_clicked(pixels: Tensor, framed: Crop, place: tuple[float, float]) -> int | None:
    """The number of the face that lies at a place of `faces_picture`; None where there is none."""
    return face_at(*place, torch.rot90(pixels, framed.quarter_turns, (1, 2)), find_faces(pixels))


def examine_portrait(studio: Studio, path: str) -> list[Finding]:
    """Size, faces, angle, sharpness and light of a portrait."""
    try:
        picture, framed, _ = studio.looked_at(path)
    except InputError as error:
        return [Finding("Portrait", sentence(error), "The crop can also be given by hand.", "bad")]
    height, width = picture.pixels.shape[1:]
    faces = find_faces(picture.pixels)
    findings = [Finding("Picture", f"{width} × {height} pixels")]
    many = "" if len(faces) == 1 else "Choose one under Crop; the largest is taken."
    words = f"{len(faces)} seen by {detector_name()}"
    findings.append(Finding("Faces", words, many, "" if len(faces) == 1 else "warn"))
    small = framed.side < MIN_FACE * 1.9
    findings.append(
        Finding(
            "Head", f"{framed.side:.0f} pixels across",
            "Use a larger picture; the video will look soft." if small else "", "warn" if small else "",
        )
    )  # fmt: skip
    yaw, pitch, roll = (float(angle) for angle in studio.pipe.read_pose(framed.picture)[:3])
    turned = abs(yaw) > MAX_YAW or abs(pitch) > MAX_PITCH
    side = f"{abs(math.degrees(yaw)):.0f}° {'left' if yaw > 0 else 'right'}"
    height_words = f"{abs(math.degrees(pitch)):.0f}° {'down' if pitch > 0 else 'up'}"
    findings.append(
        Finding(
            "Angle", f"{side}, {height_words}, tilted {math.degrees(roll):+.0f}°",
            "Take a picture that looks more into the camera." if turned else "", "warn" if turned else "",
        )
    )  # fmt: skip
    upright = torch.rot90(picture.pixels, framed.quarter_turns, (1, 2))
    findings += _light(crop_square(upright, *framed.square, 256))
    return findings + [Finding("Note", notice, "", "warn") for notice in [*picture.notices, *framed.notices]]


def _light(crop: Tensor) -> list[Finding]:
    """Sharpness and brightness of the crop."""
    grey = crop.mean(0)[None, None]
    edges = F.conv2d(grey, torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]]))
    sharpness = float(edges[0, 0, 32:-32, 64:-64].var())
    light = float(grey[0, 0, 64:192, 80:176].mean())
    blurred, dim = sharpness < BLURRED, light < DARK or light > BRIGHT
    return [
        Finding(
            "Sharpness", f"{1e4 * sharpness:.1f} (blurred below {1e4 * BLURRED:.0f})",
            "Use a sharper picture." if blurred else "", "warn" if blurred else "",
        ),
        Finding(
            "Light", f"{light:.0%} mean brightness of the face",
            ("Brighten the picture." if light < DARK else "Darken the picture.") if dim else "", "warn" if dim else "",
        ),
    ]  # fmt: skip


def examine_speech(path: str) -> list[Finding]:
    """Length, share of speech, level and clipping of a sound file."""
    try:
        sound = Studio.heard(path)
    except InputError as error:
        return [Finding("Speech", sentence(error), "", "bad")]
    # the level as it was recorded, which `heard` corrects
    waveform = np.concatenate([block.mean(axis=0) for block in iterate_soundtrack(path, sound.sample_rate)])
    share, level = activity(waveform, sound.sample_rate)
    clipped = float((np.abs(waveform) >= FULL_SCALE).mean())
    sparse, quiet, loud = share < SPARSE, level < QUIET_DB, clipped > CLIPPED
    return [
        Finding("Length", f"{sound.seconds:.1f} s"),
        Finding(
            "Speech share", f"{share:.0%} of the time",
            "Cut the silence; in silence the face only idles." if sparse else "", "warn" if sparse else "",
        ),
        Finding(
            "Level", f"{level:.0f} dB of full scale while somebody speaks",
            "Record closer to the microphone, or with more gain." if quiet else "", "warn" if quiet else "",
        ),
        Finding(
            "Clipping", f"{clipped:.1%} of the samples are at full scale",
            "Record again with less gain." if loud else "", "warn" if loud else "",
        ),
        *(Finding("Note", notice, "", "warn") for notice in sound.notices),
    ]  # fmt: skip


def activity(waveform: np.ndarray, sample_rate: int) -> tuple[float, float]:
    """Share of blocks in which somebody speaks, and their level in dBFS."""
    block = sample_rate // 50
    whole = waveform[: max(1, len(waveform) // block) * block]
    whole = np.pad(whole, (0, -len(whole) % block)).reshape(-1, block)
    level = 20 * np.log10(np.sqrt((whole**2).mean(1)) + 1e-8)
    top = np.quantile(level, 0.95)
    active = level > max(top - ACTIVE_DB, -60)
    return float(active.mean()), float(level[active].mean()) if active.any() else -160.0


def examine_video(path: str) -> tuple[list[Finding], Report | None]:
    """Where a video says it comes from."""
    try:
        report = verify(path)
    except InputError as error:
        return [Finding("Video", sentence(error), "", "bad")], None
    found = "found" if report.mark.found else "not found"
    place = ""
    if report.mark.found and report.mark.scale != 1:
        place = f", the video was resized to {report.mark.scale:g} times its size"
    findings = [
        Finding(
            "Invisible mark", f"{found} (score {report.mark.score:.1f} in {report.mark.frames} frames){place}",
            "" if report.mark.found else "Below 128 pixels, or after heavy compression, it may be missed.",
        ),
    ]  # fmt: skip
    if report.manifest is None:
        findings.append(Finding("Metadata", "none of ours", "Copying through other programs removes metadata."))
    else:
        manifest = report.manifest
        findings.append(
            Finding("Metadata", f"made by {manifest.get('generator', '?')}, model {manifest.get('model', '?')}")
        )
        controls = manifest.get("controls")
        if isinstance(controls, dict):
            findings.append(Finding("Seed", str(controls.get("seed"))))
    signed = report.c2pa and f"{report.c2pa}, by {report.c2pa_issuer or 'an unnamed signer'}"
    findings.append(Finding("C2PA", signed or "no signature"))
    return findings + [Finding("Note", notice) for notice in report.notices], report


def mouth_opening(motion: Motion, names: tuple[str, ...]) -> np.ndarray | None:
    """How far the jaw is open, [T]; None where the model's channels have no names."""
    if "jawOpen" not in names:
        return None
    return motion.facial_dynamics[:, names.index("jawOpen")].numpy()


def envelope(sound: LoadedAudio, fps: float, frames: int) -> np.ndarray:
    """Loudness beside every frame, 0 .. 1, [T]."""
    edges = np.round(np.arange(frames + 1) / fps * sound.sample_rate).astype(int)
    waveform = sound.waveform.numpy()
    loud = np.array(
        [
            np.sqrt((waveform[a:b] ** 2).mean()) if b > a and a < len(waveform) else 0.0
            for a, b in zip(edges, edges[1:], strict=False)
        ]
    )
    return loud / max(float(loud.max()), 1e-6)


def sync(opening: np.ndarray, loudness: np.ndarray, reach: int = 8) -> tuple[float, int]:
    """Best correlation of mouth and loudness, 0 if there is none, and by how many frames the mouth is late."""
    best = (0.0, 0)
    for lag in range(-reach, reach + 1):
        a = opening[max(0, lag) : len(opening) + min(0, lag)]
        b = loudness[max(0, -lag) : len(loudness) + min(0, -lag)]
        if len(a) > 2 and a.std() > 1e-6 and b.std() > 1e-6:
            best = max(best, (float(np.corrcoef(a, b)[0, 1]), lag))
    return best


def curves_figure(motion: Motion, names: tuple[str, ...], sound: LoadedAudio | None = None):
    """Head pose, gaze and mouth over time; the speech's loudness behind the mouth."""
    from matplotlib.figure import Figure

    time = np.arange(len(motion)) / motion.fps
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    pose, gaze, mouth = figure.subplots(3, 1, sharex=True)
    for index, name in enumerate(("turn", "nod", "tilt")):
        pose.plot(time, np.degrees(motion.head_pose[:, index].numpy()), label=name, linewidth=1.3)
    pose.set_ylabel("head, °")
    for name in ("eyeYaw", "eyePitch"):
        if name in names:
            values = np.degrees(motion.facial_dynamics[:, names.index(name)].numpy())
            gaze.plot(time, values, label=name.removeprefix("eye").lower(), linewidth=1.3)
    gaze.set_ylabel("eyes, °")
    opening = mouth_opening(motion, names)
    if sound is not None:
        mouth.fill_between(time, envelope(sound, motion.fps, len(motion)), color="0.8", label="loudness")
    if opening is not None:
        mouth.plot(time, opening, label="jaw", linewidth=1.3)
    mouth.set_ylabel("mouth")
    mouth.set_xlabel("seconds")
    for axes in (pose, gaze, mouth):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right", fontsize=8, ncols=3, frameon=False)
    return figure
