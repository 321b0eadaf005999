"""How sound is cut into windows: W frames drawn at a time, some of them known, some of them thrown away.

|- K past -|- known -|-- kept (hop) --|- drawn for what comes after -|
           |<------------- window drawn by the model --------------->|
                                      |- look-ahead -|                 sound heard beyond what is kept
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Span:
    """What one window does, in frames of the session.

    Attributes:
        start: its first frame.
        known: its first frames that were given out before and stay as they are, or lie before the first.
        kept: new frames it gives.
        length: frames it draws, `known + kept` or more.
        heard: sound is known up to `start + heard`, which may lie beyond the window.
        has_past: whether K frames come before `start`.
    """

    start: int
    known: int
    kept: int
    length: int
    heard: int
    has_past: bool

    @property
    def needs(self) -> int:
        """The frame up to which sound must have arrived."""
        return self.start + self.heard


@dataclass(frozen=True)
class WindowPlan:
    """How a stream of sound is cut. The defaults are for files: few large windows.

    Attributes:
        window: frames drawn at a time, at most the model's W.
        overlap: frames of it that were given before and lead it on (K more precede them as the paper's X_pre), >= 1.
        hop: new frames each window gives, at most `window - overlap`.
        look_ahead: frames of sound heard beyond those that are given; the delay a listener pays.
        steps: denoising steps; None: as the controls say.
        first: frames the first window gives, which has nothing to continue; None: as many as it can.
        context: frames of sound before the past that the audio encoder also hears (0.4 s at 25 fps).
        lead: frames of silence in front of the first window, drawn and not given: it is then as long as those that
            follow, and begins with known frames as they do.

    Raises:
        InputError: numbers that do not go together.
    """

    window: int = 50
    overlap: int = 5
    hop: int = 38
    look_ahead: int = 10
    steps: int | None = None
    first: int | None = None
    context: int = 10
    lead: int = 0

    def __post_init__(self) -> None:
        if not (self.overlap >= 1 and 1 <= self.hop <= self.window - self.overlap):
            raise InputError(
                f"a window of {self.window} frames with {self.overlap} known ones can give a hop of 1 to "
                f"{self.window - self.overlap} frames, got {self.hop}"
            )
        if min(self.look_ahead, self.context, self.lead) < 0 or (self.steps is not None and self.steps < 1):
            raise InputError(
                f"look-ahead, context and lead must not be negative and steps must be at least 1, got "
                f"{self.look_ahead}, {self.context}, {self.lead} and {self.steps}"
            )
        if self.first is not None and not 1 <= self.first <= self.window:
            raise InputError(f"the first window can give 1 to {self.window} frames, got {self.first}")

    @classmethod
    def full(cls, window: int = 50, overlap: int = 5) -> WindowPlan:
        """For files: windows as large as the model's, of which all is used but what smoothing looks ahead."""
        return cls(window=window, overlap=overlap, hop=window - overlap - SMOOTHING)

    @classmethod
    def live(
        cls, hop: int = 5, look_ahead: int = 2, steps: int | None = 10, overlap: int = 10, lead: int = 0
    ) -> WindowPlan:
        """For live use: `hop` new frames as soon as the sound of `hop + look_ahead` frames is there."""
        tail = max(look_ahead, SMOOTHING)
        return cls(overlap + hop + tail, overlap, hop, look_ahead, steps, first=hop, lead=lead)

    def count(self, num_frames: int) -> int:
        """Windows that a clip of `num_frames` frames takes."""
        first = self._first
        return 1 + max(0, math.ceil((num_frames - first) / self.hop))

    @property
    def _tail(self) -> int:
        """Frames drawn beyond those that are given."""
        return self.window - self.overlap - self.hop

    @property
    def _first(self) -> int:
        return self.first if self.first is not None else self.window - self._tail

    def span(self, frame: int, num_previous: int) -> Span:
        """The window that gives the frames from `frame` on.

        Args:
            frame: frames given so far.
            num_previous: K of the model.
        """
        begin = -self.lead
        start, kept = frame - self.overlap, self._first if frame == 0 else self.hop
        has_past = frame > 0 and start - num_previous >= begin
        if not has_past:
            # while there is no full past yet, everything since the beginning is known instead
            start = max(start, begin) if self.lead else begin
        known = frame - start
        return Span(start, known, kept, known + kept + self._tail, known + kept + self.look_ahead, has_past)

    def largest(self, num_previous: int) -> int:
        """Most frames that any window of this plan draws."""
        frame, longest = 0, 0
        while frame < self.overlap + num_previous + self.hop:
            span = self.span(frame, num_previous)
            longest = max(longest, span.length)
            frame += span.kept
        return longest


SMOOTHING = 7
"""Frames on either side that `windows.calm` looks at: so far beyond what it gives a window settles the head's path."""
