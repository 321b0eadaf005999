"""Speech never trained on, and clips in which portraits say it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..controls import Controls
from ..errors import InputError
from ..latents import DYNAMICS, Motion
from ..pipeline import Vasa
from ..synthetic.corpus import Corpus
from ..synthetic.phones import Segment
from .people import Talker, watch

RATE = 16_000
JAW = DYNAMICS.index("jawOpen")
TAIL_SECONDS = 1.5
"""Silence appended to every clip."""


@dataclass(frozen=True)
class Spoken:
    """Something said.

    Attributes:
        waveform: [N], 16 kHz.
        segments: its phones.
    """

    waveform: Tensor
    segments: tuple[Segment, ...]

    @property
    def seconds(self) -> float:
        """Length of the waveform."""
        return self.waveform.shape[0] / RATE

    @property
    def speech_end(self) -> float:
        """Time at which the last phone that is not silence ends, seconds."""
        return max((s.end for s in self.segments if s.phone != "sil"), default=0.0)


@dataclass(frozen=True)
class Clip:
    """A clip that was generated, decoded and read.

    Attributes:
        spoken: what was said.
        motion: what the generator made of it, T frames.
        jaw: jawOpen read off the decoded frames, [T].
        opening: mouth opening read off them, [T].
        talker: who was shown.
    """

    spoken: Spoken
    motion: Motion
    jaw: Tensor
    opening: Tensor
    talker: Talker


def require_unheard(corpus: Corpus) -> None:
    """Refuse a corpus with sentences that were trained on.

    Raises:
        InputError: a shard is not of the validation split.
    """
    if not all(corpus.validation):
        raise InputError(
            "expected a speech corpus of the validation split, got training speech; make it with --split validation"
        )


def shortened(spoken: Spoken, seconds: float) -> Spoken:
    """Everything up to the last phone that ends before `seconds`; at least one phone."""
    kept = tuple(s for s in spoken.segments if s.end <= seconds) or spoken.segments[:1]
    return Spoken(spoken.waveform[: round(kept[-1].end * RATE)], kept)


def with_silence(spoken: Spoken, seconds: float) -> Spoken:
    """The same, followed by silence."""
    begin = spoken.seconds
    silence = Segment(begin, begin + seconds, "sil", 0)
    return Spoken(F.pad(spoken.waveform, (0, round(seconds * RATE))), (*spoken.segments, silence))


def joined(pieces: Sequence[Spoken]) -> Spoken:
    """One after the other."""
    segments: list[Segment] = []
    begin = 0.0
    for piece in pieces:
        segments += [Segment(s.start + begin, s.end + begin, s.phone, s.viseme) for s in piece.segments]
        begin += piece.seconds
    return Spoken(torch.cat([piece.waveform for piece in pieces]), tuple(segments))


def draw_speech(corpus: Corpus, count: int, generator: Generator) -> list[Spoken]:
    """Different utterances in random order, all of them if there are fewer."""
    order = torch.randperm(len(corpus), generator=generator)[:count].tolist()
    return [Spoken(*corpus.utterance(index)[:2]) for index in order]


def long_speech(corpus: Corpus, seconds: float, generator: Generator) -> Spoken:
    """Utterances joined until they last `seconds`, then cut there."""
    pieces, total = [], 0.0
    while total < seconds:
        pieces += draw_speech(corpus, 1, generator)
        total += pieces[-1].seconds
    return shortened(joined(pieces), seconds)


def make_clips(
    pipe: Vasa, talkers: Sequence[Talker], speech: Sequence[Spoken], seconds: float, seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Clip]:  # fmt: skip
    """Let portraits say the beginnings of utterances, default controls, and read every decoded frame."""
    clips = []
    for number, whole in enumerate(speech):
        spoken = with_silence(shortened(whole, seconds), TAIL_SECONDS)
        talker = talkers[number % len(talkers)]
        motion = pipe.generate(spoken.waveform, talker.face, Controls(seed=seed + number))
        seen = watch(pipe, talker.face, motion)
        clips.append(Clip(spoken, motion, seen.dynamics[:, JAW], seen.mouth_opening, talker))
        if progress is not None:
            progress(number + 1)
    return clips


def frame_times(frames: int, fps: float) -> Tensor:
    """Frame k shows the time (k + 1/2) / fps, [T] seconds."""
    return (torch.arange(frames) + 0.5) / fps


def frames_of(seconds: float, fps: float) -> int:
    """Frames that show the first `seconds`."""
    return max(1, math.floor(seconds * fps))
