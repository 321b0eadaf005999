"""The Triton kernels themselves, run on the CPU by Triton's interpreter, against PyTorch in float64."""

import importlib.util
import math

import pytest
import torch

from vasa.geometry import pose_matrix
from vasa.kernels import dispatch, launch, reference

if importlib.util.find_spec("triton") is None or not launch.interpreting():
    pytest.skip("needs Triton and its interpreter", allow_module_level=True)

from vasa.kernels import attention, norm, step, warp3d, warp3d_gradients  # noqa: E402

# the interpreter cuts float32 to bfloat16, where GPUs round: twice the error
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 5e-4}
GUARD = 64
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")


@pytest.fixture(autouse=True)
def triton_only(monkeypatch):
    monkeypatch.setenv("VASA_KERNELS", "triton")
    monkeypatch.setenv("VASA_KERNELS_STRICT", "1")


@pytest.fixture(autouse=True)
def guarded(monkeypatch):
    """Outputs start as NaN between guard bands: an element left out or a store outside is seen."""
    guards = []

    def empty(size, like, dtype=None, layout=None):
        dtype = dtype or like.dtype
        strides = torch.empty(size, device="meta", memory_format=layout or torch.contiguous_format).stride()
        count = math.prod(size)
        buffer = torch.full((count + 2 * GUARD,), float("nan"), dtype=dtype)
        buffer[:GUARD] = buffer[GUARD + count :] = 7.0
        guards.append(buffer)
        return buffer[GUARD : GUARD + count].as_strided(size, strides, GUARD)

    monkeypatch.setattr(launch, "empty", empty)
    yield
    for buffer in guards:
        ends = torch.cat([buffer[:GUARD], buffer[-GUARD:]])
        assert (ends == 7.0).all(), "a kernel wrote outside of its output"


def normal(*size, seed=0, dtype=torch.float32):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(got, exact, tolerance):
    assert got.shape == exact.shape
    exact = exact.double()
    assert torch.isfinite(got).all(), "an output element was never written, or is not finite"
    assert float((got.double() - exact).norm()) <= tolerance * max(float(exact.norm()), 1e-6)


def lattice(size, align):
    """Positions of voxel centres, of the borders and beyond."""
    axes = [(torch.arange(-1, n + 1) * 2 - (n - 1)) / max(n - 1 if align else n, 1) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)[None]


SHAPES = [(2, 5, 3, 4, 6), (1, 32, 1, 7, 5), (2, 96, 4, 8, 8), (1, 1, 2, 1, 9), (1, 100, 3, 3, 3)]
MODES = [(padding, align) for padding in ("zeros", "border") for align in (True, False)]


@pytest.mark.parametrize("padding,align", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_samples_are_those_of_float64(shape, padding, align):
    volume = normal(*shape)
    grid = normal(shape[0], 4, 5, 3, 3, seed=1) * 0.8  # many inside, some outside
    got = dispatch.grid_sample_3d(volume, grid, padding_mode=padding, align_corners=align)
    exact = reference.grid_sample_3d(volume.double(), grid.double(), padding_mode=padding, align_corners=align)
    assert_close(got, exact, TOLERANCE[torch.float32])


@pytest.mark.parametrize("padding,align", MODES)
def test_voxel_centres_and_borders_and_their_gradients(padding, align):
    volume, grid = normal(1, 6, 3, 5, 4), lattice((3, 5, 4), align)
    kind = dict(zeros=padding == "zeros", align=align, collapse=False)
    got = dispatch.grid_sample_3d(volume, grid, padding_mode=padding, align_corners=align)
    exact = reference.grid_sample_3d(volume.double(), grid.double(), padding_mode=padding, align_corners=align)
    assert_close(got, exact, TOLERANCE[torch.float32])
    grad = normal(*got.shape, seed=2)
    # one-sided slopes jump at voxel centres, so the judge must round positions as the kernel does
    wide = reference.grid_sample_3d_backward(grad, volume, grid, padding, align)
    assert_close(warp3d_gradients.grad_volume(grad, grid, tuple(volume.shape), **kind), wide[0], 3e-6)
    assert_close(warp3d_gradients.grad_grid(grad, volume, grid, **kind), wide[1], 3e-6)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_positions_that_are_not_numbers_or_far_away(padding):
    volume = normal(1, 8, 3, 4, 5)
    odd = [float("inf"), float("-inf"), float("nan"), 1e30, -1e30, 1.5, -1.5, 0.3]
    grid = torch.zeros(1, 3, len(odd), 1, 3)
    for axis in range(3):
        grid[0, axis, :, 0, axis] = torch.tensor(odd)
    got = dispatch.grid_sample_3d(volume, grid, padding_mode=padding)
    exact = reference.grid_sample_3d(volume, grid, padding_mode=padding)
    is_number = ~grid.isnan().any(-1)[:, None].expand_as(got)
    # at the border PyTorch takes NaN for the last voxel on the CPU and for the first on a GPU, like the kernel
    judged = torch.ones_like(is_number) if padding == "zeros" else is_number
    assert torch.isfinite(got).all()
    assert_close(got[judged], exact[judged], 1e-6)
    grad = torch.ones_like(got)
    for fast in (
        warp3d_gradients.grad_volume(
            grad, grid, tuple(volume.shape), zeros=padding == "zeros", align=True, collapse=False
        ),
        warp3d_gradients.grad_grid(grad, volume, grid, zeros=padding == "zeros", align=True, collapse=False),
    ):
        assert torch.isfinite(fast).all()


@pytest.mark.parametrize("order", ["flow_then_rigid", "rigid_then_flow"])
@pytest.mark.parametrize("collapse", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_fused_warp_is_that_of_float64(order, collapse, dtype):
    volume = normal(1, 26, 4, 7, 6, dtype=dtype)
    pose = normal(3, 6, seed=1) * 0.2
    theta, flow = pose_matrix(pose), normal(3, 3, 4, 7, 6, seed=2) * 0.2
    mask = torch.rand(3, 1, 4, 7, 6)
    options = dict(order=order, padding_mode="border", collapse_depth=collapse)
    got = dispatch.warp_volume(volume, theta=theta, flow=flow, mask=mask, **options)
    wide = dict(theta=theta.double(), flow=flow.double(), mask=mask.double())
    assert got.dtype == dtype
    assert_close(got, reference.warp_volume(volume.double(), **wide, **options), TOLERANCE[dtype])
    if dtype == torch.float32 and collapse:
        small = warp3d.warp(
            volume, theta, flow, None, mask, (4, 7, 6), rigid_first=order == "rigid_then_flow", zeros=False,
            align=True, collapse=True, block_p=64, block_c=16,
        )  # fmt: skip
        assert torch.equal(got, small), "the result depends on the tile"


@pytest.mark.parametrize("padding,align", MODES)
@pytest.mark.parametrize("order", ["flow_then_rigid", "rigid_then_flow"])
def test_fused_warp_of_own_volumes_in_every_mode(order, padding, align):
    volume, theta = normal(2, 9, 3, 5, 4), pose_matrix(normal(2, 6, seed=1) * 0.3)
    flow = normal(2, 3, 3, 5, 4, seed=2) * 0.3
    kind = dict(order=order, padding_mode=padding, align_corners=align)
    got = dispatch.warp_volume(volume, theta=theta, flow=flow, **kind)
    exact = reference.warp_volume(volume.double(), theta=theta.double(), flow=flow.double(), **kind)
    assert_close(got, exact, TOLERANCE[torch.float32])


def test_other_sizes_of_output_and_field():
    volume, theta = normal(2, 8, 3, 5, 4), pose_matrix(normal(2, 6, seed=3) * 0.1)
    flow = normal(1, 3, 2, 3, 3, seed=4) * 0.1
    for order in ("flow_then_rigid", "rigid_then_flow"):
        options = dict(order=order, out_size=(2, 6, 7))
        got = dispatch.warp_volume(volume, theta=theta, flow=flow, **options)
        exact = reference.warp_volume(volume.double(), theta=theta.double(), flow=flow.double(), **options)
        assert got.shape == (2, 8, 2, 6, 7)
        assert_close(got, exact, TOLERANCE[torch.float32])


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
    "expanded": lambda x: x[:1].expand(2, -1, -1, -1, -1),
    "sliced": lambda x: torch.cat([x, x], 1)[:, ::2],
    "transposed": lambda x: x.transpose(3, 4).contiguous().transpose(3, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same(layout):
    volume, flow = LAYOUTS[layout](normal(2, 8, 3, 5, 5)), LAYOUTS["channels last"](normal(2, 3, 3, 5, 5) * 0.1)
    got = dispatch.warp_volume(volume, flow=flow)
    assert_close(got, reference.warp_volume(volume.double(), flow=flow.double()), TOLERANCE[torch.float32])
    features = LAYOUTS[layout](normal(2, 8, 3, 5, 5))
    exact = reference.group_norm_silu(features.double(), 2, None, None)
    assert_close(dispatch.group_norm_silu(features, 2, None, None), exact, TOLERANCE[torch.float32])


def test_small_parts_of_any_layout():
    """Strided, expanded and shared lengths, affine maps, masks and ranges: what lies beside them must not be read."""

    def agree(run, *given, **options):
        got, exact = getattr(dispatch, run)(*given, **options), getattr(reference, run)(*given, **options)
        for fast, slow in zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (got, exact)), strict=True):
            assert_close(fast, slow, 5e-6)

    q, k, v = normal(3, 3, 2, 9, 16)
    for lengths in (torch.tensor([9, 0, 5, 0, 3, 0])[::2], torch.tensor(5).expand(3), torch.tensor([5])):
        agree("short_attention", q, k, v, key_lengths=lengths)
    x, rows = normal(2, 8, 5, 5), normal(2, 3, 8)
    strided, expanded = normal(8, 2).unbind(1), normal(2, 1).expand(2, 8)
    for weight, bias in (strided, expanded):
        agree("group_norm_silu", x, 2, weight, bias, scale=expanded[:1], shift=normal(2, 8, 2)[..., 0])
        agree("residual_layer_norm", *rows, weight, bias)
    volume, theta = normal(1, 4, 3, 4, 5), pose_matrix(normal(2, 6) * 0.1)
    for mask in (torch.rand(2, 1, 1, 1, 1), torch.rand(2, 1, 3, 1, 5), torch.rand(1, 1, 3, 4, 5)):
        agree("warp_volume", volume, theta=theta, mask=mask)
    levels = torch.tensor([0.5, 1.2, 0.9, 0.4])
    weights, bound = torch.tensor([1.0, 9, 2, 9])[::2], torch.tensor([0.5])
    agree("guided_step", normal(2, 2, 4, 5), weights, normal(2, 4, 5), levels, -bound, bound)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_a_number_stays_where_it_is():
    """In its group, its row, its element, as in PyTorch."""
    x, rows, predictions = normal(2, 8, 5, 5), normal(2, 3, 8), normal(2, 2, 4, 5)
    x[0, 1, 2, 2], x[1, 7, 0, 0] = float("nan"), float("inf")
    rows[0, 1, 3], rows[1, 2, 0] = float("nan"), float("inf")
    predictions[0, 0, 0, 0], predictions[1, 1, 1, 1] = float("nan"), float("inf")
    weight, bias = normal(2, 8)
    step = torch.tensor([2.0, -1.0]), normal(2, 4, 5), torch.tensor([0.5, 1.2, 0.9, 0.4]), -torch.ones(5), torch.ones(5)
    for run, given in (
        ("group_norm_silu", (x, 2, weight, bias)), ("residual_layer_norm", (*rows, weight, bias)),
        ("guided_step", (predictions, *step)),
    ):  # fmt: skip
        got, exact = getattr(dispatch, run)(*given), getattr(reference, run)(*given)
        for fast, slow in zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (got, exact)), strict=True):
            assert slow.isnan().any() or run == "guided_step"
            assert torch.allclose(fast, slow, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gradients_of_the_whole_warp(dtype):
    volume, flow = normal(1, 9, 3, 4, 5, dtype=dtype), normal(2, 3, 3, 4, 5, seed=1) * 0.15
    theta = pose_matrix(normal(2, 6, seed=2) * 0.2)
    for order in ("flow_then_rigid", "rigid_then_flow"):
        grads = []
        for wide, move in ((torch.float32, dispatch.warp_volume), (torch.float64, reference.warp_volume)):
            leaves = [x.detach().to(wide).requires_grad_() for x in (theta, flow)]
            leaves.append(volume.detach().to(torch.promote_types(dtype, wide) if wide == torch.float64 else dtype))
            moved = move(
                leaves[2].requires_grad_(), theta=leaves[0], flow=leaves[1], order=order, collapse_depth=True
            )  # fmt: skip
            moved.backward(normal(*moved.shape, seed=5, dtype=dtype).to(moved.dtype))
            grads.append([x.grad for x in leaves])
        for fast, exact in zip(*grads, strict=True):
            assert_close(fast, exact, max(2e-5, TOLERANCE[dtype]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_may_arrive_in_any_layout(layout):
    volume, grid, upstream = normal(1, 8, 3, 4, 5), normal(2, 3, 5, 5, 3, seed=1) * 0.6, normal(2, 8, 3, 5, 5, seed=2)
    grads = []
    for wide, sample in ((torch.float32, dispatch.grid_sample_3d), (torch.float64, reference.grid_sample_3d)):
        leaves = [x.detach().to(wide).requires_grad_() for x in (volume, grid)]
        sample(*leaves).backward(LAYOUTS[layout](upstream.to(wide)))
        grads.append([x.grad for x in leaves])
    for fast, exact in zip(*grads, strict=True):
        assert_close(fast, exact, 2e-5)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape,groups", [((2, 24, 9, 7), 3), ((1, 69, 17, 16), 1), ((2, 96, 2, 3, 5), 32)], ids=str)
def test_group_norm_is_that_of_float64(shape, groups, dtype):
    layout = launch.channels_last(torch.empty(shape))
    x = (normal(*shape) + 30).to(dtype).contiguous(memory_format=layout)
    weight, bias = normal(2, shape[1], seed=1)
    scale, shift = normal(2, shape[0], shape[1], seed=2)
    got = dispatch.group_norm_silu(x, groups, weight, bias, scale=scale, shift=shift)
    wide = [t.double() for t in (weight, bias)]
    exact = reference.group_norm_silu(x.double(), groups, *wide, scale=scale.double(), shift=shift.double())
    assert_close(got, exact, 2e-5 if dtype == torch.float32 else TOLERANCE[dtype])
    many = norm.group_norm_silu(x, groups, weight, bias, 1e-5, scale, shift, block_p=16, chunks=5)
    assert_close(many, exact, 2e-5 if dtype == torch.float32 else TOLERANCE[dtype])


def test_layer_norm_of_a_residual_sum():
    for width in (96, 100, 512):
        x, y, weight, bias = normal(5, width), normal(5, width, seed=1), *normal(2, width, seed=2)
        got = dispatch.residual_layer_norm(x, y, weight, bias)
        exact = reference.residual_layer_norm(*(t.double() for t in (x, y, weight, bias)))
        for fast, slow in zip(got, exact, strict=True):
            assert_close(fast, slow, TOLERANCE[torch.float32])


def test_guided_step_with_and_without_a_range():
    predictions, x_t = normal(3, 2, 7, 5), normal(2, 7, 5, seed=1)
    weights, low, high = torch.tensor([2.5, -0.5, -1.0]), -torch.rand(5), torch.rand(5)
    coefficients = torch.tensor(reference.ddim_coefficients(0.35, 0.8), dtype=torch.float64)
    for bounds in ((None, None), (low, high)):
        got = dispatch.guided_step(predictions, weights, x_t, coefficients, *bounds)
        wide = [b if b is None else b.double() for b in bounds]
        exact = reference.guided_step(predictions.double(), weights.double(), x_t.double(), coefficients, *wide)
        for fast, slow in zip(got, exact, strict=True):
            assert_close(fast, slow, TOLERANCE[torch.float32])


@pytest.mark.parametrize("length,width", [(5, 8), (61, 64), (160, 32), (256, 24)])
def test_attention_is_that_of_float64(length, width):
    q, k, v = normal(2, length, 3, 2, width).permute(2, 0, 3, 1, 4)  # as a packed projection gives them
    bias, lengths = normal(1, 2, length, length, seed=1), torch.tensor([length, max(1, length - 3)])
    causal = dict(causal_prefix=0), dict(bias=bias, key_lengths=lengths, causal_prefix=min(7, length))
    for options in (dict(), dict(bias=bias, key_lengths=lengths), *causal):
        got = dispatch.short_attention(q, k, v, **options)
        wide = options | ({"bias": bias.double()} if "bias" in options else {})
        assert_close(
            got, reference.short_attention(q.double(), k.double(), v.double(), **wide), TOLERANCE[torch.float32]
        )


def test_attention_does_not_depend_on_the_tile():
    q, k, v = normal(3, 1, 2, 40, 16)
    whole, tiles = (attention.short_attention(q, k, v, None, None, 2, 0.25, block_l=n) for n in (64, 16))
    assert torch.allclose(whole, tiles, atol=1e-6)


def test_causal_attention_sees_the_prefix_and_the_past():
    q, k, v = normal(1, 1, 4, 16), *normal(2, 1, 1, 7, 16, seed=1)
    whole = dispatch.short_attention(q, k, v, causal_prefix=2)
    for i in range(4):  # the last of four queries stands at the last of seven keys
        alone = dispatch.short_attention(q[:, :, i : i + 1], k[:, :, : i + 4], v[:, :, : i + 4])
        assert torch.allclose(whole[:, :, i : i + 1], alone, atol=1e-6)
    v[:, :, 5:] += 100
    later = dispatch.short_attention(q, k, v, causal_prefix=2)
    assert torch.equal(later[:, :, :2], whole[:, :, :2]) and not torch.equal(later[:, :, 2:], whole[:, :, 2:])
    v[:, :, 1] += 100
    assert (dispatch.short_attention(q, k, v, causal_prefix=2) - later).abs().amin(-1).min() > 0


def test_attention_without_any_key_is_zero():
    q, k, v = normal(3, 2, 1, 6, 16)
    out = dispatch.short_attention(q, k, v, key_lengths=torch.tensor([6, 0]))
    assert out[1].abs().max() == 0 and torch.isfinite(out).all()


def test_attention_gradient_is_that_of_float64():
    grads = []
    bias = normal(1, 2, 9, 9, seed=1)
    for kind, attend in ((torch.float32, dispatch.short_attention), (torch.float64, reference.short_attention)):
        leaves = [x.detach().to(kind).requires_grad_() for x in (*normal(3, 2, 2, 9, 16), bias)]
        attend(*leaves[:3], bias=leaves[3], causal_prefix=3).backward(normal(2, 2, 9, 16, seed=4).to(kind))
        grads.append([x.grad for x in leaves])
    for fast, exact in zip(*grads, strict=True):
        assert_close(fast, exact, 1e-5)


def test_longer_sequences_and_wider_heads_are_refused_with_a_reason():
    q = normal(1, 1, 300, 16)
    with pytest.raises(RuntimeError, match="more than 256 keys"):
        dispatch.short_attention(q, q, q)


def test_empty_batches_give_empty_results():
    volume, theta = normal(0, 8, 3, 4, 5), torch.zeros(0, 3, 4)
    assert dispatch.warp_volume(volume, theta=theta).shape == (0, 8, 3, 4, 5)
    assert dispatch.group_norm_silu(volume, 2, None, None).shape == volume.shape
    assert attention.short_attention(*normal(3, 0, 2, 5, 16), None, None, None, 1.0).shape == (0, 2, 5, 16)
    assert step.guided_step(
        normal(2, 0, 4, 3), torch.ones(2), normal(0, 4, 3), torch.ones(4), None, None
    )[0].shape == (0, 4, 3)  # fmt: skip
    assert dispatch.residual_layer_norm(*normal(2, 0, 8), *normal(2, 8))[1].shape == (0, 8)
    one, theta = normal(1, 8, 3, 4, 5).requires_grad_(), theta.requires_grad_()
    dispatch.warp_volume(one, theta=theta).sum().backward()
    assert one.grad.abs().max() == 0 and theta.grad.shape == (0, 3, 4)


def test_the_same_bits_twice():
    volume, theta = normal(1, 24, 4, 8, 8), pose_matrix(normal(2, 6, seed=1) * 0.2)
    assert torch.equal(*(dispatch.warp_volume(volume, theta=theta) for _ in range(2)))
    x = normal(2, 24, 8, 8).to(memory_format=torch.channels_last)
    assert torch.equal(*(dispatch.group_norm_silu(x, 3, None, None) for _ in range(2)))
