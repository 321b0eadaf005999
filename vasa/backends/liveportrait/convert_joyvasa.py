"""JoyVASA's published motion generator, with its audio encoder and its statistics -> a model folder of ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...motion.diffusion import alpha_bar
from ..pickles import read_pickle
from . import joyvasa
from .config import EXPRESSION_DIM, GeneratorConfig, to_json
from .convert import Report, write_part
from .folding import check_keys
from .published import find_file, read_tensors
from .sound import SpeechEncoder, folded_sound
from .weights import GENERATOR


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
    weights = find_file(source, ("motion_generator*", "iter_*"))
    template = find_file(source, ("motion_template", "motion_templete"), suffixes=(".pkl",))
    state, named = _generator_file(weights)
    try:
        config = replace(_config_of(state, named), legacy_pe=legacy_pe, heads=heads)
        speech = {k.removeprefix("audio_encoder."): v for k, v in state.items() if k.startswith("audio_encoder.")}
        # tables of positions follow from the sizes; that of times is as long as a default that training overrode
        own = {k: v for k, v in state.items() if not k.startswith("audio_encoder.") and not k.endswith(".pe")}
        expected = {k: v for k, v in joyvasa.published_shapes(config).items() if not k.endswith(".pe")}
        expected = {k: v for k, v in expected.items() if k in own or not k.endswith("alignment_mask")}
        check_keys(own, expected)
        _check_schedule(own["diffusion_sched.alpha_bars"], config)
        made = {f"generator.{k}": v for k, v in joyvasa.folded(own, config).items()}
        made |= {f"generator.{k}": v for k, v in joyvasa.statistics(_statistics_of(template), config.channels).items()}
        made |= {f"speech.encoder.{k}": v for k, v in _speech_of(speech, config).items()}
    except (ValueError, KeyError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{weights} is not a JoyVASA motion generator: it {what}; check what was downloaded"
        ) from error
    report(f"{weights.name}: {sum(v.numel() for v in made.values()) / 1e6:.1f} M values verified")
    write_part(dest, GENERATOR, made, to_json(config), "joyvasa", [weights, template])


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
    if channels < joyvasa.CHANNELS:
        raise ValueError(f"draws {channels} motion channels, expected {joyvasa.CHANNELS} or more")
    mask = state.get("denoising_net.alignment_mask")
    window = int(named.get("n_motions") or (mask.shape[0] - previous if mask is not None else 100))
    kind = "wav2vec2" if "wav2vec2" in str(named.get("audio_model", "")) else "hubert"
    return GeneratorConfig(
        dim=state["start_audio_feat"].shape[-1],
        depth=1 + max(int(name.removeprefix(net).split(".")[0]) for name in state if name.startswith(net)),
        window=window,
        num_previous=previous,
        channels=channels,
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
