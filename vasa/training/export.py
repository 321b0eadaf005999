"""Training runs -> a model folder that `--model` accepts."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import save
from ..config import VasaConfig
from ..face.matte import PersonMatte
from ..face.model import FaceModel
from ..face.reader import FaceReader, ReaderConfig
from ..motion.transformer import Denoiser
from .audio import AudioTrainee
from .loop import load_matching


def export(
    out: str | Path, config: VasaConfig, *, face: str | Path, audio: str | Path, motion: str | Path,
    reader: str | Path | None = None, matte: str | Path | None = None,
) -> None:  # fmt: skip
    """Gather the averaged weights of training runs into one folder of half-precision safetensors.

    Args:
        out: model folder.
        config: the configuration all runs were trained with.
        face, audio, motion, reader, matte: run folders; a model works without a reader, and without a matte of its own.

    Raises:
        InputError: a run has no weights, or they belong to another configuration.
    """
    parts = {"face": FaceModel(config.face)}
    load_matching(parts["face"], _averaged(face))
    trainee = AudioTrainee(config)
    load_matching(trainee, _averaged(audio))
    parts["audio"] = trainee.encoder
    parts["motion"] = Denoiser(config.motion, config.motion_dim, trainee.encoder.feature_dim)
    load_matching(parts["motion"], _averaged(motion))
    if reader is not None:
        parts["reader"] = FaceReader(ReaderConfig())
        load_matching(parts["reader"], _averaged(reader))
    if matte is not None:
        parts["matte"] = PersonMatte()
        load_matching(parts["matte"], _averaged(matte))
    save(out, config, parts)


def _averaged(run: str | Path) -> Path:
    path = Path(run)
    return path / "weights.safetensors" if path.is_dir() else path
