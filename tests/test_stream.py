"""Laws of the session: sound in pieces, frames out."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import vasa
from vasa.latents import DYNAMICS
from vasa.metrics.motion_quality import blink_peaks
from vasa.motion.plan import WindowPlan
from vasa.motion.schedule import EASE, ControlSchedule
from vasa.motion.sound import Resampler, SoundBuffer
from vasa.session_file import load_state, save_state
from vasa.stream import Full, Session

TINY_FOLDER = Path(__file__).parent / "data" / "tiny"
LIVE = WindowPlan.live(steps=2)
CONTROLS = vasa.Controls(steps=2, seed=5)
SAMPLES = 640  # of one frame


@pytest.fixture(scope="module")
def pipe():
    return vasa.Vasa.from_pretrained(TINY_FOLDER, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def face(pipe):
    return pipe.encode(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))


def speech(seconds, rate=16000, seed=0):
    t = torch.arange(round(seconds * rate)) / rate
    noise = torch.rand(len(t), generator=torch.Generator().manual_seed(seed)) - 0.5
    return 0.3 * noise * (torch.sin(2 * torch.pi * 1.7 * t) > 0)


def session(pipe, face, plan=LIVE, controls=CONTROLS, **options):
    return Session(pipe, face, controls, plan, **options)


def motions(one):
    """Everything that can be taken now, [T, M]."""
    pieces = [motion.vectors for motion in iter(one.pop_motion, None)]
    return torch.cat(pieces) if pieces else torch.zeros(0, 65)


def fed(one, waveform, sizes, rate=16000):
    """Push in pieces, taking frames after each, flush, and take the rest."""
    taken, start, number = [], 0, 0
    while start < len(waveform):
        size = sizes[number % len(sizes)]
        one.push_audio(waveform[start : start + size], rate)
        taken += one.frames(3)
        start, number = start + size, number + 1
    one.flush()
    return torch.cat([*taken, *one.frames(3)])


@pytest.mark.parametrize("plan", [WindowPlan.full(), LIVE], ids=["full", "live"])
def test_frames_do_not_depend_on_how_the_sound_is_cut(pipe, face, plan):
    waveform = speech(2.2)
    motion = pipe.generate(waveform, face, CONTROLS, plan=plan)
    assert len(motion) == 55
    whole = fed(session(pipe, face, plan), waveform, [len(waveform)])
    for sizes in ([641], [1, 333, 4096, 17, 9001]):
        assert torch.equal(fed(session(pipe, face, plan), waveform, sizes), whole)
    decoded = torch.cat(list(pipe.decode(face, motion, batch_size=1)))
    assert torch.allclose(whole, decoded, atol=1e-5)


def test_generation_is_the_session_fed_at_once(pipe, face):
    waveform = speech(3.3)
    one = session(pipe, face)
    pieces = []
    for piece in waveform.split(777):
        one.push_audio(piece)
        pieces.append(motions(one))
    one.flush()
    streamed = torch.cat([*pieces, motions(one)])
    assert torch.equal(streamed, pipe.generate(waveform, face, CONTROLS, plan=LIVE).vectors)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_sampling_rates_are_converted_whatever_the_pieces(pipe, face, rate):
    waveform = speech(1.3, rate)
    a, b = (fed(session(pipe, face), waveform, sizes, rate) for sizes in ([len(waveform)], [441, 3, 5000]))
    assert torch.equal(a, b) and len(a) == 33


def test_resampling_keeps_a_tone_in_its_place():
    for rate in (8000, 22050, 44100, 48000):
        tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate).float()
        resampler = Resampler(rate, 16000)
        made = torch.cat([resampler(tone), resampler.flush()])
        wanted = torch.sin(2 * torch.pi * 440 * torch.arange(16000, dtype=torch.float64) / 16000).float()
        assert len(made) == 16000 and (made - wanted)[100:-100].abs().max() < 1e-3


def test_a_hop_is_ready_with_its_look_ahead_and_no_sooner(pipe, face):
    one = session(pipe, face)
    one.push_audio(torch.zeros(7 * SAMPLES - 1))
    assert one.frames_ready == 0 and one.pop_motion() is None and len(one.pop_frames()) == 0
    one.push_audio(torch.zeros(1))
    assert one.frames_ready == 5 and len(one.pop_frames()) == 5
    assert one.frame == 5 and one.frames_ready == 0
    one.push_audio(torch.zeros(9 * SAMPLES))
    assert one.frames_ready == 5


def test_after_a_flush_the_session_goes_on_at_the_next_frame(pipe, face):
    one = session(pipe, face)
    one.push_audio(speech(1.01))
    one.flush()
    assert len(motions(one)) == 26 and one.frame == 26 and one.seconds == 26 / 25
    one.push_audio(speech(0.5))
    one.flush()
    assert len(motions(one)) == 13


def test_what_follows_a_flush_is_not_heard_before_it(pipe, face):
    results = []
    for taken_between in (True, False):
        one = session(pipe, face)
        one.push_audio(speech(1.0))
        one.flush()
        pieces = [motions(one)] if taken_between else []
        one.push_audio(speech(1.0, seed=1))
        one.flush()
        results.append(torch.cat([*pieces, motions(one)]))
    assert torch.equal(*results)


def test_a_session_goes_on_elsewhere_bit_by_bit(pipe, face, tmp_path):
    waveform = speech(3.0, 24000)
    first, rest = waveform[:41_003], waveform[41_003:]
    one = session(pipe, face)
    one.push_audio(first, 24000)
    one.set_controls(vasa.Controls(steps=2, gaze=(0.2, 0.0)))
    frames = one.frames(2)
    for _ in range(7):
        next(frames)
    save_state(tmp_path / "session.safetensors", one.state())
    other = session(pipe, face, WindowPlan.full(), vasa.Controls(seed=1))
    other.resume(load_state(tmp_path / "session.safetensors"))
    assert (other.frame, other.plan, other.seed) == (one.frame, LIVE, 5)
    assert torch.equal(fed(one, rest, [1000], 24000), fed(other, rest, [5003], 24000))


def test_a_state_of_something_else_is_refused(pipe, face, tmp_path):
    one = session(pipe, face)
    with pytest.raises(vasa.InputError, match="not the state of a session"):
        one.resume({"motion": torch.zeros(3)})
    state = one.state()
    state["session"] = state["session"].replace("vasa tiny", "vasa huge")
    with pytest.raises(vasa.InputError, match="vasa huge"):
        one.resume(state)
    (tmp_path / "broken.safetensors").write_bytes(b"no such thing")
    with pytest.raises(vasa.InputError, match="not a saved session"):
        load_state(tmp_path / "broken.safetensors")


def test_the_state_is_small_however_old_the_session_is(pipe, face):
    """Old sound and old motion are let go of."""
    one, sizes = session(pipe, face, WindowPlan.live(hop=10, steps=1), vasa.Controls(guidance={})), []
    for number in range(16):
        one.push_audio(speech(1.0, seed=number))
        one.set_controls(vasa.Controls(guidance={}, gaze=(0.01 * (number % 5), 0.0)))
        motions(one)
        sizes.append(sum(t.numel() for t in one.state().values() if isinstance(t, torch.Tensor)))
        assert len(one.state()["session"]) < 20_000
    assert max(sizes[5:]) <= max(sizes[:5])
    assert one._sound.samples.untyped_storage().nbytes() < 8 * 16000 * 4


def test_sound_and_pictures_stay_together_for_hours(pipe, face):
    """The clock is the sample index: no error is summed up, whatever the frame rate."""
    for fps in (25.0, 29.97, 40.0):
        one = session(pipe, face)
        one._fps = fps
        for minute in range(1, 601):
            frame = round(minute * 60 * fps)
            assert abs(one._sample(frame) / 16000 - frame / fps) <= 0.5 / 16000


def test_a_full_session_refuses_sound_and_loses_none(pipe, face):
    one = session(pipe, face, max_pending=1.0)
    one.push_audio(speech(0.9))
    assert one.room == 1600
    with pytest.raises(Full, match="take frames first"):
        one.push_audio(speech(0.2))
    assert one.seconds == 0.9
    with pytest.raises(Full):
        one.push_audio(speech(0.2), timeout=0.01)
    motions(one)
    one.push_audio(speech(0.2))
    assert one.seconds == pytest.approx(1.1)
    with pytest.raises(vasa.InputError, match="max_pending"):
        session(pipe, face, max_pending=0.1)


def test_a_waiting_push_goes_on_when_frames_are_taken(pipe, face):
    one = session(pipe, face, max_pending=1.0)
    one.push_audio(speech(1.0))
    thread = threading.Thread(target=one.push_audio, args=(speech(0.5),), kwargs={"timeout": 10.0})
    thread.start()
    taken = len(motions(one))
    thread.join(10)
    assert not thread.is_alive() and taken + len(motions(one)) == 35


def test_interrupting_drops_what_is_pending_and_goes_on_without_a_jump(pipe, face):
    one = session(pipe, face)
    one.push_audio(speech(3.0))
    before = [one.pop_motion().vectors for _ in range(6)]
    next(one.frames(2))
    assert one.frame == 32
    one.interrupt()
    assert one.frame == 32 and one.frames_ready == 0 and one.seconds == 32 / 25
    one.idle_until(60)
    after = motions(one)
    assert len(after) >= 28 and one.silence > 0
    usual = torch.cat(before).diff(dim=0).abs().amax()
    assert (after[0] - _last_shown(one, pipe, face)).abs().amax() <= usual * 1.01


def _last_shown(one, pipe, face):
    """Frame 31 of the same sound, uninterrupted."""
    again = session(pipe, face)
    again.push_audio(speech(3.0))
    return motions(again)[31]


def test_interrupting_before_anything_was_shown_starts_over(pipe, face):
    one = session(pipe, face)
    one.push_audio(speech(2.0))
    frames = one.frames(1)
    one.interrupt()
    assert list(frames) == [] and one.frame == 0
    one.push_audio(speech(1.0))
    one.flush()
    assert torch.equal(motions(one), pipe.generate(speech(1.0), face, CONTROLS, plan=LIVE).vectors)


def test_silence_keeps_the_face_going(pipe, face):
    one = session(pipe, face)
    one.idle_until(12)
    assert one.frames_ready >= 12 and one.silence == 17 * SAMPLES
    one.idle_until(12)
    assert one.silence == 17 * SAMPLES
    assert len(motions(one)) == 15


def test_an_idle_face_blinks_and_moves(pipe, face):
    one = session(pipe, face, WindowPlan.live(hop=20, steps=1), None)
    one.idle_until(500)
    made = motions(one)
    lids = made[:, 6 + DYNAMICS.index("eyeBlink_L")]
    assert 3 <= len(blink_peaks(lids)) <= 8, "15 a minute"
    assert made[:, :3].std(dim=0).min() > 0


def test_idling_is_the_same_as_pushing_silence(pipe, face):
    one, other = session(pipe, face), session(pipe, face)
    one.push_audio(speech(0.5))
    one.idle_until(40)
    other.push_audio(torch.cat([speech(0.5), torch.zeros(5 * 16000)]))
    made = motions(one)
    assert torch.equal(made, motions(other)[: len(made)])


def test_the_head_can_be_kept_still_while_nobody_speaks(pipe, face):
    waveform = torch.cat([speech(1.5), torch.zeros(4 * 16000), speech(1.5)])
    still, alive = (fed_motion(session(pipe, face, WindowPlan.live(hop=10, steps=1), idle=i), waveform) for i in (0, 1))
    assert torch.equal(still[26:36], alive[26:36])
    rest = face.head_pose[0, :3]
    assert (still[110:135, :3] - rest).abs().max() < 1e-5 < (alive[110:135, :3] - rest).abs().max()
    face_only = [6 + i for i, n in enumerate(DYNAMICS) if n.startswith(("mouth", "jaw", "eyeBlink", "brow"))]
    assert torch.equal(still[110:135, face_only], alive[110:135, face_only]), "the face lives on"
    assert (still[-1, :3] - rest).abs().max() > 1e-3, "it moves again with the speech"
    jumps = still[:, :3].diff(dim=0).abs().amax(-1)
    assert jumps[130:].max() <= alive[:, :3].diff(dim=0).abs().max()
    with pytest.raises(vasa.InputError, match="idle"):
        session(pipe, face, idle=3.0)


def fed_motion(one, waveform):
    one.push_audio(waveform)
    one.flush()
    return motions(one)


def test_controls_act_from_the_next_hop_on_and_ease_in(pipe, face):
    plain, changed = session(pipe, face), session(pipe, face)
    for one in (plain, changed):
        one.push_audio(speech(2.0))
    before = [one.pop_motion() for one in (plain, changed)]
    changed.set_controls(vasa.Controls(steps=2, gaze=(0.4, 0.0)))
    a, b = motions(plain), motions(changed)
    assert torch.equal(before[0].vectors, before[1].vectors)
    assert not torch.equal(a[:5], b[:5])


def test_a_schedule_eases_from_one_setting_to_the_next():
    schedule = ControlSchedule([(0, vasa.Controls())])
    schedule.change(50, vasa.Controls(gaze=(0.5, 0.0)))
    gaze = schedule.curves(range(40, 70), 25.0).gaze[:, 0]
    assert (gaze[:10] == 0).all() and (gaze[10 + EASE :] == 0.5).all()
    assert gaze.diff().min() >= 0 and gaze.diff().max() < 0.1
    assert torch.equal(gaze[13:20], schedule.curves(range(53, 60), 25.0).gaze[:, 0])
    schedule.change(50, vasa.Controls(gaze=(-0.5, 0.0)))
    assert len(schedule.entries) == 2 and schedule.curves(range(80, 81), 25.0).gaze[0, 0] == -0.5
    schedule.forget(59)
    assert len(schedule.entries) == 2
    schedule.forget(60)
    assert len(schedule.entries) == 1


@pytest.mark.parametrize(
    "samples, message",
    [
        (torch.zeros(2, 100), "mono"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
        (np.zeros(100, np.int32), "int32"),
    ],
    ids=["stereo", "nan", "int32"],
)
def test_sound_that_cannot_be_used_is_named(pipe, face, samples, message):
    one = session(pipe, face)
    with pytest.raises(vasa.InputError, match=message):
        one.push_audio(samples)
    assert one.seconds == 0


def test_int16_is_sound_too(pipe, face):
    whole = (speech(1.0) * 32767).round()
    a, b = session(pipe, face), session(pipe, face)
    a.push_audio(whole.to(torch.int16).numpy())
    b.push_audio(whole / 32768)
    assert torch.equal(motions(a), motions(b))


def test_the_rate_changes_only_between_utterances(pipe, face):
    one = session(pipe, face)
    one.push_audio(speech(0.3))
    with pytest.raises(vasa.InputError, match="flush"):
        one.push_audio(speech(0.3, 48000), 48000)
    one.flush()
    one.push_audio(speech(0.3, 48000), 48000)
    with pytest.raises(vasa.InputError, match="between"):
        session(pipe, face).push_audio(speech(0.1), 100)


def test_a_plan_that_the_model_cannot_draw_is_refused(pipe, face):
    with pytest.raises(vasa.InputError, match="at most 50"):
        session(pipe, face, WindowPlan(window=60, hop=40))
    with pytest.raises(vasa.InputError, match="at most 50"):
        session(pipe, face, WindowPlan(first=14))


def test_a_sound_buffer_is_silent_outside():
    buffer = SoundBuffer(torch.arange(1.0, 11.0), 100)
    assert buffer.piece(98, 103).tolist() == [0, 0, 1, 2, 3] and buffer.piece(108, 112).tolist() == [9, 10, 0, 0]
    assert buffer.piece(90, 95).tolist() == [0] * 5 and buffer.piece(200, 202).tolist() == [0, 0]
    buffer.keep(first=104, last=108)
    assert (buffer.start, buffer.end, buffer.samples.tolist()) == (104, 108, [5, 6, 7, 8])
    buffer.append(torch.tensor([1.0]))
    assert buffer.piece(107, 110).tolist() == [8, 1, 0]
