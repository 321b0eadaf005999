"""Speech -> features, as Ditto hears it: HuBERT over stretches of 0.4 s, five frames of features from each.

The published encoder carries the keys and values of a fixed piece of speech inside it and exists as an ONNX graph
only, so ONNX Runtime runs it (extra `ditto`); nothing of it is translated.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from .config import DittoConfig

PAST, FRESH, FUTURE = 3, 5, 2
"""Frames of sound in a stretch: before those that it gives features of, these, and behind them."""
_FRAME, _MORE = 640, 80
STRETCH = (PAST + FRESH + FUTURE) * _FRAME + _MORE
"""Samples of a stretch; the encoder gives two features a frame."""
_BEFORE = PAST * _FRAME + _MORE
_REMEMBERED = 128
"""Stretches: those of six windows."""


class StretchEncoder(nn.Module):
    """[B, N] at 16 kHz -> [B, T, A].

    Args:
        config: of the generator.
        encode: a stretch of samples [1, 6480] -> its features [20, A].
    """

    stride = FRESH
    """Stretches begin at multiples of so many frames, as in the published program, wherever a window begins."""

    def __init__(self, config: DittoConfig, encode: Any) -> None:
        super().__init__()
        self.config = config
        self._encode = encode
        # windows of a live stream overlap, so that most of what each hears was heard before
        self._heard = functools.lru_cache(maxsize=_REMEMBERED)(self._hear)

    def forward(self, waveform: Tensor, num_frames: int) -> Tensor:
        """Features of a stretch of sound.

        Args:
            waveform: mono in [-1, 1], [B, N]; N samples last exactly `num_frames` video frames.
            num_frames: T.
        """
        rows = [self._features(row, num_frames) for row in waveform]
        return torch.stack(rows).to(waveform.device)

    def _features(self, samples: Tensor, num_frames: int) -> Tensor:
        count = -(-num_frames // FRESH)
        samples = F.pad(samples.float().cpu(), (_BEFORE, STRETCH + FRESH * _FRAME))
        pieces = []
        for i in range(count):
            first = i * FRESH * _FRAME
            pieces.append(self._heard(samples[first : first + STRETCH].numpy().tobytes()))
        return torch.cat(pieces)[:num_frames]

    def _hear(self, stretch: bytes) -> Tensor:
        heard = self._encode(torch.frombuffer(bytearray(stretch), dtype=torch.float32)[None])
        return heard[-2 * (FRESH + FUTURE) : -2 * FUTURE].unflatten(0, (FRESH, 2)).mean(1)


class OnnxHubert:
    """The published graph: `input_values` [1, 6480] -> features [20, A]. It is opened when first used.

    Args:
        path: the ONNX file.
        audio_dim: A.
    """

    def __init__(self, path: Path, audio_dim: int) -> None:
        self.path, self.audio_dim = path, audio_dim

    def __call__(self, samples: Tensor) -> Tensor:
        """Features of one stretch.

        Raises:
            InputError: ONNX Runtime is not installed, or the file is not such a graph.
        """
        session = self._session
        try:
            features = session.run(None, {"input_values": samples.contiguous().numpy()})[0]
        except Exception as error:  # ONNX Runtime has no public base of its errors
            raise InputError(
                f"{self.path} does not run as Ditto's speech encoder ({_reason(error)}); convert it again"
            ) from error
        expected = (2 * (PAST + FRESH + FUTURE), self.audio_dim)
        if features.shape != expected:
            raise InputError(
                f"{self.path} gives features {list(features.shape)}, expected {list(expected)}; it is not Ditto's "
                "speech encoder"
            )
        return torch.from_numpy(features)

    @functools.cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                "Ditto's speech encoder is published as ONNX; install ONNX Runtime with `pip install onnxruntime`"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        there = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:
            raise InputError(f"{self.path} is not a readable ONNX file ({_reason(error)}); convert it again") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
