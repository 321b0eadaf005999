"""The tab "Live": who speaks into the microphone sees the portrait speak. WebRTC by aiortc, else pieces of HLS."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ..errors import InputError
from .calls import Calls, problem
from .hints import hinted, told
from .inputs import picture_input
from .live_hls import connect
from .panel import build_panel, controls_from
from .player import Player
from .studio import Studio
from .web import read_web
from .words import bold, sentence

HTML = read_web("live.html")
CSS = read_web("live.css")
JS = read_web("live.js")
LATER = "This tab answers in pieces of a second (HLS) instead, about two seconds late: press Record below and speak."
"""What there is without WebRTC."""


def live_stage(visible: bool = True) -> gr.HTML:
    """The player of a live call; its value is JSON: {"ticket", "path", "ice"}. It submits when no call comes about."""
    return gr.HTML(
        "{}", html_template=HTML, css_template=CSS, js_on_load=JS, elem_id="live-stage", container=False,
        padding=False, visible=visible,
    )  # fmt: skip


def build_live_tab(studio: Studio) -> Calls:
    """Lay out the tab; returns the calls, which `serve` mounts beside the page."""
    calls = Calls(studio)
    missing = problem()
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            note = gr.Markdown(f"**{missing}** {LATER}", visible=bool(missing), elem_id="live-note")
            stage = hinted(live_stage(visible=not missing), "live")
            with gr.Column(visible=bool(missing), elem_id="live-pieces") as pieces:
                player = Player(
                    streaming=True, autoplay=True, label="Live", interactive=False, elem_classes="vasa-player"
                )
                microphone = gr.Audio(sources=["microphone"], type="numpy", streaming=True, label="Microphone")
                hinted(player, "live"), told(microphone, "microphone")
                figures = gr.HTML("", elem_classes="vasa-line", elem_id="live-figures", padding=False)
            with gr.Row(equal_height=False):
                portrait = picture_input(
                    label="Portrait", height=220, sources=["upload", "webcam"], elem_id="live-portrait", min_width=240
                )
                with gr.Column(min_width=240):
                    prepare = gr.Button("Prepare", variant="primary", elem_id="prepare", visible=not missing)
                    hinted(prepare, "prepare")
                    said = gr.Markdown(
                        "Choose a portrait, prepare it, press Start and speak. While you are silent the face idles. "
                        "The controls act while it runs.",
                        elem_id="live-words",
                    )
        with gr.Column(scale=1, min_width=300):
            panel = build_panel("live-")
    connect(studio, calls, microphone, player, figures, portrait, panel)

    def ready(request: gr.Request, path: str | None, *values: Any) -> tuple[str, str]:
        try:
            ticket = calls.ticket(request.session_hash, studio.portrait(path), controls_from(panel.named(values)))
        except InputError as error:
            return json.dumps({}), bold(error)
        root = (request.headers.get("x-forwarded-prefix") or request.request.scope.get("root_path") or "").rstrip("/")
        return json.dumps(
            {"ticket": ticket, "path": f"{root}/rtc/offer", "ice": calls.ice_servers}
        ), "Ready: press Start."

    def change(request: gr.Request, *values: Any) -> None:
        try:
            calls.change(request.session_hash, controls_from(panel.named(values)))
        except InputError as error:
            gr.Warning(sentence(error))

    def fall_back() -> tuple:
        shown, hidden = gr.update(visible=True), gr.update(visible=False)
        return gr.update(value=f"**No direct connection came about.** {LATER}", visible=True), hidden, hidden, shown

    stage.submit(
        fall_back, None, [note, stage, prepare, pieces], queue=False, show_progress="hidden", api_visibility="private"
    )
    prepare.click(ready, [portrait, *panel.inputs], [stage, said], show_progress_on=said, api_visibility="private")
    for widget in panel.inputs:
        # not `input`, which a preset does not set off
        widget.change(
            change, panel.inputs, None, show_progress="hidden", queue=False, trigger_mode="always_last",
            api_visibility="private",
        )  # fmt: skip
    return calls
