"""Our LivePortrait backend against the published modules: same random weights, same input, one run.

    python benchmarks/liveportrait.py LIVEPORTRAIT [--joyvasa JOYVASA] [--only parity]

The arguments are folders with the published repositories; nothing of them is part of this project. Prints the largest
relative difference of every module (parity) and the golden figures of the tests. How fast both are is measured by
`vasa bench --model liveportrait --published LIVEPORTRAIT`, how Ditto compares by `benchmarks/ditto.py`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from vasa.backends.liveportrait import joyvasa
from vasa.backends.liveportrait.config import GeneratorConfig, RendererConfig
from vasa.backends.liveportrait.folding import published_shapes
from vasa.backends.liveportrait.retarget import SIZES
from vasa.backends.liveportrait.sound import SpeechEncoder, folded_sound
from vasa.backends.liveportrait.weights import RETARGETING, empty
from vasa.backends.seeded import inputs, seeded
from vasa.bench.published import paired, part_of, published, renderer
from vasa.motion.conditions import Conditions, nothing_empty
from vasa.motion.diffusion import sample

REDUCED = RendererConfig(
    name="reduced", input_size=64, image_size=128, width=8, volume_channels=8, volume_depth=4, resblocks=2,
    flow_width=8, flow_halvings=3, flow_max=32,
    backbone_depths=(1, 2, 1, 1), backbone_widths=(8, 16, 24, 32),
)  # fmt: skip
"""Small sizes for which the tests keep golden figures."""


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def statistics_of(x: Tensor) -> dict[str, float]:
    """Golden figures: mean, spread and two values of an output."""
    flat = x.detach().double().flatten()
    return {
        "mean": float(flat.mean()), "std": float(flat.std()),
        "first": float(flat[len(flat) // 3]), "second": float(flat[2 * len(flat) // 3]),
    }  # fmt: skip


def keypoints(name: str, count: int) -> Tensor:
    return inputs(name, count, 21, 3) * 0.3


@torch.inference_mode()
def renderer_parity(package: ModuleType, config: RendererConfig) -> dict[str, dict]:
    """Differences and golden figures of every network of the renderer."""
    rows, size = {}, config.volume_size
    modules = renderer(package, config)
    picture = inputs("picture", 1, 3, config.input_size, config.input_size).sigmoid()
    volume = inputs("volume", 1, config.volume_channels, config.volume_depth, size, size)
    driving, source = keypoints("driving", 1), keypoints("source", 1)
    features = inputs("features", 1, config.label_dim, size, size)
    calls = {
        "appearance": (lambda m: m(picture), lambda m: m(picture)),
        "warping": (lambda m: m(volume, kp_driving=driving, kp_source=source)["out"],
                    lambda m: m(volume, driving, source)),
        "decoder": (lambda m: m(features), lambda m: m(features)),
        "motion_extractor": (lambda m: torch.cat([m(picture)[k] for k in _RAW], 1),
                             lambda m: torch.cat([m.detector(picture)[k] for k in _RAW], 1)),
    }  # fmt: skip
    for part, (call_theirs, call_ours) in calls.items():
        ours = paired(modules[part], part, config)
        expected, got = call_theirs(modules[part]), call_ours(ours)
        millions = sum(p.numel() for p in modules[part].parameters()) / 1e6
        rows[part] = {"millions": millions, "difference": difference(got, expected), **statistics_of(expected)}
    return rows


_RAW = ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")


@torch.inference_mode()
def retargeting_parity(package: ModuleType) -> dict[str, dict]:
    network = part_of(package, "modules.stitching_retargeting_network").StitchingRetargetingNetwork
    ours, rows = empty(RETARGETING, REDUCED, "cpu"), {}
    shapes = published_shapes(ours, [])
    ours.load_state_dict(seeded(shapes))
    for name, widths in SIZES.items():
        theirs = network(widths[0], list(widths[1:-1]), widths[-1])
        theirs.load_state_dict(getattr(ours, name).state_dict())
        x = inputs(name, 5, widths[0])
        expected = theirs(x)
        rows[name] = {"difference": difference(getattr(ours, name).mlp(x), expected), **statistics_of(expected)}
    return rows


PUBLISHED_GENERATOR = GeneratorConfig(dim=256, channels=73, diffusion_steps=50)
"""The sizes of `motion_generator_hubert_chinese.pt`, as others who hold the file report them."""
SMALL_GENERATOR = GeneratorConfig(
    name="small", dim=32, depth=2, window=20, num_previous=4, diffusion_steps=50, audio_dim=48,
    audio_overrides={
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    },
)  # fmt: skip
"""Sizes for which the tests keep golden figures of the motion generator."""


def generator_state(config: GeneratorConfig) -> dict[str, Tensor]:
    """Seeded weights of a published motion generator, without its audio encoder, tables as they follow from sizes."""
    state = seeded(joyvasa.published_shapes(config))
    for name in ("PE.pe", "TE.pe"):
        rows = torch.arange(state[f"denoising_net.{name}"].shape[1])
        state[f"denoising_net.{name}"] = joyvasa.sinusoid(rows, config.dim)[None]
    return state


class Published(nn.Module):
    """The published denoising network behind the interface that our sampler drives."""

    def __init__(self, network: nn.Module, state: dict[str, Tensor], ours: joyvasa.JoyVasa) -> None:
        super().__init__()
        self.network, self.config = network, ours.config
        self.state, self.order = state, joyvasa.ours_of_theirs(ours.config.channels)
        self.normalise, self.low, self.high, self.mean = ours.normalise, ours.low, ours.high, ours.mean

    def forward(self, x_t: Tensor, t: Tensor, c: Conditions) -> Tensor:
        back = torch.tensor(self.order).argsort()
        audio = nn.functional.linear(
            c.audio, self.state["audio_feature_map.weight"], self.state["audio_feature_map.bias"]
        )
        audio = torch.where(c.empty["audio"][:, None, None], self.state["null_audio_feat"], audio)
        count = len(x_t)
        made = self.network(
            x_t[..., back], audio, self.state["start_motion_feat"].expand(count, -1, -1),
            self.state["start_audio_feat"].expand(count, -1, -1), (t + 1).long(),
        )  # fmt: skip
        return made[:, -x_t.shape[1] :, self.order]


@torch.inference_mode()
def generator_parity(package: ModuleType, config: GeneratorConfig) -> dict[str, dict]:
    """One window of motion, guided, drawn by our sampler from the published network and from ours; and features."""
    module, positions = part_of(package, "modules.dit_talking_head"), part_of(package, "modules.common")
    if not isinstance(module.enc_dec_mask, functools.partial):
        # the published code puts this table on a GPU whatever the device
        module.enc_dec_mask = functools.partial(module.enc_dec_mask, device="cpu")
    encoding = positions.PositionalEncoding
    if not hasattr(encoding, "published"):
        encoding.published = encoding.forward
    # what the published code did until December 2025, the state the published weights were trained in
    encoding.forward = (
        (lambda self, x: self.dropout(x + self.pe[:, x.shape[1], :])) if config.legacy_pe else encoding.published
    )
    network = module.DenoisingNetwork(
        device="cpu", motion_feat_dim=config.channels, feature_dim=config.dim, n_layers=config.depth,
        n_prev_motions=config.num_previous, n_motions=config.window, n_diff_steps=config.diffusion_steps,
    )  # fmt: skip
    state = generator_state(config)
    mask = "denoising_net.alignment_mask"
    inner = {k.removeprefix("denoising_net."): v for k, v in state.items() if k.startswith("denoising_net.")}
    network.load_state_dict({k: v for k, v in inner.items() if k != "alignment_mask"}, strict=False)
    network.eval().requires_grad_(False)
    ours = joyvasa.JoyVasa(config)
    ours.load_state_dict(joyvasa.folded({k: v for k, v in state.items() if k != mask}, config), strict=False)
    ours.eval().requires_grad_(False)
    wide = {"low": torch.full_like(ours.low, -50.0), "high": torch.full_like(ours.high, 50.0)}
    ours.load_state_dict(wide, strict=False)
    length = config.window
    conditions = Conditions(
        audio=inputs("sound", 1, length, config.audio_dim), heard=torch.ones(1, length),
        gaze=torch.zeros(1, length, 2), distance=torch.zeros(1, length, 1), emotion=torch.zeros(1, length, 8),
        previous_motion=torch.zeros(1, config.num_previous, config.channels),
        previous_audio=torch.zeros(1, config.num_previous, config.audio_dim), empty=nothing_empty(1),
    )  # fmt: skip
    conditions.empty["previous"][:] = True
    noise = inputs("noise", 1, length, config.channels)
    drawn = [
        sample(denoiser, conditions, length, scales={"audio": 1.8}, steps=10, noise=noise)
        for denoiser in (Published(network, state, ours), ours)
    ]
    what = f"window of {length}, {'old' if config.legacy_pe else 'new'} positions"
    rows = {what: {"difference": difference(drawn[1], drawn[0]), **statistics_of(drawn[0])}}
    rows[what]["millions"] = sum(p.numel() for p in network.parameters()) / 1e6
    return rows | (sound_parity(package, config) if config.legacy_pe else {})


@torch.inference_mode()
def sound_parity(package: ModuleType, config: GeneratorConfig) -> dict[str, dict]:
    """Features of a window of sound, from the published encoder class and from ours."""
    ours = SpeechEncoder(config).eval()
    theirs = part_of(package, "modules.hubert").HubertModel(ours.encoder.config).eval()
    theirs.config._attn_implementation = "eager"
    state = seeded({k: tuple(v.shape) for k, v in theirs.state_dict().items()})
    theirs.load_state_dict(state)
    ours.encoder.load_state_dict(folded_sound(state))
    waveform = inputs("speech", 1, round(config.window * config.sample_rate / config.fps)) * 0.1
    hears = SimpleNamespace(
        n_motions=config.window, fps=config.fps, audio_encoder=theirs, audio_feature_map=nn.Identity()
    )
    delay = round(config.sound_delay * config.sample_rate / config.fps)
    late = nn.functional.pad(waveform, (delay, 0))[:, : waveform.shape[1]]
    talker = part_of(package, "modules.dit_talking_head").DitTalkingHead
    expected = talker.extract_audio_feature(hears, late)
    row = {"difference": difference(ours(waveform, config.window), expected), **statistics_of(expected)}
    row["millions"] = sum(p.numel() for p in theirs.parameters()) / 1e6
    return {"speech features": row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("liveportrait", type=Path)
    parser.add_argument("--joyvasa", type=Path)
    parser.add_argument("--only", choices=("parity", "golden"))
    given = parser.parse_args()
    package = published(given.liveportrait, "published_liveportrait")
    if given.only in (None, "golden"):
        golden = renderer_parity(package, REDUCED) | retargeting_parity(package)
        if given.joyvasa is not None:
            golden |= generator_parity(published(given.joyvasa, "published_joyvasa"), SMALL_GENERATOR)
        print(json.dumps(golden, indent=1))
    if given.only in (None, "parity"):
        for name, row in renderer_parity(package, RendererConfig()).items():
            print(f"{name:22} {row['millions']:7.2f} M   relative difference {row['difference']:.1e}")
        if given.joyvasa is not None:
            package = published(given.joyvasa, "published_joyvasa_full")
            for sizes, legacy in itertools.product((GeneratorConfig(), PUBLISHED_GENERATOR), (True, False)):
                config = replace(sizes, window=50, legacy_pe=legacy)
                for name, row in generator_parity(package, config).items():
                    print(f"{name:22} {row['millions']:7.2f} M   relative difference {row['difference']:.1e}")


if __name__ == "__main__":
    main()
