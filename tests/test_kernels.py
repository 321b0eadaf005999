"""Laws of the kernels' reference."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from vasa.kernels.gather import gather_3d

from vasa.geometry import inverse_pose_matrix, pose_matrix
from vasa.kernels import dispatch, positions


@pytest.fixture
def volume():
    return torch.randn(2, 5, 4, 7, 6, generator=torch.Generator().manual_seed(0))


def zero_pose(n=2):
    return torch.zeros(n, 6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("order", ["flow_then_rigid", "rigid_then_flow"])
def test_no_motion_returns_the_volume(volume, align_corners, order):
    moved = dispatch.warp_volume(
        volume, theta=pose_matrix(zero_pose()), flow=torch.zeros(2, 3, 4, 7, 6),
        order=order, align_corners=align_corners,
    )  # fmt: skip
    assert torch.allclose(moved, volume, atol=1e-5)


def test_one_voxel_shift(volume):
    step = 2 / (volume.shape[-1] - 1)
    flow = torch.zeros(2, 3, *volume.shape[2:])
    flow[:, 0] = step
    moved = dispatch.warp_volume(volume, flow=flow)
    assert torch.allclose(moved[..., :-1], volume[..., 1:], atol=1e-5)
    assert moved[..., -1].abs().max() < 1e-5, "zeros outside"


def test_quarter_turn_moves_a_blob_where_it_should_be():
    volume = torch.zeros(1, 1, 5, 5, 5)
    volume[0, 0, 2, 2, 4] = 1.0  # at x = +1
    pose = zero_pose(1)
    pose[0, 2] = torch.pi / 2  # clockwise: right goes down
    moved = dispatch.warp_volume(volume, theta=inverse_pose_matrix(pose))
    assert moved[0, 0, 2, 4, 2] == pytest.approx(1.0, abs=1e-4)


def test_both_orders_agree_where_only_one_map_acts(volume):
    pose = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)) * 0.2
    theta = pose_matrix(pose)
    a = dispatch.warp_volume(volume, theta=theta, order="flow_then_rigid")
    b = dispatch.warp_volume(volume, theta=theta, order="rigid_then_flow")
    assert torch.allclose(a, b, atol=1e-6)
    two_passes = dispatch.grid_sample_3d(volume, F.affine_grid(theta, volume.shape, align_corners=True))
    assert torch.allclose(a, two_passes, atol=1e-5)


def test_collapsed_depth_is_depth_major_and_shared_volumes_broadcast(volume):
    pose = torch.randn(3, 6, generator=torch.Generator().manual_seed(2)) * 0.1
    one = volume[:1]
    flat = dispatch.warp_volume(one, theta=pose_matrix(pose), collapse_depth=True)
    full = dispatch.warp_volume(one.expand(3, -1, -1, -1, -1), theta=pose_matrix(pose))
    assert flat.shape == (3, 4 * 5, 7, 6)
    assert torch.equal(flat.unflatten(1, (4, 5)), full.transpose(1, 2))


def test_positions_stay_float32_for_half_volumes(volume):
    theta = pose_matrix(torch.full((2, 6), 0.123))
    exact = dispatch.warp_volume(volume.double(), theta=theta.double())
    half = dispatch.warp_volume(volume.bfloat16(), theta=theta)
    assert half.dtype == torch.bfloat16
    assert (half.double() - exact).norm() / exact.norm() < 6e-3


def test_gradients_reach_volume_flow_and_pose(volume):
    volume = volume.double().requires_grad_()
    flow = (torch.randn(2, 3, 4, 7, 6, dtype=torch.float64) * 0.05).requires_grad_()
    theta = pose_matrix(torch.full((2, 6), 0.1)).double().requires_grad_()
    dispatch.warp_volume(volume, theta=theta, flow=flow, order="rigid_then_flow").square().sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in (volume, flow, theta))


def test_a_warp_that_moves_nothing_is_refused(volume):
    with pytest.raises(ValueError, match="neither"):
        dispatch.warp_volume(volume)
    with pytest.raises(ValueError, match="order"):
        dispatch.warp_volume(volume, flow=torch.zeros(2, 3, 4, 7, 6), order="sideways")


@pytest.mark.parametrize(
    "part,size", [("theta", (2, 4, 4)), ("flow", (2, 2, 4, 7, 6)), ("mask", (2, 5, 4, 7, 6)), ("theta", (3, 3, 4))]
)
def test_parts_that_do_not_fit_are_refused(volume, part, size):
    given = dict(theta=pose_matrix(zero_pose())) | {part: torch.zeros(size)}
    with pytest.raises(ValueError, match="expected .*got"):
        dispatch.warp_volume(volume, **given)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_gathered_samples_are_pytorchs_with_their_gradients(padding, align_corners):
    draw = torch.Generator().manual_seed(3)
    for size in ((3, 5, 4), (1, 4, 1)):
        volume = torch.randn(2, 3, *size, generator=draw, dtype=torch.float64)
        grid = torch.randn(2, 4, 3, 5, 3, generator=draw, dtype=torch.float64)
        results = []
        for sample in (gather_3d, lambda v, g, p, a: F.grid_sample(v, g, padding_mode=p, align_corners=a)):
            leaves = [volume.clone().requires_grad_(), grid.clone().requires_grad_()]
            moved = sample(*leaves, padding, align_corners)
            moved.backward(torch.randn(moved.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
            results.append((moved.detach(), *(leaf.grad for leaf in leaves)))
        for got, exact in zip(*results, strict=True):
            assert torch.allclose(got, exact, atol=1e-12)


def test_gathered_samples_of_places_that_are_none():
    volume = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    odd = torch.tensor([float("inf"), float("-inf"), 1e30, -1e30, 5.0, -5.0])
    for padding in ("zeros", "border"):
        for axis in range(3):
            grid = torch.zeros(1, 1, 1, len(odd), 3)
            grid[..., axis] = odd
            exact = F.grid_sample(volume, grid, padding_mode=padding, align_corners=True)
            assert torch.allclose(gather_3d(volume, grid, padding, True), exact, atol=1e-6)
    assert torch.isfinite(gather_3d(volume, torch.full((1, 1, 1, 1, 3), float("nan")), "zeros", True)).all()


class WithoutSampling(TorchDispatchMode):
    """A device that has no trilinear sampling, as Apple's GPUs."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if "grid_sampler_3d" in str(function) or "grid_sampler_3d" in getattr(function, "__name__", ""):
            raise NotImplementedError(f"{function} is not implemented for the MPS device")
        return function(*arguments, **options or {})


def test_a_device_without_sampling_gathers(volume, monkeypatch):
    options = dict(theta=pose_matrix(torch.full((2, 6), 0.1)), flow=0.1 * torch.randn(2, 3, 4, 7, 6))
    exact = dispatch.warp_volume(volume, order="rigid_then_flow", **options)
    with WithoutSampling(), pytest.raises(NotImplementedError):
        dispatch.warp_volume(volume, order="rigid_then_flow", **options)
    monkeypatch.setattr(positions, "WITHOUT_SAMPLING", ("cpu",))
    with WithoutSampling():
        got = dispatch.warp_volume(volume, order="rigid_then_flow", **options)
    assert torch.allclose(got, exact, atol=1e-5)


def test_attention_ignores_keys_past_their_length():
    q, k, v = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 5])
    out = dispatch.short_attention(q, k, v, key_lengths=lengths)
    assert torch.allclose(out[1], dispatch.short_attention(q[1:], k[1:, :, :5], v[1:, :, :5])[0], atol=1e-5)
    k[1, :, 5:] = 1e3
    assert torch.allclose(dispatch.short_attention(q, k, v, key_lengths=lengths)[1], out[1], atol=1e-5)


def test_adaptive_norm_with_zero_code_is_the_plain_norm():
    x = torch.randn(2, 8, 5, 5)
    weight, bias = torch.rand(8), torch.rand(8)
    plain = dispatch.group_norm_silu(x, 2, weight, bias)
    assert torch.allclose(plain, F.silu(F.group_norm(x, 2, weight, bias)))
    zero = torch.zeros(2, 8)
    assert torch.allclose(dispatch.group_norm_silu(x, 2, weight, bias, scale=zero, shift=zero), plain)


def test_guided_step_recovers_the_clean_motion():
    x_0, noise = torch.randn(2, 1, 4, 3)
    level = 0.3
    x_t = level**0.5 * x_0 + (1 - level) ** 0.5 * noise
    weights = torch.tensor([1.5, -0.5])
    predictions = torch.stack([x_0, x_0])
    clean, end = dispatch.guided_x0_step(predictions, weights, x_t, level, 1.0)
    assert torch.allclose(clean, x_0, atol=1e-6) and torch.allclose(end, x_0, atol=1e-5)
    _, between = dispatch.guided_x0_step(predictions, weights, x_t, level, 0.6)
    assert torch.allclose(between, 0.6**0.5 * x_0 + 0.4**0.5 * noise, atol=1e-5)


def test_every_operation_reports_a_backend():
    report = dispatch.backend_report()
    assert set(report) >= {"warp_volume", "short_attention"} and all(report.values())


def test_transformers_still_finds_the_other_kernels_package(tmp_path):
    """With a distribution called `kernels` installed, Wav2Vec2 must import from the repository root."""
    (tmp_path / "kernels-0.18.2.dist-info").mkdir()
    (tmp_path / "kernels-0.18.2.dist-info" / "METADATA").write_text("Name: kernels\nVersion: 0.18.2\n")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text(
        "def __getattr__(name):\n    return lambda *a, **k: lambda x: x\n"
    )
    code = (
        "import sys; sys.path.insert(0, ''); sys.path.append(sys.argv[1])\n"
        "import kernels; assert kernels.__file__, 'our folder shadows the package'\n"
        "from vasa.kernels.dispatch import warp_volume\n"
        "from vasa.audio import AudioEncoder\n"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
