"""Weights on disk: what is read, what is refused."""

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vasa import checkpoint
from vasa.config import TINY
from vasa.errors import InputError

TINY_FOLDER = Path(__file__).parent / "data" / "tiny"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TINY_FOLDER, tmp_path / "model"))


def rewrite(path, change, metadata=None):
    state = load_file(path)
    change(state)
    save_file(
        state,
        path,
        metadata={"format": checkpoint.FORMAT, "config": TINY.to_json()} if metadata is None else metadata,
    )


def test_saving_and_loading_returns_the_same_weights(folder, tmp_path):
    models = checkpoint.load(folder)
    checkpoint.save(
        tmp_path / "again",
        models.config,
        {"face": models.face, "motion": models.motion, "audio": models.audio},
    )
    again = checkpoint.load(tmp_path / "again")
    assert again.config == models.config == TINY
    for a, b in zip(models.face.parameters(), again.face.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(models.motion.mean, again.motion.mean), "statistics are kept in float32"
    listed = (tmp_path / "again" / "sha256.txt").read_text().split()
    assert checkpoint.sha256(tmp_path / "again" / "face.safetensors") in listed


def test_an_encoder_of_its_own_is_heard_with_before_a_public_one(folder, tmp_path):
    models = checkpoint.load(folder)
    config = replace(TINY, audio=replace(TINY.audio, source="nobody/no-encoder"))
    checkpoint.save(tmp_path / "own", config, {"face": models.face, "motion": models.motion, "audio": models.audio})
    own = checkpoint.load(tmp_path / "own")
    sound = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(own.audio(sound, 25), models.audio(sound, 25))
    (tmp_path / "own" / "audio.safetensors").unlink()
    with pytest.raises(InputError, match="hf download nobody/no-encoder"):
        checkpoint.load(tmp_path / "own").audio(sound, 25)


def test_a_missing_file_is_named(folder):
    (folder / "motion.safetensors").unlink()
    with pytest.raises(InputError, match=r"motion\.safetensors.*vasa train"):
        checkpoint.load(folder)


def test_an_unknown_model_lists_what_there_is():
    with pytest.raises(InputError, match="no-such-model.*shipped models"):
        checkpoint.find("no-such-model")


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "weights.ckpt", "x.pth"])
def test_pickles_are_refused_unopened(name):
    with pytest.raises(InputError, match="pickle"):
        checkpoint.find(name)


def test_other_shapes_are_named(folder):
    rewrite(folder / "face.safetensors", lambda s: s.update({"identity.head.bias": torch.zeros(3)}))
    with pytest.raises(InputError, match="identity.head.bias"):
        checkpoint.load(folder)


def test_missing_tensors_are_named(folder):
    rewrite(folder / "face.safetensors", lambda s: s.pop("identity.head.bias"))
    with pytest.raises(InputError, match="identity.head.bias"):
        checkpoint.load(folder)


def test_nan_is_refused(folder):
    def poison(state):
        state["identity.head.bias"][0] = float("nan")

    rewrite(folder / "face.safetensors", poison)
    with pytest.raises(InputError, match="identity.head.bias.*NaN"):
        checkpoint.load(folder)


@pytest.mark.parametrize("metadata", [{}, {"format": "vasa/1", "config": "{"}, {"format": "other/3", "config": "{}"}])
def test_foreign_headers_are_refused(folder, metadata):
    rewrite(folder / "face.safetensors", lambda s: None, metadata=metadata)
    with pytest.raises(InputError, match="format|configuration"):
        checkpoint.load(folder)


@pytest.mark.parametrize("damage", ["truncated", "empty", "huge header", "header beyond the end", "text"])
def test_damaged_files_are_refused(folder, damage):
    path = folder / "face.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "empty": b"",
            "huge header": struct.pack("<Q", 2**63 - 1) + data[8:],
            "header beyond the end": struct.pack("<Q", len(data)) + data[8:],
            "text": b"this is not a model, it is a sentence",
        }[damage]
    )
    with pytest.raises(InputError, match="face.safetensors"):
        checkpoint.load(folder)


def test_a_file_of_very_many_tensors_is_refused(tmp_path):
    """Row 28: 200,000 empty tensors are no model, and are not read one by one."""
    path = tmp_path / "face.safetensors"
    save_file({f"t{index}": torch.zeros(0) for index in range(25_000)}, path)
    with pytest.raises(InputError, match="25000 tensors"):
        checkpoint.read_weights(path)
    names = ",".join(f'"t{index}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for index in range(200_000))
    header = ("{" + names + "}").encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="face.safetensors"):
        checkpoint.read_weights(path)
