"""ComfyUI's own editor without ComfyUI: templates open, are drawn, and Run posts the prompt of their API twins.

Needs the package comfyui-frontend-package, chromium, node and playwright-core (PLAYWRIGHT_CORE, its folder; NODE_PATH;
or node_modules beside it); else skipped. What the browser does is tests/browser/editor.mjs, its server is
tests/browser/backend.py.
"""

import importlib.util
import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
API = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "workflows" / "api").glob("*.json"))}
MECHANICS = {"audioUI", "upload", "bit_depth"}
"""Inputs that the editor adds: buttons and players, and Create Video's newest, which old servers do not know."""
OLD_USER = {"Comfy.TutorialCompleted": True}
"""A new one is shown around first."""
MODERN = OLD_USER | {"Comfy.VueNodes.Enabled": True, "Comfy.Locale": "zh"}


def chromium() -> str | None:
    """The browser itself; Debian's start script sets flags of its own."""
    real = Path("/usr/lib/chromium/chromium")
    return str(real) if real.exists() else shutil.which("chromium") or shutil.which("google-chrome")


def missing() -> list[str]:
    """What these tests need and do not find."""
    ask = "require(process.env.PLAYWRIGHT_CORE || 'playwright-core')"
    return [
        name
        for name, is_there in {
            "comfyui-frontend-package": lambda: importlib.util.find_spec("comfyui_frontend_package"),
            "chromium": chromium,
            "node": lambda: shutil.which("node"),
            "playwright-core": lambda: subprocess.run(["node", "-e", ask], capture_output=True, cwd=ROOT).returncode
            == 0,
        }.items()
        if not is_there()
    ]


def in_editor(settings: dict, names: list[str], folder: Path) -> tuple[dict, list]:
    """What the browser saw of each template, and every prompt that it posted. A picture of each stays in the folder."""
    templates = folder / "templates"
    shutil.copytree(ROOT / "example_workflows", templates)
    stranger = (templates / "basic.json").read_text().replace('"VASA_EncodeFace"', '"VASA_Absent"')
    (templates / "stranger.json").write_text(stranger)
    Backend = runpy.run_path(str(ROOT / "tests" / "browser" / "backend.py"))["Backend"]
    with Backend(templates, dict(settings)) as backend:
        done = subprocess.run(
            ["node", str(ROOT / "tests" / "browser" / "editor.mjs"), backend.url, str(folder), *names],
            capture_output=True, text=True, timeout=900, env={**os.environ, "CHROMIUM": chromium()},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    print("pictures of the editor:", folder)
    return json.loads(done.stdout), backend.prompts


def plain(prompt: dict) -> dict:
    """A prompt without titles and without what the editor adds."""
    return {
        number: (node["class_type"], {key: value for key, value in node["inputs"].items() if key not in MECHANICS})
        for number, node in prompt.items()
    }


@pytest.fixture(scope="module")
def browser():
    """Skips where there is none."""
    if lacking := missing():
        pytest.skip(f"needs {', '.join(lacking)}")


@pytest.fixture(scope="module")
def editor(browser, tmp_path_factory):
    """The editor as it comes."""
    names = [*API, "stranger"]
    findings, prompts = in_editor(OLD_USER, names, tmp_path_factory.mktemp("editor"))
    return findings, dict(zip(API, prompts, strict=True))


@pytest.fixture(scope="module")
def modern(browser, tmp_path_factory):
    """The editor in Chinese, with nodes that are HTML (Nodes 2.0)."""
    names = ["controls", "drive"]
    findings, prompts = in_editor(MODERN, names, tmp_path_factory.mktemp("modern"))
    return findings, dict(zip(names, prompts, strict=True))


@pytest.mark.parametrize("name", API)
def test_a_template_is_drawn_and_nothing_is_wrong_with_it(editor, name):
    seen = editor[0][name]
    assert seen["nodes"] == len(API[name]) and seen["red"] == [] and seen["dialogs"] == [] and seen["problems"] == []
    assert seen["link"] == "#8fd06f", "the pack's script has run"
    assert seen["sound"] is None or seen["sound"].endswith("/vasa/samples/speech.wav")
    assert seen["seconds"] == (seen["sound"] and pytest.approx(8.02, abs=0.01))
    assert seen["other"] == "/api/view?filename=portrait.png&type=input", "only samples come from the pack"


@pytest.mark.parametrize("name", API)
def test_run_posts_the_prompt_of_the_api_twin(editor, name):
    assert plain(editor[1][name]) == plain(API[name])


def test_a_node_that_nobody_has_is_seen(editor):
    assert editor[0]["stranger"]["red"] == ["VASA_Absent"]


@pytest.mark.parametrize("name", ["controls", "drive"])
def test_html_nodes_in_chinese_post_the_same(modern, name):
    seen = modern[0][name]
    texts = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert seen["elements"] == seen["nodes"] and seen["red"] == [] and seen["problems"] == []
    ours = {kind: title for kind, title in seen["titles"].items() if kind.startswith("VASA_")}
    given = ours.pop("VASA_ControlSignals", None)
    assert given is None or given.startswith("4.5 s"), "a title given in the template stays"
    assert ours == {kind: texts[kind]["display_name"] for kind in ours}
    assert plain(modern[1][name]) == plain(API[name])


@pytest.mark.parametrize("name", ["controls", "drive"])
def test_html_nodes_show_and_play_samples(modern, name):
    seen = modern[0][name]
    assert seen["pictures"] == [640]
    assert len(seen["thumbnails"]) >= 3 and all(seen["thumbnails"]), "also in the list to choose from"
    assert seen["seconds"] == (pytest.approx(8.02, abs=0.01) if name == "controls" else None)
    assert len(seen["videos"]) == (name == "drive") and all(seen["videos"])
