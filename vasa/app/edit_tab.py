"""The tab "Edit": a face moved by hand, and motions cut, joined, exchanged and shown on another portrait."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from ..animate import name_of, names_of, render
from ..drive import motion_from_video
from ..errors import InputError
from ..latents import Motion
from ..motion.edit import SPEEDS, loop, retime, smooth_pose, splice, swap
from ..motion_file import MotionFile, read_motion_file, save_motion
from .api import GPU
from .background import watched
from .gaze_pad import gaze_of, gaze_pad
from .hints import hinted, told
from .inputs import picture_input
from .inspection import curves_figure
from .performance import Status
from .player import Player
from .studio import Stopped, Studio
from .words import TROUBLE, bold, capital, sentence, status_html

STILL: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "jaw": ("Mouth open", "The jaw drops.", ("jawOpen",)),
    "smile": ("Smile", "Corners up.", ("mouthSmile_L", "mouthSmile_R")),
    "pucker": ("Kiss", "Lips pushed out.", ("mouthPucker",)),
    "brows": ("Brows up", "Both brows.", ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R")),
    "frown": ("Brows down", "A frown.", ("browDown_L", "browDown_R")),
    "lids": ("Eyes closed", "Both lids.", ("eyeBlink_L", "eyeBlink_R")),
}
"""Sliders for a still: label, explanation, and the dynamics channels they move."""
TURNS = {"yaw": ("Turn left", 30), "pitch": ("Turn down", 20), "roll": ("Tilt", 20)}
OPERATIONS = ("As it is", "Splice: first, then second", "Swap: head of the first, face of the second", "Loop the first")


def build_edit_tab(studio: Studio, shared: dict[str, Any]) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            portrait = picture_input(
                label="Portrait", height=240, sources=["upload", "webcam"], elem_id="edit-portrait"
            )
            hinted(gr.Button("Take the portrait from Animate", size="sm"), "take").click(
                lambda path: path, shared["portrait"], portrait, show_progress="hidden", api_visibility="private"
            )
            gaze = told(gaze_pad("Where the eyes look", elem_id="still-gaze"), "gaze")
        with gr.Column(scale=1, min_width=280):
            still = gr.Image(
                label="Moved by hand", interactive=False, height=460, buttons=["download"], elem_id="still"
            )
            hinted(still, "still")
            said = gr.Markdown("", elem_id="still-words")
            turns = [
                hinted(
                    gr.Slider(-limit, limit, 0, step=1, label=label, info="Degrees from the portrait's own angle."),
                    name,
                )
                for name, (label, limit) in TURNS.items()
            ]
        with gr.Column(scale=1, min_width=280):
            sliders = [
                hinted(gr.Slider(0, 1, 0, step=0.02, label=label, info=info, elem_id=f"still-{name}"), "still")
                for name, (label, info, _) in STILL.items()
            ]
    moved = [portrait, gaze, *sliders, *turns]
    for widget in moved:
        event = widget.change if widget in (portrait, gaze) else widget.input
        event(
            _still(studio), moved, [still, said], show_progress="hidden", trigger_mode="always_last",
            concurrency_id="still", concurrency_limit=1, api_visibility="private",
        )  # fmt: skip
    _build_motions(studio, portrait, shared)


def _still(studio: Studio):
    def still(path: str | None, gaze: str, *values: float) -> tuple:
        if not path:
            return None, "Choose a portrait; the picture then follows the sliders."
        try:
            portrait = studio.portrait(path)
            yaw, pitch = gaze_of(gaze)
        except InputError as error:
            return None, bold(error)
        pipe, names = studio.pipe, names_of(studio.pipe)
        if not names:
            return None, "This model's face channels have no names; only whole motions can be edited."
        pose = portrait.latents.head_pose[:1].clone().cpu().float()
        pose[0, :3] += torch.tensor([math.radians(v) for v in values[len(STILL) :]])
        dynamics = portrait.latents.facial_dynamics[:1].clone().cpu().float()
        for value, (_, _, channels) in zip(values, STILL.values(), strict=False):
            for name in channels:
                if name in names:
                    channel = dynamics[0, names.index(name)]
                    dynamics[0, names.index(name)] = channel + value * (1 - channel)
        for name, angle in (("eyeYaw", yaw), ("eyePitch", pitch)):
            if name in names:
                dynamics[0, names.index(name)] += angle
        motion = Motion(pose, dynamics, pipe.fps, pipe.backend)
        frame = next(iter(pipe.decode(portrait.latents, motion, batch_size=1)))[0]
        picture = (frame * 255).round().byte().permute(1, 2, 0).numpy()
        return picture, " ".join(capital(notice) for notice in portrait.notices)

    return still


def _build_motions(studio: Studio, portrait: Any, shared: dict[str, Any]) -> None:
    """The lower half: whole motions."""
    gr.Markdown("### Motions: files saved here, or videos to read them from")
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            kinds = [".safetensors", "video"]
            first = gr.File(
                label="First motion or video", type="filepath", file_types=kinds, height=140, elem_id="first"
            )
            told(first, "motion")
            second = gr.File(label="Second motion or video", type="filepath", file_types=kinds, height=140)
            told(second, "second")
            sound = told(gr.Audio(label="Sound to carry along", type="filepath", sources=["upload"]), "sound")
            hinted(gr.Button("Take motion and speech from Animate", size="sm", elem_id="take-motion"), "take").click(
                lambda *made: made, [shared["motion"], shared["speech"]], [first, sound], show_progress="hidden",
                api_visibility="private",
            )  # fmt: skip
        with gr.Column(scale=1, min_width=280):
            what = gr.Radio(
                list(OPERATIONS), value=OPERATIONS[0], label="What to do", info="With the motions on the left."
            )
            overlap = gr.Slider(0, 75, 25, step=1, label="Overlap", info="Frames that fade into each other.")
            times = gr.Slider(1, 10, 2, step=1, label="Times", info="How often a loop is repeated.")
            speed = gr.Slider(*SPEEDS, 1, step=0.1, label="Speed", info="2 plays in half the time.")
            calm = gr.Slider(
                0, 0.5, 0, step=0.02, label="Calm the head", info="Seconds over which its path is smoothed."
            )
            paste_back = gr.Checkbox(False, label="Whole picture", info="Put the face back into the picture.")
        with gr.Column(scale=1, min_width=280):
            video = Player(label="Result", interactive=False, height=340, autoplay=True, elem_id="edited")
            status = gr.HTML(status_html(Status("Give a portrait above and a motion.")), elem_classes="vasa-status")
            with gr.Row():
                go = hinted(gr.Button("Render", variant="primary", scale=2, elem_id="render"), "render")
                stop = hinted(gr.Button("Stop", scale=1, min_width=80), "end")
            saved = hinted(gr.DownloadButton("Save the motion", interactive=False), "save-motion")
    plot = hinted(gr.Plot(label="Movement", show_label=False, visible=False), "plot")
    hinted(video, "result")
    inputs = [portrait, first, second, sound, what, overlap, times, speed, calm, paste_back]

    def check(
        portrait: str | None, first: str | None, second: str | None, sound: str | None, what: str, *_: Any
    ) -> list:
        needs_two = what in OPERATIONS[1:3]
        answers = [gr.validate(True, "")] * len(inputs)
        if not portrait:
            answers[0] = gr.validate(False, "Choose a portrait at the top of this tab.")
        if not first:
            answers[1] = gr.validate(False, "Give a motion file or a video.")
        if needs_two and not second:
            answers[2] = gr.validate(False, "This needs a second motion.")
        return answers

    def run(request: gr.Request, *values: Any) -> Iterator[tuple]:
        user = request.session_hash
        job, folder = studio.begin(user), studio.folder(user)
        skip = gr.skip()
        try:
            for result in watched(job, lambda progress: _edited(studio, folder, values, progress)):
                if isinstance(result, Status):
                    yield skip, status_html(result), skip, skip
                else:
                    path, motion, figure, words = result
                    yield (
                        str(path),
                        status_html(words),
                        gr.update(value=str(motion), interactive=True),
                        gr.update(value=figure, visible=True),
                    )
        except Stopped:
            yield skip, status_html(Status("Stopped; nothing was kept.")), skip, skip
        except TROUBLE as error:
            yield skip, status_html(Status(sentence(error), problem=True)), skip, skip
        finally:
            studio.end(user, job)

    def halt(request: gr.Request) -> None:
        studio.stop(request.session_hash)

    go.click(
        run, inputs, [video, status, saved, plot], validator=check, concurrency_id=GPU, concurrency_limit=1,
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    stop.click(halt, None, None, queue=False, show_progress="hidden", api_visibility="private")


def _edited(studio: Studio, folder: Path, values: tuple, progress: Any) -> tuple:
    """Motion, operation, film: (video, motion file, figure, status)."""
    portrait, first, second, sound, what, overlap, times, speed, calm, paste_back = values
    notices: list[str] = []

    def motion_of(path: str) -> MotionFile:
        if Path(path).suffix.lower() == ".safetensors":
            return read_motion_file(path)
        report = lambda done, total: progress("tracking", done, total)  # noqa: E731
        motion = motion_from_video(studio.pipe, path, notices=notices, progress=report)
        return MotionFile(motion, names_of(studio.pipe), name_of(studio.model))

    file = motion_of(first)
    motion = file.motion
    if what == OPERATIONS[1]:
        motion = splice(motion, motion_of(second).motion, int(overlap))
    elif what == OPERATIONS[2]:
        motion = swap(motion, motion_of(second).motion)
    elif what == OPERATIONS[3]:
        motion = loop(motion, int(overlap), int(times))
    if speed != 1:
        motion = retime(motion, speed=float(speed))
    if calm:
        motion = smooth_pose(motion, float(calm))
    edited = replace(file, motion=motion)
    path = folder / "motion.safetensors"
    save_motion(path, motion, names=file.names, model=file.model)
    result = render(
        portrait, edited, folder / "edited.mp4", audio=sound or None, model=studio.pipe, paste_back=bool(paste_back),
        progress=progress,
    )  # fmt: skip
    words = f"Done. {result.frames} frames in {result.seconds:.1f} s"
    status = Status(words, 1.0, notices=tuple([*notices, *result.notices]))
    return result.path, path, curves_figure(motion, file.names), status
