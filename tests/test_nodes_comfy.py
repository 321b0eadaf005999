"""The pack as ComfyUI loads it: a folder of any name, imported by path, against a stand-in for ComfyUI's modules."""

import asyncio
import importlib.util
import os
import sys
import types
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vasa.audio import AudioEncoder
from vasa.config import TINY as TINY_CONFIG
from vasa.nodes import core_video, describe, schema

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
NAME = "/somewhere/custom_nodes/any_x_name"


class Interrupted(BaseException):
    """What ComfyUI raises when the user presses Stop: no Exception, so that nothing swallows it."""


class Patcher:
    """A ModelPatcher that remembers what it was given."""

    def __init__(self, model, load_device, offload_device):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        return extra_memory


class Comfy:
    """Folders and switches of the stand-in, and what the pack did with them."""

    def __init__(self, base):
        self.base, self.stopped, self.loaded, self.bars = base, False, [], []
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.routes = {}
        for name in ("input", "output", "temp", "models"):
            (base / name).mkdir()

    def modules(self):
        paths = types.ModuleType("folder_paths")
        paths.models_dir = str(self.base / "models")
        paths.folder_names_and_paths = {}
        for kind in ("input", "output", "temp"):
            setattr(paths, f"get_{kind}_directory", lambda kind=kind: str(self.base / kind))

        def add_model_folder_path(name, path):
            paths.folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)

        def annotated_filepath(name):
            for kind in ("input", "output", "temp"):
                if name.endswith(f" [{kind}]"):
                    return name[: -len(kind) - 3], str(self.base / kind)
            return name, None

        paths.add_model_folder_path, paths.annotated_filepath = add_model_folder_path, annotated_filepath
        paths.get_folder_paths = lambda name: paths.folder_names_and_paths[name][0]

        management = types.ModuleType("comfy.model_management")
        management.get_torch_device = lambda: self.device
        management.unet_offload_device = lambda: torch.device("cpu")
        management.intermediate_device = lambda: torch.device("cpu")
        management.intermediate_dtype = lambda: self.dtype
        management.unet_dtype = lambda device, parameters, supported_dtypes: supported_dtypes[0]
        management.load_models_gpu = lambda models, memory_required: self.loaded.append((models, memory_required))

        def throw_exception_if_processing_interrupted():
            if self.stopped:
                raise Interrupted

        management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
        patcher, tools = types.ModuleType("comfy.model_patcher"), types.ModuleType("comfy.utils")
        patcher.ModelPatcher = Patcher
        comfy_self = self

        class ProgressBar:
            def __init__(self, total):
                self.total, self.updates = total, []
                comfy_self.bars.append(self)

            def update_absolute(self, value, total, preview):
                self.updates.append((value, total, preview))

        tools.ProgressBar = ProgressBar
        comfy = types.ModuleType("comfy")
        comfy.model_management, comfy.model_patcher, comfy.utils = management, patcher, tools
        latest = types.ModuleType("comfy_api.latest")
        latest.io, latest.ui, latest.ComfyExtension = schema.io, schema.ui, schema.ComfyExtension
        latest.InputImpl = types.SimpleNamespace(VideoFromFile=core_video.VideoFromFile)
        server, http = types.ModuleType("server"), types.ModuleType("aiohttp")

        def get(path):
            return lambda handler: self.routes.setdefault(path, handler)

        instance = types.SimpleNamespace(routes=types.SimpleNamespace(get=get))
        server.PromptServer = types.SimpleNamespace(instance=instance)
        http.web = types.SimpleNamespace(FileResponse=Path, HTTPNotFound=FileNotFoundError)
        return {
            "server": server, "aiohttp": http,
            "folder_paths": paths, "comfy": comfy, "comfy.model_management": management, "comfy.utils": tools,
            "comfy.model_patcher": patcher, "comfy_api": types.ModuleType("comfy_api"), "comfy_api.latest": latest,
        }  # fmt: skip


@pytest.fixture(scope="module")
def comfy(tmp_path_factory):
    """ComfyUI's modules for this file, taken away again behind it."""
    one = Comfy(tmp_path_factory.mktemp("comfy"))
    before = dict(sys.modules)
    sys.modules.update(one.modules())
    yield one
    sys.modules.update({name: module for name, module in before.items() if name in ("aiohttp", "server")})
    for name in set(sys.modules) - set(before):
        if name.startswith(NAME) or name in one.modules():
            del sys.modules[name]


@pytest.fixture(scope="module")
def pack(comfy):
    """The root of the repository, imported as ComfyUI imports a custom node."""
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py")
    root = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = root
    spec.loader.exec_module(root)
    assert not [name for name in sys.modules if name.startswith(f"{NAME}.")], (
        "nothing is imported before it is asked for"
    )
    extension = asyncio.run(root.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    return types.SimpleNamespace(
        root=root,
        nodes={cls.GET_SCHEMA().node_id: cls for cls in nodes},
        host=sys.modules[f"{NAME}.nodes.comfy_host"],
        comfy=comfy,
    )


@pytest.fixture
def free(pack):
    """The stand-in with its switches as they were."""
    pack.comfy.stopped, pack.comfy.dtype, pack.comfy.device = False, torch.float32, torch.device("cpu")
    pack.comfy.loaded.clear()
    pack.comfy.bars.clear()
    return pack.comfy


def run(pack, name, **inputs):
    return pack.nodes[name].execute(**inputs)


@pytest.fixture
def model(pack, free):
    target = free.base / "models" / "vasa" / "small"
    if not target.exists():
        os.symlink(TINY, target)
    return run(pack, "VASA_LoadModel", model="small", precision="fp32")[0]


@pytest.fixture
def face(pack, model):
    return run(pack, "VASA_EncodeFace", model=model, portrait=torch.rand(1, 64, 64, 3))[0][0]


def motion(pack, model, face, steps=1, frames=10):
    sound = {"waveform": torch.zeros(1, 1, frames * 640), "sample_rate": 16000}
    features = run(pack, "VASA_AudioFeatures", model=model, audio=sound, start_time=0.0, duration=0.0)[0][0]
    return run(
        pack, "VASA_MotionDiffusion", model=model, face=face, audio_features=features, seed=0, steps=steps,
        cfg_audio=0.5, cfg_gaze=1.0, cfg_distance=0.0, cfg_emotion=0.0, sampler="ddim",
    )[0]  # fmt: skip


def test_the_pack_loads_under_any_name_with_its_own_engine(pack):
    assert set(pack.nodes) == set(describe.schemas())
    assert f"{NAME}.vasa.pipeline" in sys.modules, "the engine beside the nodes, not an installed one"
    assert pack.root.WEB_DIRECTORY == "./web" and (ROOT / "web" / "vasa.js").is_file()


def test_weights_are_found_in_the_models_folder(pack, model, free):
    assert (free.base / "models" / "vasa").is_dir(), "made at start, so that users find where weights belong"
    assert pack.nodes["VASA_LoadModel"].define_schema().input("model").settings["options"][0] == "vasa-mini"
    assert model.name == "small" and model.engine.size == 64


def test_weights_are_handed_to_model_management(pack, model, face, free):
    free.loaded.clear()
    made = motion(pack, model, face)
    run(pack, "VASA_DecodeFrames", model=model, face=face, motion=made, batch_size=4, mark=False)
    assert all(managed == [model.managed] for managed, _ in free.loaded) and len(free.loaded) == 2
    memory = [needed for _, needed in free.loaded]
    assert memory[1] == 4 * memory[0] > 0, "more memory is asked for where more pictures are decoded at a time"
    parts = dict(model.managed.model.named_children())
    assert {"face", "motion", "audio"} <= set(parts)
    assert parts["face"] is model.engine.models.face, "the very modules that compute, so that they really move"


def test_weights_are_brought_and_taken_away_as_a_whole(model):
    """Our layers fetch nothing while they compute, so low-VRAM modes must not leave some behind."""
    device = torch.device("cpu")
    assert model.managed.partially_load(device, 0.1, force_patch_weights=False) == 1e32
    assert model.managed.partially_unload(device, 10**6) == 0, "ComfyUI then takes all of them away"


def test_weights_that_are_moved_away_take_their_copies_with_them(pack, model, face, free):
    """What decoding made of them would else stay in the memory that ComfyUI wants back."""

    def frames():
        made = motion(pack, model, face)
        return run(pack, "VASA_DecodeFrames", model=model, face=face, motion=made, batch_size=4, mark=False)[0]

    before = frames()
    copies = [weakref.ref(part) for part in model.engine.renderer._light.decoder.modules()]
    model.managed.model.to("cpu")
    assert all(copy() is None for copy in copies), "no cycle keeps them until some later collection"
    assert torch.equal(frames(), before)


def test_the_engine_follows_its_weights(pack, model, free):
    model.managed.load_device = torch.device("meta")
    with model.on_device() as engine:
        assert engine.device == torch.device("meta")


@pytest.mark.parametrize(
    "asked, device, chosen",
    [("auto", "cuda", "bf16"), ("fp16", "cuda", "fp16"), ("auto", "cpu", "auto"), ("auto", "privateuseone", "fp32")],
)
def test_precision_is_what_comfyui_thinks_the_device_can_do(pack, asked, device, chosen):
    assert pack.host.COMFYUI.precision(asked, torch.device(device), 10**7) == chosen


def test_a_precision_that_the_device_cannot_do_is_refused(pack):
    with pytest.raises(ValueError, match="cannot be computed on privateuseone.*fp32"):
        pack.host.COMFYUI.precision("bf16", torch.device("privateuseone"), 10**7)


class CoreEncoder:
    """ComfyUI's AudioEncoderModel around a small Wav2Vec2."""

    def __init__(self):
        torch.manual_seed(1)
        self.load_device, self.patcher, self.calls = torch.device("cpu"), object(), []
        self.wav2vec2 = AudioEncoder(TINY_CONFIG.audio).eval().requires_grad_(False)
        self.model = Hearing(self.wav2vec2.encoder.feature_projection, self.hear)

    def hear(self, samples):
        self.calls.append(tuple(samples.shape))
        heard = self.wav2vec2.encoder(samples.mean(1)).last_hidden_state
        return heard, (heard,)


class Hearing:
    def __init__(self, feature_projection, hear):
        self.feature_projection, self._hear = feature_projection, hear

    def __call__(self, samples):
        return self._hear(samples)


@pytest.fixture
def public_model(pack, free):
    """A model whose generator was trained on a public encoder that is not in its folder."""
    folder = free.base / "models" / "vasa" / "public"
    folder.mkdir(exist_ok=True)
    audio = replace(TINY_CONFIG.audio, source="nobody/such-encoder")
    header = {"format": "vasa/1", "config": replace(TINY_CONFIG, audio=audio).to_json()}
    for name in ("face", "motion"):
        save_file(load_file(TINY / f"{name}.safetensors"), folder / f"{name}.safetensors", metadata=header)
    return run(pack, "VASA_LoadModel", model="public", precision="fp32")[0]


SOUND = {"waveform": torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1, "sample_rate": 16000}


def heard_by(pack, model, **more):
    return run(pack, "VASA_AudioFeatures", model=model, audio=SOUND, start_time=0.0, duration=0.0, **more)[0][0]


def test_comfyuis_audio_encoder_is_what_the_generator_hears_with(pack, public_model, free):
    """The same motion as of the model with that very encoder in its folder."""
    core = CoreEncoder()
    face = run(pack, "VASA_EncodeFace", model=public_model, portrait=torch.rand(1, 64, 64, 3))[0][0]
    settings = dict(
        model=public_model, face=face, seed=0, steps=2, cfg_audio=0.5, cfg_gaze=1.0, cfg_distance=0.0,
        cfg_emotion=0.0, sampler="ddim",
    )  # fmt: skip
    free.loaded.clear()
    speech = heard_by(pack, public_model, audio_encoder=core)
    made = run(pack, "VASA_MotionDiffusion", audio_features=speech, **settings)[0]
    assert core.calls and all(len(shape) == 3 and shape[:2] == (1, 1) for shape in core.calls)
    assert free.loaded[0][0] == [public_model.managed, core.patcher], "both are brought to where they compute"
    engine = public_model.engine
    whole = type(engine)(replace(engine.models, audio=core.wav2vec2), engine.device, engine.dtype)
    controls = sys.modules[f"{NAME}.vasa"].Controls(seed=0, steps=2, guidance={"audio": 0.5, "gaze": 1.0})
    expected = whole.generate(speech.waveform, face.latents, controls)
    assert torch.allclose(made.vectors, expected.vectors, atol=1e-5)
    core.wav2vec2.encoder.feature_projection.projection.weight.normal_()
    other = run(pack, "VASA_MotionDiffusion", audio_features=speech, **settings)[0]
    assert not torch.allclose(other.vectors, made.vectors, atol=1e-3), "what it hears with is heard"


def test_a_model_without_its_public_encoder_says_where_it_belongs(pack, public_model, free):
    with pytest.raises(ValueError, match=r"hears with nobody/such-encoder.*models/audio_encoders.*audio_encoder"):
        heard_by(pack, public_model)
    still = sys.modules[f"{NAME}.vasa"].Motion(torch.tensor([[0.0, 0, 0, 0, 0, -0.288]]), torch.zeros(1, 59))
    face = run(pack, "VASA_EncodeFace", model=public_model, portrait=torch.rand(1, 64, 64, 3))[0][0]
    frames = run(pack, "VASA_DecodeFrames", model=public_model, face=face, motion=still, batch_size=0, mark=False)[0]
    assert frames.shape == (1, 64, 64, 3), "motion is shown all the same"


def test_audio_encoders_that_the_model_was_not_trained_with_are_refused(pack, model, public_model):
    core = CoreEncoder()
    with pytest.raises(ValueError, match="an audio encoder of its own"):
        heard_by(pack, model, audio_encoder=core)
    core.model.feature_projection = torch.nn.Module()
    core.model.feature_projection.projection = torch.nn.Linear(16, 1024)
    with pytest.raises(ValueError, match="gives 1024 features.*trained on the 32 of nobody/such-encoder"):
        heard_by(pack, public_model, audio_encoder=core)
    core.model = torch.nn.Identity()
    with pytest.raises(ValueError, match="expected a Wav2Vec2 audio encoder, got Identity"):
        heard_by(pack, public_model, audio_encoder=core)


def test_progress_counts_every_step_and_shows_frames(pack, model, face, free):
    made = motion(pack, model, face, steps=3, frames=20)
    assert [value for value, total, _ in free.bars[-1].updates] == [0, 1, 2, 3]
    run(pack, "VASA_DecodeFrames", model=model, face=face, motion=made, batch_size=0, mark=False)
    updates = free.bars[-1].updates
    assert [value for value, _, _ in updates] == list(range(21)) and {total for _, total, _ in updates} == {20}
    shown = [(value, preview) for value, _, preview in updates if preview]
    assert [value for value, _ in shown] == [8, 16]
    kind, picture, side = shown[0][1]
    assert kind == "JPEG" and picture.size == (64, 64) and side == 512


@pytest.mark.parametrize("after", [1, 3])
def test_stop_works_within_one_step_and_one_frame(pack, model, face, free, after, monkeypatch):
    made = motion(pack, model, face)
    counts = []
    original = pack.host.comfy.utils.ProgressBar.update_absolute

    def counting(bar, value, total, preview):
        counts.append(value)
        free.stopped = value == after
        original(bar, value, total, preview)

    monkeypatch.setattr(pack.host.comfy.utils.ProgressBar, "update_absolute", counting)
    with pytest.raises(Interrupted):
        motion(pack, model, face, steps=50)
    assert counts[-1] == after
    free.stopped = False
    with pytest.raises(Interrupted):
        run(pack, "VASA_DecodeVideo", model=model, face=face, motion=made, batch_size=0, mark=False)
    assert counts[-1] == after and not list((free.base / "temp").iterdir()), "a stopped video leaves no file"
    free.stopped = False


def test_pictures_travel_in_the_precision_that_comfyui_wants(pack, model, face, free):
    free.dtype = torch.float16
    made = motion(pack, model, face)
    frames = run(pack, "VASA_DecodeFrames", model=model, face=face, motion=made, batch_size=0, mark=True)[0]
    assert frames.dtype == torch.float16 and torch.isfinite(frames).all()


def test_a_comfyui_that_knows_no_precision_of_pictures_gets_float32(pack, free, monkeypatch):
    """0.12.0, the oldest that is supported."""
    monkeypatch.delattr(pack.host.management, "intermediate_dtype")
    assert pack.host.COMFYUI.pictures(torch.zeros(1, 2, 2, 3, dtype=torch.float64)).dtype == torch.float32


def test_samples_are_served_and_nothing_beside_them(pack, free):
    serve = free.routes["/vasa/samples/{name}"]

    def asked(name):
        return asyncio.run(serve(types.SimpleNamespace(match_info={"name": name})))

    assert asked("portrait.png") == ROOT / "examples" / "portrait.png"
    for name in ("../pyproject.toml", "/etc/passwd", "absent.png"):
        with pytest.raises(FileNotFoundError):
            asked(name)


def test_videos_pass_on_as_temporary_files(pack, model, face, free):
    made = motion(pack, model, face)
    video = run(pack, "VASA_DecodeVideo", model=model, face=face, motion=made, batch_size=0, mark=True)[0]
    assert Path(video.get_stream_source()).parent == free.base / "temp"


def test_motions_go_to_the_output_folder_and_no_further(pack, model, face, free):
    made = motion(pack, model, face)
    run(pack, "VASA_SaveMotion", motion=made, filename_prefix="motion/a")
    assert (free.base / "output" / "motion" / "a_00001_.safetensors").is_file()
    options = pack.nodes["VASA_LoadMotion"].define_schema().input("motion_file").settings["options"]
    assert options == ["motion/a_00001_.safetensors [output]"]
    assert len(run(pack, "VASA_LoadMotion", motion_file=options[0])[0]) == 10
    for name in ("../a", "/tmp/a", "motion/../../a"):
        with pytest.raises(ValueError, match="leads out of its folder"):
            run(pack, "VASA_SaveMotion", motion=made, filename_prefix=name)


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "../x.png [output]", "../x.png [temp]", "x/../../x.png"])
def test_files_that_a_workflow_names_stay_in_their_folders(pack, free, name):
    (free.base / "x.png").write_bytes(b"secret")
    assert "leads out of its folder" in pack.nodes["VASA_LoadPortrait"].validate_inputs(name)
    assert "leads out of its folder" in pack.nodes["VASA_LoadSpeech"].validate_inputs(name)


def test_samples_need_no_upload(pack):
    for name, field, sample in (
        ("VASA_LoadPortrait", "portrait", "portrait.png [sample]"),
        ("VASA_LoadSpeech", "audio", "speech.wav [sample]"),
    ):
        assert sample in pack.nodes[name].define_schema().input(field).settings["options"]
        assert pack.nodes[name].validate_inputs(sample) is True


def test_a_changed_file_runs_its_loader_again(pack, free):
    path = free.base / "input" / "a.png"
    path.write_bytes(b"one")
    prints = [pack.nodes["VASA_LoadPortrait"].fingerprint_inputs(portrait="a.png", crop="face")]
    path.write_bytes(b"two")
    prints.append(pack.nodes["VASA_LoadPortrait"].fingerprint_inputs(portrait="a.png", crop="face"))
    assert prints[0] != prints[1]
