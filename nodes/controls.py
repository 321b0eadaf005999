"""Control Signals, Controls From JSON."""

from __future__ import annotations

from typing import Any

from .api import io
from .engine import EMOTIONS, Controls, InputError
from .sockets import CATEGORY, ControlsSocket

TRACKS = ("gaze", "distance", "emotion", "expression", "mouth")
"""Entries of the JSON that may change over time; so may offset and amplitude of `head_pose`."""
AS_GENERATED = -1.0
"""Blink rate that leaves blinking to the generator."""


class ControlSignals(io.ComfyNode):
    """What the user asks for, from a moment on; several in a chain make a timeline."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def angle(name: str, limit: float, tooltip: str, **more: Any) -> Any:
            return io.Float.Input(name, default=0.0, min=-limit, max=limit, step=1.0, tooltip=tooltip, **more)

        def factor(name: str, low: float, high: float, tooltip: str, **more: Any) -> Any:
            return io.Float.Input(name, default=1.0, min=low, max=high, step=0.05, tooltip=tooltip, **more)

        return io.Schema(
            node_id="VASA_ControlSignals",
            display_name="Control Signals",
            category=CATEGORY,
            description="Gaze, distance, emotion, head motion, blinks and intensity, from a moment on. "
            "Chain several through previous to make a timeline.",
            search_aliases=["vasa controls", "gaze", "emotion", "head pose", "blink", "keyframes", "schedule"],
            inputs=[
                angle("gaze_yaw", 30.0, "Degrees the eyes look aside; positive is the picture's left, 0 the camera."),
                angle("gaze_pitch", 30.0, "Degrees the eyes look down (positive) or up."),
                factor("distance", 0.5, 2.0, "Distance of the head from the camera; 1 is as in the portrait."),
                io.Combo.Input(
                    "emotion", options=list(EMOTIONS), default=EMOTIONS[0], tooltip="Emotion added to the speech."
                ),
                io.Float.Input(
                    "emotion_strength", default=0.8, min=0.0, max=1.0, step=0.05, tooltip="How much of the emotion."
                ),
                angle("head_yaw", 30.0, "Degrees the head is turned to the picture's left."),
                angle("head_pitch", 20.0, "Degrees the head is lowered."),
                angle("head_roll", 20.0, "Degrees the head is tilted."),
                factor("head_motion", 0.0, 2.0, "Amount of head movement; 0 holds the head still, 1 is as generated."),
                factor("expression", 0.0, 2.0, "Intensity of the whole face's expression; 1 is as generated."),
                factor("mouth", 0.0, 2.0, "How wide the mouth articulates; 1 is as generated."),
                io.Float.Input(
                    "blink_rate",
                    default=AS_GENERATED,
                    min=AS_GENERATED,
                    max=60.0,
                    step=1.0,
                    tooltip="Mean blinks a minute; -1 leaves blinking to the generator. Holds for the whole clip.",
                ),
                io.String.Input(
                    "blink_at",
                    default="",
                    advanced=True,
                    tooltip="Seconds at which the eyes blink for certain, e.g. 1.2, 3.5.",
                ),
                io.Float.Input(
                    "start_time",
                    default=0.0,
                    min=0.0,
                    max=36000.0,
                    step=0.1,
                    tooltip="Second from which these values hold; before it, those of previous (or the defaults).",
                ),
                io.Float.Input(
                    "transition",
                    default=0.4,
                    min=0.0,
                    max=60.0,
                    step=0.1,
                    tooltip="Seconds the change takes, smoothly, from start_time on; 0 switches at once.",
                ),
                ControlsSocket.Input(
                    "previous", optional=True, tooltip="Controls that hold before start_time; chains make a timeline."
                ),
            ],
            outputs=[ControlsSocket.Output("controls", tooltip="For Motion Diffusion, or for previous.")],
        )

    @classmethod
    def validate_inputs(cls, blink_at: str) -> bool | str:
        try:
            seconds_of(blink_at)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        gaze_yaw: float,
        gaze_pitch: float,
        distance: float,
        emotion: str,
        emotion_strength: float,
        head_yaw: float,
        head_pitch: float,
        head_roll: float,
        head_motion: float,
        expression: float,
        mouth: float,
        blink_rate: float,
        blink_at: str,
        start_time: float,
        transition: float,
        previous: Controls | None = None,
    ) -> io.NodeOutput:
        wanted = {
            "version": 1,
            "gaze": [gaze_yaw, gaze_pitch],
            "distance": distance,
            "emotion": {emotion: emotion_strength} if emotion != EMOTIONS[0] else {},
            "head_pose": {"offset": [head_yaw, head_pitch, head_roll], "amplitude": head_motion},
            "expression": expression,
            "mouth": mouth,
            "blink": {"rate": None if blink_rate < 0 else blink_rate, "at": seconds_of(blink_at)},
        }
        if previous is not None or start_time > 0:
            wanted = appended((previous or Controls()).to_json(), wanted, start_time, transition)
        return io.NodeOutput(Controls.from_json(wanted))


class ControlsFromJSON(io.ComfyNode):
    """A timeline written elsewhere."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_ControlsFromJSON",
            display_name="Controls From JSON",
            category=CATEGORY,
            description="A controls timeline as JSON: the same file that the command line, the app and a video's "
            "metadata carry. Its steps, seed and guidance give way to the widgets of Motion Diffusion.",
            search_aliases=["vasa controls", "timeline", "keyframes"],
            inputs=[
                io.String.Input(
                    "json",
                    multiline=True,
                    default='{"version": 1,\n "gaze": [0, 0],\n "emotion": {"happy": 0.6}}',
                    tooltip="Angles in degrees; any value may be a constant or a list of keys over time.",
                )
            ],
            outputs=[ControlsSocket.Output("controls", tooltip="For Motion Diffusion, or for previous.")],
        )

    @classmethod
    def validate_inputs(cls, json: str) -> bool | str:
        try:
            Controls.from_json(json)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, json: str) -> io.NodeOutput:
        return io.NodeOutput(Controls.from_json(json))


def seconds_of(text: str) -> list[float]:
    """Numbers separated by commas or blanks.

    Raises:
        InputError: something else.
    """
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"blink_at expects seconds such as 1.2, 3.5, got {text!r}") from error


def appended(before: dict[str, Any], after: dict[str, Any], start: float, transition: float) -> dict[str, Any]:
    """The controls `before`, and from second `start` on those of `after`; both as JSON.

    Raises:
        InputError: `before` still changes at or after `start`.
    """
    joined = {**before, "blink": _blinks(before.get("blink") or {}, after["blink"])}
    for name in TRACKS:
        joined[name] = _joined(before[name], after[name], start, transition)
    joined["head_pose"] = {
        name: _joined(before["head_pose"][name], after["head_pose"][name], start, transition)
        for name in ("offset", "amplitude")
    }
    return joined


def _joined(old: Any, new: Any, start: float, transition: float) -> Any:
    keys = list(old["keys"]) if isinstance(old, dict) and "keys" in old else [{"time": 0.0, "value": old}]
    last = keys[-1]
    if len(keys) > 1 and start <= last["time"]:
        raise InputError(
            f"the previous controls still change at {last['time']:g} s; start_time must come later, got {start:g} s"
        )
    if last["value"] == new:
        return old
    if start <= last["time"]:
        return new
    keys[-1] = {**last, "interpolation": "hold"}
    if transition > 0:
        keys.append({"time": start, "value": last["value"], "interpolation": "smooth"})
    return {"keys": [*keys, {"time": start + transition, "value": new}]}


def _blinks(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    rate = after["rate"] if after["rate"] is not None else before.get("rate")
    return {"rate": rate, "at": sorted({*(before.get("at") or []), *after["at"]})}
