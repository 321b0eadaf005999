"""The operations as the rest of vasa calls them: each goes to its Triton kernel or to PyTorch, see `backend`.

On the CPU they are plain PyTorch calls without any detour. While `torch.compile` or `torch.export` traces, tensors on
a GPU go through `torch.ops.vasa`, which decides when the program runs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import backend, reference
from .backend import use_backend
from .positions import warp_grid
from .reference import ddim_coefficients

__all__ = [
    "backend_report", "ddim_coefficients", "grid_sample_3d", "group_norm_silu", "guided_step", "guided_x0_step",
    "residual_layer_norm", "short_attention", "use_backend", "warp_grid", "warp_volume",
]  # fmt: skip


def _uses_operation(name: str, x: Tensor, cannot: str | None = None, rather_not: str | None = None) -> bool:
    if torch.compiler.is_compiling():
        return cannot is None and (x.device.type == "cuda" or backend._forced == "triton")
    if x.device.type == "cpu" and backend._forced in (None, "torch") and not backend.interpreting():
        return False
    return backend.choose(name, x, cannot, rather_not).backend == "triton"


def _trained(*tensors: Tensor | None) -> str | None:
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return "gradients are PyTorch's here" if wanted else None


def grid_sample_3d(volume: Tensor, grid: Tensor, *, padding_mode: str = "zeros", align_corners: bool = True) -> Tensor:
    """Trilinear samples of a volume at explicit positions; see `reference.grid_sample_3d`.

    Args:
        volume: [N or 1, C, D, H, W], any float dtype; fastest in channels_last_3d.
        grid: [N or 1, D', H', W', 3], (x, y, z) in [-1, 1]; float32 is kept whatever the volume's dtype.
        padding_mode: "zeros" or "border".
        align_corners: whether -1 and 1 are the centres of the end samples.

    Returns:
        [N, C, D', H', W'] in the volume's dtype.

    Raises:
        ValueError: shapes that do not fit, or an unknown padding mode.
    """
    _check_volume(volume, padding_mode)
    if grid.dim() != 5 or grid.shape[-1] != 3:
        raise ValueError(f"expected a grid [N, D, H, W, 3], got {list(grid.shape)}")
    _check_batch(volume, grid)
    if _uses_operation("warp_volume", volume, _unordered(volume)):
        from . import ops

        return ops.warp3d(
            volume, None, None, grid, None, list(grid.shape[1:4]), False, padding_mode == "zeros", align_corners, False
        )
    return reference.grid_sample_3d(volume, grid, padding_mode=padding_mode, align_corners=align_corners)


def warp_volume(
    volume: Tensor,
    *,
    theta: Tensor | None = None,
    flow: Tensor | None = None,
    order: str = "flow_then_rigid",
    out_size: tuple[int, int, int] | None = None,
    padding_mode: str = "zeros",
    align_corners: bool = True,
    mask: Tensor | None = None,
    collapse_depth: bool = False,
) -> Tensor:
    """Move a volume by a rigid map and a non-rigid field with a single resampling; see `reference.warp_volume`.

    Args:
        volume: [N or 1, C, D, H, W], any float dtype; fastest in channels_last_3d.
        theta: affine map M, [N or 1, 3, 4]; None is the identity.
        flow: displacement field in unit-cube lengths, [N or 1, 3, D', H', W']; None is zero.
        order: "flow_then_rigid" (source -> canonical) or "rigid_then_flow" (canonical -> driving).
        out_size: (D, H, W) of the result; the volume's own by default.
        padding_mode: what lies outside the volume, "zeros" or "border" (the field is always "border").
        align_corners: whether -1 and 1 are the centres of the end samples.
        mask: multiplies the result, [N or 1, 1, D, H, W].
        collapse_depth: return [N, D*C, H, W] with depth-major channels instead of [N, C, D, H, W].

    Returns:
        The moved volume in its own dtype; positions and interpolation are float32.

    Raises:
        ValueError: neither theta nor flow given, an unknown word, or shapes that do not fit.
    """
    _check_volume(volume, padding_mode)
    _check_batch(volume, theta, flow, mask)
    _check_shape("theta", theta, "[N, 3, 4]", lambda x: x.dim() == 3 and x.shape[1:] == (3, 4))
    _check_shape("a flow", flow, "[N, 3, D, H, W]", lambda x: x.dim() == 5 and x.shape[1] == 3)
    _check_shape("a mask", mask, "[N, 1, D, H, W]", lambda x: x.dim() == 5 and x.shape[1] == 1)
    if theta is None and flow is None:
        raise ValueError("expected theta, flow or both, got neither; nothing would move")
    if order not in ("flow_then_rigid", "rigid_then_flow"):
        raise ValueError(f"expected order 'flow_then_rigid' or 'rigid_then_flow', got {order!r}")
    cannot = "the mask needs a gradient" if _trained(mask) else _unordered(volume)
    if _uses_operation("warp_volume", volume, cannot):
        from . import ops

        return ops.warp3d(
            volume, theta, flow, None, mask, list(out_size or volume.shape[2:]), order == "rigid_then_flow",
            padding_mode == "zeros", align_corners, collapse_depth,
        )  # fmt: skip
    return reference.warp_volume(
        volume, theta=theta, flow=flow, order=order, out_size=out_size, padding_mode=padding_mode,
        align_corners=align_corners, mask=mask, collapse_depth=collapse_depth,
    )  # fmt: skip


def group_norm_silu(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, *, eps: float = 1e-5,
    scale: Tensor | None = None, shift: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """silu(group_norm(x) * (1 + scale) + shift), the norm of every residual block.

    Args:
        x: [N, C, ...]; fastest in channels_last or channels_last_3d.
        num_groups: groups; must divide C.
        weight, bias: per channel, [C]; None for none.
        scale, shift: per sample and channel, [N, C] (adaptive group norm); None for none.

    Returns:
        Same shape and dtype as x.
    """
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim(), torch.contiguous_format)
    cannot = "rank below 4" if x.dim() < 4 else _half_affine(x, weight, bias, scale, shift)
    rather_not = None if x.is_contiguous(memory_format=layout) else "not channels-last"
    if _uses_operation("group_norm_silu", x, cannot, rather_not or _trained(x, weight, scale)):
        from . import ops

        return ops.group_norm_silu(x, num_groups, weight, bias, eps, scale, shift)
    return reference.group_norm_silu(x, num_groups, weight, bias, eps=eps, scale=scale, shift=shift)


def residual_layer_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """(x + y, layer_norm(x + y)); see `reference.residual_layer_norm`."""
    same = None if x.dtype == y.dtype and x.shape == y.shape else "operands of two kinds"
    if _uses_operation("residual_layer_norm", x, same, _trained(x, y, weight)):
        from . import ops

        return ops.residual_layer_norm(x, y, weight, bias, eps)
    return reference.residual_layer_norm(x, y, weight, bias, eps=eps)


def short_attention(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, key_lengths: Tensor | None = None,
    causal_prefix: int | None = None, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """softmax(q k^T scale + bias) v for sequences of at most 256 keys; longer ones take PyTorch.

    Args:
        q: [N, heads, L, d], any strides (views of one packed projection need no copy).
        k, v: [N, heads, S, d].
        bias: added to the scores, broadcastable to [N, heads, L, S].
        key_lengths: number of valid keys per row of the batch, [N]; the rest are ignored.
        causal_prefix: how many leading keys every query sees; of the others only those up to its own place, the last
            query being where the last key is. None: all keys.
        scale: 1 / sqrt(d) by default.

    Returns:
        [N, heads, L, d] in q's dtype.
    """
    cannot = None
    if k.shape[2] > 256 or q.shape[-1] > 128:
        cannot = "more than 256 keys or heads wider than 128"
    elif k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        cannot = "batches, heads or widths that differ"
    elif q.dtype != k.dtype or q.dtype != v.dtype:
        cannot = "operands of several dtypes"
    if _uses_operation("short_attention", q, cannot, _trained(q, k, v, bias)):
        from . import ops

        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return ops.short_attention(q, k, v, bias, key_lengths, causal_prefix, scale)
    return reference.short_attention(
        q, k, v, bias=bias, key_lengths=key_lengths, causal_prefix=causal_prefix, scale=scale
    )


def guided_step(
    predictions: Tensor, weights: Tensor, x_t: Tensor, coefficients: Tensor,
    low: Tensor | None = None, high: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Guidance, clamping and one DDIM step; see `reference.guided_step`."""
    if _uses_operation("guided_step", x_t):
        from . import ops

        return ops.guided_step(predictions, weights, x_t, coefficients, low, high)
    return reference.guided_step(predictions, weights, x_t, coefficients, low, high)


def guided_x0_step(
    predictions: Tensor, weights: Tensor, x_t: Tensor, alpha_bar_t: float, alpha_bar_s: float
) -> tuple[Tensor, Tensor]:
    """`guided_step` between two signal levels given as numbers.

    Returns:
        (x_0, x_s), each [N, T, M].
    """
    coefficients = torch.tensor(ddim_coefficients(alpha_bar_t, alpha_bar_s), dtype=torch.float64)
    weights, coefficients = weights.to(x_t.device), coefficients.to(x_t.device, x_t.dtype)
    return guided_step(predictions, weights, x_t, coefficients)


def backend_report(device: torch.device | str | None = None) -> dict[str, str]:
    """Operation -> chosen backend and the reason, on a device (default: the GPU if there is one); tests each kernel."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    probe = torch.empty(0, device=place)
    return {name: str(backend.choose(name, probe)) for name in backend.LOWEST_CAPABILITY}


def _check_volume(volume: Tensor, padding_mode: str) -> None:
    if volume.dim() != 5:
        raise ValueError(f"expected a volume [N, C, D, H, W], got {list(volume.shape)}")
    if padding_mode not in ("zeros", "border"):
        raise ValueError(f"expected padding_mode 'zeros' or 'border', got {padding_mode!r}")


def _check_shape(what: str, x: Tensor | None, expected: str, fits: Callable[[Tensor], bool]) -> None:
    if x is not None and not fits(x):
        raise ValueError(f"expected {what} {expected}, got {list(x.shape)}")


def _check_batch(*tensors: Tensor | None) -> None:
    # no set: while a program is exported, sizes are symbols, which cannot be hashed
    sizes = [t.shape[0] for t in tensors if t is not None and t.shape[0] != 1]
    if any(size != sizes[0] for size in sizes):
        raise ValueError(f"expected batches of one size (or 1, shared), got {sizes}")


def _unordered(volume: Tensor) -> str | None:
    if torch.are_deterministic_algorithms_enabled() and torch.is_grad_enabled() and volume.requires_grad:
        return "deterministic algorithms are asked for"
    return None


def _half_affine(x: Tensor, *parts: Tensor | None) -> str | None:
    weight, bias, scale, shift = parts
    if (weight is None) != (bias is None) or (scale is None) != (shift is None):
        return "half an affine map"
    return None
