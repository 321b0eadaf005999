"""The page: its values, its runs as events, its endpoints. Skipped without gradio (extra `app`)."""

import asyncio
import errno
import io
import json
import math
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
import wave
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gradio's own imports
    pytest.importorskip("gradio")
    import gradio as gr
    from gradio_client import Client, handle_file

    from vasa.app import (
        background,
        build,
        cache,
        calls,
        hints,
        inspect_tab,
        panel,
        performance,
        player,
        scores,
        timeline,
        words,
        workflow_tab,
    )
    from vasa.app.animate_tab import crop_request
    from vasa.app.api import crop_of
    from vasa.app.build import build_app, launch_options
    from vasa.app.gaze_pad import gaze_of
    from vasa.app.label import with_label
    from vasa.app.studio import Job, Stopped, Studio

from vasa.controls import Blink, Controls, HeadPose, Key, Track
from vasa.errors import InputError
from vasa.io.segments import Segmenter
from vasa.io.video import read_manifest, read_video
from vasa.motion_file import read_motion_file
from vasa.runtime import Renderer

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("tidy"),
]  # gradio, starlette and their threads
ROOT = Path(__file__).resolve().parents[1]
TINY, PORTRAIT = ROOT / "tests" / "data" / "tiny", ROOT / "examples" / "portrait.png"


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """1.2 seconds of the example."""
    path = tmp_path_factory.mktemp("sound") / "short.wav"
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(round(1.2 * source.getframerate())))
    return str(path)


@pytest.fixture(scope="module")
def studio():
    studio = Studio(str(TINY), "cpu")
    yield studio
    studio.close()


TWO_STEPS = Controls(steps=2)


def events_of(studio, speech, controls=TWO_STEPS, job=None, **wishes):
    return performance.perform(
        studio, job or Job(), studio.folder("somebody"), lambda: studio.portrait(str(PORTRAIT)), speech, controls,
        performance.Wishes(**wishes), studio.speech(speech),
    )  # fmt: skip


# --- models


@pytest.fixture
def shelf(tmp_path):
    """A folder with a good model, a broken one and something else."""
    (tmp_path / "good").symlink_to(TINY)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "face.safetensors").write_bytes(b"not weights")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_another_model_can_be_chosen_and_a_broken_one_changes_nothing(shelf):
    one = Studio(str(TINY), "cpu", shelf=shelf)
    assert set(one.models) == {"tiny", "vasa-mini", "good", "broken"} and list(one.models)[0] == "tiny"
    before, portrait = one.pipe, one.portrait(str(PORTRAIT))
    one.use("good")
    assert one.pipe is not before and one.portrait(str(PORTRAIT)) is not portrait
    now = one.pipe
    for name, said in (("broken", "damaged header"), ("../tiny", "there is no model")):
        with pytest.raises(InputError, match=said):
            one.use(name)
        assert one.pipe is now
    one.use("tiny")
    assert one.model == str(TINY)
    one.close()


def test_the_page_offers_models_where_there_are_several(shelf, monkeypatch):
    from vasa.app import build

    monkeypatch.setattr(build, "Studio", lambda *given, **how: Studio(*given, **how, shelf=shelf))
    app = build_app(str(TINY), device="cpu")
    (choice,) = [block for block in app.blocks.values() if getattr(block, "elem_id", None) == "model"]
    assert [value for _, value in choice.choices] == ["tiny", "vasa-mini", "broken", "good"] and choice.value == "tiny"
    (event,) = [fn for fn in app.fns.values() if any(target[0] == choice._id for target in fn.targets)]
    assert event.fn("good") == "good" and event.api_visibility == "private"
    assert event.fn("broken") == "good"
    app.studio.close()


# --- values


def widgets() -> panel.Panel:
    with gr.Blocks():
        built = panel.build_panel()
        panel.add_timeline(built)
    return built


def test_the_widgets_start_at_the_defaults_of_the_controls():
    values = {name: widget.value for name, widget in widgets().widgets.items()}
    assert panel.controls_from(values) == Controls()


def test_controls_become_widgets_and_back():
    controls = Controls(
        gaze=(math.radians(10), math.radians(-5)), distance=1.2, emotion={"happy": 0.5}, steps=7, seed=3, mouth=0.5,
        head_pose=HeadPose((math.radians(5), 0.0, 0.0), 1.5), blink=Blink(12.0), expression=1.25, sampler="dpm++",
        guidance={"audio": 1.0, "gaze": 2.0, "emotion": 0.5},
    )  # fmt: skip
    again = panel.controls_from(panel.values_from(controls))
    assert rounded(again.to_json()) == rounded(controls.to_json())


def test_what_no_single_widget_holds_survives_the_page_too():
    controls = Controls(emotion={"happy": 0.5, "surprised": 0.3}, blink=Blink(None, (1.2, 3.5)), steps=50)
    values = panel.values_from(controls) | {"timeline": timeline.timeline_of(controls, 2.0)}
    assert values["blink_at"] == "1.2, 3.5"
    again = panel.controls_from(values)
    assert again.blink == controls.blink and again.steps == 50
    mixed = [one.curves(30).emotion for one in (controls, again)]
    assert torch.allclose(*mixed)


@pytest.mark.parametrize("sent", ["x", "1.2, y", "3, 1", "-1", "nan", 7])
def test_times_to_blink_at_are_checked(sent):
    with pytest.raises(InputError, match="blink"):
        panel.blink_of({"natural_blinks": True, "blink_at": sent})


def test_every_control_is_explained(client):
    unexplained, used = [], set()
    for block in client.vasa.blocks.values():
        used |= {name.removeprefix("hint-") for name in getattr(block, "elem_classes", None) or []}
        words = isinstance(block, gr.Markdown | gr.BrowserState)
        if not isinstance(block, gr.components.Component) or words or not _shown(block):
            continue
        words = (
            block.elem_id in ("head", "report")
            or {"vasa-status", "vasa-line"} & {*block.elem_classes}
            or "consent" in str(block.value)
        )
        if words or getattr(block, "info", None) or any(name.startswith("hint-") for name in block.elem_classes):
            continue
        unexplained.append((type(block).__name__, getattr(block, "label", None), block.elem_id))
    assert unexplained == []
    assert set(hints.HINTS) <= used
    assert all(widget.elem_classes == [f"hint-{name}"] for name, widget in widgets().widgets.items())
    with pytest.raises(KeyError):
        hints.hinted(gr.Button(), "nothing")


def test_who_has_no_pointer_reads_what_is_not_obvious(client):
    lines = [b.value for b in client.vasa.blocks.values() if "vasa-line" in (getattr(b, "elem_classes", None) or [])]
    assert "<p>One picture of one person, best from the front.</p>" in lines
    assert "<p>Drag the dot, or move it with the arrow keys.</p>" in lines
    assert not [line for line in lines if "source image" in line or "latents" in line]


def _shown(block) -> bool:
    """Whether it is on the page; the endpoints' widgets are not."""
    while block is not None:
        if isinstance(block, gr.Column) and not block.visible and block.elem_id != "live-pieces":
            return False
        block = block.parent
    return True


def test_every_preset_is_valid():
    base = {name: widget.value for name, widget in widgets().widgets.items()}
    for name in panel.PRESETS:
        named = dict(
            zip(("gaze", "emotion", "weight", "amplitude", "expression"), panel._from_preset(name), strict=True)
        )
        assert isinstance(panel.controls_from(base | named), Controls)


def test_the_timeline_keeps_tracks():
    controls = Controls(
        gaze=Track((Key(0.0, (0.0, 0.0), "smooth"), Key(1.0, (0.2, 0.1)))),
        emotion=Track((Key(0.0, {"happy": 0.4}), Key(2.0, {"sad": 0.6}))),
        head_pose=HeadPose(amplitude=Track((Key(0.0, 0.5, "hold"), Key(3.0, 1.5)))),
        mouth=Track((Key(0.5, 0.8),)),
    )
    values = panel.values_from(controls) | {"timeline": timeline.timeline_of(controls, 2.0)}
    again = panel.controls_from(values)
    assert json.loads(values["timeline"])["seconds"] == 3.0
    assert rounded(again.to_json()) == rounded(controls.to_json())


def rounded(value):
    """JSON with its numbers rounded: radians to degrees and back differ in the last digit."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.parametrize("sent", ["", "x", "[1]", "[1, 2, 3]", "[40, 0]", "[NaN, 0]", None, 7, '{"a": 1}', "[[1], 2]"])
def test_a_gaze_from_the_page_is_checked(sent):
    with pytest.raises(InputError, match="gaze must be two angles"):
        gaze_of(sent)


@pytest.mark.parametrize(
    "sent",
    [
        "x",
        "[]",
        '{"tracks": 3}',
        '{"tracks": {"gaze": [{"time": 0}]}}',
        '{"tracks": {"x": [{"time": 0, "value": [1]}]}}',
    ],
)
def test_a_timeline_from_the_page_is_checked(sent):
    with pytest.raises(InputError, match="timeline cannot be read"):
        timeline.tracks_of(sent)


def test_crops_are_checked():
    assert crop_of("none") == "none" and crop_of("1,2,300") == (1.0, 2.0, 300.0)
    assert (
        crop_request("By hand", 1, 2, 3) == (1.0, 2.0, 3.0)
        and crop_request("Find the face", None, None, None) == "auto"
    )
    for wrong in (
        lambda: crop_of("1,2"),
        lambda: crop_request("By hand", None, 1, 2),
        lambda: crop_request("../x", 1, 1, 1),
    ):
        with pytest.raises(InputError):
            wrong()


def test_words_from_outside_are_shown_as_words():
    shown = words.status_html(performance.Status("<script>x</script>", notices=("<img src=x onerror=y>",)))
    assert "<script>" not in shown and "<img" not in shown
    assert "<b>" not in words.table_html([("<b>", "<b>", "<b>", "")])
    assert "<img" not in words.bold(InputError("<img src=x onerror=y>.png is not a readable image"))


# --- runs


def test_a_run_gives_pieces_before_it_gives_the_file(studio, speech):
    events = list(events_of(studio, speech))
    pieces = [event.segment for event in events if event.segment is not None]
    assert [round(piece.seconds, 2) for piece in pieces] == [1.0, 0.2]
    assert events[0].segment is None and events[-1].video is not None
    assert sum(event.video is not None for event in events) == 1
    film = read_video(events[-1].video)
    assert len(list(film.frames)) == 30 and film.audio is not None
    assert read_manifest(events[-1].video)["mark"] is True
    assert len(read_motion_file(events[-1].motion).motion) == 30
    assert events[-1].report["complete"] and all("/" not in note for note in events[-1].report["notices"])
    for file in (events[-1].video, events[-1].motion):
        data = file.read_bytes()
        assert studio.root.name.encode() not in data and str(Path.home()).encode() not in data


def test_stop_keeps_what_was_made(studio, tmp_path):
    job, seen = Job(), []
    for event in events_of(studio, str(ROOT / "examples" / "speech.wav"), job=job):
        seen.append(event)
        if event.segment is not None:
            job.stop.set()
    assert seen[-1].video is not None and not seen[-1].report["complete"]
    count = len(list(read_video(seen[-1].video).frames))
    assert 25 <= count < 150 and count == seen[-1].report["frames"]
    assert "Stopped: kept" in seen[-1].status.words


def test_stop_before_the_first_frame_and_leaving(studio, speech):
    job = Job()
    job.stop.set()
    with pytest.raises(Stopped):
        list(events_of(studio, speech, job=job))
    events = events_of(studio, speech)
    next(events)
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "vasa-run"]


def test_another_frame_rate_and_the_whole_picture_with_a_label(studio, speech):
    *_, last = events_of(studio, speech, fps=29.97, paste_back=True, label=True)
    frames = torch.stack(list(read_video(last.video).frames))
    assert frames.shape == (36, 3, 640, 640)
    corner = frames[:, :, -40:, :160]
    from vasa.io.image import load_image

    assert (corner.mean(0) - load_image(PORTRAIT).pixels[:, -40:, :160]).abs().mean() > 0.05
    assert len(read_motion_file(last.motion).motion) == 30


def test_the_label_is_in_the_corner_of_the_whole_video():
    whole = with_label(torch.full((1, 3, 128, 128), 0.5))
    part = with_label(torch.full((1, 3, 64, 64), 0.5), (128, 128), (0, 64))
    assert torch.equal(part, whole[:, :, 64:, :64])
    assert torch.equal(whole[:, :, :64], torch.full((1, 3, 64, 128), 0.5))


def test_stop_while_the_movement_is_planned(studio):
    job, said = Job(), []
    with pytest.raises(Stopped):
        for event in events_of(studio, str(ROOT / "examples" / "speech.wav"), Controls(steps=500), job):
            said.append(event.status.words)
            if "planning" in said[-1]:
                job.stop.set()
    assert len(said) < 6 and not any("made" in words for words in said)


def test_a_player_that_does_not_listen_holds_the_engine_up(studio, monkeypatch):
    drawn = []
    monkeypatch.setattr(performance, "marked", lambda frames, *rest: drawn.append(len(frames)) or frames)
    monkeypatch.setattr(performance, "REPORT_SECONDS", 0.0)
    events = events_of(studio, str(ROOT / "examples" / "speech.wav"))
    next(events)
    held = -1
    while held != sum(drawn) or not drawn:  # until half a second brings nothing new
        held = sum(drawn)
        time.sleep(0.5)
    *_, last = events
    assert held < sum(drawn) == last.report["frames"]


def test_the_time_that_is_left_is_told(studio, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(performance.time, "perf_counter", lambda: float(next(clock)))
    said = [event.status.words for event in events_of(studio, str(ROOT / "examples" / "speech.wav"))]
    left = [int(re.search("about ([0-9]+) s left", words)[1]) for words in said if "s left" in words]
    assert left and left[-1] < left[0] and "left" not in said[-1]


def test_a_key_that_cannot_sign_costs_no_video(studio, speech, monkeypatch, tmp_path):
    pytest.importorskip("c2pa")
    for name in ("VASA_C2PA_CERTIFICATES", "VASA_C2PA_KEY"):
        monkeypatch.setenv(name, str(tmp_path / "absent.pem"))
    *_, last = events_of(studio, speech)
    assert len(list(read_video(last.video).frames)) == 30 and read_manifest(last.video)["mark"] is True
    assert any("sign" in notice for notice in last.status.notices), last.status.notices


def test_an_example_is_made_once(studio, speech, tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path))
    first = list(cache.example_events(studio, Job(), studio.folder("a"), str(PORTRAIT), speech))
    monkeypatch.setattr(cache, "perform", lambda *_: pytest.fail("made again"))
    again = list(cache.example_events(studio, Job(), studio.folder("b"), str(PORTRAIT), speech))
    data = [[event.segment.data for event in run if event.segment is not None] for run in (first, again)]
    assert data[0] == data[1] and len(data[0]) == 2
    assert first[-1].video != again[-1].video and first[-1].video.read_bytes() == again[-1].video.read_bytes()


def test_a_model_is_loaded_behind_the_page_and_says_when_it_cannot_be(studio, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="no model at nowhere"):
        build.serve("nowhere", block=False)
    made = []
    monkeypatch.setattr(build, "make_examples", lambda studio, pairs: made.append(pairs))
    shutil.copytree(TINY, tmp_path / "damaged")
    (tmp_path / "damaged" / "motion.safetensors").write_bytes(b"no weights")
    broken = Studio(str(tmp_path / "damaged"), "cpu")
    build._warm(broken)
    said = capsys.readouterr().err
    assert "is not a readable safetensors file" in said and said.count("\n") == 1 and not made
    with pytest.raises(InputError, match="not a readable"):
        _ = broken.pipe
    broken.close()
    build._warm(studio)
    assert len(made[0]) >= 1 and all(len(pair) == 2 for pair in made[0])


def test_whoever_comes_before_the_model_is_told(studio, speech):
    fresh = Studio(str(TINY), "cpu")
    for given, first in ((fresh, "Loading the model"), (fresh, "Looking at the portrait")):
        assert next(events_of(given, speech)).status.words == first
    fresh.close()


def test_examples_are_made_ahead_while_nobody_is_there(studio, speech, tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "PAUSE_SECONDS", 0.05)
    job = studio.begin("somebody")
    maker = threading.Thread(target=cache.make_examples, args=(studio, [(str(PORTRAIT), speech)]))
    maker.start()
    maker.join(0.3)
    assert maker.is_alive() and not list(tmp_path.rglob("*.ts"))
    studio.end("somebody", job)
    maker.join(60)
    assert len(list(tmp_path.rglob("report.json"))) == 1
    in_background = studio.begin_in_background()
    studio.end("a", studio.begin("a"))
    assert in_background.stop.is_set()
    in_background = studio.begin_in_background()
    with studio.first():
        assert in_background.stop.is_set() and studio.begin_in_background() is None
    assert studio.begin_in_background() is not None


def test_who_comes_while_examples_are_made_does_not_wait(studio, speech, tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "before"))
    # the first run of a process also imports, which nobody can stop
    list(cache.example_events(studio, Job(), studio.folder("a"), str(PORTRAIT), speech))
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "examples"))
    before = {*threading.enumerate()}
    running = lambda: any(t.name == "vasa-run" and t not in before for t in threading.enumerate())  # noqa: E731
    pairs = [(str(PORTRAIT), str(ROOT / "examples" / "speech.wav"))]
    maker = threading.Thread(target=cache.make_examples, args=(studio, pairs), daemon=True)
    maker.start()
    while not running():
        time.sleep(0.01)
    time.sleep(0.3)
    job, came = studio.begin("somebody"), time.perf_counter()
    while running() and time.perf_counter() - came < 30:
        time.sleep(0.01)
    assert time.perf_counter() - came < 1
    studio.closing.set()
    studio.end("somebody", job)
    maker.join(2 * cache.PAUSE_SECONDS)
    studio.closing.clear()
    assert not maker.is_alive() and not list((tmp_path / "examples").rglob("*.ts"))


@pytest.mark.parametrize("end, left", [(KeyboardInterrupt(), True), (OSError(errno.ENOSPC, "full"), False)])
def test_an_example_is_kept_whole_or_not_at_all(studio, speech, tmp_path, monkeypatch, end, left):
    """The process ends, or the disk does, before the last file is written."""
    monkeypatch.setenv("VASA_CACHE", str(tmp_path))

    def made():
        return list(cache.example_events(studio, Job(), studio.folder("a"), str(PORTRAIT), speech))

    def dumps(value):
        if isinstance(value, dict):
            raise end
        return json.dumps(value)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(cache, "json", SimpleNamespace(dumps=dumps))
        made()
    found = [folder.name for folder in (tmp_path / "examples").iterdir()]
    assert [name[0] for name in found] == ["."] * left
    made()
    (kept,) = (tmp_path / "examples").iterdir()
    assert kept.name[0] != "." and json.loads((kept / "report.json").read_text())["complete"]


def test_a_process_that_ends_leaves_no_half_of_an_example(tmp_path):
    code = """
import sys, threading, time
from vasa.app import build
from vasa.app.studio import Studio
studio = Studio(sys.argv[1], "cpu")
pairs = [files for _, *files in build.examples()]
threading.Thread(target=build.make_examples, args=(studio, pairs), daemon=True).start()
while not list(studio.root.glob("*/*/*")):
    time.sleep(0.02)
print("at work", flush=True)
time.sleep(0.5)
studio.close()
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(TINY)], capture_output=True, text=True, timeout=300, cwd=ROOT,
        env={**os.environ, "VASA_CACHE": str(tmp_path), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert run.returncode == 0 and "at work" in run.stdout and "Traceback" not in run.stderr, run.stderr
    for folder in (tmp_path / "examples").glob("[!.]*"):
        assert json.loads((folder / "report.json").read_text())["complete"]


def test_watched_work_reports_stops_and_fails():
    def counts(progress):
        for i in range(3):
            progress("frames", i + 1, 3)
        return "done"

    assert list(background.watched(Job(), counts))[-1] == "done"
    job = Job()
    job.stop.set()
    with pytest.raises(Stopped):
        list(background.watched(job, counts))
    with pytest.raises(InputError, match="broken"):
        list(background.watched(Job(), lambda progress: (_ for _ in ()).throw(InputError("broken"))))


def test_users_have_folders_of_their_own_and_one_job_each(studio):
    folders = {studio.folder("a"), studio.folder("a"), studio.folder("b")}
    assert len(folders) == 3 and len({folder.parent for folder in folders}) == 2
    assert all("a" != folder.parent.name for folder in folders)
    first = studio.begin("a")
    other, second = studio.begin("b"), studio.begin("a")
    assert first.stop.is_set() and not second.stop.is_set() and not other.stop.is_set()
    assert studio.stop("a") and second.stop.is_set() and not other.stop.is_set()
    studio.end("a", second)
    assert not studio.stop("a") and not studio.stop("nobody")


def test_who_comes_back_finds_the_last_video(studio):
    studio.claim("page", "secret")
    folder = studio.folder("page")
    studio.remember("page", folder)
    studio.remember("stranger", studio.folder("stranger"))
    assert studio.last("secret") is None and studio.last("") is None
    (folder / "talking.mp4").touch()
    studio.claim("another page", "secret")
    assert studio.last("secret") == folder and studio.last("stranger") is None


def test_files_of_long_ago_are_deleted(studio):
    old, new = studio.folder("a"), studio.folder("b")
    os.utime(old, (0, 0))
    studio.folder("c")
    assert not old.exists() and new.exists()


def test_speech_that_is_too_long_names_the_way_out(speech):
    short = Studio(str(TINY), longest=1.0)
    with pytest.raises(InputError, match="vasa animate"):
        short.speech(speech)
    short.close()


# --- the player's contract with gradio


def test_the_player_hands_pieces_on(tmp_path):
    segments = [
        *(segmenter := Segmenter(64, 25)).write(torch.rand(30, 3, 64, 64), np.zeros(19_200, np.float32)),
        *segmenter.close(),
    ]
    with gr.Blocks():
        widget = player.Player(streaming=True)
    paths = [player.keep(segment, tmp_path) for segment in segments]
    chunks = []
    for index, path in enumerate(paths):
        assert widget.postprocess(path) == path
        chunk, answer = asyncio.run(widget.stream_output(path, "id", index == 0))
        chunks.append(chunk)
        assert answer["is_stream"] and not Path(path).exists()
    assert [chunk["duration"] for chunk in chunks] == [1.0, 0.2]
    whole = asyncio.run(widget.combine_stream([chunk["data"] for chunk in chunks], only_file=True))
    assert len(list(read_video(whole.path).frames)) == 30
    assert asyncio.run(widget.stream_output(None, "id", False))[0] is None
    assert widget.postprocess(str(tmp_path / "a.mp4")).path.endswith("a.mp4")


# --- workflows and live


def test_values_for_a_workflow_stay_in_the_workflow():
    prompt = {
        "1": {"class_type": "A", "inputs": {"seed": 0, "face": ["2", 0]}},
        "2": {"class_type": "B", "inputs": {"steps": 1}},
    }
    assert workflow_tab.replaced(prompt, {"seed": 3, "2.steps": 9})["2"]["inputs"]["steps"] == 9
    assert prompt["1"]["inputs"]["seed"] == 0
    for wrong in ({"nothing": 1}, {"face": 1}, {"3.seed": 1}):
        with pytest.raises(InputError, match="no node|say which"):
            workflow_tab.replaced(prompt, wrong)
    for text in ("[", "[1]", '{"a": [1]}', '{"a": null}'):
        with pytest.raises(InputError):
            workflow_tab._overrides(text)
    with pytest.raises(InputError, match="there is no workflow"):
        workflow_tab._workflow("../../etc/passwd", None)


def test_a_call_needs_a_ticket_and_takes_it_once(studio):
    from starlette.testclient import TestClient

    fastapi = pytest.importorskip("fastapi")
    desk, app = calls.Calls(studio), fastapi.FastAPI()
    desk.mount(app)
    client = TestClient(app)
    assert client.post("/rtc/offer", json={"sdp": "x"}).status_code == 403
    assert client.post("/rtc/offer", json=[1]).status_code == 403
    desk._peers = {*range(calls.MAX_CALLS)}
    ticket = desk.ticket("a", None, Controls())
    assert client.post("/rtc/offer", json={"ticket": ticket, "sdp": "x"}).status_code == 503
    assert client.post("/rtc/offer", json={"ticket": ticket, "sdp": "x"}).status_code == 403
    for _ in range(calls.MAX_TICKETS + 5):
        desk.ticket("a", None, Controls())
    assert len(desk._tickets) == calls.MAX_TICKETS


class Listener:
    """Stands for a call and its performer."""

    def __init__(self) -> None:
        self.performer, self.closed = self, False

    def close(self) -> None:
        self.closed = True


def test_a_call_ends_when_its_page_is_closed(studio):
    desk, ended = calls.Calls(studio), []
    desk.streams["a"], desk.streams["b"] = one, other = Listener(), Listener()
    desk._ends["a"] = lambda: ended.append("a")
    build._leaver(studio, desk)(SimpleNamespace(session_hash="a"))
    assert one.closed and not other.closed and ended == ["a"] and set(desk.streams) == {"b"}
    desk.leave("a")
    assert ended == ["a"]


def test_whoever_closes_the_page_waits_for_what_draws():
    """Else the interpreter leaves while a thread is inside PyTorch, and the process dies of it."""
    from vasa.app import workers

    studio, ended = Studio(str(TINY), "cpu"), []
    desk = calls.Calls(studio)
    desk.streams["a"] = listener = Listener()
    job = studio.begin_in_background()

    def draw():
        assert job.stop.wait(10) and studio.closing.is_set()
        time.sleep(0.2)
        ended.append("drawing")

    workers.worker("test", draw).start()
    assert not workers.wait_for_workers(0.05)
    studio.close()
    assert ended == ["drawing"] and listener.closed and studio.begin_in_background() is None
    assert workers.wait_for_workers(0)


def test_a_call_in_pieces_answers(studio):
    from vasa.app.live_hls import HlsCall
    from vasa.app.performer import Performer

    performer = Performer(studio.pipe, studio.portrait(str(PORTRAIT)), TWO_STEPS)
    call = HlsCall(performer, studio.pipe.size)
    call.hear(48_000, (np.random.default_rng(0).standard_normal((48_000, 2)) * 3000).astype(np.int16))
    pieces = call.pieces()
    first = next(pieces)
    assert round(first.seconds, 2) == 1.0 and call.seconds == first.seconds and call.rate == 0
    next(pieces)
    assert 0 < call.rate and 0.5 < call.delay < 60
    assert words.live_words(24.6, 1.2, True).startswith("25 frames a second, answers after 1200 ms")
    performer.close()
    assert len(list(pieces)) < 20 and performer.problem == ""


# --- inspection


def test_the_doctor_has_a_remedy_for_everything_that_is_wrong(studio, speech, tmp_path):
    from scipy.io import wavfile

    from vasa.app.inspection import examine_portrait, examine_speech
    from vasa.io.image import load_image

    rate, good = wavfile.read(speech)
    loud = (good.astype(np.float64) * 40).clip(-32768, 32767).astype(np.int16)
    quiet = (good.astype(np.float64) / 100).astype(np.int16)
    sparse = np.concatenate([good, np.zeros(9 * len(good), np.int16)])
    for samples, subject, remedy in (
        (good, None, ""),
        (loud, "Clipping", "less gain"),
        (quiet, "Level", "closer"),
        (sparse, "Speech share", "silence"),
    ):
        wavfile.write(tmp_path / "s.wav", rate, samples)
        found = {one.subject: one for one in examine_speech(str(tmp_path / "s.wav")) if one.subject != "Note"}
        assert {one.subject for one in found.values() if one.kind} == ({subject} if subject else set()), found
        assert subject is None or remedy in found[subject].remedy
    pixels = load_image(PORTRAIT).pixels
    for change, subject, remedy in (
        (lambda p: p * 0.15, "Light", "Brighten"),
        (lambda p: torch.nn.functional.avg_pool2d(p[None], 15, 1, 7)[0], "Sharpness", "sharper"),
        (lambda p: torch.nn.functional.interpolate(p[None], size=(150, 150))[0], "Head", "larger"),
    ):
        picture = (change(pixels) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(tmp_path / "p.png")
        found = {one.subject: one for one in examine_portrait(studio, str(tmp_path / "p.png"))}
        assert found[subject].kind == "warn" and remedy in found[subject].remedy, found
    assert inspect_tab._seen(studio, str(PORTRAIT)).ndim == 3 and inspect_tab._seen(studio, speech) is None


def test_the_clip_just_made_is_scored(studio, speech):
    *_, made = events_of(studio, speech)
    table, seen, plot = inspect_tab._inspect(studio)(str(PORTRAIT), speech, str(made.motion), str(made.video))
    for subject in ("Faces", "Clipping", "Motion", "Head movement", "Steadiness", "Invisible mark", "Metadata", "C2PA"):
        assert f"<td>{subject}</td>" in table, subject
    assert seen["visible"] and plot["visible"]


def test_scores_tell_a_good_clip_from_a_late_one(studio):
    from vasa.app.inspection import envelope
    from vasa.latents import DYNAMICS, Motion
    from vasa.motion_file import MotionFile

    sound = studio.heard(str(ROOT / "examples" / "speech.wav"))
    dynamics, pose = torch.zeros(150, len(DYNAMICS)), torch.zeros(150, 6)
    dynamics[:, DYNAMICS.index("jawOpen")] = torch.from_numpy(envelope(sound, 25.0, 150)).float()
    for side in "LR":
        dynamics[40:44, DYNAMICS.index(f"eyeBlink_{side}")] = 1.0
    pose[::2, 0] = math.radians(4)
    for shift, kinds in ((0, {"Steadiness"}), (5, {"Lips and sound", "Steadiness"})):
        file = MotionFile(Motion(pose, dynamics.roll(shift, 0), 25.0, "vasa"), DYNAMICS, "m")
        found = {one.subject: one for one in scores.scores(file, sound)}
        assert {name for name, one in found.items() if one.kind} == kinds, found
        assert found["Blinks"].finding.startswith("1,") and found["Head movement"].finding.startswith("1.33°")


# --- endpoints


@contextmanager
def launched(model: str = str(TINY)):
    """A client of a page that is served."""
    app = build_app(model, device="cpu")
    app.launch(**launch_options(prevent_thread_lock=True, quiet=True))
    client = None
    try:
        client = Client(app.local_url, verbose=False, analytics_enabled=False)
        client.vasa = app
        yield client
    finally:
        if client is not None:
            client.close()
        app.close(verbose=False)
        app.studio.close()


@pytest.fixture(scope="module")
def client():
    with launched() as client:
        yield client


def test_a_program_gets_a_finished_file(client, speech):
    video, report = client.predict(
        handle_file(str(PORTRAIT)), handle_file(speech), controls='{"steps": 2, "seed": 5}', api_name="/animate_file"
    )
    assert len(list(read_video(video).frames)) == 30 == report["frames"]
    assert report["seed"] == 5 and read_manifest(video)["controls"]["seed"] == 5
    moved, report = client.predict(handle_file(str(PORTRAIT)), handle_file(video), None, crop="none", api_name="/drive")
    assert report["frames"] == len(list(read_video(moved).frames))


@pytest.mark.parametrize("model", [str(TINY), "vasa-mini"], ids=["tiny", "mini"])
def test_every_endpoint_answers(model, tmp_path, monkeypatch):
    # no program of the machine is needed
    monkeypatch.setenv("PATH", str(tmp_path))
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(tmp_path / "s.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(round(0.4 * source.getframerate())))
    portrait, speech = handle_file(str(PORTRAIT)), handle_file(str(tmp_path / "s.wav"))
    with launched(model) as client:
        video, report = client.predict(portrait, speech, controls='{"steps": 2}', api_name="/animate_file")
        assert report["frames"] == 10 and read_manifest(video)["mark"] is True
        driven, report = client.predict(portrait, handle_file(video), None, crop="none", api_name="/drive")
        assert report["frames"] == 10 == len(list(read_video(driven).frames))
        *_, saved, motion = client.predict(portrait, speech, steps=2, seed=9, emotion="happy", api_name="/animate")
        assert read_manifest(saved["value"])["controls"]["seed"] == 9
        assert len(read_motion_file(motion["value"]).motion) == 10
        found = client.predict(portrait, speech, handle_file(motion["value"]), handle_file(video), api_name="/inspect")
        assert {"Faces", "Clipping", "Motion", "Invisible mark"} <= {one["subject"] for one in found}


def test_the_documented_snippet_runs(client, monkeypatch):
    page = (ROOT / "docs" / "app.md").read_text()
    (snippet,) = re.findall(r"```python\n(from gradio_client.*?)```", page, re.DOTALL)
    monkeypatch.chdir(ROOT)
    names = {}
    exec(snippet.replace("http://127.0.0.1:7860", client.vasa.local_url), names)
    assert names["report"]["frames"] == len(list(read_video(names["video"]).frames)) and names["report"]["seed"] == 1


def test_a_page_that_closes_elsewhere_takes_no_uploads_along(client):
    """Gradio deletes what it knows by content: another process must not have the same folder."""
    where = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    said = "import os, vasa.app.build; print(os.environ['GRADIO_TEMP_DIR'])"
    other = subprocess.run([sys.executable, "-c", said], env=where, capture_output=True, text=True, check=True)
    theirs, ours = Path(other.stdout.strip()), Path(os.environ["GRADIO_TEMP_DIR"])
    assert theirs.name.startswith("vasa-uploads-") and theirs != ours
    assert not theirs.exists() and ours.is_dir()  # gone with its process
    assert Path(client.vasa.server_app.uploaded_file_dir) == ours


def test_twenty_requests_at_once_get_their_own_answers(client, tmp_path):
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source, wave.open(str(tmp_path / "s.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(round(0.3 * source.getframerate())))
    files = (handle_file(str(PORTRAIT)), handle_file(str(tmp_path / "s.wav")))
    jobs = [
        client.submit(*files, controls=json.dumps({"steps": 1, "seed": seed}), api_name="/animate_file")
        for seed in range(20)
    ]
    answers = [job.result(timeout=600) for job in jobs]
    assert [read_manifest(video)["controls"]["seed"] for video, _ in answers] == list(range(20))
    assert [report["seed"] for _, report in answers] == list(range(20))


def test_a_program_can_have_inputs_examined(client, speech):
    findings = client.predict(handle_file(str(PORTRAIT)), handle_file(speech), None, None, api_name="/inspect")
    found = {one["subject"]: one["finding"] for one in findings}
    assert found["Picture"] == "640 × 640 pixels" and found["Faces"].startswith("1 ") and found["Length"] == "1.2 s"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"controls": "{"}, "JSON"),
        ({"controls": '{"steps": 0}'}, "steps must be a whole number between 1 and 1000"),
        ({"crop": "1,2"}, "crop must be auto"),
        ({"crop": "5000,5000,100"}, "misses the 640x640 portrait"),
        ({"fps": 0.5}, "fps must be between"),
        ({"fps": 99}, "maximum"),
        ({"portrait": "speech"}, "not a readable image"),
        ({"speech": "portrait"}, "no audio track|not a readable"),
    ],
)
def test_a_program_is_told_what_was_wrong(client, speech, change, said):
    files = {"portrait": str(PORTRAIT), "speech": speech}
    given = {name: handle_file(files[change.get(name, name)]) for name in ("portrait", "speech")}
    given |= {name: value for name, value in change.items() if name not in files}
    with pytest.raises(Exception, match=f"(?i){said}") as raised:
        client.predict(**given, api_name="/animate_file")
    assert "Traceback" not in str(raised.value)


def test_no_file_of_the_server_can_be_had(client, tmp_path):
    import httpx

    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    base = client.vasa.local_url
    for path in (str(secret), "/etc/passwd", "../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/proc/self/environ"):
        assert httpx.get(f"{base}gradio_api/file={path}").status_code in (403, 404)
    stolen = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception) as raised:
        client.predict(stolen, stolen, api_name="/animate_file")
    assert "root:" not in str(raised.value)


def test_other_sites_strangers_and_large_files_are_kept_out(monkeypatch):
    import httpx

    monkeypatch.setattr(build, "MAX_FILE_SIZE", "20kb")
    app = build_app(str(TINY), device="cpu")
    app.launch(**launch_options(prevent_thread_lock=True, quiet=True, auth=("ada", "secret")))
    try:
        base = app.local_url
        assert httpx.get(f"{base}config").status_code == 401
        with httpx.Client(base_url=base, timeout=60) as browser:
            for word, status in (("wrong", 400), ("secret", 200)):
                assert browser.post("login", data={"username": "ada", "password": word}).status_code == status
            assert browser.get("config").status_code == 200
            for origin, allowed in ((base.rstrip("/"), True), ("https://elsewhere.example", False), ("null", False)):
                asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                answer = browser.options("gradio_api/queue/join", headers=asked)
                assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
            for size, status in ((30_000, 413), (3_000, 200)):
                assert browser.post("gradio_api/upload", files={"files": ("a.wav", b"0" * size)}).status_code == status
    finally:
        app.close(verbose=False)
        app.studio.close()
    assert app.delete_cache == (3600, build.CACHE_SECONDS)


def test_a_full_queue_says_so(monkeypatch):
    monkeypatch.setattr(build, "MAX_WAITING", 1)
    with launched() as client:
        files = (handle_file(str(PORTRAIT)), handle_file(str(ROOT / "examples" / "speech.wav")))
        jobs = [client.submit(*files, api_name="/animate_file") for _ in range(6)]
        said = [str(job.exception(timeout=300)) for job in jobs]
        assert "None" in said and any("queue" in words.lower() and "full" in words.lower() for words in said), said
        video, _ = client.predict(*files, api_name="/animate_file")
        assert read_manifest(video)["mark"] is True


# --- what may go wrong (the app's rows of the fault matrix; docs/app.md lists them)


def event_of(app, elem_id: str, kind: str):
    """What an element's event calls, and what its function gets when nobody has touched the page."""
    (block,) = [block for block in app.blocks.values() if getattr(block, "elem_id", None) == elem_id]
    event = next(fn for fn in app.fns.values() if (block._id, kind) in fn.targets)
    return event, [getattr(widget, "value", None) for widget in event.inputs]


def checked(app, portrait, speech) -> dict[str, str]:
    """What Animate says to its two boxes, by their names; nothing where they are taken."""
    event, values = event_of(app, "go", "click")
    said = event.validator(str(portrait), str(speech), *values[2:])
    return {
        name: one["message"] for name, one in zip(("portrait", "speech"), said, strict=False) if not one["is_valid"]
    }


def picture(change=lambda image: image, **how) -> bytes:
    """The example portrait, changed, as a file."""
    file = io.BytesIO()
    change(Image.open(PORTRAIT).convert("RGB")).save(file, **{"format": "PNG", **how})
    return file.getvalue()


def sound(samples: np.ndarray, rate: int = 16_000) -> bytes:
    from scipy.io import wavfile

    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


TONE = np.sin(np.arange(8000) * 0.1).astype(np.float32) / 3
TURNED = Image.Exif()
TURNED[0x0112] = 6
BAD = {
    "p.heic": (b"\0\0\0\x18ftypheic" + bytes(100), "convert it to JPEG"),
    "small.png": (picture(lambda image: image.resize((16, 16))), "128"),
    "cut.jpg": (picture(format="JPEG")[:9000], "cut.jpg is not a readable image"),
    "empty.png": (b"", "empty.png is empty"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg' width='300' height='300'/>", "not a readable image"),
    "wall.png": (picture(lambda image: Image.new("RGB", (300, 300), "grey")), "give its square under Crop"),
    "nan.wav": (sound(np.where(np.arange(8000) == 800, np.nan, TONE).astype(np.float32)), "0.05"),
    "empty.wav": (b"", "empty.wav is empty"),
    "header.wav": (sound(TONE[:0]), "0.2 s"),
    "sample.wav": (sound(TONE[:1]), "0.2 s"),
    "text.wav": (b"just text, no sound", "not a readable"),
    "noise.mp3": (np.random.default_rng(0).bytes(5000), "noise.mp3"),
    "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "list.m3u8"),
    "list.ffconcat": (b"ffconcat version 1.0\nfile /etc/hostname\n", "list.ffconcat"),
    "call.sdp": (b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n", "call.sdp"),
}


def test_each_box_names_what_it_cannot_use_and_the_next_try_works(client, speech, tmp_path):
    for name, (content, said) in BAD.items():
        (tmp_path / name).write_bytes(content)
        box = "portrait" if Path(name).suffix in (".heic", ".png", ".jpg") else "speech"
        files = {"portrait": PORTRAIT, "speech": speech, box: tmp_path / name}
        found = checked(client.vasa, **files)
        assert set(found) == {box} and said in found[box] and str(tmp_path) not in found[box], (name, found)
    assert checked(client.vasa, PORTRAIT, speech) == {}


@pytest.mark.parametrize(
    "samples, rate, notice",
    [
        (np.zeros(8000, np.int16), 16_000, "silent"),
        (TONE / 300, 16_000, "quiet"),
        (np.tile(TONE[:, None], (3, 6)).astype(np.float64), 96_000, ""),
        ((TONE * 90 + 128).astype(np.uint8), 8_000, ""),
    ],
    ids=["silent", "quiet", "six channels", "8 bits"],
)
def test_odd_sound_is_taken_with_a_word_about_it(studio, tmp_path, samples, rate, notice):
    (tmp_path / "s.wav").write_bytes(sound(samples, rate))
    *_, last = events_of(studio, str(tmp_path / "s.wav"))
    assert len(list(read_video(last.video).frames)) == math.ceil(len(samples) / rate * 25 - 1e-6)
    assert notice in " ".join(last.status.notices)


def test_odd_pictures_are_taken_upright_with_a_word_about_it(client, tmp_path):
    look, values = event_of(client.vasa, "portrait", "change")
    plain, words, *square = look.fn(str(PORTRAIT), *values[1:])
    assert words == ""
    for name, content, said in (
        ("turned.jpg", picture(lambda image: image.transpose(Image.Transpose.ROTATE_90), format="JPEG", quality=95,
                               exif=TURNED), ""),
        ("grey.png", picture(lambda image: image.convert("LA")), ""),
        ("ink.jpg", picture(lambda image: image.convert("CMYK"), format="JPEG", quality=95), ""),
        ("moving.gif", picture(format="GIF", save_all=True, append_images=[Image.new("RGB", (640, 640))]), "first one"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        drawn, words, *there = look.fn(str(tmp_path / name), *values[1:])
        assert drawn.shape == plain.shape and np.abs(np.subtract(there, square)).max() < 12, (name, there, square)
        assert said in words and bool(said) == bool(words), (name, words)


def test_a_click_chooses_the_face(client, tmp_path):
    two = Image.new("RGB", (1280, 640))
    two.paste(Image.open(PORTRAIT).convert("RGB"))
    two.paste(Image.open(ROOT / "examples" / "portrait_2.jpg").convert("RGB").resize((512, 512)), (700, 64))
    two.save(tmp_path / "two.png")
    choose, (_, mode, face, *rest) = event_of(client.vasa, "preview", "select")
    at = lambda *place: gr.SelectData(None, {"index": place, "value": None})  # noqa: E731
    click = lambda *place: choose.fn(at(*place), str(tmp_path / "two.png"), mode, face, *rest)  # noqa: E731
    number, _, words, left, *_ = click(960, 330)
    assert number == 1 and "2 faces; number 1" in words and "--" not in words and 600 < left < 700
    assert click(320, 300)[0] == 0
    for nowhere in (click(1500, 50), choose.fn(at(320, 300), str(PORTRAIT), "By hand", face, *rest)):
        assert nowhere == (gr.skip(),) * 6


@pytest.mark.parametrize(
    "values, said",
    [
        ({"steps": 10**9}, "maximum|100"),
        ({"steps": "many"}, "many|number|valid"),
        ({"distance": 99}, "maximum|2"),
        ({"emotion": "furious"}, "furious"),
        ({"gaze": "[100, 0]"}, "within ±30"),
        ({"gaze": "[0]"}, "two angles"),
        ({"timeline": '{"tracks": {"mouth": [{"time": 2, "value": [1]}, {"time": 1, "value": [9]}]}}'}, "mouth"),
        ({"blink_at": "3, 1"}, "blink"),
        ({"fps": "1000"}, "1000"),
        ({"crop": "../x"}, "x"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else None,
)
def test_values_out_of_range_are_named_to_programs(client, speech, values, said):
    given = (handle_file(str(PORTRAIT)), handle_file(speech))
    try:
        *_, status, video, motion = client.predict(*given, **values, api_name="/animate")
    except Exception as error:
        assert re.search(f"{said}|400 Bad Request", str(error)) and "Traceback" not in str(error), error
    else:
        assert 'class="line problem"' in status and re.search(said, status) and video.get("value") is None


def test_keys_out_of_order_or_beyond_the_end(studio, speech):
    with pytest.raises(InputError, match="mouth"):
        Controls.from_json({"mouth": {"keys": [{"time": 1, "value": 1}, {"time": 1, "value": 0.5}]}})
    late = Controls(steps=2, mouth=Track((Key(0.5, 0.8), Key(90.0, 1.0))))
    assert list(events_of(studio, speech, late))[-1].report["complete"]


def test_the_page_says_that_the_memory_was_too_small(studio, speech, monkeypatch):
    renderer = Renderer(studio.pipe.models.face, studio.pipe.device, studio.pipe.dtype)
    real = renderer._pictures

    def small(head_pose, *rest):
        if len(head_pose) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(head_pose, *rest)

    monkeypatch.setattr(renderer, "_pictures", small)
    monkeypatch.setattr(type(studio.pipe), "renderer", renderer)
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        last = list(events_of(studio, speech, Controls(steps=1)))[-1]
    assert last.report["complete"] and "2 frames at a time" in " ".join(last.status.notices)


def test_names_are_only_names(client, tmp_path):
    with wave.open(str(ROOT / "examples" / "speech.wav")) as source:
        params, data = source.getparams(), source.readframes(round(0.3 * source.getframerate()))
    stem = "<b>%d 'é 😀' $(x) pipe:tee:concat"
    for picture_name, sound_name in (
        (f"{stem}.png", f"{stem}.wav"),
        ("con.png", "aux.wav"),
        (f"{'a' * 240}.png", "a b.wav"),
    ):
        shutil.copy(PORTRAIT, tmp_path / picture_name)
        with wave.open(str(tmp_path / sound_name), "wb") as target:
            target.setparams(params)
            target.writeframes(data)
        files = [handle_file(str(tmp_path / name)) for name in (picture_name, sound_name)]
        video, report = client.predict(*files, controls='{"steps": 1}', api_name="/animate_file")
        assert report["frames"] == 8 == len(list(read_video(video).frames))


@pytest.mark.parametrize(
    "trouble, said",
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "is full; free some space"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory of the graphics card"),
        (None, "folder"),
    ],
    ids=["disk", "full", "memory", "folder"],
)
def test_a_run_that_cannot_go_on_says_so_and_the_next_one_works(client, speech, monkeypatch, trouble, said):
    event, (_, _, *values) = event_of(client.vasa, "go", "click")
    studio = client.vasa.studio
    run = lambda: list(event.fn(SimpleNamespace(session_hash="ada"), str(PORTRAIT), speech, *values))  # noqa: E731

    def broken(frames, *_):
        if trouble is None:
            shutil.rmtree(studio.root)
            return frames
        raise trouble

    with monkeypatch.context() as patched:
        patched.setattr(performance, "marked", broken)
        _, status, download, _, stop, go = run()[-1]
    assert 'class="line problem"' in status and said in status and "Traceback" not in status, status
    assert not stop["visible"] and go["interactive"] and not download["interactive"]
    assert not studio.stop("ada") and run()[-1][2]["value"].endswith("talking.mp4")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"{", "JSON"),
        (b"[1, 2]", "workflow"),
        (b" " * 10_000_001, "large|MB|long"),
        (b'{"nodes": [], "version": 99}', "API|workflow"),
        (b'{"7": {"class_type": "Nothing", "inputs": {}}}', "7"),
        (b'{"7": {"class_type": "VASA_SaveVideo", "inputs": {"frames": ["9", 0]}}}', "7|9"),
    ],
    ids=["no json", "a list", "10 MB", "editor", "unknown node", "missing link"],
)
def test_workflows_that_are_none_are_refused(client, tmp_path, content, said):
    (tmp_path / "w.json").write_bytes(content)
    event, values = event_of(client.vasa, "run-workflow", "click")
    given = (workflow_tab.OWN, str(tmp_path / "w.json"), None, None, None, "{}")
    status, _ = list(event.fn(*given, SimpleNamespace(session_hash="ada")))[-1]
    assert 'class="line problem"' in status and re.search(said, status) and str(tmp_path) not in status, status


def test_nothing_leaves_the_machine(speech, monkeypatch):
    """Not a socket to elsewhere, not a name looked up."""
    asked, real = set(), socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda own, to: (asked.add(str(to[0])), real(own, to))[1])
    names, found = socket.getaddrinfo, set()
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **how: (found.add(str(host)), names(host, *rest, **how))[1]
    )
    with launched() as client:
        files = (handle_file(str(PORTRAIT)), handle_file(speech))
        client.predict(*files, controls='{"steps": 1}', api_name="/animate_file")
        client.predict(*files, None, None, api_name="/inspect")
    assert asked | found <= {"127.0.0.1", "localhost", "::1", "None", "0.0.0.0"}, (asked, found)


def test_no_address_is_fetched_for_a_program(client, speech):
    visits = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/p.png"
        with pytest.raises(ValueError, match="failed validation"):
            client.predict(
                {"path": address, "meta": {"_type": "gradio.FileData"}}, handle_file(speech), api_name="/animate_file"
            )
        with suppress(TimeoutError):
            visits.append(listener.accept())
    assert visits == []


def test_two_pages_take_two_ports_and_a_page_that_cannot_start_says_why(monkeypatch, tmp_path):
    with launched() as first, launched() as second:
        assert first.vasa.server_port != second.vasa.server_port
        for options, said in (
            (["--model", str(tmp_path / "absent")], "absent"),
            (["--model", str(TINY), "--port", str(first.vasa.server_port)], "port"),
            (["--auth", "ada"], "USER:PASSWORD"),
        ):
            monkeypatch.setattr(sys, "argv", ["gradio_app.py", *options])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / "gradio_app.py"), run_name="__main__")
            assert said in str(ended.value.code) and "\n" not in str(ended.value.code)


def test_late_frames_go_and_a_call_never_grows():
    from vasa.app.performer import Performer, Shown

    performer = Performer(SimpleNamespace(fps=25.0), None, TWO_STEPS)
    for index in range(40):
        performer._give(Shown(index, torch.zeros(1, 3, 8, 8), np.zeros(640, np.float32), 0.0, 1, 1, 0.0))
    assert performer.shown.qsize() == 32 and performer.shown.get().index == 8
    for _ in range(600):
        performer.hear(np.zeros(320, np.float32))
    assert performer._heard.qsize() == 500


def test_addresses_are_those_that_the_browser_sees(client):
    """A proxy that takes TLS off, or renames the host, and does not tell."""
    import httpx

    page, here = "https://9-colab.example", client.src.rstrip("/")
    own = {"Sec-Fetch-Site": "same-origin", "Referer": f"{page}/"}
    for headers, root in (
        ({}, here),
        (own, page),
        ({"Sec-Fetch-Site": "same-origin", "Origin": page}, page),
        (own | {"Sec-Fetch-Site": "cross-site"}, here),
        (own | {"Referer": "about:client"}, here),
        (own | {"X-Forwarded-Host": "named.example", "X-Forwarded-Proto": "https"}, "https://named.example"),
    ):
        assert httpx.get(f"{here}/config", headers=headers).json()["root"] == root, headers


def test_only_what_is_meant_for_programs_is_offered(client):
    offered = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(offered) == {"/animate", "/animate_file", "/drive", "/inspect"}


def test_motions_are_edited_and_shown(studio, speech):
    from vasa.app import edit_tab

    *_, made = events_of(studio, speech)
    motion, video = str(made.motion), str(made.video)
    steps = []
    for what, second, count in ((1, motion, 30 + 30 - 5), (2, motion, 30), (3, None, 2 * (30 - 5))):
        values = (str(PORTRAIT), motion, second, speech, edit_tab.OPERATIONS[what], 5, 2, 1, 0.1, False)
        path, kept, _, status = edit_tab._edited(studio, studio.folder("e"), values, lambda *told: steps.append(told))
        assert len(list(read_video(path).frames)) == count == len(read_motion_file(kept).motion)
        assert status.words.startswith("Done")
    assert {stage for stage, *_ in steps} == {"frames"}
    values = (str(PORTRAIT), motion, None, None, edit_tab.OPERATIONS[0], 5, 2, 2.0, 0, False)
    path, *_ = edit_tab._edited(studio, studio.folder("e"), values, lambda *_: None)
    assert len(list(read_video(path).frames)) == 15
    still = edit_tab._still(studio)
    rest = (0.0,) * (len(edit_tab.STILL) + len(edit_tab.TURNS))
    picture, words = still(str(PORTRAIT), "[0, 0]", *rest)
    assert picture is None or picture.shape == (64, 64, 3)
    assert still(None, "[0, 0]", *rest)[0] is None and "gaze" in still(str(PORTRAIT), "x", *rest)[1]
    assert video


def test_workflows_are_shown_and_run_with_other_files(studio, speech, tmp_path):
    from vasa.nodes.headless import run_workflow

    prompt = workflow_tab._workflow("basic", None)
    assert any("Animate" in name or "Motion" in name or "VASA" in name.upper() for name in workflow_tab._nodes(prompt))
    files = workflow_tab.files_for(prompt, {"portrait": str(PORTRAIT), "speech": speech, "video": None})
    assert sorted(key.rpartition(".")[2] for key in files) == ["audio", "portrait"]
    with pytest.raises(InputError, match="loads no video"):
        workflow_tab.files_for(prompt, {"video": speech})
    changed = workflow_tab.replaced(prompt, {key: "../secret.png" for key in files if key.endswith("portrait")})
    with pytest.raises(InputError):
        run_workflow(changed, {}, tmp_path, input_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    changed = workflow_tab.replaced(prompt, {"1.model": str(TINY)})
    with pytest.raises(InputError):
        run_workflow(changed, {}, tmp_path, input_dir=tmp_path)
