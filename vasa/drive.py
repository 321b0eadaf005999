"""Motion from video: the head and the face of a filmed person move a portrait, alone or together with speech."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .animate import (
    Result,
    Screen,
    check_fps,
    check_output,
    manifest_of,
    name_of,
    names_of,
    opened,
    write_video,
)
from .controls import Controls
from .errors import InputError
from .io.audio import iterate_soundtrack, load_audio
from .io.driving import open_driving_video
from .io.face import CropRequest, portrait_crop
from .io.files import check_writable
from .io.image import load_image
from .io.video import num_frames
from .latents import EXPRESSIONS, Motion
from .motion.edit import at_times, check_alike, retime, smoothed, there_and_back
from .motion.place import place
from .motion_file import SUFFIX, save_motion
from .pipeline import Vasa
from .track import Tracked, track

PARTS = ("head", "gaze", "face", "mouth")
"""What a driver can be asked for: pose; eyes; brows, lids, cheeks and nose; lips and jaw."""
POSE_SECONDS, FACE_SECONDS = 0.06, 0.02
"""Standard deviation of the mean over time that takes the reading's tremor away."""
CALM_SHARE = 0.05
"""Share of the frames in which an expression must be weaker than what counts as the person's resting face."""


def motion_from_video(
    vasa: Any,
    path: str | os.PathLike,
    relative: bool = True,
    *,
    face: int = 0,
    crop: CropRequest = "auto",
    notices: list[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Motion:
    """Read the motion of the person in a video.

    Args:
        vasa: the engine that reads and later shows it.
        path: video file.
        relative: movement about the first frame that shows the face: the head's pose there becomes `Motion.rest`,
            and the resting face is taken off the expression (`resting_face`). Else everything as it is seen.
        face: which face, 0 = largest in the first frame that shows one.
        crop: "auto" or the square (x, y, size) of the head in the first frame, pixels of the upright frame scaled to
            at most 1280.
        notices: sentences the user should see are appended to it.
        progress: progress(frames read, about how many there are); may raise to cancel.

    Returns:
        Motion at the engine's frame rate, as long as the video. Where the head is out of sight it waits.

    Raises:
        InputError: no such file, damaged, no picture track, or no face in it.
    """
    video = open_driving_video(path)
    report = None if progress is None else lambda done: progress(done, max(done, video.count))
    tracked = track(video.frames, vasa, face, crop, report)
    if notices is not None:
        if tracked.duration < 0.9 * video.seconds - 0.1:
            name = Path(path).name
            notices.append(f"{name} is truncated: it says {video.seconds:.1f} s, {tracked.duration:.1f} s are readable")
        notices += [f"the driver's face is not to be seen from {a:.1f} s to {b:.1f} s" for a, b in tracked.lost]
    return motion_of(tracked, vasa.fps, names_of(vasa), relative)


def motion_of(tracked: Tracked, fps: float, names: tuple[str, ...], relative: bool) -> Motion:
    """Evenly timed, calmed motion of what was tracked; see `motion_from_video`."""
    total = max(1, round(tracked.duration * fps))
    times = torch.arange(total, dtype=torch.float64) / fps
    motion = at_times(tracked.motion, _positions(tracked.times, times), fps)
    pose = smoothed(motion.head_pose, POSE_SECONDS * fps)
    dynamics = smoothed(motion.facial_dynamics, FACE_SECONDS * fps)
    if not relative:
        return replace(motion, head_pose=pose, facial_dynamics=dynamics, rest=None)
    dynamics = dynamics - resting_face(dynamics, names)
    return replace(motion, head_pose=pose, facial_dynamics=dynamics, rest=pose[0].clone())


def resting_face(dynamics: Tensor, names: tuple[str, ...]) -> Tensor:
    """What a face shows when it does nothing, [E]: the bias of a reading and of the person.

    Of each expression weight it is that of the first frame, but no more than the clip itself shows in its calmest
    frames: a mouth that is open or an eye that is shut in the first frame does not hold the rest back. Eyes keep
    their direction. Channels that are no expression weights (`vasa.latents.EXPRESSIONS`) have no known zero and stay.

    Args:
        dynamics: [T, E].
        names: what the channels mean.
    """
    if not names:
        return torch.zeros_like(dynamics[0])
    calm = torch.minimum(dynamics[0], dynamics.quantile(CALM_SHARE, dim=0)).clamp_min(0)
    is_weight = torch.zeros_like(calm, dtype=torch.bool)
    is_weight[: len(names)] = torch.tensor([name in EXPRESSIONS and part_of(name) != "gaze" for name in names])
    return torch.where(is_weight, calm, torch.zeros_like(calm))


def part_of(name: str) -> str:
    """Which of `PARTS` a dynamics channel belongs to.

    >>> part_of("eyeBlink_L"), part_of("jawOpen"), part_of("eyeYaw")
    ('face', 'mouth', 'gaze')
    """
    if name.startswith(("eyeLook", "eyeYaw", "eyePitch")):
        return "gaze"
    return "mouth" if name.startswith(("mouth", "jaw", "cheekPuff", "tongue")) else "face"


def blend(speech: Motion, video: Motion, parts: tuple[str, ...], names: tuple[str, ...]) -> Motion:
    """A motion whose `parts` come from a video and whose others come from speech.

    Args:
        speech: what the speech (and the controls' timeline) made, [T, ...]; its length and rate are the result's.
        video: what the video shows; where it is shorter it goes there and back.
        parts: among `PARTS`.
        names: what the dynamics channels mean.

    Raises:
        InputError: an unknown part, motions that do not fit together, or a face to be divided whose channels have no
            names.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InputError(f"unknown part {unknown[0]!r}; choose among {', '.join(PARTS)}")
    check_alike(speech, video)
    wanted = set(parts) - {"head"}
    if wanted and wanted != set(PARTS[1:]) and not names:
        raise InputError(
            "this model's face channels have no names, so only head can come from the video and the rest not"
        )
    video = there_and_back(retime(video, speech.fps), len(speech))
    if speech.rest is not None:
        video = place(video, speech.rest, names)
    # channels without a name go with the face
    of = [part_of(name) for name in names]
    of += ["face"] * (speech.facial_dynamics.shape[-1] - len(of))
    kept = torch.tensor([part not in wanted for part in of], device=speech.facial_dynamics.device)
    dynamics = torch.where(kept, speech.facial_dynamics, video.facial_dynamics.to(speech.facial_dynamics))
    if "head" not in parts:
        return replace(speech, facial_dynamics=dynamics)
    return replace(speech, head_pose=video.head_pose.to(speech.head_pose), facial_dynamics=dynamics, rest=video.rest)


def drive(
    portrait: str | os.PathLike,
    video: str | os.PathLike,
    out: str | os.PathLike,
    *,
    relative: bool = True,
    speech: str | os.PathLike | None = None,
    from_video: tuple[str, ...] = ("head", "gaze", "face"),
    controls: Controls | None = None,
    model: str | Path | Vasa = "vasa-mini",
    crop: CropRequest = "auto",
    face: int = 0,
    driver_crop: CropRequest = "auto",
    driver_face: int = 0,
    fps: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 8,
    save_motion_to: str | os.PathLike | None = None,
    paste_back: bool = False,
    lock: bool = True,
    alpha: bool = False,
    mark: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result:
    """Let the person in `video` move `portrait`, and write the video to `out` with the driver's sound.

    Args:
        portrait: image file.
        video: the driving video.
        out: mp4 file to write.
        relative: movement about the driver's first frame on the portrait's own shoulders; else the head is where the
            driver's is.
        speech: sound file that is spoken and heard instead of the driver's; the video then gives only `from_video`.
        from_video: what the video gives beside speech, among `PARTS`; the speech and `controls` give the others.
        controls: with speech, what the user asks for; without, only the default.
        driver_crop, driver_face: where the head is in the video, as in `motion_from_video`.
        model, crop, face, fps, device, precision, batch_size, save_motion_to, paste_back, lock, alpha, mark: as
            in `vasa.animate.animate`.
        progress: progress(stage, done, total), stage "tracking", "motion" or "frames"; may raise to cancel.

    Raises:
        InputError: an input, option or output that cannot be used, in one sentence with the remedy.
    """
    out = check_output(out, alpha)
    if save_motion_to is not None:
        check_writable(save_motion_to, (SUFFIX,))
    check_fps(fps)
    if speech is None and controls not in (None, Controls()):
        raise InputError("controls steer what speech makes; give speech with them")
    picture = load_image(portrait)
    has_sound = open_driving_video(video).has_sound
    heard = video if has_sound and speech is None else speech
    sound = None if speech is None else load_audio(speech)
    pipe = opened(model, device, precision)

    def stage(name: str) -> Callable[[int, int], None] | None:
        return progress and (lambda done, total: progress(name, done, total))

    started = time.perf_counter()
    controls = controls or Controls()
    notices = list(picture.notices)
    framed = portrait_crop(picture.pixels, crop, face=face, size=pipe.size, refine=pipe.read_pose)
    notices += framed.notices
    latents = pipe.encode(framed.picture)
    motion = motion_from_video(
        pipe, video, relative, face=driver_face, crop=driver_crop, notices=notices, progress=stage("tracking")
    )
    motion = pipe.adopted(motion, latents)
    origin: dict[str, Any] = {"driver": {"relative": relative}}
    total = None
    if sound is not None:
        notices += sound.notices
        spoken = pipe.generate(sound.waveform, latents, controls, progress=stage("motion"))
        motion = blend(spoken, motion, from_video, names_of(pipe))
        origin = {"driver": {"relative": relative, "parts": list(from_video)}, "controls": controls.to_json()}
        fps = pipe.fps if fps is None else fps
        total = num_frames(Fraction(len(sound.waveform), sound.sample_rate), fps)
    if save_motion_to is not None:
        save_motion(save_motion_to, motion, names=names_of(pipe), model=name_of(model), **origin)
    motion = retime(motion, fps, total)
    soundtrack = None if heard is None else iterate_soundtrack(heard)
    manifest = manifest_of(model, motion.fps, len(motion), mark=mark, **origin)
    screen = Screen(pipe.size, latents, picture.pixels, framed, paste_back=paste_back, lock=lock, alpha=alpha)
    notices += write_video(out, pipe, latents, motion, soundtrack, manifest, batch_size, progress, screen)
    return Result(out, len(motion), time.perf_counter() - started, motion.fps, controls.seed, notices)


def _positions(known: Tensor, wanted: Tensor) -> Tensor:
    """Fractional indices into `known` (ascending, [N]) at which the values of `wanted` [M] lie, held at both ends."""
    after = torch.searchsorted(known, wanted).clamp(1, max(len(known) - 1, 1))
    if len(known) == 1:
        return torch.zeros_like(wanted)
    before = after - 1
    share = (wanted - known[before]) / (known[after] - known[before])
    return before + share.clamp(0, 1)
