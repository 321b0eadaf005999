"""Fault matrix rows 15-25: what a speech file may be, and what it must not be."""

import ctypes
import os
import socket
import subprocess
import sys
import textwrap
import tracemalloc
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vasa.errors import InputError
from vasa.io.audio import iterate_soundtrack, load_audio
from vasa.io.video import read_video

RATE = 16000


def tone(seconds: float, rate: int = RATE, level: float = 0.5, pitch: float = 220.0) -> np.ndarray:
    """A tone that swells and fades like syllables."""
    t = np.arange(round(seconds * rate)) / rate
    return level * np.sin(2 * np.pi * pitch * t) * (0.55 - 0.45 * np.cos(2 * np.pi * 3 * t))


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, width: int = 2) -> Path:
    """[N] or [N, C] in [-1, 1] as integers of `width` bytes."""
    scaled = np.round(np.clip(samples, -1, 1) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        scaled += 128
    raw = scaled.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


def write_with(path: Path, codec: str, samples: np.ndarray, rate: int, sample_format: str, layout: str = "mono"):
    """Encode [N] by FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        resampler = av.AudioResampler(
            format=stream.codec_context.format or sample_format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def write_float_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    data = samples.astype("<f4").tobytes()
    header = b"RIFF" + (50 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (18).to_bytes(4, "little")
    header += (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + rate.to_bytes(4, "little")
    header += (4 * rate).to_bytes(4, "little") + (4).to_bytes(2, "little") + (32).to_bytes(2, "little") + bytes(2)
    header += b"fact" + (4).to_bytes(4, "little") + len(samples).to_bytes(4, "little")
    path.write_bytes(header + b"data" + len(data).to_bytes(4, "little") + data)
    return path


def likeness(a: torch.Tensor, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n].numpy(), b[:n])[0, 1])


@pytest.mark.parametrize(
    "rate, width, channels",
    [(8000, 1, 1), (16000, 2, 1), (44100, 2, 2), (96000, 3, 1), (48000, 3, 6), (22050, 4, 2)],
)
def test_any_wav_decodes_to_its_length(tmp_path, rate, width, channels):
    sound = tone(1.37, rate)
    samples = sound if channels == 1 else np.repeat(sound[:, None], channels, 1) * 0.4
    loaded = load_audio(write_wav(tmp_path / "s.wav", samples, rate, width))
    assert abs(len(loaded.waveform) - 1.37 * RATE) <= 1
    assert loaded.waveform.dtype == torch.float32 and loaded.waveform.dim() == 1
    assert likeness(loaded.waveform, tone(1.37)) > 0.999


@pytest.mark.parametrize(
    "name, codec, sample_format, slack",
    [
        ("s.mp3", "libmp3lame", "fltp", 0.06),
        ("s.m4a", "aac", "fltp", 0.002),
        ("s.flac", "flac", "s16", 1e-4),
        ("s.ogg", "libopus", "flt", 0.02),
        ("s.webm", "libopus", "flt", 0.02),
        ("s.opus", "libopus", "flt", 0.02),
        ("mulaw.wav", "pcm_mulaw", "s16", 1e-4),
        ("double.wav", "pcm_f64le", "dbl", 1e-4),
        ("s.aiff", "pcm_s16be", "s16", 1e-4),
    ],
)
def test_codecs(tmp_path, name, codec, sample_format, slack):
    rate = 48000
    path = write_with(tmp_path / name, codec, tone(1.5, rate), rate, sample_format)
    loaded = load_audio(path)
    assert loaded.seconds == pytest.approx(1.5, abs=slack)
    assert likeness(loaded.waveform, tone(1.5)) > 0.98
    assert not [notice for notice in loaded.notices if "truncated" in notice]


def test_stereo_is_averaged_and_equal_channels_keep_their_level(tmp_path):
    both = np.repeat(tone(1.0, level=0.9)[:, None], 2, 1)
    loaded = load_audio(write_wav(tmp_path / "s.wav", both))
    assert loaded.waveform.abs().max().item() == pytest.approx(0.9, abs=0.01) and not loaded.notices


def test_silence_is_noticed(tmp_path):
    loaded = load_audio(write_wav(tmp_path / "s.wav", np.zeros(RATE)))
    assert loaded.waveform.abs().max() == 0
    assert any("silent" in notice for notice in loaded.notices)


@pytest.mark.parametrize(
    "samples, word",
    [
        (np.clip(tone(1.0, level=5.0), -1, 1), "clipped"),
        (tone(1.0, level=0.3) + 0.4, "offset"),
        (tone(1.0, level=0.001), "quiet"),
    ],
)
def test_bad_levels_are_mended_with_a_notice(tmp_path, samples, word):
    loaded = load_audio(write_wav(tmp_path / "s.wav", samples))
    assert any(word in notice for notice in loaded.notices)
    assert abs(loaded.waveform.mean()) < 0.01
    assert 0.1 < loaded.waveform.abs().max() <= 1


def test_overshooting_floats_are_scaled_down(tmp_path):
    loaded = load_audio(write_float_wav(tmp_path / "s.wav", tone(1.0, level=4.0)))
    assert loaded.waveform.abs().max() <= 1 and loaded.notices


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_first_bad_sample_is_named(tmp_path, value):
    samples = tone(1.0)
    samples[RATE // 2 + 100] = value
    with pytest.raises(InputError, match=r"NaN or infinite.*0\.506 s"):
        load_audio(write_float_wav(tmp_path / "s.wav", samples))


@pytest.mark.parametrize("count", [0, 1, round(0.19 * RATE)])
def test_too_short(tmp_path, count):
    with pytest.raises(InputError, match=r"0\.2 s are needed|not a readable"):
        load_audio(write_wav(tmp_path / "s.wav", tone(1.0)[:count]))


def test_missing_empty_and_text(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not sound\n" * 50)
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(1).bytes(3000))
    for name, words in [
        ("absent.wav", "does not exist"),
        ("empty.wav", "is empty"),
        ("text.wav", "not a readable"),
        ("noise.mp3", "not a readable|are needed"),
    ]:
        with pytest.raises(InputError, match=words):
            load_audio(tmp_path / name)


def test_truncated_wav_says_so(tmp_path):
    whole = write_wav(tmp_path / "whole.wav", tone(9.0)).read_bytes()
    (tmp_path / "s.wav").write_bytes(whole[: 44 + RATE])
    loaded = load_audio(tmp_path / "s.wav")
    assert loaded.seconds == pytest.approx(0.5, abs=0.01)
    assert any("9.0 s" in notice and "0.5 s" in notice for notice in loaded.notices)


def test_truncated_mp3_is_used_as_far_as_it_goes(tmp_path):
    path = write_with(tmp_path / "whole.mp3", "libmp3lame", tone(6.0, 44100), 44100, "fltp")
    data = path.read_bytes()
    (tmp_path / "s.mp3").write_bytes(data[: len(data) // 3])
    loaded = load_audio(tmp_path / "s.mp3")
    assert 1.5 < loaded.seconds < 2.5
    assert any("6.0 s" in notice for notice in loaded.notices)


def write_video(path: Path, with_sound: bool) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=48000) if with_sound else None
        if audio is not None:
            audio.layout = "mono"
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(video.encode(None))
        if audio is not None:
            for start in range(0, 48000, 1024):
                block = tone(1.0, 48000)[None, start : start + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48000, start
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def test_sound_of_a_video_is_accepted_and_a_mute_one_is_not(tmp_path):
    loaded = load_audio(write_video(tmp_path / "v.mp4", with_sound=True))
    assert loaded.seconds == pytest.approx(1.0, abs=0.001)
    assert likeness(loaded.waveform, tone(1.0)) > 0.98
    with pytest.raises(InputError, match="no audio track"):
        load_audio(write_video(tmp_path / "mute.mp4", with_sound=False))


def test_video_without_its_index(tmp_path):
    data = write_video(tmp_path / "v.mp4", with_sound=True).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not a readable"):
        load_audio(tmp_path / "cut.mp4")


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' "
        "mediaPresentationDuration='PT1S'><Period><AdaptationSet mimeType='audio/mp4'>"
        "<Representation id='1' bandwidth='1'><BaseURL>{target}</BaseURL><SegmentBase/>"
        "</Representation></AdaptationSet></Period></MPD>",
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "m3u8", "mpd"])
def test_playlists_open_nothing_else(tmp_path, playlist, suffix):
    secret = write_wav(tmp_path / "secret.wav", tone(1.0))
    before = secret.stat().st_atime_ns
    (tmp_path / f"s.{suffix}").write_text(playlist.format(target=secret))
    with pytest.raises(InputError, match="not a readable"):
        load_audio(tmp_path / f"s.{suffix}")
    assert secret.stat().st_atime_ns == before


class Watched:
    """A wav file of which the kernel reports every opening, by whichever library: inotify."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK)
        self._libc.inotify_add_watch(self._queue, os.fsencode(path), 0x20)  # IN_OPEN

    def was_opened(self) -> bool:
        try:
            return bool(os.read(self._queue, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._queue)


class Listener:
    """A server on this machine that nobody should call."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def was_called(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


PLAYLISTS = {
    "s.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{target}\n#EXT-X-ENDLIST\n",
    "s.ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "s.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "s.mpd": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' "
    "mediaPresentationDuration='PT1S'><Period><AdaptationSet mimeType='audio/mp4'><Representation id='1' "
    "bandwidth='1'><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
@pytest.mark.parametrize("where", ["file", "http"])
@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["", ".wav", ".mp4"])
def test_playlists_reach_no_other_file_and_no_socket(tmp_path, name, where, suffix):
    """Row 24, watched from outside: by the kernel for files, by the server that is named for sockets."""
    secret, server = Watched(write_wav(tmp_path / "secret.wav", tone(1.0))), Listener()
    try:
        target = secret.path if where == "file" else f"http://127.0.0.1:{server.port}/s.wav"
        path = tmp_path / (name + suffix)
        path.write_text(PLAYLISTS[name].format(target=target, port=server.port))
        for read in (load_audio, lambda p: list(iterate_soundtrack(p)), lambda p: read_video(p)):
            with pytest.raises(InputError):
                read(path)
        with pytest.raises(InputError):
            load_audio(f"http://127.0.0.1:{server.port}/s.wav")
        assert not secret.was_opened() and not server.was_called()
        if name == "s.ffconcat" and where == "file" and not suffix:
            # the watch works: what FFmpeg does when it is not kept from it
            with av.open(str(path), options={"safe": "0"}) as container:
                next(container.decode(audio=0))
            assert secret.was_opened()
    finally:
        secret.close()
        server.close()


def test_reading_a_playlist_opens_one_file_and_no_socket(tmp_path):
    """Row 24 again, from inside: Python's own audit events in a process that reads every playlist."""
    secret = write_wav(tmp_path / "secret.wav", tone(1.0))
    for name, text in PLAYLISTS.items():
        (tmp_path / name).write_text(text.format(target=secret, port=9))
    script = """
        import sys
        from vasa.errors import InputError
        from vasa.io.audio import load_audio
        seen = []
        watched = ("open", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "urllib.")
        sys.addaudithook(lambda event, given: seen.append((event, given[0])) if event.startswith(watched) else None)
        for path in [*sys.argv[1:], "http://127.0.0.1:9/s.wav"]:
            try:
                load_audio(path)
                print("accepted", path)
            except InputError:
                pass
        # importing on the way opens Python files and libraries of its own
        for event, what in seen:
            if event != "open" or not str(what).endswith((".py", ".pyc", ".so")):
                print(event, what)
    """
    names = [str(tmp_path / name) for name in PLAYLISTS]
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *names],
        text=True,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    assert sorted(set(child.stdout.splitlines())) == sorted(f"open {name}" for name in names)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_soundtrack_is_read_in_constant_memory(tmp_path, suffix):
    """Row 20: what the second half of a long file needs, the first half needed as well."""
    path, rate = tmp_path / f"s.{suffix}", 8000
    sound = np.tile(tone(1.0, rate), 240)
    write_wav(path, sound, rate) if suffix == "wav" else write_with(path, "flac", sound, rate, "s16")
    tracemalloc.start()
    try:
        samples, peaks = 0, []
        for block in iterate_soundtrack(path):
            samples += block.shape[1]
            if samples > (len(peaks) + 1) * 48000 * 120 - 48000:
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert samples == pytest.approx(240 * 48000, rel=1e-3)
    assert len(peaks) == 2 and peaks[1] < peaks[0] + 100_000 and max(peaks) < 2_000_000


def test_addresses_are_refused():
    for address in ("http://127.0.0.1:9/s.wav", "concat:a.wav|b.wav", "pipe:0"):
        with pytest.raises(InputError):
            load_audio(address)


@pytest.mark.parametrize(
    "name, codec", [("s.wav", None), ("s.mp3", "libmp3lame"), ("s.m4a", "aac"), ("s.flac", "flac")]
)
def test_mutated_files_give_only_typed_errors(tmp_path, name, codec):
    """Row 25, sound: a fixed-seed mutator."""
    path = tmp_path / name
    if codec is None:
        write_wav(path, tone(0.6))
    else:
        write_with(path, codec, tone(0.6, 48000), 48000, "fltp" if codec != "flac" else "s16")
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    for _ in range(80):
        data = whole.copy()
        spots = np.concatenate([random.integers(0, min(200, len(data)), 2), random.integers(0, len(data), 6)])
        data[spots] = random.integers(0, 256, len(spots))
        path.write_bytes(data[: random.integers(1, len(data) + 1)].tobytes())
        try:
            loaded = load_audio(path)
        except InputError:
            continue
        assert torch.isfinite(loaded.waveform).all() and loaded.waveform.abs().max() <= 1.0 + 1e-3


def test_soundtrack_starts_and_ends_with_the_waveform(tmp_path):
    path = write_wav(tmp_path / "s.wav", tone(1.2, 44100), 44100)
    blocks = list(iterate_soundtrack(path))
    assert all(block.shape[0] == 2 for block in blocks)
    assert sum(block.shape[1] for block in blocks) == pytest.approx(1.2 * 48000, abs=1)
    assert np.abs(np.concatenate(blocks, 1)).max() == pytest.approx(0.5, abs=0.01)
