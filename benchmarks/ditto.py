"""Ditto's renderer and motion generator against the published modules: same random weights, same input, one run.

    python benchmarks/ditto.py DITTO [--only parity]

DITTO is a folder with the published repository; nothing of it is part of this project. Prints the largest relative
difference of every module, of a guided window of 80 frames, of the speech features that are made from the encoder's
output, and of everything the generator is told; and the golden figures of the tests.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pickle
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from liveportrait import difference, keypoints, statistics_of
from torch import Tensor, nn

from vasa.backends.liveportrait import ditto
from vasa.backends.liveportrait.config import DittoConfig, RendererConfig
from vasa.backends.liveportrait.ditto_portrait import (
    EMOTION_ORDER,
    Sitter,
    emotions,
    eyes,
    joined,
    moods_of,
    physical,
)
from vasa.backends.liveportrait.ditto_settings import read_settings
from vasa.backends.liveportrait.ditto_sound import STRETCH, StretchEncoder
from vasa.backends.liveportrait.keypoints import posed
from vasa.backends.liveportrait.placement import enlarged
from vasa.backends.liveportrait.retarget import SIZES
from vasa.backends.liveportrait.weights import PARTS
from vasa.backends.seeded import inputs, seeded
from vasa.bench.published import paired, part_of, published
from vasa.latents import EMOTIONS, Motion
from vasa.motion.conditions import Conditions, nothing_empty
from vasa.motion.diffusion import sample

SMALL = DittoConfig(name="small", dim=32, hidden=48, depth=2, heads=4, window=20, audio_dim=24, diffusion_steps=1000)
"""Sizes for which the tests keep golden figures."""


def without_pictures() -> None:
    """The pipeline's files import these, which the modules under test do not use."""
    for unused in ("librosa", "cv2"):
        try:
            importlib.import_module(unused)
        except ImportError:
            sys.modules[unused] = ModuleType(unused)


@torch.inference_mode()
def renderer_parity(package: ModuleType) -> dict[str, dict]:
    """Ditto's copies of LivePortrait's networks, at full size."""
    config, modules = RendererConfig(), part_of(package, "models.modules")
    theirs = {
        "appearance": modules.AppearanceFeatureExtractor(),
        "motion_extractor": modules.MotionExtractor(),
        "warping": modules.WarpingNetwork(),
        "decoder": modules.SPADEDecoder(),
    }
    picture = inputs("picture", 1, 3, 256, 256).sigmoid()
    volume, driving, source = inputs("volume", 1, 32, 16, 64, 64), keypoints("driving", 1), keypoints("source", 1)
    raw = ("pitch", "yaw", "roll", "t", "exp", "scale", "kp")
    calls = {
        "appearance": (lambda m: m(picture), lambda m: m(picture)),
        "motion_extractor": (lambda m: torch.cat(m(picture), 1),
                             lambda m: torch.cat([m.detector(picture)[k] for k in raw], 1)),
        "warping": (lambda m: m(volume, source, driving), lambda m: m(volume, driving, source)),
        "decoder": (lambda m: m(inputs("features", 1, 256, 64, 64)), lambda m: m(inputs("features", 1, 256, 64, 64))),
    }  # fmt: skip
    rows = {}
    for part, (call_theirs, call_ours) in calls.items():
        ours = paired(theirs[part], part, config)
        expected = call_theirs(theirs[part])
        if part == "decoder" and expected.shape[-1] == 3:
            expected = expected.permute(0, 3, 1, 2) / 255
        rows[part] = {"difference": difference(call_ours(ours), expected)}
    assert set(PARTS) == set(rows)
    stitching = modules.StitchingNetwork()
    own = nn.Sequential(*stitching.mlp)
    assert [tuple(layer.weight.shape) for layer in own[::2]] == [
        (b, a) for a, b in zip(SIZES["stitching"][:-1], SIZES["stitching"][1:], strict=True)
    ]
    return rows


def generators(package: ModuleType, config: DittoConfig) -> tuple[nn.Module, ditto.Ditto]:
    """The published network at the sizes of a configuration, and ours, with the same seeded weights."""
    theirs = part_of(package, "models.modules.lmdm_modules.model").MotionDecoder(
        nfeats=ditto.CHANNELS, seq_len=config.window, latent_dim=config.dim, ff_size=config.hidden,
        num_layers=config.depth, num_heads=config.heads, cond_feature_dim=config.audio_dim + ditto.EXTRA,
    )  # fmt: skip
    shapes = ditto.published_shapes(config)
    own = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if not k.endswith("rotary.freqs")}
    assert own == shapes, sorted(set(own.items()) ^ set(shapes.items()))[:6]
    state = seeded(shapes)
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    ours = ditto.Ditto(config)
    ours.load_state_dict(ditto.folded(state, config), strict=False)
    return theirs.eval().requires_grad_(False), ours.eval().requires_grad_(False)


class Published(Sitter):
    """The published network behind the interface that our sampler drives."""

    def __call__(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        rows = []
        for i, empty in enumerate(conditions.empty["audio"].tolist()):
            one = conditions[i : i + 1]
            rows.append(
                self.theirs(
                    x_t[i : i + 1], self.own[None], self.known(one), t[i : i + 1].long(), 1.0 - float(not empty)
                )
            )
        return torch.cat(rows)


def window(config: DittoConfig) -> Conditions:
    """Speech, a gaze to the side and two emotions for one window."""
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


@torch.inference_mode()
def generator_parity(package: ModuleType, config: DittoConfig) -> dict[str, dict]:
    """The network with and without what it is told, guided as published, and a window drawn by our sampler."""
    theirs, ours = generators(package, config)
    ours.low.fill_(-1e3), ours.high.fill_(1e3)
    own, canonical = inputs("own", ditto.CHANNELS), inputs("canonical", 63) * 0.3
    silence = inputs("silence", config.audio_dim)[None]
    conditions, length = window(config), config.window
    sitter = Sitter(ours, own, canonical, silence)
    x_t, t = inputs("noise", 1, length, ditto.CHANNELS), torch.full((1,), 700)
    known = sitter.known(conditions)
    rows = {}
    for name, drop in (("told everything", 0.0), ("told nothing", 1.0)):
        expected = theirs(x_t, own[None], known, t, cond_drop_prob=drop)
        got = ours(x_t, own[None], t.float(), known, torch.tensor([drop == 1.0]))
        rows[name] = {"difference": difference(got, expected), **statistics_of(expected)}
    rows["told everything"]["millions"] = sum(p.numel() for p in theirs.parameters()) / 1e6
    guided = theirs.guided_forward(x_t, own[None], known, t, 2)
    rows_of = [ours(x_t, own[None], t.float(), known, torch.tensor([empty])) for empty in (False, True)]
    rows["guided"] = {"difference": difference(2 * rows_of[0] - rows_of[1], guided)}
    reference = Published(ours, own, canonical, silence)
    reference.theirs = theirs
    drawn = [sample(d, conditions, length, scales={"audio": 1.0}, steps=10, noise=x_t) for d in (reference, sitter)]
    rows["window"] = {"difference": difference(drawn[1], drawn[0]), **statistics_of(drawn[0])}
    return rows


def stand_in(samples: Tensor) -> Tensor:
    """Some function of a stretch of sound in the place of HuBERT, [1, 6480] -> [20, 1024]."""
    assert samples.shape == (1, STRETCH), samples.shape
    return (samples.view(-1, 324) @ (inputs("mixing", 324, 1024) * 0.1)).sin()


@torch.inference_mode()
def sound_parity(package: ModuleType) -> dict[str, dict]:
    """Features of 3.3 s of sound, from the published stretches and from ours, with the same stand-in for HuBERT."""
    maker = part_of(package, "atomic_components.wav2feat").Wav2FeatHubert
    theirs = maker.__new__(maker)
    theirs.hubert = lambda chunk: stand_in(torch.from_numpy(chunk)[None]).numpy()
    waveform = inputs("speech", 52_800) * 0.1
    expected = torch.from_numpy(theirs.wav2feat(waveform.numpy(), 16_000))
    got = StretchEncoder(DittoConfig(), stand_in)(waveform[None], len(expected))[0]
    return {"speech stretches": {"difference": difference(got, expected), **statistics_of(expected)}}


@torch.inference_mode()
def told_parity(package: ModuleType) -> dict[str, dict]:
    """Motion channels, emotions and eyes as the published program writes them."""
    rows = {}
    layout = part_of(package, "atomic_components.audio2motion")._cvt_LP_motion_info
    stitch = part_of(package, "atomic_components.motion_stitch")
    sizes = {"scale": 1, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63, "kp": 63}
    seen = {name: inputs(name, 1, size) for name, size in sizes.items()}
    seen["scale"] = seen["scale"] * 0.05 + 1.2
    array = {name: value.numpy() for name, value in seen.items()}
    flat = layout(array, "dic2arr", ignore_keys={"kp"})
    rows["motion channels"] = {"difference": difference(joined(seen)[0], torch.from_numpy(flat))}
    back = layout(flat, "arr2dic") | {"kp": array["kp"]}
    expected = torch.from_numpy(np.asarray(stitch.transform_keypoint(back), dtype=np.float32))
    own = physical(joined(seen))
    got = posed(seen["kp"].unflatten(-1, (21, 3)), own[:, :6], own[:, 6:])
    rows["keypoints from them"] = {"difference": difference(got, expected)}
    named = part_of(package, "atomic_components.condition_handler")._get_emo_avg
    weights = torch.eye(len(EMOTIONS))
    expected = torch.stack([torch.from_numpy(named(EMOTION_ORDER.index(name))) for name in EMOTIONS])
    rows["emotions"] = {"difference": difference(emotions(weights), expected)}
    rows |= person_parity(package)
    rows["eyes"] = {"difference": eye_difference(part_of(package, "utils.eye_info").EyeAttrUtilsByMP)}
    return rows


def person_parity(package: ModuleType) -> dict[str, dict]:
    """What is told of a person and a table of emotions in the settings, and how their motion becomes a portrait's."""
    sizes = {"scale": 1, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 63, "kp": 63}

    def seen(name: str, scale: float) -> dict[str, np.ndarray]:
        made = {part: inputs(f"{name} {part}", 1, size).numpy() for part, size in sizes.items()}
        return made | {"scale": np.full((1, 1), scale, np.float32)}

    person = {
        "x_s_info_lst": [seen("person", 1.5)], "sc": seen("person", 1.5)["kp"].flatten(),
        "eye_open_lst": [inputs("open", 1, 2).numpy()], "eye_ball_lst": [inputs("balls", 1, 6).numpy()],
    }  # fmt: skip
    table, length = inputs("table", 600, 8).softmax(-1).numpy(), SMALL.window
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.pkl"
        defaults = {"ch_info": person, "emo": table, "fix_kp_cond": 1, "fix_kp_cond_dim": [0, 202]}
        path.write_bytes(pickle.dumps({"audio2motion_cfg": {}, "default_kwargs": defaults}))
        held = read_settings(path).tensors
    network = ditto.Ditto(replace(SMALL, person=True, moods=len(table)))
    network.load_state_dict(held, strict=False)
    sitter = Sitter.of_settings(network, inputs("silence", SMALL.audio_dim)[None])
    conditions, first = window(SMALL), 590
    conditions.gaze.zero_(), conditions.emotion.zero_()
    conditions.emotion[..., EMOTIONS.index("neutral")] = 1
    conditions.emotion[:] = moods_of(network, conditions.emotion, torch.arange(first, first + length))
    handler = part_of(package, "atomic_components.condition_handler").ConditionHandler(seq_frames=length)
    handler.setup({}, table, ch_info=person)
    expected = torch.from_numpy(handler(conditions.audio[0].numpy(), first)).float()
    rows = {"a person and moods": {"difference": difference(sitter.known(conditions)[0], expected)}}
    motion = part_of(package, "atomic_components.audio2motion")
    flat = motion._cvt_LP_motion_info(person["x_s_info_lst"][0], "dic2arr", ignore_keys={"kp"})
    rows["frame before the first"] = {"difference": difference(sitter.own, torch.from_numpy(flat))}
    return rows | {
        "portrait's motion": {"difference": motion_difference(package, person, seen("portrait", 1.25), held)}
    }


def motion_difference(package: ModuleType, person: dict, portrait: dict[str, np.ndarray], held: dict) -> float:
    """Angles and expressions of a portrait, from what was drawn for a person of another size."""
    stitch = part_of(package, "atomic_components.motion_stitch")
    layout = part_of(package, "atomic_components.audio2motion")._cvt_LP_motion_info
    mixing = stitch.MotionStitch.__new__(stitch.MotionStitch)
    mixing.N_d = -1
    rest, drawn = (inputs(name, ditto.CHANNELS) for name in ("at rest", "drawn"))
    mixing.setup(x_s_info=portrait, ch_info=person)
    made = stitch._mix_s_d_info(
        plain(stitch, portrait),
        plain(stitch, layout(drawn.numpy(), "arr2dic")),
        mixing.use_d_keys,
        plain(stitch, layout(rest.numpy(), "arr2dic")),
    )
    own = physical(joined({name: torch.from_numpy(value) for name, value in portrait.items()}))
    # angles add up where the portrait looks ahead; elsewhere ours are turns about its own axes
    face = SimpleNamespace(head_pose=own[:, :6], facial_dynamics=own[:, 6:])
    motion = Motion.from_vectors(physical(drawn)[None], 25.0, "liveportrait")
    size = physical(held["person"])[5]
    moved = enlarged(motion, physical(rest), size, face)
    angles = (moved.head_pose[0, :3] - physical(rest)[:3]).rad2deg() + own[0, :3].rad2deg()
    expected = torch.tensor([float(made[name].item()) for name in ("yaw", "pitch", "roll")])
    expression = (moved.facial_dynamics[0] - physical(rest)[6:]) + own[0, 6:]
    return max(difference(angles, expected), difference(expression, torch.from_numpy(made["exp"][0])))


def plain(stitch: ModuleType, seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Motion with angles in degrees, which the published program turns them into only after it took differences."""
    return seen | {name: stitch.bin66_to_degree(seen[name]) for name in ("pitch", "yaw", "roll")}


def eye_difference(attributes: type) -> float:
    """Our eyes against the published reading of landmarks that were placed where our constants say."""
    worst = 0.0
    for yaw, pitch in ((0.0, 0.0), (0.3, -0.2), (-0.4, 0.1)):
        told = eyes(torch.tensor([yaw, pitch]))
        marks = np.zeros((1, 478, 3))
        for side, (outer, inner, ball) in ((1.0, (33, 133, 468)), (-1.0, (263, 362, 473))):
            outward = np.array([-side * 0.97, -0.09, 0.19])
            outward /= np.linalg.norm(outward)
            marks[0, outer], marks[0, inner] = 0.049 * outward, -0.049 * outward
            x = -side * 0.0046 - 0.039 * math.sin(yaw)
            marks[0, ball] = (x, -0.0069 + 0.039 * math.sin(pitch), -0.0096)
        expected = torch.from_numpy(attributes(marks).LR_ball_move().reshape(6))
        worst = max(worst, difference(told[2:].double(), expected))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ditto", type=Path)
    parser.add_argument("--only", choices=("parity", "golden"))
    given = parser.parse_args()
    without_pictures()
    package = published(given.ditto, "published_ditto", "core")
    if given.only != "parity":
        print(json.dumps(generator_parity(package, SMALL) | sound_parity(package), indent=1))
    if given.only != "golden":
        rows = renderer_parity(package) | generator_parity(package, DittoConfig())
        for name, row in (rows | sound_parity(package) | told_parity(package)).items():
            size = f"{row['millions']:7.2f} M" if "millions" in row else " " * 9
            print(f"{name:22} {size}   relative difference {row['difference']:.1e}")


if __name__ == "__main__":
    main()
