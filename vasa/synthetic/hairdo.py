"""Hair: the pack's styles fitted to a head and recoloured, and shells grown from the scalp."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .chance import choose, happens, uniform
from .complexion import noise, pick
from .person import HairMesh, HeadPack
from .props import dome, skin_faces, skull_distance
from .surface_map import SurfaceMap, fill_holes

_NATURAL = (
    (0.045, 0.038, 0.036), (0.10, 0.070, 0.052), (0.19, 0.125, 0.085), (0.31, 0.205, 0.130),
    (0.47, 0.335, 0.205), (0.66, 0.525, 0.345), (0.42, 0.180, 0.085), (0.60, 0.580, 0.560),
)  # fmt: skip
_DYED = ((0.55, 0.16, 0.22), (0.28, 0.20, 0.42), (0.20, 0.32, 0.44), (0.62, 0.36, 0.42), (0.16, 0.36, 0.32))
_NEIGHBOURS = 6
_SHELL_HEIGHT = 14.0
_BINDINGS: WeakIdKeyDictionary = WeakIdKeyDictionary()
_STRANDS: WeakIdKeyDictionary = WeakIdKeyDictionary()


def hair_colour(generator: Generator, age: float, tone: Tensor) -> Tensor:
    """A natural hair colour that goes with a skin colour [3], greyer with age 0..1; [3] sRGB."""
    fair = 1.0 if tone.mean() > 0.5 else 0.03
    odds = (2.2 if fair == 1.0 else 6.0, 2.2, 2.0, 1.6 * fair, fair, 0.8 * fair, 0.45 * fair, 0.25 + 4.0 * age**2)
    colour = torch.tensor(_NATURAL[pick(odds, generator)])
    other = torch.tensor(choose(_NATURAL[: 6 if fair == 1.0 else 3], generator))
    warm = 1 + uniform(-0.05, 0.05, generator) * torch.tensor([1.0, 0.0, -1.0])
    mixed = torch.lerp(colour, other, uniform(0.0, 0.2, generator)) * uniform(0.85, 1.15, generator)
    return (mixed * warm).clamp(0.02, 0.9)


def dye(generator: Generator) -> Tensor:
    """A colour that no hair grows in, [3] sRGB."""
    return torch.tensor(choose(_DYED, generator))


def pack_hair(pack: HeadPack, style: str, head: Tensor, generator: Generator, colour: Tensor, fringe: bool) -> HairMesh:
    """One of the pack's styles on a person's head.

    Args:
        head: the person's neutral vertices, [V, 3] cm.
        fringe: let a fringe hang before the eyes; otherwise it is pushed up above the brows.
    """
    mesh = pack.hair[style]
    index, weights = _binding(pack, mesh)
    vertices = mesh.vertices + (weights[..., None] * (head - pack.neutral)[index]).sum(1)
    faces, uv = mesh.faces, mesh.uv
    if happens(0.5, generator):
        vertices, faces, uv = vertices * torch.tensor([-1.0, 1.0, 1.0]), faces.flip(1), uv.flip(1)
    centre, _ = dome(pack, head)
    above = torch.sigmoid((vertices[:, 1] - centre[1]) * 0.8)[:, None]
    grow = uniform(1.0, 1.07, generator)
    vertices = torch.lerp(vertices, centre + (vertices - centre) * grow, 0.35 + 0.65 * above)
    if not fringe:
        vertices = _lift_fringe(vertices, head[pack.landmarks])
    return HairMesh(vertices, faces, uv, recolour_hair(mesh.texture, colour, generator))


def recolour_hair(texture: Tensor, colour: Tensor, generator: Generator) -> Tensor:
    """Keep the strands of an RGBA texture, change their colour; some get lighter or grey strands."""
    pattern = _strands_of(texture) ** uniform(0.5, 0.8, generator)
    shade = colour[:, None, None] * pattern
    shade = shade + (pattern - 1.2).clamp(min=0) * 0.08 * (0.4 + colour.mean())
    if happens(0.25, generator):
        strands = torch.sigmoid((noise(generator, (40, 160), texture.shape[1:]) - 0.6) * 4)
        lighter = (colour * 1.5 + 0.06).clamp(max=0.8)
        target = torch.tensor(_NATURAL[7]) if happens(0.4, generator) else lighter
        mix = strands * uniform(0.1, 0.45, generator)
        shade = shade + (target[:, None, None] * pattern.clamp(0.5, 1.3) - shade) * mix
    return torch.cat([shade.clamp(0.01, 0.95), texture[3:]])


def shell_hair(pack: HeadPack, surface: SurfaceMap, head: Tensor, generator: Generator, colour: Tensor) -> HairMesh:
    """Hair grown from the scalp itself: a crop, a swept-back volume or a round mass of curls."""
    kind = pick((3.0, 3.0, 2.0), generator)
    depth = (uniform(0.3, 0.8, generator), uniform(0.9, 2.2, generator), uniform(1.8, 5.0, generator))[kind]
    root, faces = _scalp_patch(pack, surface)
    points, height = head[root], surface.hairline[root]
    shift = uniform(-0.7, 0.6, generator)
    height = height + shift * torch.sigmoid(points[:, 2] - 4)
    centre, radii = dome(pack, head)
    direction = F.normalize((points - centre + torch.tensor([0.0, 1.0, 0.0])) / radii, dim=1)
    turn = torch.atan2(direction[:, 0], direction[:, 2])
    rise = 1 - torch.exp(-height.clamp(min=0) / (0.7, 2.8, 1.3)[kind])
    lumps = noise(generator, (7, 7, 14)[kind], (64, 64))
    where = torch.stack([turn / torch.pi, direction[:, 1]], dim=1)
    bump = F.grid_sample(lumps[None], where[None, None], padding_mode="reflection", align_corners=True)[0, 0, 0]
    profile = 1 + (0.20, 0.15, 0.10)[kind] * bump
    if kind == 1:
        profile = profile * (0.5 + 0.8 * (direction[:, 1] + 0.2).clamp(0, 1))
        direction = F.normalize(direction + torch.tensor([0.0, 0.3, -0.3]), dim=1)
    offset = depth * rise * profile - 0.15 * (height < 0)
    if kind == 2:
        tilt = torch.acos(direction[:, 1].clamp(-1, 1)) / torch.pi
        uv = 0.5 + 0.62 * tilt[:, None] * torch.stack([turn.sin(), turn.cos()], dim=1)
        texture = _curls(generator, colour)
    else:
        uv = torch.stack([turn.abs() / torch.pi, height / _SHELL_HEIGHT], dim=1)
        texture = _combed(generator, colour)
    return HairMesh(points + offset[:, None] * direction, faces, uv.clamp(0.004, 0.996)[faces], texture)


def tuck_under(mesh: HairMesh, pack: HeadPack, head: Tensor, edge: float) -> HairMesh:
    """Press hair above a hat's edge (cm above the brows in front) inside the hat."""
    centre, far = skull_distance(mesh.vertices, pack, head)
    brow = head[pack.landmarks[17:27], 1].mean()
    front = (1 + F.normalize((mesh.vertices - centre)[:, [0, 2]], dim=1)[:, 1]) / 2
    above = mesh.vertices[:, 1] - (brow + edge - 1.6 * (1 - front))
    inside = torch.lerp(torch.ones_like(far), far.clamp(max=1.01) / far, torch.sigmoid((above + 0.4) * 4))
    return HairMesh(centre + (mesh.vertices - centre) * inside[:, None], mesh.faces, mesh.uv, mesh.texture)


def _lift_fringe(vertices: Tensor, marks: Tensor) -> Tensor:
    """Move strands that hang before the face up above the brows, and aside."""
    x, y, z = vertices.unbind(1)
    brow = marks[17:27, 1].mean() + 0.9
    width = marks[16, 0] * 0.80
    before = torch.sigmoid((z - marks[36, 2] + 1.2) * 1.6) * torch.sigmoid((width - x.abs()) * 2.5)
    below = (brow - y).clamp(min=0)
    lifted = brow - 0.12 * below
    reach = marks[45, 0]
    return torch.stack(
        [
            x,
            torch.where(y < brow, torch.lerp(y, lifted, before), y),
            z - 0.15 * before * below.clamp(max=reach),
        ],
        1,
    )


def _binding(pack: HeadPack, mesh: HairMesh) -> tuple[Tensor, Tensor]:
    """The skin vertices nearest to every hair vertex and their weights, computed once per style."""
    if mesh.vertices not in _BINDINGS:
        skin = skin_faces(pack).unique()
        far, near = torch.cdist(mesh.vertices, pack.neutral[skin]).topk(_NEIGHBOURS, largest=False)
        weights = 1 / (far + 0.3)
        _BINDINGS[mesh.vertices] = (skin[near], weights / weights.sum(1, keepdim=True))
    return _BINDINGS[mesh.vertices]


def _strands_of(texture: Tensor) -> Tensor:
    """Lightness relative to its mean, [1, H, W], continued beyond the opaque part for filtering."""
    if texture not in _STRANDS:
        light, opaque = texture[:3].mean(0, keepdim=True), texture[3] > 0.6
        filled = fill_holes(light, opaque)
        _STRANDS[texture] = (filled / filled[:, opaque].mean().clamp(min=0.03)).clamp(0.15, 2.0)
    return _STRANDS[texture]


def _scalp_patch(pack: HeadPack, surface: SurfaceMap) -> tuple[Tensor, Tensor]:
    """Vertices of the hairy skin and the triangles between them; duplicates at texture seams are joined."""
    faces = skin_faces(pack)
    faces = faces[(surface.hairline[faces] > -1.2).all(1) & (surface.hairline[faces] > -0.4).any(1)]
    places, joined = (pack.neutral * 1e4).round().unique(dim=0, return_inverse=True)
    first = torch.zeros(len(places), dtype=torch.long).scatter_(0, joined, torch.arange(len(joined)))
    root, flat = first[joined[faces]].unique(return_inverse=True)
    return root, flat.view(-1, 3)


def _combed(generator: Generator, colour: Tensor) -> Tensor:
    """Strands from the hairline (top row) to the crown, thin at their roots, [4, 256, 512]."""
    size = (256, 512)
    fine, coarse = noise(generator, (6, 240), size)[0], noise(generator, (9, 90), size)[0]
    strands = 0.6 * fine + 0.6 * coarse
    shade = 1 + 0.16 * strands + 0.04 * noise(generator, 120, size)[0]
    height = torch.linspace(0, _SHELL_HEIGHT, 256)[:, None]
    alpha = torch.sigmoid((height - 0.35 + 0.4 * fine + 0.1 * coarse) * 7)
    rgb = colour[:, None, None] * shade.clamp(0.4, 1.6)
    return torch.cat([rgb.clamp(0.01, 0.95), alpha[None]])


def _curls(generator: Generator, colour: Tensor) -> Tensor:
    """A dense mass of curls with a few gaps, [4, 256, 256]."""
    size = (256, 256)
    pattern = noise(generator, 64, size) + 0.7 * noise(generator, 28, size) + 0.6 * noise(generator, 128, size)
    rgb = colour[:, None, None] * (1 + 0.22 * pattern).clamp(0.35, 1.7)
    return torch.cat([rgb.clamp(0.01, 0.95), torch.sigmoid((pattern + 2.6) * 4)])
