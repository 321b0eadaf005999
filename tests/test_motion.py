"""Laws of the motion generator."""

from types import SimpleNamespace

import pytest
import torch

from vasa.audio import AudioEncoder
from vasa.config import TINY
from vasa.controls import Controls
from vasa.errors import InputError
from vasa.motion import diffusion, windows
from vasa.motion.conditions import NAMES, Conditions, nothing_empty, random_empty
from vasa.motion.plan import WindowPlan
from vasa.motion.transformer import Denoiser
from vasa.motion.windows import MotionState, calm, next_window, sound_of

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


def window(denoiser, encoder, waveform, state=None, plan=None, controls=None, steps=2, seed=0):
    controls = controls or Controls(guidance={})
    with torch.inference_mode():
        return next_window(
            denoiser, encoder, waveform, lambda frames: controls.curves(len(frames)), state or MotionState(),
            plan or WindowPlan.full(W), scales=controls.guidance, steps=steps, seed=seed,
        )  # fmt: skip


@pytest.mark.parametrize(
    "plan",
    [
        WindowPlan.full(W), WindowPlan.live(), WindowPlan.live(20, 5), WindowPlan(30, 5, 7, 0),
        WindowPlan.live(overlap=38, lead=38), WindowPlan.live(overlap=10, lead=38),
    ],
)  # fmt: skip
def test_windows_give_every_frame_once_and_hear_no_further_than_they_say(plan):
    frame = 0
    while frame < 200:
        span = plan.span(frame, K)
        assert span.start + span.known == frame and span.kept >= 1
        assert span.known + span.kept <= span.length <= W
        assert span.needs == frame + span.kept + plan.look_ahead
        assert span.has_past == (frame > 0 and span.start - K >= -plan.lead)
        frame += span.kept
    assert plan.largest(K) <= W


@pytest.mark.parametrize(
    "wrong", [dict(overlap=0), dict(hop=46), dict(hop=0), dict(look_ahead=-1), dict(lead=-1), dict(first=51)], ids=str
)
def test_a_plan_that_does_not_add_up_is_refused(wrong):
    with pytest.raises(InputError):
        WindowPlan(**wrong)


def test_a_lead_of_silence_makes_the_first_window_as_long_as_the_others(denoiser, encoder, monkeypatch):
    plan, waveform = WindowPlan.live(overlap=38, lead=38), torch.randn(16000 * 6)
    lengths = [plan.span(frame, K).length for frame in (0, 5, 10, 15, 100)]
    assert lengths == [50] * 5 and plan.span(0, K).start == -38
    first, state = window(denoiser, encoder, waveform, plan=plan)
    second, state = window(denoiser, encoder, waveform, state=state, plan=plan)
    assert first.shape == second.shape == (1, 5, M) and state.frame == 10
    # it is the window of a clip that really begins with that silence, from the same noise
    later = torch.cat([torch.zeros(38 * 640), waveform])
    noise = diffusion.frame_noise
    monkeypatch.setattr(
        windows, "frame_noise", lambda seed, frames, n: noise(seed, range(frames.start - 38, frames.stop - 38), n)
    )
    whole, _ = window(denoiser, encoder, later, plan=WindowPlan(50, 38, 5, 2, 10, first=43))
    assert torch.allclose(whole[:, 38:], first, atol=1e-6)


def test_an_encoder_that_hears_in_pieces_gets_them_where_they_lie_in_the_clip():
    class Pieces:
        stride = 5
        config = SimpleNamespace(sample_rate=16_000)

        def __call__(self, samples, frames):
            begin = int(samples[0, 0]) // 640
            assert samples.shape == (1, frames * 640) and begin % 5 == 0
            return torch.arange(begin, begin + frames)[None, :, None].float()

    clock = torch.arange(640 * 200).float()
    for start, context in ((20, 10), (33, 10), (41, 3)):
        assert torch.equal(sound_of(Pieces(), clock, start, 7, context, 25)[0, :, 0], torch.arange(start, start + 7.0))


def test_sound_of_a_stretch_does_not_depend_on_what_comes_later(encoder):
    waveform = torch.randn(16000 * 6)
    with torch.inference_mode():
        short = sound_of(encoder, waveform[: 16000 * 3], 20, 40, 10, 25)
        long = sound_of(encoder, waveform, 20, 40, 10, 25)
    assert torch.equal(short, long)


@pytest.mark.parametrize("plan", [WindowPlan.full(W), WindowPlan.live()], ids=["full", "live"])
def test_sound_beyond_the_look_ahead_leaves_a_window_alone(denoiser, encoder, plan):
    waveform = torch.randn(16000 * 6)
    known = plan.span(0, K).needs * 640
    a, b, c = (
        window(denoiser, encoder, torch.cat([waveform[:n], torch.zeros(16000 * 6 - n)]), plan=plan)[0]
        for n in (known, 16000 * 6, known - 640)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_motion_is_the_seeds(denoiser, encoder):
    waveform = torch.randn(16000 * 3)
    first, again, other = (window(denoiser, encoder, waveform, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_noise_belongs_to_the_frame_and_the_seed():
    noise = diffusion.frame_noise(3, range(100), 40)
    assert torch.equal(noise[20:30], diffusion.frame_noise(3, range(20, 30), 40))
    assert noise.mean().abs() < 0.05 and noise.std() == pytest.approx(1, abs=0.03)
    correlation = torch.corrcoef(torch.cat([noise, diffusion.frame_noise(4, range(100), 40)]))
    assert (correlation - torch.eye(200)).abs().max() < 0.75, "40 channels: chance gives up to 0.7 among 20,000 pairs"


def test_known_frames_stay_and_lead_on(denoiser):
    """The frames of the window before come back unchanged, and their offset fades out behind them."""

    class Flat:
        config, mean, low, high = TINY.motion, denoiser.mean, denoiser.low, denoiser.high
        normalise = staticmethod(lambda x: x)

        def __call__(self, x_t, t, rows):
            return torch.zeros_like(x_t)

    known = diffusion.Known(torch.ones(1, 13, 6), torch.ones(1, 10, M - 6))
    drawn = diffusion.sample(
        Flat(), conditions(1), W, scales={}, steps=3, generator=torch.Generator().manual_seed(0), known=known
    )
    assert (drawn[:, :10] == 1).all() and (drawn[:, :13, :6] == 1).all(), "the head's path is settled further"
    steps = drawn[0, 9:].diff(dim=0)
    assert steps[0].abs().max() < 0.03 and steps[3, :6].abs().max() < 0.03, "no jump where the known frames end"
    assert (steps <= 1e-6).all()
    assert drawn[:, 10 + diffusion.FACE_FADE :, 6:].abs().max() < 1e-4
    assert drawn[:, 13 + diffusion.POSE_FADE :].abs().max() < 1e-4


@pytest.mark.parametrize("plan", [WindowPlan.full(W), WindowPlan.live(), WindowPlan(30, 5, 7, 0)], ids=str)
def test_the_head_is_smoothed_across_windows_as_if_there_were_none(denoiser, encoder, plan):
    """What windows give one by one is the whole path, smoothed once."""
    waveform, state, given = torch.randn(16000 * 8), None, []
    while sum(piece.shape[1] for piece in given) < 110:
        piece, state = window(denoiser, encoder, waveform, state, plan)
        given.append(piece)
    given = denoiser.normalise(torch.cat(given, dim=1))
    path = torch.cat([state.motion[..., :6], state.ahead], dim=1)
    smooth, behind = calm(path, 6), given.shape[1] - state.motion.shape[1]
    inner = slice(7, state.motion.shape[1])
    assert (smooth[:, inner] - given[:, behind + 7 :, :6]).abs().max() < 1e-4
    back = state.back_at(state.frame - 3)
    assert torch.equal(torch.cat([back.motion[..., :6], back.ahead], dim=1), path[:, : back.motion.shape[1] + 7])


def test_windows_are_counted_as_they_are_drawn():
    for plan in (WindowPlan.full(W), WindowPlan.live()):
        for frames in (1, 5, 6, 50, 51, 90, 91, 200):
            frame = windows = 0
            while frame < frames:
                frame, windows = frame + plan.span(frame, K).kept, windows + 1
            assert windows == plan.count(frames)


def test_calming_removes_tremor_from_the_pose_alone():
    motion = torch.zeros(1, 40, M)
    motion[:, ::2] = 1.0  # 12.5 Hz at 25 fps
    smooth = calm(motion)
    assert (smooth[:, 7:-7, :6] - 0.5).abs().max() < 2e-3
    nod = torch.sin(torch.arange(40) * 2 * torch.pi * 1.5 / 25)[None, :, None].expand(1, 40, M)
    assert calm(nod)[0, 7:-7, 0].abs().max() > 0.8, "a nod of 1.5 Hz stays"
    assert torch.equal(smooth[..., 6:], motion[..., 6:])
    constant = torch.full((1, 40, M), 0.7)
    assert torch.allclose(calm(constant), constant, atol=1e-6)
