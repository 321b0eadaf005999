"""The real ComfyUI, where COMFYUI_DIR names one (and COMFYUI_PYTHON its Python): every workflow queued and looked into.

The server is a process of its own with its own folders; nothing of it is imported here.
"""

import copy
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model

from vasa import checkpoint
from vasa.config import TINY, AudioConfig
from vasa.io.video import read_video
from vasa.motion.transformer import Denoiser
from vasa.nodes import describe

ROOT = Path(__file__).resolve().parents[1]
API = {path.stem: path for path in sorted((ROOT / "workflows" / "api").glob("*.json"))}
COMFYUI = os.environ.get("COMFYUI_DIR", "")
WAIT = float(os.environ.get("COMFYUI_WAIT", "600"))
"""Seconds that the slowest step may take on a busy machine."""

pytestmark = pytest.mark.skipif(not COMFYUI, reason="COMFYUI_DIR names no ComfyUI")


class Server:
    """A running ComfyUI."""

    def __init__(self, base, port):
        self.base, self.url = base, f"http://127.0.0.1:{port}"

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path, content):
        data, kind = json.dumps(content).encode(), {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, kind), timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else {}

    def queue(self, prompt):
        answer = self.post("/prompt", {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": {"mark": 1}}}})
        assert "prompt_id" in answer, answer
        return answer["prompt_id"]

    def finished(self, prompt_id):
        """The history of a prompt once it has ended."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            if history := self.get(f"/history/{prompt_id}").get(prompt_id):
                return history
            time.sleep(0.3)
        raise TimeoutError(prompt_id)

    def run(self, prompt):
        history = self.finished(self.queue(prompt))
        assert history["status"]["status_str"] == "success", history["status"]["messages"][-1]
        return history


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "output", "models/vasa"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / "any-name").symlink_to(ROOT)
    (base / "models" / "vasa" / "tiny").symlink_to(ROOT / "tests" / "data" / "tiny")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = os.environ.get("COMFYUI_PYTHON", "python3")
    command = [python, "main.py", "--disable-api-nodes", "--base-directory", str(base), "--port", str(port)]
    command += os.environ.get("COMFYUI_ARGS", "--cpu").split()
    log = (base / "log.txt").open("w")
    # what lies in this machine's cache must not decide what is tested
    place = os.environ | {"HF_HOME": str(base / "hub"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=COMFYUI, env=place, stdout=log, stderr=subprocess.STDOUT)
    one, end = Server(base, port), time.monotonic() + WAIT
    try:
        while True:
            assert process.poll() is None and time.monotonic() < end, (base / "log.txt").read_text()[-3000:]
            try:
                one.get("/system_stats")
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        yield one
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def small(name, **changes):
    """A shipped workflow with the tiny model, one step and ten frames."""
    prompt = json.loads(API[name].read_text())
    wanted = {"model": "tiny", "steps": 1, "duration": 0.4} | changes
    for node in prompt.values():
        for key, value in wanted.items():
            if key in node["inputs"] and not isinstance(node["inputs"][key], list):
                node["inputs"][key] = value
    return prompt


def video_of(server, history):
    """The one video that a prompt wrote."""
    shown = [image for out in history["outputs"].values() for image in out.get("images", ())]
    (one,) = [image for image in shown if image["filename"].endswith(".mp4")]
    return server.base / "output" / one["subfolder"] / one["filename"]


def test_the_pack_loads_and_says_what_the_golden_file_says(server):
    assert "IMPORT FAILED" not in (server.base / "log.txt").read_text()
    info = server.get("/object_info")
    ours = {name: describe.without_lists(node) for name, node in info.items() if name.startswith("VASA_")}
    assert ours == json.loads(describe.GOLDEN.read_text())


@pytest.mark.parametrize("name", API)
def test_every_workflow_makes_its_video(server, name, tmp_path):
    changes = {}
    if name == "drive":
        from vasa.io.video import VideoWriter

        frames = read_video(ROOT / "examples" / "driving.mp4").frames
        with VideoWriter(tmp_path / "short.mp4", 256, 25) as writer:
            for _ in range(4):
                writer.write(next(frames))
        shutil.copy(tmp_path / "short.mp4", server.base / "input" / "short.mp4")
        changes["video"] = "short.mp4"
    path = video_of(server, server.run(small(name, **changes)))
    video = read_video(path)
    frames = list(video.frames)
    expected = {"faces": (128, 192), "paste": (640, 640)}.get(name, (64, 64))
    assert video.fps == 25 and len(frames) == (4 if name == "drive" else 10) and frames[0].shape == (3, *expected)
    if name != "drive":
        assert video.audio is not None and video.audio.seconds == pytest.approx(0.4, abs=0.05)
    import av

    with av.open(str(path)) as container:
        tags = container.metadata
    assert json.loads(tags["workflow"]) == {"mark": 1} and "VASA_LoadModel" in tags["prompt"]
    if name in ("long", "drive"):
        assert json.loads(tags["comment"])["digital_source_type"] == "trainedAlgorithmicMedia"


def test_another_seed_runs_only_what_depends_on_it(server):
    server.run(small("basic", seed=100))
    history = server.run(small("basic", seed=101))
    (cached,) = [m[1]["nodes"] for m in history["status"]["messages"] if m[0] == "execution_cached"]
    assert set(cached) == {"1", "2", "3", "4", "5"}


def test_weights_that_were_unloaded_come_back(server):
    """What ComfyUI's button for unloading models asks for; the loader's result stays in its cache."""
    server.run(small("basic", seed=300))
    server.post("/free", {"unload_models": True})
    history = server.run(small("basic", seed=301))
    (cached,) = [m[1]["nodes"] for m in history["status"]["messages"] if m[0] == "execution_cached"]
    assert "1" in cached and len(list(read_video(video_of(server, history)).frames)) == 10


def test_another_previous_motion_runs_what_depends_on_it(server):
    """The second of two chained clips: its key in ComfyUI's cache holds the first one's."""
    prompt = small("long", seed=200)
    (diffusion,) = [name for name, node in prompt.items() if node["class_type"] == "VASA_MotionDiffusion"]
    second = copy.deepcopy(prompt[diffusion])
    prompt["before"] = prompt[diffusion]
    prompt[diffusion] = second
    second["inputs"]["previous_motion"] = ["before", 0]
    joined = server.run(prompt)
    assert len(list(read_video(video_of(server, joined)).frames)) == 10

    def cached(history):
        return next(m[1]["nodes"] for m in history["status"]["messages"] if m[0] == "execution_cached")

    prompt["before"]["inputs"]["seed"] = 201
    assert not {"before", diffusion} & set(cached(server.run(prompt)))
    second["inputs"]["seed"] = 202
    kept = cached(server.run(prompt))
    assert "before" in kept and diffusion not in kept


def test_comfyuis_own_audio_encoder_is_heard_and_refused_where_it_means_nothing(server):
    """A random Wav2Vec2 of the public size, and a small model whose generator wants one."""
    torch.manual_seed(0)
    audio = AudioConfig()
    encoder = Wav2Vec2Model(Wav2Vec2Config())
    folder = server.base / "models" / "audio_encoders"
    folder.mkdir(exist_ok=True)
    state = {f"wav2vec2.{name}": value.half().contiguous() for name, value in encoder.state_dict().items()}
    save_file(state, folder / "wav2vec2.safetensors")
    tiny = ROOT / "tests" / "data" / "tiny"
    face = checkpoint.load(tiny).face
    motion = Denoiser(TINY.motion, TINY.motion_dim, audio.feature_dim + 1)
    checkpoint.save(server.base / "models" / "vasa" / "public", replace(TINY, audio=audio), {"face": face})
    checkpoint.save(server.base / "models" / "vasa" / "public", replace(TINY, audio=audio), {"motion": motion})

    prompt = small("basic", model="public")
    kinds = {node["class_type"]: name for name, node in prompt.items()}
    features = prompt[kinds["VASA_AudioFeatures"]]["inputs"]
    prompt["ears"] = {"class_type": "AudioEncoderLoader", "inputs": {"audio_encoder_name": "wav2vec2.safetensors"}}

    def refused():
        kind, facts = server.finished(server.queue(prompt))["status"]["messages"][-1]
        assert kind == "execution_error" and facts["node_type"] == "VASA_AudioFeatures"
        return facts["exception_message"]

    assert "models/audio_encoders" in refused()
    features["audio_encoder"] = ["ears", 0]
    assert len(list(read_video(video_of(server, server.run(prompt))).frames)) == 10
    prompt[kinds["VASA_LoadModel"]]["inputs"]["model"] = "tiny"
    assert "an audio encoder of its own" in refused()


def test_stop_ends_a_long_diffusion(server):
    prompt_id = server.queue(small("long", steps=1000, duration=8.0, seed=7))
    end = time.monotonic() + WAIT
    while not server.get("/queue")["queue_running"] and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(2)
    server.post("/interrupt", {})
    started = time.monotonic()
    history = server.finished(prompt_id)
    assert history["status"]["status_str"] == "error"
    assert history["status"]["messages"][-1][0] == "execution_interrupted"
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "node, field, value",
    [("2", "portrait", "../../secret.png"), ("4", "audio", "/etc/passwd"), ("6", "steps", 5000), ("2", "crop", "ears"),
     ("6", "face", ["1", 0]), ("1", "model", "../../tests")],
)  # fmt: skip
def test_bad_inputs_are_refused_with_node_and_field(server, node, field, value):
    prompt = small("basic")
    prompt[node]["inputs"][field] = value
    answer = server.post("/prompt", {"prompt": prompt})
    (error,) = answer["node_errors"][node]["errors"]
    assert error["extra_info"]["input_name"] == field


def test_an_error_while_running_is_one_sentence_of_ours(server):
    prompt = small("basic", duration=0.0)
    prompt["5"]["inputs"]["start_time"] = 100.0
    history = server.finished(server.queue(prompt))
    kind, facts = history["status"]["messages"][-1]
    assert kind == "execution_error" and facts["node_type"] == "VASA_AudioFeatures"
    assert "start_time 100 s lies beyond the clip" in facts["exception_message"]


def test_samples_can_be_seen_before_run_and_nothing_else(server):
    with urllib.request.urlopen(f"{server.url}/vasa/samples/portrait.png") as picture:
        assert picture.read(4) == b"\x89PNG"
    for name in ("..%2Fpyproject.toml", "%2Fetc%2Fpasswd", "absent.png"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{server.url}/vasa/samples/{name}")


def test_templates_help_pages_and_texts_are_served(server):
    assert set(server.get("/workflow_templates")["any-name"]) == set(API)
    for name in API:
        with urllib.request.urlopen(f"{server.url}/api/workflow_templates/any-name/{name}.jpg") as picture:
            assert picture.read(2) == b"\xff\xd8"
    with urllib.request.urlopen(f"{server.url}/extensions/any-name/docs/VASA_LoadModel.md") as page:
        assert page.read().startswith(b"# Load VASA Model")
    with urllib.request.urlopen(f"{server.url}/extensions/any-name/docs/VASA_LoadModel/zh.md") as page:
        assert page.read().decode().startswith("# 加载 VASA 模型")
    texts = server.get("/i18n")
    assert texts["zh"]["nodeDefs"]["VASA_EncodeFace"]["display_name"] == "编码人脸"
    blueprints = [one for one in server.get("/global_subgraphs").values() if "any-name" in json.dumps(one)]
    assert [one["name"] for one in blueprints] == ["VASA Talking Head"]
