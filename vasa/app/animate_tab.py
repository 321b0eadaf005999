"""The tab "Animate": portrait and speech become a video that plays while it is made."""

from __future__ import annotations

import inspect
import json
import math
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..controls import Controls
from ..errors import InputError
from .cache import example_events
from .hints import hinted, line, told
from .inputs import picture_input, speech_input
from .inspection import face_clicked, faces_picture
from .panel import MOST_STEPS, Panel, add_timeline, blink_of, build_panel, controls_from, values_from
from .performance import Event, Status, Wishes, perform
from .player import Player, keep
from .studio import Stopped, Studio
from .timeline import timeline_of
from .words import CONSENT, READY, TROUBLE, bold, capital, sentence, status_html

PACKAGE = Path(__file__).resolve().parents[1]
EXAMPLES = next((f for f in (PACKAGE / "examples", PACKAGE.parent / "examples") if f.is_dir()), PACKAGE.parent)
"""In an installed package its own folder, else the repository's."""
EXAMPLE_PORTRAITS = {"Earrings": "portrait.png", "Brown hair": "portrait_2.jpg", "Blue shirt": "portrait_3.jpg"}
"""Rendered people; all say the same."""
CROP_NAMES, WISH_NAMES = ("crop", "face", "left", "top", "size"), ("fps", "paste_back", "keep_background", "label")
CROPS = {"Find the face": "auto", "Middle of the picture": "none", "By hand": "hand"}
FRAME_RATES = ("as the model", "24", "25", "29.97", "30", "50", "60")
STOPPED = Status("Stopped before the first frame.")
GPU = "engine"
"""Everything that keeps the engine busy waits in this one queue."""


def examples() -> list[tuple[str, str, str]]:
    """(name, portrait, speech) of the examples that come with the repository."""
    speech = EXAMPLES / "speech.wav"
    found = [(name, str(EXAMPLES / picture), str(speech)) for name, picture in EXAMPLE_PORTRAITS.items()]
    return [one for one in found if Path(one[1]).exists() and speech.exists()]


def crop_request(mode: str, x: float | None, y: float | None, size: float | None) -> Any:
    """What the crop widgets ask for.

    Raises:
        InputError: by hand, but numbers are missing.
    """
    request = CROPS.get(mode)
    if request is None:
        raise InputError(f"the crop must be one of {', '.join(CROPS)}, got {str(mode)[:40]!r}")
    if request != "hand":
        return request
    numbers = (x, y, size)
    if any(number is None or not math.isfinite(number) for number in numbers) or size <= 0:
        raise InputError("give the left edge, the top edge and the size of the square, in pixels")
    return tuple(float(number) for number in numbers)


def build_animate_tab(studio: Studio) -> dict[str, Any]:
    """Lay out the tab and connect it; returns the widgets that other tabs use."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            portrait = picture_input(
                sources=["upload", "webcam", "clipboard"], label="Portrait", height=300, elem_id="portrait",
            )  # fmt: skip
            line("portrait")
            with gr.Accordion("Crop", open=False):
                mode = gr.Radio(list(CROPS), value="Find the face", label="Crop", info="The square the model sees.")
                face = gr.Number(
                    0, label="Which face", info="Where there are several: its number, or click it below.", precision=0,
                    minimum=0, elem_id="face",
                )  # fmt: skip
                with gr.Row(visible=False) as by_hand:
                    x = gr.Number(None, label="Left", info="Pixels.", min_width=80)
                    y = gr.Number(None, label="Top", info="Pixels.", min_width=80)
                    size = gr.Number(None, label="Size", info="Pixels.", min_width=80)
                preview = told(
                    gr.Image(label="What was found", interactive=False, height=220, buttons=[], elem_id="preview"),
                    "preview",
                )
            found = gr.Markdown("", elem_id="found")
            speech = speech_input(elem_id="speech")
            line("speech")
            ready_made = examples()
            chosen = gr.Radio(
                [name for name, _, _ in ready_made], label="Examples",
                info="People who do not exist; they play at once.", visible=bool(ready_made), elem_id="examples",
            )  # fmt: skip
            with gr.Accordion("The film", open=False):
                fps = gr.Dropdown(
                    list(FRAME_RATES), value=FRAME_RATES[0], label="Frames a second",
                    info="The movement stays; frames in between are interpolated.",
                )  # fmt: skip
                paste_back = gr.Checkbox(False, label="Whole picture", info="Put the face back into the picture.")
                lock = gr.Checkbox(
                    True, label="Keep the background", info="Pixels outside the person stay as they are."
                )
                label = gr.Checkbox(False, label="Visible label", info="Print “AI-generated” into the corner.")
        with gr.Column(scale=7, min_width=320) as middle:
            player = Player(
                streaming=True, autoplay=True, label="Video", interactive=False, elem_classes="vasa-player",
                elem_id="video",
            )  # fmt: skip
            hinted(player, "video")
            with gr.Row():
                go = hinted(gr.Button("Animate", variant="primary", scale=3, elem_id="go"), "animate")
                stop = gr.Button("Stop", visible=False, scale=1, min_width=90, elem_id="stop")
                hinted(stop, "stop")
            status = gr.HTML(
                status_html(READY), label="Status", show_label=False, elem_classes="vasa-status", elem_id="status"
            )
            with gr.Row():
                download = gr.DownloadButton("Save the video", interactive=False, elem_id="download")
                motion_file = gr.DownloadButton("Save the motion", interactive=False, elem_id="save-motion")
                hinted(download, "save-video"), hinted(motion_file, "save-motion")
            line("save-motion")
            gr.HTML(f'<div class="vasa-consent">{CONSENT}</div>')
        with gr.Column(scale=5, min_width=300):
            panel = build_panel()
        # laid out in the middle, but after the panel it belongs to
        with middle:
            add_timeline(panel)
            with gr.Accordion("Controls as JSON", open=False):
                text = told(gr.Code(language="json", label="Controls", lines=8, elem_id="controls-json"), "json")
                with gr.Row():
                    write = hinted(gr.Button("From the widgets", size="sm", min_width=100), "json-write")
                    read = hinted(gr.Button("To the widgets", size="sm", min_width=100), "json-read")

    crop = [mode, face, x, y, size]
    wishes = [fps, paste_back, lock, label]
    inputs = [portrait, speech, *crop, *wishes, *panel.inputs]
    outputs = [player, status, download, motion_file, stop, go]

    def check(portrait: str | None, speech: str | None, *rest: Any) -> list[dict]:
        mode, face, x, y, size = rest[:5]
        good = gr.validate(True, "")
        answers = [good] * len(inputs)
        with studio.first():
            for index, test in (
                (0, lambda: studio.framed(portrait, crop_request(mode, x, y, size), int(face or 0))),
                (1, lambda: studio.speech(speech)),
                (inputs.index(panel.widgets["blink_at"]), lambda: blink_of(panel.named(rest[9:]))),
            ):
                try:
                    test()
                except InputError as error:
                    answers[index] = gr.validate(False, sentence(error))
        return answers

    def run(request: gr.Request, portrait: str, speech: str, *rest: Any) -> Iterator[tuple]:
        mode, face, x, y, size = rest[:5]
        fps, paste_back, lock, label = rest[5:9]
        user = request.session_hash
        job = studio.begin(user)
        hidden = (gr.update(interactive=False), gr.update(interactive=False))
        yield gr.skip(), status_html(Status("Starting")), *hidden, gr.update(visible=True), gr.update(interactive=False)
        try:
            controls = controls_from(panel.named(rest[9:]))
            folder = studio.folder(user)
            studio.remember(user, folder)
            made = Wishes(None if fps == FRAME_RATES[0] else float(fps), bool(paste_back), bool(lock), bool(label))
            events = perform(
                studio, job, folder,
                lambda: studio.portrait(portrait, crop_request(mode, x, y, size), int(face or 0)),
                speech, controls, made, studio.speech(speech),
            )  # fmt: skip
            yield from shown(events, studio, user)
        except Stopped:
            yield no_video(STOPPED)
        except TROUBLE as error:
            yield no_video(Status(sentence(error), problem=True))
        finally:
            studio.end(user, job)

    def play_example(name: str, request: gr.Request) -> Iterator[tuple]:
        _, portrait, speech = next(one for one in ready_made if one[0] == name)
        user = request.session_hash
        job = studio.begin(user)
        yield (
            gr.skip(),
            status_html(Status("Opening the example")),
            *(gr.update(interactive=False),) * 2,
            gr.update(visible=True),
            gr.update(interactive=False),
            portrait,
            speech,
        )
        try:
            for row in shown(example_events(studio, job, studio.folder(user), portrait, speech), studio, user):
                yield *row, gr.skip(), gr.skip()
        except Stopped:
            yield *no_video(STOPPED), gr.skip(), gr.skip()
        except TROUBLE as error:
            yield *no_video(Status(sentence(error), problem=True)), gr.skip(), gr.skip()
        finally:
            studio.end(user, job)

    def shown(events: Iterator[Event], studio: Studio, user: str | None) -> Iterator[tuple]:
        folder = studio.folder(user)
        for event in events:
            piece = gr.skip() if event.segment is None else keep(event.segment, folder)
            files = (gr.skip(), gr.skip())
            buttons = (gr.skip(), gr.skip())
            if event.video is not None:
                files = tuple(gr.update(value=str(path), interactive=True) for path in (event.video, event.motion))
                buttons = (gr.update(visible=False), gr.update(interactive=True))
            yield piece, status_html(event.status), *files, *buttons

    def no_video(status: Status) -> tuple:
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        return gr.skip(), status_html(status), off, off, gr.update(visible=False), on

    run.__signature__ = _named(["request", "portrait", "speech"], [*CROP_NAMES, *WISH_NAMES, *panel.widgets])
    go.click(
        run, inputs, outputs, validator=check, concurrency_id=GPU, concurrency_limit=1, show_progress="hidden",
        api_name="animate", api_description="Animate a portrait; the video streams. /animate_file gives a file.",
    )  # fmt: skip
    stop.click(_stopper(studio), None, None, queue=False, show_progress="hidden", api_visibility="private")
    chosen.input(
        play_example,
        chosen,
        [*outputs, portrait, speech],
        concurrency_id=GPU,
        show_progress="hidden",
        api_visibility="private",
    )
    _connect_crop(studio, portrait, crop, by_hand, preview, found)
    _connect_json(panel, speech, text, write, read)
    mine = gr.BrowserState("", storage_key="vasa")
    gr.context.Context.root_block.load(
        _returning(studio), mine, [mine, status, download, motion_file], show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    return {"portrait": portrait, "speech": speech, "video": download, "motion": motion_file}


def _named(required: list[str], optional: list[str]) -> inspect.Signature:
    """The names under which programs give a function's values."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in required]
    return inspect.Signature(parameters + [inspect.Parameter(name, kind, default=None) for name in optional])


def _returning(studio: Studio):
    """Whoever closed the page while a video was made finds what was made of it."""

    def welcome(request: gr.Request, token: str) -> tuple:
        token = token or secrets.token_urlsafe(24)
        studio.claim(request.session_hash, token)
        folder = studio.last(token)
        if folder is None:
            return token, gr.skip(), gr.skip(), gr.skip()
        motion = folder / "motion.safetensors"
        return (
            token,
            status_html(Status("Your last video is still here.")),
            gr.update(value=str(folder / "talking.mp4"), interactive=True),
            gr.update(value=str(motion), interactive=True) if motion.is_file() else gr.skip(),
        )

    return welcome


def _stopper(studio: Studio):
    def stop(request: gr.Request) -> None:
        studio.stop(request.session_hash)

    return stop


def _connect_crop(studio: Studio, portrait: Any, crop: list[Any], by_hand: Any, preview: Any, found: Any) -> None:
    """Show what the detector sees whenever the portrait or the crop changes."""
    mode, face, x, y, size = crop

    def look(path: str | None, mode: str, face: float, x: float, y: float, size: float) -> tuple:
        if not path:
            return None, "", gr.skip(), gr.skip(), gr.skip()
        try:
            request = crop_request(mode, x, y, size)
            picture, framed, _ = studio.looked_at(path, request, int(face or 0))
        except InputError as error:
            return None, bold(error), gr.skip(), gr.skip(), gr.skip()
        words = " ".join(capital(notice) for notice in [*picture.notices, *framed.notices])
        numbers = (round(framed.x), round(framed.y), round(framed.side))
        drawn = faces_picture(picture.pixels, framed, request)
        return drawn, words, *(numbers if request == "auto" else (gr.skip(),) * 3)

    def choose(place: gr.SelectData, path: str | None, mode: str, *rest: float) -> tuple:
        clicked = None
        if path and CROPS.get(mode) == "auto":
            picture, framed, _ = studio.looked_at(path, "auto", int(rest[0] or 0))
            clicked = face_clicked(picture.pixels, framed, place.index)
        return (gr.skip(),) * 6 if clicked is None else (clicked, *look(path, mode, clicked, *rest[1:]))

    preview.select(
        choose, [portrait, *crop], [face, preview, found, x, y, size], show_progress="hidden",
        api_visibility="private", concurrency_limit=2,
    )  # fmt: skip
    for widget in (portrait, mode, face, x, y, size):
        event = widget.change if widget is portrait else widget.input
        event(
            look, [portrait, mode, face, x, y, size], [preview, found, x, y, size], show_progress="hidden",
            trigger_mode="always_last", api_visibility="private", concurrency_limit=2,
        )  # fmt: skip
    mode.input(
        lambda mode: gr.update(visible=CROPS.get(mode) == "hand"), mode, by_hand, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip


def _connect_json(panel: Panel, speech: Any, text: Any, write: Any, read: Any) -> None:
    """The Controls JSON both ways, and the timeline's time axis from the speech."""

    def to_text(*values: Any) -> str:
        try:
            return json.dumps(controls_from(panel.named(values)).to_json(), indent=2)
        except InputError as error:
            raise gr.Error(sentence(error), print_exception=False) from error

    def to_widgets(text: str) -> list[Any]:
        controls = Controls.from_json(text or "{}")
        if controls.steps > MOST_STEPS:
            gr.Warning(f"This page takes {MOST_STEPS} steps at most; the command line takes {controls.steps}.")
        values = values_from(controls) | {"timeline": timeline_of(controls, 8.0)}
        return [values[name] for name in panel.widgets]

    def check_text(text: str) -> dict:
        try:
            Controls.from_json(text or "{}")
        except InputError as error:
            return gr.validate(False, sentence(error))
        return gr.validate(True, "")

    def measure(path: str | None, timeline: str) -> Any:
        if not path:
            return gr.skip()
        try:
            sound = Studio.heard(path)
        except InputError:
            return gr.skip()
        state = json.loads(timeline or "{}")
        waveform = sound.waveform.numpy()
        bars = 120
        blocks = np.array_split(np.abs(waveform), bars)
        loud = np.array([float(block.max()) if len(block) else 0.0 for block in blocks])
        state |= {
            "seconds": round(sound.seconds, 2),
            "envelope": [round(v, 3) for v in (loud / max(loud.max(), 1e-6)).tolist()],
        }
        return json.dumps({"tracks": {}} | state)

    write.click(to_text, panel.inputs, text, show_progress="hidden", api_visibility="private")
    read.click(to_widgets, text, panel.inputs, validator=check_text, show_progress="hidden", api_visibility="private")
    speech.change(
        measure,
        [speech, panel.widgets["timeline"]],
        panel.widgets["timeline"],
        show_progress="hidden",
        api_visibility="private",
    )
