"""The controls of the page: one widget each, one line of explanation each, and what they mean as `Controls`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ..controls import GUIDED, RANGES, SAMPLERS, Blink, Controls, HeadPose
from ..errors import InputError
from ..latents import EMOTIONS
from .gaze_pad import gaze_of, gaze_pad
from .hints import hinted, line
from .timeline import timeline, tracks_of

CALM, LIVELY = 0.6, 1.4
MOST_STEPS = 100
PRESETS: dict[str, dict[str, Any]] = {
    "Natural": {},
    "Calm": {"amplitude": CALM, "expression": 0.8},
    "Lively": {"amplitude": LIVELY, "expression": 1.3},
    "Cheerful": {"emotion": "happy", "weight": 0.7, "amplitude": 1.1, "expression": 1.1},
    "Serious": {"emotion": "sad", "weight": 0.3, "amplitude": 0.8, "expression": 0.9},
    "Looking aside": {"gaze": "[14, 4]"},
}


@dataclass
class Panel:
    """Widgets by name, in the order in which events pass them."""

    widgets: dict[str, gr.components.Component] = field(default_factory=dict)

    @property
    def inputs(self) -> list[gr.components.Component]:
        return list(self.widgets.values())

    def named(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.widgets, values, strict=True))


def build_panel(prefix: str = "") -> Panel:
    """Lay out the controls where the caller is; the timeline, if there is to be one, comes with `add_timeline`.

    Args:
        prefix: of the ids in the page, which may hold several panels.
    """
    panel = Panel()
    add = panel.widgets
    preset = gr.Dropdown(
        list(PRESETS), value="Natural", label="Preset", info="A starting point; everything below stays yours."
    )
    add["gaze"] = gaze_pad("Where the eyes look", elem_id=f"{prefix}gaze")
    line("gaze")
    with gr.Row():
        add["emotion"] = gr.Dropdown(
            list(EMOTIONS), value="neutral", label="Emotion", info="Mood of the face.",
            min_width=130,
        )  # fmt: skip
        add["weight"] = gr.Slider(0, 1, 0.6, step=0.05, label="Strength", info="1 is full.", min_width=130)
    add["distance"] = gr.Slider(*RANGES["distance"], 1, step=0.05, label="Distance", info="1 is as in the portrait.")
    add["amplitude"] = gr.Slider(0, 2, 1, step=0.05, label="Head movement", info="0 is still, 2 is double.")
    add["expression"] = gr.Slider(0, 2, 1, step=0.05, label="Expression", info="Brows, cheeks and lids.")
    add["mouth"] = gr.Slider(0, 2, 1, step=0.05, label="Mouth", info="How far it opens.")
    with gr.Accordion("Head, blinking and sampling", open=False):
        with gr.Row():
            for name, label, limit in (("yaw", "Turn left", 30), ("pitch", "Turn down", 20), ("roll", "Tilt", 20)):
                add[name] = gr.Slider(
                    -limit, limit, 0, step=1, label=label, info="Degrees, added all the time.", min_width=120
                )
        add["natural_blinks"] = gr.Checkbox(True, label="Blink by itself", info="Or at the rate below.")
        add["blink_rate"] = gr.Slider(0, 60, 15, step=1, label="Blinks a minute", info="Used without the box above.")
        add["blink_at"] = gr.Textbox("", label="Blink at", info="Seconds at which the lids are shut, e.g. 1.2, 3.5.")
        with gr.Row():
            for name in GUIDED:
                add[f"guide_{name}"] = gr.Slider(
                    *RANGES["guidance"], Controls().guidance.get(name, 0.0), step=0.1, label=f"Follow {name}",
                    info="More obeys it more closely; 0 lets go.", min_width=120,
                )  # fmt: skip
        with gr.Row():
            add["steps"] = gr.Slider(
                1, MOST_STEPS, 25, step=1, label="Steps", info="More takes longer and is finer.", min_width=120
            )
            add["sampler"] = gr.Dropdown(
                list(SAMPLERS), value=SAMPLERS[0], label="Sampler", info="dpm++ is good in few steps.", min_width=120
            )
            add["seed"] = gr.Number(
                0, label="Seed", info="Same seed, same clip.", precision=0, minimum=0, min_width=120
            )
    for name, widget in {"preset": preset, **add}.items():
        hinted(widget, name)
    preset.input(
        _from_preset, preset, [add[name] for name in ("gaze", "emotion", "weight", "amplitude", "expression")],
        show_progress="hidden", queue=False, api_visibility="private",
    )  # fmt: skip
    return panel


def add_timeline(panel: Panel) -> None:
    """Lay out the timeline where the caller is."""
    with gr.Accordion("Timeline: controls that change while the clip runs", open=False, elem_id="timeline-fold"):
        panel.widgets["timeline"] = hinted(timeline(elem_id="timeline"), "timeline")


def _from_preset(name: str) -> list[Any]:
    chosen = {"gaze": "[0, 0]", "emotion": "neutral", "weight": 0.6, "amplitude": 1, "expression": 1} | PRESETS[name]
    return [chosen[key] for key in ("gaze", "emotion", "weight", "amplitude", "expression")]


def controls_from(values: dict[str, Any]) -> Controls:
    """The page's values as controls; tracks of the timeline take the place of constants.

    Raises:
        InputError: a value out of range.
    """
    constant = Controls(
        gaze=gaze_of(values["gaze"]),
        distance=float(values["distance"]),
        emotion={} if values["emotion"] == "neutral" else {values["emotion"]: float(values["weight"])},
        # a condition that is not named is not pushed
        guidance={name: float(values[f"guide_{name}"]) for name in GUIDED if values[f"guide_{name}"]},
        steps=int(values["steps"]),
        seed=int(values["seed"] or 0),
        head_pose=HeadPose(
            offset=tuple(math.radians(values[name]) for name in ("yaw", "pitch", "roll")),
            amplitude=float(values["amplitude"]),
        ),
        blink=blink_of(values),
        expression=float(values["expression"]),
        mouth=float(values["mouth"]),
        sampler=values["sampler"],
    )
    tracks = tracks_of(values.get("timeline") or "")
    if not tracks:
        return constant
    data = constant.to_json()
    head = tracks.pop("head_pose", {})
    return Controls.from_json(data | tracks | {"head_pose": data["head_pose"] | head})


def blink_of(values: dict[str, Any]) -> Blink:
    """What the page's values say about blinking.

    Raises:
        InputError: times that are no numbers, or out of order.
    """
    text = values["blink_at"]
    try:
        at = tuple(float(part) for part in (text or "").replace(";", ",").split(",") if part.strip())
    except (AttributeError, ValueError) as error:
        raise InputError(f"the times to blink at must be seconds, e.g. 1.2, 3.5; got {str(text)[:40]!r}") from error
    return Blink(rate=None if values["natural_blinks"] else float(values["blink_rate"]), at=at)


def values_from(controls: Controls) -> dict[str, Any]:
    """The widgets' values that stand for controls; what changes over time is on the timeline, its widget at rest."""
    data = controls.to_json()

    def constant(value: Any, rest: Any) -> Any:
        return rest if isinstance(value, dict) and "keys" in value else value

    emotion = constant(data["emotion"], {}) or {}
    name = max(emotion, key=emotion.get, default="neutral")
    offset = constant(data["head_pose"]["offset"], [0, 0, 0])
    values = {
        "gaze": json.dumps(list(constant(data["gaze"], [0, 0]))),
        "emotion": name,
        "weight": emotion.get(name, 0.6),
        "distance": constant(data["distance"], 1.0),
        "amplitude": constant(data["head_pose"]["amplitude"], 1.0),
        "expression": constant(data["expression"], 1.0),
        "mouth": constant(data["mouth"], 1.0),
        "natural_blinks": controls.blink.rate is None,
        "blink_rate": 15 if controls.blink.rate is None else controls.blink.rate,
        "blink_at": ", ".join(f"{time:g}" for time in controls.blink.at),
        "steps": min(controls.steps, MOST_STEPS),
        "sampler": controls.sampler,
        "seed": controls.seed,
    }
    values |= dict(zip(("yaw", "pitch", "roll"), offset, strict=True))
    return values | {f"guide_{name}": controls.guidance.get(name, 0.0) for name in GUIDED}
