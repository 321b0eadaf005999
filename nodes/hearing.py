"""ComfyUI's own audio encoders as the ears of a model whose generator was trained with such a one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from .engine import InputError


class CoreEncoder(nn.Module):
    """ComfyUI's AUDIO_ENCODER behind the interface of `transformers`: samples in, `last_hidden_state` out.

    Args:
        core: from Load Audio Encoder. Its weights stay with ComfyUI's model management.

    Attributes:
        feature_dim: A.
        managed: ComfyUI's handle on the weights.

    Raises:
        InputError: Whisper, or something else than Wav2Vec2.
    """

    def __init__(self, core: Any) -> None:
        super().__init__()
        # a plain attribute: whoever moves our weights must not move ComfyUI's
        self.core = core
        try:
            self.feature_dim = int(core.model.feature_projection.projection.out_features)
            self.managed = core.patcher
        except AttributeError as error:
            kind = type(getattr(core, "model", core)).__name__
            raise InputError(
                f"expected a Wav2Vec2 audio encoder, got {kind}; choose wav2vec2 in Load Audio Encoder"
            ) from error

    def forward(self, waveform: Tensor) -> SimpleNamespace:
        """[B, N] at 16 kHz -> `last_hidden_state` [B, t, A] on the samples' device."""
        heard, _ = self.core.model(waveform[:, None].to(self.core.load_device))
        return SimpleNamespace(last_hidden_state=heard.to(waveform.device))


def check_hears(engine: Any, ears: CoreEncoder | None) -> None:
    """Raise InputError unless the engine can hear: with these ears, or with its own."""
    if ears is not None:
        engine.hearing(ears)
        return
    source = getattr(engine.config.audio, "source", "")
    if source and not hasattr(engine.models.audio, "encoder"):
        raise InputError(
            f"this model hears with {source}, which is not on this machine; put its file into models/audio_encoders "
            "and connect Load Audio Encoder to audio_encoder"
        )
