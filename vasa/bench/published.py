"""The published modules of the LivePortrait family as contestants: loaded from a clone that the user names.

Nothing of them is part of this project. Only the package of modules is imported, under a name of its own.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from ..backends.liveportrait.config import RendererConfig
from ..backends.liveportrait.folding import folded, folds_of, published_shapes
from ..backends.liveportrait.weights import empty
from ..backends.seeded import seeded
from ..errors import InputError


def published(folder: Path, name: str, package: str = "src") -> ModuleType:
    """A package of a cloned repository, under a name of its own.

    Args:
        folder: the clone.
        name: what it is called here.
        package: the folder inside that holds the code.

    Raises:
        InputError: no such folder.
    """
    if not (folder / package).is_dir():
        raise InputError(f"{folder} holds no folder {package!r}; give a clone of the published repository")
    outer = ModuleType(name)
    outer.__path__ = [str(folder / package)]
    sys.modules[name] = outer
    return outer


def part_of(package: ModuleType, name: str) -> ModuleType:
    """A module inside, e.g. "modules.spade_generator"."""
    return importlib.import_module(f"{package.__name__}.{name}")


def renderer(package: ModuleType, config: RendererConfig) -> dict[str, nn.Module]:
    """LivePortrait's published networks at the sizes of a configuration."""
    common = {"block_expansion": config.width, "max_features": config.feature_dim, "num_down_blocks": config.halvings}
    dense = {
        "block_expansion": config.flow_width, "max_features": config.flow_max, "num_blocks": config.flow_halvings,
        "reshape_depth": config.volume_depth, "compress": config.flow_compress,
    }  # fmt: skip
    extractor = nn.Module()
    extractor.detector = part_of(package, "modules.convnextv2").ConvNeXtV2(
        depths=list(config.backbone_depths), dims=list(config.backbone_widths), num_kp=21
    )
    extractor.forward = extractor.detector.forward
    return {
        "appearance": part_of(package, "modules.appearance_feature_extractor").AppearanceFeatureExtractor(
            image_channel=3, reshape_channel=config.volume_channels, reshape_depth=config.volume_depth,
            num_resblocks=config.resblocks, **common,
        ),
        "motion_extractor": extractor,
        "warping": part_of(package, "modules.warping_network").WarpingNetwork(
            num_kp=21, reshape_channel=config.volume_channels, estimate_occlusion_map=True,
            dense_motion_params=dense, **common,
        ),
        "decoder": part_of(package, "modules.spade_generator").SPADEDecoder(
            upscale=config.shuffle, out_channels=config.width, **common
        ),
    }  # fmt: skip


def paired(theirs: nn.Module, part: str, config: RendererConfig) -> nn.Module:
    """Give a published module seeded weights, and return ours with the same.

    Raises:
        InputError: its tensors are not the ones that our converter expects.
    """
    ours = empty(part, config)
    folds = folds_of(part, config)
    shapes = published_shapes(ours, folds)
    own = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    if own != shapes:
        differing = ", ".join(sorted({k for k, _ in set(own.items()) ^ set(shapes.items())})[:3])
        raise InputError(f"the published {part} differs from what is expected in {differing}; was the code changed?")
    state = seeded(shapes)
    theirs.load_state_dict(state, strict=False)
    theirs.eval().requires_grad_(False)
    ours.load_state_dict(folded(state, ours, folds), assign=True)
    return ours.eval().requires_grad_(False)


def seeded_part(part: str, config: RendererConfig) -> nn.Module:
    """Ours with the same seeded weights, where no published module is at hand."""
    ours = empty(part, config)
    folds = folds_of(part, config)
    ours.load_state_dict(folded(seeded(published_shapes(ours, folds)), ours, folds), assign=True)
    return ours.eval().requires_grad_(False)
