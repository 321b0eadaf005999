"""What a rendered person is made of, and what a render returns.

The people sampler (`people.py`) fills `Person` and `Studio`, `motion` fills `FrameLabels`, the renderer
(`render.py`) returns `Rendered`. Lengths are centimetres in the asset pack's axes: x to the picture's right, y up,
z towards the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadPack:
    """A morphable head: vertices = neutral + identity·a + expression·w.

    Attributes:
        neutral: [V, 3] float32, cm.
        identity: [I, V, 3], modes whose coefficients are ~ N(0, 1).
        expression: [57, V, 3], order of `vasa.latents.EXPRESSIONS`.
        faces: [F, 3] int64.
        face_uv: [F, 3, 2] in [0, 1], origin at the top left of its tile.
        face_material: [F] int64, index into `materials`.
        materials: names, among M_Face, M_BackHead, M_GumsTongue, M_ScleraLeft, M_ScleraRight, M_Teeth.
        landmarks: [68] int64 vertex indices (iBUG order).
        skins: name -> [3, 512, 1024] float32 sRGB (left half: face tile, right half: back-of-head tile).
        hair: name -> HairMesh bound to the mean head.
    """

    neutral: Tensor
    identity: Tensor
    expression: Tensor
    faces: Tensor
    face_uv: Tensor
    face_material: Tensor
    materials: tuple[str, ...]
    landmarks: Tensor
    skins: dict[str, Tensor]
    hair: dict[str, HairMesh]


@dataclass(frozen=True)
class HairMesh:
    """A hair style (or any textured prop that moves with the head, such as glasses or a hat).

    Attributes:
        vertices: [N, 3] cm in neutral head space (already adapted to the person's head shape in a `Person`).
        faces: [F, 3] int64.
        uv: [F, 3, 2] in [0, 1], origin top left.
        texture: [4, H, W] RGBA in [0, 1].
    """

    vertices: Tensor
    faces: Tensor
    uv: Tensor
    texture: Tensor


@dataclass(frozen=True)
class Person:
    """One non-existing person.

    Attributes:
        shape: identity coefficients, [I].
        skin: [3, 512, 1024] sRGB: face tile | back-of-head tile, with brows, beard, lips, make-up painted in.
        rest: expression weights added to every frame so that lips meet at rest, [57].
        hair: list of head-bound meshes (hair, glasses, hat, earrings); may be empty.
        cloth: [3, 256, 256] sRGB texture of the torso.
        torso: (shoulder half-width cm, shoulder slope, neckline depth cm), [3].
        iris: colour [3]; iris_radius and pupil_radius in radians seen from the eyeball's centre.
        sclera: colour [3].
        teeth: colour [3].
        gloss: strength of the skin highlight, 0..1.
        eye_scale, head_scale: cartoon proportions, 1 = natural.
    """

    shape: Tensor
    skin: Tensor
    rest: Tensor
    hair: tuple[HairMesh, ...]
    cloth: Tensor
    torso: Tensor
    iris: Tensor
    iris_radius: float
    pupil_radius: float
    sclera: Tensor
    teeth: Tensor
    gloss: float
    eye_scale: float = 1.0
    head_scale: float = 1.0


@dataclass(frozen=True)
class Studio:
    """Light, camera and background, constant over a clip.

    Attributes:
        light_directions: towards the lights, unit vectors, [L, 3] (pack axes).
        light_colours: [L, 3].
        ambient: [3].
        sky: extra ambient for normals that point up, [3].
        background: [3, S, S] sRGB; the renderer resizes it.
        focal: focal length over half the picture's width, 1.9 (wide) .. 4.
    """

    light_directions: Tensor
    light_colours: Tensor
    ambient: Tensor
    sky: Tensor
    background: Tensor
    focal: float


@dataclass(frozen=True)
class FrameLabels:
    """What a frame shows: exact labels, and the renderer's input.

    Attributes:
        head_pose: [T, 6] (yaw, pitch, roll, t_x, t_y, log_s).
        dynamics: [T, 59] expression weights and eye-in-head rotation.
        body_shift: [T, 2] picture-plane drift of the torso in unit-cube lengths (small).
    """

    head_pose: Tensor
    dynamics: Tensor
    body_shift: Tensor


@dataclass(frozen=True)
class Rendered:
    """A batch of pictures with exact labels.

    Attributes:
        image: [T, 3, S, S] sRGB in [0, 1].
        part: [T, S, S] uint8, index into `PARTS`.
        triangle: [T, S, S] int32 covering triangle of the person's whole mesh, -1 for background.
        weights: [T, S, S, 3] perspective-correct barycentric weights.
        vertices: [T, V, 3] picture position (x, y in [-1, 1]) and depth (cm from the camera) of every vertex.
        faces: [F, 3] triangles of the whole mesh (head, hair and props, torso).
        landmarks: [T, 68, 2] picture positions.
    """

    image: Tensor
    part: Tensor
    triangle: Tensor
    weights: Tensor
    vertices: Tensor
    faces: Tensor
    landmarks: Tensor


PARTS: tuple[str, ...] = ("background", "skin", "lips", "mouth", "eye", "hair", "cloth", "neck", "prop")
