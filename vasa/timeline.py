"""Values that change over time: keyframes, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .errors import InputError

INTERPOLATIONS: tuple[str, ...] = ("linear", "smooth", "hold")
MAX_TIME = 86_400.0
"""Latest time of a key or a forced blink, seconds: a day."""


@dataclass(frozen=True)
class Key:
    """A value at a time.

    Attributes:
        time: seconds from the beginning, >= 0.
        value: what the control is then, in the control's own form.
        interpolation: how one travels from this key to the next: "linear", "smooth" (starts and ends at rest) or
            "hold" (stays, then jumps).
    """

    time: float
    value: Any
    interpolation: str = "linear"


@dataclass(frozen=True)
class Track:
    """A control over time. Before its first key and after its last the value holds.

    >>> Track(((0.0, 1.0), (2.0, 3.0))).sample(torch.tensor([-1.0, 0.5, 9.0]), lambda v: [v])[:, 0].tolist()
    [1.0, 1.5, 3.0]

    Attributes:
        keys: in ascending time, at least one; tuples (time, value, interpolation) become keys.
    """

    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(key if isinstance(key, Key) else Key(*key) for key in self.keys))

    def sample(self, times: Tensor, numbers_of: Callable[[Any], list[float]]) -> Tensor:
        """The values at some times.

        Args:
            times: seconds, [T].
            numbers_of: turns a key's value into C numbers.

        Returns:
            [T, C] float32.
        """
        starts = torch.tensor([key.time for key in self.keys], dtype=torch.float64)
        values = torch.tensor([numbers_of(key.value) for key in self.keys], dtype=torch.float64)
        kinds = torch.tensor([INTERPOLATIONS.index(key.interpolation) for key in self.keys])
        times = times.double()
        before = (torch.searchsorted(starts, times, right=True) - 1).clamp(min=0)
        after = (before + 1).clamp(max=len(starts) - 1)
        share = ((times - starts[before]) / (starts[after] - starts[before]).clamp(min=1e-9)).clamp(0, 1)
        kind = kinds[before]
        share = torch.where(kind == 1, share * share * (3 - 2 * share), share)
        share = torch.where((kind == 2) | (after == before), torch.zeros_like(share), share)
        return torch.lerp(values[before], values[after], share[:, None]).float()


def is_number(value: Any) -> bool:
    """Whether a value can be reckoned with: a number, not a truth value, not NaN, not beyond all measure."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < 1e9


def number(where: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """A finite number of a range.

    Raises:
        InputError: naming `where` and the range.
    """
    demand = f"{where} must be a number between {low:g} and {high:g}{unit}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{demand}, got {value!r}")
    if not low - 1e-9 <= value <= high + 1e-9:
        raise InputError(f"{demand}, got {value:g}" if isinstance(value, float) else f"{demand}, got {str(value)[:20]}")
    return float(value)


def checked(name: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
    """A constant or a track whose every value passed.

    Args:
        name: of the control, for the error.
        value: a constant or a `Track`.
        check: check(where, value) -> the value to keep.

    Raises:
        InputError: naming the control, and in a track the time.
    """
    if not isinstance(value, Track):
        return check(name, value)
    if not value.keys:
        raise InputError(f"{name} must have at least one key; give one, or a constant")
    keys = []
    for key in value.keys:
        time = number(f"a key time of {name}", key.time, 0.0, MAX_TIME, " seconds")
        where = f"{name} at {time:g} s"
        if keys and time == keys[-1].time:
            raise InputError(f"{name} has two keys at {time:g} s; remove one of them")
        if keys and time < keys[-1].time:
            raise InputError(
                f"the keys of {name} must be in ascending time, but {time:g} s follows {keys[-1].time:g} s"
            )
        if key.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"{where}: the interpolation must be one of {known}, got {key.interpolation!r}")
        keys.append(Key(time, check(where, key.value), key.interpolation))
    return Track(tuple(keys))
