"""A stretch of an endless sound, addressed by the absolute index of its samples."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


class SoundBuffer:
    """Samples `start .. end` of a sound; silence before and after.

    Args:
        samples: [N].
        start: index of the first one.
    """

    def __init__(self, samples: Tensor, start: int = 0) -> None:
        self.samples = samples
        self.start = start
        self._dead = 0
        """Samples that were forgotten and still take memory."""

    @property
    def end(self) -> int:
        """Index behind the last sample."""
        return self.start + self.samples.shape[0]

    def piece(self, first: int, last: int) -> Tensor:
        """Samples first .. last, [last - first]."""
        inside = self.samples[max(first - self.start, 0) : max(last - self.start, 0)]
        before = min(max(self.start - first, 0), last - first)
        # always a copy: kernels may round otherwise where memory begins elsewhere
        return F.pad(inside, (before, last - first - before - inside.shape[0])).clone()

    def append(self, samples: Tensor) -> None:
        """Put samples behind the end."""
        self.samples, self._dead = torch.cat([self.samples, samples.to(self.samples)]), 0

    def keep(self, first: int | None = None, last: int | None = None) -> None:
        """Forget the samples before `first` and from `last` on."""
        first = self.start if first is None else max(first, self.start)
        last = self.end if last is None else min(last, self.end)
        kept = self.samples[first - self.start : max(last, first) - self.start]
        self._dead += self.samples.shape[0] - kept.shape[0]
        if self._dead > kept.shape[0]:
            # a copy, so that the memory of what is forgotten becomes free, but not one for every hop
            kept, self._dead = kept.clone(), 0
        self.samples, self.start = kept, first


class Resampler:
    """Band-limited conversion of a sampling rate whose result does not depend on how the sound was cut into pieces.

    Works on blocks of fixed size (about 40 ms), each a product of the same shape. Hann-windowed sinc, `ZEROS` zero
    crossings to either side, as in torchaudio's `resample`; sample n of the result lies at n / `to` seconds.

    Args:
        rate: of the sound that comes in, Hz.
        to: of the result, Hz.
    """

    ZEROS = 12
    _ROLLOFF = 0.97

    def __init__(self, rate: int, to: int) -> None:
        divisor = math.gcd(rate, to)
        repeats = max(1, round(0.04 * divisor))
        self.rate, self.to = rate, to
        self._taken, self._given = rate // divisor * repeats, to // divisor * repeats
        cutoff = min(rate, to) * self._ROLLOFF / rate  # of half the incoming rate
        self.reach = math.ceil(self.ZEROS / cutoff)
        position = torch.arange(self._given, dtype=torch.float64) * self._taken / self._given
        first = position.floor().long() - self.reach + 1
        self._index = first[:, None] + torch.arange(2 * self.reach) + self.reach  # into [reach | block | reach]
        offset = (self._index - self.reach - position[:, None]) * cutoff
        window = torch.cos(offset.clamp(-self.ZEROS, self.ZEROS) * (math.pi / 2 / self.ZEROS)).square()
        self._kernel = (torch.sinc(offset) * window * cutoff).float()
        self.pending = torch.zeros(self.reach)
        """Sound not yet used up, [n], beginning with the `reach` samples before it."""

    def __call__(self, samples: Tensor) -> Tensor:
        """What can be converted so far, [m]; the rest waits."""
        self.pending = torch.cat([self.pending, samples])
        made = []
        needed, start = self._taken + 2 * self.reach, 0
        while self.pending.shape[0] - start >= needed:
            made.append((self.pending[start : start + needed][self._index] * self._kernel).sum(-1))
            start += self._taken
        self.pending = self.pending[start:].clone()
        return torch.cat(made) if made else samples.new_zeros(0)

    def flush(self) -> Tensor:
        """The rest, as if silence followed; the next sound begins anew."""
        rest = self.pending.shape[0] - self.reach
        made = self(torch.zeros(self._taken + self.reach + (-rest) % self._taken))[
            : math.ceil(rest * self.to / self.rate)
        ]
        self.pending = torch.zeros(self.reach)
        return made


def mono(samples: Any) -> Tensor:
    """Sound as a session takes it, float32 [N] on the CPU.

    Args:
        samples: tensor or array, float in [-1, 1] or int16, [N].

    Raises:
        InputError: not mono, of another type, or not finite.
    """
    waveform = torch.as_tensor(samples).detach().cpu()
    if waveform.dim() != 1:
        raise InputError(f"expected mono sound [N], got {list(waveform.shape)}; mix its channels first")
    if waveform.dtype == torch.int16:
        return waveform.float() / 32768
    if not waveform.is_floating_point():
        raise InputError(f"expected sound as float in [-1, 1] or int16, got {waveform.dtype}; convert it")
    waveform = waveform.float()
    if not torch.isfinite(waveform).all():
        raise InputError("the sound holds NaN or infinite samples; check where it comes from")
    return waveform
