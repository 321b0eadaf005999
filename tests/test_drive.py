"""Motion from video: a head is followed exactly, faults are named, and drivers share one face."""

import math
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import vasa.track
from vasa import Vasa
from vasa.cli import main
from vasa.drive import PARTS, blend, drive, motion_from_video, motion_of, part_of, resting_face
from vasa.errors import InputError
from vasa.geometry import AVERAGE_LOG_SCALE
from vasa.io.driving import open_driving_video
from vasa.io.face import Crop, FaceBox
from vasa.io.video import VideoWriter, read_manifest, read_video
from vasa.latents import DYNAMICS, Motion
from vasa.motion_file import load_motion
from vasa.track import track

TINY = Path(__file__).parent / "data" / "tiny"
WIDTH, HEIGHT, HEAD = 320, 240, 80
"""The film, and the edge of the square that frames its red disc at the average scale, pixels."""


# --- a head that is a red disc, and an engine that reads it


def film(centre: torch.Tensor, edge: torch.Tensor, there: torch.Tensor | None = None) -> list:
    """(time, uint8 picture) of a disc at `centre` [N, 2] whose framing square has edges `edge` [N]."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    frames = []
    for i in range(len(centre)):
        inside = torch.hypot(x - centre[i, 0], y - centre[i, 1]) < edge[i] / 5
        picture = torch.full((3, HEIGHT, WIDTH), 60, dtype=torch.uint8)
        if there is None or there[i]:
            picture[0][inside] = 250
        frames.append((i / 25, picture))
    return frames


def disc(picture: torch.Tensor) -> tuple[float, float, float] | None:
    """Centre and framing edge of the disc in a picture in [0, 1], pixels."""
    red = ((picture[0] - 0.3) / 0.68).clamp(0, 1)
    if red.sum() < 4:
        return None
    y, x = torch.meshgrid(torch.arange(red.shape[0]) + 0.5, torch.arange(red.shape[1]) + 0.5, indexing="ij")
    return (
        float((red * x).sum() / red.sum()),
        float((red * y).sum() / red.sum()),
        5 * math.sqrt(float(red.sum()) / math.pi),
    )


class DiscReader:
    """Reads place and size of the disc as head pose; nonsense where there is none."""

    size, fps = 64, 25.0

    def read_motion(self, crops: torch.Tensor) -> Motion:
        poses = []
        for n, crop in enumerate(crops):
            seen = disc(crop)
            x, y, edge = seen or (10.0 + 40 * (n % 2), 32.0, 64.0)
            poses.append([0, 0, 0, 2 * x / 64 - 1, 2 * y / 64 - 1, math.log(edge / 64) + AVERAGE_LOG_SCALE])
        return Motion(torch.tensor(poses), torch.zeros(len(poses), len(DYNAMICS)))

    def read_pose(self, picture: torch.Tensor) -> torch.Tensor:
        return self.read_motion(picture[None]).head_pose[0]


@pytest.fixture
def finder(monkeypatch):
    """A detector of discs in place of the one of faces."""

    def find_faces(picture):
        seen = disc(picture)
        return [FaceBox(seen[0] - 20, seen[1] - 20, 40)] if seen else []

    def portrait_crop(picture, crop, face, size, refine):
        seen = disc(picture)
        if seen is None:
            raise InputError("no face")
        x, y, edge = seen
        return Crop(picture, x - edge / 2, y - edge / 2, edge)

    monkeypatch.setattr(vasa.track, "find_faces", find_faces)
    monkeypatch.setattr(vasa.track, "portrait_crop", portrait_crop)


def where(centre: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """(t_x, t_y, log_s) in the frame of the first square."""
    t = (centre - centre[0]) * 2 / HEAD
    return torch.cat([t, (edge / HEAD).log()[:, None] + AVERAGE_LOG_SCALE], dim=1)


def test_a_head_that_crosses_the_picture_is_followed_in_one_frame(finder):
    """It leaves the first square altogether; the poses are those of a camera that never moved."""
    t = torch.linspace(0, 1, 100)
    centre = torch.stack([60 + 200 * t, 100 + 30 * torch.sin(6 * t)], dim=1)
    edge = HEAD * (1 + 0.3 * t)
    seen = track(film(centre, edge), DiscReader())
    assert seen.lost == [] and len(seen.times) == 100 and seen.duration == pytest.approx(4.0)
    error = (seen.motion.head_pose[:, 3:] - where(centre, edge)).abs()
    assert error[:, :2].max() < 0.04 and error[:, 2].max() < 0.06


def test_a_head_that_moves_a_little_keeps_its_square(finder):
    centre = torch.tensor([[160.0, 120.0]]).repeat(50, 1)
    centre[:, 0] += 3 * torch.sin(torch.arange(50) / 4)
    squares = []

    class Watching(DiscReader):
        def read_motion(self, crops):
            squares.append(crops.shape)
            return super().read_motion(crops)

    seen = track(film(centre, torch.full((50,), float(HEAD))), Watching())
    moved = seen.motion.head_pose[:, 3]
    assert torch.allclose(moved, where(centre, torch.full((50,), float(HEAD)))[:, 0], atol=0.03)
    assert len(squares) == 7, "one reading a batch"


def test_a_head_out_of_sight_is_waited_for(finder):
    there = torch.ones(150, dtype=torch.bool)
    there[50:100] = False
    centre = torch.tensor([[160.0, 120.0]]).repeat(150, 1)
    centre[100:] += 30
    seen = track(film(centre, torch.full((150,), float(HEAD)), there), DiscReader())
    (gap,) = seen.lost
    assert 1.4 < gap[0] <= 2.1 and 4.0 <= gap[1] < 4.6
    assert not ((seen.times > 2.02) & (seen.times < 3.98)).any()
    motion = motion_of(seen, 25.0, (), relative=True)
    assert len(motion) == 150 and torch.isfinite(motion.vectors).all()
    assert motion.head_pose[-1, 3] - motion.head_pose[0, 3] == pytest.approx(60 / HEAD, abs=0.05)


def test_a_face_that_comes_late_is_found(finder):
    there = torch.arange(60) >= 30
    seen = track(
        film(torch.tensor([[160.0, 120.0]]).repeat(60, 1), torch.full((60,), float(HEAD)), there), DiscReader()
    )
    assert seen.lost[0][0] == 0 and 1.2 <= float(seen.times[0]) < 1.8
    assert len(motion_of(seen, 25.0, (), relative=True)) == 60


def test_no_face_at_all_is_said(finder):
    nobody = film(torch.zeros(40, 2), torch.ones(40), torch.zeros(40))
    with pytest.raises(InputError, match="no face was found in the driving video"):
        track(nobody, DiscReader())


# --- what the tracked motion means


def seen_by_eye(dynamics: torch.Tensor) -> vasa.track.Tracked:
    pose = torch.tensor([0.2, 0.1, 0, 0.05, 0, AVERAGE_LOG_SCALE]).repeat(len(dynamics), 1)
    return vasa.track.Tracked(torch.arange(len(dynamics)) / 25.0, Motion(pose, dynamics), len(dynamics) / 25)


def test_relative_motion_is_about_the_first_frame():
    dynamics = torch.zeros(50, len(DYNAMICS))
    relative, absolute = (motion_of(seen_by_eye(dynamics), 25.0, DYNAMICS, r) for r in (True, False))
    assert torch.allclose(relative.rest, relative.head_pose[0]) and absolute.rest is None


def test_a_mouth_open_at_first_does_not_hold_the_rest_back():
    dynamics = torch.zeros(100, len(DYNAMICS))
    jaw, brow, eye = (DYNAMICS.index(n) for n in ("jawOpen", "browDown_L", "eyeYaw"))
    dynamics[:, jaw] = (torch.arange(100) / 3).cos().abs()
    dynamics[:, brow], dynamics[:, eye] = 0.3, 0.1
    rest = resting_face(dynamics, DYNAMICS)
    assert dynamics[0, jaw] == 1 and rest[jaw] < 0.1
    assert rest[brow] == pytest.approx(0.3) and rest[eye] == 0
    assert resting_face(dynamics, ()).abs().max() == 0


def test_motion_has_the_engines_rate_whatever_the_films():
    jaw = DYNAMICS.index("jawOpen")
    times = torch.tensor([0.0, 0.03, 0.11, 0.2, 0.5, 0.98], dtype=torch.float64)  # a rate that wanders
    dynamics = torch.zeros(6, len(DYNAMICS))
    dynamics[:, jaw] = times.float()
    pose = torch.zeros(6, 6)
    motion = motion_of(vasa.track.Tracked(times, Motion(pose, dynamics), 1.0), 25.0, DYNAMICS, relative=False)
    assert len(motion) == 25
    assert torch.allclose(motion.facial_dynamics[2:-2, jaw], torch.arange(2, 23) / 25, atol=1e-3)


# --- several drivers


def test_every_channel_belongs_to_one_part():
    parts = {part: [name for name in DYNAMICS if part_of(name) == part] for part in PARTS[1:]}
    assert sum(map(len, parts.values())) == len(DYNAMICS)
    assert {"eyeYaw", "eyeLookUp_L"} <= set(parts["gaze"]) and {"eyeBlink_L", "browDown_R"} <= set(parts["face"])
    assert {"jawOpen", "mouthSmile_L", "cheekPuff_R"} <= set(parts["mouth"])


@pytest.mark.parametrize("parts", [("head",), ("gaze", "face"), ("head", "gaze", "face"), PARTS], ids="+".join)
def test_a_blend_takes_each_part_from_its_driver(parts):
    rest = torch.zeros(6)
    speech = Motion(torch.zeros(30, 6), torch.zeros(30, 59), rest=rest)
    video = Motion(torch.ones(30, 6) * 0.1, torch.ones(30, 59), rest=rest)
    mixed = blend(speech, video, parts, DYNAMICS)
    assert bool((mixed.head_pose != 0).all()) == ("head" in parts)
    for channel, name in enumerate(DYNAMICS):
        assert float(mixed.facial_dynamics[3, channel]) == float(part_of(name) in parts), name


def test_a_blend_is_as_long_as_the_speech():
    speech = Motion(torch.zeros(70, 6), torch.zeros(70, 59))
    assert len(blend(speech, speech[:20], ("head",), DYNAMICS)) == 70
    fast = replace(speech, fps=50.0)
    assert len(blend(speech, fast, ("head",), DYNAMICS)) == 70


def test_parts_need_names_and_must_exist():
    motion = Motion(torch.zeros(4, 6), torch.zeros(4, 128))
    with pytest.raises(InputError, match="no names"):
        blend(motion, motion, ("gaze",), ())
    assert len(blend(motion, motion, ("head",), ())) == 4
    with pytest.raises(InputError, match="unknown part 'ears'"):
        blend(motion, motion, ("ears",), ())


# --- files


@pytest.fixture(scope="module")
def pipe():
    return Vasa.from_pretrained(TINY, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A portrait, speech, and films with and without sound."""
    folder = tmp_path_factory.mktemp("drive")
    blocks = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(folder / "p.png")
    sound = 0.3 * torch.sin(torch.arange(16000) / 16000 * 2 * torch.pi * 200)
    with wave.open(str(folder / "s.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound[:9600] * 32767).short().numpy().tobytes())
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)).repeat(25, 1, 1, 1)
    frames = torch.nn.functional.interpolate(pictures, scale_factor=6)
    for name, audio in (("talk.mp4", (sound, 16000)), ("mute.mp4", None)):
        with VideoWriter(folder / name, 96, 25, audio) as writer:
            writer.write(frames)
    return folder


def test_driving_carries_the_sound_over(pipe, files):
    result = drive(files / "p.png", files / "talk.mp4", files / "o.mp4", model=pipe, crop="none", driver_crop="none",
                   save_motion_to=files / "o.safetensors")  # fmt: skip
    shown = read_video(files / "o.mp4")
    assert result.frames == 25 and sum(1 for _ in shown.frames) == 25
    assert shown.audio is not None and shown.audio.seconds == pytest.approx(1.0, abs=0.03)
    assert shown.audio.waveform.abs().max() > 0.1
    assert len(load_motion(files / "o.safetensors")) == 25
    assert read_manifest(files / "o.mp4")["driver"] == {"relative": True}


def test_a_mute_driver_gives_a_mute_video(pipe, files):
    drive(files / "p.png", files / "mute.mp4", files / "m.mp4", model=pipe, crop="none", driver_crop="none")
    assert read_video(files / "m.mp4").audio is None


def test_relative_motion_starts_from_the_portraits_own_pose(pipe, files):
    relative, absolute = (motion_from_video(pipe, files / "mute.mp4", r, crop="none") for r in (True, False))
    assert torch.allclose(relative.rest, relative.head_pose[0]) and absolute.rest is None
    assert torch.equal(relative.head_pose, absolute.head_pose) and len(relative) == 25 and relative.fps == 25


def test_speech_and_video_share_the_face(pipe, files):
    result = drive(files / "p.png", files / "talk.mp4", files / "b.mp4", model=pipe, crop="none", driver_crop="none",
                   speech=files / "s.wav", from_video=("head",))  # fmt: skip
    manifest = read_manifest(files / "b.mp4")
    assert result.frames == 15, "as long as the speech"
    assert manifest["driver"]["parts"] == ["head"] and "controls" in manifest
    assert read_video(files / "b.mp4").audio.seconds == pytest.approx(0.6, abs=0.03)


def test_progress_tells_stages_and_can_cancel(pipe, files):
    told = []
    result = drive(files / "p.png", files / "mute.mp4", files / "m.mp4", model=pipe, crop="none", driver_crop="none",
                   progress=lambda *now: told.append(now))  # fmt: skip
    assert {stage for stage, _, _ in told} == {"tracking", "frames"} and all(done <= total for _, done, total in told)
    tracked = [done for stage, done, _ in told if stage == "tracking"]
    assert tracked == list(range(1, result.frames + 1)), "it can be stopped after every frame"

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(files / "p.png", files / "mute.mp4", files / "never.mp4", model=pipe, crop="none", progress=stop,
              driver_crop="none")  # fmt: skip
    assert not (files / "never.mp4").exists()


def faulty(folder: Path, kind: str) -> Path:
    path = folder / f"{kind.replace(' ', '-')}.mp4"
    match kind:
        case "only sound":
            return folder / "s.wav"
        case "damaged":
            data = bytearray((folder / "talk.mp4").read_bytes())
            start = data.index(b"mdat") + 8
            data[start : start + 4000] = bytes(4000)
            path.write_bytes(data)
        case "no video":
            path.write_bytes(b"not a film" * 100)
        case "no face":
            return folder / "mute.mp4"
    return path


@pytest.mark.parametrize(
    "kind, words",
    [
        ("only sound", "no picture track"),
        ("damaged", "damaged or truncated"),
        ("no video", "not a readable"),
        ("missing", "does not exist"),
        ("no face", "no face was found in the driving video"),
    ],
)
def test_what_cannot_drive_ends_in_one_sentence(files, capsys, kind, words):
    out = files / "fault.mp4"
    given = [files / "p.png", faulty(files, kind), "-o", out, "--crop", "none", "--model", TINY]
    assert main(["drive", *map(str, given)]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == "" and not out.exists()


def test_a_film_that_breaks_off_is_used_as_far_as_it_goes(tmp_path, files, pipe):
    with VideoWriter(tmp_path / "long.mp4", 64, 10) as writer:
        writer.write(torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    data = (tmp_path / "long.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    notices = []
    motion = motion_from_video(pipe, tmp_path / "cut.mp4", crop="none", notices=notices)
    assert 20 < len(motion) < 80 and "cut.mp4 is truncated: it says 4.0 s" in notices[0]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--from-video", "head,ears"], "'ears'"),
        (["--controls", "c.json"], "--speech"),
        (["--driver-face", "-1"], "between 0"),
        (["--save-motion", "m.txt"], ".safetensors"),
    ],
)
def test_options_that_make_no_sense(files, capsys, options, words):
    given = [files / "p.png", files / "mute.mp4", "-o", files / "x.mp4", "--model", TINY, *options]
    assert main(["drive", *map(str, given)]) == 2
    assert words in capsys.readouterr().err


def test_frames_come_with_their_times_and_not_too_fast(tmp_path):
    with VideoWriter(tmp_path / "fast.mp4", 64, 60) as writer:
        writer.write(torch.rand(30, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    times = [time for time, _ in open_driving_video(tmp_path / "fast.mp4").frames]
    assert times == pytest.approx([i / 30 for i in range(15)], abs=1e-3)


def test_a_rate_that_wanders_is_taken_from_the_file(tmp_path):
    instants = [0, 40, 80, 200, 240, 600]
    with av.open(str(tmp_path / "phone.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for instant in instants:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), instant % 250, np.uint8), format="rgb24")
            frame.pts, frame.time_base = instant, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    times = [time for time, _ in open_driving_video(tmp_path / "phone.mp4").frames]
    assert times == pytest.approx([i / 1000 for i in instants], abs=2e-3)


def test_turned_pictures_are_put_upright(monkeypatch):
    from vasa.io import driving

    class Frame:
        width, height, rotation = 4, 2, 90

        def reformat(self, **_):
            return self

        def to_ndarray(self):
            pixels = np.zeros((2, 4, 3), np.uint8)
            pixels[0, 3] = 200  # top right; a quarter turn anticlockwise brings it to the top left
            return pixels

    picture = driving._picture(Frame())
    assert picture.shape == (3, 4, 2) and picture[0, 0, 0] == 200
