"""Fault matrix rows 36-40, and what a video must keep: every frame, the sound in step, the earlier file."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vasa.errors import InputError
from vasa.io.files import check_writable
from vasa.io.video import VideoWriter, num_frames, read_manifest, read_video, yuv420

RATE = 16000
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")


def flash_and_click(seconds: float, fps: float, times: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames white and sound loud at the same moments."""
    sound = torch.zeros(round(seconds * RATE))
    frames = torch.zeros(num_frames(Fraction(len(sound), RATE), fps), 3, 32, 32)
    for time in times:
        sound[round(time * RATE) : round(time * RATE) + 160] = 0.9
        frames[round(time * fps)] = 1.0
    return frames, sound


def track_ends(path: Path) -> tuple[float, float]:
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        return float(video.duration * video.time_base), float(audio.duration * audio.time_base)


@pytest.mark.parametrize("fps", [25, 29.97, 40, 1])
@pytest.mark.parametrize("seconds", [1.0, 3.333])
def test_every_frame_and_sound_in_step(tmp_path, fps, seconds):
    times = [0.4, 0.8] if fps > 1 else [0.0]
    frames, sound = flash_and_click(seconds, fps, times)
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 32, fps, (sound, RATE)) as writer:
        for start in range(0, len(frames), 7):
            writer.write(frames[start : start + 7])
    video = read_video(path)
    bright = [frame.mean().item() for frame in video.frames]
    assert len(bright) == len(frames) == num_frames(Fraction(len(sound), RATE), fps)
    assert video.fps == pytest.approx(fps, abs=0.001)
    flashes = [index / fps for index, value in enumerate(bright) if value > 0.5]
    loud = (video.audio.waveform.abs() > 0.4).nonzero()[:, 0] / RATE
    for time, flash in zip(times, flashes, strict=True):
        assert abs(flash - time) <= 0.5 / fps
        assert (loud - time).abs().min() < 0.002
    assert abs(track_ends(path)[0] - track_ends(path)[1]) <= 0.0215


def test_sound_longer_than_the_frames_is_cut_and_shorter_is_padded(tmp_path):
    for seconds in (0.3, 5.0):
        sound = torch.full((round(seconds * RATE),), 0.5)
        with VideoWriter(tmp_path / "v.mp4", (32, 48), 25, (sound, RATE)) as writer:
            writer.write(torch.rand(50, 3, 48, 32, generator=torch.Generator().manual_seed(0)))
        assert track_ends(tmp_path / "v.mp4") == pytest.approx((2.0, 2.0), abs=0.0215)


def test_colours_survive(tmp_path):
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0.9, 0.7, 0.6]], dtype=torch.float32)
    with VideoWriter(tmp_path / "v.mp4", 64, 25) as writer:
        writer.write(colours[:, :, None, None].expand(-1, -1, 64, 64).bfloat16())
    video = read_video(tmp_path / "v.mp4")
    seen = torch.stack([frame.mean(dim=(1, 2)) for frame in video.frames])
    assert video.audio is None
    assert (seen - colours).abs().max() < 0.03
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == 1


def test_converted_frames_give_the_same_file(tmp_path):
    pictures = torch.rand(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    for name, planes in (("a.mp4", False), ("b.mp4", True)):
        with VideoWriter(tmp_path / name, (64, 32), 25) as writer:
            writer.write_planes(yuv420(pictures)) if planes else writer.write(pictures)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(ValueError, match="planes"), VideoWriter(tmp_path / "c.mp4", (32, 64), 25) as writer:
        writer.write_planes(yuv420(pictures))


def test_manifest_travels_in_the_comment(tmp_path):
    manifest = {"seed": 7, "text": 'ü <b> %d $(x) "quoted"', "gaze": [0.1, -0.2]}
    with VideoWriter(tmp_path / "v.mp4", 32, 25, metadata=manifest) as writer:
        writer.write(torch.zeros(3, 32, 32))
    assert read_manifest(tmp_path / "v.mp4") == manifest
    data = (tmp_path / "v.mp4").read_bytes()
    assert str(tmp_path).encode() not in data and str(Path.home()).encode() not in data
    assert data.find(b"moov") < data.find(b"mdat")


def test_file_without_a_manifest(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 32, 25) as writer:
        writer.write(torch.zeros(3, 32, 32))
    with av.open(str(tmp_path / "v.mp4")) as source, av.open(str(tmp_path / "bare.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(InputError, match="no vasa manifest"):
        read_manifest(tmp_path / "bare.mp4")


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_earlier_file_and_leaves_nothing(tmp_path, failure):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"earlier")
    with pytest.raises(failure), VideoWriter(path, 32, 25, (torch.zeros(RATE), RATE)) as writer:
        writer.write(torch.zeros(5, 3, 32, 32))
        assert len(list(tmp_path.iterdir())) == 2
        raise failure
    assert path.read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_closing_without_frames_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(tmp_path / "v.mp4", 32, 25):
        pass
    assert not list(tmp_path.iterdir())


def test_wrong_frame_size_is_named(tmp_path):
    with (
        pytest.raises(ValueError, match=r"\[n, 3, 32, 32\]"),
        VideoWriter(tmp_path / "v.mp4", 32, 25) as writer,
    ):
        writer.write(torch.zeros(3, 16, 16))


@pytest.mark.parametrize(
    "name", ["spaces in it.mp4", "emoji 😀 ü.mp4", "%d tee:x.mp4", "pipe:1.mp4", "x" * 251 + ".mp4"]
)
def test_odd_names_are_only_names(tmp_path, name):
    with VideoWriter(tmp_path / name, 32, 25) as writer:
        writer.write(torch.zeros(2, 3, 32, 32))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(list(read_video(tmp_path / name).frames)) == 2


def test_unwritable_outputs_are_refused_before_anything_is_computed(tmp_path, monkeypatch):
    (tmp_path / "folder.mp4").mkdir()
    for path, words in [
        (tmp_path / "absent" / "v.mp4", "does not exist"),
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "v.avi", "must end in .mp4"),
    ]:
        with pytest.raises(InputError, match=words):
            check_writable(path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"disk of the output folder .* is full"):
        check_writable(tmp_path / "v.mp4")


@posix
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody may write to")
def test_read_only_folder_is_refused():
    with pytest.raises(InputError, match="folder"):
        check_writable("/proc/v.mp4")


def test_folder_that_vanishes_is_named(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with pytest.raises(InputError, match="no longer exists"), VideoWriter(folder / "v.mp4", 32, 25) as writer:
        writer.write(torch.zeros(3, 3, 32, 32))
        shutil.rmtree(folder)


def in_child(script: str, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        text=True,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@posix
def test_full_disk_keeps_the_earlier_file(tmp_path):
    """A limit on the size of files stands in for the end of the disk: the same path through the muxer."""
    (tmp_path / "v.mp4").write_bytes(b"earlier")
    child = in_child(
        """
        import resource, signal, sys
        import torch
        from vasa.errors import InputError
        from vasa.io.video import VideoWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with VideoWriter(sys.argv[1], 128, 25) as writer:
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                for seed in range(40):
                    writer.write(torch.rand(10, 3, 128, 128))
        except InputError as error:
            print(error)
        """,
        str(tmp_path / "v.mp4"),
    )
    said, complaint = child.communicate(timeout=300)
    assert f"the disk of the output folder {tmp_path} is full" in said, complaint
    assert (tmp_path / "v.mp4").read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


@posix
def test_kill_leaves_a_playable_partial_and_the_earlier_file(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"earlier")
    child = in_child(
        """
        import sys, time
        import torch
        from vasa.io.video import VideoWriter
        with VideoWriter(sys.argv[1], 64, 25, (torch.zeros(320_000), 16000)) as writer:
            for _ in range(25):
                writer.write(torch.rand(10, 3, 64, 64))
            print("written", flush=True)
            time.sleep(60)
        """,
        str(tmp_path / "v.mp4"),
    )
    assert child.stdout.readline().strip() == "written"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    partial = next(p for p in tmp_path.iterdir() if p.name != "v.mp4")
    assert partial.name.startswith(".") and (tmp_path / "v.mp4").read_bytes() == b"earlier"
    with av.open(str(partial)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 100


def test_reading_refuses_what_is_not_a_video(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    for path, words in [
        (tmp_path / "text.mp4", "not a readable"),
        (tmp_path / "absent.mp4", "does not exist"),
    ]:
        with pytest.raises(InputError, match=words):
            read_video(path)


@pytest.mark.parametrize("size", [(34, 50), (50, 34), (32, 32)])
def test_colours_keep_their_place_in_any_even_size(tmp_path, size):
    """Half of 50 rows is odd: a chroma plane then ends in the middle of a row of the luma's length."""
    width, height = size
    picture = torch.full((3, height, width), 0.2)
    picture[0, : height // 2], picture[2, height // 2 :] = 0.9, 0.9
    with VideoWriter(tmp_path / "v.mp4", size, 25) as writer:
        writer.write(picture)
    seen = next(iter(read_video(tmp_path / "v.mp4").frames))
    assert (seen - picture)[:, 2:-2, 2:-2].abs().mean() < 0.05


def test_a_long_film_is_written_in_constant_memory(tmp_path):
    """Row 20: ten minutes of sound pulled as the pictures come; the second half needs no more than the first."""
    blocks = (np.zeros((2, 48_000), np.float32) for _ in range(600))
    picture, peaks = torch.zeros(4, 3, 32, 32), []
    tracemalloc.start()
    try:
        with VideoWriter(tmp_path / "v.mp4", 32, 1, (blocks, 48_000)) as writer:
            for index in range(150):
                writer.write(picture)
                if index % 50 == 49:
                    peaks.append(tracemalloc.get_traced_memory()[1])
                    tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert track_ends(tmp_path / "v.mp4") == pytest.approx((600.0, 600.0), abs=0.0215)
    assert peaks[2] < peaks[0] + 200_000 and max(peaks) < 5_000_000
