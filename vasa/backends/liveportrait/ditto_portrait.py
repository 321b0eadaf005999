"""Ditto's motion generator as it draws for one person, behind the interface of our denoiser.

It is told more than our denoiser is (`vasa.motion.conditions.Conditions`): keypoints, motion and eyes belong to a
person, so a `Sitter` joins the two. That person is the one in the published settings where they hold one, as in the
published program, and the portrait where they hold none. Emotion is a condition of the generator; so are the eyes,
which are told where to look and that they are open.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...latents import EMOTIONS as OURS
from ...motion.conditions import Conditions, nothing_empty
from ...motion.diffusion import frame_noise, sample
from .config import DittoConfig
from .ditto import ANGLE_BINS, CHANNELS, POSE_CHANNELS, Ditto
from .keypoints import angle_of, head_pose_of
from .sound import held

EMOTION_ORDER: tuple[str, ...] = (
    "angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised", "contempt",
)  # fmt: skip
_SURE = math.exp(8.0)
"""The published program tells an emotion as the softmax of 8 for it and 0 for the others."""
EYES_OPEN = 1.03
"""Three heights of an open eye over its width, the median of twelve portraits in MediaPipe's landmarks."""
_IRIS = (0.0046, -0.0069, -0.0096)
"""Where the iris lies from the middle between the corners of the eye: away from the nose, down, into the picture; in
widths of the picture, medians of the same portraits."""
_CORNERS = (0.97, -0.09, 0.19)
"""Direction from the inner to the outer corner, the same axes."""
_EYEBALL = 0.039
"""Radius of the eyeball: 12 mm, where the eye is 30 mm and a tenth of the picture wide."""
_QUIET_STEPS = 10
BLINKS_A_MINUTE = 60 * 25 / (80 + 15)
"""Ditto's faces blink by the clock: eyes open for 60 to 100 frames, then 15 frames for the blink."""


class Sitter:
    """H(x_t, t, C) -> x_0 for one person; what `vasa.motion.windows.next_window` drives.

    Args:
        network: the generator.
        own: the person's own motion as the networks read it, [265].
        canonical: their canonical keypoints, [63].
        silence: features of silence, over and over, [n, A].
        at_rest: openness and irises of eyes that look nowhere in particular, [8]; default those of an open eye.
    """

    guided = ("audio",)
    pose_channels = POSE_CHANNELS
    absolute: tuple[int, ...] = ()
    """Keypoints that take the drawn shapes themselves instead of moving about the portrait's."""
    keeps_gaze = True
    """Eyes are turned back by what the head turns, as in the published program."""
    keeps_size = True
    """The head keeps the portrait's size, as in the published program."""

    def __init__(
        self, network: Ditto, own: Tensor, canonical: Tensor, silence: Tensor, at_rest: Tensor | None = None
    ) -> None:
        self.network, self.own, self.canonical, self.silence = network, own, canonical, silence
        ahead = eyes(own.new_zeros(2))
        self._eyes = torch.zeros_like(ahead) if at_rest is None else at_rest - ahead  # what sets the person's apart
        self.mean = own
        # as published, what is drawn is limited, and not every step on the way to it
        self.low, self.high = (torch.full_like(own, limit) for limit in (-math.inf, math.inf))

    @classmethod
    def of_settings(cls, network: Ditto, silence: Tensor) -> Sitter:
        """The person in the published settings, who is told in place of any portrait."""
        return cls(network, network.person, network.person_keypoints, silence, network.person_eyes)

    @property
    def config(self) -> DittoConfig:
        """Sizes of the generator."""
        return self.network.config

    @property
    def size(self) -> Tensor:
        """Natural logarithm of the person's scale, as in head poses."""
        return physical(self.own)[5]

    def normalise(self, motion: Tensor) -> Tensor:
        """Motion is drawn in the units it is published in."""
        return motion

    def denormalise(self, motion: Tensor) -> Tensor:
        """[..., 265] -> our units [..., 69], within the published limits."""
        return physical(motion.clamp(self.network.low, self.network.high))

    def __call__(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Predict x_0.

        Args:
            x_t: noisy motion, [B, L, 265].
            t: diffusion time, [B].
            conditions: speech, gaze and emotion of the frames, and the frame before them.

        Returns:
            [B, L, 265], float32.
        """
        past = conditions.empty["previous"][:, None]
        before = torch.where(past, self.own, self._continued(conditions.previous_motion[:, -1]))
        return self.network(x_t, before, t, self.known(conditions), conditions.empty["audio"])

    def known(self, conditions: Conditions) -> Tensor:
        """Everything the generator reads, [B, L, C]."""
        sound = held(conditions.audio, conditions.heard)
        keypoints = self.canonical.expand(*sound.shape[:2], -1)
        look = eyes(conditions.gaze) + self._eyes
        parts = [sound, *(part.to(sound) for part in (emotions(conditions.emotion), look)), keypoints]
        return torch.cat(parts, dim=-1)

    def _continued(self, frame: Tensor) -> Tensor:
        kept = self.config.continued
        return torch.cat([frame[:, :kept], self.own[kept:].expand(len(frame), -1)], dim=-1)

    @functools.cached_property
    def rest(self) -> Tensor:
        """What the face does in silence, the middle of a window of it: what movement is about, [69].

        The published program takes the first frame that it draws, which in live use is one of silence.
        """
        length = self.config.window
        zero = self.own.new_zeros
        frame = torch.arange(length, device=self.own.device)
        conditions = Conditions(
            audio=self.silence[frame % len(self.silence)][None], heard=self.own.new_ones(1, length),
            gaze=zero(1, length, 2), distance=zero(1, length, 1), emotion=zero(1, length, len(OURS)),
            previous_motion=zero(1, 1, CHANNELS), previous_audio=zero(1, 1, self.silence.shape[-1]),
            empty=nothing_empty(1, self.own.device),
        )  # fmt: skip
        conditions.empty["previous"][:] = True
        conditions.emotion[..., OURS.index("neutral")] = 1
        conditions.emotion[:] = moods_of(self.network, conditions.emotion, frame)
        noise = frame_noise(0, range(length), CHANNELS)[None]
        drawn = sample(self, conditions, length, scales={"audio": 1.0}, steps=_QUIET_STEPS, noise=noise)
        return self.denormalise(drawn[0]).median(0).values


def physical(motion: Tensor) -> Tensor:
    """[..., 265] as published (scale - 1, bins of pitch, yaw and roll, translation, expression) -> ours [..., 69]."""
    scale, pitch, yaw, roll, shift, expression = motion.split((1, *[ANGLE_BINS] * 3, 3, CHANNELS - POSE_CHANNELS), -1)
    angles = torch.stack([angle_of(bins) for bins in (yaw, pitch, roll)], dim=-1)
    return torch.cat([head_pose_of(angles, scale + 1, shift[..., :2]), expression.float()], dim=-1)


def joined(seen: dict[str, Tensor]) -> Tensor:
    """What the motion extractor sees in a picture, as the generator takes it, [B, 265]."""
    parts = [seen["scale"] - 1, seen["pitch"], seen["yaw"], seen["roll"], seen["t"], seen["exp"]]
    return torch.cat([part.float() for part in parts], dim=-1)


def emotions(weights: Tensor) -> Tensor:
    """Weights over `vasa.latents.EMOTIONS` that sum to 1, [..., 8] -> as the generator is told them."""
    ordered = weights[..., [OURS.index(name) for name in EMOTION_ORDER]]
    return ((_SURE - 1) * ordered + 1) / (_SURE + len(EMOTION_ORDER) - 1)


def weights_told(told: Tensor) -> Tensor:
    """Inverse of `emotions`, [..., 8] -> [..., 8]."""
    ordered = ((_SURE + len(EMOTION_ORDER) - 1) * told - 1) / (_SURE - 1)
    return ordered[..., [EMOTION_ORDER.index(name) for name in OURS]]


def moods_of(network: Ditto, weights: Tensor, frame: Tensor) -> Tensor:
    """Emotion weights with the settings' own in the place of neutral, where the settings hold some.

    Args:
        network: the generator.
        weights: over `vasa.latents.EMOTIONS`, [..., T, 8].
        frame: indices of the frames, [T]; those before the first have its emotions.
    """
    if not network.config.moods:
        return weights
    moods = network.moods.to(weights)[frame.clamp_min(0) % len(network.moods)]
    neutral = OURS.index("neutral")
    share = weights[..., neutral : neutral + 1]
    others = weights.clone()
    others[..., neutral] = 0
    return others + share * moods


def eyes(gaze: Tensor) -> Tensor:
    """Openness of both eyes and where their irises lie, for a gaze (yaw, pitch) in radians, [..., 2] -> [..., 8].

    Left is left in the picture; the components of both eyes alternate. An iris is told by its offset from the middle
    of the eye, less the direction to the outer corner times the offset's length.
    """
    yaw, pitch = gaze.unbind(-1)
    told = []
    for side in (1.0, -1.0):  # the nose is to the right of the left eye
        moved = (-yaw.sin() * _EYEBALL, pitch.sin() * _EYEBALL, torch.zeros_like(yaw))
        rest = (-side * _IRIS[0], _IRIS[1], _IRIS[2])
        offset = torch.stack([m + r for m, r in zip(moved, rest, strict=True)], dim=-1)
        outward = F.normalize(offset.new_tensor((-side * _CORNERS[0], _CORNERS[1], _CORNERS[2])), dim=0)
        told.append(offset - outward * torch.linalg.vector_norm(offset, dim=-1, keepdim=True))
    balls = torch.stack(told, dim=-1).flatten(-2)
    return torch.cat([gaze.new_full((*gaze.shape[:-1], 2), EYES_OPEN), balls], dim=-1)
