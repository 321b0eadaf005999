"""Weights under ComfyUI's own model management, where COMFYUI_DIR names one (and COMFYUI_PYTHON its Python).

A machine without a GPU has two devices all the same, "cpu" and "meta": what ComfyUI brings to the one and leaves on the
other can be seen. It runs in a process of its own; nothing of it is imported here.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = os.environ.get("COMFYUI_DIR", "")
WAIT = float(os.environ.get("COMFYUI_WAIT", "600"))

pytestmark = pytest.mark.skipif(not COMFYUI, reason="COMFYUI_DIR names no ComfyUI")

SCRIPT = """
import importlib
import importlib.util
import json
import os
import sys

import comfy.options

comfy.options.enable_args_parsing()
import comfy.model_management as management
import comfy.model_patcher
import folder_paths
import torch

place = os.environ["VASA_PACK"]
spec = importlib.util.spec_from_file_location("pack", os.path.join(place, "__init__.py"))
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
nodes, host = importlib.import_module("pack.nodes.extension"), importlib.import_module("pack.nodes.comfy_host")
sockets, vasa = importlib.import_module("pack.nodes.sockets"), importlib.import_module("pack.vasa")
tiny = os.path.join(place, "tests", "data", "tiny")


def weights(load, offload, kind=None):
    host.COMFYUI.places = lambda: (torch.device(load), torch.device(offload))
    made = sockets.Weights(vasa.Vasa.from_pretrained(tiny, device="cpu", precision="fp32"))
    return kind(made, *host.COMFYUI.places()) if kind else host.COMFYUI.manage(made)


def devices(managed):
    return sorted({one.device.type for one in [*managed.model.parameters(), *managed.model.buffers()]})


def memory(state, free):
    management.vram_state = management.VRAMState[state]
    management.get_free_memory = lambda device=None, torch_free_too=False: (free, free) if torch_free_too else free


def frames(model, face):
    still = vasa.Motion(torch.zeros(3, 6), torch.zeros(3, 59))
    return nodes.DecodeFrames.execute(model, face, still, 0, False)[0]


facts = {"brought": {}}
with torch.inference_mode():
    for state in ("HIGH_VRAM", "NORMAL_VRAM", "LOW_VRAM", "NO_VRAM"):
        for free in (0, 2**20, 2**33):
            memory(state, free)
            managed = weights("meta", "cpu")
            for _ in range(2):
                computes = host.COMFYUI.ready(managed, 2**20)
            facts["brought"][f"{state} with {free} bytes"] = [str(computes), devices(managed)]
    memory("NO_VRAM", 2**33)
    plain = weights("meta", "cpu", comfy.model_patcher.ModelPatcher)
    management.load_models_gpu([plain])
    facts["left behind by a plain patcher"] = devices(plain)

    memory("LOW_VRAM", 0)
    managed = weights("cpu", "meta")
    host.COMFYUI.ready(managed, 0)
    loaded = sockets.LoadedModel(managed.model.engine, "tiny", managed)
    face = nodes.EncodeFace.execute(loaded, torch.rand(1, 64, 64, 3))[0][0]
    frames(loaded, face)
    copies = managed.model.engine.renderer
    facts["copies"] = [copies._light is not None]
    gone = management.free_memory(1, torch.device("cpu"))
    facts["copies"].append(copies._light is not None)
    facts["offloaded"] = [devices(managed), managed.loaded_size(), [one.model is managed for one in gone]]

    memory("NORMAL_VRAM", 2**33)
    host.COMFYUI.places = lambda: (torch.device("cpu"), torch.device("cpu"))
    host.COMFYUI.models = lambda: {"tiny": tiny}
    loaded = nodes.LoadModel.execute("tiny", "auto")[0]
    face = nodes.EncodeFace.execute(loaded, torch.rand(1, 64, 64, 3))[0][0]
    before = frames(loaded, face)
    held = [loaded.managed in management.loaded_models()]
    management.unload_all_models()
    held.append(loaded.managed in management.loaded_models())
    facts["unloaded"] = [*held, loaded.engine.renderer._light is None]
    facts["the same frames again"] = torch.equal(frames(loaded, face), before)
print("FACTS " + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """What ComfyUI's model management did with our weights."""
    base = tmp_path_factory.mktemp("memory")
    (base / "custom_nodes").mkdir()
    (base / "look.py").write_text(SCRIPT)
    command = [os.environ.get("COMFYUI_PYTHON", "python3"), str(base / "look.py"), "--cpu"]
    place = os.environ | {"PYTHONPATH": COMFYUI, "VASA_PACK": str(ROOT)}
    done = subprocess.run(
        [*command, "--base-directory", str(base)], cwd=COMFYUI, env=place, capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FACTS ")]
    return json.loads(line.removeprefix("FACTS "))


def test_every_layer_is_where_it_computes_however_little_memory_there_is(facts):
    """With --lowvram, --novram or a small GPU; a layer left behind would meet pictures on another device."""
    assert (
        len(facts["brought"]) == 12 and [one for one in facts["brought"].items() if one[1] != ["meta", ["meta"]]] == []
    )
    assert "cpu" in facts["left behind by a plain patcher"], "else ComfyUI brings all layers by itself"


def test_another_model_gets_all_the_memory_of_ours(facts):
    assert facts["offloaded"] == [["meta"], 0, [True]]
    assert facts["copies"] == [True, False], "what decoding made of the weights goes with them"


def test_weights_that_were_unloaded_come_back_as_they_were(facts):
    assert facts["unloaded"] == [True, False, True] and facts["the same frames again"]
