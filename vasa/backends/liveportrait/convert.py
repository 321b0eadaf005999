"""Published files of the LivePortrait family -> a model folder of ours.

Reads tensors only (`weights_only=True`, or safetensors), verifies every key and shape before anything is written, and
folds norms. What a file says about its origin (source hashes, licence, configuration) stays in its header.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...checkpoint import sha256
from ...errors import InputError
from ...io.files import replacing
from ...motion.diffusion import alpha_bar
from ..pickles import read_pickle
from . import joyvasa
from .config import EXPRESSION_DIM, FORMAT, GeneratorConfig, RendererConfig, to_json
from .folding import check_keys, folded, folds_of
from .licences import LICENCES
from .sound import SpeechEncoder, folded_sound
from .weights import GENERATOR, PARTS, RETARGETING, empty

STEMS: dict[str, tuple[str, ...]] = {
    "appearance": ("appearance_feature_extractor", "appearance_extractor"),
    "motion_extractor": ("motion_extractor",),
    "warping": ("warping_module", "warp_network"),
    "decoder": ("spade_generator", "decoder"),
    RETARGETING: ("stitching_retargeting_module", "stitch_network"),
}
"""Names of the published files, LivePortrait's and its repacks', then Ditto's."""
_WEIGHTS = (".safetensors", ".pth", ".pt")
_ROLES = {"retarget_shoulder": "stitching", "retarget_mouth": "lip", "retarget_eye": "eye"}
Report = Callable[[str], None]


def convert_renderer(
    source: Path, dest: Path, family: str = "liveportrait", config: RendererConfig | None = None,
    report: Report = lambda line: None,
) -> None:  # fmt: skip
    """Convert the networks that render.

    Args:
        source: folder that holds the published files, at any depth.
        dest: model folder, made if needed.
        family: whose they are, a name of `licences.LICENCES`.
        config: their sizes; default the published ones.
        report: told one line for every file.

    Raises:
        InputError: a file is missing, ambiguous, not readable, or not the network it should be.
    """
    config = config or RendererConfig(name=family)
    found = {part: _find(source, stems, part != RETARGETING) for part, stems in STEMS.items()}
    made = {}
    for part, path in found.items():
        if path is None:
            report("no stitching_retargeting_module found; shoulders will not be stitched")
            continue
        state = _retargeting_of(read_tensors(path)) if part == RETARGETING else read_tensors(path)
        network = empty(part, config)
        try:
            made[part] = folded(state, network, folds_of(part, config) if part in PARTS else [])
        except ValueError as error:
            raise InputError(
                f"{path} is not the published {part.replace('_', ' ')}: it {error}; check what was downloaded"
            ) from error
        report(f"{path.name}: {sum(v.numel() for v in made[part].values()) / 1e6:.1f} M values verified")
    for part, state in made.items():
        _write(dest, part, state, to_json(config), family, [found[part]])


def convert_joyvasa(
    source: Path, dest: Path, legacy_pe: bool = True, heads: int = 8, report: Report = lambda line: None
) -> None:
    """Convert a JoyVASA motion generator with its audio encoder and its statistics.

    Args:
        source: folder with one `motion_generator*.pt` (or `iter_*.pt`) and `motion_template.pkl`, at any depth.
        dest: model folder; usually one that holds a renderer.
        legacy_pe: whether it was trained with the code before December 2025; the published weights were.
        heads: attention heads; the published code always builds 8.
        report: told one line for every file.

    Raises:
        InputError: a file is missing, ambiguous, not readable, or not such a generator.
    """
    weights = _find(source, ("motion_generator*", "iter_*"))
    template = _find(source, ("motion_template", "motion_templete"), suffixes=(".pkl",))
    state, named = _generator_file(weights)
    try:
        config = replace(_config_of(state, named), legacy_pe=legacy_pe, heads=heads)
        speech = {k.removeprefix("audio_encoder."): v for k, v in state.items() if k.startswith("audio_encoder.")}
        own = {k: v for k, v in state.items() if not k.startswith("audio_encoder.")}
        expected = joyvasa.published_shapes(config)
        # tables that follow from the sizes may be left out
        expected = {k: v for k, v in expected.items() if k in own or not k.endswith((".pe", "alignment_mask"))}
        check_keys(own, expected)
        _check_schedule(own["diffusion_sched.alpha_bars"], config)
        made = {f"generator.{k}": v for k, v in joyvasa.folded(own, config).items()}
        made |= {f"generator.{k}": v for k, v in joyvasa.statistics(_statistics_of(template)).items()}
        made |= {f"speech.encoder.{k}": v for k, v in _speech_of(speech, config).items()}
    except (ValueError, KeyError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{weights} is not a JoyVASA motion generator: it {what}; check what was downloaded"
        ) from error
    report(f"{weights.name}: {sum(v.numel() for v in made.values()) / 1e6:.1f} M values verified")
    _write(dest, GENERATOR, made, to_json(config), "joyvasa", [weights, template])


def read_tensors(path: Path) -> dict[str, Any]:
    """The state dict in a .safetensors, .pth or .pt file; nothing in it is run.

    Raises:
        InputError: damaged, or with anything but tensors in it.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # training writes its argument namespace beside the weights; it holds plain values
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} cannot be read as weights alone ({reason}); it was not opened further, because such files can "
            "run code; download it again from its makers"
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}, expected named tensors; check the path")
    return dict(state)


def _find(
    source: Path, stems: tuple[str, ...], needed: bool = True, suffixes: tuple[str, ...] = _WEIGHTS
) -> Path | None:
    """The one file of these names below a folder."""
    if not source.is_dir():
        raise InputError(f"the source {source} is not a folder; give the one that holds the published files")
    for suffix in suffixes:
        hits = sorted({path for stem in stems for path in source.rglob(f"{stem}{suffix}") if path.is_file()})
        # the packages hold two families side by side; people come first
        people = [path for path in hits if "animal" not in str(path.relative_to(source)).lower()]
        hits = people or hits
        if len(hits) > 1:
            names = ", ".join(str(path.relative_to(source)) for path in hits[:3])
            raise InputError(f"{source} holds several files that fit ({names}); give the folder of one of them")
        if hits:
            return hits[0]
    if needed:
        raise InputError(f"{source} holds no {stems[0]}{' or '.join(suffixes)}; check the source folder")
    return None


def _retargeting_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """One flat dict of the three small networks, whether they came nested or with long prefixes."""
    flat = {}
    for outer, value in state.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        for name, tensor in inner.items():
            key = f"{outer}.{name}" if name else outer
            role = next((ours for theirs, ours in _ROLES.items() if key.startswith(theirs)), None)
            if role is None or "mlp." not in key:
                flat[key] = tensor
            else:
                flat[f"{role}.{key[key.index('mlp.') :]}"] = tensor
    return flat


def _generator_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    content = read_tensors(path)
    named = vars(content["args"]) if isinstance(content.get("args"), argparse.Namespace) else content.get("args")
    state = content.get("model", content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no named tensors under 'model'; check what was downloaded")
    return dict(state), named if isinstance(named, dict) else {}


def _config_of(state: dict[str, Tensor], named: dict[str, Any]) -> GeneratorConfig:
    """Sizes from the shapes; kind of the audio encoder and frame rate from the training's arguments."""
    net = "denoising_net.transformer.layers."
    previous, channels = state["start_motion_feat"].shape[1:]
    if channels != joyvasa.CHANNELS:
        raise ValueError(f"draws {channels} motion channels, expected {joyvasa.CHANNELS}")
    mask = state.get("denoising_net.alignment_mask")
    window = int(named.get("n_motions") or (mask.shape[0] - previous if mask is not None else 100))
    kind = "wav2vec2" if "wav2vec2" in str(named.get("audio_model", "")) else "hubert"
    return GeneratorConfig(
        dim=state["start_audio_feat"].shape[-1],
        depth=1 + max(int(name.removeprefix(net).split(".")[0]) for name in state if name.startswith(net)),
        window=window,
        num_previous=previous,
        fps=float(named.get("fps") or 25),
        diffusion_steps=state["diffusion_sched.betas"].shape[0] - 1,
        audio=kind,
        audio_overrides=_sound_sizes(state),
        audio_dim=state["audio_feature_map.weight"].shape[1],
    )


def _sound_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """Fields of the `transformers` configuration, as far as shapes tell them."""
    prefix = "audio_encoder."
    convs = []
    while (weight := state.get(f"{prefix}feature_extractor.conv_layers.{len(convs)}.conv.weight")) is not None:
        convs.append(weight.shape)
    hidden = state[f"{prefix}feature_projection.projection.weight"].shape[0]
    layers = {int(k.split(".")[3]) for k in state if k.startswith(f"{prefix}encoder.layers.")}
    stem = f"{prefix}encoder.pos_conv_embed.conv."
    position = state[
        stem + next(k for k in ("weight_v", "parametrizations.weight.original1", "weight") if stem + k in state)
    ]
    return {
        "conv_dim": [shape[0] for shape in convs],
        "conv_kernel": [shape[2] for shape in convs],
        "conv_bias": f"{prefix}feature_extractor.conv_layers.0.conv.bias" in state,
        "feat_extract_norm": "layer"
        if f"{prefix}feature_extractor.conv_layers.1.layer_norm.weight" in state
        else "group",
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        # heads of base and large models alike have 64 channels
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": state[f"{prefix}encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0],
        "num_conv_pos_embeddings": position.shape[2],
        "num_conv_pos_embedding_groups": hidden // position.shape[1],
    }


def _speech_of(state: dict[str, Tensor], config: GeneratorConfig) -> dict[str, Tensor]:
    state = {name: value.float().contiguous() for name, value in folded_sound(state).items()}
    with torch.device("cpu"):
        own = {k: tuple(v.shape) for k, v in SpeechEncoder(config).encoder.state_dict().items()}
    # the embedding of masked stretches is for training only
    state.setdefault("masked_spec_embed", torch.zeros(own.get("masked_spec_embed", (0,))))
    state = {k: v for k, v in state.items() if k in own or k != "masked_spec_embed"}
    check_keys(state, own)
    return state


def _check_schedule(levels: Tensor, config: GeneratorConfig) -> None:
    expected = alpha_bar(torch.arange(-1, config.diffusion_steps), config.diffusion_steps)
    if (levels.double() - expected).abs().max() > 1e-3:
        raise ValueError("was trained with another noise schedule than the cosine")


def _statistics_of(path: Path) -> dict[str, Tensor]:
    """The flat statistics that the generator needs, from the template."""
    template = read_pickle(path)
    sizes = {"exp": EXPRESSION_DIM, "scale": 1, "t": 3, "pitch": 1, "yaw": 1, "roll": 1}
    kinds = ("mean", "std", "min", "max")
    flat = {}
    for name in (f"{kind}_{part}" for kind in kinds for part in sizes):
        value = template.get(name) if isinstance(template, dict) else None
        if value is None and name.startswith("mean_"):
            part = name.removeprefix("mean_")
            # a template without means: the middle of the range
            value = (np.asarray(template[f"min_{part}"]) + np.asarray(template[f"max_{part}"])) / 2
        size = sizes[name.partition("_")[2]]
        if value is None and name.startswith("std_") and name != "std_exp":
            continue
        if value is None or np.size(value) != size or not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            raise InputError(f"{path} lacks {size} finite numbers {name}; it is not a JoyVASA motion template")
        flat[name] = torch.from_numpy(np.asarray(value, dtype=np.float32).reshape(-1).copy())
    return flat


def _write(
    dest: Path, part: str, state: dict[str, Tensor], config: str, family: str, sources: list[Path | None]
) -> None:
    dest.mkdir(parents=True, exist_ok=True)
    name, text = LICENCES[family]
    hashes = {path.name: sha256(path) for path in sources if path is not None}
    header = {"format": FORMAT, "config": config, "licence": text, "licence_name": name, "family": family}
    path = dest / f"{part}.safetensors"
    with replacing(path) as partial:
        save_file(state, partial, metadata={**header, "sources": json.dumps(hashes, sort_keys=True)})
    licence = dest / f"LICENSE-{family}.txt"
    with replacing(licence) as partial:
        partial.write_text(text)
    listed = [f"{sha256(p)}  {p.name}" for p in sorted(dest.glob("*.safetensors"))]
    with replacing(dest / "sha256.txt") as partial:
        partial.write_text("\n".join(listed) + "\n")
