"""Drawing beside decoding: the same frames, and every wait where it must be. Streams are stand-ins that take notes."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vasa
from vasa import aside
from vasa.aside import Aside
from vasa.motion.plan import WindowPlan
from vasa.stream import Session

TINY = Path(__file__).parent / "data" / "tiny"
PLAN = WindowPlan.live(steps=1)
CONTROLS = vasa.Controls(steps=1, seed=5)
SPEECH = 0.2 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pipe():
    return vasa.Vasa.from_pretrained(TINY, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def face(pipe):
    return pipe.encode(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))


class Stream:
    """A stream that notes what it is told."""

    def __init__(self, name, notes):
        self.name, self.notes, self.device = name, notes, torch.device("cuda:0")

    def wait_stream(self, other):
        self.notes.append((self.name, "waits for all of", other.name))

    def wait_event(self, event):
        self.notes.append((self.name, "waits for", event.number))

    def synchronize(self):
        self.notes.append((self.name, "is waited for", None))


@pytest.fixture
def notes(monkeypatch, pipe):
    """What happens in a session whose side stream is on."""
    notes, made = [], []
    main, side = Stream("main", notes), Stream("side", notes)

    class Event:
        def __init__(self):
            self.number = len(made)
            made.append(self)

        def record(self, stream):
            notes.append((stream.name, "records", self.number))

    @contextlib.contextmanager
    def on(stream):
        notes.append((stream.name, "begins", None))
        yield
        notes.append((stream.name, "ends", None))

    monkeypatch.setenv("VASA_STREAMS", "1")
    monkeypatch.setattr(aside, "_stream", lambda device: side)
    monkeypatch.setattr(aside.torch, "cuda", SimpleNamespace(
        current_stream=lambda device: main, stream=on, Event=Event
    ))  # fmt: skip
    monkeypatch.setattr("vasa.stream.Aside", lambda device: Aside(torch.device("cuda:0")))
    plain = pipe.decode
    monkeypatch.setattr(
        pipe, "decode", lambda *given, **how: (notes.append(("main", "decodes", None)), plain(*given, **how))[1]
    )  # noqa: E501
    return notes


def frames(pipe, face, session=None):
    session = session or Session(pipe, face, CONTROLS, PLAN)
    session.push_audio(SPEECH)
    session.flush()
    return torch.cat(list(session.frames(5)))


def test_frames_are_the_same_and_the_next_hop_is_drawn_before_this_one_is_decoded(pipe, face, notes, monkeypatch):
    got = frames(pipe, face)
    order = [note for note in notes if note[1] in ("begins", "decodes")]
    assert order[:5] == [
        ("side", "begins", None), ("side", "begins", None), ("main", "decodes", None), ("side", "begins", None),
        ("main", "decodes", None),
    ]  # fmt: skip
    monkeypatch.undo()
    assert torch.equal(got, frames(pipe, face))


def test_every_wait_is_where_it_must_be(pipe, face, notes):
    frames(pipe, face)
    # the side stream meets the main one once, before it begins, for the portrait's latents
    assert notes.index(("side", "waits for all of", "main")) < notes.index(("side", "begins", None))
    assert sum(note[1] == "waits for all of" for note in notes) == 1
    decoded = -1
    for i, note in enumerate(notes):
        if note[1] == "decodes":
            waited = [n[2] for n in notes[:i] if n[:2] == ("main", "waits for")]
            recorded = [n[2] for n in notes[:i] if n[1] == "records"]
            decoded += 1
            # of this hop alone: waiting for the one that is being drawn would leave nothing to overlap
            assert waited[-1] == decoded and waited[-1] in recorded
    assert decoded == 4
    inside = False
    for name, what, _ in notes:
        inside = what == "begins" or (inside and what != "ends")
        assert what != "records" or (name == "side" and inside)


def test_a_saved_session_is_settled_and_a_resumed_one_meets_again(pipe, face, notes):
    one = Session(pipe, face, CONTROLS, PLAN)
    one.push_audio(SPEECH)
    shown = [next(one.frames(2))]
    state = one.state()
    assert notes[-1] == ("side", "is waited for", None)
    assert len(state["drawn"]) == 8  # the rest of this hop and the next one
    other = Session(pipe, face, CONTROLS, PLAN)
    other.resume(state)
    met = len([n for n in notes if n[1] == "waits for all of"])
    for session in (one, other):
        session.flush()
    rest = [torch.cat(list(session.frames(5))) for session in (one, other)]
    # batches are cut elsewhere, and kernels round by their size
    assert torch.allclose(*rest, atol=1e-5) and len(rest[0]) + len(shown[0]) == 25
    assert len([n for n in notes if n[1] == "waits for all of"]) == met + 1


def test_an_interruption_forgets_what_was_drawn_ahead(pipe, face, notes):
    one = Session(pipe, face, CONTROLS, PLAN)
    one.push_audio(SPEECH)
    next(one.frames(2))
    assert one.frame == 2
    one.interrupt()
    assert one.frame == 2 and one.frames_ready == 0
    one.idle_until(20)
    assert len(torch.cat(list(one.frames(4)))) >= 18


def test_streams_are_on_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(aside, "_stream", lambda device: "a stream")
    for word, device, expected in (("1", "cuda", True), ("0", "cuda", False), ("1", "cpu", False)):
        monkeypatch.setenv("VASA_STREAMS", word)
        assert Aside(torch.device(device)).ahead is expected
    monkeypatch.delenv("VASA_STREAMS")
    assert not Aside(torch.device("cuda")).ahead
    plain = Aside(torch.device("cpu"))
    with plain.work():
        pass
    plain.meet(plain.done(), torch.zeros(1))
    plain.settle()
