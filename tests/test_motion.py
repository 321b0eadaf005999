"""Laws of the motion generator."""

import math

import pytest
import torch

from vasa.audio import AudioEncoder
from vasa.config import TINY
from vasa.controls import Controls
from vasa.latents import DYNAMICS, Motion
from vasa.motion import diffusion
from vasa.motion.blinks import blink_closure, with_blinks
from vasa.motion.conditions import NAMES, Conditions, nothing_empty, random_empty
from vasa.motion.transformer import Denoiser
from vasa.motion.windows import MotionState, WindowPlan, calm, generate, next_window, sound_of

K, W, M, A = 10, 50, TINY.motion_dim, 33


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    return Denoiser(TINY.motion, M, A).eval()


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return AudioEncoder(TINY.audio).eval()


def conditions(batch=2, length=W, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Conditions(
        audio=torch.randn(batch, length, A, generator=g),
        heard=torch.ones(batch, length),
        gaze=torch.randn(batch, length, 2, generator=g) * 0.1,
        distance=torch.randn(batch, length, 1, generator=g) * 0.1,
        emotion=torch.rand(batch, length, 8, generator=g),
        previous_motion=torch.randn(batch, K, M, generator=g),
        previous_audio=torch.randn(batch, K, A, generator=g),
        empty=nothing_empty(batch),
    )


def test_schedule_falls_from_clean_to_noise():
    levels = diffusion.alpha_bar(torch.arange(-1, 1000), 1000)
    assert levels[0] == 1 and levels[-1] < 1e-3
    assert (levels.diff() <= 0).all()


def test_noise_keeps_unit_variance():
    x_0 = torch.randn(64, 50, 8)
    for t in (0, 300, 999):
        x_t = diffusion.add_noise(x_0, torch.full((64,), t), torch.randn_like(x_0), 1000)
        assert x_t.std() == pytest.approx(1.0, abs=0.05)


def test_guidance_weights_are_equation_2():
    names, weights = diffusion.guidance_weights({"audio": 0.5, "gaze": 1.0, "emotion": 0.0})
    assert names == ["audio", "gaze"] and weights.tolist() == [2.5, -0.5, -1.0]
    assert weights.sum() == 1


def test_an_oracle_denoiser_is_sampled_exactly(denoiser):
    """DDIM from any noise ends at x_0 when the prediction is x_0."""

    class Oracle:
        config, mean, low, high = TINY.motion, denoiser.mean, denoiser.low, denoiser.high
        target = torch.randn(1, W, M, generator=torch.Generator().manual_seed(3))
        normalise = staticmethod(lambda x: x)

        def __call__(self, x_t, t, rows):
            return self.target.expand_as(x_t)

    drawn = diffusion.sample(
        Oracle(), conditions(1), W, scales={"audio": 0.5}, steps=7, generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose(drawn, Oracle.target, atol=1e-4)


def test_zero_guidance_is_the_plain_prediction(denoiser):
    def draw(scales):
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            return diffusion.sample(denoiser, conditions(1), W, scales=scales, steps=3, generator=generator)

    assert torch.equal(draw({}), draw({"audio": 0.0}))
    assert not torch.equal(draw({}), draw({"audio": 1.0}))


@pytest.mark.parametrize("name", NAMES)
def test_every_condition_and_its_absence_changes_the_prediction(denoiser, name):
    given = conditions()
    x_t, t = torch.randn(2, W, M), torch.tensor([500, 100])
    with torch.inference_mode():
        full, without = denoiser(x_t, t, given), denoiser(x_t, t, given.without(name))
    assert (full - without).abs().max() > 1e-5
    assert not given.empty[name].any(), "the original conditions stay as they were"


def test_a_withheld_condition_does_not_leak(denoiser):
    x_t, t = torch.randn(2, W, M), torch.tensor([500, 100])
    for name in NAMES:
        field = {"previous": "previous_motion"}.get(name, name)
        a = conditions().without(name)
        values = {f: getattr(a, f) for f in a.__dataclass_fields__}
        values[field] = torch.randn_like(values[field])
        if name == "previous":
            values["previous_audio"] = torch.randn_like(values["previous_audio"])
        with torch.inference_mode():
            assert torch.equal(denoiser(x_t, t, a), denoiser(x_t, t, Conditions(**values)))


def test_frames_have_positions(denoiser):
    """Reversing the frames must not merely reverse the answer (a dead positional encoding does that)."""
    c = conditions()
    x_t, t = torch.randn(2, W, M), torch.tensor([500, 100])
    flipped = {f: getattr(c, f) for f in c.__dataclass_fields__}
    for name in ("audio", "heard", "gaze", "distance", "emotion"):
        flipped[name] = flipped[name].flip(1)
    with torch.inference_mode():
        there, back = denoiser(x_t, t, c), denoiser(x_t.flip(1), t, Conditions(**flipped)).flip(1)
    assert (there - back).abs().max() > 1e-4


def test_dropout_of_conditions_has_the_papers_rates():
    drawn = random_empty(20_000, torch.Generator().manual_seed(0))
    for name in NAMES:
        assert drawn[name].float().mean() == pytest.approx(0.5 if name == "previous" else 0.1, abs=0.015)


@pytest.mark.parametrize("seconds", [0.2, 1.99, 2.0, 4.7])
def test_windows_cover_every_frame_once(denoiser, encoder, seconds):
    frames = math.ceil(seconds * 25)
    controls = Controls(steps=2, guidance={})
    with torch.inference_mode():
        pieces = list(
            generate(denoiser, encoder, torch.randn(round(seconds * 16000)), controls.curves(frames), controls,
                     frames, WindowPlan(W))
        )  # fmt: skip
    assert sum(p.shape[1] for p in pieces) == frames


def test_sound_of_a_stretch_does_not_depend_on_what_comes_later(encoder):
    waveform = torch.randn(16000 * 6)
    with torch.inference_mode():
        short = sound_of(encoder, waveform[: 16000 * 3], 20, 40, 10, 25)
        long = sound_of(encoder, waveform, 20, 40, 10, 25)
    assert torch.equal(short, long)


def test_later_sound_leaves_earlier_windows_alone(denoiser, encoder):
    controls = Controls(steps=2)
    waveform = torch.randn(16000 * 6)
    changed = waveform.clone()
    changed[16000 * 4 :] = 0
    with torch.inference_mode():
        a, b = (
            next_window(denoiser, encoder, w, controls.curves(150), controls, MotionState(), WindowPlan(W),
                        torch.Generator().manual_seed(0))[0]
            for w in (waveform, changed)
        )  # fmt: skip
    assert torch.equal(a, b)


def test_motion_is_the_seeds(denoiser, encoder):
    waveform = torch.randn(16000 * 3)

    def run(seed):
        controls = Controls(steps=2, seed=seed)
        with torch.inference_mode():
            return torch.cat(
                list(generate(denoiser, encoder, waveform, controls.curves(75), controls, 75, WindowPlan(W))),
                1,
            )

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_known_frames_stay_and_lead_on(denoiser):
    """The frames of the window before come back unchanged, and their offset fades out behind them."""

    class Flat:
        config, mean, low, high = TINY.motion, denoiser.mean, denoiser.low, denoiser.high
        normalise = staticmethod(lambda x: x)

        def __call__(self, x_t, t, rows):
            return torch.zeros_like(x_t)

    known = torch.ones(1, 10, M)
    drawn = diffusion.sample(
        Flat(), conditions(1), W, scales={}, steps=3, generator=torch.Generator().manual_seed(0), known=known
    )
    assert torch.equal(drawn[:, :10], known)
    steps = drawn[0, 9:].diff(dim=0)
    assert steps[0].abs().max() < 0.03, "no jump where the known frames end"
    assert (steps <= 1e-6).all()
    assert drawn[:, 10 + diffusion.FACE_FADE :, 6:].abs().max() < 1e-4
    assert drawn[:, 10 + diffusion.POSE_FADE :].abs().max() < 1e-4


def test_windows_are_counted_as_they_are_drawn(denoiser, encoder):
    plan = WindowPlan(W)
    controls = Controls(steps=1, guidance={})
    for frames in (1, 50, 51, 90, 91, 200):
        curves = controls.curves(frames)
        with torch.inference_mode():
            pieces = generate(denoiser, encoder, torch.zeros(frames * 640), curves, controls, frames, plan)
            assert len(list(pieces)) == plan.count(frames)


def test_blinks_come_at_the_rate_asked_for_and_close_fully():
    closure = blink_closure(25 * 600, 25.0, 17.0, torch.Generator().manual_seed(0))
    peaks = (closure[1:-1] > closure[:-2]) & (closure[1:-1] >= closure[2:])
    assert peaks.sum().item() / 10 == pytest.approx(17, rel=0.2)
    assert (closure[1:-1][peaks] == 1).float().mean() > 0.95
    assert (closure > 0).float().mean() < 0.15


def test_blinks_touch_the_lids_alone():
    motion = Motion(torch.zeros(500, 6), torch.zeros(500, 59))
    blinking = with_blinks(motion, DYNAMICS, 17.0, seed=0)
    moved = [DYNAMICS[i] for i in (blinking.facial_dynamics != 0).any(0).nonzero()[:, 0].tolist()]
    assert moved == ["eyeBlink_L", "eyeBlink_R"]
    assert with_blinks(motion, (), 17.0, seed=0) is motion
    assert with_blinks(motion, DYNAMICS, 0.0, seed=0) is motion


def test_calming_removes_tremor_from_the_pose_alone():
    motion = torch.zeros(1, 40, M)
    motion[:, ::2] = 1.0  # 12.5 Hz at 25 fps
    smooth = calm(motion)
    assert (smooth[:, 5:-5, :6] - 0.5).abs().max() < 0.02
    assert torch.equal(smooth[..., 6:], motion[..., 6:])
    constant = torch.full((1, 40, M), 0.7)
    assert torch.allclose(calm(constant), constant, atol=1e-6)
