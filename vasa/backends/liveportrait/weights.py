"""Converted weights on disk: one folder, safetensors, each file with its configuration, licence and sources.

The renderer is `appearance`, `motion_extractor`, `warping`, `decoder` and, where the maker published them,
`retargeting`; `generator` draws motion from speech. Ditto's speech encoder stays the ONNX file it was published as.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from .appearance import AppearanceExtractor
from .config import FORMAT, RendererConfig, from_json
from .motion_extractor import MotionExtractor
from .retarget import Retargeting
from .spade import SpadeDecoder
from .warping import Warping

PARTS: dict[str, type[nn.Module]] = {
    "appearance": AppearanceExtractor,
    "motion_extractor": MotionExtractor,
    "warping": Warping,
    "decoder": SpadeDecoder,
}
"""Networks that every renderer has, by the stem of their file."""
RETARGETING, GENERATOR = "retargeting", "generator"
EARS = "speech.onnx"
"""Ditto's speech encoder, as it was published."""


def empty(part: str, config: RendererConfig, device: str = "meta") -> nn.Module:
    """A network without weights."""
    with torch.device(device):
        return Retargeting() if part == RETARGETING else PARTS[part](config)


def load_part(path: Path, config: RendererConfig | None, read: Any) -> tuple[nn.Module, RendererConfig, dict[str, str]]:
    """One network of the renderer.

    Args:
        path: its file; the stem says which one.
        config: of the parts read before, which this one must share; None for the first.
        read: reader of a safetensors file -> (state, header).

    Raises:
        InputError: missing, damaged, of another format, or other sizes than the parts before.
    """
    state, header = read(path)
    found = config_of(header, RendererConfig, path)
    if config is not None and found != config:
        raise InputError(f"{path} belongs to another model than the files beside it; convert them together")
    return filled(empty(path.stem, found), state, path), found, header


def config_of(header: dict[str, str], cls: type, path: Path) -> Any:
    """The configuration in a header.

    Raises:
        InputError: another format, or not readable.
    """
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {header.get('format')!r}, expected {FORMAT!r}; make it with `vasa convert`"
        )
    try:
        return from_json(cls, header["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: the configuration in its header cannot be read ({error}); convert it again"
        ) from error


def filled(module: nn.Module, state: dict[str, Tensor], path: Path) -> nn.Module:
    """A network with the weights of a file.

    Raises:
        InputError: other tensors than it has.
    """
    own = module.state_dict()
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own or own[k].shape != state[k].shape]
    if wrong:
        raise InputError(f"{path} does not fit its configuration, e.g. in {', '.join(wrong[:3])}; convert it again")
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)
