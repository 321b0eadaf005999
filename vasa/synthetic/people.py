"""Random people who do not exist."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..latents import EXPRESSIONS
from .chance import choose, happens, uniform
from .complexion import freckles, moles, noise, pick, pores, recolour, sample_tone, tint, wrinkles
from .hairdo import dye, hair_colour, pack_hair, shell_hair, tuck_under
from .makeup import beard_style, paint_beard, paint_brows, paint_lids, paint_lips, paint_scalp, wants_makeup
from .person import HairMesh, HeadPack, Person
from .props import earrings, glasses, hat, headband
from .surface_map import TILE, SurfaceMap, surface_map

_IRISES = (
    (0.16, 0.09, 0.05), (0.26, 0.15, 0.08), (0.36, 0.24, 0.12), (0.34, 0.32, 0.16),
    (0.26, 0.36, 0.26), (0.30, 0.42, 0.52), (0.42, 0.50, 0.54), (0.20, 0.32, 0.48),
)  # fmt: skip
_CLOTHS = (
    (0.92, 0.92, 0.90), (0.10, 0.10, 0.11), (0.22, 0.24, 0.28), (0.18, 0.25, 0.40), (0.45, 0.47, 0.50),
    (0.42, 0.14, 0.15), (0.28, 0.34, 0.25), (0.55, 0.45, 0.34), (0.74, 0.70, 0.62), (0.36, 0.24, 0.18),
    (0.60, 0.66, 0.74), (0.66, 0.42, 0.38), (0.30, 0.42, 0.44), (0.72, 0.58, 0.26),
)  # fmt: skip


def held_out_skin(pack: HeadPack) -> str:
    """The skin that only test people wear."""
    return sorted(pack.skins)[-1]


def held_out_hair(pack: HeadPack) -> str | None:
    """The hair style that only test people wear."""
    return sorted(pack.hair)[-1] if pack.hair else None


def sample_person(pack: HeadPack, generator: Generator, split: str = "train") -> Person:
    """Draw a person.

    Args:
        pack: the head to vary.
        generator: CPU generator; its state alone decides who appears.
        split: "train" never draws the held-out skin and hair style; "test" draws them half of the time, and
            its random numbers are offset, so that equal seeds give different people.

    Returns:
        A `Person` whose lips meet when `Person.rest` is added to an empty expression.
    """
    if split == "test":
        torch.rand(64, generator=generator)
    surface = surface_map(pack)
    stylised, cartoon = happens(0.10, generator), happens(0.08, generator)
    shape = 0.9 * torch.randn(len(pack.identity), generator=generator)
    if stylised:
        shape = shape * uniform(1.3, 1.6, generator)
    shape = shape.clamp(-2.6, 2.6)
    head = pack.neutral + torch.einsum("i,ivc->vc", shape, pack.identity)
    masculine, age = float(happens(0.5, generator)), uniform(0.0, 1.0, generator) ** 1.6
    tone = sample_tone(generator)
    colour = hair_colour(generator, age, tone)
    skin = _skin(pack, surface, generator, split, tone, age, masculine, colour)
    worn = dye(generator) if happens(0.03, generator) else colour
    meshes, roots = _headgear(pack, surface, head, generator, split, worn, masculine)
    skin = paint_scalp(skin, surface, generator, worn, roots)
    light_eyes = 0.03 if tone.mean() < 0.5 else 1.0
    iris = torch.tensor(_IRISES[pick((3.0, 3.0, 1.5, *(light_eyes * w for w in (1.0, 0.8, 1.0, 0.7, 0.6))), generator)])
    white = uniform(0.82, 0.95, generator)
    tooth = uniform(0.74, 0.93, generator)
    return Person(
        shape=shape,
        skin=skin.clamp(0, 1),
        rest=_rest(pack, head),
        hair=meshes,
        cloth=_cloth(generator),
        torso=torch.tensor(
            [
                uniform(16.5, 21.5, generator) + 2.0 * masculine,
                uniform(0.15, 0.55, generator),
                uniform(0.0, 2.5, generator),
            ]
        ),
        iris=(iris * uniform(0.8, 1.25, generator)).clamp(0.02, 0.8),
        iris_radius=uniform(0.44, 0.52, generator),
        pupil_radius=uniform(0.14, 0.24, generator),
        sclera=torch.tensor([white, white * uniform(0.94, 0.99, generator), white * uniform(0.90, 0.98, generator)]),
        teeth=torch.tensor([tooth, tooth * uniform(0.94, 0.99, generator), tooth * uniform(0.80, 0.94, generator)]),
        gloss=uniform(0.05, 0.6, generator),
        eye_scale=uniform(1.08, 1.35, generator) if cartoon else 1.0,
        head_scale=uniform(1.03, 1.15, generator) if cartoon else 1.0,
    )


def _skin(
    pack: HeadPack, surface: SurfaceMap, generator: Generator, split: str, tone: Tensor, age: float,
    masculine: float, colour: Tensor,
) -> Tensor:  # fmt: skip
    """The painted skin, scalp still bare, [3, TILE, 2 TILE]."""
    held_out = held_out_skin(pack)
    names = [n for n in sorted(pack.skins) if n != held_out or len(pack.skins) == 1]
    first = held_out if split == "test" and happens(0.5, generator) else choose(names, generator)
    second = choose(names, generator)
    mixed = torch.lerp(pack.skins[first], pack.skins[second], uniform(0.0, 0.5, generator))
    skin = recolour(mixed, tone, surface, uniform(0.6, 0.95, generator))
    face = skin[:, :, :TILE]
    makeup = wants_makeup(generator, masculine)
    face = tint(face, surface, generator, 0.28 * makeup * uniform(0.0, 1.0, generator))
    if happens(0.15, generator):
        face = freckles(face, surface, generator, uniform(0.2, 0.8, generator))
    face = moles(face, surface, generator, pick((5.0, 2.0, 1.0, 1.0), generator))
    if age > 0.2:
        face = wrinkles(face, surface, generator, age * uniform(0.5, 1.0, generator))
    face = pores(face, surface.chart[:, :TILE], generator, uniform(0.003, 0.018, generator))
    lipstick = makeup * uniform(0.2, 1.0, generator) if happens(0.6, generator) else 0.0
    face = paint_lips(face, surface, generator, tone, lipstick)
    face = paint_lids(face, surface, generator, makeup)
    if happens(0.55 * masculine, generator):
        face = paint_beard(face, surface, generator, colour * uniform(0.75, 1.05, generator), beard_style(generator))
    brow = torch.lerp(colour, torch.tensor([0.10, 0.07, 0.05]), uniform(0.25, 0.8, generator)) * 0.85
    face = paint_brows(face, surface, generator, brow, uniform(0.45, 1.0, generator))
    return torch.cat([face, skin[:, :, TILE:]], dim=2)


def _headgear(
    pack: HeadPack, surface: SurfaceMap, head: Tensor, generator: Generator, split: str, colour: Tensor,
    masculine: float,
) -> tuple[tuple[HairMesh, ...], float]:  # fmt: skip
    """Hair and props, and how dense the painted hair roots are."""
    meshes, edge = [], None
    topping = pick((0.87, 0.09, 0.04), generator)
    if topping == 1:
        covering, edge = hat(pack, head, generator)
    elif topping == 2:
        covering = headband(pack, head, generator)
    kind = pick((0.72 - 0.14 * masculine, 0.20, 0.08 + 0.10 * masculine), generator)
    roots = uniform(0.75, 0.95, generator)
    hair = None
    if kind == 0 and pack.hair:
        held_out = held_out_hair(pack)
        names = [n for n in sorted(pack.hair) if n != held_out]
        style = held_out if split == "test" and happens(0.5, generator) else choose(names, generator)
        hair = pack_hair(pack, style, head, generator, colour, fringe=happens(0.06, generator))
    elif kind == 1:
        hair = shell_hair(pack, surface, head, generator, colour)
    else:
        roots = uniform(0.15, 0.55, generator) if happens(0.6, generator) else 0.0
    if hair is not None:
        meshes.append(hair if edge is None else tuck_under(hair, pack, head, edge))
    if topping:
        meshes.append(covering)
    if happens(0.13, generator):
        meshes.append(glasses(pack, head, generator))
    if happens(0.06 + 0.22 * (1 - masculine), generator):
        rings = earrings(pack, head, generator)
        meshes += [rings] if rings is not None else []
    return tuple(meshes), roots


def _rest(pack: HeadPack, head: Tensor) -> Tensor:
    """Expression weights that make the lips of a head just meet, [57].

    Lips that stand apart are closed by mouthClose, lips that cross are parted by a hint of jawOpen; both move
    the lips linearly, so the weight is a quotient.
    """
    upper, lower = pack.landmarks[[61, 62, 63]], pack.landmarks[[67, 66, 65]]
    gap = (head[upper, 1] - head[lower, 1]).mean()
    weights = pack.neutral.new_zeros(len(EXPRESSIONS))
    for name, wanted in (("mouthClose", gap), ("jawOpen", -gap)):
        index = EXPRESSIONS.index(name)
        effect = (pack.expression[index, upper, 1] - pack.expression[index, lower, 1]).mean().abs()
        weights[index] = (wanted.clamp(min=0) / effect.clamp(min=0.1)).clamp(max=0.3)
    return weights


def _cloth(generator: Generator) -> Tensor:
    """A fabric, plain or patterned, with weave, folds and sometimes a coloured collar, [3, 256, 256]."""
    size = (256, 256)
    base, other = (torch.tensor(choose(_CLOTHS, generator))[:, None, None] for _ in range(2))
    row = torch.arange(256.0)[:, None].expand(size)
    column = row.T
    kind = pick((5.0, 1.2, 0.8, 1.0, 1.0), generator)
    wide = uniform(0.08, 0.5, generator)
    if kind == 0:
        mask = torch.zeros(size)
    elif kind == 1:
        mask = torch.sigmoid(torch.sin((row if happens(0.5, generator) else column) * wide) * 8)
    elif kind == 2:
        mask = (torch.sigmoid(torch.sin(row * wide) * 8) + torch.sigmoid(torch.sin(column * wide) * 8)) / 2
    elif kind == 3:
        mask = torch.sigmoid(noise(generator, int(uniform(4, 30, generator)), size)[0] * 3)
    else:
        mask = (noise(generator, int(uniform(12, 40, generator)), size)[0] > 1.2).float()
    fabric = torch.lerp(base.expand(3, *size), other.expand(3, *size), mask * uniform(0.4, 1.0, generator))
    weave = 0.03 * torch.sin(row * 1.9) * torch.sin(column * 1.9) + 0.02 * torch.randn(size, generator=generator)
    folds = 0.10 * noise(generator, (3, 10), size)[0] * uniform(0.2, 1.0, generator)
    fabric = fabric * (1 + weave + folds) * uniform(0.75, 1.05, generator)
    if happens(0.35, generator):
        trim = torch.tensor(choose(_CLOTHS, generator))[:, None, None]
        fabric = torch.where(row < uniform(10, 36, generator), trim * (1 + weave), fabric)
    return fabric.clamp(0.01, 0.98)
