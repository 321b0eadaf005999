"""What the user asks for, done to LivePortrait's motion: of most of it the generators know nothing.

Poses are shaped as everywhere (`vasa.motion.shape`); eyes, lids, mouth and the rest of the face are moved by their
keypoints. Every frame is changed by its own controls alone, so that pieces of a stream equal the whole.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...controls import ControlCurves, Controls, Track
from ...errors import InputError
from ...latents import FaceLatents, Motion
from ...motion.shape import shape
from .config import NUM_KEYPOINTS
from .ditto_portrait import BLINKS_A_MINUTE
from .keypoints import EYES, LEFT_BALL, LEFT_LID, LIPS, RIGHT_BALL, RIGHT_LID

BALL_PER_DEGREE = (0.26e-3, 0.28e-3)
"""How far eyeball keypoints move for a degree of (yaw, pitch): the ratios Ditto keeps the gaze steady by."""
_TOWARDS, _AWAY = 1.0, 0.7
"""The eye that turns towards the temple moves more than the one that turns towards the nose."""
_LID_SHARE = 0.15
"""Upper lids follow the eyeball by this share."""
CLOSED_BALL, CLOSED_LID = 0.019, -0.0045
"""Vertical movement of eyeball and lid keypoints from open to shut eyes, measured in the driving templates that are
published with the code (slope over the eye's opening times 0.42, the opening of an open eye)."""

GUIDANCE = {"audio": 1.0}
"""Takes the place of vasa's own standard guidance: `cfg_scale` 2, as in JoyVASA's README and in Ditto's program."""

_NO_EMOTION = (
    "emotion was asked for, but this motion generator is conditioned on speech alone; leave emotion out, use "
    "expression for stronger or weaker expressions, or convert Ditto's generator, which knows emotions"
)


def accepted(controls: Controls, generator: str) -> Controls:
    """The controls as a motion generator takes them.

    Args:
        controls: what the user asks for.
        generator: "joyvasa" or "ditto".

    Returns:
        The same, but that the standard guidance is the generator's own, and that Ditto's eyes blink by the clock where
        no rate is asked for, as in the published program.

    Raises:
        InputError: something is asked for that nothing here can do, naming the control.
    """
    if generator == "joyvasa" and _moods(controls):
        raise InputError(_NO_EMOTION)
    for name, scale in controls.guidance.items():
        if name not in ("audio", "gaze") and scale > 0:
            raise InputError(
                f"guidance {name} has no effect with this motion generator, which withholds everything it is told at "
                "once; leave it out and use guidance audio"
            )
    if controls.guidance == Controls().guidance:
        controls = replace(controls, guidance=GUIDANCE)
    # these generators are not guided towards a gaze, so that none has to be held back for overshooting
    controls = replace(controls, guidance={"audio": controls.guidance.get("audio", 0.0)})
    if generator == "ditto" and controls.blink.rate is None:
        return replace(controls, blink=replace(controls.blink, rate=BLINKS_A_MINUTE))
    return controls


def _moods(controls: Controls) -> bool:
    moods = [key.value for key in controls.emotion.keys] if isinstance(controls.emotion, Track) else [controls.emotion]
    return any(weight > 0 for mood in moods for name, weight in mood.items() if name != "neutral")


def measured_shut() -> Tensor:
    """`CLOSED_BALL` and `CLOSED_LID` as movement of all keypoints, [63]."""
    far = torch.zeros(NUM_KEYPOINTS, 3)
    far[[LEFT_BALL, RIGHT_BALL], 1], far[[LEFT_LID, RIGHT_LID], 1] = CLOSED_BALL, CLOSED_LID
    return far.flatten()


def eyes_kept(motion: Motion, face: FaceLatents) -> Motion:
    """Eyes turned back by what the head has turned from the portrait's pose, so that they keep their aim."""
    turned = (motion.head_pose - face.head_pose[0].to(motion.head_pose))[:, :2]
    delta = _looking(motion.facial_dynamics.unflatten(-1, (-1, 3)), -turned)
    return replace(motion, facial_dynamics=delta.flatten(1))


def shaped(
    motion: Motion,
    curves: ControlCurves,
    face: FaceLatents,
    start: int = 0,
    keeps_gaze: bool = False,
    shut: Tensor | None = None,
) -> Motion:
    """Apply gaze, distance, head pose, expression, mouth and blinks.

    Args:
        motion: placed on the portrait, [T, ...].
        curves: controls of these frames, T of them from `start` on.
        face: the portrait.
        start: which of the curves' frames is the motion's first.
        keeps_gaze: eyes that do not move by themselves are turned back by what the head turns; see `eyes_kept`.
        shut: how far keypoints move from open to shut eyes, [63]; default `measured_shut()`.

    Returns:
        The same motion, bit for bit, where the controls ask for nothing.
    """
    turned = shape(motion, curves, face, (), start)
    pose, frames = turned.head_pose, slice(start, start + len(motion))

    def at(curve: Tensor) -> Tensor:
        return curve[frames].to(pose)

    distance = at(curves.distance)
    pose = torch.where(distance == 0, pose, torch.cat([pose[:, :5], pose[:, 5:] - distance], dim=-1))
    own = face.facial_dynamics.to(pose).unflatten(-1, (-1, 3))
    delta = _scaled(motion.facial_dynamics.unflatten(-1, (-1, 3)), own, at(curves.mouth), at(curves.expression))
    if keeps_gaze:
        own = _looking(own.expand_as(delta), (face.head_pose[0].to(pose) - motion.head_pose)[:, :2])
    far = (measured_shut() if shut is None else shut).to(delta).unflatten(-1, (-1, 3))
    delta = _blinking(delta, own, at(curves.closure), at(curves.own_blinks), far)
    # the eyes make up for every turn of the head that the generator did not know of
    look = at(curves.gaze) - (turned.head_pose - motion.head_pose)[:, :2]
    delta = _looking(delta, look)
    return replace(turned, head_pose=pose, facial_dynamics=delta.flatten(1))


def _scaled(delta: Tensor, own: Tensor, mouth: Tensor, expression: Tensor) -> Tensor:
    """Movement about the portrait's own expression times a factor; mouth, the rest, and never the eyes."""
    factor = expression[:, :, None].repeat(1, delta.shape[1], 1)
    factor[:, list(LIPS)] = mouth[:, :, None]
    factor[:, list(EYES)] = 1.0
    return torch.where(factor == 1, delta, own + factor * (delta - own))


def _blinking(delta: Tensor, own: Tensor, closure: Tensor, kept: Tensor, far: Tensor) -> Tensor:
    """Eyes as generated where `kept` is 1, as in the portrait where it is 0; closed by `closure`, `far` at 1."""
    delta = delta.clone()
    eyes = list(EYES)
    delta[:, eyes] = torch.where(kept[:, :, None] == 1, delta[:, eyes], own[:, eyes])
    # a lid that is already closing does not close further than shut
    way = ((own + far - delta) * far.sign()).clamp_min(0)
    return delta + closure[:, :, None] * far.sign() * way


def _looking(delta: Tensor, look: Tensor) -> Tensor:
    """Turn the eyes by (yaw, pitch) in radians, [T, 2]; positive is the left of the picture, and down."""
    degrees = look * (180 / math.pi)
    left, down = degrees[:, 0] * BALL_PER_DEGREE[0], degrees[:, 1] * BALL_PER_DEGREE[1]
    delta = delta.clone()
    to_left = left > 0
    delta[:, LEFT_BALL, 0] -= left * torch.where(to_left, _TOWARDS, _AWAY)
    delta[:, RIGHT_BALL, 0] -= left * torch.where(to_left, _AWAY, _TOWARDS)
    for ball, lid in ((LEFT_BALL, LEFT_LID), (RIGHT_BALL, RIGHT_LID)):
        delta[:, ball, 1] += down
        delta[:, lid, 1] += down * _LID_SHARE
    return delta
