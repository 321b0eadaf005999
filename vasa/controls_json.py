"""Controls as JSON, angles in degrees. Format: `vasa/controls.schema.json`, described in docs/controls.md."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .controls import Blink, Controls, HeadPose
from .errors import InputError
from .timeline import Key, Track, is_number

VERSION = 1
KEYS: dict[str, tuple[str, ...]] = {
    "": (
        "version", "gaze", "distance", "emotion", "head_pose", "blink", "expression", "mouth", "guidance", "steps",
        "sampler", "seed",
    ),
    "head_pose": ("offset", "amplitude"),
    "blink": ("rate", "at"),
    "key": ("time", "value", "interpolation"),
}  # fmt: skip
"""What each object may hold."""
ANGULAR = ("gaze", "head_pose.offset")
MAX_BYTES = 4_000_000


def parse(source: str | bytes | dict[str, Any]) -> Controls:
    """JSON text, or the object it stands for -> controls. See `Controls.from_json`."""
    data = source if not isinstance(source, str | bytes) else _loaded(source)
    _known("", "the controls", data)
    version = data.get("version", VERSION)
    if isinstance(version, bool) or version != VERSION:
        raise InputError(f"version must be {VERSION}, got {version!r}; these controls are for another release of vasa")
    given = {
        name: _value(name, data[name])
        for name in ("gaze", "distance", "emotion", "expression", "mouth")
        if name in data
    }
    given |= {name: data[name] for name in ("guidance", "sampler", "steps", "seed") if name in data}
    if "head_pose" in data:
        head = _known("head_pose", "head_pose", data["head_pose"])
        given["head_pose"] = HeadPose(**{name: _value(f"head_pose.{name}", value) for name, value in head.items()})
    if "blink" in data:
        given["blink"] = Blink(**_known("blink", "blink", data["blink"]))
    return Controls(**given)


def read_file(path: Path) -> Controls:
    """Controls of a JSON file. See `Controls.from_file`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: expected controls of at most {MAX_BYTES // 10**6} MB; is this the right file?")
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a JSON file with controls") from error
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def written(controls: Controls) -> dict[str, Any]:
    """Controls -> the object that `parse` reads."""
    return {
        "version": VERSION,
        "gaze": _plain("gaze", controls.gaze),
        "distance": _plain("distance", controls.distance),
        "emotion": _plain("emotion", controls.emotion),
        "head_pose": {
            "offset": _plain("head_pose.offset", controls.head_pose.offset),
            "amplitude": _plain("head_pose.amplitude", controls.head_pose.amplitude),
        },
        "blink": {"rate": controls.blink.rate, "at": list(controls.blink.at)},
        "expression": _plain("expression", controls.expression),
        "mouth": _plain("mouth", controls.mouth),
        "guidance": dict(controls.guidance),
        "steps": controls.steps,
        "sampler": controls.sampler,
        "seed": controls.seed,
    }


def _loaded(text: str | bytes) -> dict[str, Any]:
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"the controls are not JSON: {error}; see docs/controls.md") from error
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise InputError(f"the controls name {name!r} twice in one object; remove one of them")
        made[name] = value
    return made


def _no_constant(name: str) -> float:
    raise InputError(f"the controls hold {name}, which is not a number; every value must be finite")


def _known(kind: str, where: str, data: Any) -> dict[str, Any]:
    names = KEYS[kind]
    if not isinstance(data, dict):
        raise InputError(f"{where} must be an object with {', '.join(names)}, got {data!r}")
    for name in data:
        if name not in names:
            raise InputError(f"{where} has the unknown key {name!r}; known are {', '.join(names)}")
    return data


def _value(name: str, value: Any) -> Any:
    """A constant, or {"keys": [...]} -> `Track`; degrees become radians."""
    if not (isinstance(value, dict) and "keys" in value):
        return _radians(name, value)
    if len(value) > 1:
        raise InputError(
            f"{name} has keys over time and also {', '.join(n for n in value if n != 'keys')}; remove that"
        )
    if not isinstance(value["keys"], list):
        raise InputError(f"{name}: keys must be a list, got {value['keys']!r}")
    keys = []
    for number, key in enumerate(value["keys"]):
        where = f"key {number} of {name}"
        _known("key", where, key)
        for needed in ("time", "value"):
            if needed not in key:
                raise InputError(f"{where} has no {needed}; give one")
        keys.append(Key(key["time"], _radians(name, key["value"]), key.get("interpolation", "linear")))
    return Track(tuple(keys))


def _radians(name: str, value: Any) -> Any:
    """Degrees -> radians where the control is an angle; what is not a number is left for the controls to refuse."""
    if name not in ANGULAR or not isinstance(value, list | tuple):
        return value
    return tuple(math.radians(v) if is_number(v) else v for v in value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Track):
        keys = value.keys
        return {
            "keys": [{"time": k.time, "value": _plain(name, k.value), "interpolation": k.interpolation} for k in keys]
        }
    if name in ANGULAR:
        return [_degrees(angle) for angle in value]
    return dict(value) if isinstance(value, dict) else value


def _degrees(angle: float) -> float:
    """The shortest decimal number of degrees that reads back as the same radians; else the nearest."""
    degrees = math.degrees(angle)
    for digits in range(16):
        short = round(degrees, digits)
        if math.radians(short) == angle:
            return short
    return degrees
