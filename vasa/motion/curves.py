"""Motion as a table for other programs: head turn in degrees and expression curves under ARKit's names.

The asset pack's expression weights are ARKit's, some of them split into left and right; the split ones are averaged
again, and the few that ARKit does not know keep their own names. Left and right are the person's.
"""

from __future__ import annotations

from torch import Tensor

from ..latents import Motion

HEAD: tuple[str, ...] = ("headYaw", "headPitch", "headRoll", "headX", "headY", "headScale")
"""Degrees about the rest (or the camera, if the motion has none), unit-cube lengths, factor."""
_UNSPLIT = ("browInnerUp", "cheekPuff")
_EYES = {"eyeYaw": ("leftEyeYaw", "rightEyeYaw"), "eyePitch": ("leftEyePitch", "rightEyePitch")}
_SIDES = {"_L": "Left", "_R": "Right"}


def arkit_name(name: str) -> str:
    """A dynamics channel under ARKit's name.

    >>> arkit_name("mouthSmile_L"), arkit_name("browInnerUp_R"), arkit_name("jawOpen")
    ('mouthSmileLeft', 'browInnerUp', 'jawOpen')
    """
    stem, side = name[:-2], name[-2:]
    if side not in _SIDES:
        return name
    return stem if stem in _UNSPLIT else stem + _SIDES[side]


def curves_table(motion: Motion, names: tuple[str, ...] = ()) -> tuple[list[str], list[list[float]]]:
    """Every frame as a row of numbers.

    Args:
        motion: [T, ...].
        names: meaning of the dynamics channels; those without a name are called dynamics0, dynamics1 ...

    Returns:
        Column names (time in seconds, head, expressions) and T rows.
    """
    time = [frame / motion.fps for frame in range(len(motion))]
    columns: dict[str, list[Tensor]] = {}
    for index, curve in enumerate(motion.facial_dynamics.detach().cpu().unbind(-1)):
        name = names[index] if index < len(names) else f"dynamics{index}"
        if name in _EYES:
            for column in _EYES[name]:
                columns[column] = [curve.rad2deg()]
        else:
            columns.setdefault(arkit_name(name), []).append(curve)
    head = _head(motion)
    values = [time, *head, *((sum(curves) / len(curves)).tolist() for curves in columns.values())]
    rows = [[round(value, 6) for value in row] for row in zip(*values, strict=True)]
    return ["time", *HEAD, *columns], rows


def _head(motion: Motion) -> list[list[float]]:
    pose = motion.head_pose.detach().float().cpu()
    if motion.rest is not None:
        pose = pose - motion.rest.float().cpu()
    degrees = pose[:, :3].rad2deg()
    return [*(c.tolist() for c in degrees.unbind(-1)), *(c.tolist() for c in pose[:, 3:5].unbind(-1)),
            pose[:, 5].exp().tolist()]  # fmt: skip
