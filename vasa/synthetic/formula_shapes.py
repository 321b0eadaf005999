"""Displacement fields of the formula head: identities and expressions, as sums of soft bumps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..latents import EXPRESSIONS

_MOUTH_Y, _MOUTH_HALF_WIDTH = -3.4, 2.7
_EYE_X, _EYE_Y, _EYE_HALF_WIDTH = 3.1, 3.5, 1.5
_UPPER_LID, _LOWER_LID = 0.55, 0.35

JAW_MOVES = {
    "jawOpen": (0.0, -3.0, -2.2), "jawForward": (0.0, 0.0, 1.0),
    "jawLeft": (0.9, 0.0, 0.0), "jawRight": (-0.9, 0.0, 0.0),
}  # fmt: skip
"""How the chin moves at weight 1, cm."""

# Name: bumps (x, y, width, height, dx, dy, dz, lip), lip 1 or -1 for the upper or the lower lip's side only.
# Sided expressions are given for x > 0 and mirrored; unsided ones are complete.
_SIDED = {
    "browDown": ((2.8, 5.7, 2.2, 1.1, -0.25, -0.5, 0.05, 0),),
    "browInnerUp": ((1.5, 5.9, 1.3, 1.3, 0.0, 0.65, 0.05, 0),),
    "browOuterUp": ((4.4, 5.7, 1.7, 1.3, 0.0, 0.75, 0.0, 0),),
    "cheekPuff": ((4.2, -2.6, 1.9, 2.2, 0.8, 0.0, 0.8, 0),),
    "cheekRaiser": ((4.0, 1.0, 1.8, 1.1, 0.0, 0.6, 0.2, 0),),
    "cheekSquint": ((3.8, 1.4, 1.5, 1.0, 0.0, 0.5, 0.1, 0),),
    "mouthDimple": ((2.8, -3.4, 0.9, 0.9, 0.5, 0.1, -0.35, 0),),
    "mouthFrown": ((2.5, -3.6, 1.0, 1.2, 0.1, -0.55, -0.05, 0),),
    "mouthLowerDown": ((1.2, -3.9, 1.1, 0.9, 0.0, -0.5, 0.0, -1),),
    "mouthPress": ((1.4, -2.9, 1.2, 0.5, 0.0, -0.12, -0.2, 1), (1.4, -3.9, 1.2, 0.5, 0.0, 0.15, -0.2, -1)),
    "mouthSmile": ((2.6, -3.3, 1.3, 1.3, 0.7, 0.8, -0.45, 0), (3.9, -0.6, 1.6, 1.5, 0.1, 0.45, 0.35, 0)),
    "mouthStretch": ((2.6, -3.6, 1.3, 1.2, 0.75, -0.2, -0.4, 0),),
    "mouthUpperUp": ((1.2, -2.8, 1.1, 0.8, 0.0, 0.6, 0.05, 1),),
    "noseSneer": ((1.2, 0.2, 0.9, 1.0, 0.0, 0.5, 0.1, 0),),
}
_WHOLE = {
    "mouthFunnel": ((2.4, -3.4, 1.2, 1.2, -0.75, 0.0, 0.1, 0), (-2.4, -3.4, 1.2, 1.2, 0.75, 0.0, 0.1, 0),
                    (0.0, -2.8, 1.6, 0.8, 0.0, 0.35, 0.6, 1), (0.0, -4.0, 1.6, 0.8, 0.0, -0.5, 0.6, -1)),
    "mouthPucker": ((2.4, -3.4, 1.3, 1.3, -1.05, 0.0, 0.3, 0), (-2.4, -3.4, 1.3, 1.3, 1.05, 0.0, 0.3, 0),
                    (0.0, -3.4, 1.6, 1.2, 0.0, 0.0, 0.8, 0)),
    "mouthRollLower": ((0.0, -3.9, 2.2, 0.8, 0.0, 0.25, -0.55, -1),),
    "mouthRollUpper": ((0.0, -2.9, 2.2, 0.8, 0.0, -0.2, -0.5, 1),),
    "mouthShrugLower": ((0.0, -4.2, 2.0, 1.2, 0.0, 0.55, 0.3, -1),),
    "mouthShrugUpper": ((0.0, -2.6, 2.0, 0.9, 0.0, 0.4, 0.15, 1),),
    "mouthLeft": ((0.0, -3.4, 3.2, 1.8, 1.5, 0.0, 0.0, 0),),
    "mouthRight": ((0.0, -3.4, 3.2, 1.8, -1.5, 0.0, 0.0, 0),),
}  # fmt: skip


@dataclass(frozen=True)
class Skin:
    """Skin vertices [n, 3]; the side of the lip line and of the lid lines each lies on: 1 above, -1 below."""

    position: Tensor
    side: Tensor
    lid_side: Tensor


def lid_opening(skin: Skin) -> Tensor:
    """From closed to open lids, [n, 3]."""
    return -_lid_closing(skin, upper=-_UPPER_LID, lower=-_LOWER_LID, closed=True)


def _lid_closing(skin: Skin, upper: float, lower: float, closed: bool = False, only: int = 0) -> Tensor:
    """Lids moved along y, most at mid-rim: `upper` cm down, `lower` cm up (negative opens)."""
    x, y, z = skin.position.unbind(1)
    profile = (1 - ((x.abs() - _EYE_X) / _EYE_HALF_WIDTH) ** 2).clamp(min=0).sqrt()
    front = ((z - 4.0) / 2.0).clamp(0, 1)
    above = (y - _EYE_Y).clamp(min=0) if not closed else (y - _EYE_Y)
    rim = _UPPER_LID if not closed else 0.0
    fade_up = torch.exp(-(((above - rim * profile).clamp(min=0) / 0.9) ** 2))
    drop = (_EYE_Y - y).clamp(min=0) if not closed else (_EYE_Y - y)
    rim = _LOWER_LID if not closed else 0.0
    fade_down = torch.exp(-(((drop - rim * profile).clamp(min=0) / 0.9) ** 2))
    move = torch.where(skin.lid_side > 0, upper * fade_up, -lower * fade_down) * profile * front
    if only:
        move = move * (x * only > 0)
    # A lid that closes slides over the ball and bulges a little.
    forward = torch.zeros_like(x) if closed else 0.2 * move.abs()
    return torch.stack([torch.zeros_like(x), -move, forward], dim=1) * (-1.0 if closed else 1.0)


def expression_modes(skin: Skin) -> Tensor:
    """[57, n, 3] in the order of `vasa.latents.EXPRESSIONS`."""
    modes = torch.zeros(len(EXPRESSIONS), len(skin.position), 3)
    for index, name in enumerate(EXPRESSIONS):
        stem, _, letter = name.partition("_")
        at = {"L": 1, "R": -1}.get(letter, 0)
        if stem in _SIDED:
            modes[index] = sum(_bump(skin, bump, at) for bump in _SIDED[stem])
        elif stem in _WHOLE:
            modes[index] = sum(_bump(skin, bump, 1) for bump in _WHOLE[stem])
        elif stem in JAW_MOVES:
            modes[index] = _jaw(skin)[:, None] * torch.tensor(JAW_MOVES[stem])
        elif stem == "mouthClose":
            lips = _bump(skin, (0.0, -3.6, 2.6, 1.0, 0.0, 3.0, 2.2, -1), 1)
            modes[index] = lips * _jaw(skin)[:, None]
        elif stem in _LIDS:
            modes[index] = _lid_closing(skin, *_LIDS[stem], only=at)
    return modes


# Lids: (upper lid down, lower lid up), cm. Together the blink's two amounts close the opening exactly.
_LIDS = {
    "eyeBlink": (_UPPER_LID + 0.7 * _LOWER_LID, 0.3 * _LOWER_LID), "eyeLookDown": (0.4, -0.12),
    "eyeLookUp": (-0.2, 0.1), "eyeSquint": (0.08, 0.2), "eyeWide": (-0.28, -0.08),
}  # fmt: skip


def _bump(skin: Skin, bump: tuple[float, ...], at: int) -> Tensor:
    x0, y0, width, height, dx, dy, dz, lip = bump
    x, y, z = skin.position.unbind(1)
    amount = torch.exp(-(((x - at * x0) / width) ** 2) - ((y - y0) / height) ** 2) * ((z - 3.0) / 3.0).clamp(0, 1)
    if lip:
        amount = amount * (skin.side == lip) * (1 - (x / (_MOUTH_HALF_WIDTH + 0.6)) ** 2).clamp(min=0)
    return amount[:, None] * torch.tensor([at * dx, dy, dz])


def _jaw(skin: Skin) -> Tensor:
    """[n] how much skin goes with the jaw: chin and lower lip 1, cheeks less, upper lip and throat 0."""
    x, y, z = skin.position.unbind(1)
    smooth = ((-1.5 - y) / 5.0).clamp(0, 1)
    smooth = smooth * smooth * (3 - 2 * smooth)
    lip_line = ((-1.5 - _MOUTH_Y) / 5.0) ** 2 * (3 - 2 * (-1.5 - _MOUTH_Y) / 5.0)
    opening = (1 - (x / _MOUTH_HALF_WIDTH) ** 2).clamp(min=0).sqrt()
    near = torch.exp(-(((y - _MOUTH_Y) / 1.9) ** 2)) * opening
    smooth = smooth + torch.where(skin.side > 0, -lip_line, 1 - lip_line) * near
    throat = ((y + 11.5) / 3.0).clamp(0, 1)
    return smooth.clamp(0, 1) * throat * ((z - 0.5) / 5.0).clamp(0, 1)


def identity_modes(neutral: Tensor, eye: Tensor) -> Tensor:
    """25 smooth fields [25, V, 3]; eyeballs move and grow as a whole so that they stay balls."""
    modes = []
    x, y, z = neutral.unbind(1)
    zero = torch.zeros_like(x)
    above_neck = ((y + 13.0) / 4.0).clamp(0, 1)
    front = ((z - 4.0) / 4.0).clamp(0, 1)

    def soft(x0: float, y0: float, width: float, height: float) -> Tensor:
        return front * torch.exp(-(((x.abs() - x0) / width) ** 2) - ((y - y0) / height) ** 2)

    for field in (
        (0.045 * x, zero, zero), (zero, 0.035 * (y - 2), zero), (zero, zero, 0.035 * (z - 1)),
        (0.05 * x * ((1 - y) / 6).clamp(-1, 1), zero, zero), (zero, zero, 0.35 * soft(0, 1.2, 0.9, 1.8)),
        (zero, zero, 0.3 * soft(0, -6.8, 2.0, 1.2)), (zero, 0.3 * soft(0, 0.4, 1.2, 1.0), zero),
        (0.25 * x.sign() * soft(1.1, -0.3, 0.6, 0.7), zero, zero),
        (zero, zero, 0.25 * soft(4.0, 1.0, 1.8, 1.4)),
        (zero, zero, 0.25 * soft(2.8, 5.6, 2.4, 0.8)), (zero, zero, 0.2 * soft(0, -3.4, 2.2, 1.3)),
        (0.12 * x * soft(0, -3.4, 3.4, 1.4), zero, zero),
        (zero, 0.35 * ((-4 - y) / 3).clamp(0, 1) * front, zero),
        (zero, 0.3 * ((y - 6) / 5).clamp(0, 1), zero),
        (0.4 * x.sign() * soft(5.5, -4.5, 2.0, 2.0), zero, zero),
    ):  # fmt: skip
        modes.append(torch.stack(field, dim=1) * above_neck[:, None])
    for number in range(10):
        wave = torch.stack(
            [torch.sin((0.16 + 0.03 * number) * axis + number * (1.3 + i)) for i, axis in enumerate((y, z, x.abs()))],
            -1,
        )
        modes.append(
            0.16 / math.sqrt(1 + number) * wave * torch.stack([x / 7, zero + 1, zero + 1], -1) * above_neck[:, None]
        )
    stacked = torch.stack(modes)
    for at in (1, -1):
        ball = eye & (x * at > 0)
        stacked[:, ball] = stacked[:, ball].mean(1, keepdim=True)
    return stacked
