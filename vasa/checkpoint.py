"""Weights on disk: one folder per model, safetensors only, the configuration in the header. The only reader of weights.

A folder holds `face.safetensors`, `motion.safetensors`, `audio.safetensors` (or its configuration names a public
encoder to hear with) and optionally `reader.safetensors`;
`sha256.txt` lists their hashes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .audio import AudioEncoder
from .config import AudioConfig, VasaConfig
from .errors import InputError
from .face.matte import PersonMatte
from .face.model import FaceModel
from .face.reader import FaceReader
from .motion.transformer import Denoiser

FORMAT = "vasa/1"
PACKAGED = Path(__file__).parent / "weights"
_MAX_HEADER = 8 << 20
_MAX_TENSORS = 20_000


class AbsentEncoder(nn.Module):
    """In the place of a public audio encoder that is not on this machine: it says so once it is to hear.

    The model can still show motion, and hear with an encoder that is brought from elsewhere (`Vasa.hearing`).
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def feature_dim(self) -> int:
        """Channels of the features there would be."""
        return self.config.feature_dim + 1

    def forward(self, waveform: Tensor, num_frames: int) -> Tensor:
        """Raises InputError."""
        source = self.config.source
        raise InputError(
            f"the audio encoder {source} is not in the local Hugging Face cache; download it with "
            f"`hf download {source}` or point the configuration to a folder"
        )


@dataclass(frozen=True)
class Models:
    """Everything a checkpoint holds."""

    config: VasaConfig
    face: FaceModel
    motion: Denoiser
    audio: AudioEncoder | AbsentEncoder
    reader: FaceReader | None
    matte: PersonMatte | None = None
    """Tells the person from the background, for a face model that paints with the latter."""


def find(name_or_folder: str | Path) -> Path:
    """The folder of a model: an existing folder, or the name of one shipped inside the package.

    Raises:
        InputError: neither exists.
    """
    folder = Path(name_or_folder)
    if folder.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".bin"):
        raise InputError(f"{folder} is a pickle file, which can run code when opened; give a folder of safetensors")
    if folder.is_dir():
        return folder
    packaged = PACKAGED / str(name_or_folder)
    if packaged.is_dir() and folder.name == str(name_or_folder):
        return packaged
    shipped = ", ".join(sorted(p.name for p in PACKAGED.iterdir() if p.is_dir())) if PACKAGED.is_dir() else "none"
    raise InputError(
        f"no model at {name_or_folder}: neither a folder nor one of the shipped models ({shipped}); "
        "train one with `vasa train` or check --model"
    )


def backend_of(name_or_folder: str | Path) -> str:
    """Which engine a model folder is for, by the headers of its files: "vasa" or "liveportrait".

    Raises:
        InputError: no such model, or published weights that are not converted yet.
    """
    folder = find(name_or_folder)
    path = folder / "decoder.safetensors"
    if not path.is_file():
        if not (folder / "face.safetensors").is_file() and any(folder.rglob("spade_generator.*")):
            raise InputError(
                f"{folder} holds published weights, not a model folder; make one with "
                f"`vasa convert liveportrait {folder} MODEL_FOLDER` and give that"
            )
        return "vasa"
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _MAX_HEADER else b""
    try:
        named = json.loads(header)["__metadata__"]["format"]
    except (ValueError, KeyError, TypeError):
        return "vasa"
    return named.partition("/")[0]


def load(name_or_folder: str | Path, device: torch.device | str = "cpu") -> Models:
    """Load a model for inference.

    Raises:
        InputError: a file is missing, damaged, not finite, or does not fit its configuration.
    """
    folder = find(name_or_folder)
    state, header = read_weights(folder / "face.safetensors")
    config = _config_of(header, folder / "face.safetensors")
    face = _filled(FaceModel(config.face), state, folder / "face.safetensors")
    audio = _load_audio(config, folder)
    state, _ = read_weights(folder / "motion.safetensors")
    denoiser = Denoiser(config.motion, config.motion_dim, audio.feature_dim)
    motion = _filled(denoiser, state, folder / "motion.safetensors")
    matte = load_matte() if config.face.background else None
    models = Models(config, face, motion, audio, load_reader(folder), matte)
    for model in (models.face, models.motion, models.audio, models.reader, models.matte):
        if model is not None:
            model.to(device).eval().requires_grad_(False)
    return models


def load_reader(folder: Path) -> FaceReader | None:
    """The face reader of a model folder; None if it has none."""
    path = folder / "reader.safetensors"
    if not path.is_file():
        return None
    state, header = read_weights(path)
    return _filled(FaceReader(_config_of(header, path).reader), state, path).eval()


def load_matte() -> PersonMatte:
    """The network that tells person from background in any engine's frames; one is shipped, beside vasa-mini.

    Raises:
        InputError: its file is missing or damaged.
    """
    path = PACKAGED / "vasa-mini" / "matte.safetensors"
    return _filled(PersonMatte(), read_weights(path)[0], path).eval().requires_grad_(False)


def _load_audio(config: VasaConfig, folder: Path) -> AudioEncoder | AbsentEncoder:
    path = folder / "audio.safetensors"
    # trained with the motion it came with, an encoder of its own is the one that motion understands
    if path.is_file() or not config.audio.source:
        return _filled(AudioEncoder(config.audio), read_weights(path)[0], path)
    from transformers import Wav2Vec2Model

    try:
        encoder = Wav2Vec2Model.from_pretrained(config.audio.source, local_files_only=True, use_safetensors=True)
    except OSError:
        return AbsentEncoder(config.audio)
    return AudioEncoder(config.audio, encoder)


def save(
    folder: str | Path, config: VasaConfig, parts: dict[str, nn.Module], dtype: torch.dtype = torch.float16
) -> None:
    """Write models as safetensors with the configuration in each header, and their hashes.

    Args:
        folder: created if needed; existing files of the same name are replaced.
        config: stored as JSON.
        parts: file stem ("face", "motion", "audio", "reader") -> module.
        dtype: storage type of floating-point tensors; normalisation statistics stay float32.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stem, module in parts.items():
        buffers = {name for name, _ in module.named_buffers()}
        state = {
            k: v.detach().cpu().to(v.dtype if k in buffers or not v.is_floating_point() else dtype).contiguous()
            for k, v in module.state_dict().items()
        }
        temporary = folder / f".{stem}.partial"
        save_file(state, temporary, metadata={"format": FORMAT, "config": config.to_json()})
        temporary.replace(folder / f"{stem}.safetensors")
    hashes = [f"{sha256(p)}  {p.name}" for p in sorted(folder.glob("*.safetensors"))]
    (folder / "sha256.txt").write_text("\n".join(hashes) + "\n")


def sha256(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else (hashlib.sha256(file.read()).hexdigest())
        )


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (as float32) and header strings of a safetensors file.

    Raises:
        InputError: missing, not safetensors, oversized header, or a tensor with NaN or infinity.
    """
    if not path.is_file():
        raise InputError(f"expected weights at {path}, found none; train them with `vasa train` or check --model")
    with open(path, "rb") as file:
        start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(_MAX_HEADER, path.stat().st_size):
        raise InputError(f"{path} is not a readable safetensors file (damaged header); copy or train it again")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > _MAX_TENSORS:
                raise InputError(f"{path} holds {len(names)} tensors, more than any model of ours; it is not a model")
            state = {name: file.get_tensor(name) for name in names}
            header = dict(file.metadata() or {})
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); copy or train it again") from error
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = value.float()
            if not torch.isfinite(state[name]).all():
                raise InputError(f"{path}: tensor {name} holds NaN or infinite values; train or copy the file again")
    return state, header


def _config_of(header: dict[str, str], path: Path) -> VasaConfig:
    if header.get("format") != FORMAT:
        raise InputError(f"{path} has format {header.get('format')!r}, this version reads {FORMAT!r}; convert it")
    try:
        return VasaConfig.from_json(header["config"])
    except (KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: the configuration in its header cannot be read ({error})") from error


def _filled(model: nn.Module, state: dict[str, Tensor], path: Path) -> nn.Module:
    own = model.state_dict()
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own or own[k].shape != state[k].shape]
    if wrong:
        raise InputError(
            f"{path} does not fit its configuration; first differing tensors: {', '.join(wrong[:5])}; "
            "was it made by another version?"
        )
    model.load_state_dict(state)
    return model
