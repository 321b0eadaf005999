"""Losses of the face model: the paper's, and their supervised versions for rendered people.

Letters: `B` batch, `S` picture edge. Region weights come from exact landmarks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..face.blocks import resize_pictures
from ..face.decoder import enlarge, sample_picture
from ..face.encoder import DynamicsEncoder, PoseEncoder
from ..face.reader import FaceReader
from ..face.texture import brightness
from ..geometry import identity_grid
from ..latents import DYNAMICS

_REGIONS = ((slice(36, 42), 8.0), (slice(42, 48), 8.0), (slice(48, 68), 9.0), (slice(17, 27), 1.5))


def region_weights(landmarks: Tensor, size: int) -> Tensor:
    """1 everywhere, more around eyes (8), mouth (9) and brows (1.5), softly bounded.

    Args:
        landmarks: picture positions, [B, 68, 2].
        size: edge of the map.

    Returns:
        [B, 1, size, size].
    """
    grid = identity_grid((size, size), landmarks.device)[None]
    weights = landmarks.new_ones(landmarks.shape[0], size, size)
    face = (landmarks[:, 16] - landmarks[:, 0]).norm(dim=-1)
    for points, weight in _REGIONS:
        region = landmarks[:, points]
        centre = region.mean(1)
        spread = (region.amax(1) - region.amin(1)) / 2 + 0.06 * face[:, None]
        offset = (grid - centre[:, None, None]) / spread[:, None, None].clamp_min(1e-3)
        weights = weights + weight * torch.exp(-0.8 * offset.square().sum(-1).square())
    return weights[:, None]


def weighted_l1(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Mean |a - b| under spatial weights [B, 1, S, S], normalised by their mean."""
    return ((a - b).abs() * weights).mean() / weights.mean()


def pyramid_l1(a: Tensor, b: Tensor, weights: Tensor, levels: int = 3) -> Tensor:
    """L1 at full, half and quarter resolution plus L1 of the finest gradients."""
    loss = a.new_zeros(())
    gradient_x = weighted_l1(a.diff(dim=-1), b.diff(dim=-1), weights[..., 1:])
    gradient_y = weighted_l1(a.diff(dim=-2), b.diff(dim=-2), weights[..., 1:, :])
    for level in range(levels):
        loss = loss + weighted_l1(a, b, weights)
        if level < levels - 1:
            a, b, weights = (F.avg_pool2d(x, 2) for x in (a, b, weights))
    return loss / levels + gradient_x + gradient_y


def flow_loss(flow: Tensor, exact: Tensor, visible: Tensor, weights: Tensor) -> Tensor:
    """Distance of predicted and exact source positions where the source shows the point, in 64ths of the picture.

    Close to L1, so that the few pixels a lip moves pull as steadily as the many a head moves.

    Args:
        flow: predicted positions, [B, 2, S', S'].
        exact: exact positions, [B, 2, S, S] in [-1, 1].
        visible: [B, S, S].
        weights: [B, 1, S, S].
    """
    distance = (enlarge(flow, exact.shape[-1]) - exact) * 32
    error = F.smooth_l1_loss(distance, torch.zeros_like(distance), reduction="none", beta=0.1).sum(1, keepdim=True)
    share = weights * visible[:, None]
    return (error * share).sum() / share.sum().clamp_min(1.0)


def landmark_loss(flow: Tensor, source: Tensor, target: Tensor, exact: Tensor, visible: Tensor) -> Tensor:
    """Distance of predicted and exact source positions of the face's landmarks, in 64ths of the picture.

    Brows and corners of the mouth are a hundredth of the picture and move by two pixels: in a mean over the picture
    they weigh next to nothing.

    Args:
        flow: predicted positions, [B, 2, S', S'].
        source, target: landmarks in the portrait and in the driving picture, [B, 68, 2].
        exact: exact source positions, [B, 2, S, S] in [-1, 1].
        visible: [B, S, S].
    """

    def seen(field: Tensor) -> Tensor:
        return F.grid_sample(field.float(), target[:, :, None], align_corners=True)[..., 0].transpose(1, 2)

    error = F.smooth_l1_loss(seen(flow) * 32, source * 32, reduction="none", beta=0.1).sum(-1)
    # elsewhere hair, a hand or the cheek hides the landmark here or there
    open_here = (seen(visible[:, None])[..., 0] > 0.9) & ((seen(exact) - source).norm(dim=-1) < 0.04)
    return (error * open_here).sum() / open_here.sum().clamp_min(1)


def light_loss(gain: Tensor, source: Tensor, target: Tensor, exact: Tensor, visible: Tensor) -> Tensor:
    """L1 between the portrait, warped by the exact flow and relit, and the target, where the portrait shows the point.

    Args:
        gain: predicted, [B, 3, S', S'].
        source, target: pictures, [B, 3, S, S].
        exact: exact source positions, [B, 2, S', S'] in [-1, 1].
        visible: [B, S', S'].
    """
    size = exact.shape[-1]
    warped = sample_picture(resize_pictures(source, size), exact) * enlarge(gain, size)
    error = (warped - resize_pictures(target, size)).abs() * visible[:, None]
    return error.sum() / (3 * visible.sum()).clamp_min(1.0)


def mask_loss(mask: Tensor, exact: Tensor) -> Tensor:
    """Cross-entropy of shares [B, 1, ., .] against exact ones [B, S, S], at the latter's resolution."""
    mask = resize_pictures(mask, exact.shape[-1]).clamp(1e-4, 1 - 1e-4)
    return F.binary_cross_entropy(mask[:, 0].float(), exact)


def texture_loss(image: Tensor, target: Tensor, weights: Tensor, edge: int = 16) -> Tensor:
    """L1 of the local contrast of brightness, root mean square of its slopes over squares of `edge` pixels.

    Where detail is lost to blending an absolute error is content; its strength is wrong wherever the details lie.

    Args:
        image, target: [B, 3, S, S].
        weights: of every pixel in contrast and mean, [B, 1, S, S]; 0 where there is nothing to compare.
    """
    weights = weights[..., 1:, 1:]
    share = F.avg_pool2d(weights, edge, edge // 2)

    def contrast(picture: Tensor) -> Tensor:
        grey = brightness(picture)
        across, down = grey.diff(dim=-1)[..., 1:, :], grey.diff(dim=-2)[..., 1:]
        energy = F.avg_pool2d((across.square() + down.square()) * weights, edge, edge // 2)
        return (energy / share.clamp_min(1e-3) + 1e-5).sqrt()

    return weighted_l1(contrast(image), contrast(target), share)


def perceptual_loss(reader: FaceReader, image: Tensor, target: Tensor, head_pose: Tensor) -> Tensor:
    """L1 of the reader's feature maps on the aligned face; the own stand-in for VGG features."""
    with torch.no_grad():
        wanted = reader.features(target, head_pose)
    made = reader.features(image, head_pose)
    return sum(
        ((a - b).abs().mean() / b.abs().mean().clamp_min(1e-3) for a, b in zip(made, wanted, strict=True)),
        start=image.new_zeros(()),
    )


def identity_loss(reader: FaceReader, image: Tensor, source: Tensor) -> Tensor:
    """1 - cosine similarity of identities under cross-identity transfer (VASA-1, section 3.1, after ArcFace)."""
    with torch.no_grad():
        wanted = reader(source).identity
    return 1 - F.cosine_similarity(reader(image).identity, wanted, dim=-1).mean()


def pair_loss(first: Tensor, second: Tensor) -> Tensor:
    """Pairwise transfer consistency (VASA-1, section 3.1, after DPE): two source frames of one person, shown with the
    same pose and dynamics, must give the same picture."""
    return (first - second).abs().mean() + (F.avg_pool2d(first, 4) - F.avg_pool2d(second, 4)).abs().mean()


def canonical_loss(first: Tensor, second: Tensor) -> Tensor:
    """L1 of two canonical volumes of one person (EMOPortraits), so that expression does not stay in the volume."""
    return (first.float() - second.float()).abs().mean()


def dynamics_loss(read: Tensor, truth: Tensor, spread: Tensor) -> Tensor:
    """Squared error of dynamics in units of each channel's spread; jaw, lids and gaze, which all notice, count more.

    Squared, for an absolute error is least at the median, and the median of nearly every expression weight is 0:
    trained with that, brows moved by a twentieth of what they should.

    Args:
        read, truth: [B, 59].
        spread: standard deviation of every channel, `StillShards.spread`.
    """
    weights = torch.ones(len(DYNAMICS), device=read.device)
    for name in ("jawOpen", "eyeBlink_L", "eyeBlink_R", "eyeYaw", "eyePitch"):
        weights[DYNAMICS.index(name)] = 4.0
    return (((read.float() - truth) / spread.to(read.device)).square() * weights).mean()


def expression_loss(
    encoder: DynamicsEncoder, image: Tensor, target: Tensor, head_pose: Tensor, spread: Tensor
) -> Tensor:
    """`dynamics_loss` between what a frozen E_dyn reads off decoded and off true pictures.

    An iris is a few pixels: an error of its place is a small error of the picture, but a large one of the gaze.

    Args:
        encoder: E_dyn, whose weights ask for no gradients.
        image, target: [B, 3, S, S].
        head_pose: of `target`, [B, 6].
        spread: standard deviation of every channel, `StillShards.spread`.
    """
    with torch.no_grad():
        truth = encoder(target, head_pose)
    return dynamics_loss(encoder(image, head_pose), truth, spread)


def head_loss(encoder: PoseEncoder, image: Tensor, target: Tensor) -> Tensor:
    """Squared error between the rotations that a frozen E_pose reads off decoded and off true pictures, [B, 3, S, S],
    in units of 10 degrees. A face that is painted half-way between two poses is turned too little."""
    with torch.no_grad():
        truth = encoder(target)
    return ((encoder(image) - truth)[:, :3].rad2deg() / 10).square().mean()
