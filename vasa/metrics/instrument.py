"""How well the judge itself sees: the reader on true pictures of the people who are measured.

No figure that it gives of decoded pictures can be better than this.
"""

from __future__ import annotations

from torch import Tensor

from ..face.reader import Reading
from ..latents import DYNAMICS, EMOTIONS
from ..synthetic.emotions import emotion_of
from .lips import correlation
from .people import HeldOut, blink_of

_EYE = DYNAMICS.index("eyeYaw")
_JAW = DYNAMICS.index("jawOpen")


def regression_slope(read: Tensor, truth: Tensor) -> float:
    """Least-squares slope of what is read over the truth, [N] and [N]; below 1 the reader shrinks what it sees."""
    x, y = truth.double() - truth.double().mean(), read.double() - read.double().mean()
    return float((x * y).sum() / x.square().sum().clamp_min(1e-12))


def describe(seen: Reading, held: HeldOut) -> str:
    """One sentence on the reader's errors.

    Args:
        seen: what it reads off everybody's own pictures, P·F of them.
        held: the truth.
    """
    pose, dynamics = held.head_pose.flatten(0, 1), held.dynamics.flatten(0, 1)
    angles = (seen.head_pose[:, :3] - pose[:, :3]).abs().mean(0).rad2deg().tolist()
    gaze, true_gaze = (p[:, :2] + d[:, _EYE : _EYE + 2] for p, d in ((seen.head_pose, seen.dynamics), (pose, dynamics)))
    slopes = [regression_slope(gaze[:, axis], true_gaze[:, axis]) for axis in (0, 1)]
    scale = regression_slope(seen.head_pose[:, 5], pose[:, 5])
    emotion = emotion_of(dynamics)
    shown = emotion.argmax(1) != EMOTIONS.index("neutral")
    named = (seen.emotion.argmax(1) == emotion.argmax(1))[shown].float().sum() / shown.sum().clamp_min(1)
    return (
        f"on {len(pose)} true pictures it errs by {angles[0]:.1f}° in yaw, {angles[1]:.1f}° in pitch and "
        f"{angles[2]:.1f}° in roll, sees gaze with slope {slopes[0]:.2f} (yaw) and {slopes[1]:.2f} (pitch) "
        f"and distance with slope {scale:.2f}, jawOpen with correlation "
        f"{correlation(seen.dynamics[:, _JAW], dynamics[:, _JAW]):.2f}, eyeBlink with "
        f"{correlation(blink_of(seen.dynamics), blink_of(dynamics)):.2f}, and names {named:.0%} of the "
        "emotions shown"
    )
