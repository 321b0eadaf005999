"""Published state dicts -> ours: norms folded into convolutions, parallel convolutions joined.

A `Fold` says which published layers one layer of ours is made of. From the folds and our own shapes follows every
published key with its shape, so a file is verified before anything is computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import RendererConfig

_NORM_EPS = 1e-5
_IGNORED = "num_batches_tracked"


@dataclass(frozen=True)
class Fold:
    """One layer of ours.

    Attributes:
        ours: its name.
        theirs: the published convolutions it is made of, joined along the output channels; none where only a norm
            becomes an affine map.
        norm: batch norm behind them (or, without convolutions, the norm itself).
        spectral: whether their weights are divided by their largest singular value.
        plus_one: whether 1 is added to the biases of the first of them.
    """

    ours: str
    theirs: tuple[str, ...] = ()
    norm: str = ""
    spectral: bool = False
    plus_one: bool = False


def folds_of(part: str, config: RendererConfig) -> list[Fold]:
    """The folds of one of `PARTS`; layers that no fold names are the same in both."""
    return {"appearance": _appearance, "warping": _warping, "decoder": _decoder}.get(part, lambda _: [])(config)


def _conv(name: str) -> Fold:
    return Fold(f"{name}.conv", (f"{name}.conv",), f"{name}.norm")


def _appearance(config: RendererConfig) -> list[Fold]:
    folds = [_conv("first"), *(_conv(f"down_blocks.{i}") for i in range(config.halvings))]
    for i in range(config.resblocks):
        block = f"resblocks_3d.3dr{i}"
        folds.append(Fold(f"{block}.norm1", (), f"{block}.norm1"))
        folds.append(Fold(f"{block}.conv1", (f"{block}.conv1",), f"{block}.norm2"))
    return folds


def _warping(config: RendererConfig) -> list[Fold]:
    dense = "dense_motion_network"
    glass = f"{dense}.hourglass"
    folds = [_conv("third"), Fold(f"{dense}.compress.conv", (f"{dense}.compress",), f"{dense}.norm")]
    for i in range(config.flow_halvings):
        folds += [_conv(f"{glass}.encoder.down_blocks.{i}"), _conv(f"{glass}.decoder.up_blocks.{i}")]
    folds.append(Fold(f"{glass}.decoder.last.conv", (f"{glass}.decoder.conv",), f"{glass}.decoder.norm"))
    folds.append(Fold(f"{dense}.mask.conv", (f"{dense}.mask",)))
    return folds


def _decoder(config: RendererConfig) -> list[Fold]:
    from .spade import MIDDLE

    folds = []
    ours_of = {f"G_middle_{i}": f"middle.{i}" for i in range(MIDDLE)} | {"up_0": "up_0", "up_1": "up_1"}
    for theirs, ours in ours_of.items():
        shortcut = theirs.startswith("up")
        for branch in ("0", "1", "s") if shortcut else ("0", "1"):
            folds.append(Fold(f"{ours}.conv_{branch}", (f"{theirs}.conv_{branch}",), spectral=True))
            norm = f"{theirs}.norm_{branch}"
            both = (f"{norm}.mlp_gamma", f"{norm}.mlp_beta")
            folds.append(Fold(f"{ours}.norm_{branch}.conv", both, plus_one=True))
        if shortcut:
            hidden = tuple(f"{theirs}.norm_{branch}.mlp_shared.0" for branch in "01s")
            folds.append(Fold(f"{ours}_hidden.conv", hidden))
    hidden = tuple(f"G_middle_{i}.norm_{branch}.mlp_shared.0" for i in range(MIDDLE) for branch in "01")
    folds.append(Fold("middle_hidden", hidden))
    folds.append(Fold("conv_img", ("conv_img.0",) if config.shuffle > 1 else ("conv_img",)))
    return folds


def published_shapes(module: nn.Module, folds: list[Fold]) -> dict[str, tuple[int, ...]]:
    """Every key that a published state dict must hold, with its shape.

    Args:
        module: our network, on any device.
        folds: those of the network.
    """
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    shapes = {}
    for fold in folds:
        weight = own.pop(f"{fold.ours}.weight")
        bias = own.pop(f"{fold.ours}.bias", None)
        for name in fold.theirs:
            part = (weight[0] // len(fold.theirs), *weight[1:])
            if fold.spectral:
                inner = torch.Size(part[1:]).numel()
                shapes |= {f"{name}.weight_orig": part, f"{name}.weight_u": part[:1], f"{name}.weight_v": (inner,)}
            else:
                shapes[f"{name}.weight"] = part
            if bias is not None:
                shapes[f"{name}.bias"] = part[:1]
        if fold.norm:
            for kind in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{fold.norm}.{kind}"] = weight[:1]
    return shapes | own


def folded(state: Mapping[str, Tensor], module: nn.Module, folds: list[Fold]) -> dict[str, Tensor]:
    """A published state dict as our own, float32; computed in float64.

    Raises:
        ValueError: missing, unknown or misshapen tensors; names the first few.
    """
    state = {k: v for k, v in state.items() if not k.endswith(_IGNORED)}
    state = _without_spectral(state, folds)
    expected = _without_spectral_shapes(published_shapes(module, folds), folds)
    check_keys(state, expected)
    state = {name: value.detach().cpu().double() for name, value in state.items()}
    made: dict[str, Tensor] = {}
    for fold in folds:
        weight, bias = _joined(state, fold)
        if fold.norm:
            scale = state[f"{fold.norm}.weight"] / (state[f"{fold.norm}.running_var"] + _NORM_EPS).sqrt()
            shift = state[f"{fold.norm}.bias"] - state[f"{fold.norm}.running_mean"] * scale
            weight = weight * scale.view(-1, *[1] * (weight.dim() - 1)) if fold.theirs else scale
            bias = shift if bias is None else bias * scale + shift
        made[f"{fold.ours}.weight"] = weight
        if bias is not None:
            made[f"{fold.ours}.bias"] = bias
    own = module.state_dict()
    made |= {name: state[name] for name in own if name not in made}
    return {name: made[name].float().contiguous() for name in own}


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the tensors are the expected ones."""
    lacking = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    other = [
        f"{name} {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != tuple(shape)
    ]
    for what, names in (("lacks", lacking), ("has the unknown", unknown), ("has", other)):
        if names:
            raise ValueError(f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}")
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"has NaN or infinite values in {broken[0]}")


def _without_spectral(state: dict[str, Tensor], folds: list[Fold]) -> dict[str, Tensor]:
    """Spectral norms divided out: weight_orig / (u^T W v); files that did so before pass unchanged."""
    state = dict(state)
    for name in (name for fold in folds if fold.spectral for name in fold.theirs):
        triple = [f"{name}.weight_{kind}" for kind in ("orig", "u", "v")]
        if all(key in state for key in triple) and f"{name}.weight" not in state:
            weight, u, v = (state.pop(key).double() for key in triple)
            if u.shape != weight.shape[:1] or v.numel() != weight[0].numel():
                raise ValueError(f"has {triple[1]} and {triple[2]} that do not fit {triple[0]}")
            sigma = torch.dot(u, weight.flatten(1) @ v)
            state[f"{name}.weight"] = weight / sigma
    return state


def _without_spectral_shapes(shapes: dict[str, tuple[int, ...]], folds: list[Fold]) -> dict[str, tuple[int, ...]]:
    shapes = dict(shapes)
    for name in (name for fold in folds if fold.spectral for name in fold.theirs):
        shapes[f"{name}.weight"] = shapes.pop(f"{name}.weight_orig")
        del shapes[f"{name}.weight_u"], shapes[f"{name}.weight_v"]
    return shapes


def _joined(state: Mapping[str, Tensor], fold: Fold) -> tuple[Tensor, Tensor | None]:
    if not fold.theirs:
        return torch.ones(1, dtype=torch.float64), None
    weight = torch.cat([state[f"{name}.weight"] for name in fold.theirs])
    biases = [state.get(f"{name}.bias") for name in fold.theirs]
    if any(bias is None for bias in biases):
        return weight, None
    if fold.plus_one:
        biases[0] = biases[0] + 1
    return weight, torch.cat(biases)
