"""Convolutions as LivePortrait uses them, with every norm that follows one folded into it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLU(nn.Module):
    """Convolution of one dimensionality, then ReLU, or leaky ReLU where `slope` is not 0."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, dims: int = 2, slope: float = 0.0) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv = conv(c_in, c_out, kernel, padding=kernel // 2)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.leaky_relu(x, self.slope, inplace=True) if self.slope else F.relu(x, inplace=True)


class Halving(ConvReLU):
    """Convolution, ReLU, and the mean of 2 x 2 pixels; depth stays."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return F.avg_pool2d(x, 2) if x.dim() == 4 else F.avg_pool3d(x, (1, 2, 2))


class Repeated(nn.Module):
    """A convolution of size 3 (and of size 3 in depth, if there is one) over pixels repeated 2 x 2 or 4 x 4.

    Of the 3 x 3 pixels that the kernel sees after repeating, at most 2 x 2 differ: the sums of its weights over equal
    pixels give the same result with a fraction of the products.
    """

    ORDERS = {2: (0, 1), 4: (0, 1, 1, 2)}

    def __init__(self, c_in: int, c_out: int, dims: int, times: int) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv = conv(c_in, c_out, 3, padding=1)
        self.order = self.ORDERS[times]
        self.register_buffer("kernel", None, persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.prepare())

    def prepare(self) -> None:
        """Sum the weights once."""
        phases = ("first", "last") if len(self.order) == 2 else ("first", "inner", "last")
        self.kernel = repeated_kernel(self.conv.weight.detach(), phases)

    def forward(self, x: Tensor, activation: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
        """[N, C, ..., H, W] -> [N, O, ..., H * times, W * times], activated."""
        if self.kernel is None:
            self.prepare()
        bias = self.conv.bias.repeat(self.kernel.shape[0] // self.conv.out_channels)
        convolve = F.conv2d if x.dim() == 4 else F.conv3d
        return interleaved(activation(convolve(x, self.kernel, bias, padding=1)), self.order)


def repeated_kernel(weight: Tensor, phases: tuple[str, ...]) -> Tensor:
    """Kernels of 2 x 2 that act on pixels as one of 3 x 3 acts on the same pixels repeated.

    Args:
        weight: [O, I, ..., 3, 3].
        phases: which of the repeated pixels is the centre, along each axis: "first" (its left neighbour is another
            pixel), "inner" (both neighbours are copies), "last" (its right neighbour is another).

    Returns:
        [P * P * O, I, ..., 2, 2] with P phases; phase of the rows first. Kernels look at pixels i - 1 and i.
    """
    left, centre, right = weight.unbind(-1)
    by_column = {
        "first": torch.stack([left, centre + right], -1),
        "inner": torch.stack([torch.zeros_like(left), left + centre + right], -1),
        "last": torch.stack([left + centre, right], -1),
    }
    kernels = []
    for row in phases:
        for column in phases:
            up, middle, down = by_column[column].unbind(-2)
            rows = {
                "first": (up, middle + down),
                "inner": (torch.zeros_like(up), up + middle + down),
                "last": (up + middle, down),
            }
            kernels.append(torch.stack(rows[row], -2))
    return torch.cat(kernels)


def interleaved(y: Tensor, order: tuple[int, ...]) -> Tensor:
    """Put the phases of `repeated_kernel` where they belong.

    Args:
        y: [N, P * P * O, ..., H + 1, W + 1], convolved with padding 1.
        order: the phase of each repeated pixel, e.g. (0, 1), or (0, 1, 1, 2) for four copies.

    Returns:
        [N, O, ..., H * len(order), W * len(order)].
    """
    count = max(order) + 1
    h, w = y.shape[-2] - 1, y.shape[-1] - 1
    y = y.unflatten(1, (count, count, -1))
    # the last phase looks at pixels i and i + 1, the others at i - 1 and i
    starts = [int(phase == count - 1) for phase in range(count)]
    rows = []
    for i in order:
        columns = [y[:, i, j][..., starts[i] : starts[i] + h, starts[j] : starts[j] + w] for j in order]
        rows.append(torch.stack(columns, -1))  # [N, O, ..., H, W, r]
    stacked = torch.stack(rows, -3)  # [N, O, ..., H, r, W, r]
    return stacked.flatten(-2).flatten(-3, -2)
