"""Every trainer takes a few steps on rendered formula heads and made-up speech, and leaves weights that load."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from vasa import checkpoint
from vasa.config import BROW_TRUNK, PATCH_TRUNK, TINY
from vasa.errors import InputError
from vasa.face.encoder import DynamicsEncoder, PoseEncoder, align_face
from vasa.face.model import FaceModel
from vasa.face.reader import FaceReader
from vasa.geometry import identity_grid
from vasa.latents import DYNAMICS
from vasa.motion.transformer import Denoiser
from vasa.synthetic import corpus as speech_corpus
from vasa.synthetic.dataset import write_shard
from vasa.synthetic.formula import formula_pack
from vasa.synthetic.phones import PHONE_INDEX, VISEME_OF, Segment
from vasa.training import data, encoders, losses, motion, reader
from vasa.training.ahead import Ahead
from vasa.training.audio import train_audio, viseme_track
from vasa.training.closeups import train_closeups
from vasa.training.discriminator import Adversary
from vasa.training.encoders import train_encoders
from vasa.training.export import export
from vasa.training.face import FaceLossWeights, train_face
from vasa.training.faces import train_faces
from vasa.training.loop import TimeBox, Trainer
from vasa.training.motion import train_motion
from vasa.training.reader import train_reader

TINY_FOLDER = Path(__file__).parent / "data" / "tiny"
BOX = TimeBox(minutes=0.01, save_minutes=1.0, peak_rate=1e-3, warmup=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def stills(folder):
    write_shard(folder / "stills" / "a.safetensors", formula_pack(), people=3, frames=3, size=64, seed=0)
    return folder / "stills"


@pytest.fixture(scope="module")
def speech(folder):
    """A shard of two utterances of tones, in the corpus' own format."""
    segments = [Segment(i * 0.2, (i + 1) * 0.2, p, VISEME_OF[p]) for i, p in enumerate("sil m aa b iy sil".split() * 4)]
    t = torch.arange(round(segments[-1].end * 16000)) / 16000
    wave = (torch.sin(2 * torch.pi * 140 * t) * 8000).to(torch.int16)
    n = len(segments)
    tensors = {
        "audio": torch.cat([wave, wave]),
        "audio_offset": torch.tensor([0, len(wave), 2 * len(wave)]),
        "segment_times": torch.tensor([(s.start, s.end) for s in segments] * 2),
        "segment_phone": torch.tensor([PHONE_INDEX[s.phone] for s in segments] * 2, dtype=torch.uint8),
        "segment_viseme": torch.tensor([s.viseme for s in segments] * 2, dtype=torch.uint8),
        "segment_offset": torch.tensor([0, n, 2 * n]),
        "voice": torch.zeros(2, dtype=torch.int32),
    }
    (folder / "speech").mkdir()
    notes = {"voices": json.dumps(["tone"]), "texts": json.dumps(["a", "b"]), "split": "train"}
    save_file(tensors, str(folder / "speech" / "speech-0000.safetensors"), metadata=notes)
    assert len(speech_corpus.load_corpus(folder / "speech")) == 2
    return folder / "speech"


def test_all_trainers_end_in_a_model_folder(stills, speech, folder):
    runs = {name: folder / f"run_{name}" for name in ("encoders", "reader", "face", "audio", "motion")}
    train_encoders(stills, runs["encoders"], BOX, TINY, batch_size=2, validation=stills)
    train_reader(stills, runs["reader"], BOX, TINY, batch_size=2, validation=stills)
    everything = FaceLossWeights(perceptual=0.1, pair=0.1, identity=0.1, canonical=0.1, expression=0.1, head=0.1)
    train_face(
        stills, runs["face"], BOX, TINY, batch_size=2, targets=1, validation=stills, encoders=runs["encoders"],
        reader=runs["reader"], weights=everything,
    )  # fmt: skip
    train_audio(speech, runs["audio"], BOX, TINY, batch_size=2, validation=speech)
    train_motion(speech, runs["motion"], BOX, TINY, runs["audio"], batch_size=4, count=12, validation=speech)
    for name, run in runs.items():
        scores = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
        assert scores and all(torch.isfinite(torch.tensor(v)) for s in scores for v in s.values()), name
    assert list(runs["face"].glob("panel_*.jpg"))
    export(folder / "model", TINY, **{k: v for k, v in runs.items() if k != "encoders"})
    models = checkpoint.load(folder / "model")
    assert models.reader is not None and models.motion.std.max() < 10


def test_close_ups_train_alone_and_go_on_with_the_face(stills, folder):
    face = replace(TINY.face, mouth_size=16, mouth_widths=(16, 8, 8), eye_size=16, eye_widths=(16, 8, 8))
    config = replace(TINY, face=face)
    train_closeups(stills, folder / "run_closeups", BOX, config, batch_size=2, targets=1, validation=stills)
    assert list((folder / "run_closeups").glob("patches_*.png"))
    apart = folder / "run_apart"
    train_face(stills, apart, BOX, config, batch_size=2, targets=1)
    assert not any(name.startswith("closeups") for name in load_file(apart / "weights.safetensors"))
    together = folder / "run_together"
    train_face(stills, together, BOX, config, batch_size=2, targets=1, resume=apart, closeups=folder / "run_closeups")
    assert any(name.startswith("closeups") for name in load_file(together / "weights.safetensors"))
    audio, motion = folder / "run_audio", folder / "run_motion"
    with pytest.raises(InputError, match="lacks .* tensors of this configuration, such as closeups"):
        export(folder / "model_2", config, face=apart, audio=audio, motion=motion)
    export(folder / "model_2", config, face=apart, closeups=folder / "run_closeups", audio=audio, motion=motion)
    kept = load_file(folder / "run_closeups" / "weights.safetensors")
    shipped = load_file(folder / "model_2" / "face.safetensors")
    assert all(torch.equal(shipped[f"closeups.{name}"], value.half()) for name, value in kept.items())


def changed(before, run):
    """Names of the tensors that differ from those a run saved."""
    saved = load_file(run / "raw.safetensors")
    return {name for name, value in before.items() if not torch.equal(value, saved[name])}


def test_the_first_lesson_is_that_of_the_near_trunks(stills, folder, monkeypatch):
    seeing = replace(TINY, reader=replace(TINY.reader, brows=BROW_TRUNK))
    own = replace(TINY.face, dynamics_patches=PATCH_TRUNK, dynamics_brows=BROW_TRUNK)
    for module, train, config, model, names in (
        (reader, train_reader, seeing, FaceReader, ("near.", "fine.")),
        (encoders, train_encoders, replace(TINY, face=own), encoders.Encoders, ("dynamics.near.", "dynamics.fine.")),
    ):
        monkeypatch.setattr(module, "NEAR_SHARE", 2.0)
        train(stills, folder / f"near_{train.__name__}", BOX, config, batch_size=4)
        torch.manual_seed(0)
        before = model(config.reader if model is FaceReader else config).state_dict()
        assert {n for n in before if n.startswith(names)} == changed(before, folder / f"near_{train.__name__}")


def test_geometry_is_learned_without_painting(stills, folder):
    config = replace(TINY, face=replace(TINY.face, relief=True, surface=16, surface_fields=8))
    train_face(stills, folder / "geometry", BOX, config, batch_size=2, targets=1, geometry=2.0)
    torch.manual_seed(0)
    learned = changed(FaceModel(replace(config.face, mouth_widths=(), eye_widths=())).state_dict(), folder / "geometry")
    assert {"surface.fields", "surface.depth", "decoder.fine_flow.weight", "decoder.mask.bias"} <= learned
    assert not [name for name in learned if name.startswith(("decoder.head", "decoder.gain"))]


def test_resuming_starts_from_the_saved_weights(folder, tmp_path):
    first = FaceModel(TINY.face)
    save_file({k: v.contiguous() for k, v in first.state_dict().items()}, str(tmp_path / "raw.safetensors"))
    second = FaceModel(TINY.face)
    Trainer(second, tmp_path / "run", BOX, resume=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(InputError, match="--resume"):
        Trainer(second, tmp_path / "run", BOX, resume=tmp_path / "nowhere")


def test_training_lowers_the_loss(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    trainer = Trainer(model, tmp_path, TimeBox(0.05, 1.0, 0.1, 1))
    x = torch.randn(64, 4)
    y = x @ torch.tensor([[1.0], [2.0], [-1.0], [0.5]])
    seen = []

    def step(index):
        loss = (trainer.model(x) - y).square().mean()
        trainer.descend(loss)
        seen.append(loss.item())
        return {"loss": loss}

    trainer.run(step)
    assert seen[-1] < 0.2 * seen[0]
    assert load_file(tmp_path / "weights.safetensors").keys() == model.state_dict().keys()


def test_mirrored_twice_is_the_original(stills):
    shards = data.StillShards(stills)
    batch, _ = shards.stills(4, torch.Generator().manual_seed(0))
    again = data.mirror(data.mirror(batch))
    assert torch.equal(batch.image, again.image) and torch.allclose(batch.dynamics, again.dynamics)
    assert torch.allclose(batch.landmarks, again.landmarks) and torch.allclose(batch.head_pose, again.head_pose)
    left, right = DYNAMICS.index("eyeBlink_L"), DYNAMICS.index("eyeBlink_R")
    assert torch.equal(data.mirror(batch).dynamics[:, left], batch.dynamics[:, right])


def test_mirrored_landmarks_keep_their_order(stills):
    """In a mirrored picture landmark 0 is still on the picture's left."""
    batch, _ = data.StillShards(stills).stills(6, torch.Generator().manual_seed(1))
    for s in (batch, data.mirror(batch)):
        assert (s.landmarks[:, 0, 0] < s.landmarks[:, 16, 0]).all()
        assert (s.landmarks[:, 36, 0] < s.landmarks[:, 45, 0]).all()
        assert (s.landmarks[:, 48, 0] < s.landmarks[:, 54, 0]).all()


def test_a_moved_picture_has_the_pose_that_it_shows(stills):
    """The face cut out by the new pose is the face that the old pose cut out of the old picture."""
    batch, _ = data.StillShards(stills).stills(4, torch.Generator().manual_seed(3))
    image, head_pose, _ = data.moved(batch.image, batch.head_pose, torch.Generator().manual_seed(4))
    before, after = align_face(batch.image, batch.head_pose, 32), align_face(image, head_pose, 32)
    wrong = align_face(image, batch.head_pose, 32)
    assert (after - before).abs().mean() < 0.3 * (wrong - before).abs().mean()
    assert torch.equal(head_pose[:, :2], batch.head_pose[:, :2])


def test_light_loss_wants_the_right_gain():
    source = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 0.5
    exact = identity_grid((16, 16)).movedim(-1, 0).expand(2, -1, -1, -1)
    visible = torch.ones(2, 16, 16)
    gain = torch.full((2, 3, 4, 4), 1.5)
    assert losses.light_loss(gain, source, 1.5 * source, exact, visible) < 1e-6
    assert losses.light_loss(gain, source, source, exact, visible) > 0.05
    assert losses.light_loss(gain, source, source, exact, 0 * visible) == 0


def test_exact_flow_has_no_flow_loss():
    exact = torch.rand(2, 2, 16, 16) * 2 - 1
    ones = torch.ones(2, 1, 16, 16)
    assert losses.flow_loss(exact, exact, ones[:, 0], ones) == 0
    assert losses.flow_loss(exact + 0.1, exact, ones[:, 0], ones) > 0
    assert losses.flow_loss(exact + 0.1, exact, 0 * ones[:, 0], ones) == 0, "hidden points do not count"


def test_landmarks_count_where_both_pictures_show_them():
    exact = identity_grid((32, 32)).movedim(-1, 0)[None] + 0.1
    ones, marks = torch.ones(1, 32, 32), torch.rand(1, 68, 2) - 0.5
    here, there = marks, marks + 0.1
    assert losses.landmark_loss(exact, there, here, exact, ones) < 1e-3
    assert losses.landmark_loss(exact + 0.05, there, here, exact, ones) > 1
    assert losses.landmark_loss(exact + 0.05, there, here, exact, 0 * ones) == 0, "hidden"
    assert losses.landmark_loss(exact + 0.05, there + 0.2, here, exact, ones) == 0, "something lies in front of it"


def test_region_weights_peak_at_mouth_and_eyes(stills):
    batch, _ = data.StillShards(stills).stills(2, torch.Generator().manual_seed(2))
    weights = losses.region_weights(batch.landmarks, 64)
    x, y = ((batch.landmarks[0, 48:68].mean(0) + 1) / 2 * 63).round().long().tolist()
    assert weights[0, 0, y, x] > 6 and weights[0, 0, 0, 0] == pytest.approx(1, abs=0.01)


def test_viseme_track_reads_segments():
    segments = (Segment(0.1, 0.3, "aa", VISEME_OF["aa"]), Segment(0.3, 0.4, "m", VISEME_OF["m"]))
    track = viseme_track(segments, 0.0, 10, 20.0).tolist()
    assert track[:2] == [0, 0] and track[2:6] == [VISEME_OF["aa"]] * 4
    assert track[6:8] == [VISEME_OF["m"]] * 2 and track[8:] == [0, 0]


def test_frames_not_heard_yet_count_less_but_count():
    """They are drawn beside the others, which look at them."""
    k, w, m = TINY.motion.num_previous, TINY.motion.window, TINY.motion_dim
    raw, zeros = Denoiser(TINY.motion, m, 33), torch.zeros(4, k + w, m)
    windows = motion.MotionWindows(
        zeros, torch.zeros(4, k + w, 33), torch.full((4,), w // 2), zeros[..., :2], zeros[..., :1], torch.zeros(4, 8)
    )

    def loss(frames):
        def model(x_t, t, conditions):
            wrong = torch.zeros_like(x_t)
            wrong[:, frames] = 1
            return wrong

        told = SimpleNamespace(autocast=contextlib.nullcontext)
        draw = torch.Generator().manual_seed(3)
        rows, weights = torch.arange(4), torch.ones(m)
        return motion._step(raw, model, windows, rows, draw, weights, told, "cpu")["x_0"].item()

    heard, not_heard, right = loss(slice(w // 2)), loss(slice(w // 2, w)), loss(slice(0))
    assert right < 0.1 * not_heard and 0.2 < not_heard / heard < 0.4


def test_rare_expressions_are_worth_learning():
    """The best constant guess of a weight that is mostly 0 is its mean, not 0; channels count in their own units."""
    truth = torch.zeros(10, 59)
    truth[0] = 1.0
    spread = torch.full((59,), 0.3)
    found = [losses.dynamics_loss(torch.full((10, 59), guess), truth, spread) for guess in (0.0, 0.1, 0.2)]
    assert found[1] < found[0] and found[1] < found[2]
    doubled = losses.dynamics_loss(torch.full((10, 59), 0.2), 2 * truth, 2 * spread)
    assert torch.allclose(doubled, found[1])


def test_what_encoders_read_off_a_picture_teaches_the_picture_alone(stills, tmp_path):
    batch, _ = data.StillShards(stills).stills(2, torch.Generator().manual_seed(4))
    torch.manual_seed(4)
    dynamics, pose = (kind(TINY.face).requires_grad_(False) for kind in (DynamicsEncoder, PoseEncoder))
    told = batch.head_pose, torch.ones(TINY.face.dynamics_dim)
    for encoder, loss in (
        (dynamics, lambda image: losses.expression_loss(dynamics, image, batch.image, *told)),
        (pose, lambda image: losses.head_loss(pose, image, batch.image)),
    ):
        assert loss(batch.image) == 0
        other = batch.image.flip(0).requires_grad_()
        loss(other).backward()
        assert other.grad.abs().sum() > 0 and all(p.grad is None for p in encoder.parameters())
    for name in ("expression", "head"):
        with pytest.raises(InputError, match="expected encoders for what they read"):
            train_face(stills, tmp_path, BOX, TINY, weights=FaceLossWeights(**{name: 0.1}))


def test_one_time_box_for_everything_that_sees(tmp_path):
    before = checkpoint.load(TINY_FOLDER)
    model = train_faces(tmp_path / "round", 1e-3, model=TINY_FOLDER, size=64, shard=(2, 4))
    after = checkpoint.load(model)
    assert sorted(p.stem for p in model.glob("*.safetensors")) == ["audio", "face", "motion", "reader"]
    changed = [k for k, v in after.face.state_dict().items() if not torch.equal(v, before.face.state_dict()[k])]
    assert changed
    for name, value in after.motion.state_dict().items():
        torch.testing.assert_close(value, before.motion.state_dict()[name], atol=2e-3, rtol=2e-3)
    scores = [json.loads(line) for line in (tmp_path / "round" / "face" / "scores.jsonl").read_text().splitlines()]
    assert {"discriminator", "perceptual", "expression", "head", "val_model"} <= scores[-1].keys()


def test_discriminators_learn_to_tell_and_their_losses_reach_the_picture():
    torch.manual_seed(0)
    adversary = Adversary(rate=2e-3, warmup=2)
    real = torch.rand(4, 3, 64, 64)
    fake = torch.full((4, 3, 64, 64), 0.5, requires_grad=True)
    told = [adversary.learn(fake, real).item() for _ in range(12)]
    assert told[-1] < 0.7 * told[0] and fake.grad is None
    adversarial, matching = adversary.losses(fake, real)
    (adversarial + matching).backward()
    assert fake.grad.abs().sum() > 0 and all(p.grad is None or not p.requires_grad for p in adversary.parameters())
    assert [adversary.share(step) for step in (0, 2, 3, 4, 9)] == [0, 0, 0.5, 1, 1]


def test_batches_made_ahead_are_the_same_every_time_and_pass_errors_on():
    def make(generator):
        return torch.rand(2, generator=generator)

    for threads in (0, 2):
        first, second = (Ahead(make, 3, threads) for _ in range(2))
        drawn = [first.take() for _ in range(5)]
        assert all(torch.equal(a, second.take()) for a in drawn)
        assert len({tuple(d.tolist()) for d in drawn}) == 5

    def broken(generator):
        raise InputError("no shards")

    with pytest.raises(InputError, match="no shards"):
        Ahead(broken, 0, 1).take()


def test_every_weight_of_the_face_can_be_set():
    from vasa.cli.train import FACE_LOSSES

    assert set(FACE_LOSSES) == set(FaceLossWeights.__dataclass_fields__)
