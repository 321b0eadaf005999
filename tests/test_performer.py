"""Live calls on machines that are too slow for every frame."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("gradio")

from vasa.app import performer as performer_module
from vasa.app.performer import Performer, Shown
from vasa.controls import Controls
from vasa.live import SPARSEST
from vasa.motion.plan import WindowPlan

RATE, FPS, HOP, AHEAD = Performer.RATE, 25.0, 10, 2
LOUD, SILENT = np.full(320, 0.5, np.float32), np.zeros(320, np.float32)


class FakeSession:
    """Makes a hop as soon as its sound is there; every picture takes a while."""

    def __init__(self, *_, seconds_a_picture=0.0):
        self.frame = self.samples = self.silence = 0
        self.seconds_a_picture = seconds_a_picture
        self.asked = []

    @property
    def seconds(self):
        return self.samples / RATE

    @property
    def frames_ready(self):
        return max(0, int((self.seconds - AHEAD / FPS - self.frame / FPS + 1e-6) * FPS) // HOP * HOP)

    def push_audio(self, samples, rate):
        assert rate == RATE
        self.samples += len(samples)

    def idle_until(self, frame):
        missing = max(0, round((self.frame + HOP + AHEAD) / FPS * RATE) - self.samples)
        self.samples, self.silence = self.samples + missing, self.silence + missing

    def pop_frames(self, every=1):
        self.asked.append(every)
        count = len(range(0, HOP, every))
        time.sleep(count * self.seconds_a_picture)
        self.frame += HOP
        return torch.rand(count, 3, 32, 32)


@pytest.fixture
def call(monkeypatch):
    """A performer on a fake session, and the session."""
    session = FakeSession()
    monkeypatch.setattr(performer_module, "Session", lambda *_: session)
    monkeypatch.setattr(performer_module, "call_plan", lambda *_: (WindowPlan.live(HOP, AHEAD, 1), 0.5))
    performer = Performer(SimpleNamespace(fps=FPS), SimpleNamespace(latents=None), Controls())
    yield performer, session
    performer.close()


def taken(performer, seconds):
    """What is shown within so many seconds."""
    found, end = [], time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        try:
            found.append(performer.shown.get(timeout=left))
        except performer_module.queue.Empty:
            break
    return found


def test_a_call_that_is_behind_leaves_out_frames_and_no_sound(call):
    performer, session = call
    session.seconds_a_picture = 0.005
    performer.start()
    time.sleep(0.05)
    for _ in range(45):  # nearly a second at once
        performer.hear(LOUD)
    shown = taken(performer, 0.5)
    assert session.asked[0] == SPARSEST and session.asked[-1] == 1
    assert [one.index for one in shown] == [HOP * n for n in range(len(shown))]
    assert all(len(one.frames) == len(one.places) == len(range(0, HOP, one.every)) for one in shown)
    heard = np.concatenate([one.samples for one in shown])
    assert len(heard) == len(shown) * HOP / FPS * RATE
    assert np.count_nonzero(heard) == 40 * 320 and performer.dropped == 0


def test_the_delay_counts_from_when_a_sound_was_heard(call):
    """Not from when the thread, busy with other frames, came to look."""
    performer, session = call
    session.seconds_a_picture = 0.03
    performer.start()
    time.sleep(0.05)
    for _ in range(24):
        performer.hear(LOUD)
    time.sleep(0.02)
    for _ in range(20):  # while the first hop is made
        performer.hear(LOUD)
    first, second = taken(performer, 0.75)[:2]
    assert first.delay >= 0.9 * HOP * 0.03
    assert second.delay > 0.9 * (len(first.frames) + len(second.frames)) * 0.03 - 0.02


def test_silence_is_left_out_to_catch_up(call):
    performer, session = call
    for number in range(150):
        performer._heard.put((0.0, LOUD if number < 50 else SILENT))
    assert performer._listen(session, (HOP + AHEAD) / FPS, 0.0)
    assert performer.dropped > 80 * 320
    assert session.samples == 150 * 320 - performer.dropped
    assert not performer._listen(session, 0.5, 0.0)


def test_sparse_frames_keep_their_times_and_all_sound():
    pytest.importorskip("av")
    from vasa.app.calls import SOUND_CLOCK, VIDEO_CLOCK, _frames_of

    sound = np.random.default_rng(0).uniform(-0.5, 0.5, round(HOP / FPS * RATE)).astype(np.float32)
    shown = Shown(20, torch.rand(4, 3, 32, 32), sound, 0.0, HOP, 3, 0.0)
    rows = _frames_of(shown, FPS)
    assert [row[0].pts for row in rows] == [round((20 + place) * VIDEO_CLOCK / FPS) for place in (0, 3, 6, 9)]
    pieces = [piece for _, some in rows for piece in some]
    assert [piece.pts for piece in pieces] == [round(20 * SOUND_CLOCK / FPS) + 320 * n for n in range(len(pieces))]
    given = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    assert np.abs(given - sound * 32767).max() <= 1


def test_a_call_that_was_late_once_does_not_stay_late():
    from vasa.app.calls import _Start

    def made(number, late):
        return Shown(number * HOP, torch.zeros(0), np.zeros(0), 0.0, HOP, 1, 100.0 + number * HOP / FPS + late)

    start = _Start(FPS)
    assert start.after(made(0, 0.5)) == pytest.approx(100.5), "frames are shown as soon as there are any"
    assert start.after(made(1, 0.6)) == pytest.approx(100.5), "a little late: nothing is moved"
    assert start.after(made(2, 0.9)) == pytest.approx(100.9), "too late for the ones that follow"
    begun = [start.after(made(number, 0.1 + 0.01 * (number % 3))) for number in range(3, 20)]
    assert begun[0] == pytest.approx(100.9) and begun[-1] == pytest.approx(100.15)
    assert all(later <= earlier for earlier, later in zip(begun, begun[1:], strict=False))
