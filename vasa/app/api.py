"""Functions for programs (`gradio_client`, HTTP, MCP): files in, finished files and a JSON report out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr

from ..animate import Result, animate
from ..controls import Controls
from ..drive import drive
from ..errors import InputError
from ..io.face import CropRequest
from .inspect_tab import examine
from .player import Player
from .studio import Studio
from .words import TROUBLE, sentence

GPU = "engine"


def build_api(studio: Studio) -> None:
    """Add the endpoints /animate_file, /drive and /inspect; their widgets are never shown."""
    with gr.Column(visible=False):
        portrait = gr.File(type="filepath", label="portrait")
        speech = gr.Audio(type="filepath", label="speech")
        driver = gr.File(type="filepath", label="video")
        controls = gr.Textbox("{}", label="controls")
        crop = gr.Textbox("auto", label="crop")
        face = gr.Number(0, precision=0, minimum=0, maximum=99, label="face")
        fps = gr.Number(0, minimum=0, maximum=60, label="fps")
        paste_back = gr.Checkbox(False, label="paste_back")
        result = Player(label="result")
        report = gr.JSON(label="report")
        motion = gr.File(type="filepath", label="motion")
        animate_button, drive_button, inspect_button = gr.Button(), gr.Button(), gr.Button()

    options = [controls, crop, face, fps, paste_back]

    def animate_file(
        portrait: str,
        speech: str,
        controls: str = "{}",
        crop: str = "auto",
        face: int = 0,
        fps: float = 0,
        paste_back: bool = False,
        request: gr.Request = None,
    ) -> tuple[str, dict]:
        """Make a portrait speak; returns the mp4 and a report. controls: JSON; crop: auto, none or X,Y,SIZE."""

        def make(out: str) -> Result:
            studio.speech(speech)
            return animate(portrait, speech, out, **_options(studio, controls, crop, face, fps, paste_back))

        return _finished(studio, request, make, portrait)

    def drive_file(
        portrait: str,
        video: str,
        speech: str | None = None,
        controls: str = "{}",
        crop: str = "auto",
        face: int = 0,
        fps: float = 0,
        paste_back: bool = False,
        request: gr.Request = None,
    ) -> tuple[str, dict]:
        """Let the person in a video move a portrait; returns the finished mp4 and a report."""

        def make(out: str) -> Result:
            if not video:
                raise InputError("give the driving video")
            given = _options(studio, controls, crop, face, fps, paste_back)
            return drive(portrait, video, out, speech=speech or None, **given)

        return _finished(studio, request, make, portrait)

    def inspect(
        portrait: str | None = None, speech: str | None = None, motion: str | None = None, video: str | None = None
    ) -> list[dict]:
        """What is seen in a portrait, heard in speech, in a motion file, and where a video comes from."""
        return [asdict(finding) for finding in examine(studio, portrait, speech, motion, video)[0]]

    inspect_button.click(
        inspect,
        [portrait, speech, motion, driver],
        report,
        api_name="inspect",
        concurrency_limit=2,
        show_progress="hidden",
    )
    for button, function, inputs, name in (
        (animate_button, animate_file, [portrait, speech, *options], "animate_file"),
        (drive_button, drive_file, [portrait, driver, speech, *options], "drive"),
    ):
        button.click(
            function,
            inputs,
            [result, report],
            api_name=name,
            concurrency_id=GPU,
            concurrency_limit=1,
            show_progress="hidden",
        )


def _options(studio: Studio, controls: str, crop: str, face: float, fps: float, paste_back: bool) -> dict[str, Any]:
    return {
        "model": studio.pipe,
        "controls": Controls.from_json(controls or "{}"),
        "crop": crop_of(crop),
        "face": int(face),
        "fps": float(fps) or None,
        "paste_back": bool(paste_back),
    }


def crop_of(text: str) -> CropRequest:
    """ "auto", "none" or "X,Y,SIZE".

    Raises:
        InputError: anything else.
    """
    if text in ("auto", "none"):
        return text
    try:
        x, y, size = (float(part) for part in text.split(","))
    except (ValueError, AttributeError) as error:
        raise InputError(f"crop must be auto, none or X,Y,SIZE in pixels, got {str(text)[:40]!r}") from error
    return x, y, size


def _finished(
    studio: Studio, request: gr.Request | None, make: Callable[[str], Result], portrait: str | None
) -> tuple[str, dict]:
    try:
        if not portrait:
            raise InputError("give the portrait")
        folder = studio.folder(request.session_hash if request is not None else None)
        with studio.first():
            result = make(str(folder / "talking.mp4"))
    except TROUBLE as error:
        raise gr.Error(sentence(error), print_exception=False) from error
    report = {"frames": result.frames, "fps": result.fps, "seconds": round(result.seconds, 3), "seed": result.seed}
    return str(result.path), json.loads(json.dumps(report | {"notices": result.notices}))
