"""The tab "Inspect": the input doctor, curves and scores of a motion, and where a video comes from."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import InputError
from ..io.audio import LoadedAudio
from ..motion_file import read_motion_file
from .hints import hinted, told
from .inputs import picture_input, speech_input
from .inspection import Finding, curves_figure, examine_portrait, examine_speech, examine_video, faces_picture
from .scores import scores
from .studio import Studio
from .words import sentence, table_html

EMPTY = '<p style="opacity:.6">Give a portrait, speech, a motion file or a video, and look closer.</p>'


def build_inspect_tab(studio: Studio, shared: dict[str, Any]) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            take = hinted(gr.Button("Take the clip from Animate", size="sm", elem_id="take-clip"), "take")
            portrait = picture_input(
                label="Portrait", height=220, sources=["upload", "webcam"], elem_id="doctor-portrait"
            )
            speech = speech_input(elem_id="doctor-speech")
            motion = gr.File(
                label="Motion file (.safetensors)", type="filepath", file_types=[".safetensors"], height=140
            )
            told(motion, "motion-file")
            video = gr.File(label="Any video", type="filepath", file_types=["video"], height=140)
            told(video, "any-video")
            look = hinted(gr.Button("Look closer", variant="primary", elem_id="look"), "look")
        with gr.Column(scale=2, min_width=320):
            report = gr.HTML(EMPTY, elem_classes="vasa-table", elem_id="report")
            seen = gr.Image(
                label="What the detector sees", interactive=False, height=320, buttons=[], visible=False, elem_id="seen"
            )
            hinted(seen, "seen")
            plot = hinted(gr.Plot(label="Movement", show_label=False, visible=False), "plot")
    given = [portrait, speech, motion, video]
    take.click(
        lambda *clip: clip, [shared[name] for name in ("portrait", "speech", "motion", "video")], given,
        show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    look.click(
        _inspect(studio), given, [report, seen, plot], concurrency_limit=2, show_progress_on=[report],
        api_visibility="private",
    )  # fmt: skip


def _inspect(studio: Studio):
    def look(portrait: str | None, speech: str | None, motion: str | None, video: str | None) -> tuple:
        findings, figure = examine(studio, portrait, speech, motion, video)
        if not findings:
            raise gr.Error("Give a portrait, speech, a motion file or a video first.", print_exception=False)
        picture = _seen(studio, portrait)
        return (
            table_html([one.row for one in findings]),
            gr.update(value=picture, visible=picture is not None),
            gr.update(value=figure, visible=figure is not None),
        )

    return look


def _seen(studio: Studio, portrait: str | None) -> Any:
    """The portrait with what the detector sees; None where nothing is."""
    try:
        picture, framed, _ = studio.looked_at(portrait)
    except InputError:
        return None
    return faces_picture(picture.pixels, framed)


def examine(
    studio: Studio, portrait: str | None, speech: str | None, motion: str | None, video: str | None
) -> tuple[list[Finding], Any]:
    """Findings about everything that is given, and a figure of the motion."""
    findings: list[Finding] = []
    figure = None
    if portrait:
        findings += examine_portrait(studio, portrait)
    if speech:
        findings += examine_speech(speech)
    if motion:
        found, figure = _examine_motion(motion, speech or video)
        findings += found
    if video:
        findings += examine_video(video)[0]
    return findings, figure


def _examine_motion(path: str, spoken: str | None) -> tuple[list[Finding], Any]:
    """Scores and curves of a motion file, beside the sound of a sound or video file."""
    try:
        file = read_motion_file(path)
    except InputError as error:
        return [Finding("Motion", sentence(error), "", "bad")], None
    sound: LoadedAudio | None = None
    if spoken:
        try:
            sound = Studio.heard(spoken)
        except InputError:
            sound = None
    return scores(file, sound), curves_figure(file.motion, file.names, sound)
