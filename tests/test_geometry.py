import math

import pytest
import torch
import torch.nn.functional as F

from vasa import geometry


def random_poses(n=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=generator) * torch.tensor([0.5, 0.3, 0.4, 0.2, 0.2, 0.3])


def test_rotation_is_orthonormal_and_angles_come_back():
    angles = random_poses()[:, :3]
    matrix = geometry.rotation(angles)
    assert torch.allclose(matrix @ matrix.transpose(1, 2), torch.eye(3).expand(16, 3, 3), atol=1e-5)
    assert torch.allclose(geometry.angles_of(matrix), angles, atol=1e-5)


@pytest.mark.parametrize(
    "angle, axis, sign", [(0, 0, -1), (1, 1, +1)], ids=["yaw turns the nose left", "pitch nods down"]
)
def test_signs_of_the_angles(angle, axis, sign):
    nose = torch.tensor([0.0, 0.0, -1.0])
    angles = torch.zeros(3)
    angles[angle] = 0.3
    moved = geometry.rotation(angles) @ nose
    assert moved[axis] * sign > 0.2


def test_roll_tilts_the_crown_to_the_right():
    assert (geometry.rotation(torch.tensor([0.0, 0.0, 0.3])) @ torch.tensor([0.0, -1.0, 0.0]))[0] > 0.2


def test_pose_matrix_and_its_inverse():
    pose = random_poses()
    there, back = geometry.pose_matrix(pose), geometry.inverse_pose_matrix(pose)
    points = torch.randn(16, 3, 1)
    moved = there[..., :3] @ points + there[..., 3:]
    assert torch.allclose(back[..., :3] @ moved + back[..., 3:], points, atol=1e-4)


def test_identity_grid_has_its_corners_at_one():
    grid = geometry.identity_grid((2, 3, 4))
    assert grid.shape == (2, 3, 4, 3)
    assert grid[0, 0, 0].tolist() == [-1, -1, -1] and grid[1, 2, 3].tolist() == [1, 1, 1]
    assert grid[0, 0, 1, 0] == pytest.approx(-1 / 3)


def test_turning_about_the_neck_leaves_the_neck():
    pose = random_poses()
    turned = geometry.turn_about_neck(pose, torch.tensor([0.2, -0.1, 0.3]))
    neck = torch.tensor(geometry.NECK)

    def place(p):
        return (p[:, 5:].exp() * (geometry.rotation(p[:, :3]) @ neck))[:, :2] + p[:, 3:5]

    assert torch.allclose(place(pose), place(turned), atol=1e-5)
    assert torch.allclose(turned[:, 0] - pose[:, 0], torch.full((16,), 0.2), atol=1e-6)


def test_angles_stay_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        pose = torch.zeros(1, 6)
        pose[0, 0] = math.radians(10.05)
        matrix = geometry.inverse_pose_matrix(pose)
    assert matrix.dtype == torch.float32
    assert math.degrees(math.asin(matrix[0, 0, 2].abs().item())) == pytest.approx(10.05, abs=1e-3)


def test_a_near_camera_and_back():
    draw = torch.Generator().manual_seed(0)
    source, driving = (0.2 * torch.randn(3, 6, generator=draw) for _ in range(2))
    places, closeness = 0.4 * torch.randn(3, 3, 5, generator=draw), torch.tensor([0.0, 0.3, 0.5])

    def shown(pose, places):
        return geometry.in_perspective(geometry.moved_in_space(geometry.pose_matrix(pose), places), closeness)

    here = shown(driving, places)
    posed = geometry.moved_in_space(geometry.pose_matrix(driving), places)
    assert torch.allclose(here[0], posed[0]) and not torch.allclose(here[1:], posed[1:], atol=1e-2)
    assert torch.allclose(geometry.out_of_perspective(here, closeness), posed, atol=1e-6)

    def seen_from_there(deeper):
        """The same pixels, showing what lies so much deeper (canonical lengths), in the source's picture."""
        moved = here + F.pad(driving[:, 5:].exp() * deeper, (2, 0))[..., None]
        straight = geometry.out_of_perspective(moved, closeness)
        return shown(source, geometry.moved_in_space(geometry.inverse_pose_matrix(driving), straight))

    there, step = seen_from_there(0.0), (seen_from_there(1e-3) - seen_from_there(-1e-3)) / 2e-3
    ray = torch.cat([closeness[:, None, None] * here[:, :2], torch.ones(3, 1, 5)], dim=1)
    lean = geometry.step_in_picture(geometry.turn_between(source, driving) @ ray, there[:, :2], closeness)
    nearer = 1 + closeness[:, None, None] * there[:, 2:]
    assert torch.allclose(step[:, :2], lean / nearer, atol=2e-3)
