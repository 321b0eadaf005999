"""Meshes of several people in several frames as one list of triangles: drawn, shaded, labelled together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import CANONICAL_CM, rotation
from .head import BACK, CLOTH, EYE, GUMS, HAIR, PROP, SKIN, TEETH, PersonMesh, Posed
from .person import PARTS, FrameLabels, Studio
from .raster import Fragments, rasterise
from .shade import PictureTable, Points, shade

# Distances towards the light at which a point looks for obstacles, cm.
_SHADOW_STEPS = (0.5, 1.1, 1.9, 3.0)
_PART_OF_KIND = {
    SKIN: "skin", BACK: "neck", GUMS: "mouth", EYE: "eye", TEETH: "mouth", HAIR: "hair", CLOTH: "cloth",
    PROP: "prop",
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """People and frames, joined: Q vertices of F faces, M vertices of K triangles in B pictures.

    Attributes:
        camera, normal: [M, 3] and picture: [M, 2], as in `Posed`.
        static: [Q, 7] columns of `PersonMesh.static`.
        faces: [F, 3] rows of `static`; uv: [F, 3, 2]; kind, texture, part: [F].
        triangle_face: [K] face of a triangle; triangle_shift: [K] from row of `static` to row of `camera`.
        triangle_picture: [K].
        texels: [X, 4] all textures, row after row; texture_shape: [textures, 3] first texel, height, width.
        face_start: [B] first face of a picture's person.
        focal: [B]; head_centre: [B, 3] in camera coordinates; rotation: [B, 3, 3] head frame to camera axes.
    """

    camera: Tensor
    normal: Tensor
    picture: Tensor
    static: Tensor
    faces: Tensor
    uv: Tensor
    kind: Tensor
    texture: Tensor
    part: Tensor
    triangle_face: Tensor
    triangle_shift: Tensor
    triangle_picture: Tensor
    texels: Tensor
    texture_shape: Tensor
    face_start: Tensor
    focal: Tensor
    head_centre: Tensor
    rotation: Tensor
    size: int
    pixels: int

    @staticmethod
    def of(
        meshes: list[PersonMesh],
        posed: list[Posed],
        studios: list[Studio],
        labels_list: list[FrameLabels],
        size: int,
        pixels: int,
    ) -> Scene:
        """Join people; pictures of `size` are drawn at `pixels`, each target pixel covered evenly."""
        device = meshes[0].base.device
        faces, textures, texels, shapes = [], [], [], []
        triangle_face, triangle_shift, triangle_picture, face_start, centres = [], [], [], [], []
        static_first = vertex_first = face_first = picture_first = texture_first = texel_first = 0
        for mesh, studio, labels in zip(meshes, studios, labels_list, strict=True):
            frames, vertices, count = len(labels.head_pose), len(mesh.base), len(mesh.faces)
            number = torch.arange(frames, device=device)
            faces.append(mesh.faces + static_first)
            textures.append(mesh.texture + texture_first)
            triangle_face.append((torch.arange(count, device=device) + face_first).repeat(frames))
            triangle_shift.append((number * vertices + vertex_first - static_first).repeat_interleave(count))
            triangle_picture.append((number + picture_first).repeat_interleave(count))
            face_start.append(torch.full((frames,), face_first, device=device))
            for picture in mesh.textures:
                shapes.append((texel_first, picture.shape[1], picture.shape[2]))
                texels.append(picture.permute(1, 2, 0).reshape(-1, 4))
                texel_first += picture.shape[1] * picture.shape[2]
            pose = labels.head_pose.to(device).float()
            unit = CANONICAL_CM / pose[:, 5].exp()
            centres.append(torch.stack([pose[:, 3] * unit, -pose[:, 4] * unit, studio.focal * unit], dim=1))
            static_first += vertices
            vertex_first += vertices * frames
            face_first += count
            picture_first += frames
            texture_first += len(mesh.textures)
        pose = torch.cat([labels.head_pose for labels in labels_list]).to(device).float()
        flip = torch.tensor([1.0, -1.0, -1.0], device=device)
        return Scene(
            camera=torch.cat([p.camera.flatten(0, 1) for p in posed]),
            normal=torch.cat([p.normal.flatten(0, 1) for p in posed]),
            picture=torch.cat([p.picture.flatten(0, 1) for p in posed]),
            static=torch.cat([mesh.static for mesh in meshes]),
            faces=torch.cat(faces),
            uv=torch.cat([mesh.uv for mesh in meshes]),
            kind=torch.cat([mesh.kind for mesh in meshes]),
            texture=torch.cat(textures),
            part=torch.cat([_parts(mesh) for mesh in meshes]),
            triangle_face=torch.cat(triangle_face),
            triangle_shift=torch.cat(triangle_shift),
            triangle_picture=torch.cat(triangle_picture),
            texels=torch.cat(texels),
            texture_shape=torch.tensor(shapes, device=device),
            face_start=torch.cat(face_start),
            focal=torch.cat(
                [pose.new_full((len(x.head_pose),), y.focal) for x, y in zip(labels_list, studios, strict=True)]
            ),
            head_centre=torch.cat(centres),
            rotation=rotation(pose[:, :3]) * flip[:, None] * flip,
            size=size,
            pixels=pixels,
        )

    def draw(self) -> Fragments:
        """The nearest surface of every pixel."""
        triangles = self.faces.index_select(0, self.triangle_face) + self.triangle_shift[:, None]
        kind = self.kind.index_select(0, self.triangle_face)
        return rasterise(
            self._pixel(self.picture),
            1.0 / self.camera[:, 2],
            triangles,
            self.triangle_picture,
            len(self.face_start),
            self.pixels,
            two_sided=(kind == HAIR) | (kind == PROP),
            tested=kind == HAIR,
            alpha_test=self._opaque,
        )

    def _pixel(self, picture: Tensor) -> Tensor:
        """Picture positions in [-1, 1] to pixels of the drawing."""
        return ((picture + 1) * ((self.size - 1) / 2) + 0.5) * (self.pixels / self.size) - 0.5

    def _opaque(self, triangle: Tensor, weights: Tensor) -> Tensor:
        """Alpha against a threshold that is fixed to the texel, so that it moves with the hair."""
        face = self.triangle_face.index_select(0, triangle)
        first, height, width, x, y = self._texel_position(face, weights)
        nearest = first + y.round().long().clamp(max=height - 1) * width + x.round().long().clamp(max=width - 1)
        alpha = self.texels[:, 3].index_select(0, nearest)
        noise = ((nearest * 2654435761) & 0xFFFF).float() / 65536
        return alpha > 0.25 + 0.5 * noise

    def _texel_position(self, face: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        uv = (self.uv.index_select(0, face) * weights[..., None]).sum(1).clamp(0, 1)
        first, height, width = self.texture_shape.index_select(0, self.texture.index_select(0, face)).unbind(1)
        x = (uv[:, 0] * width - 0.5).clamp(min=0)
        y = (uv[:, 1] * height - 0.5).clamp(min=0)
        return first, height, width, x, y

    def _sampled(self, face: Tensor, weights: Tensor) -> Tensor:
        """Bilinear texture lookup, [P, 4]."""
        first, height, width, x, y = self._texel_position(face, weights)
        x, y = torch.minimum(x, width - 1.0), torch.minimum(y, height - 1.0)
        left, above = x.floor(), y.floor()
        right, below = (
            torch.minimum(left + 1, width - 1.0).long(),
            torch.minimum(above + 1, height - 1.0).long(),
        )
        across, down = (x - left)[:, None], (y - above)[:, None]
        left, above = left.long(), above.long()
        rows = first + above * width, first + below * width
        upper = torch.lerp(
            self.texels.index_select(0, rows[0] + left), self.texels.index_select(0, rows[0] + right), across
        )
        lower = torch.lerp(
            self.texels.index_select(0, rows[1] + left), self.texels.index_select(0, rows[1] + right), across
        )
        return torch.lerp(upper, lower, down)

    def shade(self, fragments: Fragments, table: PictureTable) -> Tensor:
        """sRGB of the fragments, [P, 3]."""
        face = self.triangle_face.index_select(0, fragments.triangle)
        corner = self.faces.index_select(0, face)
        moving = (corner + self.triangle_shift.index_select(0, fragments.triangle)[:, None]).flatten()
        weights = fragments.weights[..., None]
        dynamic = torch.cat([self.camera, self.normal], dim=1).index_select(0, moving).view(-1, 3, 6)
        dynamic = (dynamic * weights).sum(1)
        static = (self.static.index_select(0, corner.flatten()).view(-1, 3, self.static.shape[1]) * weights).sum(1)
        picture = self.triangle_picture.index_select(0, fragments.triangle)
        centre = self.head_centre.index_select(0, picture)
        offset = dynamic[:, :3] - centre
        offset = torch.cat([offset[:, :2], -offset[:, 2:]], dim=1)
        toward = F.normalize(torch.cat([-dynamic[:, :2], dynamic[:, 2:3]], dim=1), dim=1)
        position = (offset[:, None] @ self.rotation.index_select(0, picture))[:, 0]
        direction = table.light_direction[:, 0].index_select(0, picture)
        kind = self.kind.index_select(0, face)
        points = Points(
            kind=kind,
            picture=picture,
            albedo=self._sampled(face, fragments.weights),
            position=position,
            toward=toward,
            normal=F.normalize(dynamic[:, 3:], dim=1),
            static=static,
            shadow=self._shadow(fragments.pixel, kind, dynamic[:, :3], direction, picture),
        )
        return shade(points, table)

    def _shadow(self, pixel: Tensor, kind: Tensor, point: Tensor, direction: Tensor, picture: Tensor) -> Tensor:
        """How much of the first light something close by (hair, nose) keeps off, [P].

        Steps from a point towards the light; what the picture shows nearer to the camera there is taken for
        an obstacle a few centimetres thick.
        """
        depth = torch.full((len(self.face_start) * self.pixels**2,), torch.inf, device=point.device)
        # Wires of glasses would leave one copy of their shadow per step.
        depth[pixel] = torch.where(kind == PROP, torch.inf, point[:, 2])
        focal = self.focal.index_select(0, picture)
        shadow = torch.zeros_like(point[:, 0])
        for reach in _SHADOW_STEPS:
            x, y = point[:, 0] + reach * direction[:, 0], point[:, 1] + reach * direction[:, 1]
            away = point[:, 2] - reach * direction[:, 2]
            scale = focal / away
            place = self._pixel(torch.stack([x * scale, -y * scale], dim=1)).round().long().clamp(0, self.pixels - 1)
            seen = depth.index_select(0, (picture * self.pixels + place[:, 1]) * self.pixels + place[:, 0])
            gap = away - seen
            behind = ((gap - 0.1) * 2.5).clamp(0, 1) * ((5.0 - gap) / 2.0).clamp(0, 1)
            shadow = torch.maximum(shadow, behind)
        return shadow

    def labels(self, fragments: Fragments) -> tuple[Tensor, Tensor, Tensor]:
        """Part [B, S, S] uint8, triangle [B, S, S] int32 and weights [B, S, S, 3] at the target size."""
        device = self.camera.device
        pictures, size, pixels = len(self.face_start), self.size, self.pixels
        slot = torch.full((pictures * pixels * pixels,), -1, dtype=torch.int64, device=device)
        slot[fragments.pixel] = torch.arange(len(fragments.pixel), device=device)
        nearest = ((torch.arange(size, device=device) + 0.5) * (pixels / size) - 0.5).round().long()
        slot = slot.view(pictures, pixels, pixels)[:, nearest][:, :, nearest]
        covered = slot >= 0
        chosen = slot[covered]
        triangle = fragments.triangle.index_select(0, chosen)
        face = self.triangle_face.index_select(0, triangle)
        part = torch.zeros(slot.shape, dtype=torch.uint8, device=device)
        part[covered] = self.part.index_select(0, face)
        own = torch.full(slot.shape, -1, dtype=torch.int32, device=device)
        start = self.face_start.index_select(0, self.triangle_picture.index_select(0, triangle))
        own[covered] = (face - start).int()
        weights = torch.zeros(*slot.shape, 3, device=device)
        blend = fragments.weights.index_select(0, chosen)
        if pixels != size:
            blend = self._weights_at(triangle, face, covered.nonzero()[:, 1:].flip(1), size, blend)
        weights[covered] = blend
        return part, own, weights

    def _weights_at(self, triangle: Tensor, face: Tensor, pixel: Tensor, size: int, known: Tensor) -> Tensor:
        """Weights at the centres of target pixels [n, 2], of triangles hit a fraction of a pixel away.

        The surface goes on as a plane; triangles seen edge-on keep the weights `known` where they were hit.
        """
        corner = (self.faces.index_select(0, face) + self.triangle_shift.index_select(0, triangle)[:, None]).flatten()
        a, b, c = self.picture.index_select(0, corner).view(-1, 3, 2).unbind(1)
        p = pixel * (2.0 / (size - 1)) - 1.0 - a
        b, c = b - a, c - a
        area = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
        second = (p[:, 0] * c[:, 1] - p[:, 1] * c[:, 0]) / area
        third = (b[:, 0] * p[:, 1] - b[:, 1] * p[:, 0]) / area
        screen = torch.stack([1 - second - third, second, third], dim=1)
        scaled = screen / self.camera[:, 2].index_select(0, corner).view(-1, 3)
        exact = scaled / scaled.sum(1, keepdim=True)
        near = ((exact > -1.0) & (exact < 2.0)).all(1, keepdim=True)
        return torch.where(near, exact, known)


def _parts(mesh: PersonMesh) -> Tensor:
    """[F] uint8 index into PARTS."""
    by_kind = [PARTS.index(_PART_OF_KIND[kind]) for kind in range(len(_PART_OF_KIND))]
    part = torch.tensor(by_kind, device=mesh.kind.device)[mesh.kind]
    skin = mesh.kind == SKIN
    lips = mesh.static[:, 3][mesh.faces].mean(1) > 0.5
    inside = mesh.static[:, 4][mesh.faces].mean(1) > 0.5
    below_nose = mesh.base[:, 1][mesh.faces].mean(1) < mesh.base[mesh.landmarks[33], 1]
    part[skin & lips] = PARTS.index("lips")
    part[skin & inside & below_nose] = PARTS.index("mouth")
    return part.to(torch.uint8)
