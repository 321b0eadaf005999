"""Fault matrix rows 1-10: what a portrait file may be, and what it must not be."""

import struct
import subprocess
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vasa.errors import InputError
from vasa.io.image import load_image, save_image

WIDTH, HEIGHT = 200, 160


@pytest.fixture
def picture() -> Image.Image:
    """Smooth colours that differ in every corner, so that a turn or a swap of channels shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) * 255 // (WIDTH + HEIGHT)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and (a - b).abs().mean().item() < tolerance


# EXIF orientation -> how a camera held that way has stored the upright picture.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_undone(tmp_path, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.transpose(STORED[orientation]).save(tmp_path / "p.jpg", exif=exif, quality=95)
    assert close(load_image(tmp_path / "p.jpg").pixels, as_tensor(picture), 0.02)


def test_hidden_colours_behind_alpha_do_not_show(tmp_path, picture):
    alpha = Image.new("L", picture.size, 0)
    alpha.paste(255, (0, 0, WIDTH // 2, HEIGHT))
    picture.putalpha(alpha)
    picture.save(tmp_path / "p.png")
    loaded = load_image(tmp_path / "p.png", background=(0.25, 0.5, 0.75)).pixels
    hidden = loaded[:, :, WIDTH // 2 :]
    assert torch.allclose(hidden, torch.tensor([0.25, 0.5, 0.75])[:, None, None].expand_as(hidden))
    assert close(loaded[:, :, : WIDTH // 2], as_tensor(picture)[:, :, : WIDTH // 2], 1e-6)


@pytest.mark.parametrize(
    "mode, suffix, tolerance",
    [
        ("P", "png", 0.08),
        ("L", "png", 0.3),
        ("CMYK", "jpg", 0.03),
        ("1", "png", 0.6),
        ("LA", "png", 0.3),
    ],
)
def test_modes_convert(tmp_path, picture, mode, suffix, tolerance):
    path = tmp_path / f"p.{suffix}"
    converted = picture.convert("L").convert("LA") if mode == "LA" else picture.convert(mode)
    converted.save(path)
    expected = as_tensor(converted if mode != "LA" else picture.convert("L"))
    assert close(load_image(path).pixels, expected, 0.01)
    assert close(expected, as_tensor(picture), tolerance)


def test_transparent_palette_entry_becomes_background(tmp_path, picture):
    flat = Image.new("P", (200, 200), 1)
    flat.putpalette([255, 0, 0, 0, 0, 255])
    flat.paste(0, (0, 0, 100, 200))
    flat.save(tmp_path / "p.png", transparency=0)
    loaded = load_image(tmp_path / "p.png").pixels
    assert torch.allclose(loaded[:, :, :100], torch.tensor(0.5))
    assert loaded[2, :, 100:].min() == 1 and loaded[0, :, 100:].max() == 0


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    grey = np.linspace(0, 65535, 160 * 160).astype(np.uint16).reshape(160, 160)
    Image.fromarray(grey).save(tmp_path / "p.png")
    loaded = load_image(tmp_path / "p.png").pixels
    assert torch.allclose(loaded[0], torch.from_numpy(grey / 65535).float(), atol=1e-4)
    assert loaded.mean().item() == pytest.approx(0.5, abs=0.01)


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_rgb_is_scaled_not_clipped(tmp_path):
    row = b"\0" + struct.pack(">HHH", 16384, 32768, 65535) * 128
    (tmp_path / "p.png").write_bytes(png(128, 128, 16, 2, row * 128))
    loaded = load_image(tmp_path / "p.png").pixels
    assert loaded[:, 5, 5].tolist() == pytest.approx([0.25, 0.5, 1.0], abs=0.005)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_first_frame_of_an_animation_with_a_notice(tmp_path, suffix):
    frames = [Image.new("RGB", (150, 150), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"p.{suffix}", save_all=True, append_images=frames[1:])
    loaded = load_image(tmp_path / f"p.{suffix}")
    assert loaded.pixels[0].mean() > 0.9 and loaded.pixels[2].mean() < 0.1
    assert len(loaded.notices) == 1 and "first one" in loaded.notices[0]


def test_heic_names_the_way_out(tmp_path):
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(InputError, match="convert it to JPEG"):
        load_image(tmp_path / "p.heic")


@pytest.mark.parametrize("suffix", ["avif", "webp", "jp2", "tiff", "bmp", "png", "jpg"])
def test_common_formats_load(tmp_path, picture, suffix):
    picture.save(tmp_path / f"p.{suffix}")
    loaded = load_image(tmp_path / f"p.{suffix}")
    assert close(loaded.pixels, as_tensor(picture), 0.03) and not loaded.notices
    assert loaded.pixels.dtype == torch.float32 and 0 <= loaded.pixels.min() and loaded.pixels.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (3000, 20)])
def test_too_small(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "p.png")
    with pytest.raises(InputError, match="128"):
        load_image(tmp_path / "p.png")


@pytest.mark.parametrize("edge", [12_000, 30_000])
def test_bomb_is_refused_by_its_header(tmp_path, edge):
    (tmp_path / "p.png").write_bytes(png(edge, edge, 8, 2, bytes(1000)))
    load_nothing(tmp_path)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(InputError, match="50 megapixels"):
        load_image(tmp_path / "p.png")
    assert time.perf_counter() - started < 0.5
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def load_nothing(folder):
    """Have Pillow import its plugins, which is not what the bomb test times."""
    with pytest.raises(InputError):
        load_image(folder / "absent.png")
    Image.init()


@pytest.mark.parametrize(
    "content",
    [
        b"just text, no picture\n" * 20,
        b"<svg xmlns='http://www.w3.org/2000/svg' width='300' height='300'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\nshowpage\n",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
    ],
)
def test_not_an_image(tmp_path, monkeypatch, content):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a helper program was started"))
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(InputError, match="not a readable image"):
        load_image(tmp_path / "p.png")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(tmp_path, picture, share):
    picture.save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match="not a readable image"):
        load_image(tmp_path / "p.jpg")


def test_missing_empty_folder_and_address(tmp_path):
    (tmp_path / "empty.png").touch()
    for path, words in [
        (tmp_path / "absent.png", "does not exist"),
        (tmp_path / "empty.png", "is empty"),
        (tmp_path, "is a folder"),
        ("https://example.org/p.png", "local file"),
    ]:
        with pytest.raises(InputError, match=words):
            load_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff"])
def test_mutated_files_give_only_typed_errors(tmp_path, picture, suffix):
    """Row 25, images: a fixed-seed mutator."""
    picture.save(tmp_path / f"whole.{suffix}")
    whole = np.frombuffer((tmp_path / f"whole.{suffix}").read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    path = tmp_path / f"p.{suffix}"
    for _ in range(60):
        data = whole.copy()
        spots = random.integers(0, len(data), random.integers(1, 12))
        data[spots] = random.integers(0, 256, len(spots))
        path.write_bytes(data[: random.integers(1, len(data) + 1)].tobytes())
        try:
            pixels = load_image(path).pixels
        except InputError:
            continue
        assert torch.isfinite(pixels).all()


def test_save_round_trip_and_no_leftovers(tmp_path, picture):
    save_image(as_tensor(picture), tmp_path / "out.png")
    assert torch.equal(load_image(tmp_path / "out.png").pixels, as_tensor(picture))
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    with pytest.raises(InputError, match="does not exist"):
        save_image(as_tensor(picture), tmp_path / "absent" / "out.png")
