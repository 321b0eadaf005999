"""A pad on which one sets where the eyes look, by mouse, finger or arrow keys."""

from __future__ import annotations

import json
import math
from typing import Any

import gradio as gr

from ..controls import ANGLES
from ..errors import InputError
from .web import read_web

LIMIT = ANGLES["gaze"]["yaw"]

HTML = read_web("gaze_pad.html")
CSS = read_web("gaze_pad.css")
JS = read_web("gaze_pad.js").replace("%LIMIT%", str(LIMIT))


def gaze_pad(label: str | None = None, elem_id: str | None = None) -> gr.HTML:
    """The pad. Its value is gaze (yaw, pitch) in degrees as JSON, e.g. "[10, 0]"; positive looks to the picture's left
    and down.
    """
    return gr.HTML(
        "[0, 0]", label=label, show_label=label is not None, elem_id=elem_id, html_template=HTML, css_template=CSS,
        js_on_load=JS, container=True, padding=True,
    )  # fmt: skip


def gaze_of(value: Any) -> tuple[float, float]:
    """What the page sent, which may be anything, in radians.

    Raises:
        InputError: not two numbers within the limits.
    """
    try:
        pair = json.loads(value) if isinstance(value, str) else value
        yaw, pitch = (float(angle) for angle in pair)
        if not (abs(yaw) <= LIMIT and abs(pitch) <= LIMIT):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise InputError(f"the gaze must be two angles within ±{LIMIT:.0f} degrees, got {str(value)[:40]!r}") from error
    return math.radians(yaw), math.radians(pitch)
