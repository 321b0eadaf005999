"""The editor in a real browser: shipped workflows load, render and post the prompt of their API twins.

Needs COMFYUI_DIR and COMFYUI_PYTHON as for the server tests, chromium, node, and PLAYWRIGHT_CORE, the folder of the npm
package. COMFYUI_URL names a server that already runs with this pack; else one is started.
"""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from vasa.nodes.headless import run_workflow

ROOT = Path(__file__).resolve().parents[1]
PLAYWRIGHT = os.environ.get("PLAYWRIGHT_CORE", "")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
NAMES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))

pytestmark = pytest.mark.skipif(
    not (
        PLAYWRIGHT
        and BROWSER
        and shutil.which("node")
        and (os.environ.get("COMFYUI_DIR") or os.environ.get("COMFYUI_URL"))
    ),
    reason="needs COMFYUI_DIR or COMFYUI_URL, chromium, node and PLAYWRIGHT_CORE",
)

SCRIPT = """
const [playwright, browser, url, root, names, shots] = JSON.parse(process.argv[2]);
const { chromium } = require(playwright);
const fs = require("fs");
(async () => {
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  const chrome = await chromium.launch({ executablePath: browser, headless: true, args });
  const page = await chrome.newPage({ viewport: { width: 1760, height: 1000 } });
  page.setDefaultTimeout(600000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.request.post(url + "/settings", { data: { "Comfy.TutorialCompleted": true } });
  await page.goto(url, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => window.app?.extensionManager && LiteGraph.registered_node_types.VASA_LoadModel);
  const found = {};
  for (const name of names) {
    const editor = JSON.parse(fs.readFileSync(`${root}/example_workflows/${name}.json`));
    found[name] = await page.evaluate(async ([editor, name]) => {
      await app.loadGraphData(editor, true, true, name);
      await new Promise((done) => setTimeout(done, 3000));
      const { output } = await app.graphToPrompt();
      const portrait = app.graph.nodes.find((node) => node.type === "VASA_LoadPortrait");
      const speech = app.graph.nodes.find((node) => node.type === "VASA_LoadSpeech");
      const link = app.canvas.constructor.link_type_colors.VASA_MOTION;
      const sound = speech?.widgets.find((one) => one.name === "audioUI").element.src ?? null;
      return { output, link, sound, picture: portrait.imgs?.[0]?.naturalWidth ?? 0 };
    }, [editor, name]);
    await page.screenshot({ path: `${shots}/${name}.png` });
  }
  const blueprint = JSON.parse(fs.readFileSync(`${root}/subgraphs/VASA Talking Head.json`));
  const head = await page.evaluate(async (blueprint) => {
    await app.loadGraphData(blueprint, true, true, "head");
    const head = app.graph.nodes[0];
    const add = (type) => {
      const node = LiteGraph.createNode(type);
      app.graph.add(node);
      return node;
    };
    add("VASA_LoadPortrait").connect(0, head, head.findInputSlot("image"));
    add("VASA_LoadSpeech").connect(0, head, head.findInputSlot("audio"));
    head.connect(0, add("SaveVideo"), 0);
    app.graph.arrange();
    Object.assign(app.canvas.ds, { scale: 0.8, offset: [60, 60] });
    await new Promise((done) => setTimeout(done, 2000));
    return (await app.graphToPrompt()).output;
  }, blueprint);
  await page.screenshot({ path: `${shots}/head.png` });
  console.log(JSON.stringify({ found, head, errors }));
  await chrome.close();
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def editor(tmp_path_factory, request):
    """What the browser found, per workflow."""
    url = os.environ.get("COMFYUI_URL")
    if not url:
        spec = importlib.util.spec_from_file_location("comfyui_server", ROOT / "tests" / "test_comfyui_server.py")
        helper = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(helper)
        started = helper.server.__wrapped__(tmp_path_factory)
        url = next(started).url
        request.addfinalizer(lambda: next(started, None))
    folder = tmp_path_factory.mktemp("browser")
    (folder / "look.js").write_text(SCRIPT)
    given = json.dumps([PLAYWRIGHT, BROWSER, url, str(ROOT), NAMES, str(folder)])
    done = subprocess.run(["node", str(folder / "look.js"), given], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_editor_reports_no_errors(editor):
    assert editor["errors"] == []


@pytest.mark.parametrize("name", NAMES)
def test_run_posts_the_prompt_of_the_api_twin(editor, name):
    twin = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())

    def plain(prompt):
        mechanics = {"audioUI", "upload", "bit_depth", "format.codec"}
        return {
            number: (node["class_type"], {k: v for k, v in node["inputs"].items() if k not in mechanics})
            for number, node in prompt.items()
        }

    assert plain(editor["found"][name]["output"]) == plain(twin)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_seen_and_sockets_are_coloured(editor, name):
    found = editor["found"][name]
    assert found["picture"] > 0 and found["link"] == "#8fd06f"
    assert found["sound"] is None or found["sound"].endswith("/vasa/samples/speech.wav")


def test_the_blueprint_is_one_node_that_makes_a_video(editor, tmp_path):
    """What the editor makes of it runs: here without ComfyUI, which takes a fraction of the time."""
    kinds = {node["class_type"]: name for name, node in editor["head"].items()}
    small = {"VASA_LoadModel": ("model", ROOT / "tests" / "data" / "tiny"), "VASA_MotionDiffusion": ("steps", 1)}
    small |= {"VASA_CropPortrait": ("crop", "center"), "VASA_AudioFeatures": ("duration", 0.4)}
    overrides = {f"{kinds[kind]}.{key}": value for kind, (key, value) in small.items()}
    overrides[f"{kinds['VASA_LoadPortrait']}.crop"] = "center"
    (path,) = run_workflow(editor["head"], overrides, tmp_path)
    assert path.suffix == ".mp4"
