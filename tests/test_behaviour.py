"""Head, eyes, lids and mood of synthetic people, on a made-up voice."""

import math

import pytest
import torch

from vasa.geometry import AVERAGE_LOG_SCALE, NECK, rotation
from vasa.latents import EMOTIONS, EXPRESSIONS
from vasa.synthetic.behaviour import behave
from vasa.synthetic.eyes import BLINK_SECONDS, MAX_EYE, blink_times, eye_in_head, lids
from vasa.synthetic.phones import VISEME_OF, Segment
from vasa.synthetic.prosody import prosody

RATE = 16_000
DEGREE = math.pi / 180


def voice(seconds, period=0.5):
    """A buzz with an accented syllable every `period` seconds, and its segments."""
    segments, time = [], 0.0
    times = torch.arange(int(seconds * RATE)) / RATE
    accent = torch.exp(-0.5 * (((times % period) - period / 2) / 0.06) ** 2)
    phase = (2 * math.pi * (120 + 40 * accent) / RATE).cumsum(0)
    waveform = sum(torch.sin(k * phase) / k for k in range(1, 8)) * (0.02 + 0.2 * accent)
    while time < seconds - 1e-6:
        for phone, share in (("m", 0.25), ("aa", 0.55), ("t", 0.2)):
            segments.append(Segment(time, time + share * period, phone, VISEME_OF[phone]))
            time += share * period
    return waveform.float(), tuple(segments)


def draw(seed, seconds=6.0, **given):
    return behave(*voice(seconds), torch.Generator().manual_seed(seed), **given)


def column(behaviour, name):
    return behaviour.dynamics[:, EXPRESSIONS.index(name)]


def test_shapes_and_ranges():
    behaviour = draw(0, 5.03)
    frames = math.ceil(5.03 * 25)
    assert behaviour.head_pose.shape == (frames, 6)
    assert behaviour.dynamics.shape == (frames, 59)
    assert behaviour.gaze.shape == (frames, 2)
    assert behaviour.distance.shape == (frames, 1)
    assert behaviour.visemes.shape == (frames,) and behaviour.visemes.dtype == torch.int64
    weights = behaviour.dynamics[:, :57]
    assert 0 <= weights.min() and weights.max() <= 1
    assert behaviour.emotion.sum() == pytest.approx(1.0)
    assert all(torch.isfinite(t).all() for t in (behaviour.head_pose, behaviour.dynamics))


def test_generator_decides_everything():
    first, second, other = draw(7), draw(7), draw(8)
    assert torch.equal(first.dynamics, second.dynamics) and torch.equal(first.head_pose, second.head_pose)
    assert not torch.equal(first.head_pose, other.head_pose)


def test_gaze_is_head_plus_eyes():
    requested = (14 * DEGREE, -8 * DEGREE)
    errors, shares = [], []
    for seed in range(12):
        behaviour = draw(seed, 8.0, gaze=requested)
        total = behaviour.head_pose[:, :2] + behaviour.dynamics[:, 57:]
        assert torch.allclose(behaviour.gaze, torch.tensor(requested).expand_as(behaviour.gaze))
        errors.append((total - behaviour.gaze).mean(dim=0))
        shares.append(behaviour.head_pose[:, 0].mean() / requested[0])
    assert torch.stack(errors).mean(dim=0).abs().max() < 1.5 * DEGREE
    assert torch.stack(errors).abs().max() < 6 * DEGREE
    assert 0.15 < torch.stack(shares).mean() < 0.6


def test_eyes_compensate_the_head_within_their_range():
    target = torch.tensor([[0.2, 0.1], [1.0, -1.0]])
    head = torch.tensor([[0.15, -0.05, 0.3], [0.0, 0.0, 0.0]])
    eye = eye_in_head(target, head)
    assert torch.allclose(eye[0], torch.tensor([0.05, 0.15]))
    assert torch.allclose(eye[1], torch.tensor([MAX_EYE[0], -MAX_EYE[1]]))


def test_lids_follow_the_gaze():
    down, up = (
        lids(torch.tensor([[0.0, 0.2]]), torch.zeros(1)),
        lids(torch.tensor([[0.0, -0.2]]), torch.zeros(1)),
    )
    look_down, look_up = EXPRESSIONS.index("eyeLookDown_L"), EXPRESSIONS.index("eyeLookUp_L")
    assert down[0, look_down] > 0.3 and down[0, look_up] == 0
    assert up[0, look_up] > 0.3 and up[0, look_down] == 0
    # looking to the picture's left is inwards for the person's left eye
    left = lids(torch.tensor([[0.3, 0.0]]), torch.zeros(1))[0]
    assert left[EXPRESSIONS.index("eyeLookIn_L")] > 0.2 and left[EXPRESSIONS.index("eyeLookOut_L")] == 0
    assert left[EXPRESSIONS.index("eyeLookOut_R")] > 0.2 and left[EXPRESSIONS.index("eyeLookIn_R")] == 0


def test_blink_rate():
    counts = [len(blink_times(60.0, [], [], torch.Generator().manual_seed(s))) for s in range(40)]
    assert 0.85 < sum(counts) / len(counts) * BLINK_SECONDS / 60.0 < 1.15


def test_every_blink_is_seen():
    blinks, seconds = 0, 0.0
    for seed in range(8):
        behaviour = draw(seed, 12.0, emotion=torch.eye(8)[0], gaze=(0.0, 0.0))
        closed = column(behaviour, "eyeBlink_L") > 0.7
        blinks += int((closed[1:] & ~closed[:-1]).sum())
        seconds += 12.0
    assert 9 < 60 * blinks / seconds < 30


def test_head_is_calm_above_5_hz():
    for seed in range(6):
        pose = draw(seed, 10.0).head_pose
        centred = (pose - pose.mean(dim=0)) * torch.hann_window(len(pose))[:, None]
        power = torch.fft.rfft(centred, dim=0).abs().square()
        frequency = torch.fft.rfftfreq(len(pose), 1 / 25)
        assert (power[frequency > 5].sum(dim=0) / power.sum(dim=0)).max() < 1e-3


def test_head_moves_like_a_head():
    angles = torch.cat([draw(seed, 8.0).head_pose[:, :3] for seed in range(12)]) / DEGREE
    spread = angles.std(dim=0)
    assert 2 < spread[0] < 12 and 1.5 < spread[1] < 9 and 0.7 < spread[2] < 6
    assert angles.abs().amax() < 50


def test_energy_moves_the_head_more():
    def amount(energy):
        return sum(draw(s, energy=energy, gaze=(0.0, 0.0)).head_pose[:, :3].std(dim=0).sum() for s in range(6))

    assert amount(1.3) > 1.8 * amount(0.4)


def test_nods_follow_accents():
    waveform, segments = voice(8.0, period=1.0)
    total = torch.zeros(25)
    for seed in range(24):
        generator = torch.Generator().manual_seed(seed)
        pitch = behave(waveform, segments, generator, gaze=(0.0, 0.0), energy=1.0).head_pose[:, 1]
        total += pitch.view(-1, 25).mean(dim=0)
    # accents are in the middle of every second; the nod peaks there or a frame or two later
    assert 11 <= int(total.argmax()) <= 15


def test_neck_stays_put_apart_from_sway():
    drifts = []
    for seed in range(6):
        pose = draw(seed).head_pose
        neck = pose[:, 5:].exp() * (rotation(pose[:, :3]) @ torch.tensor(NECK))[:, :2] + pose[:, 3:5]
        still = pose[:, 5:].exp() * torch.tensor(NECK)[:2]
        drifts.append((neck - still).abs().max())
    assert max(drifts) < 0.06


def test_distance_sets_the_scale():
    behaviour = draw(1, distance=1.25)
    assert torch.allclose(behaviour.distance, torch.full_like(behaviour.distance, 1.25))
    assert behaviour.head_pose[:, 5].mean() == pytest.approx(AVERAGE_LOG_SCALE - math.log(1.25), abs=0.04)


def test_emotion_shows():
    happy, sad = (torch.eye(8)[EMOTIONS.index(name)] for name in ("happy", "sad"))
    smile = column(draw(2, emotion=happy), "mouthSmile_L").mean()
    frown = column(draw(2, emotion=sad), "mouthFrown_L").mean()
    assert smile > 0.3 and frown > 0.25
    assert column(draw(2, emotion=sad), "mouthSmile_L").mean() < 0.3 * smile


def test_silence_keeps_the_mouth_shut_and_the_person_alive():
    behaviour = behave(
        torch.zeros(10 * RATE), (), torch.Generator().manual_seed(0), emotion=torch.eye(8)[0], gaze=(0.0, 0.0)
    )
    assert column(behaviour, "jawOpen").max() == 0
    assert behaviour.visemes.max() == 0
    assert behaviour.head_pose[:, :3].std(dim=0).min() > 0.1 * DEGREE
    assert column(behaviour, "eyeBlink_L").max() > 0.8


def test_prosody_finds_pitch_and_accents():
    waveform, _ = voice(4.0, period=0.8)
    said = prosody(waveform)
    assert said.voiced.float().mean() > 0.4
    middles = torch.arange(5) * 0.8 + 0.4
    assert (said.accents[:, None] - middles).abs().amin(dim=1).max() < 0.08
    assert len(said.accents) >= 4
    assert len(prosody(torch.zeros(RATE)).accents) == 0
