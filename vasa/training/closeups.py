"""Trains the close-ups of mouth and eyes alone, on patches of rendered people; no whole picture is decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from ..config import FaceConfig, VasaConfig
from ..face.closeup import CloseUp, CloseUps, base_flow, border_weight, codes_of
from ..face.decoder import Decoded, Layers, compose, sample_picture
from ..face.patches import (
    EYES,
    MOUTH,
    Patch,
    cut_patch,
    patch_affine,
    patch_grid,
    patch_lean,
    to_patch,
    to_picture,
    view_of,
)
from ..face.surface import HALF, MIDDLE, MeanSurface
from ..face.texture import texture_of
from ..synthetic.assets import load_pack
from ..synthetic.augment import sensor
from ..synthetic.person import PARTS
from ..synthetic.surface import mean_surface
from .data import PairBatch, StillShards
from .face import prepare
from .loop import TimeBox, Trainer, mixed_precision
from .losses import mask_loss, pyramid_l1, weighted_l1

_OWN_PARTS = [PARTS.index(name) for name in ("lips", "mouth", "eye")]
_OWN_WEIGHT = 4.0
_SHARED_ERROR = torch.tensor([0.05, 0.05, 0.04, 0.03, 0.03, 0.04])
"""Errors of the pose encoder, which the driving pose shares where it is a movement about the portrait's."""
_OWN_ERROR = torch.tensor([0.02, 0.02, 0.015, 0.008, 0.008, 0.012])
_CODE_NOISE = 0.04


@dataclass(frozen=True)
class Ground:
    """What close-ups that train alone stand on.

    Attributes:
        closeness: of the camera, for all alike.
        surface: gives the flow that they refine; None: they begin with a still patch.
    """

    closeness: float
    surface: MeanSurface | None = None

    @staticmethod
    def of(config: FaceConfig) -> Ground:
        """That of a model whose surface is still the mean head's."""
        if not config.surface:
            return Ground(config.closeness)
        surface = MeanSurface(config).requires_grad_(False)
        surface.fill(*mean_surface(load_pack(), MIDDLE, HALF, config.surface))
        return Ground(config.closeness, surface)


def train_closeups(
    data: str | Path, out: str | Path, box: TimeBox, config: VasaConfig, *, seed: int = 0, batch_size: int = 8,
    targets: int = 3, resume: str | Path | None = None, validation: str | Path | None = None,
) -> None:  # fmt: skip
    """Train both close-ups.

    Args:
        data: folder of rendered shards.
        out: folder for weights, scores and panels.
        box: time box.
        config: which model.
        seed: initial weights and batches.
        batch_size, targets: people per step and target frames for each.
        resume: weights to start from.
        validation: shards of people never trained on.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shards = StillShards(data)
    held_out = StillShards(validation) if validation else None
    trainer = Trainer(CloseUps(config.face), out, box, resume)
    device = trainer.accelerator.device
    ground = Ground.of(config.face)
    if ground.surface is not None:
        ground.surface.to(device)

    def step(index: int) -> dict[str, Tensor]:
        if index % 200 == 0:
            shards.refresh()
        batch = prepare(shards.pairs(batch_size, targets, generator), config.face.image_size, generator, device)
        seen = sensor(batch.source.image.cpu(), generator).to(device)
        losses: dict[str, Tensor] = {}
        for name, close_up, patch in _three(trainer.raw):
            with trainer.accelerator.autocast():
                decoded, truth = draw(close_up, patch, batch, seen, generator, ground)
            for loss, value in patch_losses(decoded, truth).items():
                key = f"{name}_{loss}"
                losses[key] = losses[key] + value if key in losses else value
        trainer.descend(sum(losses.values()))
        return losses

    scorer = CloseUps(config.face).to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        if held_out is None:
            return {}
        averaged = trainer.with_average(scorer)
        size = config.face.image_size
        write_patches(averaged, held_out, trainer.folder / f"patches_{trainer.index:06d}.png", size, ground)
        return score_closeups(averaged, held_out, size, ground)

    trainer.run(step, panel)


def _three(closeups: CloseUps) -> tuple[tuple[str, CloseUp, Patch], ...]:
    return ("mouth", closeups.mouth, MOUTH), *(("eyes", closeups.eyes, eye) for eye in EYES)


def draw(
    close_up: CloseUp, patch: Patch, batch: PairBatch, seen: Tensor, generator: Generator | None, ground: Ground
) -> tuple[Decoded, dict[str, Tensor]]:
    """Draw the driving patches of a batch, and cut out what they should show.

    Args:
        close_up, patch: which one.
        batch: as `prepare` makes it.
        seen: the portraits as the model gets them, [B, 3, S, S].
        generator: draws errors of poses and codes; None: exact labels.
        ground: what it stands on.

    Returns:
        Decoded patches [B*N, 3, P, P], and the truth: image, flow (positions in the portrait's patch),
        visible [., P, P], weights [., 1, P, P], and what the portrait shows if nothing moves, `still`.
    """
    source, target, size = batch.source, batch.target, close_up.size
    b, n = len(source.head_pose), len(target.head_pose) // len(source.head_pose)
    source_pose, source_code = source.head_pose, source.dynamics
    driving_pose = target.head_pose
    if generator is not None:
        shared = torch.randn(b, 6, generator=generator) * _SHARED_ERROR
        own = torch.randn(b, 6, generator=generator) * _OWN_ERROR
        source_pose = source_pose + (shared + own).to(source_pose)
        driving_pose = driving_pose + shared.to(source_pose).repeat_interleave(n, 0)
        source_code = source_code + torch.randn(source_code.shape, generator=generator).to(source_code) * _CODE_NOISE
    near = source_pose.new_full((len(driving_pose),), ground.closeness)
    source_view, driving_view = view_of(source_pose, patch, near[:b]), view_of(driving_pose, patch, near)
    source_patch = cut_patch(seen, source_view, patch, size)
    features = close_up.look(source_patch).repeat_interleave(n, 0)
    source_patch, source_pose, source_view = (
        x.repeat_interleave(n, 0) for x in (source_patch, source_pose, source_view)
    )
    codes = codes_of(target.dynamics, source_code.repeat_interleave(n, 0), driving_pose, source_pose, patch)
    lean = patch_lean(source_view, patch) - patch_lean(driving_view, patch)
    from_patch, into_patch = patch_affine(source_view, patch), patch_affine(driving_view, patch)
    base = None
    if ground.surface is not None:
        told = source_pose, source_code.repeat_interleave(n, 0), driving_pose, target.dynamics, near
        base = base_flow(ground.surface(*told, seen.shape[-1] // 2)[0], from_patch, into_patch, size)
    layers = close_up(features, codes, source_patch, lean, base)
    decoded = _shown(layers, from_patch, texture_of(seen).repeat_interleave(n, 0))
    places = to_picture(patch_grid(size, seen.device).expand(b * n, -1, -1, -1), into_patch)
    image = sample_picture(target.image, places)
    flow = to_patch(_at(batch.flow, places), from_patch)
    visible = (_at(batch.visible[:, None], places)[:, 0] > 0.99).float()
    part = _at(target.part[:, None].float(), places, "nearest")[:, 0].long()
    own_part = torch.isin(part, part.new_tensor(_OWN_PARTS)).float()[:, None]
    inside = border_weight(patch_grid(size, seen.device))
    weights = (0.1 + inside) * (1 + _OWN_WEIGHT * F.max_pool2d(own_part, 5, 1, 2))
    truth = {"image": image, "flow": flow, "visible": visible, "weights": weights, "still": source_patch}
    return decoded, truth


def _shown(layers: Layers, from_patch: Tensor, texture: Tensor) -> Decoded:
    """Compose at the patch's size; the flow that is returned stays in the portrait's patch."""
    return replace(compose(replace(layers, flow=to_picture(layers.flow, from_patch)), texture), flow=layers.flow)


def _at(maps: Tensor, places: Tensor, mode: str = "bilinear") -> Tensor:
    return F.grid_sample(maps.float(), places.movedim(1, -1), mode=mode, padding_mode="border", align_corners=True)


def patch_losses(decoded: Decoded, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """Picture, painted part, flow (in 64ths of the patch), mask and light of patches against the truth."""
    weights, visible = truth["weights"], truth["visible"]
    size = visible.shape[-1]
    hidden = 1 - visible[:, None]
    away = F.smooth_l1_loss(decoded.flow * 32, truth["flow"] * 32, reduction="none", beta=0.1).sum(1)
    share = weights[:, 0] * visible * (truth["flow"].abs().amax(1) < 1.3)
    relit = (sample_picture(truth["still"], truth["flow"]) * decoded.gain - truth["image"]).abs().mean(1)
    return {
        "image": 6.0 * pyramid_l1(decoded.image, truth["image"], weights),
        "painted": 2.0 * weighted_l1(decoded.painted, truth["image"], weights * (0.2 + 3 * hidden)),
        "flow": 0.15 * (away * share).sum() / share.sum().clamp_min(1.0),
        "mask": 0.2 * mask_loss(decoded.mask, visible),
        "light": 1.0 * (relit * visible).sum() / visible.sum().clamp_min(size),
    }


def score_closeups(
    closeups: CloseUps, shards: StillShards, size: int, ground: Ground, count: int = 48
) -> dict[str, float]:
    """PSNR of patches of unseen people, weighted like the loss, of copying the portrait's patch, and flow in pixels."""
    device = next(closeups.parameters()).device
    generator = torch.Generator().manual_seed(2)
    found: dict[str, list[float]] = {}
    for _ in range(count // 8):
        batch = prepare(shards.pairs(8, 1, generator), size, None, device)
        for name, close_up, patch in _three(closeups):
            with torch.inference_mode(), mixed_precision(device):
                decoded, truth = draw(close_up, patch, batch, batch.source.image, None, ground)
            for kind, image in (("", decoded.image), ("_copy", truth["still"])):
                error = (image - truth["image"]).square().mean(1, keepdim=True) * truth["weights"]
                error = error.sum((1, 2, 3)) / truth["weights"].expand_as(error).sum((1, 2, 3))
                found.setdefault(f"val_{name}{kind}", []).extend((-10 * error.clamp_min(1e-6).log10()).tolist())
            away = (decoded.flow - truth["flow"]).norm(dim=1) * (close_up.size - 1) / 2 * truth["visible"]
            pixels = away.sum((1, 2)) / truth["visible"].sum((1, 2)).clamp_min(1)
            found.setdefault(f"val_{name}_flow_px", []).extend(pixels.tolist())
    return {name: sum(values) / len(values) for name, values in found.items()}


def write_patches(closeups: CloseUps, shards: StillShards, path: Path, size: int, ground: Ground) -> None:
    """A row for each person: portrait's patch, result, truth, painted part, mask; of the mouth, then of an eye."""
    device = next(closeups.parameters()).device
    batch = prepare(shards.pairs(10, 1, torch.Generator().manual_seed(3)), size, None, device)
    columns: list[Tensor] = []
    for _, close_up, patch in _three(closeups)[:2]:
        with torch.inference_mode(), mixed_precision(device):
            decoded, truth = draw(close_up, patch, batch, batch.source.image, None, ground)
        shown = (truth["still"], decoded.image, truth["image"], decoded.painted, decoded.mask.expand(-1, 3, -1, -1))
        columns += [F.interpolate(picture.float(), size=(96, 96), mode="bilinear") for picture in shown]
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    to_pil_image(make_grid(rows, nrow=len(columns), padding=2).clamp(0, 1)).save(path)
