"""Controls that change while a session runs: which hold in which frame, and how one gives way to the next."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from ..controls import ControlCurves, Controls

EASE = 10
"""Frames over which new controls take over from the old ones (0.4 s at 25 fps); a head does not jump."""


class ControlSchedule:
    """Controls and the frames from which they hold. Their curves always count from the session's beginning.

    Args:
        entries: (first frame, controls), ascending; the first holds from the beginning.
        origin: the frame of the beginning; those before it were given from elsewhere.
    """

    def __init__(self, entries: list[tuple[int, Controls]], origin: int = 0) -> None:
        self.entries, self.origin = entries, origin

    def copy(self) -> ControlSchedule:
        """The same, which later changes do not touch."""
        return ControlSchedule(self.entries, self.origin)

    @property
    def latest(self) -> Controls:
        """The controls set last."""
        return self.entries[-1][1]

    def change(self, frame: int, controls: Controls) -> None:
        """Let other controls take over from `frame` on; later changes that were planned are forgotten."""
        self.entries = [e for e in self.entries if e[0] < frame] + [(frame, controls)]

    def forget(self, frame: int) -> None:
        """Drop what no frame from `frame` on asks for any more."""
        past = [i for i, (first, _) in enumerate(self.entries) if first + EASE <= frame]
        self.entries = self.entries[past[-1] if past else 0 :]

    def curves(self, frames: range, fps: float) -> ControlCurves:
        """What is asked for in every one of these frames; `ControlCurves` of length len(frames)."""
        start = frames.start - self.origin
        made = self.entries[0][1].curves(len(frames), fps, start)
        for first, controls in self.entries[1:]:
            if first >= frames.stop:
                break
            new = controls.curves(len(frames), fps, start)
            share = (torch.arange(frames.start - first + 1, frames.stop - first + 1) / EASE).clamp(0, 1)
            made = _blend(made, new, share * share * (3 - 2 * share))
        return made


def _blend(old: ControlCurves, new: ControlCurves, share: Tensor) -> ControlCurves:
    blended = {}
    for field in fields(new):
        a, b = getattr(old, field.name), getattr(new, field.name)
        if isinstance(b, Tensor) and b.is_floating_point() and isinstance(a, Tensor):
            weight = share.to(b).reshape(-1, *([1] * (b.dim() - 1)))
            blended[field.name] = torch.lerp(a, b, weight)
    return replace(new, **blended)
