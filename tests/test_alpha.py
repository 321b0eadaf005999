"""Outputs with alpha: the matte that was written is the matte that is read back."""

import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vasa.cli import main
from vasa.errors import InputError
from vasa.io.alpha import check_output, foreground, refined, writer_for, yuva444p10
from vasa.io.video import VideoWriter, read_manifest

WIDTH, HEIGHT = 66, 50
NAMES = ["out.webm", "out.mov", "out"]


def clip(frames: int = 6) -> torch.Tensor:
    """A red disc that travels over green, with a soft edge, [n, 4, H, W]."""
    y, x = torch.meshgrid(torch.arange(HEIGHT).float(), torch.arange(WIDTH).float(), indexing="ij")
    pictures = []
    for index in range(frames):
        distance = ((x - 18 - 4 * index) ** 2 + (y - 25) ** 2).sqrt()
        alpha = ((16 - distance) / 6).clamp(0, 1)
        colour = torch.stack([0.2 + 0.6 * alpha, 0.6 - 0.4 * alpha, torch.full_like(alpha, 0.3)])
        pictures.append(torch.cat([colour, alpha[None]]))
    return torch.stack(pictures)


def read_back(path: Path) -> torch.Tensor:
    """RGBA frames of an output, [n, 4, H, W]."""
    if path.is_dir():
        images = [np.array(Image.open(name)) for name in sorted(path.glob("*.png"))]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    frames = []
    with av.open(str(path)) as container:
        # FFmpeg's own VP9 decoder leaves the alpha out
        decoder = av.CodecContext.create("libvpx-vp9", "r") if path.suffix == ".webm" else None
        for packet in container.demux(video=0):
            if decoder is None:
                frames += packet.decode()
            else:
                frames += decoder.decode(packet if packet.dts is not None else None)
    return torch.stack([picture_of(frame) for frame in frames])


def picture_of(frame: av.VideoFrame) -> torch.Tensor:
    """BT.709 undone by hand, so that the writer is not checked against itself."""
    deep = "10" in frame.format.name or "12" in frame.format.name
    bits = int(frame.format.components[0].bits)
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)[:, : plane.width]
        rows = torch.from_numpy(rows.astype(np.float32)) / 2 ** (bits - 8)
        repeat = (-(-HEIGHT // plane.height), -(-WIDTH // plane.width))
        planes.append(rows.repeat_interleave(repeat[0], 0).repeat_interleave(repeat[1], 1)[:HEIGHT, :WIDTH])
    luma, blue, red = (planes[0] - 16) / 219, (planes[1] - 128) / 224 * 1.8556, (planes[2] - 128) / 224 * 1.5748
    r, b = red + luma, blue + luma
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    return torch.stack([r, g, b, planes[3] / (255.75 if deep else 255)])


@pytest.mark.parametrize("name", NAMES)
def test_alpha_and_colours_come_back(tmp_path, name):
    path, frames = tmp_path / name, clip()
    sound = 0.5 * torch.sin(torch.arange(16000) / 16000 * 2 * torch.pi * 220)
    with writer_for(path, alpha=True)(path, (WIDTH, HEIGHT), 25, (sound, 16000), {"seed": 3}) as writer:
        writer.write(frames[:4])
        writer.write(frames[4:])
    assert [p.name for p in tmp_path.iterdir()] == [name]
    seen = read_back(path)
    assert seen.shape == frames.shape
    limit = {"out": 0.003, "out.mov": 0.01, "out.webm": 0.03}[name]
    assert (seen[:, 3] - frames[:, 3]).abs().mean() < limit
    covered = frames[:, 3] > 0.9
    assert (seen[:, :3] - frames[:, :3]).abs().mean(1)[covered].mean() < 0.06
    assert ((seen[:, 3] > 0.5) == (frames[:, 3] > 0.5)).float().mean() > 0.98


@pytest.mark.parametrize("name", ["out.webm", "out.mov"])
def test_sound_rate_and_manifest_of_videos(tmp_path, name):
    path = tmp_path / name
    with writer_for(path, alpha=True)(
        path, (WIDTH, HEIGHT), 29.97, (torch.rand(2, 8000) - 0.5, 16000), {"seed": 3}
    ) as writer:
        writer.write(clip(15))
    assert read_manifest(path) == {"seed": 3}
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, abs=0.01)
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48000 == pytest.approx(15 / 29.97, abs=0.025)


def test_folder_holds_pictures_sound_and_manifest(tmp_path):
    path = tmp_path / "out"
    with writer_for(path, alpha=True)(path, (WIDTH, HEIGHT), 25, (torch.rand(4000), 16000), {"seed": 3}) as writer:
        writer.write(clip(10)[0])
        writer.write(clip(10)[1:])
    assert [p.name for p in sorted(path.glob("*.png"))] == [f"{index:06d}.png" for index in range(10)]
    assert json.loads((path / "manifest.json").read_text()) == {"seed": 3}
    with wave.open(str(path / "sound.wav")) as sound:
        assert sound.getnframes() == 48000 * 10 // 25


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing_and_keeps_what_was(tmp_path, name, failure):
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"earlier")
    with pytest.raises(failure), writer_for(path, alpha=True)(path, (WIDTH, HEIGHT), 25) as writer:
        writer.write(clip())
        raise failure
    assert [p.name for p in tmp_path.iterdir()] == ([name] if path.suffix else [])
    assert not path.suffix or path.read_bytes() == b"earlier"


def test_outputs_that_cannot_hold_what_is_asked(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    for name, alpha, words in [
        ("o.mp4", True, "cannot hold alpha"),
        ("o.webm", False, "--alpha"),
        ("o.mov", False, "--alpha"),
        ("o.gif", True, "cannot hold alpha"),
        ("full", True, "not empty"),
        ("file", True, "is a file"),
        ("absent/out", True, "does not exist"),
        ("absent/out.webm", True, "does not exist"),
        ("o.avi", False, "must end in .mp4"),
    ]:
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, alpha)
    assert writer_for(tmp_path / "o.mp4") is VideoWriter
    assert check_output(tmp_path / "o.MP4") and check_output(tmp_path / "new", True)


def test_the_command_line_says_so_before_anything_is_read(capsys, tmp_path):
    assert main(["animate", "absent.png", "absent.wav", "-o", str(tmp_path / "o.mp4"), "--alpha"]) == 2
    assert "cannot hold alpha" in capsys.readouterr().err


def test_frames_without_alpha_are_refused(tmp_path):
    for name in NAMES:
        path = tmp_path / name
        with pytest.raises(ValueError, match="4, 50, 66"), writer_for(path, True)(path, (WIDTH, HEIGHT), 25) as writer:
            writer.write(clip()[:, :3])


def test_ten_bits_are_ten_bits():
    ramp = torch.linspace(0, 1, 1024)[None, None, None].expand(1, 4, 1, -1)
    planes = yuva444p10(ramp)
    assert len(planes[0, 3].unique()) == 1024 and planes[0, 0].max() == 940 and planes[0, 0].min() == 64
    assert (planes[0, 1] == 512).all()


def test_background_does_not_shine_through():
    """The disc's own colour reaches over its edge; of the green behind it nothing is left."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    alpha = ((20 - ((x - 32) ** 2 + (y - 32) ** 2).sqrt()) / 6).clamp(0, 1)[None, None]
    red, green = torch.tensor([0.8, 0.1, 0.1])[:, None, None], torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    frame = (red * alpha[0] + green * (1 - alpha[0]))[None]
    clean = foreground(frame, alpha)
    assert (clean - red)[:, 1].abs().max() < 0.5 * (frame - red)[:, 1].abs()[alpha[:, 0] > 0.5].max()
    assert clean[:, 1][alpha[:, 0] == 0].max() < 0.2
    assert torch.equal(foreground(frame, torch.zeros_like(alpha)), torch.zeros_like(frame))


def test_refined_matte_follows_the_picture():
    """A coarse matte of a hard-edged picture, after refinement, has the edges of the picture."""
    truth = torch.zeros(1, 1, 128, 128)
    truth[..., 30:97, 41:83] = 1
    picture = 0.2 + 0.6 * truth.expand(-1, 3, -1, -1)
    coarse = torch.nn.functional.avg_pool2d(truth, 8)
    bilinear = torch.nn.functional.interpolate(coarse, size=128, mode="bilinear")

    def wrong(alpha: torch.Tensor) -> int:
        return int(((alpha > 0.5) != (truth > 0.5)).sum())

    assert wrong(refined(coarse, picture)) < 0.6 * wrong(bilinear)
