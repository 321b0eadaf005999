"""A timeline on which controls change: keys are dragged on curves; in and out comes the Controls JSON."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ..controls import ANGLES, RANGES, Controls
from ..errors import InputError
from ..latents import EMOTIONS
from .web import read_web

TRACKS: dict[str, dict[str, Any]] = {
    "gaze": {"label": "Gaze", "parts": ["left", "down"], "range": [-30, 30], "neutral": [0, 0], "unit": "°"},
    "distance": {"label": "Distance", "parts": [""], "range": list(RANGES["distance"]), "neutral": [1], "unit": "×"},
    "emotion": {"label": "Emotion", "parts": list(EMOTIONS[1:]), "range": [0, 1], "neutral": [0] * 7, "unit": ""},
    "head_pose.offset": {
        "label": "Head turn", "parts": ["left", "down", "tilt"],
        "range": [-ANGLES["head_pose.offset"]["yaw"], ANGLES["head_pose.offset"]["yaw"]],
        "limits": [ANGLES["head_pose.offset"][name] for name in ("yaw", "pitch", "roll")],
        "neutral": [0, 0, 0], "unit": "°",
    },
    "head_pose.amplitude": {"label": "Head movement", "parts": [""], "range": [0, 2], "neutral": [1], "unit": "×"},
    "expression": {"label": "Expression", "parts": [""], "range": [0, 2], "neutral": [1], "unit": "×"},
    "mouth": {"label": "Mouth", "parts": [""], "range": [0, 2], "neutral": [1], "unit": "×"},
}  # fmt: skip
"""What can change over time; angles in degrees, as in the JSON."""

HTML = read_web("timeline.html")
CSS = read_web("timeline.css")
JS = read_web("timeline.js").replace("%TRACKS%", json.dumps(TRACKS))
EMPTY = json.dumps({"seconds": 8, "tracks": {}})


def timeline(elem_id: str | None = None) -> gr.HTML:
    """The editor. Its value is keys per track as JSON:
    {"seconds": 8, "tracks": {"gaze": [{"time", "value": [..], "interpolation"}]}}.
    """
    return gr.HTML(
        EMPTY, elem_id=elem_id, html_template=HTML, css_template=CSS, js_on_load=JS, container=True, padding=True
    )


def tracks_of(value: str) -> dict[str, Any]:
    """The page's timeline as parts of the Controls JSON, e.g. {"gaze": {"keys": [...]}, "head_pose": {...}}.

    Raises:
        InputError: not what the timeline writes.
    """
    found: dict[str, Any] = {}
    try:
        tracks = json.loads(value or EMPTY)["tracks"]
        for name, keys in tracks.items():
            plain = [
                {
                    "time": float(key["time"]),
                    "value": _in_json(name, [float(v) for v in key["value"]]),
                    "interpolation": str(key.get("interpolation", "linear")),
                }
                for key in keys
            ]
            place = found
            *groups, last = name.split(".")
            for group in groups:
                place = place.setdefault(group, {})
            if plain:
                place[last] = {"keys": plain}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError("the timeline cannot be read; clear it or load a Controls JSON file") from error
    return found


def _in_json(name: str, value: list[float]) -> Any:
    if name not in TRACKS or len(value) != len(TRACKS[name]["parts"]):
        raise ValueError(name)
    if name == "emotion":
        return {part: weight for part, weight in zip(TRACKS[name]["parts"], value, strict=True) if weight > 0}
    return value if len(value) > 1 else value[0]


def timeline_of(controls: Controls, seconds: float, envelope: list[float] | None = None) -> str:
    """The tracks of controls for the page; what is constant stays out of it, but for a mixture of emotions, which no
    widget beside the timeline can hold: it becomes one key.

    Args:
        seconds: length of the time axis.
        envelope: loudness of the speech along it, 0 .. 1, drawn behind the curves.
    """
    data = controls.to_json()
    tracks: dict[str, Any] = {}
    for name, about in TRACKS.items():
        value: Any = data
        for part in name.split("."):
            value = value[part]
        if name == "emotion" and "keys" not in value and len(value) > 1:
            value = {"keys": [{"time": 0.0, "value": value}]}
        if not (isinstance(value, dict) and "keys" in value):
            continue
        tracks[name] = [
            {**key, "interpolation": key.get("interpolation", "linear"), "value": _on_page(about, key["value"])}
            for key in value["keys"]
        ]
    last = max((key["time"] for keys in tracks.values() for key in keys), default=0.0)
    return json.dumps({"seconds": max(seconds, last, 1.0), "tracks": tracks, "envelope": envelope or []})


def _on_page(about: dict[str, Any], value: Any) -> list[float]:
    if isinstance(value, dict):
        return [float(value.get(part, 0.0)) for part in about["parts"]]
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]
