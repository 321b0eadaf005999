"""Each operation against the best native form of it, and the warp against what the ancestors' code does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import FaceConfig, MotionConfig
from ..face.blocks import ResBlock, enlarge_nearest
from ..geometry import identity_grid, pose_matrix
from ..kernels import reference
from ..kernels.dispatch import (
    ddim_coefficients,
    grid_sample_3d,
    group_norm_silu,
    guided_step,
    residual_layer_norm,
    short_attention,
    warp_grid,
    warp_volume,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        name: what it is.
        shape: sizes in words.
        paths: provider -> what to run; "fused" is vasa's own path. Each returns the result, to be judged.
        exact: the result in float64.
        bytes: that must be moved at least.
        tolerance: largest relative error of the fused path.
        graph: time it replayed from a CUDA graph (small work, where launching would be measured).
    """

    name: str
    shape: str
    paths: dict[str, Callable[[], Tensor]]
    exact: Callable[[], Tensor]
    bytes: int
    tolerance: float
    graph: bool = True


def ancestors_warp(volume: Tensor, theta: Tensor, flow: Tensor) -> Tensor:
    """The canonical-to-driving warp as the ancestors of this model write it: float32, two resamplings, then a view.

    First the displacement field on the driving grid, then the rotation, each with its own grid and grid_sample.
    """
    n, c, (d, h, w) = flow.shape[0], volume.shape[1], flow.shape[2:]
    grid = identity_grid((d, h, w), volume.device)[None].expand(n, -1, -1, -1, -1)
    moved = F.grid_sample(
        volume.float().expand(n, -1, -1, -1, -1), grid + flow.float().permute(0, 2, 3, 4, 1), align_corners=True
    )
    points = torch.cat([grid.reshape(n, -1, 3), grid.new_ones(n, d * h * w, 1)], dim=-1)
    rotated = points.bmm(theta.float().transpose(1, 2)).view(n, d, h, w, 3)
    # they collapse channel-major; depth-major as here is the same view of a volume laid out otherwise
    return F.grid_sample(moved, rotated, align_corners=True).transpose(1, 2).reshape(n, d * c, h, w)


def cases(
    face: FaceConfig, motion: MotionConfig, device: torch.device, dtype: torch.dtype, seed: int
) -> Iterator[Case]:
    """The operations at the sizes of a model."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*size: int, of: torch.dtype = dtype, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
        return torch.randn(size, generator=draw).to(device, of).contiguous(memory_format=layout)

    c, size = face.volume_channels, (face.volume_depth, face.volume_size, face.volume_size)
    points, item = size[0] * size[1] * size[2], torch.finfo(dtype).bits // 8
    for n in (1, 8):
        volume = normal(1, c, *size, layout=torch.channels_last_3d)
        theta, flow = pose_matrix(torch.randn(n, 6, generator=draw) * 0.15).to(device), 0.05 * normal(
            n, 3, *size, of=torch.float32
        )  # fmt: skip
        move = dict(theta=theta, flow=flow, order="rigid_then_flow", collapse_depth=True)
        yield Case(
            "warp, one volume for all frames", f"{n} x {c} x {size[0]} x {size[1]} x {size[2]}",
            {
                "fused": lambda v=volume, m=move: warp_volume(v, **m),
                "eager": lambda v=volume, m=move: reference.warp_volume(v, **m),
                "ancestors": lambda v=volume, t=theta, f=flow: ancestors_warp(v, t, f),
            },
            lambda v=volume, t=theta, f=flow: _exactly(
                lambda t, f: reference.warp_volume(
                    v.double(), theta=t, flow=f, order="rigid_then_flow", collapse_depth=True
                ), t, f,
            ),
            c * points * item * (n + 1) + 12 * points * n, _tolerance(dtype),
        )  # fmt: skip
    n = 8
    own = normal(n, c, *size, layout=torch.channels_last_3d)
    plain, wide_plain = own.contiguous(), own.float().contiguous()
    grid = warp_grid(size, theta, flow, "flow_then_rigid", True)
    yield Case(
        "sampling", f"{n} x {c} x {size[0]} x {size[1]} x {size[2]}",
        {
            "fused": lambda: grid_sample_3d(own, grid),
            f"native {str(dtype).removeprefix('torch.')}": lambda: F.grid_sample(
                plain, grid.to(dtype), align_corners=True
            ),
            "native float32": lambda: F.grid_sample(wide_plain, grid, align_corners=True),
        },
        lambda: _exactly(reference.grid_sample_3d, own, grid),
        2 * c * points * item * n + 12 * points * n, _tolerance(dtype), graph=False,
    )  # fmt: skip
    yield _sampling_gradient(own, grid, dtype)
    width, edge = face.decoder_width, face.volume_size
    for channels, pixels in [(width, edge)] + [(w, edge << i) for i, w in enumerate(face.decoder_widths, 1)]:
        x = normal(n, channels, pixels, pixels, layout=torch.channels_last)
        weight, bias = normal(2, channels)
        groups = max(1, channels // face.group_width)
        yield Case(
            "group norm and SiLU", f"{n} x {channels} x {pixels} x {pixels}",
            {
                "fused": lambda x=x, g=groups, w=weight, b=bias: group_norm_silu(x, g, w, b),
                "eager": lambda x=x, g=groups, w=weight, b=bias: F.silu(F.group_norm(x, g, w, b)),
            },
            lambda x=x, g=groups, w=weight, b=bias: _exactly(
                lambda x: reference.group_norm_silu(x, g, w.double(), b.double()), x
            ),
            3 * x.numel() * item, _tolerance(dtype), graph=False,
        )  # fmt: skip
    wider = width
    for i, narrower in enumerate(face.decoder_widths[: -1 if face.detail else None]):
        x = normal(n, wider, edge << i, edge << i, layout=torch.channels_last)
        shape = f"{n} x {wider} x {edge << i} x {edge << i} to {narrower}"
        yield _enlarging(wider, narrower, face.group_width, x, shape, _tolerance(dtype))
        wider = narrower
    heads, head = motion.heads, motion.dim // motion.heads
    for length in (1 + motion.num_previous + motion.window, 160):
        packed = normal(3, length, 3, heads, head)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        wide = (q.double(), k.double(), v.double())
        for bias in (None, normal(1, heads, length, length)):
            yield Case(
                "attention" + (", bias" if bias is not None else ""), f"3 x {heads} x {length} x {head}",
                {
                    "fused": lambda q=q, k=k, v=v, b=bias: short_attention(q, k, v, bias=b),
                    "eager": lambda q=q, k=k, v=v, b=bias: F.scaled_dot_product_attention(q, k, v, attn_mask=b),
                },
                lambda w=wide, b=bias: reference.short_attention(*w, bias=None if b is None else b.double()),
                4 * q.numel() * item, 2 * _tolerance(dtype),
            )  # fmt: skip
    x, y, weight, bias = *normal(2, 3, 61, motion.dim), *normal(2, motion.dim)
    yield Case(
        "residual sum and layer norm", f"3 x 61 x {motion.dim}",
        {
            "fused": lambda: residual_layer_norm(x, y, weight, bias)[1],
            "eager": lambda: F.layer_norm(x + y, (motion.dim,), weight, bias),
        },
        lambda: F.layer_norm((x + y).double(), (motion.dim,), weight.double(), bias.double()),
        4 * x.numel() * item, _tolerance(dtype),
    )  # fmt: skip
    sizes = (3, 1, motion.window, 6 + face.dynamics_dim)  # float32, as the denoiser gives them
    predictions, x_t, low = (normal(*size, of=torch.float32) for size in (sizes, sizes[1:], sizes[3:]))
    low = -low.abs()
    told = torch.tensor([2.5, -0.5, -1.0]).to(device), x_t, torch.tensor(ddim_coefficients(0.4, 0.7)).to(device)
    yield Case(
        "guided step", f"3 x {sizes[2]} x {sizes[3]}",
        {
            "fused": lambda: guided_step(predictions, *told, low, -low)[1],
            "eager": lambda: reference.guided_step(predictions, *told, low, -low)[1],
        },
        lambda: reference.guided_step(*(t.double() for t in (predictions, *told, low, -low)))[1],
        4 * (predictions.numel() + 3 * x_t.numel()), _tolerance(torch.float32),
    )  # fmt: skip


def _enlarging(c_in: int, c_out: int, group_width: int, x: Tensor, shape: str, tolerance: float) -> Case:
    """An upsampling block: enlarging folded into the convolution, against computing on enlarged features."""
    torch.manual_seed(0)
    plain = ResBlock(c_in, c_out, group_width).to(x.device).requires_grad_(False)
    wide, folded = copy.deepcopy(plain).double(), plain
    folded.fold((2, 2), x.dtype)
    folded.to(x.dtype).to(memory_format=torch.channels_last)

    def exact() -> Tensor:
        wide.folded = None
        return _exactly(lambda x: wide.enlarged(x, (2, 2)), x)

    return Case(
        "upsampling block", shape,
        {"fused": lambda: folded.enlarged(x, (2, 2)), "eager": lambda: folded(enlarge_nearest(x, (2, 2)))},
        exact, (x.numel() + 12 * c_out * x[:, 0].numel()) * x.element_size(), 3 * tolerance, graph=False,
    )  # fmt: skip


def _sampling_gradient(volume: Tensor, grid: Tensor, dtype: torch.dtype) -> Case:
    """Gradients of volume and grid together; judged by the volume's."""
    n, c, points = volume.shape[0], volume.shape[1], volume[0, 0].numel()

    def backward(sample: Callable[[Tensor, Tensor], Tensor], volume: Tensor, grid: Tensor) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                leaves = volume.detach().requires_grad_(), grid.detach().requires_grad_()
                out = sample(*leaves)
                return torch.autograd.grad(out, leaves, torch.ones_like(out))[0]

        return run

    def native(volume: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(volume, grid, align_corners=True)

    plain = volume.contiguous()
    return Case(
        "sampling with its gradients", f"{n} x {c} x {' x '.join(str(s) for s in volume.shape[2:])}",
        {
            "fused": backward(grid_sample_3d, volume, grid),
            f"native {str(dtype).removeprefix('torch.')}": backward(native, plain, grid.to(dtype)),
            "native float32": backward(native, plain.float(), grid),
        },
        lambda: _exactly(
            lambda v, g: reference.grid_sample_3d_backward(torch.ones_like(v), v, g, "zeros", True)[0], plain, grid
        ),
        volume.numel() * (4 * volume.element_size() + 8) + 24 * points * n, _tolerance(dtype), graph=False,
    )  # fmt: skip


def _exactly(run: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """In float64, item by item: eight at once of a model for 512 pixels would take 20 GB."""
    items = zip(*(tensor.split(1) for tensor in tensors), strict=True)
    return torch.cat([run(*(tensor.double() for tensor in item)) for item in items])


def _tolerance(dtype: torch.dtype) -> float:
    return {torch.float32: 2e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
