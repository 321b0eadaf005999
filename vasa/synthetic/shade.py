"""Colour of surface points: textures, light, eyes, mouth and hair, in linear light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .head import BACK, CLOTH, EYE, GUMS, HAIR, PROP, SKIN, TEETH

_GUM = (0.40, 0.12, 0.11)
_TONGUE = (0.36, 0.11, 0.10)
_FLESH = (0.20, 0.045, 0.04)
# Light that enters skin leaves it redder and further from where it entered: more wrap for red.
_WRAP = (0.42, 0.28, 0.22)
# Studios are lit so that white paper facing all lights would clip; faces are exposed a little brighter.
_EXPOSURE = 1.2


@dataclass(frozen=True)
class Points:
    """What the shader knows about P surface points.

    Attributes:
        kind: [P] SKIN ... PROP.
        picture: [P] row of the per-picture tables.
        albedo: [P, 4] texture colour (sRGB) and alpha.
        position: [P, 3] in the head's frame, cm from the head's centre, x right, y up, z out of the face.
        toward: [P, 3] unit vector to the camera.
        normal: [P, 3] unit, camera axes.
        static: [P, 7] columns of `PersonMesh.static`.
        shadow: [P] how much of the first light is kept off, 0..1.
    """

    kind: Tensor
    picture: Tensor
    albedo: Tensor
    position: Tensor
    toward: Tensor
    normal: Tensor
    static: Tensor
    shadow: Tensor


@dataclass(frozen=True)
class PictureTable:
    """Per-picture constants, one row per picture.

    Attributes:
        light_direction, light_colour: [B, L, 3].
        ambient, sky: [B, 3].
        iris, sclera, teeth: [B, 3] sRGB.
        eye_angles: [B, 2] iris and pupil radius, radians.
        gloss: [B].
        lips: [B, 3] middle of the mouth in the head's frame, cm.
        opening: [B] distance between the lips, cm.
        rotation: [B, 3, 3] head frame to camera axes.
        gaze: [B, 3] unit vector where the eyes look, camera axes.
    """

    light_direction: Tensor
    light_colour: Tensor
    ambient: Tensor
    sky: Tensor
    iris: Tensor
    sclera: Tensor
    teeth: Tensor
    eye_angles: Tensor
    gloss: Tensor
    lips: Tensor
    opening: Tensor
    rotation: Tensor
    gaze: Tensor


def to_linear(colour: Tensor) -> Tensor:
    """sRGB to linear light, as a power of 2.2."""
    return colour.clamp(min=0) ** 2.2


def to_srgb(colour: Tensor) -> Tensor:
    """Linear light to sRGB with a soft shoulder above 0.8, so that highlights keep their colour."""
    over = (colour - 0.8).clamp(min=0)
    colour = torch.where(colour > 0.8, 0.8 + 0.2 * over / (0.2 + over), colour)
    return colour.clamp(1e-5, 1.0) ** (1 / 2.2)


def shade(points: Points, table: PictureTable) -> Tensor:
    """sRGB of every point, [P, 3] in [0, 1]."""
    colour = torch.empty_like(points.normal)
    groups = ((SKIN, BACK), (GUMS, TEETH), (EYE,), (HAIR,), (CLOTH, PROP))
    for group, paint in zip(groups, (_skin, _mouth, _eye, _hair, _fabric), strict=True):
        chosen = torch.isin(points.kind, torch.tensor(group, device=points.kind.device)).nonzero().squeeze(1)
        if len(chosen):
            some = Points(*(getattr(points, name).index_select(0, chosen) for name in Points.__dataclass_fields__))
            colour.index_copy_(0, chosen, to_srgb(paint(some, table)))
    return colour


def _lit(points: Points, table: PictureTable, wrap: Tensor, shine: float, shadow: Tensor) -> tuple[Tensor, Tensor]:
    """Diffuse and specular light at points, each [P, 3]. `shadow` [P] dims the lights, not the ambient."""
    up = points.normal[:, 1:2] * 0.5 + 0.5
    which = points.picture
    diffuse = table.ambient.index_select(0, which) * (0.75 + 0.25 * up) + table.sky.index_select(0, which) * up
    # What a light does not reach sees less of the surroundings, too.
    diffuse = diffuse * (1 - 0.2 * points.shadow[:, None])
    highlight = torch.zeros_like(points.normal)
    for light in range(table.light_direction.shape[1]):
        direction = table.light_direction[:, light].index_select(0, which)
        power = table.light_colour[:, light].index_select(0, which) * shadow[:, None]
        if light == 0:
            power = power * (1 - 0.85 * points.shadow[:, None])
        facing = (points.normal * direction).sum(1, keepdim=True)
        diffuse = diffuse + power * ((facing + wrap) / (1 + wrap)).clamp(min=0) ** 1.3
        half = F.normalize(direction + points.toward, dim=1)
        glint = (points.normal * half).sum(1, keepdim=True).clamp(min=0) ** shine
        highlight = highlight + power * glint * (facing * 4).clamp(0, 1)
    return _EXPOSURE * diffuse, _EXPOSURE * highlight


def _mouth_depth(points: Points, table: PictureTable) -> Tensor:
    """How dark the inside of the mouth is, [P]: 1 at the lips, falling with the distance behind them."""
    lips = table.lips.index_select(0, points.picture)
    opening = table.opening.index_select(0, points.picture)
    behind = (lips[:, 2] - 0.3 - points.position[:, 2]).clamp(min=0)
    # Light comes in through the opening; the cheeks shade what is beside it.
    beside = (points.position[:, 0].abs() - 1.1).clamp(min=0)
    reach = 1.1 + 0.45 * opening.clamp(0, 2.5)
    # Less light under the upper lip than on the floor of the mouth.
    height = ((points.position[:, 1] - lips[:, 1]) / (0.5 + opening)).clamp(-1, 1)
    return torch.exp(-(behind + 0.6 * beside) / reach) * (1 - 0.2 * height)


def _skin(points: Points, table: PictureTable) -> Tensor:
    albedo = to_linear(points.albedo[:, :3])
    lips, inside = points.static[:, 3:4], points.static[:, 4:5]
    in_mouth = inside * (points.position[:, 1:2] < 0.0)
    in_socket = inside - in_mouth
    gloss = table.gloss.index_select(0, points.picture)[:, None] * (1 + 1.2 * lips) * (1 - inside)
    wrap = torch.tensor(_WRAP, device=albedo.device)
    shadow = _under_chin(points)
    albedo = torch.lerp(albedo, torch.tensor(_FLESH, device=albedo.device), in_mouth)
    diffuse, highlight = _lit(points, table, wrap, 26.0, shadow)
    facing = (points.normal * points.toward).sum(1, keepdim=True).clamp(0, 1)
    rim = 0.12 * (1 - facing) ** 4 * diffuse
    dim = 1 - in_mouth * (1 - _mouth_depth(points, table)[:, None].clamp(max=1)) - 0.75 * in_socket
    return albedo * diffuse * dim + (0.22 * highlight + rim) * gloss


def _under_chin(points: Points) -> Tensor:
    """Shadow of the jaw on the throat, [P]."""
    x, y, z = points.position.unbind(1)
    throat = ((-y - 9.2) / 2.5).clamp(0, 1) * ((9.5 - z) / 3.5).clamp(0, 1) * ((18.0 + y) / 5.0).clamp(0, 1)
    return 1 - 0.5 * throat


def _mouth(points: Points, table: PictureTable) -> Tensor:
    which = points.picture
    teeth = (points.kind == TEETH).float()[:, None]
    flesh = torch.lerp(points.normal.new_tensor(_GUM), points.normal.new_tensor(_TONGUE), points.static[:, 5:6])
    albedo = torch.lerp(flesh, to_linear(table.teeth.index_select(0, which)), teeth)
    diffuse, highlight = _lit(points, table, points.normal.new_tensor(0.6), 60.0, torch.ones_like(teeth[:, 0]))
    depth = _mouth_depth(points, table)[:, None]
    depth = torch.where(teeth > 0, depth, depth.abs() ** 1.5)
    return albedo * diffuse * depth + 0.25 * highlight * depth**2


def _eye(points: Points, table: PictureTable) -> Tensor:
    which = points.picture
    direction = F.normalize(points.static[:, :3], dim=1)
    angle = torch.acos(direction[:, 2].clamp(-1, 1))
    radius, pupil = table.eye_angles.index_select(0, which).unbind(1)
    spin = torch.atan2(direction[:, 1], direction[:, 0])
    across = (angle / radius).clamp(0, 1.5)

    def step(edge: Tensor | float, width: float) -> Tensor:
        return (((angle - edge) / width) + 0.5).clamp(0, 1)[:, None]

    iris = to_linear(table.iris.index_select(0, which))
    fibres = 0.5 + 0.25 * torch.sin(spin * 23 + 4 * across) + 0.25 * torch.sin(spin * 41 - 3 * across)
    # A lighter ring round the pupil, a dark one at the limbus, fibres between.
    tone = 0.75 + 0.5 * fibres * (1 - across) + 0.45 * (1 - across)
    iris = iris * tone[:, None] * (1 - 0.65 * step(radius * 0.86, 0.09))
    sclera = to_linear(table.sclera.index_select(0, which))
    redness = (direction[:, 0].abs() ** 2 * 0.35).clamp(0, 0.5)[:, None]
    sclera = sclera * (1 - redness * sclera.new_tensor([0.12, 0.6, 0.55]))
    albedo = torch.lerp(iris, sclera, step(radius, 0.07))
    albedo = albedo * step(pupil, 0.05).clamp(min=0.012)
    diffuse, _ = _lit(points, table, points.normal.new_tensor(0.5), 1.0, torch.ones_like(angle))
    upright = (points.normal[:, None] @ table.rotation.index_select(0, which))[:, 0]
    # The upper lid and the brow keep light off the upper part of the ball, the corners lie deep.
    lid = 1 - 0.6 * ((upright[:, 1] - 0.05) / 0.45).clamp(0, 1) - 0.35 * (upright[:, 0].abs() * 1.3 - 0.2).clamp(0, 1)
    colour = albedo * diffuse * 0.9 * lid[:, None]
    # The cornea is more strongly curved than the ball, so reflections of lights lie nearer its middle.
    axis = table.gaze.index_select(0, which)
    cornea = F.normalize(points.normal + 0.8 * (points.normal - axis) * (angle < radius * 1.1).float()[:, None], dim=1)
    for light in range(table.light_direction.shape[1]):
        half = F.normalize(table.light_direction[:, light].index_select(0, which) + points.toward, dim=1)
        glint = ((cornea * half).sum(1, keepdim=True).clamp(min=0) ** 220) * (0.4 + 0.6 * lid[:, None])
        colour = colour + 1.2 * glint * table.light_colour[:, light].index_select(0, which)
    return colour


def _hair(points: Points, table: PictureTable) -> Tensor:
    which = points.picture
    albedo = to_linear(points.albedo[:, :3])
    grey = albedo.mean(1, keepdim=True)
    albedo = torch.lerp(grey, albedo, 0.85)
    # Strands run away from the crown along the surface.
    crown = points.position.new_tensor([0.0, 11.0, -4.0])
    to_head = table.rotation.index_select(0, which)
    normal = points.normal
    normal = normal * (normal * points.toward).sum(1, keepdim=True).sign()
    away = (to_head @ (points.position - crown)[..., None])[..., 0]
    down = to_head[:, :, 1] * -6.0
    strand = F.normalize(away + down, dim=1)
    strand = F.normalize(strand - normal * (strand * normal).sum(1, keepdim=True), dim=1)
    up = normal[:, 1:2] * 0.5 + 0.5
    light = table.ambient.index_select(0, which) * (0.45 + 0.55 * up) + table.sky.index_select(0, which) * up
    gleam = torch.zeros_like(light)
    shift = (grey.sqrt() - 0.35) * 0.5
    for number in range(table.light_direction.shape[1]):
        direction = table.light_direction[:, number].index_select(0, which)
        power = table.light_colour[:, number].index_select(0, which)
        facing = (normal * direction).sum(1, keepdim=True)
        along = (strand * direction).sum(1, keepdim=True)
        soft = ((facing + 0.35) / 1.35).clamp(min=0)
        light = light + power * soft * (0.35 + 0.65 * (1 - along**2).clamp(min=0).sqrt())
        half = F.normalize(direction + points.toward, dim=1)
        bend = (F.normalize(strand + shift * normal, dim=1) * half).sum(1, keepdim=True)
        sheen = (1 - bend**2).clamp(min=0)
        gleam = gleam + power * soft * (0.10 * sheen**40 + 0.5 * albedo * sheen**12)
    root = points.static[:, 6:7]
    inner = (points.position[:, :3] * points.position.new_tensor([1.0, 0.6, 1.0])).norm(dim=1, keepdim=True)
    depth = ((inner - 6.0) / 4.0).clamp(0.45, 1)
    return _EXPOSURE * (albedo * light + gleam * 0.6) * (0.8 + 0.2 * (root * 3).clamp(0, 1)) * depth


def _fabric(points: Points, table: PictureTable) -> Tensor:
    albedo = to_linear(points.albedo[:, :3])
    shadow = torch.ones_like(albedo[:, 0])
    diffuse, highlight = _lit(points, table, points.normal.new_tensor(0.25), 20.0, shadow)
    prop = (points.kind == PROP).float()[:, None]
    return albedo * diffuse + (0.02 + 0.25 * prop) * highlight
