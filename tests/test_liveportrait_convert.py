"""Published files become a model folder, or one sentence says why not."""

import argparse
import json
import pickle
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vasa import Controls, InputError, Vasa, checkpoint, cli
from vasa.backends.liveportrait import convert, download, joyvasa
from vasa.backends.liveportrait.config import GeneratorConfig, RendererConfig, from_json, to_json
from vasa.backends.liveportrait.convert_joyvasa import convert_joyvasa
from vasa.backends.liveportrait.folding import folds_of, published_shapes
from vasa.backends.liveportrait.published import read_tensors
from vasa.backends.liveportrait.retarget import SIZES
from vasa.backends.liveportrait.sound import SpeechEncoder
from vasa.backends.liveportrait.weights import PARTS, empty
from vasa.backends.pickles import read_pickle
from vasa.backends.seeded import inputs, seeded
from vasa.motion.diffusion import alpha_bar
from vasa.motion.plan import WindowPlan

TINY = RendererConfig(
    name="tiny", input_size=32, image_size=64, width=8, volume_channels=8, volume_depth=4, resblocks=1,
    flow_width=8, flow_halvings=1, flow_max=16, label_width=16,
    backbone_depths=(1, 1, 1, 1), backbone_widths=(8, 8, 16, 16),
)  # fmt: skip
GENERATOR = GeneratorConfig(
    name="joyvasa", dim=32, depth=2, window=20, num_previous=4, channels=73, diffusion_steps=50, audio_dim=64,
    audio_overrides={
        "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64,
        "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
    },
)  # fmt: skip


def published(part):
    network = empty(part, TINY)
    state = seeded(published_shapes(network, folds_of(part, TINY)))
    # files of PyTorch carry these counters
    counters = [k.replace("running_mean", "num_batches_tracked") for k in state if k.endswith("running_mean")]
    return state | {name: torch.tensor(7) for name in counters}


def retargeting():
    roles = {"stitching": "retarget_shoulder", "lip": "retarget_mouth", "eye": "retarget_eye"}
    nested = {}
    for name, widths in SIZES.items():
        layers = zip(widths[:-1], widths[1:], strict=True)
        shapes = {}
        for i, (a, b) in enumerate(layers):
            shapes |= {f"module.mlp.{2 * i}.weight": (b, a), f"module.mlp.{2 * i}.bias": (b,)}
        nested[roles[name]] = seeded(shapes)
    return nested


def template():
    values = {}
    for part, size in {"exp": 63, "scale": 1, "t": 3, "pitch": 1, "yaw": 1, "roll": 1}.items():
        base = 1.2 if part == "scale" else 0.0
        spread = {"exp": 0.02, "scale": 0.2, "t": 0.1}.get(part, 10.0)
        values |= {f"mean_{part}": np.full(size, base, np.float32), f"std_{part}": np.full(size, spread, np.float32)}
        values |= {f"min_{part}": np.full(size, base - spread), f"max_{part}": np.full(size, base + spread)}
    values["min_t"][2] = values["max_t"][2] = 0.0
    return values


def generator_file():
    state = seeded(joyvasa.published_shapes(GENERATOR))
    state["denoising_net.alignment_mask"] = torch.zeros(24, 24, dtype=torch.bool)
    # as published: times have the code's standard number of rows, whatever the schedule
    state["denoising_net.TE.pe"] = torch.zeros(1, 501, 32)
    steps = torch.arange(-1, 50)
    state["diffusion_sched.alpha_bars"] = alpha_bar(steps, 50).float()
    speech = SpeechEncoder(GENERATOR).encoder.state_dict()
    weight = speech.pop("encoder.pos_conv_embed.conv.weight")
    speech = seeded({k: tuple(v.shape) for k, v in speech.items()})
    norm = torch.linalg.vector_norm(weight, dim=(0, 1), keepdim=True)
    speech |= {"encoder.pos_conv_embed.conv.weight_g": norm, "encoder.pos_conv_embed.conv.weight_v": weight}
    state |= {f"audio_encoder.{k}": v for k, v in speech.items()}
    named = argparse.Namespace(
        n_motions=20,
        n_prev_motions=4,
        audio_model="hubert_zh_ori",
        fps=25,
        cfg_mode="incremental",
        data_root=Path("data"),
    )
    return {"args": named, "model": state, "iter": 20_000}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The published files as they lie after a download."""
    folder = tmp_path_factory.mktemp("published")
    base, small = folder / "liveportrait" / "base_models", folder / "liveportrait" / "retargeting_models"
    animals = folder / "liveportrait_animals" / "base_models"
    for made in (base, small, animals, folder / "motion_generator", folder / "motion_template"):
        made.mkdir(parents=True)
    for part in PARTS:
        torch.save(published(part), base / f"{convert.STEMS[part][0]}.pth")
    (animals / "warping_module.pth").write_bytes(b"another family")
    torch.save({**retargeting(), "optimizer": {"step": torch.zeros(1)}}, small / "stitching_retargeting_module.pth")
    torch.save(generator_file(), folder / "motion_generator" / "motion_generator_hubert_chinese.pt")
    with open(folder / "motion_template" / "motion_template.pkl", "wb") as file:
        pickle.dump(template(), file)
    return folder


@pytest.fixture(scope="module")
def model(source, tmp_path_factory):
    dest = tmp_path_factory.mktemp("models") / "photoreal"
    convert.convert_renderer(source, dest, config=TINY)
    convert_joyvasa(source, dest, heads=4)
    return dest


def test_converted_weights_load_by_their_folder_and_speak(model):
    vasa = Vasa.from_pretrained(model, device="cpu", precision="fp32")
    assert vasa.backend == "liveportrait" and vasa.size == 64 and vasa.config.name == "tiny"
    face = vasa.encode(inputs("portrait", 3, 64, 64).sigmoid())
    speech = inputs("talk", 16_000) * 0.1
    motion = vasa.generate(speech, face, Controls(steps=2), plan=WindowPlan(20, 4, 16, 0))
    frames = next(vasa.decode(face, motion[:2]))
    assert len(motion) == 25 and torch.isfinite(frames).all() and frames.shape == (2, 3, 64, 64)
    assert vasa.config.motion.legacy_pe and vasa.config.motion.window == 20
    assert checkpoint.backend_of(model) == "liveportrait" and checkpoint.backend_of("vasa-mini") == "vasa"


def test_from_picture_and_sound_to_a_video_by_the_folder(model, tmp_path, capsys):
    from PIL import Image

    pixels = (inputs("portrait", 128, 128, 3).sigmoid() * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "portrait.png")
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((inputs("talk", 6_400) * 3000).short().numpy().tobytes())
    command = [str(tmp_path / "portrait.png"), str(tmp_path / "talk.wav"), "--model", str(model), "--crop", "none"]
    out = tmp_path / "out.mp4"
    assert cli.main(["animate", *command, "-o", str(out), "--steps", "2", "--device", "cpu"]) == 0, capsys.readouterr()
    assert "10 frames" in capsys.readouterr().out and out.stat().st_size > 0
    assert cli.main(["animate", *command, "-o", str(tmp_path / "x.mp4"), "--emotion", "happy=1"]) == 2
    assert "emotion was asked for" in capsys.readouterr().err and not (tmp_path / "x.mp4").exists()


def test_folded_networks_do_what_the_unfolded_ones_did(model):
    state, _ = checkpoint.read_weights(model / "decoder.safetensors")
    raw = published("decoder")
    weight, u, v = (raw[f"up_1.conv_0.weight_{kind}"].double() for kind in ("orig", "u", "v"))
    expected = weight / (u @ weight.flatten(1) @ v)
    assert torch.allclose(state["up_1.conv_0.weight"].double(), expected, atol=1e-6)
    assert torch.allclose(state["up_1.norm_s.conv.bias"][:16], raw["up_1.norm_s.mlp_gamma.bias"][:16] + 1)
    assert not [k for k in state if k.endswith(("_orig", "_u", "_v", "running_mean"))]


def test_every_file_says_where_it_is_from(model, source):
    with safe_open(model / "decoder.safetensors", "pt") as file:
        header = file.metadata()
    published_file = source / "liveportrait" / "base_models" / "spade_generator.pth"
    assert json.loads(header["sources"]) == {published_file.name: checkpoint.sha256(published_file)}
    assert "Kuaishou" in header["licence"] and header["licence_name"] == "MIT"
    assert (model / "LICENSE-liveportrait.txt").read_text() == header["licence"]
    listed = (model / "sha256.txt").read_text().splitlines()
    assert sorted(line.split()[1] for line in listed) == sorted(p.name for p in model.glob("*.safetensors"))


def test_repacks_as_safetensors_give_the_same_weights(model, tmp_path):
    repack = tmp_path / "models" / "liveportrait"
    repack.mkdir(parents=True)
    for part in PARTS:
        save_file(published(part), repack / f"{convert.STEMS[part][0]}.safetensors")
    flat = {}
    for role, state in retargeting().items():
        flat |= {f"{role}_module.{k.removeprefix('module.')}": v for k, v in state.items()}
    save_file(flat, repack / "stitching_retargeting_module.safetensors")
    convert.convert_renderer(repack, tmp_path / "out", config=TINY)
    for name in ("warping", "retargeting"):
        ours, theirs = (checkpoint.read_weights(d / f"{name}.safetensors")[0] for d in (tmp_path / "out", model))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda s: s.pop("third.conv.weight"), "lacks third.conv.weight"),
        (lambda s: s.update(surprise=torch.zeros(1)), "has the unknown surprise"),
        (lambda s: s.update({"fourth.bias": torch.zeros(3)}), r"fourth.bias \[3\] instead of \[32\]"),
        (lambda s: s["fourth.bias"].fill_(float("nan")), "NaN or infinite values in fourth.bias"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_written(source, tmp_path, spoil, said):
    folder = tmp_path / "published"
    folder.mkdir()
    for part in PARTS:
        state = published(part)
        if part == "warping":
            spoil(state)
        torch.save(state, folder / f"{convert.STEMS[part][0]}.pth")
    with pytest.raises(InputError, match=said):
        convert.convert_renderer(folder, tmp_path / "out", config=TINY)
    assert not (tmp_path / "out").exists()


class Harmful:
    ran = False

    def __reduce__(self):
        return (_run, ())


def _run():
    Harmful.ran = True


def test_code_in_a_file_is_never_run(tmp_path):
    (tmp_path / "published").mkdir()
    path = tmp_path / "published" / "appearance_feature_extractor.pth"
    torch.save({"weight": Harmful()}, path)
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        read_tensors(path)
    statistics = tmp_path / "motion_template.pkl"
    for content in (Harmful(), {"mean_exp": Harmful()}, np.array([Harmful()], dtype=object)):
        statistics.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="not a plain statistics file"):
            read_pickle(statistics)
    assert not Harmful.ran


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_statistics_are_read_in_every_protocol(tmp_path, protocol):
    path = tmp_path / "statistics.pkl"
    path.write_bytes(pickle.dumps({"a": np.arange(3.0), "b": [1, "x", np.float32(2)]}, protocol))
    read = read_pickle(path)
    assert read["a"].tolist() == [0, 1, 2] and read["b"] == [1, "x", 2.0]


def test_missing_and_ambiguous_files_are_named(source, tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        convert.convert_renderer(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="holds no appearance_feature_extractor"):
        convert.convert_renderer(tmp_path, tmp_path / "out")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "motion_generator_x.pt").write_bytes(b"x")
    with pytest.raises(InputError, match="several files that fit"):
        convert_joyvasa(tmp_path, tmp_path / "out")


def test_a_generator_of_another_kind_is_refused(source, tmp_path):
    def converted(change):
        content = generator_file()
        change(content["model"])
        torch.save(content, tmp_path / "motion_generator.pt")
        (tmp_path / "motion_template.pkl").write_bytes(pickle.dumps(template()))
        convert_joyvasa(tmp_path, tmp_path / "out", heads=4)

    linear = torch.linspace(1, 0, 51)
    for change, said in (
        (lambda s: s.update({"diffusion_sched.alpha_bars": linear}), "another noise schedule"),
        (lambda s: s.pop("null_audio_feat"), "lacks null_audio_feat"),
        (lambda s: s.update(start_motion_feat=torch.zeros(1, 4, 66)), "draws 66 motion channels"),
        (lambda s: s.pop("audio_encoder.encoder.layer_norm.weight"), "lacks encoder.layer_norm.weight"),
    ):
        with pytest.raises(InputError, match=said):
            converted(change)


def test_configurations_travel_as_json():
    for config in (TINY, replace(GENERATOR, legacy_pe=False)):
        again = from_json(type(config), to_json(config))
        assert again == replace(config, **({"audio_overrides": again.audio_overrides} if config is not TINY else {}))
    with pytest.raises(ValueError, match="width must be int"):
        from_json(RendererConfig, '{"width": "wide"}')


def test_parts_of_two_models_do_not_mix(model, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in model.glob("*.safetensors"):
        (mixed / path.name).write_bytes(path.read_bytes())
    state, header = checkpoint.read_weights(mixed / "warping.safetensors")
    save_file(state, mixed / "warping.safetensors", metadata={**header, "config": to_json(replace(TINY, name="other"))})
    with pytest.raises(InputError, match="belongs to another model"):
        Vasa.from_pretrained(mixed, device="cpu")
    (mixed / "motion_extractor.safetensors").unlink()
    with pytest.raises(InputError, match="expected weights at"):
        Vasa.from_pretrained(mixed, device="cpu")


def test_the_command_line_says_what_is_wrong(source, tmp_path, capsys):
    with pytest.raises(InputError, match="vasa convert liveportrait"):
        Vasa.from_pretrained(source, device="cpu")
    # the published sizes are expected, the files are small ones
    assert cli.main(["convert", "liveportrait", str(source), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vasa: ") and "is not the published appearance" in said and said.count("\n") == 1
    assert cli.main(["convert", "ditto", str(source), str(tmp_path / "out"), "--fixed-positions"]) == 2


def test_detectors_of_other_licences_are_on_no_list():
    patterns = " ".join(p for entry in download.CATALOGUE.values() for p in entry.patterns).lower()
    assert not [word for word in ("insightface", "det_10g", "2d106", "landmark", "*.onnx") if word in patterns]
