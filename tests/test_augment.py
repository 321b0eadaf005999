"""Painters, cameras and things in the way."""

import pytest
import torch
from torch import Generator

from vasa.synthetic.augment import add_occluder, flatten, grade, jpeg, kuwahara, sensor, stylise


@pytest.fixture(scope="module")
def pictures():
    axis = torch.linspace(0, 1, 64)
    picture = torch.stack([axis.expand(64, 64), axis[:, None].expand(64, 64), torch.full((64, 64), 0.4)])
    picture[:, 20:40, 24:44] = torch.tensor([0.8, 0.6, 0.5])[:, None, None]
    return torch.stack([picture, picture.flip(2), picture.flip(1)])


@pytest.mark.parametrize("seed", range(8))
def test_stylise_keeps_shape_and_range_and_repeats(pictures, seed):
    first = stylise(pictures, Generator().manual_seed(seed))
    assert first.shape == pictures.shape and first.min() >= 0 and first.max() <= 1
    assert torch.isfinite(first).all() and (first - pictures).abs().mean() > 0.005
    assert torch.equal(first, stylise(pictures, Generator().manual_seed(seed)))


def test_one_look_for_all_frames_of_a_person(pictures):
    same = pictures[:1].expand(3, -1, -1, -1)
    for seed in range(6):
        styled = stylise(same, Generator().manual_seed(seed))
        assert torch.allclose(styled[0], styled[2], atol=1e-6)


def test_the_sensor_treats_every_frame_on_its_own(pictures):
    same = pictures[:1].expand(4, -1, -1, -1)
    seen = sensor(same, Generator().manual_seed(0))
    assert seen.shape == same.shape and seen.min() >= 0 and seen.max() <= 1
    assert (seen[0] - seen[1]).abs().mean() > 0.003
    assert (seen - same).abs().mean() < 0.15


def test_kuwahara_calms_noise_and_keeps_an_edge():
    picture = torch.zeros(1, 3, 48, 48)
    picture[..., 24:] = 1.0
    noisy = picture + 0.1 * torch.randn(1, 3, 48, 48, generator=Generator().manual_seed(0))
    calm = kuwahara(noisy, 3)
    assert (calm - picture).abs().mean() < 0.5 * (noisy - picture).abs().mean()
    assert (calm[..., 26] - calm[..., 21]).mean() > 0.9


def test_flatten_removes_texture_but_not_edges():
    picture = torch.full((1, 3, 48, 48), 0.3)
    picture[..., 24:] = 0.9
    grain = 0.03 * torch.randn(1, 3, 48, 48, generator=Generator().manual_seed(0))
    smooth = flatten((picture + grain).clamp(0, 1), 4, 0.005)
    assert (smooth - picture)[..., 4:16].abs().mean() < 0.5 * grain.abs().mean()
    assert (smooth[..., 27] - smooth[..., 20]).mean() > 0.5


def test_jpeg_changes_little_and_only_its_share(pictures):
    assert torch.equal(jpeg(pictures, Generator().manual_seed(0), share=0.0), pictures)
    squeezed = jpeg(pictures, Generator().manual_seed(0))
    assert 0 < (squeezed - pictures).abs().mean() < 0.03


def test_grade_leaves_light_above_dark(pictures):
    for seed in range(6):
        graded = grade(pictures, Generator().manual_seed(seed)).mean(1)
        light = pictures.mean(1)
        assert graded[light > 0.6].mean() > graded[light < 0.3].mean() + 0.1


def test_occluders_cover_what_their_mask_says(pictures):
    covered, mask = add_occluder(pictures, Generator().manual_seed(0))
    assert mask.shape == (3, 1, 64, 64) and 0 < mask.mean() < 0.6
    assert torch.allclose(covered * (mask < 1e-3), pictures * (mask < 1e-3), atol=2e-3)
    assert ((covered - pictures).abs() * (mask > 0.9)).sum() > 1
