"""The engine end to end with the tiny model."""

from pathlib import Path

import pytest
import torch

import vasa
from vasa.device import pick_device, pick_precision
from vasa.geometry import AVERAGE_LOG_SCALE, NECK, rotation
from vasa.pipeline import on_shoulders

TINY_FOLDER = Path(__file__).parent / "data" / "tiny"


@pytest.fixture(scope="module")
def pipe():
    return vasa.Vasa.from_pretrained(TINY_FOLDER, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def portrait():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


def speech(seconds):
    t = torch.arange(round(seconds * 16000)) / 16000
    return 0.3 * torch.sin(2 * torch.pi * 150 * t) * (torch.sin(2 * torch.pi * 2 * t) > 0)


def test_public_names():
    assert set(vasa.__all__) == {
        "EMOTIONS", "Controls", "FaceLatents", "InputError", "Motion", "Result", "Vasa", "animate",
    }  # fmt: skip


@pytest.mark.parametrize("seconds, frames", [(1.0, 25), (1.001, 26), (2.0, 50), (2.5, 63)])
def test_a_clip_has_ceil_seconds_times_fps_frames(pipe, portrait, seconds, frames):
    face = pipe.encode(portrait)
    motion = pipe.generate(speech(seconds), face, vasa.Controls(steps=2))
    made = torch.cat(list(pipe.decode(face, motion)))
    assert len(motion) == frames and made.shape == (frames, 3, 64, 64)
    assert made.min() >= 0 and made.max() <= 1 and torch.isfinite(made).all()


def test_the_same_seed_gives_the_same_video(pipe, portrait):
    face = pipe.encode(portrait)

    def run(seed):
        return torch.cat(list(pipe.decode(face, pipe.generate(speech(1), face, vasa.Controls(steps=2, seed=seed)))))

    assert torch.equal(run(3), run(3)) and not torch.equal(run(3), run(4))


def test_batch_size_does_not_change_the_frames(pipe, portrait):
    face = pipe.encode(portrait)
    motion = pipe.generate(speech(0.5), face, vasa.Controls(steps=2))
    one, many = (torch.cat(list(pipe.decode(face, motion, batch_size=n))) for n in (1, 13))
    assert torch.allclose(one, many, atol=1e-5)


def test_progress_counts_every_step_and_can_cancel(pipe, portrait):
    face = pipe.encode(portrait)
    seen = []
    pipe.generate(speech(3), face, vasa.Controls(steps=3), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 6) for i in range(6)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe.generate(speech(3), face, vasa.Controls(steps=3), progress=stop)


def test_a_picture_of_another_size_is_refused(pipe):
    with pytest.raises(vasa.InputError, match=r"\[3, 64, 64\].*portrait_crop"):
        pipe.encode(torch.rand(3, 32, 32))


def test_motion_of_another_backend_is_refused(pipe, portrait):
    motion = vasa.Motion(torch.zeros(2, 6), torch.zeros(2, 59), backend="other")
    with pytest.raises(vasa.InputError, match="other"):
        list(pipe.decode(pipe.encode(portrait), motion))


def test_motion_is_placed_on_the_portraits_shoulders():
    """At rest, the neck of every generated frame is the portrait's neck, whatever the portrait's pose."""
    portrait_pose = torch.tensor([0.3, -0.1, 0.2, 0.15, -0.2, -0.6])
    neck = torch.tensor(NECK)
    angles = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.1, -0.1]])
    scale = torch.tensor(AVERAGE_LOG_SCALE).exp()
    t = scale * (neck - (rotation(angles) @ neck))[:, :2]
    generated = vasa.Motion(torch.cat([angles, t, torch.full((2, 1), AVERAGE_LOG_SCALE)], 1), torch.zeros(2, 59))
    placed = on_shoulders(generated, portrait_pose).head_pose

    def neck_of(p):
        return p[..., 5:].exp() * (rotation(p[..., :3]) @ neck)[..., :2] + p[..., 3:5]

    assert torch.allclose(neck_of(placed), neck_of(portrait_pose[None]).expand(2, 2), atol=1e-5)
    assert torch.allclose(placed[:, 5], portrait_pose[5].expand(2), atol=1e-6)
    assert torch.allclose(placed[0], portrait_pose, atol=1e-5), "no movement leaves the portrait as it is"


def test_devices_and_precisions():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(vasa.InputError, match="unknown device"):
        pick_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(vasa.InputError, match="no CUDA GPU"):
            pick_device("cuda")
    assert pick_precision("bf16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(vasa.InputError, match="unknown precision"):
        pick_precision("int3", torch.device("cpu"))


@pytest.mark.parametrize("capability,expected", [((7, 5), torch.float16), ((8, 6), torch.bfloat16)])
def test_a_gpu_that_emulates_bf16_computes_in_fp16(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", torch.device("cuda", 1)) == expected


def test_bf16_gives_nearly_the_same_frames(pipe, portrait):
    half = vasa.Vasa.from_pretrained(TINY_FOLDER, device="cpu", precision="bf16")
    motion = pipe.generate(speech(0.5), pipe.encode(portrait), vasa.Controls(steps=2))
    a = torch.cat(list(pipe.decode(pipe.encode(portrait), motion)))
    b = torch.cat(list(half.decode(half.encode(portrait), motion)))
    assert (a - b).abs().mean() < 0.02


@pytest.mark.parametrize(
    "values",
    [
        dict(gaze=(2.0, 0.0)), dict(distance=0.1), dict(distance=float("nan")), dict(emotion={"cheerful": 1.0}),
        dict(emotion={"happy": 2.0}), dict(guidance={"audio": -1.0}), dict(guidance={"weather": 1.0}), dict(steps=0),
    ],
    ids=str,
)  # fmt: skip
def test_controls_out_of_range_are_named(values):
    (name,) = values
    with pytest.raises(vasa.InputError, match=name):
        vasa.Controls(**values)


def test_emotion_curves_sum_to_one_and_default_to_neutral():
    assert vasa.Controls().curves(2).emotion[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    curve = vasa.Controls(emotion={"happy": 0.5}).curves(1).emotion[0]
    assert curve[1] == pytest.approx(0.5) and curve.sum() == pytest.approx(1)
