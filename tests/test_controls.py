"""The controls: JSON, keyframes, refusals, and the curves they become."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch

import vasa.controls as controls_module
from vasa.blinks import SHORTEST_PAUSE, blink_times, closure
from vasa.controls import ANGLES, GUIDED, RANGES, SAMPLERS, Blink, Controls, HeadPose, Key, Track
from vasa.controls_json import KEYS, VERSION
from vasa.errors import InputError
from vasa.latents import EMOTIONS
from vasa.timeline import INTERPOLATIONS, MAX_TIME

FULL = {
    "version": 1,
    "gaze": {"keys": [{"time": 0, "value": [10, 0]}, {"time": 1, "value": [-20.3, 5], "interpolation": "hold"}]},
    "distance": {"keys": [{"time": 0, "value": 1.0, "interpolation": "smooth"}, {"time": 2, "value": 1.3}]},
    "emotion": {"keys": [{"time": 0, "value": {"happy": 0.8}}, {"time": 3, "value": {"sad": 1}}]},
    "head_pose": {"offset": [5, -3, 2], "amplitude": {"keys": [{"time": 0.5, "value": 0}]}},
    "blink": {"rate": 15, "at": [1.2, 3]},
    "expression": 1.5,
    "mouth": {"keys": [{"time": 0, "value": 1}, {"time": 4, "value": 0.5}]},
    "guidance": {"audio": 0.5, "gaze": 1.0},
    "steps": 10,
    "sampler": "dpm++",
    "seed": 7,
}
SCHEMA = json.loads((Path(controls_module.__file__).parent / "controls.schema.json").read_text())


def tensors(curves):
    return {name: value for name, value in vars(curves).items() if isinstance(value, torch.Tensor)}


def at(path: str, value) -> dict:
    """The full example with one value replaced, e.g. at("blink.rate", 5)."""
    data = copy.deepcopy(FULL)
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[last] = value
    return data


def test_json_and_back_is_the_same():
    controls = Controls.from_json(FULL)
    assert Controls.from_json(controls.to_json()) == controls
    assert Controls.from_json(json.dumps(controls.to_json())) == controls
    assert controls.to_json()["gaze"]["keys"][1]["value"] == [-20.3, 5.0], "degrees stay short"
    assert controls.gaze.keys[0].value == pytest.approx((math.radians(10), 0))
    assert Controls.from_json({}) == Controls() and Controls.from_json(Controls().to_json()) == Controls()


def test_a_file_is_read_and_named_where_it_is_wrong(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(FULL))
    assert Controls.from_file(path) == Controls.from_json(FULL)
    path.write_text(json.dumps(at("distance", 9)))
    with pytest.raises(InputError, match=r"c\.json: distance must be a number between 0.5 and 2, got 9"):
        Controls.from_file(path)
    with pytest.raises(InputError, match="none.json"):
        Controls.from_file(tmp_path / "none.json")


def track(*values, interpolation="linear"):
    return {"keys": [{"time": t, "value": v, "interpolation": interpolation} for t, v in values]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (at("wind", 1), "unknown key 'wind'"),
        (at("blink.speed", 1), "blink has the unknown key 'speed'"),
        (at("head_pose", {"tilt": 1}), "head_pose has the unknown key 'tilt'"),
        (
            at("distance", {"keys": [{"time": 0, "value": 1, "ease": 1}]}),
            "key 0 of distance has the unknown key 'ease'",
        ),
        (at("distance", {"keys": [{"value": 1}]}), "key 0 of distance has no time"),
        (at("distance", {"keys": []}), "distance must have at least one key"),
        (at("distance", {"keys": 3}), "distance: keys must be a list"),
        (at("distance", {"keys": [], "value": 1}), "distance has keys over time and also value"),
        (at("distance", track((0, 1), (2, 3))), "distance at 2 s must be a number between 0.5 and 2, got 3"),
        (at("distance", track((2, 1), (1, 1))), "keys of distance must be in ascending time, but 1 s follows 2 s"),
        (at("distance", track((2, 1), (2, 1.1))), "distance has two keys at 2 s"),
        (at("distance", track((-1, 1))), "a key time of distance must be a number between 0 and 86400 seconds, got -1"),
        (at("distance", track(("0", 1))), "a key time of distance must be a number"),
        (
            at("distance", track((0, 1), interpolation="cubic")),
            "distance at 0 s: the interpolation must be one of linear",
        ),
        (at("distance", track((0, 1), interpolation=[])), "distance at 0 s: the interpolation must be one of linear"),
        (
            at("gaze", track((0, [0, 0]), (1.5, [31, 0]))),
            "gaze at 1.5 s: yaw must be a number between -30 and 30°, got 31",
        ),
        (at("gaze", [0, 0, 0]), "gaze must be 2 angles"),
        (at("gaze", "left"), "gaze must be 2 angles"),
        (at("gaze", [True, 0]), "gaze: yaw must be a number between -30 and 30°, got True"),
        (at("gaze", None), "gaze must be 2 angles"),
        (at("gaze", {"yaw": 3}), "gaze must be 2 angles"),
        (at("head_pose.offset", [0, 21, 0]), "head_pose.offset: pitch must be a number between -20 and 20°, got 21"),
        (at("head_pose.amplitude", -0.1), "head_pose.amplitude must be a number between 0 and 2, got -0.1"),
        (at("head_pose", 3), "head_pose must be an object"),
        (at("emotion", {"happy": 2}), "emotion: happy must be a number between 0 and 1, got 2"),
        (at("emotion", {"cheerful": 1}), "emotion has the unknown name 'cheerful'"),
        (
            at("emotion", track((4, {"sad": "very"}))),
            "emotion at 4 s: sad must be a number between 0 and 1, got 'very'",
        ),
        (at("blink.rate", 61), "blink.rate must be a number between 0 and 60 a minute, got 61"),
        (at("blink.at", [2, 1]), "blink.at must be in ascending time, but 1 s follows 2 s"),
        (at("blink.at", 2), "blink.at must be a list"),
        (at("blink.at", [-1]), "a time of blink.at must be a number between 0 and 86400 seconds, got -1"),
        (at("mouth", float("nan")), "mouth must be a number between 0 and 2, got nan"),
        (at("expression", float("inf")), "expression must be a number between 0 and 2, got inf"),
        (at("guidance", {"weather": 1}), "guidance has the unknown name 'weather'"),
        (at("guidance", {"audio": 6}), "guidance: audio must be a number between 0 and 5, got 6"),
        (at("guidance", 1), "guidance must be weights by name"),
        (at("steps", 0), "steps must be a whole number between 1 and 1000, got 0"),
        (at("steps", 2.5), "steps must be a whole number between 1 and 1000, got 2.5"),
        (at("seed", -1), "seed must be a whole number between 0"),
        (at("sampler", "euler"), "sampler must be one of ddim, dpm"),
        (at("version", 2), "version must be 1, got 2"),
        ("[1]", "the controls must be an object"),
        (None, "the controls must be an object"),
        (at("gaze", [10**400, 0]), "gaze: yaw must be a number between -30 and 30°, got 1000"),
        (at("mouth", 10**400), "mouth must be a number between 0 and 2, got 1000"),
        ('{"mouth": 1e999}', "mouth must be a number between 0 and 2, got inf"),
        ('{"mouth": ' + "9" * 5000 + "}", "are not JSON"),
        ('{"mouth": NaN}', "the controls hold NaN"),
        ('{"mouth": 1, "mouth": 2}', "name 'mouth' twice"),
        ("{", "are not JSON"),
        (b"\xff\xfe", "are not JSON"),
        ("[" * 200_000, "are not JSON"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(data, said):
    with pytest.raises(InputError) as refusal:
        Controls.from_json(data)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_angles_of_python_are_refused_in_degrees():
    with pytest.raises(InputError, match="gaze: yaw must be a number between -30 and 30°, got 57"):
        Controls(gaze=(1.0, 0.0))
    with pytest.raises(InputError, match="head_pose must be a HeadPose"):
        Controls(head_pose={"offset": (0, 0, 0)})
    Controls(gaze=(math.radians(30), -math.radians(30)))


def test_interpolation():
    kinds = [(0.0, 0.5, "linear"), (1.0, 1.5, "smooth"), (2.0, 0.5, "hold"), (3.0, 2.0, "linear")]
    curve = Controls(distance=Track(tuple(Key(*kind) for kind in kinds))).curves(100, 25.0).distance.exp()[:, 0]
    wanted = {
        0: 0.5,
        5: 0.7,
        25: 1.5,
        30: 1.5 - 0.104,
        37: 1.5 - (0.48**2) * (3 - 0.96),
        50: 0.5,
        74: 0.5,
        75: 2,
        99: 2,
    }
    for frame, value in wanted.items():
        assert curve[frame].item() == pytest.approx(value, abs=1e-3), frame


def test_emotions_blend_and_sum_to_one():
    keys = (Key(0.0, {"happy": 1.0}), Key(1.0, {"sad": 0.5}))
    curve = Controls(emotion=Track(keys)).curves(30, 10.0).emotion
    happy, sad = EMOTIONS.index("happy"), EMOTIONS.index("sad")
    assert torch.allclose(curve.sum(1), torch.ones(30))
    assert curve[5, happy] == pytest.approx(0.5) and curve[5, sad] == pytest.approx(0.25)
    assert curve[5, 0] == pytest.approx(0.25) and curve[20, sad] == pytest.approx(0.5)


@pytest.mark.parametrize("piece", [1, 7, 40])
def test_pieces_of_curves_equal_the_whole(piece):
    controls = Controls.from_json(FULL)
    whole = tensors(controls.curves(160, 25.0))
    pieces = [tensors(controls.curves(min(piece, 160 - start), 25.0, start)) for start in range(0, 160, piece)]
    assert len(whole) == 9 and all(len(curve) == 160 for curve in whole.values())
    for name, curve in whole.items():
        assert torch.equal(torch.cat([one[name] for one in pieces]), curve), name


def test_blinks_come_at_the_rate_asked_for():
    for rate in (1.0, 12.0, 30.0, 60.0):
        times = blink_times(rate, 3, 0.0, 1200.0)
        pauses = [b - a for a, b in zip(times, times[1:], strict=False)]
        assert len(times) == pytest.approx(rate * 20, abs=1)
        assert min(pauses) >= SHORTEST_PAUSE - 1e-9
        assert max(pauses) > 1.3 * min(pauses), "irregular"
    assert blink_times(0.0, 3, 0.0, 60.0) == []
    assert blink_times(12.0, 3, 0.0, 60.0) != blink_times(12.0, 4, 0.0, 60.0)


def test_lids_shut_at_the_instant_asked_for():
    curves = Controls(blink=Blink(at=(1.2,))).curves(60, 25.0)
    shut = curves.closure[:, 0]
    assert shut.argmax() == 30 and shut[30] == 1 and (shut > 0).sum() <= 6
    assert (curves.own_blinks == 1).all() and (Controls(blink=Blink(0)).curves(5).own_blinks == 0).all()
    assert (closure([0.5], 25, 25.0).diff()[:12] >= 0).all()


def walk(schema: dict, value) -> bool:
    """Whether a value fits the part of JSON Schema that ours uses."""
    if "$ref" in schema:
        return walk(SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]], value)
    kinds = {"object": dict, "array": list, "number": (int, float), "integer": int, "null": type(None)}
    if "anyOf" in schema and not any(walk(option, value) for option in schema["anyOf"]):
        return False
    if "type" in schema and (not isinstance(value, kinds[schema["type"]]) or isinstance(value, bool)):
        return False
    if "enum" in schema and value not in schema["enum"] or "const" in schema and value != schema["const"]:
        return False
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, list):
        rows = schema.get("prefixItems", [schema.get("items", {})] * len(value))
        enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return enough and all(walk(row, one) for row, one in zip(rows, value, strict=False))
    if isinstance(value, dict):
        known, extra = schema.get("properties", {}), schema.get("additionalProperties", {})
        names = all(walk(schema.get("propertyNames", {}), name) for name in value)
        rest = all(extra is not False and walk(extra, v) for name, v in value.items() if name not in known)
        inside = all(walk(known[name], v) for name, v in value.items() if name in known)
        return names and rest and inside and set(schema.get("required", ())) <= set(value)
    return True


def test_the_schema_has_the_ranges_of_the_code():
    named, defined = SCHEMA["properties"], SCHEMA["$defs"]
    assert tuple(named) == KEYS[""] and named["version"]["const"] == VERSION
    assert tuple(named["head_pose"]["properties"]) == KEYS["head_pose"]
    assert tuple(named["blink"]["properties"]) == KEYS["blink"]
    for name, where in (("gaze", "gaze"), ("head_pose.offset", "offset")):
        rows = {row["title"]: (row["minimum"], row["maximum"]) for row in defined[where]["prefixItems"]}
        assert rows == {axis: (-limit, limit) for axis, limit in ANGLES[name].items()}
    places = {
        "distance": defined["distance"],
        "emotion": defined["emotion"]["additionalProperties"],
        "head_pose.amplitude": defined["factor"],
        "blink.rate": named["blink"]["properties"]["rate"]["anyOf"][1],
        "blink.at": defined["time"],
        "expression": defined["factor"],
        "mouth": defined["factor"],
        "guidance": named["guidance"]["additionalProperties"],
        "steps": named["steps"],
        "seed": named["seed"],
    }
    assert {name: (row["minimum"], row["maximum"]) for name, row in places.items()} == RANGES
    assert tuple(defined["emotion"]["propertyNames"]["enum"]) == EMOTIONS
    assert tuple(named["guidance"]["propertyNames"]["enum"]) == GUIDED
    assert tuple(named["sampler"]["enum"]) == SAMPLERS and tuple(defined["interpolation"]["enum"]) == INTERPOLATIONS
    assert defined["time"]["maximum"] == MAX_TIME
    for name in ("gaze", "distance", "emotion", "offset", "factor"):
        key = defined[f"{name}_track"]["properties"]["keys"]["items"]["properties"]
        assert tuple(key) == KEYS["key"] and key["value"] == {"$ref": f"#/$defs/{name}"}


def test_the_schema_has_the_defaults_of_the_code():
    defaults = {name: row["default"] for name, row in SCHEMA["properties"].items() if "default" in row}
    for group in ("head_pose", "blink"):
        defaults[group] = {n: row["default"] for n, row in SCHEMA["properties"][group]["properties"].items()}
    assert {"version": VERSION, **defaults} == Controls().to_json()


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (FULL, True), ({}, True), (at("wind", 1), False), (at("gaze", [31, 0]), False), (at("gaze", [1]), False),
        (at("distance", track((0, 1), (2, 3))), False), (at("emotion", {"cheerful": 1}), False),
        (at("blink.rate", None), True), (at("blink.rate", 61), False), (at("steps", 2.5), False),
        (at("distance", {"keys": [{"value": 1}]}), False), (at("mouth", True), False), (at("sampler", "euler"), False),
        (at("head_pose", {"tilt": 1}), False), (at("distance", track((0, 1), interpolation="cubic")), False),
    ],
)  # fmt: skip
def test_schema_and_parser_agree(data, fits):
    assert walk(SCHEMA, data) == fits
    if fits:
        Controls.from_json(data)
    else:
        with pytest.raises(InputError):
            Controls.from_json(data)


def test_old_python_still_works():
    assert Track(((0.0, 1.0), (1.0, 2.0, "hold"))) == Track((Key(0.0, 1.0), Key(1.0, 2.0, "hold")))
    controls = Controls(gaze=[0.1, 0.0], distance=1.2, emotion={"happy": 1}, guidance={}, steps=3, seed=4)
    assert controls.gaze == (0.1, 0.0) and controls.head_pose == HeadPose() and controls.blink == Blink()
