"""Pixels and fine structure that pictures take from the portrait."""

import pytest
import torch
import torch.nn.functional as F

from vasa.face.decoder import Layers, compose, sample_picture
from vasa.face.texture import blend, texture_of
from vasa.geometry import identity_grid
from vasa.training.losses import texture_loss


def noise(size=64):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def moved(size, pixels):
    """Sampling positions `pixels` to the right of each pixel, [1, 2, S, S]."""
    flow = identity_grid((size, size)).movedim(-1, 0)[None].clone()
    flow[:, 0] += 2 * pixels / (size - 1)
    return flow


def energy(picture):
    return (picture[..., 4:-4, 5:-4] - picture[..., 4:-4, 4:-5]).square().mean().item()


def test_every_second_pixel_is_the_portraits():
    portrait = noise()
    texture = texture_of(portrait)
    assert texture.shape == (1, 4, 127, 127)
    assert torch.allclose(texture[:, :3, ::2, ::2], portrait, atol=1e-6)


def test_large_portraits_keep_their_size():
    assert texture_of(noise(513)).shape[-1] == 513


def test_smooth_pictures_have_no_fine_structure():
    slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    inside = texture_of(slope)[:, 3:, 8:-8, 8:-8]
    assert inside.abs().max() < 1e-3


def test_pixels_between_pixels_stay_sharp():
    """Half a pixel aside, where plain sampling averages two pixels."""
    portrait = F.avg_pool2d(noise(66), 3, 1)  # what a camera's pixels leave of noise
    plain = sample_picture(portrait, moved(64, 0.5))
    fine = sample_picture(texture_of(portrait)[:, :3], moved(64, 0.5))
    assert energy(plain) < 0.55 * energy(portrait)
    assert energy(fine) > 0.65 * energy(portrait)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_fine_structure_keeps_more_than_the_masks_share_of_its_energy(share):
    portrait = noise()[:, :1].expand(-1, 3, -1, -1)
    painted, mask = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 1, 64, 64), share)
    warped = sample_picture(texture_of(portrait), moved(64, 0))
    assert energy(torch.lerp(painted, warped[:, :3], mask)) == pytest.approx(share**2 * energy(portrait), rel=0.02)
    assert energy(blend(painted, warped, mask)) == pytest.approx(share**0.7 * energy(portrait), rel=0.08)


@pytest.mark.parametrize(("share", "shown"), [(0.0, "painted"), (1.0, "portrait")])
def test_certain_masks_show_one_or_the_other(share, shown):
    pictures = {"portrait": noise(), "painted": torch.full((1, 3, 64, 64), 0.25)}
    mask, gain = torch.full((1, 1, 64, 64), share), torch.ones(1, 3, 64, 64)
    layers = Layers(pictures["painted"], moved(64, 0), mask, gain)
    # next to nothing of the fine structure is left where the mask is exactly zero
    assert torch.allclose(compose(layers, texture_of(pictures["portrait"])).image, pictures[shown], atol=2e-3)


def test_the_root_teaches_the_mask_nothing():
    """The mask's slope is that of plain blending."""
    painted, warped = torch.rand(1, 3, 8, 8), torch.rand(1, 4, 8, 8)
    mask = torch.rand(1, 1, 8, 8, requires_grad=True)
    blend(painted, warped, mask).sum().backward()
    assert torch.allclose(mask.grad, (warped[:, :3] - painted).sum(1, keepdim=True), atol=1e-5)


def test_contrast_counts_wherever_it_lies():
    sharp = F.avg_pool2d(noise(66), 3, 1)
    soft, elsewhere = F.avg_pool2d(sharp, 3, 1, 1), sharp.roll(3, -1)
    even = torch.ones(1, 1, 64, 64)
    assert texture_loss(soft, sharp, even) > 5 * texture_loss(elsewhere, sharp, even)
    # softness outside of what counts is none
    inside = torch.zeros(1, 1, 64, 64)
    inside[..., :24, :24] = 1
    half = torch.where(torch.arange(64) < 26, sharp, soft)
    assert texture_loss(half, sharp, inside) < 0.1 * texture_loss(soft, sharp, inside)
