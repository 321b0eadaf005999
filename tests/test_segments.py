"""Pieces of a stream join without a gap, each starts with a key frame, and together they are the whole film."""

import io

import av
import numpy as np
import pytest
import torch

from vasa.io.segments import CLOCK_START, Segmenter, SoundAlong, join
from vasa.io.video import read_video

FPS, RATE = 25, 16_000


def frames(count: int) -> torch.Tensor:
    """A grey that rises from frame to frame, [n, 3, 64, 64]."""
    return (torch.arange(count) / max(count, 1)).view(-1, 1, 1, 1).expand(count, 3, 64, 64)


def tone(count: int) -> np.ndarray:
    return 0.3 * np.sin(np.arange(count * RATE // FPS) * 2 * np.pi * 440 / RATE).astype(np.float32)


def made(count: int, pieces: tuple[int, ...], seconds: float = 1.0):
    """`count` frames written in batches."""
    segmenter, sound, found, start = Segmenter(64, FPS, RATE, seconds=seconds), tone(count), [], 0
    for size in pieces:
        samples = sound[start * RATE // FPS : (start + size) * RATE // FPS]
        found += segmenter.write(frames(count)[start : start + size], samples)
        start += size
    assert start == count
    return [*found, *segmenter.close()]


@pytest.mark.parametrize("pieces", [(60,), (7, 20, 33), (1,) * 60], ids=["at once", "in batches", "one by one"])
def test_pieces_are_a_second_long_however_frames_come(pieces):
    segments = made(60, pieces)
    assert [round(s.seconds, 6) for s in segments] == [1.0, 1.0, 0.4]


def decoded(data: bytes, kind: str) -> list:
    with av.open(io.BytesIO(data), format="mpegts") as container:
        stream = getattr(container.streams, kind)[0]
        return [(float(f.pts * f.time_base), f) for f in container.decode(stream)]


def test_pieces_join_without_a_gap():
    data = b"".join(s.data for s in made(60, (60,)))
    times = [time for time, _ in decoded(data, "video")]
    assert len(times) == 60
    assert np.allclose(times, CLOCK_START + np.arange(60) / FPS, atol=1e-4)
    sound = decoded(data, "audio")
    ends = [time + frame.samples / frame.sample_rate for time, frame in sound]
    gaps = [start - end for (start, _), end in zip(sound[1:], ends, strict=False)]
    assert max(abs(gap) for gap in gaps) < 1e-3
    assert abs(ends[-1] - sound[0][0] - 60 / FPS) < 0.05


def test_every_piece_begins_with_a_key_frame():
    segments = made(60, (60,))
    for number in range(1, len(segments)):
        rest = b"".join(s.data for s in segments[number:])
        assert len(decoded(rest, "video")) >= 60 - number * 25


def test_pieces_become_one_mp4(tmp_path):
    segments = made(60, (60,))
    join([s.data for s in segments], tmp_path / "whole.mp4")
    video = read_video(tmp_path / "whole.mp4")
    seen = torch.stack(list(video.frames))
    assert seen.shape == (60, 3, 64, 64) and video.fps == FPS
    assert (seen.mean((1, 2, 3)) - frames(60).mean((1, 2, 3))).abs().max() < 0.03
    assert abs(video.audio.seconds - 60 / FPS) < 0.06
    with av.open(str(tmp_path / "whole.mp4")) as container:
        assert abs(container.streams.video[0].start_time * container.streams.video[0].time_base) < 0.01


def test_nothing_is_no_film(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        join([], tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()
    assert list(Segmenter(64, FPS).close()) == []


def test_sound_follows_the_frames_and_never_drifts():
    blocks = iter([np.ones((2, 700), np.float32) * i for i in range(100)])
    along = SoundAlong(blocks, 48_000, 29.97)
    lengths = [along.next(1).shape[1] for _ in range(30)]
    assert sum(lengths) == round(30 * 48_000 * 1001 / 30_000)
    assert {*lengths} <= {1601, 1602}
    along = SoundAlong(iter([np.ones((2, 100), np.float32)]), 48_000, 25)
    piece = along.next(1)
    assert piece.shape == (2, 1920) and piece[:, :100].min() == 1 and piece[:, 100:].max() == 0
