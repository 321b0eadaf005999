"""Fault matrix rows 11-14: finding the face, and framing it as the models expect."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

import vasa.io.face as face_module
from vasa.errors import InputError
from vasa.io.face import CROP_PER_FACE, FaceBox, crop_square, find_faces, portrait_crop

FACE = (160, 60, 130)
"""Left, top and edge of the face in scikit-image's astronaut, by eye, to a few pixels."""


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255


def is_face(box: FaceBox, slack: float = 30) -> bool:
    x, y = box.centre
    return abs(x - (FACE[0] + FACE[2] / 2)) < slack and abs(y - (FACE[1] + FACE[2] / 2)) < slack


def test_finds_one_face_where_it_is(astronaut):
    boxes = find_faces(astronaut)
    assert len(boxes) == 1 and is_face(boxes[0]) and boxes[0].quarter_turns == 0
    assert 0.7 < boxes[0].size / FACE[2] < 1.4


@pytest.mark.parametrize("edge", [160, 1600])
def test_size_of_the_picture_does_not_matter(astronaut, edge):
    head = astronaut[:, :300, 80:380]
    resized = F.interpolate(head[None], size=(edge, edge), mode="bilinear", antialias=edge < 300)[0]
    small, large = find_faces(head)[0], find_faces(resized)[0]
    assert large.size / small.size == pytest.approx(edge / 300, rel=0.15)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 0.12,
        lambda x: 0.8 + 0.2 * x,
        lambda x: x.mean(0, keepdim=True).expand_as(x),
        lambda x: (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
        lambda x: (x * 5).round() / 5,
    ],
    ids=["dark", "bright", "grey", "noisy", "poster"],
)
def test_hard_light_and_style(astronaut, change):
    assert any(is_face(box) for box in find_faces(change(astronaut)))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_pictures_are_turned_back(astronaut, turns):
    head = astronaut[:, :300, 80:380]
    crop = portrait_crop(torch.rot90(head, -turns, (1, 2)), size=64)
    assert crop.quarter_turns == turns
    assert any(f"turned by {90 * turns} degrees" in notice for notice in crop.notices)
    upright = portrait_crop(head, size=64).picture
    assert (crop.picture - upright).abs().mean() < 0.1


@pytest.mark.parametrize(
    "picture",
    [
        lambda: data.chelsea(),
        lambda: data.rocket(),
        lambda: np.full((300, 300, 3), 127),
        lambda: np.random.default_rng(0).integers(0, 256, (300, 300, 3)),
    ],
    ids=["cat", "rocket", "flat", "noise"],
)
def test_no_face_offers_the_manual_way(picture):
    image = torch.from_numpy(picture().astype(np.float32)).permute(2, 0, 1) / 255
    with pytest.raises(InputError, match=r"no face was found .* --crop X,Y,SIZE"):
        portrait_crop(image)


def test_several_faces_largest_first_with_a_choice(astronaut):
    head = astronaut[:, :300, 80:380]
    small = F.interpolate(head[None], size=(200, 200), mode="bilinear", antialias=True)[0]
    both = torch.full((3, 300, 520), 0.5)
    both[:, :, :300] = head
    both[:, 50:250, 310:510] = small
    boxes = find_faces(both)
    assert len(boxes) == 2 and boxes[0].size > boxes[1].size
    first, second = portrait_crop(both, size=64), portrait_crop(both, face=1, size=64)
    assert any("2 faces" in notice for notice in first.notices)
    assert first.x < 150 < second.x
    with pytest.raises(InputError, match="shows 2"):
        portrait_crop(both, face=2)


def test_windows_that_agree_are_merged_and_strays_are_dropped():
    face = np.array([150.0, 150.0, 100.0])
    windows = [face + [shift, -shift, 2 * shift] for shift in range(-8, 8)]
    nested = [np.array([150.0, 160.0, 40.0])] * 14
    strays = [np.array([400.0, 90.0, 80.0])] * 5
    merged = face_module._merged(np.array([*windows, *nested, *strays]))
    assert len(merged) == 1 and merged[0].strength == 16
    assert merged[0].size == pytest.approx(100, abs=2) and merged[0].x == pytest.approx(100, abs=2)


def test_face_at_the_border_is_padded_with_a_notice(astronaut):
    crop = portrait_crop(astronaut[:, 70:230, 165:300], size=128)
    assert crop.picture.shape == (3, 128, 128) and torch.isfinite(crop.picture).all()
    assert any("border" in notice for notice in crop.notices)


def test_crop_square_inside_is_the_picture_itself():
    image = torch.rand(3, 90, 120, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(crop_square(image, 30, 20, 64, 64), image[:, 20:84, 30:94], atol=1e-5)


def test_crop_square_outside_keeps_the_inside_and_continues_the_edge():
    image = torch.zeros(3, 64, 64)
    image[0] = torch.linspace(0, 1, 64)[:, None]
    square = crop_square(image, -32, -32, 128, 128)
    assert torch.allclose(square[:, 32:96, 32:96], image, atol=1e-4)
    assert square[0, :20].max() < 0.2 and square[0, -20:].min() > 0.8 and 0 <= square.min() and square.max() <= 1


def test_framing_follows_the_box(astronaut, monkeypatch):
    monkeypatch.setattr(face_module, "find_faces", lambda image: [FaceBox(200, 100, 100)])
    crop = portrait_crop(astronaut, size=64)
    assert crop.side == pytest.approx(100 * CROP_PER_FACE)
    assert crop.x + crop.side / 2 == pytest.approx(250)


def reader_of(true_x: float, true_y: float, true_edge: float):
    """A face reader that knows where the head is; the crop it is given carries its position in its pixels."""

    def read(picture: torch.Tensor) -> torch.Tensor:
        x, y = picture[0].mean().item() * 512, picture[1].mean().item() * 512
        half = (picture[0, :, -1].mean() - picture[0, :, 0].mean()).item() * 512 / 2
        s = 0.75 * true_edge / (2 * half)
        return torch.tensor([0.0, 0.0, 0.0, (true_x - x) / half, (true_y - y) / half, math.log(s)])

    return read


@pytest.fixture
def ramps() -> torch.Tensor:
    ramp = torch.linspace(0, 1, 512)
    return torch.stack([ramp.expand(512, 512), ramp[:, None].expand(512, 512), torch.zeros(512, 512)])


def test_refinement_centres_the_head(ramps, monkeypatch):
    monkeypatch.setattr(face_module, "find_faces", lambda image: [FaceBox(200, 200, 100)])
    crop = portrait_crop(ramps, size=64, refine=reader_of(262, 240, 220))
    assert crop.x + crop.side / 2 == pytest.approx(262, abs=4)
    assert crop.y + crop.side / 2 == pytest.approx(240, abs=4)
    assert crop.side == pytest.approx(220, rel=0.05)


@pytest.mark.parametrize("wrong", [(500, 240, 200), (250, 250, 900), (math.nan, 250, 200)])
def test_a_reader_that_misreads_is_not_followed(ramps, monkeypatch, wrong):
    monkeypatch.setattr(face_module, "find_faces", lambda image: [FaceBox(200, 200, 100)])
    plain = portrait_crop(ramps, size=64)
    crop = portrait_crop(ramps, size=64, refine=reader_of(*wrong))
    assert (crop.x, crop.y, crop.side) == (plain.x, plain.y, plain.side)


def test_manual_and_no_crop(astronaut):
    manual = portrait_crop(astronaut, crop=(100, 20, 256), size=256)
    assert torch.allclose(manual.picture, astronaut[:, 20:276, 100:356], atol=1e-5) and not manual.notices
    wide = portrait_crop(astronaut[:, :200], crop="none", size=100)
    assert (wide.side, wide.x, wide.y) == (200, 156, 0) and "not square" in wide.notices[0]


@pytest.mark.parametrize("crop", [(600, 0, 100), (0, -200, 100), (0, 0, 2), (math.nan, 0, 100), (0, 0, -50)])
def test_crop_that_misses_the_picture(astronaut, crop):
    with pytest.raises(InputError, match="misses the 512x512 portrait"):
        portrait_crop(astronaut, crop=crop)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: torch.cat([x[:, :118], 0.9 + 0 * x[:, 118:165], x[:, 165:]], dim=1),
        lambda x: torch.cat([0.1 + 0 * x[:, :, :140], x[:, :, 140:]], dim=2),
        lambda x: x[:, :, 120:],
        lambda x: (x * 3).round() / 3,
        lambda x: x * 0.01,
        lambda x: 0.97 + 0.03 * x,
    ],
    ids=["masked", "half covered", "half outside", "cartoon", "black", "white"],
)
def test_hard_faces_are_cropped_or_the_manual_way_is_offered(astronaut, change):
    """Row 13: a face that is found is framed within the picture's reach; one that is not ends in the sentence."""
    head = change(astronaut[:, :300, 80:380])
    try:
        crop = portrait_crop(head, size=64)
    except InputError as error:
        assert "--crop X,Y,SIZE" in str(error)
    else:
        assert crop.picture.shape == (3, 64, 64) and torch.isfinite(crop.picture).all()
        assert 40 < crop.side < 500
