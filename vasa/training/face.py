"""Trains the face model on rendered people (source frame, target frame with exact labels and flow)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ..config import VasaConfig
from ..errors import InputError
from ..face.blocks import resize_pictures
from ..face.decoder import Decoded, Layers, sample_picture, trusted
from ..face.model import FaceModel
from ..face.reader import FaceReader
from ..face.surface import HALF, MIDDLE
from ..face.texture import blend, brightness
from ..latents import FaceLatents
from ..synthetic.assets import load_pack
from ..synthetic.augment import sensor
from ..synthetic.surface import mean_surface
from .ahead import Ahead
from .data import PairBatch, Stills, StillShards, colour_jitter
from .discriminator import Adversary
from .loop import TimeBox, Trainer, load_matching, mixed_precision
from .losses import (
    canonical_loss,
    dynamics_loss,
    expression_loss,
    flow_loss,
    head_loss,
    identity_loss,
    landmark_loss,
    light_loss,
    mask_loss,
    pair_loss,
    perceptual_loss,
    pyramid_l1,
    region_weights,
    texture_loss,
    weighted_l1,
)  # fmt: skip
from .panel import write_panel


@dataclass(frozen=True)
class FaceLossWeights:
    """Weights of the sum; 0 switches a loss off. `regions`: how much more eyes, mouth and brows count, of the usual."""

    image: float = 4.0
    painted: float = 1.5
    flow: float = 0.3
    landmarks: float = 0.3
    mask: float = 0.15
    background: float = 0.15
    light: float = 1.0
    encoders: float = 1.0
    texture: float = 8.0
    expression: float = 0.0
    head: float = 0.0
    perceptual: float = 0.0
    pair: float = 0.0
    identity: float = 0.0
    canonical: float = 0.0
    adversarial: float = 0.0
    matching: float = 0.0
    regions: float = 1.0


def face_losses(
    decoded: Decoded, face: FaceLatents, landmarks: Tensor, target: Stills, flow: Tensor, visible: Tensor,
    weights: FaceLossWeights,
) -> dict[str, Tensor]:  # fmt: skip
    """The supervised losses of decoded pictures against `target`, from faces with `landmarks`, [B, ...] each."""
    size = target.image.shape[-1]
    regions = 1 + weights.regions * (region_weights(target.landmarks, size) - 1)
    losses = {"image": weights.image * pyramid_l1(decoded.image, target.image, regions)}
    if decoded.flow is not None:
        coarse = resize_pictures(regions, flow.shape[-1])
        hidden = F.interpolate(1 - visible[:, None], size=size, mode="bilinear")
        losses["painted"] = weights.painted * weighted_l1(decoded.painted, target.image, regions * (0.3 + 2 * hidden))
        losses["flow"] = weights.flow * flow_loss(decoded.flow, flow, visible, coarse)
        losses["landmarks"] = weights.landmarks * landmark_loss(
            decoded.flow, landmarks, target.landmarks, flow, visible
        )
        losses["mask"] = weights.mask * mask_loss(decoded.mask, visible)
        losses |= _uncovered(decoded, target, weights)
        if weights.texture:
            losses["texture"] = weights.texture * _texture_loss(decoded, face, target, visible)
    if decoded.gain is not None:
        losses["light"] = weights.light * light_loss(decoded.gain, face.portrait, target.image, flow, visible)
    return losses


def _texture_loss(decoded: Decoded, face: FaceLatents, target: Stills, visible: Tensor) -> Tensor:
    """`texture_loss`, felt by the mask alone: paint would get contrast right with any pattern.

    Only where the portrait shows the same: silhouettes of hair and ears have contrast wherever they stand. So have eyes
    that look the old way; where those count more than skin, it takes `expression` to turn them.
    """
    gain = None if decoded.gain is None else decoded.gain.detach()
    warped = sample_picture(face.texture, decoded.flow.detach())
    shown = blend(decoded.painted.detach(), warped, trusted(decoded), gain)
    alike = F.interpolate((target.part > 0)[:, None] * visible[:, None], size=target.image.shape[-1])
    return texture_loss(shown, target.image, 1 - F.max_pool2d(1 - alike, 5, 1, 2))


def geometry_losses(
    layers: Layers, landmarks: Tensor, target: Stills, flow: Tensor, visible: Tensor, weights: FaceLossWeights
) -> dict[str, Tensor]:
    """Those of `face_losses` that need no picture: where every pixel comes from, and whether the portrait shows it."""
    regions = 1 + weights.regions * (region_weights(target.landmarks, flow.shape[-1]) - 1)
    exact = landmark_loss(layers.flow, landmarks, target.landmarks, flow, visible)
    return {
        "flow": weights.flow * flow_loss(layers.flow, flow, visible, regions),
        "landmarks": weights.landmarks * exact,
        "mask": weights.mask * mask_loss(layers.mask, visible),
    } | _uncovered(layers, target, weights)


def _uncovered(drawn: Decoded | Layers, target: Stills, weights: FaceLossWeights) -> dict[str, Tensor]:
    """Where the background is painted."""
    if drawn.behind is None:
        return {}
    return {"background": weights.background * mask_loss(drawn.behind, (target.part == 0).float())}


def train_face(
    data: str | Path, out: str | Path, box: TimeBox, config: VasaConfig, *, seed: int = 0, batch_size: int = 6,
    targets: int = 2, size: int | None = None, resume: str | Path | None = None,
    validation: str | Path | None = None, encoders: str | Path | None = None, closeups: str | Path | None = None,
    reader: str | Path | None = None, weights: FaceLossWeights | None = None, geometry: float = 0.0,
    loaders: int | None = None,
) -> None:  # fmt: skip
    """Train the face model.

    Args:
        data: folder of rendered shards; new shards are picked up while they appear.
        out: folder for weights, scores and panels.
        box: time box.
        config: which model.
        seed: initial weights and batches.
        batch_size, targets: people per step and target frames for each.
        size: train at this picture edge instead of the model's own (volumes scale along).
        resume: weights to start from.
        validation: shards of people never trained on, for scores and panels.
        encoders: run of `train_encoders`; E_pose and E_dyn then come from there and stay frozen.
        closeups: run of `train_closeups` to go on with, together with the rest; without it they are left out.
        reader: weights of the face reader that serves the perceptual and identity losses.
        weights: loss weights.
        geometry: share of the time box, at its beginning, for `geometry_losses` alone, whose steps cost half.
        loaders: threads that make batches ahead; None: four beside a GPU, none where the CPU trains.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shards = StillShards(data)
    held_out = StillShards(validation) if validation else None
    spread = shards.spread()
    weights = weights or FaceLossWeights()
    if (weights.expression or weights.head) and encoders is None:
        raise InputError("expected encoders for what they read, got none; train them first: vasa train encoders")
    sizes = config.face if closeups else replace(config.face, mouth_widths=(), eye_widths=())
    model = FaceModel(sizes)
    filled = set() if resume is None else load_matching(model, resume)
    if model.surface is not None and "surface.depth" not in filled:
        model.surface.fill(*mean_surface(load_pack(), MIDDLE, HALF, config.face.surface))
    if encoders is not None:
        load_matching(model, Path(encoders) / "weights.safetensors")
        model.pose.requires_grad_(False)
        model.dynamics.requires_grad_(False)
    if closeups is not None:
        load_matching(model.closeups, Path(closeups) / "weights.safetensors")
    trainer = Trainer(model, out, box)
    device = trainer.accelerator.device
    judge = _load_reader(reader, config, device) if reader else None
    adversary = Adversary().to(device) if weights.adversarial or weights.matching else None
    size = size or config.face.image_size
    supervised = bool(config.face.dynamics_names)

    def draw(generator: torch.Generator) -> tuple[PairBatch, Tensor]:
        batch = prepare(shards.pairs(batch_size, targets, generator), size, generator)
        return batch, sensor(batch.source.image, generator)

    if loaders is None:
        loaders = 0 if device.type == "cpu" else 4
    batches = Ahead(draw, seed, loaders)

    def step(index: int) -> dict[str, Tensor]:
        if index % 200 == 0:
            shards.refresh()
        batch, seen = batches.take()
        is_geometry = config.face.detail and trainer.progress < geometry
        batch, seen = batch.to(device), seen.to(device)
        source, target = batch.source, batch.target
        with trainer.accelerator.autocast():
            pose_read, dynamics_read = model.read(seen)
            pose, dynamics = _source_labels(source, pose_read, dynamics_read, generator, supervised)
            face = model.encode(seen, pose, dynamics, _as_found(source.person, generator))
            face = _repeated(face, targets)
            driving = target.dynamics if supervised else _coded(model, target, generator)
            decoded = (model.drawn if is_geometry else model.decode)(face, target.head_pose, driving)
        marks = _repeat(source.landmarks, targets)
        if is_geometry:
            losses = geometry_losses(decoded, marks, target, batch.flow, batch.visible, weights)
            trainer.descend(sum(losses.values()))
            return losses
        losses = face_losses(decoded, face, marks, target, batch.flow, batch.visible, weights)
        if encoders is None:
            losses["pose"] = weights.encoders * (pose_read - source.head_pose).abs().mean() * 2
            if supervised:
                losses["dynamics"] = weights.encoders * dynamics_loss(dynamics_read, source.dynamics, spread)
        if weights.expression or weights.head:
            with trainer.accelerator.autocast():
                losses |= _read(model, decoded, face, target, spread, weights)
        if judge is not None:
            losses |= _judged(judge, decoded, target, source, weights)
        if (weights.pair or weights.canonical) and index % 5 == 0:
            with trainer.accelerator.autocast():
                losses |= _paired(model, seen, source, target, weights, targets)
        if adversary is not None:
            with trainer.accelerator.autocast():
                fooled = adversary.learn(decoded.image, target.image)
                adversarial, matching = adversary.losses(decoded.image, target.image)
            share = adversary.share(index)
            losses["adversarial"] = weights.adversarial * share * adversarial
            losses["matching"] = weights.matching * share * matching
        trainer.descend(sum(losses.values()))
        return losses if adversary is None else losses | {"discriminator": fooled}

    scorer = FaceModel(sizes).to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        if held_out is None:
            return {}
        averaged = trainer.with_average(scorer)
        write_panel(averaged, held_out, trainer.folder / f"panel_{trainer.index:06d}.jpg", size)
        return score_face(averaged, held_out, size)

    trainer.run(step, panel)


def prepare(
    batch: PairBatch, size: int, generator: torch.Generator | None, device: torch.device | str = "cpu"
) -> PairBatch:
    """Move a batch to the device at a training size, targets flattened to [B*N]; one colour draw per person."""
    images = torch.cat([batch.source.image[:, None], batch.target.image], dim=1)  # [B, 1 + N, 3, S, S]
    images = resize_pictures(images.flatten(0, 1).to(device), size).unflatten(0, images.shape[:2])
    if generator is not None:
        images = colour_jitter(images, generator)

    def flat(x: Tensor) -> Tensor:
        return x.flatten(0, 1).to(device)

    source = Stills(images[:, 0], *(getattr(batch.source, f).to(device) for f in list(Stills.__dataclass_fields__)[1:]))
    aims = (flat(getattr(batch.target, f)) for f in list(Stills.__dataclass_fields__)[1:])
    target = Stills(images[:, 1:].flatten(0, 1), *aims)
    return PairBatch(source, target, flat(batch.flow), flat(batch.visible), batch.person)


def _repeat(x: Tensor, n: int) -> Tensor:
    return x.repeat_interleave(n, dim=0) if n > 1 else x


def _repeated(face: FaceLatents, n: int) -> FaceLatents:
    held = {name: getattr(face, name) for name in face.__dataclass_fields__}
    return FaceLatents(**{name: None if x is None else _repeat(x, n) for name, x in held.items()})


def _source_labels(
    source: Stills, pose_read: Tensor, dynamics_read: Tensor, generator: torch.Generator, supervised: bool
) -> tuple[Tensor, Tensor]:
    # most sources are encoded with the pose that is read, as real pictures will be, once that is sane; half of these
    # with the expression read, for where the portrait's is unknown the driving one is best followed by half
    b = source.head_pose.shape[0]
    close = (pose_read - source.head_pose).abs().amax(-1) < 0.25
    draw = torch.rand(b, generator=generator).to(close.device)
    use, use_dynamics = (draw < 0.8) & close, (draw < 0.4) & close
    noise = torch.randn(b, 6, generator=generator) * 0.015
    pose = torch.where(use[:, None], pose_read.detach(), source.head_pose + noise.to(close.device))
    if not supervised:
        return pose, dynamics_read
    blur = torch.randn(b, source.dynamics.shape[1], generator=generator) * 0.03
    dynamics = torch.where(use_dynamics[:, None], dynamics_read.detach(), source.dynamics + blur.to(close.device))
    return pose, dynamics


def _as_found(person: Tensor, generator: torch.Generator) -> Tensor:
    """True mattes [B, 1, s, s] as a network might find them: by up to two pixels too wide, or one too narrow."""
    wide = [F.max_pool2d(person, 2 * reach + 1, 1, reach) for reach in range(3)]
    narrow = 1 - F.max_pool2d(1 - person, 3, 1, 1)
    choice = torch.randint(4, (len(person),), generator=generator).to(person.device)
    return torch.stack([narrow, *wide], dim=1)[torch.arange(len(person), device=person.device), choice]


def _coded(model: FaceModel, target: Stills, generator: torch.Generator) -> Tensor:
    """Self-reenactment without labels: the driver's code is read from the target itself, in other colours."""
    return model.dynamics(colour_jitter(target.image, generator), target.head_pose)


def _read(
    model: FaceModel, decoded: Decoded, face: FaceLatents, target: Stills, spread: Tensor, weights: FaceLossWeights
) -> dict[str, Tensor]:
    """What frozen encoders read off the decoded and the true picture, felt by flow and mask alone, and in brightness.

    Paint would find what they like to see: irises went blue, whatever the portrait's.
    """
    shown = decoded.image
    if decoded.flow is not None:
        gain = None if decoded.gain is None else decoded.gain.detach()
        shown = blend(decoded.painted.detach(), sample_picture(face.texture, decoded.flow), trusted(decoded), gain)
    pictures = target.image + brightness(shown - target.image), target.image
    losses = {}
    if weights.expression:
        read = expression_loss(model.dynamics, *pictures, target.head_pose, spread)
        losses["expression"] = weights.expression * read
    if weights.head:
        losses["head"] = weights.head * head_loss(model.pose, *pictures)
    return losses


def _judged(
    judge: FaceReader, decoded: Decoded, target: Stills, source: Stills, weights: FaceLossWeights
) -> dict[str, Tensor]:
    losses = {}
    if weights.perceptual:
        losses["perceptual"] = weights.perceptual * perceptual_loss(
            judge, decoded.image, target.image, target.head_pose
        )
    if weights.identity:
        repeated = _repeat(source.image, target.image.shape[0] // source.image.shape[0])
        losses["identity"] = weights.identity * identity_loss(judge, decoded.image, repeated)
    return losses


def _paired(
    model: FaceModel, seen: Tensor, source: Stills, target: Stills, weights: FaceLossWeights, targets: int
) -> dict[str, Tensor]:
    """The paper's pairwise losses: encode another frame of each person, show both alike, compare."""
    other = Stills(*(getattr(target, f)[::targets] for f in Stills.__dataclass_fields__))
    first = model.encode(seen, source.head_pose, source.dynamics, source.person)
    second = model.encode(other.image, other.head_pose, other.dynamics, other.person)
    losses = {}
    if weights.canonical:
        losses["canonical"] = weights.canonical * canonical_loss(
            first.appearance_volume, second.appearance_volume.detach()
        )
    if weights.pair:
        # pose of one frame with the dynamics of the other, from both sources
        a = model.decode(first, other.head_pose, source.dynamics).image
        b = model.decode(second, other.head_pose, source.dynamics).image
        losses["pair"] = weights.pair * pair_loss(a, b)
    return losses


def _load_reader(path: str | Path, config: VasaConfig, device: torch.device) -> FaceReader:
    reader = FaceReader(config.reader)
    path = Path(path)
    reader.load_state_dict(load_file(path / "weights.safetensors" if path.is_dir() else path))
    return reader.to(device).eval().requires_grad_(False)


def score_face(model: FaceModel, shards: StillShards, size: int, count: int = 48) -> dict[str, float]:
    """Foreground PSNR of reenactment on unseen people, of copying the source, and of the mouth region."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(2)
    errors: dict[str, list[float]] = {
        "model": [],
        "copy": [],
        "mouth": [],
        "mouth_copy": [],
        "pose": [],
        "flow_px": [],
    }
    for _ in range(count // 8):
        batch = prepare(shards.pairs(8, 1, generator), size, None, device)
        source, target = batch.source, batch.target
        with torch.inference_mode(), mixed_precision(device):
            pose, dynamics = model.read(source.image)
            driving = target.dynamics if model.config.dynamics_names else model.read(target.image)[1]
            face = model.encode(source.image, pose, dynamics, source.person)
            decoded = model.decode(face, target.head_pose, driving)
        front = F.interpolate((target.part > 0)[:, None].float(), size=size)
        mouth = (region_weights(target.landmarks, size) > 5).float()
        for name, image, mask in (
            ("model", decoded.image, front), ("copy", source.image, front),
            ("mouth", decoded.image, mouth), ("mouth_copy", source.image, mouth),
        ):  # fmt: skip
            error = ((image - target.image).square() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3))).clamp_min(1)
            errors[name] += (-10 * error.clamp_min(1e-6).log10()).tolist()
        errors["pose"] += (pose[:, :3] - source.head_pose[:, :3]).abs().mean(-1).rad2deg().tolist()
        if decoded.flow is not None:
            small = F.interpolate(decoded.flow, size=batch.flow.shape[-1], mode="bilinear", align_corners=True)
            away = (small - batch.flow).norm(dim=1) * (size - 1) / 2 * batch.visible
            errors["flow_px"] += (away.sum((1, 2)) / batch.visible.sum((1, 2)).clamp_min(1)).tolist()
    return {f"val_{k}": sum(v) / len(v) for k, v in errors.items() if v}
