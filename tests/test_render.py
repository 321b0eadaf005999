"""The renderer on the formula head (and on the asset pack when VASA_ASSETS names one)."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vasa.geometry import CANONICAL_CM, HEAD_CENTRE_CM, rotation
from vasa.latents import EXPRESSIONS
from vasa.synthetic.assets import load_pack
from vasa.synthetic.formula import formula_pack
from vasa.synthetic.person import PARTS, FrameLabels, HairMesh, HeadPack, Person, Studio
from vasa.synthetic.render import flow_between, render, render_many

PACKS = ["formula", *(["assets"] if os.environ.get("VASA_ASSETS") else [])]
SIZE = 96


@pytest.fixture(scope="module", params=PACKS)
def pack(request) -> HeadPack:
    return formula_pack() if request.param == "formula" else load_pack()


def make_person(pack: HeadPack, seed: int | None = None, hair: tuple[HairMesh, ...] = ()) -> Person:
    count = len(pack.identity)
    shape = torch.zeros(count)
    if seed is not None:
        shape = 0.6 * torch.randn(count, generator=torch.Generator().manual_seed(seed))
    return Person(
        shape=shape,
        skin=next(iter(pack.skins.values())),
        rest=torch.zeros(len(EXPRESSIONS)),
        hair=hair,
        cloth=torch.full((3, 256, 256), 0.4),
        torso=torch.tensor([18.0, 0.3, 2.0]),
        iris=torch.tensor([0.2, 0.12, 0.06]),
        iris_radius=0.46,
        pupil_radius=0.18,
        sclera=torch.tensor([0.9, 0.88, 0.86]),
        teeth=torch.tensor([0.9, 0.87, 0.8]),
        gloss=0.3,
    )


def make_studio(colour: float = 0.6) -> Studio:
    return Studio(
        light_directions=F.normalize(torch.tensor([[-0.4, 0.5, 0.8]]), dim=1),
        light_colours=torch.full((1, 3), 0.6),
        ambient=torch.full((3,), 0.4),
        sky=torch.full((3,), 0.1),
        background=torch.full((3, 64, 64), colour),
        focal=2.6,
    )


def make_labels(frames: int, **curves: list[float]) -> FrameLabels:
    """Average framing; `curves` are channel names (sided ones move both sides) and values over time."""
    pose, dynamics = torch.zeros(frames, 6), torch.zeros(frames, 59)
    pose[:, 5] = -0.288
    names = ("yaw", "pitch", "roll", "x", "y", "log_s")
    for name, values in curves.items():
        if name in names:
            pose[:, names.index(name)] = torch.tensor(values)
        elif name in ("eye_yaw", "eye_pitch"):
            dynamics[:, 57 + (name == "eye_pitch")] = torch.tensor(values)
        else:
            for index, expression in enumerate(EXPRESSIONS):
                if expression in (name, f"{name}_L", f"{name}_R"):
                    dynamics[:, index] = torch.tensor(values)
    return FrameLabels(pose, dynamics, torch.zeros(frames, 2))


def project(points: torch.Tensor, pose: torch.Tensor, focal: float) -> torch.Tensor:
    """The documented projection, once more: points [n, 3] in cm of a head that turns as a whole."""
    q = (points - torch.tensor(HEAD_CENTRE_CM)) * torch.tensor([1.0, -1.0, -1.0]) / CANONICAL_CM
    turned = q @ rotation(pose[:3]).T * pose[5].exp()
    return (pose[3:5] + turned[:, :2]) / (1 + turned[:, 2:] / focal)


def test_warping_by_the_flow_reproduces_other_frames(pack):
    labels = make_labels(
        3, yaw=[0.0, 0.3, -0.25], pitch=[0.0, -0.1, 0.15], roll=[0.0, 0.1, -0.1], x=[0.0, 0.05, -0.03],
        jawOpen=[0.0, 0.5, 0.1], mouthSmile=[0.0, 0.0, 0.6], eye_yaw=[0.0, 0.2, -0.2],
    )  # fmt: skip
    rendered = render(pack, make_person(pack, 1), make_studio(), labels, 192, 2)
    flow, visible = flow_between(rendered, slice(0, 3), 0)
    warped = F.grid_sample(rendered.image[:1].expand(3, -1, -1, -1), flow, align_corners=True)
    for frame in (1, 2):
        seen = visible[frame] & (rendered.triangle[frame] >= 0)
        assert seen.float().mean() > 0.2
        error = ((warped[frame] - rendered.image[frame]) ** 2)[:, seen].mean()
        copying = ((rendered.image[0] - rendered.image[frame]) ** 2)[:, seen].mean()
        assert -10 * error.log10() > 22
        assert error < copying / 3


def test_flow_of_a_frame_to_itself_is_the_identity(pack):
    rendered = render(pack, make_person(pack), make_studio(), make_labels(2, yaw=[0.3, 0.1]), SIZE, 1.5)
    flow, visible = flow_between(rendered, slice(0, 2), slice(0, 2))
    axis = torch.linspace(-1, 1, SIZE)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], dim=-1)
    assert visible.float().mean() > 0.99
    error = (flow - grid).abs().flatten(1) * (SIZE - 1) / 2
    assert error.quantile(0.99, dim=1).max() < 0.05
    assert error.max() < 0.5


def test_hidden_points_are_not_visible(pack):
    rendered = render(pack, make_person(pack), make_studio(), make_labels(2, yaw=[0.0, 0.9]), SIZE)
    flow, visible = flow_between(rendered, 0, 1)
    # Turned to the picture's left, the head hides its cheek at the left end of the picture.
    row = int(((rendered.landmarks[0, 1, 1] + 1) / 2 * (SIZE - 1)).round())
    column = int(((rendered.landmarks[0, 1, 0] + 1) / 2 * (SIZE - 1)).round()) + 3
    assert rendered.triangle[0, row, column] >= 0
    assert not visible[0, row, column]


def test_landmarks_agree_with_the_documented_projection(pack):
    labels = make_labels(2, yaw=[0.4, -0.2], pitch=[0.1, -0.3], roll=[-0.2, 0.3], x=[0.1, -0.2], y=[-0.1, 0.1])
    person, studio = make_person(pack), make_studio()
    rendered = render(pack, person, studio, labels, SIZE)
    points = pack.neutral[pack.landmarks[17:48]]
    for frame in range(2):
        expected = project(points, labels.head_pose[frame], studio.focal)
        error = (rendered.landmarks[frame, 17:48] - expected).norm(dim=1) * (SIZE - 1) / 2
        assert error.max() < 0.5


def test_landmarks_lie_on_the_pixels_that_show_them(pack):
    labels = make_labels(1, yaw=[0.1], jawOpen=[0.2])
    rendered = render(pack, make_person(pack), make_studio(), labels, 256)
    nose = ((rendered.landmarks[0, 30] + 1) / 2 * 255).round().long()
    triangle = rendered.triangle[0, nose[1], nose[0]].long()
    corner = rendered.vertices[0, rendered.faces[triangle]]
    share = rendered.weights[0, nose[1], nose[0]] * corner[:, 2]
    shown = (share[:, None] * corner[:, :2]).sum(0) / share.sum()
    assert (shown - rendered.landmarks[0, 30]).norm() * 127.5 < 0.8


def test_pose_signs(pack):
    labels = make_labels(4, yaw=[0.0, 0.3, 0.0, 0.0], pitch=[0.0, 0.0, 0.3, 0.0], roll=[0.0, 0.0, 0.0, 0.3])
    marks = render(pack, make_person(pack), make_studio(), labels, SIZE).landmarks
    nose = marks[:, 30] - marks[:, 36:48].mean(1)
    assert nose[1, 0] < nose[0, 0] - 0.02, "positive yaw turns the nose to the picture's left"
    assert marks[2, 30, 1] > marks[0, 30, 1] + 0.02, "positive pitch nods down"
    eyes = marks[:, 42:48].mean(1) - marks[:, 36:42].mean(1)
    assert eyes[3, 1] > 0.05, "positive roll tilts the head clockwise: the eye on the right sinks"


def test_the_head_centre_is_where_the_label_says(pack):
    labels = make_labels(2, x=[0.2, -0.1], y=[-0.1, 0.15], log_s=[-0.5, 0.0], yaw=[0.5, -0.5])
    rendered = render(pack, make_person(pack), make_studio(), labels, SIZE)
    expected = CANONICAL_CM * 2.6 / labels.head_pose[:, 5].exp()
    nose = pack.neutral[pack.landmarks[30]]
    for frame in range(2):
        depth = rendered.vertices[frame, pack.landmarks[30], 2]
        reach = (nose - torch.tensor(HEAD_CENTRE_CM)).norm()
        assert abs(float(depth - expected[frame])) < reach


def test_the_torso_stays_when_only_the_head_turns(pack):
    labels = make_labels(2, yaw=[0.0, 0.5], pitch=[0.0, 0.2], roll=[0.0, -0.2])
    rendered = render(pack, make_person(pack), make_studio(), labels, SIZE)
    cloth = rendered.vertices[:, -500:]
    assert torch.allclose(cloth[0], cloth[1], atol=1e-4)
    moved = FrameLabels(labels.head_pose, labels.dynamics, torch.tensor([[0.0, 0.0], [0.05, 0.0]]))
    cloth = render(pack, make_person(pack), make_studio(), moved, SIZE).vertices[:, -500:]
    assert (cloth[1, :, 0] - cloth[0, :, 0] > 0.02).all()


def part_area(rendered, name: str) -> torch.Tensor:
    return (rendered.part == PARTS.index(name)).flatten(1).sum(1)


def test_the_jaw_opens_the_mouth_monotonically(pack):
    rendered = render(pack, make_person(pack), make_studio(), make_labels(5, jawOpen=[0, 0.2, 0.4, 0.6, 0.8]), 192)
    area = part_area(rendered, "mouth")
    assert (area.diff() > 0).all()
    assert area[-1] > 200
    assert area[0] < 60


def test_the_blink_closes_the_eyes_monotonically(pack):
    person = make_person(pack, 2)
    rendered = render(pack, person, make_studio(), make_labels(5, eyeBlink=[0, 0.25, 0.5, 0.75, 1.0]), 192)
    area = part_area(rendered, "eye")
    assert (area.diff() < 0).all()
    assert area[-1] < 0.12 * area[0]


def test_the_gaze_moves_the_iris(pack):
    person = replace(make_person(pack), iris=torch.tensor([0.02, 0.02, 0.02]))
    for channel, axis in (("eye_yaw", 1), ("eye_pitch", 0)):
        labels = make_labels(5, log_s=[0.2] * 5, **{channel: [-0.3, -0.15, 0.0, 0.15, 0.3]})
        rendered = render(pack, person, make_studio(), labels, 256)
        eye = rendered.part == PARTS.index("eye")
        dark = (eye & (rendered.image.mean(1) < 0.25)).nonzero()
        places = torch.stack([dark[dark[:, 0] == frame, 1 + (axis == 1)].float().mean() for frame in range(5)])
        steps = places.diff()
        assert (steps < -0.3).all() if channel == "eye_yaw" else (steps > 0.3).all()


def test_rendering_is_deterministic_and_independent_of_the_batch(pack):
    person, studio, labels = make_person(pack, 3), make_studio(), make_labels(3, yaw=[0.0, 0.2, 0.4])
    first = render(pack, person, studio, labels, SIZE, 1.5)
    again = render(pack, person, studio, labels, SIZE, 1.5)
    assert torch.equal(first.image, again.image) and torch.equal(first.triangle, again.triangle)
    other = make_labels(2, roll=[0.2, -0.2])
    both = render_many(pack, [make_person(pack, 4), person], [make_studio(0.2), studio], [other, labels], SIZE, 1.5)
    assert torch.allclose(both[1].image, first.image, atol=1e-4)
    assert torch.equal(both[1].triangle, first.triangle)


def test_clips_drawn_in_several_passes_agree_with_single_frames(pack, monkeypatch):
    person, studio = make_person(pack, 5), make_studio()
    labels = make_labels(5, yaw=[0.0, 0.1, 0.2, 0.3, 0.4], log_s=[-0.3, -0.3, -0.3, -0.3, 0.1])
    whole = render(pack, person, studio, labels, SIZE)
    monkeypatch.setattr("vasa.synthetic.render._PIXELS_PER_PASS_CPU", 2 * SIZE**2)
    parts = render(pack, person, studio, labels, SIZE)
    assert torch.allclose(whole.image, parts.image, atol=1e-4)
    assert torch.equal(whole.triangle, parts.triangle) and torch.equal(whole.faces, parts.faces)


def test_shapes_and_ranges(pack):
    rendered = render(pack, make_person(pack), make_studio(), make_labels(2), SIZE, 2)
    assert rendered.image.shape == (2, 3, SIZE, SIZE)
    assert 0 <= rendered.image.min() and rendered.image.max() <= 1
    assert rendered.part.dtype == torch.uint8 and rendered.triangle.dtype == torch.int32
    covered = rendered.triangle >= 0
    assert torch.equal(covered, rendered.part > 0)
    assert torch.allclose(rendered.weights[covered].sum(-1), torch.ones(int(covered.sum())), atol=1e-4)
    assert int(rendered.faces.max()) < rendered.vertices.shape[1]
    background = rendered.image.permute(0, 2, 3, 1)[:, :6, :6]
    assert torch.allclose(background, torch.full_like(background, 0.6), atol=1e-4)


def test_transparent_hair_shows_what_is_behind(pack):
    corners = torch.tensor([[-6.0, 10.0, 14.0], [6.0, 10.0, 14.0], [-6.0, 5.0, 14.0], [6.0, 5.0, 14.0]])
    faces = torch.tensor([[0, 2, 1], [1, 2, 3]])
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[faces]
    areas = []
    for alpha in (0.0, 0.5, 1.0):
        texture = torch.cat([torch.full((3, 256, 256), 0.1), torch.full((1, 256, 256), alpha)])
        person = make_person(pack, hair=(HairMesh(corners, faces, uv, texture),))
        areas.append(int(part_area(render(pack, person, make_studio(), make_labels(1), SIZE), "hair")[0]))
    assert areas[0] == 0
    assert 0.3 < areas[1] / areas[2] < 0.7
