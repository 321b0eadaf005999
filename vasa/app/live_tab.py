"""The tab "Live": who speaks into the microphone sees the portrait speak. WebRTC by aiortc, else pieces of HLS."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ..errors import InputError
from .inputs import picture_input
from .panel import build_panel, controls_from
from .studio import Studio
from .web import read_web
from .words import sentence

HTML = read_web("live.html")
CSS = read_web("live.css")
JS = read_web("live.js")


def live_stage() -> gr.HTML:
    """The player of a live call; its value is JSON: {"ticket", "path", "ice"}."""
    return gr.HTML("{}", html_template=HTML, css_template=CSS, js_on_load=JS, elem_id="live-stage", container=False)


def build_live_tab(studio: Studio) -> Any:
    """Lay out the tab; returns the calls, which `serve` mounts beside the page."""
    from .calls import Calls, problem

    calls = Calls(studio)
    missing = problem()
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            if missing:
                gr.Markdown(
                    f"**{missing}** Until then this tab answers in pieces of a second (HLS), about two seconds late."
                )
                stage = _hls_stage(studio)
            else:
                stage = live_stage()
        with gr.Column(scale=1, min_width=300):
            portrait = picture_input(
                label="Portrait", height=220, sources=["upload", "webcam"], elem_id="live-portrait"
            )
            prepare = gr.Button("Prepare", variant="primary", elem_id="prepare", visible=not missing)
            said = gr.Markdown("The controls below act while it runs.", elem_id="live-words")
            panel = build_panel()
    if missing:
        stage(portrait, panel)
        return calls

    def ready(request: gr.Request, path: str | None, *values: Any) -> tuple[str, str]:
        try:
            ticket = calls.ticket(request.session_hash, studio.portrait(path), controls_from(panel.named(values)))
        except InputError as error:
            return json.dumps({}), f"**{sentence(error)}**"
        root = (request.headers.get("x-forwarded-prefix") or request.request.scope.get("root_path") or "").rstrip("/")
        return json.dumps(
            {"ticket": ticket, "path": f"{root}/rtc/offer", "ice": calls.ice_servers}
        ), "Ready: press Start."

    def change(request: gr.Request, *values: Any) -> None:
        calls.change(request.session_hash, controls_from(panel.named(values)))

    prepare.click(ready, [portrait, *panel.inputs], [stage, said], show_progress_on=said, api_visibility="private")
    for widget in panel.inputs:
        event = widget.change if isinstance(widget, gr.HTML) else widget.input
        event(
            change,
            panel.inputs,
            None,
            show_progress="hidden",
            queue=False,
            trigger_mode="always_last",
            api_visibility="private",
        )
    return calls


def _hls_stage(studio: Studio):
    """The way without aiortc: the microphone streams to the page's server, pieces of a second come back."""
    from .live_hls import connect
    from .player import Player

    microphone = gr.Audio(sources=["microphone"], type="numpy", streaming=True, label="Microphone")
    player = Player(streaming=True, autoplay=True, label="Live", interactive=False, elem_classes="vasa-player")
    return lambda portrait, panel: connect(studio, microphone, player, portrait, panel)
