"""Laws of the measures, on cases whose answer is known."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vasa.errors import InputError
from vasa.latents import DYNAMICS, FaceLatents, Motion
from vasa.metrics import (
    clips,
    controls,
    evaluate,
    identity,
    lips,
    motion_quality,
    picture,
    pose,
    probes,
    real,
    report,
)
from vasa.metrics.instrument import regression_slope
from vasa.metrics.people import Talker, blink_of
from vasa.motion.plan import WindowPlan
from vasa.synthetic.person import PARTS
from vasa.synthetic.phones import VISEME_OF, Segment

FPS = 25.0


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spoken(*phones: tuple[str, float]) -> clips.Spoken:
    """Phones with their lengths, over silence."""
    segments, time = [], 0.0
    for phone, length in phones:
        segments.append(Segment(time, time + length, phone, VISEME_OF[phone]))
        time += length
    return clips.Spoken(torch.zeros(round(time * clips.RATE)), tuple(segments))


def clip(said: clips.Spoken, opening: torch.Tensor, jaw: torch.Tensor | None = None) -> clips.Clip:
    """A clip whose reading is given; closed lips read 0.02, an "ah" 0.22."""
    frames = len(opening)
    motion = Motion(torch.zeros(frames, 6), torch.zeros(frames, len(DYNAMICS)), FPS)
    face = FaceLatents(*(torch.zeros(1) for _ in range(5)))
    return clips.Clip(said, motion, opening if jaw is None else jaw, opening, Talker(face, 0.02, 0.22, 0.9, None))


def test_psnr_of_a_known_error_counts_the_mask_alone():
    truth = torch.zeros(1, 3, 8, 8)
    pictures = truth.clone()
    pictures[..., :4] = 0.1
    pictures[..., 4:] = 0.9
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    assert picture.psnr(pictures, truth, mask).item() == pytest.approx(20.0, abs=1e-3)


def test_sharpness_falls_with_blur_and_is_one_for_the_truth():
    truth = noise(2, 3, 32, 32).mul(0.1).add(0.5)
    mask = torch.ones(2, 1, 32, 32)
    blurred = F.avg_pool2d(truth, 3, 1, 1)
    assert picture.sharpness(truth, truth, mask).tolist() == pytest.approx([1.0, 1.0])
    assert (picture.sharpness(blurred, truth, mask) < 0.5).all()


def test_gradient_energy_of_a_ramp_is_its_slope_squared():
    ramp = (torch.arange(16) * 0.02).expand(1, 3, 16, 16)
    assert picture.gradient_energy(ramp, torch.ones(1, 1, 16, 16)).item() == pytest.approx(4e-4, rel=1e-4)


def test_face_area_leaves_out_hair_and_its_own_border():
    part = torch.full((1, 16, 16), PARTS.index("hair"), dtype=torch.uint8)
    part[:, 4:12, 4:12] = PARTS.index("skin")
    area = picture.face_area(part, 32)
    assert area.sum() == (6 * 2) ** 2
    assert picture.foreground(part, 32).mean() == 1


def test_probe_finds_what_is_linear_and_nothing_in_noise():
    codes, people = noise(400, 20), torch.arange(100).repeat_interleave(4)
    labels = codes[:, :5] @ noise(5, 3, seed=1) + 0.7
    assert probes.explained(codes, labels, people) > 0.99
    assert probes.explained(codes, noise(400, 3, seed=2), people) < 0.1


def test_probe_is_the_closed_form_of_ridge():
    codes, labels = noise(50, 3).double(), noise(50, 2, seed=1).double()
    penalty = 0.3
    x = (codes - codes.mean(0)) / codes.std(0)
    y = labels - labels.mean(0)
    expected = torch.linalg.lstsq(
        torch.cat([x, math.sqrt(50 * penalty) * torch.eye(3)]), torch.cat([y, torch.zeros(3, 2)])
    ).solution
    assert torch.allclose(probes.fit(codes, labels, penalty).weight, expected.double(), atol=1e-6)


def test_people_are_named_from_codes_that_carry_them_only():
    people, frames = torch.arange(10).repeat_interleave(5), torch.arange(5).repeat(10)
    own = noise(10, 16).repeat_interleave(5, 0)
    assert probes.named(own + 0.1 * noise(50, 16, seed=1), people, frames) == 1.0
    assert probes.named(noise(50, 16, seed=2), people, frames) < 0.4


def test_r_squared_of_the_mean_is_zero():
    truth = noise(30, 2)
    assert probes.r_squared(truth.mean(0).expand(30, 2), truth) == pytest.approx(0.0, abs=1e-9)
    assert probes.r_squared(truth, truth) == pytest.approx(1.0)


def test_retrieval_counts_who_is_most_like_themselves():
    gallery = F.normalize(noise(8, 16), dim=1)
    queries = gallery.clone()
    queries[0] = gallery[1]
    assert identity.retrieval(queries, gallery) == pytest.approx(7 / 8)


def test_requested_poses_stay_within_limits_whatever_the_portrait():
    portrait = torch.tensor([0.3, -0.1, 0.1, 0.05, 0.02, -0.3])
    poses = pose.requested_poses(portrait, 200, torch.Generator().manual_seed(0))
    reach = poses[:, :3].rad2deg().abs().amax(0)
    assert (reach <= torch.tensor(pose.LIMITS_DEGREES) + 1e-4).all() and reach[0] > 28
    assert pose.at_yaw(portrait, (-20.0, 20.0))[:, 0].rad2deg().tolist() == pytest.approx([-20, 20], abs=1e-4)


def test_pose_error_is_the_mean_over_angles():
    asked = torch.zeros(2, 6)
    seen = asked.clone()
    seen[:, 0] = math.radians(3.0)
    assert pose.rotation_error(seen, asked).tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_a_face_may_be_off_by_an_angle_of_its_own_but_gains_nothing_else_by_that():
    generator = torch.Generator().manual_seed(6)
    asked = torch.randn(400, 3, 6, generator=generator)
    tilted = asked + 0.5 * torch.randn(400, 1, 6, generator=generator)
    assert pose.angle_fits(tilted, asked)["pitch"] == pytest.approx(0.75, abs=0.04)
    assert pose.angle_fits(tilted, asked, own_offset=True)["pitch"] == pytest.approx(1.0)
    noisy = asked + 0.5 * torch.randn(400, 3, 6, generator=generator)
    for own_offset in (False, True):
        assert pose.angle_fits(noisy, asked, own_offset)["pitch"] == pytest.approx(0.75, abs=0.03)


def test_correlation_falls_when_a_curve_is_shifted_and_the_lag_is_found():
    curve = noise(200)
    late = curve.roll(3)
    assert lips.correlation(curve, 2 * curve + 1) == pytest.approx(1.0)
    assert abs(lips.correlation(late, curve)) < 0.2
    assert lips.shifted_correlation(late, curve, 3) == pytest.approx(1.0)
    assert lips.shifted_correlation(curve, late, -3) == pytest.approx(1.0)
    assert lips.correlation(curve, torch.ones(200)) == 0.0


SENTENCE = [("sil", 0.3), *[("aa", 0.16), ("m", 0.12), ("ih", 0.1), ("s", 0.12), ("aa", 0.2), ("b", 0.1)] * 4]


def test_lips_that_follow_the_phones_score_one_and_a_wrong_clip_less():
    said, other = spoken(*SENTENCE), spoken(*SENTENCE[::-1])
    curves = [lips.true_jaw(s, math.ceil(s.seconds * FPS), FPS) for s in (said, other)]
    both = [clip(s, c) for s, c in zip((said, other), curves, strict=True)]
    assert lips.lip_sync(both) == pytest.approx([1.0, 1.0])
    assert max(lips.wrong_sync(both)) < 0.6
    assert max(lips.shifted_sync(both)) < 0.6
    late = [clip(s, c.roll(2)) for s, c in zip((said, other), curves, strict=True)]
    assert lips.best_lag(late) == 2


def test_closures_need_closed_lips_within_the_phone():
    said = spoken(("aa", 0.4), ("m", 0.12), ("aa", 0.4), ("b", 0.12), ("aa", 0.4))
    opening = torch.full((36,), 0.2)
    opening[10:13] = 0.03  # the m
    assert lips.closures(clip(said, opening)) == [True, False]
    assert lips.closures(clip(said, torch.full((36,), 0.2))) == [False, False]


def test_an_open_mouth_in_silence_is_measured_against_its_range_in_speech():
    said = clips.with_silence(spoken(("aa", 2.0)), 1.0)
    opening = torch.full((75,), 0.22)
    opening[50:] = 0.07
    shares = lips.silent_opening(clip(said, opening))
    assert len(shares) > 10 and shares.mean().item() == pytest.approx(0.25, abs=1e-4)


def test_short_pauses_are_no_silence():
    said = spoken(("aa", 0.4), ("sil", 0.2), ("aa", 0.4), ("sil", 0.3), ("sil", 0.3))
    rest = lips.resting(said.segments, 40, FPS)
    assert not rest[:28].any() and rest[30:35].all()


def test_pose_intensity_is_the_mean_step():
    head = torch.zeros(50, 6)
    head[:, 0] = torch.arange(50) * math.radians(0.6)
    assert motion_quality.pose_intensity(head) == pytest.approx(0.2, rel=1e-4)


def test_jitter_hears_ten_hertz_and_not_one_and_knows_its_size():
    time = torch.arange(500, dtype=torch.float64) / FPS
    slow, fast = (motion_quality.jitter(0.01 * torch.sin(2 * math.pi * f * time), FPS) for f in (1.0, 10.0))
    assert fast.acceleration > 1000 * slow.acceleration
    assert fast.amplitude == pytest.approx(0.01 / math.sqrt(2), rel=0.02)
    assert slow.amplitude < 1e-5


def test_a_jump_at_every_seam_is_found():
    generator = torch.Generator().manual_seed(0)
    smooth = noise(400, 4).mul(0.01).cumsum(0)
    plan = WindowPlan(window=50, overlap=10, hop=40)
    assert motion_quality.seam_frames(131, plan) == [50, 90, 130]
    assert motion_quality.seam_frames(131, plan, 5) == [55, 95]
    broken = smooth + 0.05 * ((torch.arange(400) - 10) // 40).clamp_min(0)[:, None]
    found = [
        motion_quality.seams([motion_quality.seam_jumps(m, torch.ones(4), plan)], generator) for m in (smooth, broken)
    ]
    assert found[0].count == 9 and found[0].low < 1.1 and found[0].high > 0.9
    assert found[1].ratio > 3 and found[1].low > 2
    at, elsewhere = motion_quality.seam_jumps(broken, torch.ones(4), plan, reach=5)
    assert len(at) == 9 * 5 and len(elsewhere) == 399 - 45


def test_blinks_are_counted_once_each_and_half_blinks_are_not():
    closure = torch.zeros(100)
    closure[10:14] = torch.tensor([0.6, 0.95, 0.6, 0.3])
    closure[14] = 0.6  # the same blink, not yet open
    closure[40:43] = torch.tensor([0.3, 0.4, 0.3])
    closure[70:72] = torch.tensor([0.7, 0.9])
    assert motion_quality.blink_peaks(closure) == [11, 71]
    assert motion_quality.blink_peaks(torch.zeros(20)) == []


def test_blink_is_the_mean_of_both_lids():
    dynamics = torch.zeros(1, len(DYNAMICS))
    dynamics[0, DYNAMICS.index("eyeBlink_L")] = 1.0
    assert blink_of(dynamics).item() == 0.5


def test_slope_ignores_offsets_of_faces_and_monotone_wants_every_step():
    asked = torch.tensor([-1.0, 0.0, 1.0])
    answers = torch.stack([0.9 * asked + 5, 0.9 * asked - 2])
    assert controls.slope(asked, answers) == pytest.approx(0.9)
    assert controls.is_monotone(answers)
    assert not controls.is_monotone(torch.tensor([[0.0, 1.0, 1.0]]))


def test_what_a_reader_shrinks_in_true_pictures_too_is_not_the_faces_fault():
    asked, half = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(0.5)
    generated = 0.9 * asked[None]
    found = controls.Sweep(asked, 0.8 * half * generated + 3, generated, half * generated)
    assert found.slope == pytest.approx(0.8 * 0.9)
    assert replace(found, rendered=None).slope == pytest.approx(0.8 * 0.9 * 0.5)
    assert replace(found, rendered=0 * generated).slope == pytest.approx(0.8 * 0.9 * 0.5), "a blind reader"
    assert replace(found, generated=0 * generated).slope == pytest.approx(0.8 * 0.9 * 0.5), "a deaf generator"


def test_a_judge_that_shrinks_what_it_sees_has_a_small_slope():
    truth = noise(100)
    assert regression_slope(0.6 * truth + 3, truth) == pytest.approx(0.6)


def test_voiced_energy_is_quiet_in_pauses_only():
    time = torch.arange(16000) / 16000
    tone = 0.3 * torch.sin(2 * math.pi * 150 * time) * (1 + 0.3 * torch.sin(2 * math.pi * 300 * time))
    energy, quiet = real.voiced_energy(torch.cat([tone, torch.zeros(16000), tone]), 75, FPS)
    assert energy[5:20].mean() > 0.5 and energy[32:42].max() < 0.05
    assert quiet[30:45].all() and not quiet[:23].any() and not quiet[52:].any()


def test_speech_is_cut_at_phones_and_joined_in_time():
    first = spoken(("aa", 0.5), ("m", 0.3), ("aa", 0.4))
    short = clips.shortened(first, 0.9)
    assert [s.phone for s in short.segments] == ["aa", "m"] and short.seconds == pytest.approx(0.8)
    both = clips.joined([short, first])
    assert both.seconds == pytest.approx(2.0)
    assert both.segments[2].start == pytest.approx(0.8) and both.speech_end == pytest.approx(2.0)


def test_training_speech_is_refused():
    class Heard:
        validation = [True, False]

    with pytest.raises(InputError, match="validation"):
        clips.require_unheard(Heard())


def test_results_are_a_table_without_paths(tmp_path):
    rows = [
        report.Row("a", "≥ 1", "2 dB", True, "measured so."),
        report.not_measured("b", "≤ 1", "no pictures were given"),
    ]
    path = tmp_path / "results.md"
    report.write_results(path, "tiny", rows, {"Machine": "a processor"})
    text = path.read_text()
    assert "| a | ≥ 1 | 2 dB | yes |" in text
    assert "| b | ≤ 1 | not measured: no pictures were given | – |" in text
    assert [p.name for p in path.parent.iterdir()] == ["results.md"]
    path.write_text(text + f"\n{report.KEPT}\n\nby hand\n")
    report.write_results(path, "tiny", rows[:1], {"Machine": "another"})
    again = path.read_text()
    assert "another" in again and "| b |" not in again and again.endswith(f"\n\n{report.KEPT}\n\nby hand\n")


def test_the_command_names_no_folders_of_this_machine(tmp_path):
    line = evaluate.command(tmp_path / "mine", {"corpus": tmp_path / "speech", "quick": True, "clips": None})
    assert line == "vasa evaluate --model mine --corpus speech --quick"


def test_evaluation_refuses_missing_folders_before_it_loads_anything(tmp_path):
    with pytest.raises(InputError, match="speech"):
        evaluate.evaluate("no-such-model", tmp_path / "results.md", corpus=tmp_path)
    with pytest.raises(InputError, match=r"\.md"):
        evaluate.evaluate("no-such-model", tmp_path / "results.txt")
    with pytest.raises(InputError, match="at least 4 people"):
        evaluate.evaluate("no-such-model", tmp_path / "results.md", people=2)
    assert not (tmp_path / "results.md").exists()
