"""Every node with the tiny model, as the executor without ComfyUI calls it, and what the nodes say about themselves."""

import ast
import json
import re
import wave
from pathlib import Path

import pytest
import torch
from vasa.nodes.audio import AudioFeatures, LoadSpeech
from vasa.nodes.controls import ControlsFromJSON, ControlSignals
from vasa.nodes.frames import DecodeFrames, DecodeVideo, Disentangle, PasteBack
from vasa.nodes.model import LoadModel
from vasa.nodes.motion import EditMotion, LoadDrivingVideo, LoadMotion, MotionDiffusion, MotionFromVideo, SaveMotion
from vasa.nodes.portrait import CropPortrait, EncodeFace, LoadPortrait

from vasa import Controls, InputError, Motion
from vasa.io import face as faces
from vasa.nodes import describe, extension, host, sockets

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
SCHEMAS = describe.schemas()
QUIET = dict(seed=0, steps=1, cfg_audio=0.5, cfg_gaze=1.0, cfg_distance=0.0, cfg_emotion=0.0, sampler="ddim")
SQUARE = dict(face_index=0, crop_x=0, crop_y=0, crop_size=512)


@pytest.fixture
def here(tmp_path):
    """A host with an input and an output folder, in charge for one test."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    one = host.Host(tmp_path / "in", tmp_path / "out")
    one.granted["tiny"] = TINY
    token = host.running.set(one)
    yield one
    host.running.reset(token)
    one.close()


@pytest.fixture(scope="module")
def model():
    one = host.Host()
    one.granted["tiny"] = TINY
    token = host.running.set(one)
    loaded = LoadModel.execute("tiny", "fp32")[0]
    host.running.reset(token)
    return loaded


@pytest.fixture(scope="module")
def face(model):
    return EncodeFace.execute(model, noise(1, 64, 64, 3))[0][0]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def speech(seconds, rate=16000, channels=1):
    t = torch.arange(round(seconds * rate)) / rate
    return {"waveform": (0.3 * torch.sin(2 * torch.pi * 150 * t)).expand(1, channels, -1), "sample_rate": rate}


def motion_of(model, face, seconds=0.4, **more):
    features = AudioFeatures.execute(model, speech(seconds), 0.0, 0.0)[0][0]
    return MotionDiffusion.execute(model, face, features, **(QUIET | more))[0]


# --- what the nodes say


@pytest.mark.parametrize("name", SCHEMAS)
def test_everything_has_a_tooltip_and_a_help_page(name):
    schema = SCHEMAS[name]
    assert [i.id for i in schema.inputs if not i.settings.get("tooltip")] == []
    assert [o.id for o in schema.outputs if not o.tooltip or not o.id] == []
    assert schema.category == "VASA" and schema.description and schema.search_aliases
    page = (ROOT / "web" / "docs" / f"{name}.md").read_text()
    assert page.startswith(f"# {schema.display_name}\n\n{schema.description}\n") and len(page) > 300
    told = {one.id: one.settings["tooltip"] for one in schema.inputs}
    listed = [f"- **{key}**: {tip}" for key, tip in told.items()] + [
        f"- **{o.id}**: {o.tooltip}" for o in schema.outputs
    ]
    assert [line for line in listed if line not in page.splitlines()] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_chinese_help_page_says_what_the_chinese_texts_say(name):
    """The editor asks for docs/NODE/zh.md before docs/NODE.md."""
    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text())[name]
    page = (ROOT / "web" / "docs" / name / "zh.md").read_text()
    assert page.startswith(f"# {chinese['display_name']}\n\n{chinese['description']}\n")
    ids = [o.id for o in SCHEMAS[name].outputs]
    listed = [f"- **{key}**（{said['name']}）：{said['tooltip']}" for key, said in chinese.get("inputs", {}).items()]
    listed += [f"- **{ids[int(i)]}**（{said['name']}）：{said['tooltip']}" for i, said in chinese["outputs"].items()]
    assert [line for line in listed if line not in page.splitlines()] == []
    own_words = page.split("## ")[0].removeprefix(f"# {chinese['display_name']}\n\n{chinese['description']}")
    assert len(re.findall("[\u4e00-\u9fff]", own_words)) > 30


def test_node_ids_are_literal_and_carry_the_packs_prefix():
    """ComfyUI-Manager finds nodes by reading the source: a class of base ComfyNode, Schema(node_id="literal")."""
    found = set()
    for path in (ROOT / "nodes").glob("*.py"):
        for cls in ast.walk(ast.parse(path.read_text())):
            if isinstance(cls, ast.ClassDef) and "ComfyNode" in {getattr(b, "attr", None) for b in cls.bases}:
                calls = [
                    c for c in ast.walk(cls) if isinstance(c, ast.Call) and getattr(c.func, "attr", "") == "Schema"
                ]
                found |= {k.value.value for c in calls for k in c.keywords if k.arg == "node_id"}
    assert found == set(SCHEMAS) and all(name.startswith("VASA_") for name in found)


def test_object_info_is_the_golden_one():
    """A renamed, moved or removed input breaks every shared workflow: widgets are only ever appended."""
    assert describe.object_info() == json.loads(describe.GOLDEN.read_text()), "python -m vasa.nodes.describe"


def test_english_texts_are_those_of_the_schema():
    assert describe.texts() == json.loads(describe.LOCALE.read_text()), "python -m vasa.nodes.describe"


def test_chinese_texts_cover_every_english_one():
    def keys(texts, path=()):
        return {k for n, v in texts.items() for k in (keys(v, (*path, n)) if isinstance(v, dict) else {(*path, n)})}

    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text())
    assert keys(chinese) == keys(describe.texts())
    plain = [texts["description"] for texts in chinese.values()]
    assert all(re.search("[\u4e00-\u9fff]", text) for text in plain)


def test_every_socket_type_has_a_colour():
    own = {one.io_type for one in vars(sockets).values() if getattr(one, "io_type", "").startswith("VASA_")}
    script = (ROOT / "web" / "vasa.js").read_text()
    assert own == set(re.findall(r"^  (VASA_\w+):", script, re.MULTILINE))


def test_nodes_import_only_the_engines_door_and_comfyui():
    allowed = {"__future__", "torch", "numpy", "av", "PIL", "comfy", "folder_paths", "comfy_api", "server", "aiohttp"}
    import sys

    for path in (ROOT / "nodes").glob("*.py"):
        tree = ast.parse(path.read_text())
        outside = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        outside |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert outside - allowed - set(sys.stdlib_module_names) == set(), path
        assert all(n.level == 1 for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level), path


def test_the_root_only_points_to_the_nodes():
    source = (ROOT / "__init__.py").read_text()
    assert "NODE_CLASS_MAPPINGS" not in source, "ComfyUI would then never call comfy_entrypoint"
    assert not [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]


# --- portraits


def test_a_sample_portrait_is_found_and_cropped(here, model):
    images, framing = LoadPortrait.execute("portrait.png [sample]", "face", **SQUARE).args
    assert images.shape == (1, 512, 512, 3) and framing.original.shape == (3, 640, 640)
    images, framing = LoadPortrait.execute("portrait.png [sample]", "manual", **(SQUARE | {"crop_x": 100}), model=model)
    assert images.shape == (1, 64, 64, 3) and (framing.crop.x, framing.crop.side) == (100, 512)


def test_crops_that_cannot_be_are_explained_in_the_nodes_words(here):
    with pytest.raises(InputError, match="set crop to manual.*or to none"):
        CropPortrait.execute(torch.full((1, 200, 200, 3), 0.5), "face", **SQUARE)
    with pytest.raises(InputError, match="square picture, got 300x200"):
        CropPortrait.execute(noise(1, 200, 300, 3), "none", **SQUARE)
    with pytest.raises(InputError, match="correct crop_x"):
        CropPortrait.execute(noise(1, 200, 200, 3), "manual", **(SQUARE | {"crop_x": 900}))


def test_a_batch_of_pictures_becomes_a_list_of_faces(here, model):
    images, framings = CropPortrait.execute(noise(3, 90, 120, 3), "center", **SQUARE, model=model).args
    assert images.shape == (3, 64, 64, 3) and len(framings) == 3
    faces = EncodeFace.execute(model, images)[0]
    assert len(faces) == 3 and not torch.equal(faces[0].picture, faces[1].picture)
    assert faces[0].latents.portrait.device.type == "cpu"


def test_grey_alpha_and_other_sizes_are_taken_as_portraits(here, model):
    for shape in ((1, 100, 100, 1), (1, 64, 64, 4)):
        assert EncodeFace.execute(model, noise(*shape))[0][0].picture.shape == (3, 64, 64)
    with pytest.raises(InputError, match="Crop Portrait"):
        EncodeFace.execute(model, noise(1, 64, 80, 3))


def test_a_missing_detector_names_its_remedy(here, monkeypatch):
    def absent(*_, **__):
        raise ModuleNotFoundError("no", name="skimage")

    monkeypatch.setattr(faces, "portrait_crop", absent)
    with pytest.raises(InputError, match="skimage.*requirements.txt.*manual"):
        CropPortrait.execute(noise(1, 200, 200, 3), "face", **SQUARE)


# --- sound


@pytest.mark.parametrize("seconds, rate, frames", [(1.0, 16000, 25), (1.0, 44100, 25), (0.52, 48000, 13)])
def test_frames_are_seconds_times_rate_rounded_up(here, model, seconds, rate, frames):
    (features,), (audio,), (count,), (fps,) = AudioFeatures.execute(model, speech(seconds, rate, 2), 0.0, 0.0).args
    assert (count, fps) == (frames, 25.0) and audio["sample_rate"] == rate
    assert features.waveform.shape == (round(seconds * 16000),) and audio["waveform"].shape[1] == 2


def test_one_sample_more_is_one_frame_more(here, model):
    sound = speech(1.0, 44100)
    longer = {**sound, "waveform": torch.nn.functional.pad(sound["waveform"], (0, 1))}
    (features,), _, (count,), _ = AudioFeatures.execute(model, longer, 0.0, 0.0).args
    assert count == 26 and len(features.waveform) == 16001


def test_start_and_duration_cut_sound_and_frames_alike(here, model):
    (features,), (audio,), (count,), _ = AudioFeatures.execute(model, speech(3.0), 0.5, 1.2).args
    assert count == 30 and audio["waveform"].shape == (1, 1, 19200) and len(features.waveform) == 19200
    with pytest.raises(InputError, match="start_time 5 s lies beyond"):
        AudioFeatures.execute(model, speech(3.0), 5.0, 0.0)


@pytest.mark.parametrize(
    "audio, message",
    [
        (None, "no audio track"),
        ({"samples": 1}, "waveform"),
        ({"waveform": torch.full((1, 1, 16000), torch.nan), "sample_rate": 16000}, "NaN"),
        ({"waveform": torch.zeros(1, 1, 100), "sample_rate": 16000}, "at least 0.2 s"),
    ],
    ids=["none", "foreign", "nan", "short"],
)
def test_sound_that_cannot_be_used_is_refused(here, model, audio, message):
    with pytest.raises(InputError, match=message):
        AudioFeatures.execute(model, audio, 0.0, 0.0)


def test_a_batch_of_sounds_becomes_a_list_of_speeches(here, model, face):
    clips = torch.cat([speech(0.4)["waveform"], 0.5 * speech(0.4)["waveform"].flip(-1)])
    both = {"waveform": clips, "sample_rate": 16000}
    features, audio, count, fps = AudioFeatures.execute(model, both, 0.0, 0.0).args
    assert (count, fps) == ([10, 10], [25.0, 25.0]) and not torch.equal(features[0].waveform, features[1].waveform)
    assert [torch.equal(one["waveform"][0], clip) for one, clip in zip(audio, clips, strict=True)] == [True, True]
    with pytest.raises(InputError, match="batch of 2; connect the audio of Audio Features"):
        DecodeVideo.execute(model, face, motion_of(model, face), 0, False, audio=both)


def test_the_sample_speech_is_loaded_whole(here):
    audio = LoadSpeech.execute("speech.wav [sample]")[0]
    with wave.open(str(ROOT / "examples" / "speech.wav")) as file:
        assert audio["sample_rate"] == file.getframerate() and audio["waveform"].shape[-1] == file.getnframes()


# --- controls


def signals(start=0.0, transition=0.4, previous=None, **wanted):
    neutral = dict(
        gaze_yaw=0.0, gaze_pitch=0.0, distance=1.0, emotion="neutral", emotion_strength=0.8, head_yaw=0.0,
        head_pitch=0.0, head_roll=0.0, head_motion=1.0, expression=1.0, mouth=1.0, blink_rate=-1.0, blink_at="",
    )  # fmt: skip
    return ControlSignals.execute(**(neutral | wanted), start_time=start, transition=transition, previous=previous)[0]


def test_neutral_signals_are_the_default_controls():
    assert signals() == Controls()


def test_signals_become_controls_in_radians():
    made = signals(gaze_yaw=10.0, emotion="happy", head_roll=-5.0, blink_rate=12.0, blink_at="1.2, 3", mouth=1.5)
    assert made.gaze[0] == pytest.approx(0.1745, abs=1e-4) and made.emotion == {"happy": 0.8}
    assert made.head_pose.offset[2] == pytest.approx(-0.0873, abs=1e-4) and made.mouth == 1.5
    assert (made.blink.rate, made.blink.at) == (12.0, (1.2, 3.0))


def test_a_chain_is_a_timeline():
    first = signals(gaze_yaw=20.0)
    second = signals(start=2.0, transition=1.0, previous=first, gaze_yaw=-20.0, distance=1.5)
    third = signals(start=4.0, transition=0.0, previous=second, emotion="sad", distance=1.5, gaze_yaw=-20.0)
    curves = third.curves(150)
    yaw = curves.gaze[:, 0].rad2deg()
    assert torch.allclose(yaw[:50], torch.tensor(20.0), atol=1e-3) and yaw[62].abs() < 2
    assert torch.allclose(yaw[75:], torch.tensor(-20.0), atol=1e-3)
    assert curves.distance[75:, 0].exp().tolist() == pytest.approx([1.5] * 75, abs=1e-3)
    assert curves.emotion[99, 2] == 0 and curves.emotion[101, 2] == pytest.approx(0.8)
    with pytest.raises(InputError, match="still change at 4 s"):
        signals(start=3.5, previous=third, emotion="happy", distance=1.5, gaze_yaw=-20.0)


def test_a_later_start_leaves_the_beginning_at_the_defaults():
    curves = signals(start=1.0, transition=0.0, distance=2.0).curves(50)
    assert curves.distance[:25].abs().max() == 0 and curves.distance[26:].exp().min() == pytest.approx(2.0)


def test_json_controls_are_read_and_refused():
    text = json.dumps(signals(gaze_yaw=5.0, start=1.0).to_json())
    assert ControlsFromJSON.execute(text)[0] == signals(gaze_yaw=5.0, start=1.0)
    assert "unknown key" in ControlsFromJSON.validate_inputs('{"gazing": 1}')
    assert "blink_at expects" in ControlSignals.validate_inputs("now")


# --- motion


def test_motion_has_the_exact_number_of_frames_and_obeys_the_seed(here, model, face):
    one, same, other = (motion_of(model, face, 1.0, seed=seed) for seed in (1, 1, 2))
    assert len(one) == 25 and one.fps == 25.0 and one.head_pose.device.type == "cpu"
    assert torch.equal(one.vectors, same.vectors) and not torch.equal(one.vectors, other.vectors)


def test_guidance_steps_and_controls_reach_the_generator(here, model, face):
    plain = motion_of(model, face).vectors
    for change in ({"cfg_audio": 3.0}, {"steps": 3}, {"controls": signals(head_yaw=20.0)}):
        assert not torch.equal(motion_of(model, face, **change).vectors, plain), change


def test_guidance_starts_where_the_command_line_does():
    usual = Controls().guidance
    for name in ("audio", "gaze", "distance", "emotion"):
        widget = SCHEMAS["VASA_MotionDiffusion"].input(f"cfg_{name}")
        assert widget.settings["default"] == usual.get(name, 0.0)


def test_progress_counts_denoising_steps(here, model, face):
    seen = []
    here.report = lambda title, done, total: seen.append((done, total))
    motion_of(model, face, 0.4, steps=3)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_stopped_diffusion_ends_at_the_next_step(here, model, face):
    def stop(title, done, total):
        if done == 2:
            raise KeyboardInterrupt
        assert done < 2

    here.report = stop
    with pytest.raises(KeyboardInterrupt):
        motion_of(model, face, 0.4, steps=9)


def test_a_motion_of_another_portrait_is_appended_with_its_gaze(here, model, face):
    """The eyes turn back by what the head is turned on the first one's shoulders."""
    from dataclasses import replace

    from vasa.latents import DYNAMICS
    from vasa.motion.edit import splice

    motion = motion_of(model, face)
    other = replace(motion, rest=motion.rest + torch.tensor([0.2, 0.1, 0, 0, 0, 0]))
    joined = EditMotion.execute(motion, 1.0, 0.0, 0, 0, append=other)[0]
    assert torch.equal(joined.vectors, splice(motion, other, 0, DYNAMICS).vectors)
    assert not torch.equal(joined.vectors, splice(motion, other, 0).vectors)


def test_chained_clips_join_without_a_jump(here, model, face):
    """Two clips in a graph: the second goes on from the first, and Edit Motion puts them behind one another."""
    first = motion_of(model, face, 1.0)
    second = motion_of(model, face, 1.0, seed=1, previous_motion=first)
    plain = dict(speed=1.0, smooth_head=0.0, loop=0, overlap=0)
    both = EditMotion.execute(first, **plain, append=second)[0]
    assert len(second) == 25 and torch.equal(both.vectors, torch.cat([first.vectors, second.vectors]))
    steps = both.head_pose.diff(dim=0).abs()
    assert (steps[24] < steps.amax(0)).all(), "the step between the clips is like any other"
    again = motion_of(model, face, 1.0, seed=1, previous_motion=first)
    assert torch.equal(again.vectors, second.vectors) and second.head_pose.device.type == "cpu"
    assert not torch.equal(motion_of(model, face, 1.0, seed=1).vectors, second.vectors)


def test_a_previous_motion_of_another_model_is_refused(here, model, face):
    from dataclasses import replace

    other = replace(motion_of(model, face), backend="other")
    with pytest.raises(InputError, match="made for the backend 'other', the model is 'vasa'"):
        motion_of(model, face, previous_motion=other)


def test_a_motion_is_saved_and_loaded_again(here, model, face):
    motion = motion_of(model, face)
    SaveMotion.execute(motion, "motion/talk")
    (path,) = here.saved
    assert path == here.outputs / "motion" / "talk_00001_.safetensors"
    (name,) = here.output_files((".safetensors",))
    assert name == "motion/talk_00001_.safetensors [output]"
    again = LoadMotion.execute(name)[0]
    assert torch.equal(again.vectors, motion.vectors) and torch.equal(again.rest, motion.rest)
    SaveMotion.execute(motion, "motion/talk")
    assert here.saved[1].name == "talk_00002_.safetensors"


def test_motion_is_edited(here, model, face):
    motion, other = motion_of(model, face, 1.0), motion_of(model, face, 2.0, seed=5)
    plain = dict(speed=1.0, smooth_head=0.0, loop=0, overlap=5)
    assert torch.equal(EditMotion.execute(motion, **plain)[0].vectors, motion.vectors)
    assert len(EditMotion.execute(motion, **(plain | {"speed": 2.0}))[0]) == 13
    assert len(EditMotion.execute(motion, **(plain | {"loop": 3}))[0]) == 60
    assert len(EditMotion.execute(motion, **plain, append=other)[0]) == 70
    swapped = EditMotion.execute(motion, **plain, pose_from=other)[0]
    assert torch.equal(swapped.facial_dynamics, motion.facial_dynamics)
    assert torch.equal(swapped.head_pose, other.head_pose[:25])
    calm = EditMotion.execute(motion, **(plain | {"smooth_head": 0.4}))[0]
    assert calm.head_pose.diff(dim=0).abs().mean() < motion.head_pose.diff(dim=0).abs().mean()


# --- frames


def test_frames_fill_a_batch_of_images(here, model, face):
    motion = motion_of(model, face, 0.5)
    seen = []
    here.report = lambda title, done, total: seen.append(done)
    frames, fps = DecodeFrames.execute(model, face, motion, 5, False).args
    assert frames.shape == (13, 64, 64, 3) and fps == 25.0 and seen == [5, 10, 13]
    assert 0 <= frames.min() and frames.max() <= 1
    one, _ = DecodeFrames.execute(model, face, motion, 1, False).args
    assert torch.allclose(frames, one, atol=1e-5)


def test_frames_are_marked_unless_the_user_says_no(here, model, face):
    from vasa.io.video import read_manifest

    motion = motion_of(model, face)
    plain, marked = (DecodeFrames.execute(model, face, motion, 0, mark)[0] for mark in (False, True))
    assert 0 < (plain - marked).abs().mean() < 0.02
    for mark in (False, True):
        video = DecodeVideo.execute(model, face, motion, 0, mark)[0]
        manifest = read_manifest(video.get_stream_source())
        assert manifest.get("mark", False) is mark and manifest["model"] == "tiny"


def test_on_a_cpu_frames_are_decoded_one_by_one_so_that_stop_is_quick(model):
    assert model.batch_size(0) == 1 and model.batch_size(4) == 4


def test_frames_that_are_no_numbers_name_their_remedy(here, model, face, monkeypatch):
    monkeypatch.setattr(model.engine, "decode", lambda *_, **__: iter([torch.full((1, 3, 64, 64), torch.nan)]))
    with pytest.raises(InputError, match="choose precision fp32"):
        DecodeFrames.execute(model, face, Motion(torch.zeros(1, 6), torch.zeros(1, 59)), 1, False)


def test_faces_and_motions_of_another_engine_are_refused(here, model, face):
    from dataclasses import replace

    motion = motion_of(model, face)
    with pytest.raises(InputError, match="encoded by the engine 'other'"):
        DecodeFrames.execute(model, replace(face, backend="other"), motion, 1, False)
    with pytest.raises(InputError, match="'other'"):
        DecodeFrames.execute(model, face, replace(motion, backend="other"), 1, False)


def test_a_motion_is_shown_on_another_face_as_its_engine_adopts_it(here, model, face, monkeypatch):
    motion, seen = motion_of(model, face), []
    adopted = model.engine.adopted
    monkeypatch.setattr(model.engine, "adopted", lambda *given: seen.append(adopted(*given)) or seen[-1])
    decode = model.engine.decode
    monkeypatch.setattr(model.engine, "decode", lambda f, m, **more: seen.append(m) or decode(f, m, **more))
    other = EncodeFace.execute(model, noise(1, 64, 64, 3, seed=8))[0][0]
    DecodeFrames.execute(model, other, motion, 0, False)
    assert seen[0] is seen[1] and torch.equal(seen[0].rest, other.latents.head_pose[0])


def test_a_video_is_written_frame_by_frame(here, model, face):
    from vasa.io.video import read_video

    motion = motion_of(model, face, 0.5)
    video = DecodeVideo.execute(model, face, motion, 0, False, audio=speech(0.5))[0]
    opened = read_video(video.get_stream_source())
    assert len(list(opened.frames)) == 13 and opened.fps == 25 and opened.audio.seconds == pytest.approx(0.52, abs=0.05)
    silent = DecodeVideo.execute(model, face, motion, 0, False)[0]
    assert read_video(silent.get_stream_source()).audio is None


def test_frames_go_back_into_the_whole_picture(here, model):
    picture = noise(1, 201, 261, 3)
    square = SQUARE | {"crop_x": 40, "crop_y": 20, "crop_size": 120}
    images, framings = CropPortrait.execute(picture, "manual", **square, model=model).args
    face = EncodeFace.execute(model, images)[0][0]
    motion = motion_of(model, face)
    frames, _ = DecodeFrames.execute(model, face, motion, 0, False).args
    pasted = PasteBack.execute(frames, framings[0], True, 0.04)[0]
    assert pasted.shape == (10, 201, 261, 3)
    assert torch.equal(pasted[:, :, 200:], picture[:, :, 200:].expand(10, -1, -1, -1)), "outside: every pixel as it was"
    assert not torch.equal(pasted[5, 20:140, 40:160], picture[0, 20:140, 40:160])
    video = DecodeVideo.execute(model, face, motion, 0, False, crop=framings[0])[0]
    assert video.get_components()[0].shape == (10, 200, 260, 3)


def test_one_motion_on_several_faces_is_a_grid(here, model):
    faces = EncodeFace.execute(model, noise(2, 64, 64, 3))[0]
    third = EncodeFace.execute(model, noise(1, 64, 64, 3, seed=9))[0]
    motion = motion_of(model, faces[0])
    row = dict(model=[model], motion=[motion], rows=["motion"], show_portraits=[False], batch_size=[0])
    row |= {"mark": [False]}
    grid, fps = Disentangle.execute(**row, faces=faces, faces_2=third).args
    assert grid.shape == (10, 64, 192, 3) and fps == 25.0
    alone, _ = DecodeFrames.execute(model, third[0], motion, 0, False).args
    assert torch.allclose(grid[:, :, 128:], alone, atol=1e-5), "each column is what Decode Frames gives for its face"
    rows = row | {"rows": ["motion, head pose only, face only"], "show_portraits": [True]}
    grid, _ = Disentangle.execute(**rows, faces=faces).args
    assert grid.shape == (10, 256, 128, 3)
    assert torch.allclose(grid[3, :64, :64], faces[0].picture.movedim(0, -1))


def test_a_video_drives_a_face(here, model, tmp_path):
    from vasa.nodes.core_video import VideoFromFile

    from vasa.io.image import load_image
    from vasa.io.video import VideoWriter

    picture = load_image(ROOT / "examples" / "portrait.png").pixels[:, ::2, ::2]
    with VideoWriter(tmp_path / "driver.mp4", (320, 320), 25) as writer:
        for shift in range(5):
            writer.write(picture.roll(shift, 2))
    motion, audio = MotionFromVideo.execute(model, VideoFromFile(tmp_path / "driver.mp4"), True).args
    assert len(motion) == 5 and motion.fps == 25.0 and motion.rest is not None and audio is None


def test_a_grid_is_marked_like_any_other_video(here, model, face):
    from vasa.provenance import mark as marked

    given = dict(
        model=[model], motion=[motion_of(model, face)], faces=[face, face], rows=["motion"], show_portraits=[True],
        batch_size=[4],
    )  # fmt: skip
    plain = Disentangle.execute(**given, mark=[False])[0]
    for choice in ({}, {"mark": [True]}):
        grid = Disentangle.execute(**given, **choice)[0]
        assert torch.equal(grid[:, :64], plain[:, :64]), "the portraits are the user's own"
        laid = (grid - plain)[:, 64:]
        whole = (marked(plain.movedim(-1, 1)).movedim(1, -1) - plain)[:, 64:]
        assert torch.corrcoef(torch.stack([laid.flatten(), whole.flatten()]))[0, 1] > 0.95, "one pattern for the grid"


def test_a_timeline_goes_on_from_json():
    (before,) = ControlsFromJSON.execute('{"version": 1, "steps": 9, "emotion": {"happy": 0.5, "sad": 0.2}}').args
    after = signals(start=1.0, transition=0.0, previous=before, gaze_yaw=10.0, emotion="angry")
    curves = after.curves(50)
    assert curves.emotion[24, [1, 2, 3]].tolist() == pytest.approx([0.5, 0.2, 0.0])
    assert curves.emotion[30, 3] == pytest.approx(0.8) and curves.gaze[24, 0] == 0 != curves.gaze[30, 0]


# --- stop


def everything_that_takes_time(model, face, folder):
    """Name -> (work, steps until it may end)."""
    from vasa.nodes.core_video import VideoFromFile

    from vasa.io.image import load_image
    from vasa.io.video import VideoWriter

    with VideoWriter(folder / "driver.mp4", (320, 320), 25) as writer:
        picture = load_image(ROOT / "examples" / "portrait.png").pixels[:, ::2, ::2]
        for _ in range(20):
            writer.write(picture)
    motion, pictures = motion_of(model, face), noise(3, 64, 64, 3)
    framing = CropPortrait.execute(pictures[:1], "center", **SQUARE, model=model)[1][0]
    faces = dict(model=[model], motion=[motion], faces=[face, face], rows=["motion"], show_portraits=[False])
    return {
        "diffusion": (lambda: motion_of(model, face, steps=9), 1),
        "encoding": (lambda: EncodeFace.execute(model, pictures), 1),
        "cropping": (lambda: CropPortrait.execute(pictures, "center", **SQUARE, model=model), 1),
        "frames": (lambda: DecodeFrames.execute(model, face, motion, 0, True), 1),
        "video": (lambda: DecodeVideo.execute(model, face, motion, 0, True), 1),
        "pasted video": (lambda: DecodeVideo.execute(model, face, motion, 0, True, crop=framing), 1),
        "grid": (lambda: Disentangle.execute(**faces, batch_size=[0]), 1),
        "pasting": (lambda: PasteBack.execute(pictures, framing, False, 0.04), 1),
        "driver": (lambda: MotionFromVideo.execute(model, VideoFromFile(folder / "driver.mp4"), True), 1),
    }


def test_stop_is_obeyed_everywhere_within_one_step_or_frame(here, model, face, tmp_path):
    for name, (work, step) in everything_that_takes_time(model, face, tmp_path).items():
        told = []

        def stop(title, done, total, told=told, step=step, name=name):
            assert not told, f"{name} went on"
            if done:
                told.append(done)
                raise KeyboardInterrupt
            assert total > step, name

        here.report = stop
        with pytest.raises(KeyboardInterrupt):
            work()
        assert told == [step], name


# --- files that a workflow names


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "C:secret.png", "x\0.png", ".",
     "../secret.png [sample]", "../secret.png [output]"],
)  # fmt: skip
def test_names_that_leave_their_folder_are_refused(here, name):
    (here.inputs.parent / "secret.png").write_bytes(b"secret")
    with pytest.raises(InputError, match="leads out of its folder"):
        here.input_path(name)
    for node in (LoadPortrait, LoadSpeech, LoadMotion, LoadDrivingVideo):
        assert "leads out" in node.validate_inputs(name), node
    if not name.endswith("]"):
        with pytest.raises(InputError, match="leads out of its folder"):
            here.output_path(name, ".mp4")


def test_a_link_that_the_owner_put_into_the_input_folder_may_be_followed(here, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"x")
    (here.inputs / "linked").symlink_to(tmp_path / "elsewhere")
    assert here.input_path("linked/a.png").read_bytes() == b"x"


def test_a_model_is_one_of_the_list(here):
    with pytest.raises(InputError, match="there is no model '../tiny'"):
        LoadModel.execute("../tiny", "auto")


def test_all_nodes_are_registered():
    assert [cls.GET_SCHEMA().node_id for cls in extension.NODES] == list(SCHEMAS)
