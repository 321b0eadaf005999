"""The page in Chromium. Needs chromium, node and playwright-core (NODE_PATH, or node_modules beside it); else skipped.

The suite itself is tests/browser/suite.mjs; here its findings are judged.
"""

import json
import os
import shutil
import subprocess
import warnings
import wave
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("gradio")

from vasa.io.video import read_manifest, read_video

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("tidy")]


def chromium() -> str | None:
    """The browser itself; Debian's start script sets flags of its own."""
    real = Path("/usr/lib/chromium/chromium")
    return str(real) if real.exists() else shutil.which("chromium") or shutil.which("google-chrome")


def has_playwright() -> bool:
    if shutil.which("node") is None:
        return False
    found = subprocess.run(["node", "-e", "require('playwright-core')"], capture_output=True, cwd=ROOT)
    return found.returncode == 0


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What the browser saw, scene by scene."""
    if os.environ.get("VASA_BROWSER") != "1":
        pytest.skip("the browser suite runs with VASA_BROWSER=1")
    if chromium() is None or not has_playwright():
        pytest.skip("needs chromium, node and playwright-core")
    from vasa.app import serve

    folder = tmp_path_factory.mktemp("browser")
    speech = folder / "speech.wav"
    # a fast machine makes the short one before a hand could stop it
    for path, seconds, times in ((speech, 6, 1), (folder / "long.wav", 6, 8)):
        with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(path), "wb") as target:
            target.setparams(source.getparams())
            target.writeframes(source.readframes(seconds * source.getframerate()) * times)
    app = serve(str(ROOT / "tests" / "data" / "tiny"), device="cpu", block=False, quiet=True)
    try:
        run = subprocess.run(
            ["node", str(ROOT / "tests" / "browser" / "suite.mjs"), app.local_url, str(ROOT / "examples/portrait.png"),
             str(speech), str(folder)],
            capture_output=True, text=True, timeout=1500, env={**os.environ, "CHROMIUM": chromium()},
        )  # fmt: skip
    finally:
        app.close(verbose=False)
        app.studio.close()
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found


def test_errors_appear_at_the_box_that_is_missing(findings):
    assert findings["missing"]["portrait"] and findings["missing"]["speech"]


def test_nothing_is_fetched_from_elsewhere_and_no_script_fails(findings):
    for scene in ("missing", "animate"):
        assert findings[scene]["external"] == [] and findings[scene]["problems"] == []


def test_a_broken_picture_is_named_without_the_servers_folders(findings):
    said = findings["wrong"]["found"]
    assert "a.png is not a readable image" in said and "/tmp" not in said


def test_the_video_plays_before_it_is_made_and_nothing_jumps(findings):
    seen = findings["animate"]
    assert seen["playing"] < seen["made"] and "Done" not in seen["early"]
    assert seen["jump"] == 0
    assert abs(seen["seconds"] - 6) < 0.1
    assert len(list(read_video(seen["file"]).frames)) == 150


def test_stop_keeps_a_video_that_can_be_saved(findings):
    assert "Stopped: kept" in findings["stop"]["said"]
    assert 0 < len(list(read_video(findings["stop"]["file"]).frames)) < 1200


def test_two_users_get_their_own(findings):
    seeds = [read_manifest(file)["controls"]["seed"] for file in findings["two"]["files"]]
    assert seeds == [0, 7]


def test_a_phone_shows_it_without_scrolling_sideways(findings):
    assert findings["phone"]["width"] == [390, 390]


def test_dark_mode_is_dark(findings):
    assert findings["dark"]["light"] < 60


def test_pad_timeline_and_json_agree(findings):
    seen = findings["gaze"]
    assert seen["words"] == "15° right" and seen["after"] == "15° right, 1° up"
    assert "-15.0" in seen["json"] and seen["keys"] == 1


def test_a_still_follows_the_sliders(findings):
    assert findings["still"] == {"moved": True}


def test_a_live_call_shows_the_portrait(findings):
    pytest.importorskip("aiortc")
    assert findings["live"]["quality"][0] == 64 and findings["live"]["quality"][1] > 10
    assert "frames a second" in findings["live"]["words"] and findings["live"]["problems"] == []
