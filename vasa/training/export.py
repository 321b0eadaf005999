"""Training runs -> a model folder that `--model` accepts."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..checkpoint import save
from ..config import VasaConfig
from ..errors import InputError
from ..face.matte import PersonMatte
from ..face.model import FaceModel
from ..face.reader import FaceReader
from ..motion.transformer import Denoiser
from .audio import AudioTrainee
from .loop import load_matching


def export(
    out: str | Path, config: VasaConfig, *, face: str | Path, audio: str | Path, motion: str | Path,
    closeups: str | Path | None = None, reader: str | Path | None = None, matte: str | Path | None = None,
) -> None:  # fmt: skip
    """Gather the averaged weights of training runs into one folder of half-precision safetensors.

    Args:
        out: model folder.
        config: the configuration all runs were trained with.
        face, audio, motion, reader, matte: run folders; a model works without a reader, and without a matte of its own.
        closeups: their own run, where the face's was without them.

    Raises:
        InputError: a run has no weights, or they belong to another configuration.
    """
    parts: dict[str, nn.Module] = {"face": FaceModel(config.face)}
    filled = _fill(parts["face"], face)
    if closeups is not None and parts["face"].closeups is not None:
        filled |= {f"closeups.{name}" for name in _fill(parts["face"].closeups, closeups)}
    _demand_all(parts["face"], filled, face)
    trainee = AudioTrainee(config)
    _demand_all(trainee, _fill(trainee, audio), audio)
    parts["audio"] = trainee.encoder
    parts["motion"] = Denoiser(config.motion, config.motion_dim, trainee.encoder.feature_dim)
    _demand_all(parts["motion"], _fill(parts["motion"], motion), motion)
    for name, module, run in (("reader", FaceReader(config.reader), reader), ("matte", PersonMatte(), matte)):
        if run is not None:
            parts[name] = module
            _demand_all(module, _fill(module, run), run)
    save(out, config, parts)


def _fill(module: nn.Module, run: str | Path) -> set[str]:
    path = Path(run)
    return load_matching(module, path / "weights.safetensors" if path.is_dir() else path)


def _demand_all(module: nn.Module, filled: set[str], run: str | Path) -> None:
    missing = sorted(module.state_dict().keys() - filled)
    if missing:
        raise InputError(
            f"{run} lacks {len(missing)} tensors of this configuration, such as {missing[0]}; "
            "export with the configuration it was trained with, and name the runs of all parts"
        )
