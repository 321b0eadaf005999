"""When somebody speaks and when nobody does, as a slow curve: how much an idle head should still move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .sound import SoundBuffer

SPEECH_RMS = 10 ** (-45 / 20)
"""A frame louder than this counts as speech (-45 dBFS)."""
HOLD, RAMP = 25, 25
"""Frames that speech is taken to last after it was heard, and frames to go from idle to speaking or back."""
REACH = HOLD + RAMP
"""Frames before the first one that are listened to."""


def speaking(sound: SoundBuffer, frames: range, sample_of: Callable[[int], int]) -> Tensor:
    """1 while somebody speaks, 0 while nobody does, with ramps of a second between, [T].

    A function of the sound of the last two seconds alone, so that any stretch of it can be asked for at any time.

    Args:
        sound: at least from `REACH` frames before on; silence before its start.
        frames: which frames.
        sample_of: index of the first sample of a frame.
    """
    loud = []
    for frame in range(frames.start - REACH, frames.stop):
        piece = sound.piece(sample_of(frame), sample_of(frame + 1))
        loud.append(piece.square().mean().sqrt() > SPEECH_RMS)
    heard = torch.stack(loud).float()  # [REACH + T]
    held = heard.unfold(0, HOLD + 1, 1).amax(-1)  # [RAMP + T]
    share = held.unfold(0, RAMP, 1).mean(-1)[1:]
    return share * share * (3 - 2 * share)
