"""`vasa stream`: pipes in, pipes out."""

import io
import os
import struct
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

import vasa
from vasa import cli
from vasa.io.pcm import PcmReader
from vasa.io.transport import TransportStream
from vasa.live import HEADROOM, HOPS, Pace, call_plan, live_plan, run_live
from vasa.motion.plan import WindowPlan
from vasa.stream import Session

ROOT = Path(__file__).resolve().parents[1]
TINY_FOLDER = ROOT / "tests" / "data" / "tiny"


@pytest.fixture(scope="module")
def pipe():
    return vasa.Vasa.from_pretrained(TINY_FOLDER, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def face(pipe):
    return pipe.encode(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))


def pcm(seconds, rate=16000):
    return (8000 * np.sin(np.arange(round(seconds * rate)) * 0.07)).astype("<i2")


def wav(samples, rate, channels=1, size=0xFFFFFFFF):
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size, b"WAVE", b"fmt ", 16, 1, channels, rate,
                         rate * 2 * channels, 2 * channels, 16, b"data", size)  # fmt: skip
    return header + samples.tobytes()


def packets(data, kind):
    with av.open(io.BytesIO(data)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(float(p.pts * p.time_base), p.is_keyframe) for p in container.demux(stream) if p.size]


@pytest.mark.parametrize("fps, rate", [(25.0, 16000), (29.97, 44100), (40.0, 48000)])
def test_a_transport_stream_loses_nothing_and_does_not_drift(fps, rate):
    stream, done, seconds = TransportStream(64, fps, rate, offset=10.0), 0, 6
    data, still = b"", torch.rand(3, 64, 64)
    for start in range(0, round(seconds * fps), 7):
        count = min(7, round(seconds * fps) - start)
        until = round((start + count) * rate / fps)
        sound = torch.sin(torch.arange(done, until) * 0.05) * 0.3
        data += stream.write(still.expand(count, 3, 64, 64), sound, keyframe=start % 25 == 0)
        done = until
        assert abs(stream.drift) < 1e-4
    data += stream.close()
    assert stream.close() == b""
    pictures, sound = packets(data, "video"), packets(data, "audio")
    times = torch.tensor([time for time, _ in pictures], dtype=torch.float64)
    assert len(times) == round(seconds * fps)
    # the transport stream counts in 1/90000 s
    assert (times - times[0] - torch.arange(len(times), dtype=torch.float64) / fps).abs().max() < 2e-5 + 1e-5 * seconds
    assert times[0] == pytest.approx(10.0, abs=0.03)
    sound_times = torch.tensor([time for time, _ in sound], dtype=torch.float64)
    assert (sound_times.diff() - 1024 / 48000).abs().max() < 3e-5, "no gap between packets"
    assert sound_times[-1] + 1024 / 48000 == pytest.approx(times[-1].item() + 1 / fps, abs=0.045)


def test_pieces_of_a_transport_stream_begin_with_key_frames_when_asked():
    stream = TransportStream(64, 25.0)
    still = torch.rand(3, 64, 64)
    data = b"".join(stream.write(still.expand(5, 3, 64, 64), torch.zeros(3200), keyframe=n % 2 == 0) for n in range(6))
    keys = [number for number, (_, is_key) in enumerate(packets(data + stream.close(), "video")) if is_key]
    assert keys == [0, 10, 20]


def test_a_transport_stream_without_sound_gets_silence():
    stream = TransportStream(64, 25.0)
    data = stream.write(torch.zeros(50, 3, 64, 64)) + stream.close()
    assert len(packets(data, "audio")) * 1024 / 48000 == pytest.approx(2.0, abs=0.05)
    with pytest.raises(ValueError, match="expected frames"):
        TransportStream(64, 25.0).write(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_and_raw_pcm_are_read_alike(channels):
    samples = pcm(0.5, 8000)
    raw = np.concatenate(list(PcmReader(io.BytesIO(samples.tobytes()), 8000)))
    doubled = np.repeat(samples, channels)
    reader = PcmReader(io.BytesIO(wav(doubled, 8000, channels)), 16000)
    assert reader.sample_rate == 8000
    assert np.array_equal(np.concatenate(list(reader)), raw) and np.array_equal(raw * 32768, samples)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "no sound came"),
        (b"RIFF1234AVI ", "begins like a wav"),
        (wav(pcm(0.1), 16000)[:30], "ends before its sound"),
        (wav(pcm(0.1), 16000).replace(struct.pack("<HH", 2, 16), struct.pack("<HH", 3, 24)), "24 bits"),
    ],
    ids=["nothing", "avi", "cut", "24 bit"],
)
def test_sound_that_is_none_is_refused(data, message):
    with pytest.raises(vasa.InputError, match=message):
        PcmReader(io.BytesIO(data), 16000)


def test_half_a_sample_at_the_end_is_left_out():
    assert len(np.concatenate(list(PcmReader(io.BytesIO(pcm(0.1).tobytes() + b"x"), 16000)))) == 1600


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_live_run_gives_the_session_s_frames_and_all_its_sound(pipe, face, rate):
    sound = pcm(0.63, rate)
    plan, controls = WindowPlan.live(steps=1), vasa.Controls(guidance={})
    shown, heard = [], []
    report = run_live(
        Session(pipe, face, controls, plan), PcmReader(io.BytesIO(sound.tobytes()), rate, block_seconds=0.013),
        lambda frames, samples: (shown.append(frames), heard.append(samples)),
    )  # fmt: skip
    whole = Session(pipe, face, controls, plan)
    whole.push_audio(sound, rate)
    whole.flush()
    assert torch.equal(torch.cat(shown), torch.cat(list(whole.frames(5))))
    assert report.frames == 16 and len(report.latencies) == 4
    heard = np.concatenate(heard)
    assert len(heard) == round(16 / 25 * rate) and np.array_equal(heard[: len(sound)] * 32768, sound)
    assert not heard[len(sound) :].any()
    assert "p95" in str(report)


class Halting:
    """A reader whose sound stops coming now and then; no clock is involved."""

    def __init__(self, sound, rate, stops):
        self.sample_rate, self.ended = rate, False
        self._blocks = [block for block in np.array_split(sound, 2 * len(stops)) for block in (block, None)]
        self._blocks = [b for n, b in enumerate(self._blocks) for _ in range(1 if b is not None else stops[n // 4])]

    def next(self, timeout=None):
        if not self._blocks:
            self.ended = True
            return None
        return self._blocks.pop(0)


def test_when_no_sound_comes_the_face_idles_and_sound_stays_with_its_pictures(pipe, face):
    sound = np.where(pcm(1.1, 44100) == 0, 1, pcm(1.1, 44100)).astype(np.float32) / 32768
    shown, heard = [], []
    report = run_live(
        Session(pipe, face, vasa.Controls(guidance={}), WindowPlan.live(steps=1)),
        Halting(sound, 44100, [0, 3, 1]),
        lambda frames, samples: (shown.append(len(frames)), heard.append(samples)), keep_time=True,
    )  # fmt: skip
    heard = np.concatenate(heard)
    assert report.silence > 0.4 and report.frames == sum(shown) > 38
    assert abs(len(heard) / 44100 - report.frames / 25) < 1 / 16000
    assert np.array_equal(heard[heard != 0], sound), "no sound is lost, silence is put between"


def test_the_shortest_hop_that_keeps_real_time_is_taken(pipe, face, monkeypatch):
    assert Pace({5: 0.1, 10: 0.1}, 0.02).load(10, 25.0) == pytest.approx(0.75)

    def pretended(vasa, face, plans, repeats=3):
        return Pace(dict.fromkeys(plans, 0.24), 0.016)

    monkeypatch.setattr("vasa.live.measured", pretended)
    plan, pace = live_plan(pipe, face, steps=3)
    assert plan == WindowPlan.live(15, 2, 3) and pace.load(15, 25.0) <= HEADROOM < pace.load(10, 25.0)
    monkeypatch.setattr("vasa.live.measured", lambda *a, **k: Pace(dict.fromkeys(a[2], 9.0), 0.016))
    assert live_plan(pipe, face)[0].hop == HOPS[-1]


@pytest.mark.parametrize(
    ("window", "frame", "hop", "steps"),
    [(0.05, 0.01, 5, 10), (0.12, 0.01, 10, 10), (0.11, 0.025, 10, 10), (0.14, 0.04, 10, 5), (9.0, 1.0, 10, 5)],
)
def test_a_call_answers_early_rather_than_with_every_frame(monkeypatch, window, frame, hop, steps):
    engine = SimpleNamespace(device="cpu", fps=25.0, live_plan=WindowPlan.live)
    monkeypatch.setattr("vasa.live.measured", lambda vasa, face, plans: Pace(dict.fromkeys(plans, window), frame))
    plan, load = call_plan(engine, None)
    assert (plan.hop, plan.steps) == (hop, steps)
    assert (load > 1) == (window == 9.0)


def test_every_second_picture_of_a_hop(monkeypatch):
    """`Session.pop_frames` decodes the frames it is asked for, and the motion goes on as always."""
    drawn = []
    session = object.__new__(Session)
    motion = torch.arange(5)
    session.face, session.vasa = None, SimpleNamespace(
        size=8, decode=lambda face, part, batch_size: drawn.append(part) or [torch.zeros(len(part), 3, 8, 8)]
    )  # fmt: skip
    monkeypatch.setattr(Session, "pop_motion", lambda self: motion)
    assert len(session.pop_frames(every=2)) == 3 and drawn[0].tolist() == [0, 2, 4]
    assert len(session.pop_frames()) == 5


def test_every_hop_that_may_be_tried_fits_the_model(pipe, face):
    for hop in HOPS:
        Session(pipe, face, vasa.Controls(), WindowPlan.live(hop))


@pytest.fixture
def stream(monkeypatch, capsys):
    """Runs the command on bytes; gives exit code, what was sent and what was said."""

    def run(data, *options, out=None):
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        with open(read, "rb") as stdin, out or tempfile.TemporaryFile() as sent:
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=sent, flush=lambda: None))
            code = cli.main(["stream", str(ROOT / "examples" / "portrait.png"), "--model", str(TINY_FOLDER),
                             "--device", "cpu", "--crop", "none", "--hop", "5", "--steps", "1", *options])  # fmt: skip
            made = b"" if out else (sent.seek(0), sent.read())[1]
            monkeypatch.undo()
        return code, made, capsys.readouterr().err

    return run


def test_the_command_makes_a_video_out_of_a_pipe(stream):
    code, made, said = stream(pcm(0.8, 8000).tobytes(), "--rate", "8000", "--idle", "0.5", "--seed", "3")
    assert code == 0 and len(packets(made, "video")) == 20
    assert "p50" in said and "p99" in said and "FPS" in said
    code, made, _ = stream(wav(pcm(0.4), 16000), "--format", "rgb")
    assert code == 0 and len(made) == 10 * 64 * 64 * 3


def test_the_command_ends_in_a_sentence_when_nothing_comes(stream):
    code, made, said = stream(b"")
    assert code == 2 and made == b"" and said.splitlines()[-1].startswith("vasa: no sound came")


def test_the_command_ends_in_a_sentence_when_nobody_reads_on(stream):
    read, write = os.pipe()
    os.close(read)
    code, _, said = stream(pcm(0.4).tobytes(), "--format", "rgb", out=open(write, "wb"))
    assert code == 2 and "stopped reading" in said.splitlines()[-1]


def test_ctrl_c_leaves_what_was_sent_playable(stream, monkeypatch):
    pop_motion, calls = Session.pop_motion, []

    def interrupted(self):
        calls.append(1)
        if len(calls) > 14:
            raise KeyboardInterrupt
        return pop_motion(self)

    monkeypatch.setattr(Session, "pop_motion", interrupted)
    code, made, said = stream(pcm(1.0).tobytes())
    assert code == 130 and "interrupted" in said.splitlines()[-1]
    assert len(packets(made, "video")) >= 5
