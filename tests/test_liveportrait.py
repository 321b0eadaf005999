"""The LivePortrait backend: networks against golden figures of the published modules, and the engine around them."""

import math
import weakref
from dataclasses import replace

import pytest
import torch

from vasa import Controls, InputError, Motion, Vasa
from vasa.backends.liveportrait import controls as asked
from vasa.backends.liveportrait import joyvasa
from vasa.backends.liveportrait.config import BACKEND, GeneratorConfig, RendererConfig
from vasa.backends.liveportrait.controls import CLOSED_BALL
from vasa.backends.liveportrait.engine import LivePortrait
from vasa.backends.liveportrait.folding import folded, folds_of, published_shapes
from vasa.backends.liveportrait.keypoints import EYES, LEFT_BALL, LIPS, RIGHT_BALL, angle_of, head_pose_of, posed
from vasa.backends.liveportrait.layers import Repeated
from vasa.backends.liveportrait.motion_extractor import Reading
from vasa.backends.liveportrait.networks import EngineConfig, FaceSide, Networks
from vasa.backends.liveportrait.retarget import SIZES
from vasa.backends.liveportrait.sound import SpeechEncoder, folded_sound
from vasa.backends.liveportrait.weights import PARTS, RETARGETING, empty
from vasa.backends.seeded import inputs, seeded
from vasa.controls import Blink, HeadPose, Key, Track
from vasa.drive import blend
from vasa.motion.conditions import Conditions, nothing_empty
from vasa.motion.diffusion import sample
from vasa.motion.plan import WindowPlan
from vasa.motion_file import load_motion, save_motion
from vasa.stream import Session

SMALL = RendererConfig(
    name="reduced", input_size=64, image_size=128, width=8, volume_channels=8, volume_depth=4, resblocks=2,
    flow_width=8, flow_halvings=3, flow_max=32, backbone_depths=(1, 2, 1, 1), backbone_widths=(8, 16, 24, 32),
)  # fmt: skip
TINY = replace(
    SMALL, input_size=32, image_size=64, resblocks=1, flow_halvings=1, label_width=16,
    backbone_depths=(1, 1, 1, 1), backbone_widths=(8, 8, 16, 16),
)  # fmt: skip
GENERATOR = GeneratorConfig(
    name="small", dim=32, depth=2, window=20, num_previous=4, diffusion_steps=50, audio_dim=48,
    audio_overrides={
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    },
)  # fmt: skip
# mean, standard deviation, and the values at a third and at two thirds, of what the published modules gave
# (benchmarks/liveportrait.py --only golden)
GOLDEN = {
    "appearance": (0.8751375197534799, 1.5409558994745967, 2.7620041370391846, 1.9777367115020752),
    "warping": (-0.07603792125344988, 0.4465053121363399, 1.0004053115844727, -0.09506075084209442),
    "decoder": (0.5563117830606341, 0.2868299573659925, 0.20755724608898163, 0.3417142927646637),
    "motion_extractor": (-0.13483237163390874, 1.4682355665503104, -1.580034852027893, -2.5556857585906982),
    "stitching": (-0.003181315494271425, 1.2298378784893431, -0.8200432658195496, -0.6153920888900757),
    "lip": (-0.06527855911306919, 1.191805757558932, 0.2828028202056885, 1.8924245834350586),
    "eye": (0.12920005465192455, 1.3180736673071505, -0.4418390393257141, 0.6105501651763916),
    "motion": (0.06845022723610912, 3.652360545113175, 2.3899002075195312, -0.8808786869049072),
    "speech": (0.0074879902347068615, 0.8775361709295271, -0.08022093772888184, -0.7167033553123474),
}


def seeded_network(part, config):
    network = empty(part, config)
    folds = folds_of(part, config)
    state = folded(seeded(published_shapes(network, folds)), network, folds)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def check_golden(name, output):
    flat = output.detach().double().flatten()
    got = (flat.mean(), flat.std(), flat[len(flat) // 3], flat[2 * len(flat) // 3])
    assert [float(x) for x in got] == pytest.approx(GOLDEN[name], abs=1e-4 * float(flat.abs().max()))


def points(name, count):
    return inputs(name, count, 21, 3) * 0.3


@pytest.fixture(scope="module")
def picture():
    return inputs("picture", 1, 3, 64, 64).sigmoid()


@torch.inference_mode()
def test_the_appearance_extractor_is_the_published_one(picture):
    check_golden("appearance", seeded_network("appearance", SMALL)(picture))


@torch.inference_mode()
def test_the_warping_network_is_the_published_one():
    warping = seeded_network("warping", SMALL)
    volume = inputs("volume", 1, 8, 4, 16, 16)
    check_golden("warping", warping(volume, points("driving", 1), points("source", 1)))


@torch.inference_mode()
def test_a_shared_volume_is_moved_for_every_frame():
    warping = seeded_network("warping", TINY)
    volume, driving, source = inputs("volume", 1, 8, 4, 8, 8), points("driving", 3), points("source", 1)
    alone = torch.cat([warping(volume, frame[None], source) for frame in driving])
    assert torch.allclose(warping(volume, driving, source), alone, atol=1e-5)
    own = warping(volume.expand(3, -1, -1, -1, -1), driving, source.expand(3, -1, -1))
    assert torch.allclose(own, alone, atol=1e-5)


@torch.inference_mode()
def test_the_decoder_is_the_published_one():
    check_golden("decoder", seeded_network("decoder", SMALL)(inputs("features", 1, 32, 16, 16)))


@torch.inference_mode()
def test_the_motion_extractor_is_the_published_one(picture):
    extractor = seeded_network("motion_extractor", SMALL)
    seen = extractor.detector(picture)
    check_golden(
        "motion_extractor", torch.cat([seen[k] for k in ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")], 1)
    )
    reading = extractor(picture)
    assert (
        reading.canonical.shape == (1, 21, 3) and reading.head_pose.shape == (1, 6) and reading.delta.shape == (1, 63)
    )


@torch.inference_mode()
def test_stitching_and_retargeting_are_the_published_ones():
    network = seeded_network(RETARGETING, SMALL)
    for name, widths in SIZES.items():
        check_golden(name, getattr(network, name).mlp(inputs(name, 5, widths[0])))
    source, driving = points("source", 1), points("driving", 2)
    assert network.stitched(source, driving).shape == driving.shape
    assert network.eyes(source, torch.ones(1, 3)).shape == network.lips(source, torch.ones(1, 2)).shape == (1, 21, 3)


@pytest.mark.parametrize("dims, times", [(2, 2), (2, 4), (3, 2)])
def test_repeated_pixels_are_convolved_without_repeating_them(dims, times):
    layer = Repeated(3, 5, dims, times)
    x = inputs("x", 2, 3, *([4] * (dims - 2)), 5, 6)
    large = x.repeat_interleave(times, -1).repeat_interleave(times, -2)
    assert torch.allclose(layer(x), layer.conv(large).relu(), atol=1e-5)


def test_full_sizes_on_no_memory():
    config = RendererConfig()
    millions = {"appearance": 0.84, "motion_extractor": 28.12, "warping": 45.53, "decoder": 55.37}
    with torch.device("meta"):
        modules = {part: network(config).requires_grad_(False) for part, network in PARTS.items()}
        keypoints = torch.zeros(2, 21, 3)
        calls = {
            "appearance": ((torch.zeros(1, 3, 256, 256),), (1, 32, 16, 64, 64)),
            "motion_extractor": ((torch.zeros(1, 3, 256, 256),), None),
            "warping": ((torch.zeros(1, 32, 16, 64, 64), keypoints, keypoints[:1]), (2, 256, 64, 64)),
            "decoder": ((torch.zeros(1, 256, 64, 64),), (1, 3, 512, 512)),
        }  # fmt: skip
        for part, (arguments, shape) in calls.items():
            made = modules[part](*arguments)
            assert (made.delta.shape if isinstance(made, Reading) else made.shape) == (shape or (1, 63))
            published = published_shapes(modules[part], folds_of(part, config))
            # running statistics and the vectors of spectral norms are no parameters
            count = sum(
                math.prod(s) for k, s in published.items() if not k.endswith(("_mean", "_var", "_u", "_v"))
            )  # fmt: skip
            assert count / 1e6 == pytest.approx(millions[part], abs=0.01), part
        denoiser = joyvasa.JoyVasa(GeneratorConfig())
        assert denoiser.motion_in.weight.shape == (512, 70)
    count = sum(
        math.prod(s) for k, s in joyvasa.published_shapes(GeneratorConfig()).items() if k.endswith(("weight", "bias"))
    )
    assert count / 1e6 == pytest.approx(34.74, abs=0.01)


def generator(config=GENERATOR):
    state = seeded(joyvasa.published_shapes(config))
    made = joyvasa.JoyVasa(config)
    made.load_state_dict(joyvasa.folded(state, config), strict=False)
    return made.eval().requires_grad_(False)


def window_conditions(length, config=GENERATOR):
    conditions = Conditions(
        audio=inputs("sound", 1, length, config.audio_dim), heard=torch.ones(1, length),
        gaze=torch.zeros(1, length, 2), distance=torch.zeros(1, length, 1), emotion=torch.zeros(1, length, 8),
        previous_motion=torch.zeros(1, config.num_previous, 70),
        previous_audio=torch.zeros(1, config.num_previous, config.audio_dim), empty=nothing_empty(1),
    )  # fmt: skip
    conditions.empty["previous"][:] = True
    return conditions


@torch.inference_mode()
def test_sound_that_has_not_come_is_the_last_that_has():
    made, given = generator(), window_conditions(20)
    x_t, t = inputs("noise", 1, 20, 70), torch.full((1,), 3.0)
    given.heard[:, 12:] = 0
    early = made(x_t, t, given)
    given.audio[:, 12:] = given.audio[:, 11:12]
    given.heard[:] = 1
    assert torch.equal(made(x_t, t, given), early)
    given.audio[:, 12:] += 1
    assert not torch.allclose(made(x_t, t, given), early)


@torch.inference_mode()
def test_a_guided_window_is_the_published_networks():
    made = generator()
    made.low.fill_(-50.0)
    made.high.fill_(50.0)
    drawn = sample(made, window_conditions(20), 20, scales={"audio": 1.8}, steps=10, noise=inputs("noise", 1, 20, 70))
    check_golden("motion", drawn)


@torch.inference_mode()
def test_old_positions_are_the_same_for_every_frame():
    noise, t = inputs("noise", 1, 20, 70), torch.zeros(1)
    order = torch.arange(19, -1, -1)
    for legacy in (True, False):
        made, given = generator(replace(GENERATOR, legacy_pe=legacy)), window_conditions(20)
        forward = made(noise, t, given)
        turned = made(noise[:, order], t, replace(given, audio=given.audio[:, order]))[:, order]
        assert torch.allclose(forward, turned, atol=1e-4) == legacy


@torch.inference_mode()
def test_speech_is_heard_as_the_published_code_hears_it():
    encoder = SpeechEncoder(GENERATOR).eval()
    own = encoder.encoder.state_dict()
    shapes = {k: tuple(v.shape) for k, v in own.items()}
    position = shapes.pop("encoder.pos_conv_embed.conv.weight")
    stem = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    shapes |= {f"{stem}0": (1, 1, position[2]), f"{stem}1": position}
    encoder.encoder.load_state_dict(folded_sound(seeded(shapes)))
    waveform = inputs("speech", 1, 12_800) * 0.1
    check_golden("speech", encoder(waveform, 20))


def test_motion_goes_into_the_generators_units_and_back():
    made = generator()
    made.scale.copy_(inputs("scale", 70).abs() + 0.5)
    made.shift.copy_(inputs("shift", 70) * 0.1)
    made.shift[5] = 1.2
    motion = inputs("motion", 5, 69) * 0.2
    assert torch.allclose(made.denormalise(made.normalise(motion)), motion, atol=1e-5)


def test_channels_that_nothing_shows_are_drawn_without_limits():
    made = generator()
    motion = inputs("motion", 5, 69) * 0.2
    unseen = inputs("depth", 5, 1) * 3
    assert torch.equal(made.normalise(torch.cat([motion, unseen], -1))[:, 69:], unseen)
    assert torch.equal(made.normalise(motion)[:, 69:], torch.zeros(5, 1))
    low, high = made.normalise(made.low), made.normalise(made.high)
    assert low[69] < -1e3 and high[69] > 1e3


@pytest.mark.parametrize("kind", ["joyvasa", "ditto"])
def test_the_standard_guidance_is_the_generators_own(kind):
    assert asked.accepted(Controls(), kind).guidance == asked.GUIDANCE
    assert asked.accepted(Controls(guidance={"audio": 0.5}), kind).guidance == {"audio": 0.5}
    assert asked.accepted(Controls(guidance={}), kind).guidance == {"audio": 0.0}
    again = asked.accepted(asked.accepted(Controls(), kind), kind)
    assert again == asked.accepted(Controls(), kind)


def test_angles_are_the_mean_of_their_bins():
    logits = torch.full((1, 66), -50.0)
    logits[0, 40] = 50.0
    assert math.degrees(float(angle_of(logits))) == pytest.approx(40 * 3 - 97.5, abs=1e-3)


def test_keypoints_land_by_the_papers_equation():
    canonical, delta = points("canonical", 1), inputs("delta", 1, 63) * 0.1
    pose = head_pose_of(torch.tensor([[0.0, 0.0, math.pi / 2]]), torch.tensor([[1.5]]), torch.tensor([[0.1, -0.2]]))
    x, y, z = canonical.unbind(-1)
    turned = torch.stack([-y, x, z], dim=-1)  # a quarter turn clockwise in the picture, y down
    expected = 1.5 * (turned + delta.view(1, 21, 3)) + torch.tensor([0.1, -0.2, 0.0])
    assert torch.allclose(posed(canonical, pose, delta), expected, atol=1e-5)


@pytest.fixture(scope="module")
def engine():
    parts = {part: seeded_network(part, TINY) for part in (*PARTS, RETARGETING)}
    heads = parts["motion_extractor"].detector
    # seeded weights see sizes and places that no face has
    heads.fc_scale.weight.zero_()
    heads.fc_scale.bias.fill_(1.2)
    heads.fc_t.weight.mul_(0.02)
    made = generator()
    made.scale.copy_(torch.cat([torch.tensor([8.0, 6, 4, 0.1, 0.1, 0.2]), torch.full((63,), 0.01), torch.ones(1)]))
    made.shift[5], made.mean[5] = 1.2, 1.2
    made.low.copy_(torch.cat([torch.full((6,), -1.0), torch.full((63,), -0.05), torch.full((1,), -1e4)]))
    made.high.copy_(-made.low)
    torch.manual_seed(0)
    speech = SpeechEncoder(GENERATOR).eval().requires_grad_(False)
    config = EngineConfig("tiny", FaceSide(TINY.image_size), GENERATOR, GENERATOR, TINY)
    return LivePortrait(Networks(config, parts, made, speech), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def face(engine):
    return engine.encode(inputs("portrait", 3, 64, 64).sigmoid())


SPEECH = inputs("talk", 32_000) * 0.1


@pytest.fixture(scope="module")
def motion(engine, face):
    return engine.generate(SPEECH, face, Controls(steps=3, seed=1), plan=WindowPlan(20, 4, 16, 0))


def test_speech_becomes_frames(engine, face, motion):
    assert isinstance(engine, Vasa) and engine.size == 64 and engine.fps == 25
    assert len(motion) == 50 and motion.backend == BACKEND and motion.facial_dynamics.shape == (50, 63)
    assert torch.equal(motion.rest, face.head_pose[0])
    frames = list(engine.decode(face, motion[:3], batch_size=2))
    assert [tuple(f.shape) for f in frames] == [(2, 3, 64, 64), (1, 3, 64, 64)]
    assert all(torch.isfinite(f).all() and f.min() >= 0 and f.max() <= 1 for f in frames)
    assert (frames[0][0] - frames[1][0]).abs().max() > 1e-4


def test_the_same_seed_gives_the_same_motion(engine, face, motion):
    again = engine.generate(SPEECH, face, Controls(steps=3, seed=1), plan=WindowPlan(20, 4, 16, 0))
    other = engine.generate(SPEECH, face, Controls(steps=3, seed=2), plan=WindowPlan(20, 4, 16, 0))
    assert torch.equal(again.vectors, motion.vectors) and not torch.equal(other.vectors, motion.vectors)


def test_a_stream_of_pieces_is_the_whole(engine, face, motion):
    session = Session(engine, face, Controls(steps=3, seed=1), WindowPlan(20, 4, 16, 0))
    pieces = []
    for piece in SPEECH.split(7000):
        session.push_audio(piece)
        pieces += iter(session.pop_motion, None)
    session.flush()
    pieces += iter(session.pop_motion, None)
    assert torch.allclose(torch.cat([piece.vectors for piece in pieces]), motion.vectors, atol=1e-6)


def test_a_live_stream_draws_whole_windows_from_its_first_frame_on(engine, face):
    plan = engine.live_plan(hop=3, look_ahead=2, steps=2)
    window, k = engine.config.motion.window, engine.config.motion.num_previous
    assert {plan.span(frame, k).length for frame in range(0, 60, 3)} == {window}
    session, pieces = Session(engine, face, Controls(seed=1), plan), []
    for piece in SPEECH.split(4000):
        session.push_audio(piece)
        pieces += iter(session.pop_motion, None)
    session.flush()
    pieces += iter(session.pop_motion, None)
    whole = engine.generate(SPEECH, face, Controls(seed=1), plan=plan)
    assert len(whole) == 50 and torch.equal(torch.cat([piece.vectors for piece in pieces]), whole.vectors)


def test_a_portrait_at_rest_is_what_was_read(engine, face):
    portrait = inputs("portrait", 3, 64, 64).sigmoid()
    read = engine.read_motion(torch.stack([portrait] * 2))
    assert torch.allclose(read.head_pose[1], face.head_pose[0]) and read.backend == BACKEND
    assert torch.allclose(engine.read_pose(portrait), read.head_pose[0])
    with pytest.raises(InputError, match="expected frames"):
        engine.read_motion(torch.zeros(2, 3, 32, 32))
    with pytest.raises(InputError, match="expected a portrait"):
        engine.encode(torch.zeros(3, 32, 32))


def test_motion_names_its_backend_and_is_refused_elsewhere(engine, face, motion, tmp_path):
    path = tmp_path / "motion.safetensors"
    save_motion(path, motion, names=engine.config.face.dynamics_names)
    assert torch.equal(load_motion(path).vectors, motion.vectors)
    with pytest.raises(InputError, match="liveportrait"):
        load_motion(path, backend="vasa")
    foreign = Motion(torch.zeros(2, 6), torch.zeros(2, 63))
    with pytest.raises(InputError, match="backend 'vasa'"):
        next(engine.decode(face, foreign))


def test_motion_moves_another_portrait_about_its_own_rest(engine, face, motion):
    other = engine.encode(inputs("somebody", 3, 64, 64).sigmoid())
    moved = engine.adopted(motion, other)
    assert torch.equal(moved.rest, other.head_pose[0])
    assert torch.allclose(moved.facial_dynamics[0], other.facial_dynamics[0], atol=1e-6)
    step = motion.facial_dynamics[5] - motion.facial_dynamics[0]
    assert torch.allclose(moved.facial_dynamics[5] - moved.facial_dynamics[0], step, atol=1e-6)
    assert torch.allclose(moved.head_pose[:, 5].diff(), motion.head_pose[:, 5].diff(), atol=1e-5)
    assert engine.adopted(motion, face) is motion


def test_absolute_motion_keeps_what_the_head_is_like(engine, face, motion):
    seen = replace(motion, rest=None)
    taken = engine.adopted(seen, face)
    assert taken.rest is None and torch.equal(taken.head_pose[:, :5], seen.head_pose[:, :5])
    assert torch.equal(taken.head_pose[:, 5], face.head_pose[0, 5].expand(len(seen)))
    there = (taken.facial_dynamics == seen.facial_dynamics).all(0).view(21, 3)
    still = (taken.facial_dynamics == face.facial_dynamics).all(0).view(21, 3)
    whole = {1, 2, 6, *range(11, 21)}
    assert {k for k in range(21) if bool(there[k].all())} == whole
    assert there[[3, 4, 5, 8, 9]].tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 1, 1]]
    assert torch.equal(still, ~there) and torch.equal(engine.adopted(taken, face).vectors, taken.vectors)


def test_what_was_placed_can_be_drawn_again(engine, face, motion):
    drawn = engine.drawable(motion, face)
    assert torch.allclose(engine.placed(drawn, face).vectors, motion.vectors, atol=1e-5)
    assert (drawn - motion.vectors).abs().max() > 0.01, "the portrait is not the generator's rest"


def test_a_clip_goes_on_from_a_motion_of_any_portrait(engine, face, motion):
    other = engine.encode(inputs("somebody", 3, 64, 64).sigmoid())
    plan, controls = WindowPlan(20, 4, 9, 0), Controls(steps=3, seed=2)
    for portrait in (face, other):
        before = engine.adopted(motion, portrait)
        apart = engine.generate(SPEECH, portrait, controls, plan=plan)
        joined = engine.generate(SPEECH, portrait, controls, plan=plan, previous=motion)
        assert len(joined) == 50 and joined.backend == BACKEND
        largest = torch.cat([before.vectors.diff(dim=0), joined.vectors.diff(dim=0)]).abs().amax(0).clamp_min(1e-4)
        gap, step = ((one.vectors[0] - before.vectors[-1]).abs() / largest for one in (apart, joined))
        assert step.max() < 1.2 < gap.max()


def test_parts_of_the_face_can_come_from_a_video(engine, face, motion):
    seen = replace(motion, facial_dynamics=motion.facial_dynamics + 1, head_pose=motion.head_pose + 0.1)
    mixed = blend(motion, seen, ("mouth",), engine.config.face.dynamics_names)
    changed = (mixed.facial_dynamics != motion.facial_dynamics).unflatten(-1, (21, 3)).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == list(LIPS) and torch.equal(mixed.head_pose, motion.head_pose)


def shaped(engine, face, motion, **controls):
    return engine.shaped(motion, Controls(**controls).curves(len(motion)), face)


def test_controls_that_ask_for_nothing_change_no_bit(engine, face, motion):
    assert torch.equal(shaped(engine, face, motion).vectors, motion.vectors)


def test_gaze_moves_both_eyeballs_and_nothing_else(engine, face, motion):
    widths = []
    for yaw in (-20, -10, 10, 20):
        looked = shaped(engine, face, motion, gaze=(math.radians(yaw), 0.0))
        change = (looked.facial_dynamics - motion.facial_dynamics).unflatten(-1, (21, 3))
        widths.append(float(change[0, LEFT_BALL, 0]))
        still = [k for k in range(21) if k not in (LEFT_BALL, RIGHT_BALL)]
        assert change[:, still].abs().max() == 0 and torch.equal(looked.head_pose, motion.head_pose)
        assert change[0, LEFT_BALL, 0] * change[0, RIGHT_BALL, 0] > 0
    # positive yaw looks to the left of the picture
    assert widths == sorted(widths, reverse=True) and widths[0] > 0 > widths[-1]


def test_blinks_shut_the_eyes_when_asked(engine, face, motion):
    blinked = shaped(engine, face, motion, blink=Blink(at=(0.8,)))
    delta = blinked.facial_dynamics.unflatten(-1, (21, 3))
    own = face.facial_dynamics.unflatten(-1, (21, 3))[0]
    for ball in (LEFT_BALL, RIGHT_BALL):
        assert float(delta[20, ball, 1]) >= float(own[ball, 1]) + CLOSED_BALL - 1e-5
    assert torch.equal(blinked.facial_dynamics[40], motion.facial_dynamics[40])
    quiet = shaped(engine, face, motion, blink=Blink(rate=0.0)).facial_dynamics.unflatten(-1, (21, 3))
    assert torch.allclose(quiet[:, list(EYES)], own[list(EYES)].expand(50, -1, -1), atol=1e-6)


@pytest.mark.parametrize("name, ours", [("mouth", True), ("expression", False)])
def test_intensity_scales_movement_about_the_portraits_own_face(engine, face, motion, name, ours):
    own = face.facial_dynamics.unflatten(-1, (21, 3))[0]
    before = motion.facial_dynamics.unflatten(-1, (21, 3)) - own
    after = shaped(engine, face, motion, **{name: 1.5}).facial_dynamics.unflatten(-1, (21, 3)) - own
    lips, others = list(LIPS), [k for k in range(21) if k not in LIPS and k not in EYES]
    chosen, spared = (lips, others) if ours else (others, lips)
    assert torch.allclose(after[:, chosen], 1.5 * before[:, chosen], atol=1e-5)
    assert torch.allclose(after[:, spared], before[:, spared], atol=1e-6)


def test_distance_and_head_pose_move_the_head(engine, face, motion):
    far = shaped(engine, face, motion, distance=2.0)
    assert torch.allclose(far.head_pose[:, 5], motion.head_pose[:, 5] - math.log(2), atol=1e-5)
    turned = shaped(engine, face, motion, head_pose=HeadPose(offset=(0.2, 0.0, 0.0)))
    assert torch.allclose(turned.head_pose[:, 0], motion.head_pose[:, 0] + 0.2, atol=1e-5)
    # the eyes stay on what they looked at
    assert (turned.facial_dynamics - motion.facial_dynamics).unflatten(-1, (21, 3))[:, LEFT_BALL, 0].min() > 0
    still = shaped(engine, face, motion, head_pose=HeadPose(amplitude=0.0))
    assert still.head_pose[:, :3].std(0).max() < 1e-5


def test_what_cannot_be_done_is_said(engine, face):
    with pytest.raises(InputError, match="emotion was asked for"):
        engine.generate(SPEECH, face, Controls(emotion={"happy": 1.0}))
    later = Track((Key(0.0, {}), Key(9.0, {"sad": 1.0})))
    with pytest.raises(InputError, match="emotion was asked for"):
        engine.generate(SPEECH, face, Controls(emotion=later))
    with pytest.raises(InputError, match="guidance distance has no effect"):
        engine.generate(SPEECH, face, Controls(guidance={"distance": 1.0}))
    mute = LivePortrait(Networks(engine.config, dict(engine.models.face.items())), torch.device("cpu"), torch.float32)
    with pytest.raises(InputError, match="vasa convert joyvasa"):
        mute.generate(SPEECH, face)


def test_recorded_decoding_gives_the_same_frames_and_notices_other_weights(engine, face, motion, monkeypatch):
    from vasa import graphs

    def record(function, given):
        outputs = tuple(out.clone() for out in function(*given))

        def replay():
            for to, value in zip(outputs, function(*given), strict=True):
                to.copy_(value)

        made.append(given)
        return replay, outputs

    made, own = [], LivePortrait(engine.models, engine.device, engine.dtype)
    plain = torch.cat(list(own.decode(face, motion[:4], batch_size=2)))
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "graphs_wanted", lambda tensors: True)
    for _ in range(2):
        assert torch.allclose(torch.cat(list(own.decode(face, motion[:4], batch_size=2))), plain, atol=1e-5)
    assert len(made) == 1
    bias = engine.models.face["decoder"].conv_img.bias
    with torch.no_grad():
        bias.add_(0.5)
        changed = torch.cat(list(own.decode(face, motion[:4], batch_size=2)))
        bias.sub_(0.5)
    assert len(made) == 2 and not torch.allclose(changed, plain, atol=1e-3)


def test_what_is_let_go_is_made_again(engine, face, motion):
    before = torch.cat(list(engine.decode(face, motion[:2])))
    recorded = weakref.ref(engine._drawing())
    engine.release()
    assert recorded() is None
    assert torch.equal(torch.cat(list(engine.decode(face, motion[:2]))), before)


def test_too_little_memory_halves_the_batch(engine, face, motion, monkeypatch):
    own = LivePortrait(engine.models, engine.device, engine.dtype)
    plain = torch.cat(list(own.decode(face, motion[:5], batch_size=5)))
    real = own._pictures

    def small(driving, *shared):
        if len(driving) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(driving, *shared)

    own = LivePortrait(engine.models, engine.device, engine.dtype)
    monkeypatch.setattr(own, "_pictures", small)
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        got = torch.cat(list(own.decode(face, motion[:5], batch_size=5)))
    assert own.largest_batch == 2 and torch.allclose(got, plain, atol=1e-5)
