"""Ditto's motion generator: the network against golden figures of the published one, and the engine around it."""

import math
import pickle
import struct
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vasa import Controls, InputError, Vasa, cli
from vasa.backends.liveportrait import ditto
from vasa.backends.liveportrait.config import DittoConfig, RendererConfig, from_json, to_json
from vasa.backends.liveportrait.controls import BALL_PER_DEGREE
from vasa.backends.liveportrait.convert import STEMS
from vasa.backends.liveportrait.convert_ditto import convert_ditto
from vasa.backends.liveportrait.ditto_portrait import (
    BLINKS_A_MINUTE,
    Sitter,
    emotions,
    eyes,
    joined,
    physical,
    weights_told,
)
from vasa.backends.liveportrait.ditto_settings import read_settings
from vasa.backends.liveportrait.ditto_sound import STRETCH, StretchEncoder
from vasa.backends.liveportrait.engine import LivePortrait
from vasa.backends.liveportrait.folding import folded, folds_of, published_shapes
from vasa.backends.liveportrait.keypoints import EYES, LEFT_BALL
from vasa.backends.liveportrait.networks import EngineConfig, FaceSide, Networks
from vasa.backends.liveportrait.weights import EARS, PARTS, RETARGETING, empty
from vasa.backends.seeded import inputs, seeded
from vasa.controls import Blink, HeadPose
from vasa.geometry import rotation
from vasa.latents import EMOTIONS
from vasa.motion.conditions import Conditions, nothing_empty
from vasa.motion.diffusion import sample
from vasa.motion.plan import WindowPlan
from vasa.stream import Session

TINY = RendererConfig(
    name="tiny", input_size=32, image_size=64, width=8, volume_channels=8, volume_depth=4, resblocks=1,
    flow_width=8, flow_halvings=1, flow_max=16, label_width=16,
    backbone_depths=(1, 1, 1, 1), backbone_widths=(8, 8, 16, 16),
)  # fmt: skip
SMALL = DittoConfig(name="small", dim=32, hidden=48, depth=2, heads=4, window=20, audio_dim=24)
# mean, standard deviation, and the values at a third and at two thirds, of what the published modules gave
# (benchmarks/ditto.py --only golden)
GOLDEN = {
    "told everything": (0.2957166279739929, 10.440848300169904, 14.422255516052246, -1.16178560256958),
    "told nothing": (0.3147235649788998, 7.18741941173485, 5.033064365386963, -6.212019920349121),
    "window": (-1.0435057008603834, 32.93373405576729, -58.84159851074219, 58.304447174072266),
    "speech stretches": (-0.00031742957365856936, 0.12454541107253667, -0.09684661775827408, -0.15555547177791595),
}


def check_golden(name, output):
    flat = output.detach().double().flatten()
    got = (flat.mean(), flat.std(), flat[len(flat) // 3], flat[2 * len(flat) // 3])
    assert [float(x) for x in got] == pytest.approx(GOLDEN[name], abs=1e-4 * float(flat.abs().max()))


def network(config=SMALL):
    made = ditto.Ditto(config)
    made.load_state_dict(ditto.folded(seeded(ditto.published_shapes(config)), config), strict=False)
    made.low.fill_(-1e3)
    made.high.fill_(1e3)
    return made.eval().requires_grad_(False)


def sitter(config=SMALL):
    return Sitter(
        network(config),
        inputs("own", ditto.CHANNELS),
        inputs("canonical", 63) * 0.3,
        inputs("silence", config.audio_dim)[None],
    )


def window(config=SMALL):
    """Speech, a gaze to the side and two emotions, as in benchmarks/ditto.py."""
    length = config.window
    mood = torch.zeros(1, length, len(EMOTIONS))
    mood[..., EMOTIONS.index("happy")], mood[..., EMOTIONS.index("sad")] = 0.75, 0.25
    gaze = torch.stack([torch.linspace(-0.3, 0.3, length), torch.full((length,), 0.1)], dim=-1)[None]
    conditions = Conditions(
        audio=inputs("sound", 1, length, config.audio_dim), heard=torch.ones(1, length), gaze=gaze,
        distance=torch.zeros(1, length, 1), emotion=mood, previous_motion=torch.zeros(1, 1, ditto.CHANNELS),
        previous_audio=torch.zeros(1, 1, config.audio_dim), empty=nothing_empty(1),
    )  # fmt: skip
    conditions.empty["previous"][:] = True
    return conditions


def stand_in(samples, width=1024):
    """The stand-in for HuBERT of benchmarks/ditto.py."""
    assert samples.shape == (1, STRETCH)
    return (samples.view(-1, 324) @ (inputs("mixing", 324, width) * 0.1)).sin()


@torch.inference_mode()
def test_the_network_is_the_published_one_told_everything_and_nothing():
    made = sitter()
    known, x_t = made.known(window()), inputs("noise", 1, 20, ditto.CHANNELS)
    for name, empty_row in (("told everything", False), ("told nothing", True)):
        got = made.network(x_t, made.own[None], torch.full((1,), 700.0), known, torch.tensor([empty_row]))
        check_golden(name, got)


@torch.inference_mode()
def test_a_guided_window_is_the_published_networks():
    made = sitter()
    noise = inputs("noise", 1, 20, ditto.CHANNELS)
    check_golden("window", sample(made, window(), 20, scales={"audio": 1.0}, steps=10, noise=noise))


@torch.inference_mode()
def test_sound_is_heard_in_the_published_stretches():
    waveform = inputs("speech", 52_800) * 0.1
    heard = StretchEncoder(DittoConfig(), stand_in)(waveform[None], 83)
    assert heard.shape == (1, 83, 1024)
    check_golden("speech stretches", heard[0])


def test_full_sizes_on_no_memory():
    config = DittoConfig()
    with torch.device("meta"):
        made = ditto.Ditto(config)
        got = made(
            torch.zeros(2, 80, 265), torch.zeros(2, 265), torch.zeros(2), torch.zeros(2, 80, 1103),
            torch.zeros(2, dtype=torch.bool),
        )  # fmt: skip
    assert got.shape == (2, 80, 265)
    count = sum(math.prod(shape) for shape in ditto.published_shapes(config).values())
    assert count / 1e6 == pytest.approx(47.79, abs=0.01)


def test_motion_channels_are_the_published_ones():
    seen = {name: inputs(name, 1, n) for name, n in (("pitch", 66), ("yaw", 66), ("roll", 66), ("t", 3), ("exp", 63))}
    seen["scale"] = torch.full((1, 1), 1.2)
    flat = joined(seen)
    assert flat.shape == (1, 265) and float(flat[0, 0]) == pytest.approx(0.2)
    assert torch.equal(flat[0, 1:67], seen["pitch"][0]) and torch.equal(flat[0, 202:], seen["exp"][0])
    expected = sum(float(p) * (3 * i - 97.5) for i, p in enumerate(seen["yaw"][0].softmax(0)))
    assert math.degrees(float(physical(flat)[0, 0])) == pytest.approx(expected, abs=1e-3)


def test_emotions_are_told_in_the_published_order_and_sharpness():
    told = emotions(torch.eye(len(EMOTIONS)))
    order = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised", "contempt")
    for row, name in zip(told, EMOTIONS, strict=True):
        expected = torch.zeros(8)
        expected[order.index(name)] = 8.0
        assert torch.allclose(row, expected.softmax(0), atol=1e-6)


def test_eyes_are_told_where_to_look():
    ahead, left, down = (eyes(torch.tensor(angles)) for angles in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3)))
    assert torch.equal(ahead[:2], left[:2]) and 0.9 < float(ahead[0]) < 1.2
    # both irises move: components (x left, x right, y left, y right, z left, z right)
    assert (left[2:4] - ahead[2:4]).max() < 0.003 and left[3] < ahead[3] - 0.01
    assert (down[4:6] - ahead[4:6]).min() > 0.005
    # a gaze to the right is the mirror image
    right = eyes(torch.tensor((-0.3, 0.0)))
    assert torch.allclose(right[2:].view(3, 2).flip(1) * torch.tensor([[-1.0], [1], [1]]), left[2:].view(3, 2))


def test_sound_that_has_not_come_is_the_last_that_has():
    made, given = sitter(), window()
    given.heard[:, 12:] = 0
    known = made.known(given)
    assert torch.equal(known[0, :12, :24], given.audio[0, :12])
    assert torch.equal(known[0, 12:, :24], given.audio[0, 11].expand(8, -1))


def test_what_is_drawn_is_limited_and_not_what_is_on_the_way():
    made, given = sitter(), window()
    free = sample(made, given, 20, scales={"audio": 1.0}, steps=3, noise=inputs("noise", 1, 20, ditto.CHANNELS))
    made.network.low.fill_(-0.5), made.network.high.fill_(0.5)
    again = sample(made, given, 20, scales={"audio": 1.0}, steps=3, noise=inputs("noise", 1, 20, ditto.CHANNELS))
    assert torch.equal(free, again) and float(free.abs().max()) > 1
    assert torch.equal(made.denormalise(free), physical(free.clamp(-0.5, 0.5)))


@torch.inference_mode()
def test_a_window_continues_the_head_and_begins_the_face_anew():
    made, given = sitter(), window()
    x_t, t = inputs("noise", 1, 20, ditto.CHANNELS), torch.zeros(1)
    first = made(x_t, t, given)
    given.previous_motion[:] = inputs("before", 1, 1, ditto.CHANNELS)
    assert torch.equal(made(x_t, t, given), first)  # nothing came before
    given.empty["previous"][:] = False
    after = made(x_t, t, given)
    assert not torch.allclose(after, first)
    given.previous_motion[..., 202:] += 1
    assert torch.equal(made(x_t, t, given), after)
    given.previous_motion[..., 100] += 1
    assert not torch.equal(made(x_t, t, given), after)


def test_a_short_window_is_the_beginning_of_positions():
    made = network()
    known, x_t = torch.zeros(1, 20, 24 + ditto.EXTRA), inputs("noise", 1, 20, ditto.CHANNELS)
    short = made(x_t[:, :7], x_t[:, 0], torch.zeros(1), known[:, :7], torch.tensor([True]))
    assert short.shape == (1, 7, ditto.CHANNELS) and torch.isfinite(short).all()


def calm_network(config):
    """A network whose motion stays near a face that looks ahead."""
    made = network(config)
    made.motion_out.weight.mul_(0.002)
    made.motion_out.bias.zero_()
    # every angle's distribution has its peak at 0 degrees
    peaks = -((torch.arange(66) - 32.5) ** 2) / 4.0
    made.motion_out.bias[1:199] = peaks.repeat(3)
    made.motion_out.bias[0] = 0.2
    return made


def seeded_network(part):
    made = empty(part, TINY)
    folds = folds_of(part, TINY) if part in PARTS else []
    made.load_state_dict(folded(seeded(published_shapes(made, folds)), made, folds), assign=True)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def engine():
    parts = {part: seeded_network(part) for part in (*PARTS, RETARGETING)}
    heads = parts["motion_extractor"].detector
    heads.fc_scale.weight.zero_()
    heads.fc_scale.bias.fill_(1.2)
    heads.fc_t.weight.mul_(0.02)
    speech = StretchEncoder(SMALL, lambda samples: stand_in(samples, SMALL.audio_dim))
    config = EngineConfig("tiny", FaceSide(TINY.image_size), SMALL, SMALL, TINY)
    return LivePortrait(Networks(config, parts, calm_network(SMALL), speech), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def face(engine):
    return engine.encode(inputs("portrait", 3, 64, 64).sigmoid())


SPEECH = inputs("talk", 32_000) * 0.1
PLAN = WindowPlan(20, 4, 16, 0)


@pytest.fixture(scope="module")
def motion(engine, face):
    return engine.generate(SPEECH, face, Controls(steps=3, seed=1), plan=PLAN)


def test_speech_becomes_frames(engine, face, motion):
    assert len(motion) == 50 and motion.backend == "liveportrait" and motion.facial_dynamics.shape == (50, 63)
    frames = next(engine.decode(face, motion[:2]))
    assert frames.shape == (2, 3, 64, 64) and torch.isfinite(frames).all()
    assert motion.facial_dynamics.std(0).max() > 1e-3


def test_a_given_motion_cannot_be_continued(engine, face, motion):
    with pytest.raises(InputError, match="Ditto's generator cannot go on from a given motion; leave the previous"):
        engine.generate(SPEECH, face, Controls(steps=3, seed=1), plan=PLAN, previous=motion)


def test_movement_is_about_the_portraits_own_face(engine, face, motion):
    made = engine.generator_for(face)
    assert engine.generator_for(face) is made and made.rest.shape == (69,)
    other = engine.encode(inputs("somebody", 3, 64, 64).sigmoid())
    assert engine.generator_for(other) is not made
    still = engine.placed(made.rest[None], face)
    assert torch.allclose(still.head_pose[0], face.head_pose[0], atol=1e-5)
    assert torch.allclose(still.facial_dynamics[0], face.facial_dynamics[0], atol=1e-5)


def test_eyes_stay_on_what_they_look_at(engine, face):
    made = engine.generator_for(face)
    turned = made.rest.clone()
    turned[0] += math.radians(10)  # to the left of the picture
    change = engine.placed(turned[None], face).facial_dynamics[0] - face.facial_dynamics[0]
    assert float(change.view(21, 3)[LEFT_BALL, 0]) == pytest.approx(7 * BALL_PER_DEGREE[0], rel=0.02)


def test_eyes_that_blink_by_the_clock_stay_on_it_too(engine, face):
    turned = engine.generator_for(face).rest.clone()
    turned[0] += math.radians(10)
    turned[5] += 0.1
    placed = engine.placed(turned[None], face)
    assert torch.equal(placed.head_pose[:, 5], face.head_pose[:, 5])  # the head keeps its size
    curves = engine.accepted(Controls()).curves(1, engine.fps)
    change = engine.shaped(placed, curves, face).facial_dynamics[0] - face.facial_dynamics[0]
    assert float(change.view(21, 3)[LEFT_BALL, 0]) == pytest.approx(7 * BALL_PER_DEGREE[0], rel=0.02)


def test_a_stream_of_pieces_is_the_whole(engine, face, motion):
    session = Session(engine, face, Controls(steps=3, seed=1), PLAN)
    pieces = []
    for piece in SPEECH.split(7000):
        session.push_audio(piece)
        pieces += iter(session.pop_motion, None)
    session.flush()
    pieces += iter(session.pop_motion, None)
    assert torch.allclose(torch.cat([piece.vectors for piece in pieces]), motion.vectors, atol=1e-6)


def test_every_live_window_is_as_long_as_the_generator_knows_them(engine):
    plan = engine.live_plan(hop=3, look_ahead=2, steps=3)
    assert plan.hop == 3 and [plan.span(frame, 1).length for frame in (0, 3, 6, 30)] == [SMALL.window] * 4


def test_blinks_come_by_the_clock_unless_asked_for(engine, face):
    taken = engine.accepted(Controls())
    assert taken.blink.rate == pytest.approx(BLINKS_A_MINUTE) and 15 < BLINKS_A_MINUTE < 16.5
    assert engine.accepted(taken) == taken
    assert engine.accepted(Controls(blink=Blink(rate=3.0))).blink.rate == 3.0
    blinked = engine.generate(SPEECH, face, Controls(steps=2, blink=Blink(rate=0.0, at=(1.0,))), plan=PLAN)
    lids = blinked.facial_dynamics.unflatten(-1, (21, 3))[:, list(EYES)]
    own = face.facial_dynamics.unflatten(-1, (21, 3))[0, LEFT_BALL, 1]
    assert float(lids[25, 0, 1]) > float(own) + 0.01 > float(lids[5, 0, 1])


@pytest.mark.parametrize("asked", [{"emotion": {"happy": 1.0}}, {"gaze": (0.3, 0.0)}])
def test_emotion_and_gaze_change_what_is_drawn(engine, face, motion, asked):
    other = engine.generate(SPEECH, face, Controls(steps=3, seed=1, **asked), plan=PLAN)
    assert (other.head_pose - motion.head_pose).abs().max() > 1e-5


def test_intensities_and_poses_work_as_everywhere(engine, face, motion):
    calm = engine.generate(SPEECH, face, Controls(steps=3, seed=1, mouth=0.0, expression=0.0), plan=PLAN)
    eyes_only = calm.facial_dynamics.unflatten(-1, (21, 3)).std(0).amax(-1) > 1e-6
    assert {int(k) for k in eyes_only.nonzero()} <= set(EYES)
    asked = Controls(steps=3, seed=1, head_pose=HeadPose(offset=(0.2, 0.0, 0.0)), distance=2.0)
    turned = engine.generate(SPEECH, face, asked, plan=PLAN)
    assert torch.allclose(turned.head_pose[:, 0], motion.head_pose[:, 0] + 0.2, atol=1e-5)
    assert torch.allclose(turned.head_pose[:, 5], motion.head_pose[:, 5] - math.log(2), atol=1e-5)


def test_what_cannot_be_done_is_said(engine, face):
    with pytest.raises(InputError, match="guidance emotion has no effect"):
        engine.generate(SPEECH, face, Controls(guidance={"emotion": 1.0}))
    session = Session(engine, face, Controls(steps=2), PLAN)
    with pytest.raises(InputError, match="guidance distance has no effect"):
        session.set_controls(Controls(guidance={"distance": 1.0}))
    deaf = Networks(engine.config, dict(engine.models.face.items()), engine.models.motion)
    with pytest.raises(InputError, match="no speech encoder; convert Ditto again"):
        Session(LivePortrait(deaf, torch.device("cpu"), torch.float32), face)


# --- published files


def renderer_files(folder):
    for part in PARTS:
        network_of = empty(part, TINY)
        torch.save(seeded(published_shapes(network_of, folds_of(part, TINY))), folder / f"{STEMS[part][-1]}.pth")


def lmdm_file():
    state = seeded(ditto.published_shapes(SMALL))
    rates = 1.0 / 10_000 ** (torch.arange(0, 32, 2) / 32)
    names = ["", "cond_encoder.0.", "cond_encoder.1.", "seqTransDecoder.stack.0.", "seqTransDecoder.stack.1."]
    return {"model_state_dict": state | {f"{name}rotary.freqs": rates for name in names}, "epoch": 7}


SEEN = {"scale": 1, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63, "kp": 63}


def person(frames=3):
    """Somebody as the published program registers a picture or a video."""
    seen = [{name: inputs(f"{name} {i}", 1, size).numpy() for name, size in SEEN.items()} for i in range(frames)]
    for one in seen:
        one["scale"] = one["scale"] * 0.05 + 1.5
    opened, balls = ([inputs(f"{n} {i}", 1, size).numpy() for i in range(frames)] for n, size in (("o", 2), ("b", 6)))
    return {"x_s_info_lst": seen, "sc": seen[0]["kp"].flatten(), "eye_open_lst": opened, "eye_ball_lst": balls}


MOODS = inputs("moods", 7, 8).softmax(-1).numpy()


def settings():
    limits = np.stack([np.full(265, v, np.float32) for v in (-2.0, 3.0, 0.0, 0.0)])
    told = {name: True for name in ("use_emo", "use_sc", "use_eye_open", "use_eye_ball")}
    defaults = {"v_min_max_for_clip": limits, "fix_kp_cond": 1, "fix_kp_cond_dim": [0, 202], "overlap_v2": 70}
    return {"base_cfg": {}, "audio2motion_cfg": told | {"seq_frames": 80}, "default_kwargs": defaults}


@pytest.fixture
def source(tmp_path):
    """The published files as they lie after a download."""
    folder = tmp_path / "published"
    models, config = folder / "ditto_pytorch" / "models", folder / "ditto_cfg"
    models.mkdir(parents=True)
    config.mkdir()
    renderer_files(models)
    torch.save(lmdm_file(), models / "lmdm_v0.4_hubert.pth")
    for kind in ("pytorch", "trt", "trt_online"):
        (config / f"v0.4_hubert_cfg_{kind}.pkl").write_bytes(pickle.dumps(settings()))
    (folder / "ditto_pytorch" / "aux_models").mkdir()
    graph = convolving_graph(inputs("kernel", SMALL.audio_dim, 400) * 0.1)
    (folder / "ditto_pytorch" / "aux_models" / "hubert_streaming_fix_kv.onnx").write_bytes(graph)
    (folder / "ditto_onnx").mkdir()
    (folder / "ditto_onnx" / "hubert.onnx").write_bytes(b"the same in another package")
    return folder


def test_published_files_become_a_model_that_loads(source, tmp_path):
    dest, said = tmp_path / "model", []
    convert_ditto(source, dest, heads=4, renderer=TINY, report=said.append)
    assert "v0.4_hubert_cfg_pytorch.pkl: limits of the motion" in said and "copied" in said[-1]
    vasa = Vasa.from_pretrained(dest, device="cpu", precision="fp32")
    made = vasa.models.motion
    assert isinstance(made, ditto.Ditto) and vasa.config.motion == DittoConfig(
        dim=32, hidden=48, depth=2, heads=4, window=20, audio_dim=24
    )
    assert float(made.low.min()) == -2 and float(made.high.max()) == 3
    listed = (dest / "sha256.txt").read_text()
    assert EARS in listed and "generator.safetensors" in listed
    assert "TERMS AND CONDITIONS FOR USE" in (dest / "LICENSE-ditto.txt").read_text()
    plain = tmp_path / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in dest.iterdir()} == {plain.stat().st_mode}
    expected, x_t = network(), inputs("noise", 1, 20, ditto.CHANNELS)
    known = torch.zeros(1, 20, 24 + ditto.EXTRA)
    arguments = x_t, x_t[:, 0], torch.zeros(1), known, torch.tensor([False])
    assert torch.allclose(made(*arguments), expected(*arguments), atol=1e-5)


def test_a_generator_joins_a_renderer_that_is_there(source, tmp_path):
    dest = tmp_path / "model"
    convert_ditto(source, dest, heads=4, renderer=TINY)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "lmdm_v0.4_hubert.pth").write_bytes(
        (source / "ditto_pytorch" / "models" / "lmdm_v0.4_hubert.pth").read_bytes()
    )
    said = []
    convert_ditto(alone, dest, heads=4, report=said.append)
    assert "motion will not be kept within" in said[1] and "not make it from speech" in said[2]
    assert float(Vasa.from_pretrained(dest, device="cpu").models.motion.low.max()) == -1e4
    with pytest.raises(InputError, match="holds no appearance_feature_extractor"):
        convert_ditto(tmp_path / "model", tmp_path / "other")


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda s: s.pop("null_cond_hidden"), "lacks null_cond_hidden"),
        (lambda s: s.update(surprise=torch.zeros(1)), "has the unknown surprise"),
        (lambda s: s.update({"final_layer.weight": torch.zeros(70, 32)}), "draws 70 motion channels, expected 265"),
        (lambda s: s.update({"input_projection.weight": torch.zeros(32, 531)}), "several frames before the window"),
        (lambda s: s.update({"cond_projection.weight": torch.zeros(32, 70)}), "is told 70 numbers a frame"),
        (lambda s: s["final_layer.bias"].fill_(float("nan")), "NaN or infinite values in final_layer.bias"),
        (lambda s: s["rotary.freqs"].mul_(2), "other rates in rotary.freqs"),
        (lambda s: s.pop("seqTransDecoder.stack.0.linear1.weight"), "lacks 'seqTransDecoder.stack.0.linear1.weight'"),
    ],
)
def test_a_wrong_generator_is_refused(tmp_path, spoil, said):
    content = lmdm_file()
    content["model_state_dict"] = {k: v.clone() for k, v in content["model_state_dict"].items()}
    spoil(content["model_state_dict"])
    torch.save(content, tmp_path / "lmdm_v0.4_hubert.pth")
    with pytest.raises(InputError, match=said):
        convert_ditto(tmp_path, tmp_path / "out", heads=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda s: s.pop("default_kwargs"), "holds no audio2motion_cfg and default_kwargs"),
        (lambda s: s["audio2motion_cfg"].update(use_emo=False), r"leaves out conditions \(use_emo\)"),
        (lambda s: s["default_kwargs"].update(v_min_max_for_clip=np.zeros((2, 70))), "expected two rows of 265"),
        (lambda s: s["default_kwargs"]["v_min_max_for_clip"].__imul__(-1), "lower limits above the upper"),
        (lambda s: s["default_kwargs"].update(fix_kp_cond_dim=[5, 202]), r"expected \[0, n\]"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, spoil, said):
    torch.save(lmdm_file(), tmp_path / "lmdm_v0.4_hubert.pth")
    wrong = settings()
    spoil(wrong)
    (tmp_path / "v0.4_hubert_cfg_pytorch.pkl").write_bytes(pickle.dumps(wrong))
    with pytest.raises(InputError, match=said):
        convert_ditto(tmp_path, tmp_path / "out", heads=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "asked, continued",
    [
        ({}, 265), ({"fix_kp_cond": 0}, 265), ({"fix_kp_cond": 0, "fix_kp_cond_dim": [0, 202]}, 265),
        ({"fix_kp_cond": 1}, 0), ({"fix_kp_cond": 1, "fix_kp_cond_dim": (0, 202)}, 202),
        ({"fix_kp_cond": 4, "fix_kp_cond_dim": [0, 202]}, 202),
    ],
)  # fmt: skip
def test_what_is_continued_is_what_the_settings_say(tmp_path, asked, continued):
    made = read_settings(kept(tmp_path, asked))
    assert made.continued == continued and "no limits of the motion" in made.notes
    assert any("every 4th" in note for note in made.notes) == (asked.get("fix_kp_cond") == 4)


def kept(folder, defaults):
    path = folder / "v0.4_hubert_cfg_pytorch.pkl"
    path.write_bytes(pickle.dumps(settings() | {"default_kwargs": defaults}))
    return path


def test_the_person_and_the_moods_of_the_settings_travel_with_the_weights(source, tmp_path):
    lived = settings()
    blink = np.zeros((15, 63), np.float32)
    blink[7, [33, 34]], blink[8, [33, 34]], blink[3, 0] = 0.01, 0.008, 9.0
    lived["default_kwargs"] |= {"ch_info": person(), "emo": MOODS, "delta_eye_arr": blink}
    for path in (source / "ditto_cfg").iterdir():
        path.write_bytes(pickle.dumps(lived))
    said = []
    convert_ditto(source, tmp_path / "model", heads=4, renderer=TINY, report=said.append)
    assert any("told in place of the portrait, a blink, 7 frames of what neutral" in line for line in said)
    made = Vasa.from_pretrained(tmp_path / "model", device="cpu").models.motion
    who = person()
    first = {name: torch.from_numpy(who["x_s_info_lst"][0][name]) for name in SEEN}
    assert torch.equal(made.person, joined(first)[0]) and torch.equal(made.person_keypoints, first["kp"][0])
    opened = torch.from_numpy(np.concatenate(who["eye_open_lst"])).median(0).values
    assert torch.equal(made.person_eyes[:2], opened) and made.person_eyes.shape == (8,)
    assert torch.allclose(emotions(made.moods), torch.from_numpy(MOODS), atol=1e-6)
    # what is no keypoint of an eye does not blink
    assert made.blink.nonzero()[:, 0].tolist() == [33, 34] and float(made.blink[33]) == pytest.approx(0.01)
    assert made.config.person and made.config.blink and made.config.moods == 7 and made.config.continued == 202
    assert from_json(DittoConfig, to_json(made.config)) == made.config


@pytest.mark.parametrize(
    "emo, classes", [(4, [[4]]), ([3, 4], [[3, 4]]), ([[4], [3, 5], [0]], [[4], [3, 5], [0]])], ids=str
)
def test_classes_of_emotions_are_the_published_ones(tmp_path, emo, classes):
    expected = torch.zeros(len(classes), 8)
    for row, names in zip(expected, classes, strict=True):
        row[names] = 8.0
    made = read_settings(kept(tmp_path, {"emo": emo})).tensors["moods"]
    assert torch.allclose(emotions(made), expected.softmax(-1), atol=1e-6)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda d: d["ch_info"].pop("sc"), "lacks 'sc'"),
        (lambda d: d["ch_info"]["x_s_info_lst"].clear(), "list index out of range"),
        (lambda d: d["ch_info"]["x_s_info_lst"][0].update(pitch=np.zeros((1, 1))), r"pitch \[1, 1\], expected 66"),
        (lambda d: d["ch_info"].update(eye_ball_lst=[np.zeros((1, 5))]), r"eye_ball_lst \[1, 5\], expected 6"),
        (lambda d: d["ch_info"].update(sc=np.full(63, np.nan)), r"sc \[63\], expected 63 numbers"),
        (lambda d: d.update(emo=np.zeros((3, 7))), r"emo \[3, 7\], expected 8"),
        (lambda d: d.update(delta_eye_arr=np.zeros((15, 62))), r"delta_eye_arr \[15, 62\], expected 63"),
        (lambda d: d.update(emo=11), "the emotion 11, expected 0 to 7"),
        (lambda d: d.update(ch_info="nobody"), "is not Ditto's settings"),
    ],
)
def test_a_wrong_person_is_refused(tmp_path, spoil, said):
    defaults = {"ch_info": person(), "emo": MOODS}
    spoil(defaults)
    with pytest.raises(InputError, match=said):
        read_settings(kept(tmp_path, defaults))


@pytest.fixture(scope="module")
def inhabited(engine):
    """The same engine with a person and moods in its weights."""
    config = replace(SMALL, window=30, person=True, blink=True, moods=7)
    network_of = calm_network(config)
    first = {name: torch.from_numpy(value) for name, value in person()["x_s_info_lst"][0].items()}
    network_of.person.copy_(joined(first)[0]), network_of.person_keypoints.copy_(first["kp"][0])
    network_of.person_eyes.copy_(torch.tensor([0.9, 0.8, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06]))
    network_of.moods.copy_(weights_told(torch.from_numpy(MOODS)))
    network_of.blink[[33, 40]] = torch.tensor([0.012, -0.006])
    parts = Networks(
        replace(engine.config, motion=config), dict(engine.models.face.items()), network_of, engine.models.audio
    )
    return LivePortrait(parts, torch.device("cpu"), torch.float32)


def test_the_person_in_the_settings_is_told_in_place_of_any_portrait(inhabited, face):
    made, network_of = inhabited.generator_for(face), inhabited.models.motion
    other = inhabited.encode(inputs("somebody", 3, 64, 64).sigmoid())
    assert inhabited.generator_for(other) is made
    given = window()
    given.gaze[:] = 0
    known = made.known(given)[0]
    assert torch.equal(known[:, -63:], network_of.person_keypoints.expand(20, -1))
    assert torch.allclose(known[:, -71:-63], network_of.person_eyes.expand(20, -1), atol=1e-7)
    given.gaze[:] = torch.tensor([0.3, 0.0])
    moved = made.known(given)[0, :, -71:-63] - known[:, -71:-63]
    expected = eyes(torch.tensor([0.3, 0.0])) - eyes(torch.tensor([0.0, 0.0]))
    assert torch.allclose(moved, expected.expand(20, -1), atol=1e-7)


def test_movement_is_larger_for_a_face_that_is_smaller_than_that_persons(inhabited, engine, face):
    made = inhabited.generator_for(face)
    ratio = float(inhabited.models.motion.person[0] + 1) / 1.2  # the engine reads 1.2 off every portrait
    assert 1.1 < ratio < 1.4
    drawn = made.rest.clone()
    drawn[1] += 0.1
    drawn[6 + 3 * 14] += 0.01
    placed = inhabited.placed(drawn[None], face)
    change = placed.facial_dynamics[0] - face.facial_dynamics[0]
    assert float(change[3 * 14]) == pytest.approx(0.01 * ratio, rel=1e-3)
    own, turned = face.head_pose[0, :3], placed.head_pose[0, :3]
    turn = rotation(own).T @ rotation(turned)
    expected = rotation(made.rest[:3]).T @ rotation(made.rest[:3] + torch.tensor([0.0, 0.1 * ratio, 0.0]))
    # the same angle about the portrait's own pose
    assert float(turn.trace()) == pytest.approx(float(expected.trace()), abs=1e-4)
    still = inhabited.placed(made.rest[None], face)
    assert torch.allclose(still.head_pose[0], face.head_pose[0], atol=1e-5)


def test_eyes_shut_as_the_settings_say(inhabited, face):
    still = inhabited.placed(inhabited.generator_for(face).rest[None].repeat(50, 1), face)
    curves = inhabited.accepted(Controls(blink=Blink(rate=0.0, at=(1.0,)))).curves(50, inhabited.fps)
    at = int(curves.closure.argmax())
    assert float(curves.closure[at]) == pytest.approx(1.0)
    change = (inhabited.shaped(still, curves, face).facial_dynamics - still.facial_dynamics).view(50, 21, 3)
    assert float(change[at, 11, 0]) == pytest.approx(0.012, rel=1e-3)
    assert float(change[at, 13, 1]) == pytest.approx(-0.006, rel=1e-3)
    assert int((change[at].abs() > 1e-6).sum()) == 2


def test_a_live_stream_hears_every_stretch_once_and_is_the_whole(inhabited, face, monkeypatch):
    engine, heard = inhabited, []

    def encode(samples):
        heard.append(samples)
        return stand_in(samples, SMALL.audio_dim)

    plan = engine.live_plan(hop=5, look_ahead=2, steps=2)
    assert (plan.window, plan.lead) == (30, 18)
    monkeypatch.setattr(engine.models, "_speech", StretchEncoder(SMALL, encode))
    session, pieces = Session(engine, face, Controls(seed=1), plan), []
    for piece in SPEECH.split(3200):
        session.push_audio(piece)
        pieces += iter(session.pop_motion, None)
    # silence, the end of it with speech behind, and the ten stretches of the 2 s, each once in part and once whole
    assert len(heard) <= 2 + 2 * 10
    session.flush()
    pieces += iter(session.pop_motion, None)
    whole = engine.generate(SPEECH, face, Controls(seed=1), plan=plan)
    assert len(whole) == 50 and torch.equal(torch.cat([piece.vectors for piece in pieces]), whole.vectors)


def test_neutral_is_what_the_settings_say_and_an_asked_emotion_is_not(inhabited, face):
    told = inhabited.told(Controls().curves(9, 25.0, -1), range(-1, 8)).emotion
    rows = torch.from_numpy(MOODS)[[0, 0, 1, 2, 3, 4, 5, 6, 0]]
    assert torch.allclose(emotions(told), rows, atol=1e-6)
    happy = Controls(emotion={"happy": 1.0}).curves(9, 25.0)
    assert torch.equal(inhabited.told(happy, range(9)).emotion, happy.emotion)
    half = Controls(emotion={"happy": 0.5}).curves(7, 25.0)
    expected = inhabited.models.motion.moods * 0.5
    expected[:, EMOTIONS.index("happy")] += 0.5
    assert torch.allclose(inhabited.told(half, range(7)).emotion, expected, atol=1e-6)


def test_the_command_line_converts_and_says_what_is_wrong(source, tmp_path, capsys):
    # the published sizes are expected, the files are small ones
    assert cli.main(["convert", "ditto", str(source), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vasa: ") and "is not the published appearance" in said and said.count("\n") == 1
    for path in (source / "ditto_pytorch" / "models").glob("[!l]*.pth"):
        path.unlink()
    assert cli.main(["convert", "ditto", str(source), str(tmp_path / "out")]) == 0
    assert "M values verified" in capsys.readouterr().out


def test_a_speech_encoder_is_opened_when_it_is_heard(source, tmp_path, monkeypatch):
    dest = tmp_path / "model"
    convert_ditto(source, dest, heads=4, renderer=TINY)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    vasa = Vasa.from_pretrained(dest, device="cpu")
    face = vasa.encode(inputs("portrait", 3, 64, 64).sigmoid())
    with pytest.raises(InputError, match="pip install onnxruntime"):
        vasa.generate(SPEECH, face)
    given = {}

    class Runs:
        def __init__(self, path, options, providers):
            given.update(path=path, threads=options.intra_op_num_threads, providers=providers)

        def run(self, outputs, feeds):
            ((name, value),) = feeds.items()
            given.update(name=name, dtype=value.dtype, shape=value.shape)
            return [np.zeros((given.get("count", 20), 24), np.float32)]

    fake = SimpleNamespace(
        SessionOptions=SimpleNamespace, InferenceSession=Runs, get_available_providers=lambda: ["CPUExecutionProvider"]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    assert vasa.models.audio(torch.zeros(1, 3200), 5).shape == (1, 5, 24)
    assert given == {
        "path": str(dest / EARS), "threads": torch.get_num_threads(), "providers": ["CPUExecutionProvider"],
        "name": "input_values", "dtype": np.float32, "shape": (1, 6480),
    }  # fmt: skip
    given["count"] = 7
    with pytest.raises(InputError, match=r"features \[7, 24\], expected \[20, 24\]"):
        vasa.models.audio(torch.ones(1, 3200), 5)


def test_onnx_runtime_runs_the_encoder(source, tmp_path):
    pytest.importorskip("onnxruntime")
    dest = tmp_path / "model"
    convert_ditto(source, dest, heads=4, renderer=TINY)
    vasa = Vasa.from_pretrained(dest, device="cpu")
    speech = inputs("talk", 6_480)[None] * 0.1
    expected = F.conv1d(speech[None], inputs("kernel", 24, 400)[:, None] * 0.1, stride=320)[0].T
    assert torch.allclose(vasa.models.audio._encode(speech), expected, atol=1e-5)
    (dest / EARS).write_bytes(b"no graph")
    with pytest.raises(InputError, match="is not a readable ONNX file"):
        Vasa.from_pretrained(dest, device="cpu").models.audio(speech, 5)


def convolving_graph(kernel):
    """An ONNX file: `input_values` [1, 6480] -> a convolution over samples, [20, A]."""
    width, reach = kernel.shape

    def number(value):
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def field(tag, value):
        if isinstance(value, int):
            return number(tag << 3) + number(value)
        value = value.encode() if isinstance(value, str) else value
        return number(tag << 3 | 2) + number(len(value)) + value

    def tensor(name, kind, shape, raw):
        return b"".join(field(1, n) for n in shape) + field(2, kind) + field(8, name) + field(9, raw)

    def node(kind, sources, result, **attributes):
        made = b"".join(field(1, name) for name in sources) + field(2, result) + field(4, kind)
        for name, values in attributes.items():
            made += field(5, field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7))
        return made

    def value(name, shape):
        dims = b"".join(field(1, field(1, n)) for n in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    nodes = [
        node("Unsqueeze", ["input_values", "axis"], "batch"),
        node("Conv", ["batch", "kernel"], "convolved", strides=[320]),
        node("Squeeze", ["convolved", "zero"], "row"),
        node("Transpose", ["row"], "encoding_out", perm=[1, 0]),
    ]
    held = [
        tensor("axis", 7, (1,), struct.pack("<q", 1)),
        tensor("zero", 7, (1,), struct.pack("<q", 0)),
        tensor("kernel", 1, (width, 1, reach), kernel.numpy().astype("<f4").tobytes()),
    ]
    graph = b"".join(field(1, n) for n in nodes) + field(2, "ears") + b"".join(field(5, t) for t in held)
    graph += field(11, value("input_values", (1, 6480))) + field(12, value("encoding_out", (20, width)))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
