"""Patches of mouth and eyes move with the head; what is drawn in them lands where it belongs, and nowhere else."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vasa.config import TINY
from vasa.face.closeup import CloseUp, border_weight, lay_patch
from vasa.face.decoder import Layers
from vasa.face.model import FaceModel
from vasa.face.patches import (
    EYES,
    MOUTH,
    cut_patch,
    mirror_dynamics,
    mirror_pose,
    patch_affine,
    patch_grid,
    patch_lean,
    to_patch,
    to_picture,
    view_of,
)
from vasa.geometry import identity_grid, in_perspective, moved_in_space, pose_matrix
from vasa.latents import DYNAMICS

CLOSE = replace(TINY.face, mouth_size=16, mouth_widths=(16, 8, 8), eye_size=16, eye_widths=(16, 8, 8))
POSES = torch.tensor([[0.4, -0.2, 0.3, 0.1, -0.05, -0.3], [-0.3, 0.25, -0.2, -0.1, 0.08, -0.2]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FaceModel(CLOSE).eval()


@pytest.mark.parametrize("patch", [MOUTH, *EYES])
def test_a_patch_lies_where_the_pose_puts_it(patch):
    affine = patch_affine(POSES, patch)
    centre = torch.einsum("bij,j->bi", pose_matrix(POSES), torch.tensor([*patch.centre, 1.0]))[:, :2]
    assert torch.allclose(affine[..., 2], centre, atol=1e-6)
    places = torch.rand(2, 2, 5, 5) * 2 - 1
    assert torch.allclose(to_patch(to_picture(places, affine), affine), places, atol=1e-4)


@pytest.mark.parametrize("patch", [MOUTH, *EYES])
def test_relief_is_seen_shifted_by_the_lean(patch):
    side = -1.0 if patch.mirrored else 1.0
    u, v, height = 0.3, -0.4, 0.5
    point = torch.tensor(patch.centre) + patch.half * torch.tensor([side * u, v, height])
    seen = torch.einsum("bij,j->bi", pose_matrix(POSES), torch.cat([point, torch.ones(1)]))[:, :2]
    found = to_patch(seen[..., None, None], patch_affine(POSES, patch))[..., 0, 0]
    assert torch.allclose(found, torch.tensor([u, v]) + height * patch_lean(POSES, patch), atol=1e-4)


@pytest.mark.parametrize("patch", [MOUTH, *EYES])
def test_a_near_camera_sees_a_patch_through_an_affine_map(patch):
    closeness = torch.tensor([0.5, 0.2])
    view, draw = view_of(POSES, patch, closeness), torch.Generator().manual_seed(0)
    assert torch.allclose(view_of(POSES, patch, torch.zeros(2)), pose_matrix(POSES), atol=1e-6)
    for reach in (0.0, 0.02, 0.1):
        points = torch.tensor(patch.centre)[:, None] + reach * torch.randn(3, 20, generator=draw)
        exact = in_perspective(moved_in_space(pose_matrix(POSES), points[None]), closeness)[:, :2]
        found = moved_in_space(view, points[None])[:, :2]
        assert torch.allclose(found, exact, atol=1e-6 + 4 * reach**2), (reach, (found - exact).abs().max())
    parallel = moved_in_space(pose_matrix(POSES), points[None])[:, :2]
    assert (found - exact).abs().max() < 0.25 * (parallel - exact).abs().max()


def test_the_right_eye_looks_like_the_left_one_in_a_mirror():
    pictures = torch.rand(2, 3, 64, 64)
    left = cut_patch(pictures, POSES, EYES[0], 16)
    right_in_mirror = cut_patch(pictures.flip(-1), mirror_pose(POSES), EYES[1], 16)
    # the patches' centres differ by a hair's breadth between the sides
    assert torch.allclose(left, right_in_mirror, atol=1e-4)


def test_mirrored_dynamics_swap_sides_and_turn_the_eyes_round():
    dynamics = torch.zeros(len(DYNAMICS))
    dynamics[[DYNAMICS.index("eyeBlink_L"), DYNAMICS.index("eyeYaw"), DYNAMICS.index("jawLeft")]] = 0.5
    mirrored = mirror_dynamics(dynamics)
    assert mirrored[DYNAMICS.index("eyeBlink_R")] == 0.5 and mirrored[DYNAMICS.index("jawRight")] == 0.5
    assert mirrored[DYNAMICS.index("eyeYaw")] == -0.5 and mirrored[DYNAMICS.index("eyeBlink_L")] == 0
    assert torch.equal(mirror_dynamics(mirrored), dynamics)


def layers_of(picture, size):
    """Layers whose flow stays and whose painted part is `picture`."""
    flow = identity_grid((size, size)).movedim(-1, 0).expand(len(picture), -1, -1, -1)
    return Layers(picture, flow, torch.zeros(len(picture), 1, size, size), torch.ones(len(picture), 3, size, size))


def test_a_patch_changes_its_own_place_alone():
    size = 64
    whole, affine = layers_of(torch.zeros(2, 3, size, size), size), patch_affine(POSES, MOUTH)
    drawn = Layers(
        torch.ones(2, 3, 16, 16), torch.zeros(2, 2, 16, 16), torch.ones(2, 1, 16, 16), torch.ones(2, 3, 16, 16)
    )
    laid = Layers.split(lay_patch(whole.joined(), drawn, affine, MOUTH))
    inside = to_patch(identity_grid((size, size)).movedim(-1, 0).expand(2, -1, -1, -1), affine)
    expected = border_weight(inside)
    assert torch.allclose(laid.painted, expected.expand(-1, 3, -1, -1), atol=1e-5)
    assert expected.amax() == 1 and (laid.mask - expected).abs().max() < 1e-5
    outside = inside.abs().amax(1, keepdim=True) >= 1
    assert outside.any() and torch.equal(
        laid.flow[outside.expand(-1, 2, -1, -1)], whole.flow[outside.expand(-1, 2, -1, -1)]
    )


def test_a_patch_cut_and_laid_back_is_the_picture():
    size = 128
    picture = F.avg_pool2d(torch.rand(1, 3, size + 24, size + 24), 25, 1)
    pose = POSES[:1]
    affine = patch_affine(pose, MOUTH)
    cut = cut_patch(picture, pose, MOUTH, 64)
    flow = to_picture(patch_grid(64), affine)
    drawn = Layers(cut, flow, torch.zeros(1, 1, 64, 64), torch.ones(1, 3, 64, 64))
    laid = Layers.split(lay_patch(layers_of(picture, size).joined(), drawn, affine, MOUTH))
    assert (laid.painted - picture).abs().max() < 0.01
    assert (laid.flow - layers_of(picture, size).flow).abs().max() < 1e-3


def test_an_untrained_close_up_leaves_everything_where_it_is():
    torch.manual_seed(0)
    close_up = CloseUp(59, 16, (16, 8, 8), 4)
    patch = torch.rand(2, 3, 16, 16)
    drawn = close_up(close_up.look(patch), torch.rand(2, 124), patch, torch.rand(2, 2))
    assert torch.allclose(drawn.flow, patch_grid(16).expand(2, -1, -1, -1), atol=1e-6)
    assert torch.allclose(drawn.gain, torch.ones(2, 3, 16, 16))


def test_the_model_draws_close_ups_with_gradients_and_for_many_frames_at_once(model):
    portrait = torch.rand(1, 3, 64, 64)
    dynamics = torch.rand(3, 59) * 0.5
    poses = torch.cat([POSES, POSES[:1] * 0.5])
    face = model.encode(portrait, POSES[:1], torch.zeros(1, 59))
    assert face.mouth.shape[0] == 1 and face.eyes.shape[:2] == (1, 2)
    together = model.decode(face, poses, dynamics).image
    alone = torch.cat([model.decode(face, poses[i : i + 1], dynamics[i : i + 1]).image for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    together.mean().backward()
    assert model.closeups.mouth.paint.weight.grad.abs().sum() > 0
    assert model.closeups.eyes.stem.weight.grad.abs().sum() > 0
    model.zero_grad()
