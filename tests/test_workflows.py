"""Workflow files run without ComfyUI, and what is wrong with a workflow is said before anything runs."""

import copy
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from vasa.nodes.headless import run_workflow

from vasa import InputError, cli
from vasa.nodes import describe, headless

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
API = {path.stem: path for path in sorted((ROOT / "workflows" / "api").glob("*.json"))}
BASIC = json.loads(API["basic"].read_text())
QUICK = {"1.model": str(TINY), "steps": 1, "duration": 0.4, "2.crop": "center"}
"""The tiny model, one step, ten frames, and no search for a face, which takes a second."""


def quick(name):
    """Overrides that make a shipped workflow small."""
    prompt = json.loads(API[name].read_text())
    kinds = {node["class_type"] for node in prompt.values()}
    has = {"steps": "VASA_MotionDiffusion", "duration": "VASA_AudioFeatures", "2.crop": "VASA_LoadPortrait"}
    small = {key: value for key, value in QUICK.items() if has.get(key, "VASA_LoadModel") in kinds}
    portraits = [n for n, node in prompt.items() if node["class_type"] == "VASA_LoadPortrait"]
    return small | {f"{n}.crop": "center" for n in portraits}


@pytest.fixture(scope="module")
def short_video(tmp_path_factory):
    """The packaged driving video's first frames."""
    from vasa.io.video import VideoWriter, read_video

    path = tmp_path_factory.mktemp("video") / "short.mp4"
    frames = read_video(ROOT / "examples" / "driving.mp4").frames
    with VideoWriter(path, 256, 25) as writer:
        for _ in range(4):
            writer.write(next(frames))
    return path


def test_there_is_a_shipped_workflow_of_each_kind():
    assert set(API) == set(headless.shipped_workflows()) == {"basic", "controls", "drive", "faces", "long", "paste"}
    assert {path.stem for path in WORKFLOWS} == set(API)


@pytest.mark.parametrize("name", API)
def test_every_shipped_workflow_runs(name, tmp_path, short_video):
    from vasa.io.video import read_video

    overrides = quick(name)
    if name == "drive":
        overrides["video"] = short_video
    (path,) = run_workflow(name, overrides, tmp_path)
    assert path == tmp_path / "vasa" / f"{name}_00001_.mp4"
    video = read_video(path)
    frames = list(video.frames)
    assert video.fps == 25 and len(frames) == (4 if name == "drive" else 10)
    expected = {"faces": (128, 192), "paste": (640, 640)}.get(name, (64, 64))
    assert frames[0].shape == (3, *expected)
    if name != "drive":
        assert video.audio is not None


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_editor_file_and_its_api_twin_are_one_graph(path):
    """Same nodes, same links, same values in the order of the widgets, and a picture to choose it by."""
    editor, prompt = json.loads(path.read_text()), json.loads(API[path.stem].read_text())
    nodes = {str(node["id"]): node for node in editor["nodes"]}
    assert {name: node["type"] for name, node in nodes.items()} == {n: v["class_type"] for n, v in prompt.items()}
    links = {link[0]: link for link in editor["links"]}
    for name, node in nodes.items():
        schema = headless.CLASSES[node["type"]].GET_SCHEMA()
        given = prompt[name]["inputs"]
        linked = {one["name"]: one["link"] for one in node.get("inputs", ()) if one.get("link") is not None}
        wanted = {key: value for key, value in given.items() if headless.is_link(value)}
        assert {key: [str(links[link][1]), links[link][2]] for key, link in linked.items()} == wanted, (name, linked)
        values = iter(node.get("widgets_values", ()))
        for one in schema.inputs:
            if one.io_type not in headless.KINDS or one.id not in given:
                continue
            value = next(values)
            assert headless.is_link(given[one.id]) or value == given[one.id], f"{path.stem} node {name} {one.id}"
            if one.settings.get("control_after_generate"):
                assert next(values) == "fixed", "a template gives the same video on every first run"
    picture = path.with_suffix(".jpg")
    assert 5_000 < picture.stat().st_size < 120_000


def unfolded(blueprint):
    """A blueprint's inner graph in API format, with samples for its picture and its sound."""
    graph = blueprint["definitions"]["subgraphs"][0]
    links = {link["id"]: link for link in graph["links"]}
    outside = {"image": ["picture", 0], "audio": ["sound", 0]}
    prompt = {
        "picture": {"class_type": "LoadImage", "inputs": {"image": "portrait.png [sample]"}},
        "sound": {"class_type": "VASA_LoadSpeech", "inputs": {"audio": "speech.wav [sample]"}},
    }
    for node in graph["nodes"]:
        linked = {one["name"]: links[one["link"]] for one in node["inputs"] if one["link"] is not None}
        values, given = iter(node.get("widgets_values", ())), {}
        for one in headless.CLASSES[node["type"]].GET_SCHEMA().inputs:
            if one.io_type in headless.KINDS:
                given[one.id] = next(values)
                if one.settings.get("control_after_generate"):
                    assert next(values) == "fixed"
            elif (link := linked.get(one.id)) and link["origin_id"] > 0:
                given[one.id] = [str(link["origin_id"]), link["origin_slot"]]
            elif link and (name := graph["inputs"][link["origin_slot"]]["name"]) in outside:
                given[one.id] = outside[name]
        assert list(values) == [], "as many values as widgets"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    (end,) = [link for link in links.values() if link["target_id"] == graph["outputNode"]["id"]]
    video = [str(end["origin_id"]), end["origin_slot"]]
    prompt["end"] = {"class_type": "SaveVideo", "inputs": {"video": video, "filename_prefix": "head", "format": "auto"}}
    return prompt


def test_the_blueprint_is_the_whole_pipeline_as_one_node(tmp_path):
    from vasa.io.video import read_video

    blueprint = json.loads((ROOT / "subgraphs" / "VASA Talking Head.json").read_text())
    (node,) = blueprint["nodes"]
    shown = ["image", "audio", "seed", "controls", "steps", "model", "crop"]
    assert [one["name"] for one in node["inputs"]] == shown and [one["name"] for one in node["outputs"]] == ["video"]
    (path,) = run_workflow(unfolded(blueprint), QUICK, tmp_path)
    video = read_video(path)
    assert len(list(video.frames)) == 10 and video.audio is not None


def test_a_workflow_can_be_given_as_its_content_with_a_face_for_each_portrait(tmp_path):
    """A batch of portraits is a list of faces; the nodes behind it run once for each."""
    prompt = copy.deepcopy(BASIC)
    prompt["2"] = {"class_type": "VASA_CropPortrait", "inputs": {
        "image": ["10", 0], "crop": "center", "face_index": 0, "crop_x": 0, "crop_y": 0, "crop_size": 512,
        "model": ["1", 0]}}  # fmt: skip
    prompt["10"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["11", 0]}}
    prompt["11"] = {"class_type": "LoadVideo", "inputs": {"file": "two.mp4"}}
    from vasa.io.video import VideoWriter

    with VideoWriter(tmp_path / "two.mp4", 64, 25) as writer:
        import torch

        writer.write(torch.rand(2, 3, 64, 64))
    saved = run_workflow(prompt, QUICK, tmp_path, input_dir=tmp_path)
    assert [path.name for path in saved] == ["basic_00001_.mp4", "basic_00002_.mp4"]


def test_the_files_that_the_user_names_may_lie_anywhere(tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copy(ROOT / "examples" / "portrait_2.jpg", tmp_path / "me.jpg")
    overrides = QUICK | {"portrait": tmp_path / "me.jpg", "Load Speech.audio": ROOT / "examples" / "speech.wav"}
    seen, notices = [], []
    run_workflow("basic", overrides, tmp_path / "out", progress=lambda *step: seen.append(step), notice=notices.append)
    assert ("Motion Diffusion", 1, 1) in seen and ("Decode Frames", 10, 10) in seen and notices == []


def test_the_result_carries_its_workflow(tmp_path):
    import av

    (path,) = run_workflow("long", QUICK, tmp_path)
    with av.open(str(path)) as container:
        prompt = json.loads(container.metadata["prompt"])
        assert json.loads(container.metadata["comment"])["digital_source_type"] == "trainedAlgorithmicMedia"
    assert prompt["6"]["inputs"]["steps"] == 1, "with what was set, so that it can be repeated"


def test_a_cancelled_run_leaves_nothing(tmp_path):
    def stop(title, done, total):
        if title == "Decode Video":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workflow("long", QUICK, tmp_path, progress=stop)
    assert not list(tmp_path.rglob("*.mp4"))


def broken(change):
    prompt = copy.deepcopy(BASIC)
    change(prompt)
    return prompt


def set_input(node, key, value):
    return lambda prompt: prompt[node]["inputs"].__setitem__(key, value)


WRONG = {
    "unknown node": (lambda p: p["7"].update(class_type="EvilNode"), r"node 7: 'EvilNode' is not among"),
    "missing input": (lambda p: p["3"]["inputs"].pop("portrait"), r"node 3 \(Encode Face\), input portrait: nothing"),
    "dangling link": (
        set_input("3", "portrait", ["99", 0]),
        r"portrait: linked to node 99, which does not exist",
    ),
    "no such output": (set_input("3", "portrait", ["2", 7]), r"node 2 has no output 7"),
    "wrong type": (set_input("3", "portrait", ["1", 0]), r"expected IMAGE, node 1 gives VASA_MODEL"),
    "circle": (set_input("2", "model", ["3", 0]), r"links form a circle"),
    "too large": (set_input("6", "steps", 5000), r"input steps: expected a number between 1 and 1000, got 5000"),
    "not a number": (set_input("6", "cfg_audio", float("nan")), r"cfg_audio: expected a number between"),
    "text for a number": (set_input("6", "steps", "many"), r"input steps: expected INT, got 'many'"),
    "truth for a number": (set_input("6", "steps", True), r"input steps: expected INT, got True"),
    "value for a link": (set_input("6", "face", "Anna"), r"expected a link to VASA_FACE"),
    "no such choice": (set_input("2", "crop", "ears"), r"input crop: expected one of face, center"),
    "no such model": (set_input("1", "model", "../../etc"), r"input model: expected one of vasa-mini"),
    "file outside": (set_input("2", "portrait", "../../secret.png"), r"input portrait: .*leads out of its folder"),
    "absolute file": (set_input("4", "audio", "/etc/passwd"), r"input audio: .*leads out of its folder"),
    "absent file": (set_input("2", "portrait", "absent.png"), r"input portrait: "),
    "no result": (lambda p: p.pop("9"), r"no node that makes a result"),
    "not a node": (lambda p: p.update(x=3), r"not a workflow in ComfyUI's API format"),
    "empty": (lambda p: p.clear(), r"not a workflow"),
    "editor format": (lambda p: p.update(nodes=[]), r"editor's format.*Export \(API\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_before_anything_runs(name, tmp_path, monkeypatch):
    change, message = WRONG[name]
    monkeypatch.setattr(headless, "_execute", lambda *_: pytest.fail("it ran"))
    with pytest.raises(InputError, match=message):
        run_workflow(broken(change), {}, tmp_path, input_dir=tmp_path)


def test_a_result_outside_the_output_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    prompt = broken(set_input("9", "filename_prefix", "../stolen"))
    with pytest.raises(InputError, match=r"node 9 \(Save Video\): .*leads out of its folder"):
        run_workflow(prompt, QUICK, tmp_path / "out")
    assert not list(tmp_path.glob("stolen*"))


def test_a_long_chain_needs_no_deep_stack():
    prompt = {"0": {"class_type": "VASA_ControlSignals", "inputs": {}}}
    for n in range(1, 900):
        prompt[str(n)] = {"class_type": "VASA_ControlSignals", "inputs": {"previous": [str(n - 1), 0]}}
    assert len(headless._in_order(prompt, ["899"])) == 900


@pytest.mark.parametrize(
    "text, message",
    [
        ("not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a workflow"),
        ('{"1": {"class_type": 3, "inputs": {}}}', "not a workflow"),
    ],
)
def test_files_that_are_no_workflows_are_refused(text, message, tmp_path):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(InputError, match=message):
        run_workflow(tmp_path / "w.json", {}, tmp_path)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"colour": "red"}, "no node of the workflow has this input; it has audio, batch_size"),
        ({"model": "x"}, "input model: expected one of vasa-mini, got 'x'"),
        ({"steps": "many"}, "steps: expected INT, got 'many'"),
        ({"portrait": "/absent/me.png"}, r"node 2 \(Load Portrait\): the portrait /absent/me.png does not exist"),
    ],
    ids=["unknown", "model", "kind", "file"],
)
def test_settings_that_cannot_be_are_explained(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_workflow(BASIC, overrides, tmp_path)


def test_an_input_of_several_nodes_must_be_told_apart(tmp_path):
    with pytest.raises(InputError, match="several nodes have this input, say which: 2.portrait, 3.portrait"):
        run_workflow("faces", {"portrait": "a.png"}, tmp_path)


def test_the_command_line_runs_a_workflow(tmp_path, capsys):
    given = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    assert cli.main(["run", str(API["long"]), *given, "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "vasa" / "long_00001_.mp4")
    assert cli.main(["run", "basic", "--set", "steps", "-o", str(tmp_path)]) == 2
    assert "expected INPUT=VALUE" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("comfy") is None, reason="comfy-cli is not installed")
@pytest.mark.parametrize("path", [*WORKFLOWS, *API.values()], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_comfy_cli_accepts_the_file(path, tmp_path):
    (tmp_path / "info.json").write_text(json.dumps(describe.core_info()))
    command = ["comfy", "--skip-prompt", "--json", "workflow", "validate", "--workflow", str(path)]
    done = subprocess.run([*command, "--input", str(tmp_path / "info.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
