"""Back into the picture: what must not change does not, the old head is covered, and large pictures stay cheap."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vasa.io.face as face_module
from vasa.checkpoint import load_matte
from vasa.cli import main
from vasa.errors import InputError
from vasa.face.texture import texture_of
from vasa.io.face import Crop, FaceBox, crop_square
from vasa.io.image import load_image
from vasa.io.paste import PasteBack, widened
from vasa.io.video import VideoWriter, read_video, yuv420
from vasa.latents import FaceLatents
from vasa.screen import DETAIL_SIZE, Screen, sharpened

SQUARE = (41.0, 23.0, 101.0)
"""Left, top and edge of the crop in the upright picture: odd, so that evenness is put to the test."""


def disc(x: float, y: float, radius: float, size: int) -> torch.Tensor:
    """1 inside a disc, [1, size, size]; coordinates in edges."""
    axis = (torch.arange(size) + 0.5) / size
    return ((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2 < radius**2).float()[None]


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Dark noise, so that a lost or blurred pixel shows."""
    return 0.4 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def white(pictures: torch.Tensor) -> torch.Tensor:
    """A matte: the person is what is bright."""
    return (pictures.mean(1, keepdim=True) > 0.6).float()


def scene(turns: int = 0, at: float = 0.5, height: int = 167, width: int = 211) -> tuple[torch.Tensor, Crop]:
    """Noise with a bright head in it, stored `turns` quarter turns askew, and its crop."""
    upright = noise(height, width)
    left, top, edge = (round(value) for value in SQUARE)
    head = disc(at, 0.5, 0.2, edge)
    region = upright[:, top : top + edge, left : left + edge]
    upright[:, top : top + edge, left : left + edge] = torch.where(head > 0, 0.9, region)
    return torch.rot90(upright, -turns, (1, 2)), Crop(crop_square(upright, *SQUARE, 64), *SQUARE, turns)


def moved_heads(*places: float, size: int = 64) -> torch.Tensor:
    """Frames of the crop in which the head has moved, on a background that trembles."""
    backgrounds = [noise(size, size, seed + 7) for seed in range(len(places))]
    return torch.stack([
        torch.where(disc(x, 0.5, 0.2, size) > 0, 0.8, ground)
        for x, ground in zip(places, backgrounds, strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_background_is_the_original_bit_by_bit(turns):
    picture, crop = scene(turns)
    paste = PasteBack(picture, crop, softness=0.04, matte=white)
    composed = paste.compose(moved_heads(0.45, 0.5, 0.62))
    upright = torch.rot90(composed, turns, (2, 3))
    original = torch.rot90(picture, turns, (1, 2))
    left, top, edge = crop.square
    person = torch.stack([disc(x, 0.5, 0.2 + 0.13, edge) for x in (0.45, 0.5, 0.5, 0.62)]).amax(0)
    away = torch.ones(original.shape[1:], dtype=torch.bool)
    away[top : top + edge, left : left + edge] = person[0] == 0
    assert 0.5 < away.float().mean() < 0.95
    jitter = (upright[:, :, away] - original[:, away]).abs().max()
    assert jitter == 0
    assert (upright[:, :, ~away] != original[:, ~away]).float().mean() > 0.4


def test_the_old_head_is_covered_and_the_new_one_shown():
    picture, crop = scene(at=0.42)
    paste = PasteBack(picture, crop, matte=white)
    frame = moved_heads(0.62)
    composed = paste.compose(frame)[0]
    left, top, edge = crop.square
    seen = composed[:, top : top + edge, left : left + edge].mean(0)
    old = (disc(0.42, 0.5, 0.19, edge) - disc(0.62, 0.5, 0.24, edge))[0] > 0
    assert old.sum() > 100 and seen[old].max() < 0.5, "the head of the original still shows beside the moved one"
    new = disc(0.62, 0.5, 0.18, edge)[0] > 0
    assert seen[new].min() > 0.7


def test_unlocked_pastes_the_square_with_soft_borders():
    picture, crop = scene()
    left, top, edge = crop.square
    composed = PasteBack(picture, crop, lock=False).compose(torch.ones(1, 3, 64, 64))[0]
    square = composed[:, top : top + edge, left : left + edge]
    assert square[:, 20:-20, 20:-20].min() > 0.999
    change = (composed - picture).abs().mean(0)
    assert change[top, :].max() < 0.05 and change[:, left].max() < 0.05
    ramp = square[:, edge // 2, : edge // 8].mean(0)
    assert (ramp.diff() > -0.15).all() and ramp[-1] > 0.9
    outside = torch.ones_like(change, dtype=torch.bool)
    outside[top : top + edge, left : left + edge] = False
    assert change[outside].max() == 0


def test_no_fading_where_the_picture_ends():
    picture = noise(64, 64)
    composed = PasteBack(picture, Crop(picture, 0, 0, 64), lock=False).compose(torch.ones(1, 3, 64, 64))
    assert composed.min() > 0.999


@pytest.mark.parametrize("square", [(-30.0, -12.0, 100.0), (150.0, 90.0, 120.0), (3.0, 5.0, 33.0)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rectangle_is_even_and_holds_every_change(square, turns):
    upright = noise(167, 211)
    picture = torch.rot90(upright, -turns, (1, 2))
    paste = PasteBack(picture, Crop(crop_square(upright, *square, 64), *square, turns), lock=False)
    left, top, width, height = paste.rectangle
    assert left % 2 == 0 and top % 2 == 0
    assert left + width <= picture.shape[2] and top + height <= picture.shape[1]
    changed = (paste.compose(torch.ones(1, 3, 64, 64))[0] != picture).any(0)
    inside = torch.zeros_like(changed)
    inside[top : top + height, left : left + width] = True
    assert changed.any() and not (changed & ~inside).any()
    assert paste.patches(torch.ones(2, 3, 64, 64)).shape == (2, 3, height, width)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_frames_of_any_size(size):
    picture, crop = scene()
    composed = PasteBack(picture, crop, matte=white).compose(moved_heads(0.5, size=size))
    left, top, edge = crop.square
    assert composed.shape == (1, *picture.shape)
    assert composed[0, :, top + edge // 2, left + edge // 2].mean() == pytest.approx(0.8, abs=0.01)


def test_without_a_matte_the_person_is_what_changes():
    picture, crop = scene(at=0.5)
    frames = crop.picture[None].repeat(2, 1, 1, 1)
    frames[1, :, 20:30, 24:40] = 1.0
    composed = PasteBack(picture, crop).compose(frames)
    assert torch.equal(composed[0], picture)
    assert not torch.equal(composed[1], picture)
    assert torch.equal(composed[1][:, 100:], picture[:, 100:])


def test_widened_is_one_on_the_person_and_zero_away():
    person = disc(0.5, 0.5, 0.15, 128)[None]
    weight = widened(person, 4)
    assert weight[person > 0.5].min() == 1
    assert weight[0, 0][disc(0.5, 0.5, 0.15 + 12 / 128, 128)[0] == 0].max() == 0
    row = weight[0, 0, 64, 64:]
    assert row.diff().max() <= 0 and row.diff().abs().max() < 0.3


@pytest.mark.parametrize("softness", [0.0, 0.5, float("nan")])
def test_softness_out_of_range(softness):
    picture, crop = scene()
    with pytest.raises(InputError, match=r"between 0\.005 and 0\.2"):
        PasteBack(picture, crop, softness=softness)


def test_crop_of_another_picture():
    with pytest.raises(InputError, match="outside the 50x40 picture"):
        PasteBack(noise(40, 50), Crop(noise(8, 8), 60, 10, 30))


def test_alpha_in_the_whole_picture():
    picture, crop = scene()
    alpha = PasteBack(picture, crop, matte=white).alpha(moved_heads(0.5, 0.6))
    left, top, edge = crop.square
    assert alpha.shape == (2, 1, *picture.shape[1:]) and 0 <= alpha.min() and alpha.max() <= 1
    assert alpha[0, 0, top + edge // 2, left + edge // 2] == 1 and alpha[0, 0, :, : left + 10].max() == 0
    columns = torch.arange(alpha.shape[3]).float()
    middle = (alpha[:, 0].sum(1) * columns).sum(1) / alpha.sum((1, 2, 3))
    assert middle[1] - middle[0] == pytest.approx(0.1 * edge, abs=2)


@pytest.mark.parametrize("height, width", [(166, 212), (167, 211)])
def test_written_patches_are_the_whole_pictures(tmp_path, height, width):
    """What the writer lays over its backdrop are the very bytes of the composed picture."""
    picture, crop = scene(height=height, width=width)
    paste = PasteBack(picture, crop, matte=white)
    frames = moved_heads(0.45, 0.5, 0.55)
    left, top, _, _ = paste.rectangle
    even = (height // 2 * 2, width // 2 * 2)
    path = tmp_path / "v.mp4"
    with VideoWriter(path, even[::-1], 25, backdrop=(picture, left, top)) as writer:
        laid = [frame.to_ndarray() for frame in writer._pictures(paste.patches(frames))]
        writer.write(paste.patches(frames))
    whole = yuv420(paste.compose(frames)[:, :, : even[0], : even[1]]).numpy()
    assert np.array_equal(np.stack(laid), whole)
    seen = torch.stack(list(read_video(path).frames))
    assert seen.shape == (3, 3, *even)
    expected = paste.compose(frames)[:, :, : even[0], : even[1]]
    assert F.avg_pool2d(seen - expected, 16).abs().max() < 0.08


def test_backdrop_needs_an_even_place(tmp_path):
    with pytest.raises(ValueError, match="even place"):
        VideoWriter(tmp_path / "v.mp4", 64, 25, backdrop=(noise(64, 64), 3, 2))


def latents_of(portrait: torch.Tensor) -> FaceLatents:
    empty = torch.zeros(1, 1)
    return FaceLatents(empty, empty, empty, empty, portrait[None], texture=texture_of(portrait[None]))


def test_a_larger_portrait_carries_the_pictures_own_texture():
    picture = noise(300, 300)
    for edge, expected in ((60, 64), (150, 192), (290, 320), (1100, DETAIL_SIZE)):
        crop = Crop(crop_square(picture, 0, 0, edge, 64), 0, 0, edge)
        latents, detail = sharpened(latents_of(crop.picture), picture, crop, 64)
        assert detail == expected == latents.portrait.shape[-1]
    assert (latents_of(picture).portrait[0] - picture).abs().max() == 0


def test_screen_alone_passes_frames_through():
    frames = torch.rand(3, 3, 64, 64)
    screen = Screen(64, latents_of(frames[0]), frames[0], Crop(frames[0], 0, 0, 64))
    assert [torch.equal(shown, frames) for shown in screen.show(frames)] == [True]


def test_screen_in_the_picture_and_cut_out(tmp_path):
    picture, crop = scene()
    latents = latents_of(crop.picture)
    frames = moved_heads(0.5, 0.55)
    pasted = list(Screen(64, latents, picture, crop, paste_back=True).show(frames))
    assert len(pasted) == 2 and pasted[0].shape[2:] == (102, 102)
    cut = torch.cat(list(Screen(64, latents, picture, crop, alpha=True).show(frames)))
    assert cut.shape == (2, 4, 64, 64)
    both = list(Screen(64, latents, picture, crop, alpha=True, paste_back=True).show(frames))
    assert both[0].shape == (1, 4, 166, 210)
    assert both[0][0, 3, :20].max() == 0 and 0 <= both[0].min() and both[0].max() <= 1


def test_shipped_matte_tells_person_from_background():
    """On a drawn bust, which is far from what it was trained on; benchmarks measure it on rendered people."""
    size = 128
    picture = torch.tensor([0.25, 0.4, 0.6])[:, None, None].repeat(1, size, size)
    axis = (torch.arange(size) + 0.5) / size
    person = torch.zeros(size, size)
    for x, y, wide, high, colour in (
        (0.5, 1.05, 0.42, 0.30, (0.3, 0.12, 0.12)),
        (0.5, 0.72, 0.11, 0.2, (0.8, 0.6, 0.5)),
        (0.5, 0.45, 0.24, 0.31, (0.2, 0.12, 0.08)),
        (0.5, 0.5, 0.19, 0.25, (0.85, 0.66, 0.55)),
        (0.42, 0.46, 0.035, 0.018, (0.1, 0.1, 0.1)),
        (0.58, 0.46, 0.035, 0.018, (0.1, 0.1, 0.1)),
        (0.5, 0.63, 0.07, 0.02, (0.6, 0.25, 0.25)),
    ):
        inside = ((axis[None] - x) / wide) ** 2 + ((axis[:, None] - y) / high) ** 2 < 1
        picture = torch.where(inside, torch.tensor(colour)[:, None, None], picture)
        person = torch.where(inside, 1.0, person)
    alpha = load_matte().matte(picture[None])[0, 0]
    both, either = ((alpha > 0.5) & (person > 0)).sum(), ((alpha > 0.5) | (person > 0)).sum()
    assert both / either > 0.8


@pytest.fixture
def two_faces(tmp_path, monkeypatch) -> Path:
    """A picture in which the detector sees two faces."""
    pixels = (noise(400, 600).permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "p.png")
    monkeypatch.setattr(face_module, "find_faces", lambda image: [FaceBox(90, 110, 120), FaceBox(400, 150, 80)])
    return tmp_path / "p.png"


def test_crop_prints_a_line_a_face_and_draws_them(capsys, two_faces, tmp_path):
    out = tmp_path / "preview.png"
    assert main(["crop", str(two_faces), "-o", str(out), "--face", "1"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("face 0: x ") and lines[1].startswith("face 1: x ") and lines[2] == str(out)
    assert "2 faces; number 1 is used" in said.err
    preview = load_image(out).pixels
    assert preview.shape[1] == 400 and preview.shape[2] > 700
    yellow = (preview[0] > 0.95) & (preview[1] > 0.75) & (preview[2] < 0.2)
    assert yellow[110:114, 100:200].float().mean() > 0.4 and yellow[:, 402:470].any()


def test_crop_as_json_is_what_crop_takes(capsys, two_faces, tmp_path):
    assert main(["crop", str(two_faces), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["width"], told["height"]) == (600, 400) and [row["face"] for row in told["faces"]] == [0, 1]
    assert told["faces"][0]["box"] == {"x": 90, "y": 110, "size": 120}
    square = ",".join(str(told["faces"][1][name]) for name in ("x", "y", "size"))
    assert main(["crop", str(two_faces), "--json", f"--crop={square}"]) == 0
    again = json.loads(capsys.readouterr().out)["faces"]
    assert len(again) == 1 and {**again[0], "face": 1} == {k: v for k, v in told["faces"][1].items() if k != "box"}


def test_crop_complains_in_one_sentence(capsys, two_faces, tmp_path, monkeypatch):
    assert main(["crop", str(two_faces), "--face", "2"]) == 2
    assert "shows 2, counted from 0 by size" in capsys.readouterr().err
    assert main(["crop", str(two_faces), "-o", str(tmp_path / "absent" / "p.png")]) == 2
    assert "does not exist" in capsys.readouterr().err
    monkeypatch.setattr(face_module, "find_faces", lambda image: [])
    assert main(["crop", str(two_faces)]) == 2
    assert "no face was found" in capsys.readouterr().err


def test_edges_of_a_pasted_frame_do_not_ring():
    """A frame equal to the crop changes nothing worth seeing, though it went there and back."""
    picture = F.interpolate(noise(20, 24)[None], size=(160, 192), mode="bicubic")[0].clamp(0, 1)
    crop = Crop(crop_square(picture, 30, 20, 101, 64), 30, 20, 101)
    composed = PasteBack(picture, crop, lock=False).compose(crop.picture[None])[0]
    assert (composed - picture).abs().max() < 0.03
