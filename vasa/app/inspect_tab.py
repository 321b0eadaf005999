"""The tab "Inspect": the input doctor, curves of a motion, and where a video comes from."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import InputError
from ..motion_file import read_motion_file
from .inputs import picture_input
from .inspection import (
    Finding,
    curves_figure,
    envelope,
    examine_portrait,
    examine_speech,
    examine_video,
    mouth_opening,
    sync,
)
from .studio import Studio
from .words import capital, sentence, table_html

EMPTY = '<p style="opacity:.6">Give something on the left.</p>'


def build_inspect_tab(studio: Studio) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            portrait = picture_input(
                label="Portrait", height=220, sources=["upload", "webcam"], elem_id="doctor-portrait"
            )
            speech = gr.Audio(type="filepath", label="Speech", sources=["upload", "microphone"])
            motion = gr.File(
                label="Motion file (.safetensors)", type="filepath", file_types=[".safetensors"], height=140
            )
            video = gr.File(label="Any video", type="filepath", file_types=["video"], height=140)
            look = gr.Button("Look closer", variant="primary", elem_id="look")
        with gr.Column(scale=2, min_width=320):
            report = gr.HTML(EMPTY, elem_classes="vasa-table", elem_id="report")
            plot = gr.Plot(label="Movement", visible=False)
    look.click(
        _inspect(studio), [portrait, speech, motion, video], [report, plot], concurrency_limit=2,
        show_progress_on=[report], api_visibility="private",
    )  # fmt: skip


def _inspect(studio: Studio):
    def look(portrait: str | None, speech: str | None, motion: str | None, video: str | None) -> tuple:
        findings, figure = examine(studio, portrait, speech, motion, video)
        if not findings:
            raise gr.Error("Give a portrait, speech, a motion file or a video first.", print_exception=False)
        rows = [(one.subject, capital(one.finding), one.remedy, one.kind) for one in findings]
        return table_html(rows), gr.update(value=figure, visible=figure is not None)

    return look


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
        found, figure = _examine_motion(motion, speech)
        findings += found
    if video:
        findings += examine_video(video)[0]
    return findings, figure


def _examine_motion(path: str, speech: str | None) -> tuple[list[Finding], Any]:
    try:
        file = read_motion_file(path)
    except InputError as error:
        return [Finding("Motion", sentence(error), "", "bad")], None
    seconds = len(file.motion) / file.motion.fps
    findings = [Finding("Motion", f"{len(file.motion)} frames, {seconds:.1f} s, model {file.model or 'unknown'}")]
    sound = None
    if speech:
        try:
            sound = Studio.heard(speech)
        except InputError:
            sound = None
    opening = mouth_opening(file.motion, file.names)
    if sound is not None and opening is not None:
        agreement, late = sync(opening, envelope(sound, file.motion.fps, len(file.motion)))
        words = f"jaw and loudness agree by {agreement:.2f}, the jaw {1000 * late / file.motion.fps:+.0f} ms late"
        findings.append(Finding("Lips and sound", words))
    return findings, curves_figure(file.motion, file.names, sound)
