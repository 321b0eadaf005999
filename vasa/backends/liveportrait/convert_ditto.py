"""Ditto's published motion generator, with its settings and its speech encoder -> a model folder of ours."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...io.files import replacing
from . import ditto
from .config import DittoConfig, RendererConfig, to_json
from .convert import STEMS, Report, convert_renderer, write_part
from .ditto_settings import Settings, read_settings
from .folding import check_keys
from .published import find_file, read_tensors
from .weights import EARS, GENERATOR

_SETTINGS = tuple(f"v0.4_hubert_cfg_{kind}" for kind in ("pytorch", "trt_online", "trt"))
"""Names of the published settings, best first."""
_EARS = ("hubert_streaming_fix_kv", "hubert")
"""Names of the speech encoder in the PyTorch and in the ONNX package."""


def convert_ditto(
    source: Path, dest: Path, heads: int = 8, renderer: RendererConfig | None = None,
    report: Report = lambda line: None,
) -> None:  # fmt: skip
    """Convert Ditto's renderer and motion generator, or whichever of them a folder holds.

    Args:
        source: folder with the published files at any depth: the renderer's, `lmdm_v0.4_hubert.pth`,
            `v0.4_hubert_cfg_*.pkl` and `hubert_streaming_fix_kv.onnx`.
        dest: model folder, made if needed; where the source holds no renderer, one that has LivePortrait's.
        heads: attention heads; the published code always builds 8.
        renderer: sizes of the renderer; default the published ones.
        report: told one line for every file.

    Raises:
        InputError: neither is there, or a file is ambiguous, not readable, or not what it should be.
    """
    weights = find_file(source, ("lmdm*",), needed=False)
    if weights is None or find_file(source, STEMS["appearance"], needed=False) is not None:
        convert_renderer(source, dest, "ditto", renderer, report)
    if weights is None:
        report("no lmdm_v0.4_hubert.pth found; the model will show motion but not make it from speech")
    else:
        _convert_generator(source, weights, dest, heads, report)


def _convert_generator(source: Path, weights: Path, dest: Path, heads: int, report: Report) -> None:
    settings, ears = _first(source, _SETTINGS, ".pkl"), _first(source, _EARS, ".onnx")
    try:
        state = _state_of(read_tensors(weights))
        config = replace(_config_of(state), heads=heads)
        check_keys(state, ditto.published_shapes(config))
        made = ditto.folded(state, config)
    except (ValueError, KeyError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{weights} is not Ditto's motion generator: it {what}; check what was downloaded") from error
    report(f"{weights.name}: {sum(v.numel() for v in made.values()) / 1e6:.1f} M values verified")
    told = Settings() if settings is None else read_settings(settings)
    if settings is None:
        report("no v0.4_hubert_cfg_pytorch.pkl found; motion will not be kept within the published limits")
    else:
        report(f"{settings.name}: {', '.join(told.notes)}")
    config = replace(
        config,
        continued=told.continued,
        person="person" in told.tensors,
        blink="blink" in told.tensors,
        moods=len(told.tensors.get("moods", ())),
    )
    made |= ditto.Ditto.unlimited() | told.tensors
    if ears is None:
        report("no hubert_streaming_fix_kv.onnx found; the model will show motion but not make it from speech")
    else:
        _copy(ears, dest / EARS)
        report(f"{ears.name}: copied, ONNX Runtime reads it when it is used")
    write_part(dest, GENERATOR, made, to_json(config), "ditto", [weights, settings, ears])


def _first(source: Path, stems: tuple[str, ...], suffix: str) -> Path | None:
    return next(filter(None, (find_file(source, (stem,), False, (suffix,)) for stem in stems)), None)


def _state_of(content: dict[str, Any]) -> dict[str, Tensor]:
    state = content.get("model_state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("holds no named tensors under 'model_state_dict'")
    turns = {name: value for name, value in state.items() if name.endswith("rotary.freqs")}
    for name, value in turns.items():
        rates = 1.0 / 10_000 ** (torch.arange(0, 2 * value.numel(), 2) / (2 * value.numel()))
        if not torch.allclose(value.float(), rates, rtol=1e-3):
            raise ValueError(f"turns positions by other rates in {name}")
    return {name: value for name, value in state.items() if name not in turns}


def _config_of(state: dict[str, Tensor]) -> DittoConfig:
    """Sizes from the shapes."""
    stack = "seqTransDecoder.stack."
    channels = state["final_layer.weight"].shape[0]
    if channels != ditto.CHANNELS:
        raise ValueError(f"draws {channels} motion channels, expected {ditto.CHANNELS}")
    if state["input_projection.weight"].shape[1] != 2 * channels:
        raise ValueError("is told several frames before the window, expected one")
    width = state["cond_projection.weight"].shape[1]
    if width <= ditto.EXTRA:
        raise ValueError(f"is told {width} numbers a frame, expected {ditto.EXTRA} beside the speech")
    hidden, dim = state[f"{stack}0.linear1.weight"].shape
    return DittoConfig(
        dim=dim,
        hidden=hidden,
        depth=1 + max(int(name.removeprefix(stack).split(".")[0]) for name in state if name.startswith(stack)),
        window=state["null_cond_embed"].shape[1],
        audio_dim=width - ditto.EXTRA,
    )


def _copy(source: Path, dest: Path) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    if dest.exists() and dest.samefile(source):
        return
    with replacing(dest) as partial:
        shutil.copyfile(source, partial)
