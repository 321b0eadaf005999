"""The page in Chromium. Needs chromium, node and playwright-core (NODE_PATH, or node_modules beside it); else skipped.

The suite itself is tests/browser/suite.mjs; here its findings are judged.
"""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("gradio")

from vasa.app.performer import Performer
from vasa.io.video import read_manifest, read_video

ROOT = Path(__file__).resolve().parents[1]
given = Performer._give
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


def bursts(path: Path) -> None:
    """Half a second of speech, two and a half of silence, over and over: what the microphone of `reaction` hears."""
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        rate, size = source.getframerate(), source.getsampwidth() * source.getnchannels()
        source.setpos(round(1.6 * rate))
        target.writeframes((source.readframes(rate // 2) + bytes(5 * rate // 2 * size)) * 10)


def painted(performer, shown) -> None:
    """Stands for `Performer._give`: frames whose own sound is loud are white, so that their reaction can be seen."""
    for frame, place in zip(shown.frames, shown.places, strict=True):
        start, stop = (len(shown.samples) * at // shown.count for at in (place, place + shown.every))
        if np.abs(shown.samples[start:stop]).max(initial=0) > 0.05:
            frame.fill_(1.0)
    given(performer, shown)


def in_browser(app, folder: Path, scenes: str = "") -> dict:
    """What the browser saw of the page, scene by scene."""
    run = subprocess.run(
        ["node", str(ROOT / "tests" / "browser" / "suite.mjs"), app.local_url, str(ROOT / "examples/portrait.png"),
         str(folder / "speech.wav"), str(folder), *([scenes] if scenes else [])],
        capture_output=True, text=True, timeout=1500, env={**os.environ, "CHROMIUM": chromium()},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found


@pytest.fixture(scope="module")
def browser():
    """Skips where there is none."""
    if os.environ.get("VASA_BROWSER") != "1":
        pytest.skip("the browser suite runs with VASA_BROWSER=1")
    if chromium() is None or not has_playwright():
        pytest.skip("needs chromium, node and playwright-core")


SCENES = "missing,wrong,animate,stop,phone,dark,two,still,gaze,live,again,pieces,clip,crowd,leave"


@pytest.fixture(scope="module")
def findings(browser, tmp_path_factory):
    """All scenes but `reaction`."""
    from vasa.app import build, serve

    folder = tmp_path_factory.mktemp("browser")
    speech = folder / "speech.wav"
    # a fast machine makes the short one before a hand could stop it
    for path, seconds, times in ((speech, 6, 1), (folder / "long.wav", 6, 8), (folder / "short.wav", 1, 1)):
        with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(path), "wb") as target:
            target.setparams(source.getparams())
            target.writeframes(source.readframes(seconds * source.getframerate()) * times)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "MAX_WAITING", 12)  # of the twenty of `crowd` some find the queue full
        app = serve(str(ROOT / "tests" / "data" / "tiny"), device="cpu", block=False, quiet=True, warm=False)
    try:
        found = in_browser(app, folder, SCENES)
        closed = time.perf_counter()
        while time.perf_counter() - closed < 30 and any(
            t.name in ("vasa-run", "vasa-live") for t in threading.enumerate()
        ):
            time.sleep(0.1)
        return found | {"left": time.perf_counter() - closed}
    finally:
        app.close(verbose=False)
        app.studio.close()


def test_errors_appear_at_the_box_that_is_missing(findings):
    assert findings["missing"]["portrait"] and findings["missing"]["speech"]


def test_nothing_is_fetched_from_elsewhere_and_no_script_fails(findings):
    for scene in ("missing", "animate"):
        assert findings[scene]["external"] == [] and findings[scene]["problems"] == []


def test_a_broken_picture_is_named_without_the_servers_folders(findings):
    said = findings["wrong"]["found"]
    assert "a.png is not a readable image" in said and "/tmp" not in said and "<" not in said


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


def test_who_closes_the_page_and_comes_back_finds_the_video(findings):
    assert 0 < len(list(read_video(findings["again"]["file"]).frames)) < 1200


def test_without_webrtc_the_answer_comes_in_pieces(findings):
    seen = findings["pieces"]
    assert "HLS" in seen["note"] and seen["first"] < 20_000 and seen["problems"] == []
    assert "frames a second, answers after" in seen["words"]


def test_of_twenty_requests_none_is_lost_or_mixed_up(findings):
    seen = findings["crowd"]
    made = [one for one in seen["videos"] if one["file"]]
    assert [one["seed"] for one in seen["videos"]] == list(range(1, 19))
    assert all(read_manifest(one["file"])["controls"]["seed"] == one["seed"] for one in made)
    refused = [one["said"] for one in seen["videos"] if not one["file"]] + [c for c in seen["clicks"] if c != "done"]
    assert made and refused and all(re.search("queue is full|busy", said.lower()) for said in refused), refused


def test_nothing_runs_on_when_all_pages_are_closed(findings):
    assert findings["leave"] == {"running": True} and findings["left"] < 5


def test_the_clip_just_made_is_inspected_and_controls_are_explained(findings):
    seen = findings["clip"]
    assert "audio" in seen["hint"] and seen["problems"] == []
    for subject in ("Faces", "Clipping", "Head movement", "Invisible mark"):
        assert subject in seen["report"], subject


ON_COLAB = """
import importlib.machinery, sys, types
from pathlib import Path
for name in ("google", "google.colab"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name].__path__ = []
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
Shell = type("Shell", (InteractiveShell,), {"__module__": "google.colab._shell"})
Shell.instance()
from vasa.notebook import close, show
with capture_output() as put_out:
    app = show(sys.argv[1], device="cpu")
(cell,) = [one.data["application/javascript"] for one in put_out.outputs]
Path(sys.argv[2]).write_text(cell)
print(app.server_port, flush=True)
sys.stdin.read()
close()
"""


def test_where_colab_is_imitated_the_video_plays(browser, tmp_path):
    """The cell's own script, in a page and behind a proxy that stand for Colab's."""
    pytest.importorskip("IPython")
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    pem = serialization.Encoding.PEM
    (tmp_path / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    cell, examples = tmp_path / "cell.js", ROOT / "examples"
    notebook = subprocess.Popen(
        [sys.executable, "-c", ON_COLAB, str(ROOT / "tests" / "data" / "tiny"), str(cell)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        port = notebook.stdout.readline().strip()
        run = subprocess.run(
            ["node", str(ROOT / "tests" / "browser" / "colab.mjs"), port, str(cell), str(examples / "portrait.png"),
             str(examples / "speech.wav"), str(tmp_path)],
            capture_output=True, text=True, timeout=300, env={**os.environ, "CHROMIUM": chromium()},
        )  # fmt: skip
    finally:
        notebook.communicate(timeout=60)
    assert run.returncode == 0, run.stderr[-2000:]
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen["ready"] == 4 and seen["seconds"] > 7


@pytest.mark.parametrize("model", [str(ROOT / "tests" / "data" / "tiny"), "vasa-mini"], ids=["tiny", "mini"])
def test_sound_is_answered_in_time(browser, tmp_path, monkeypatch, model):
    """From the sound in the microphone to the frame on the screen. Two cores that also run the browser are too slow for
    vasa-mini to promise anything; its figures are printed."""
    pytest.importorskip("aiortc")
    from vasa.app import serve

    monkeypatch.setattr(Performer, "_give", painted)
    bursts(tmp_path / "bursts.wav")
    app = serve(model, device="cpu", block=False, quiet=True, warm=False)
    try:
        seen = in_browser(app, tmp_path, "reaction")["reaction"]
    finally:
        app.close(verbose=False)
        app.studio.close()
    assert seen["count"] > 0
    if model != "vasa-mini":
        assert seen["count"] >= 10 and seen["p50"] <= seen["p95"] < 1500
