"""Loudness, pitch and pitch accents of a waveform, at 100 Hz."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RATE = 100
"""Values per second."""
_SAMPLE_RATE = 16_000
_HOP, _WINDOW, _TRANSFORM = _SAMPLE_RATE // RATE, 640, 2048
_LOWEST_HZ, _HIGHEST_HZ = 60, 400
_VOICED = 0.45
_ACCENT, _ACCENT_GAP = 0.6, 0.25


@dataclass(frozen=True)
class Prosody:
    """How something is said.

    Attributes:
        loudness: 0 (silence) to 1 (loudest), [n].
        pitch: log f0 in standard deviations of the utterance, 0 where unvoiced, [n].
        voiced: [n] bool.
        accents: times (s) of the stressed syllables, [a].
        strengths: of the accents, above 0.6, mostly below 2.5, [a].
    """

    loudness: Tensor
    pitch: Tensor
    voiced: Tensor
    accents: Tensor
    strengths: Tensor


def prosody(waveform: Tensor) -> Prosody:
    """Measure loudness, f0 (autocorrelation) and accents.

    Args:
        waveform: [N] float32, 16 kHz.
    """
    count = max(1, waveform.shape[0] // _HOP)
    padded = F.pad(waveform.float(), ((_WINDOW - _HOP) // 2, _WINDOW))
    frames = padded.unfold(0, _WINDOW, _HOP)[:count]
    power = frames.square().mean(dim=1)
    decibels = 10.0 * torch.log10(power + 1e-7)
    loudness = ((decibels - torch.maximum(decibels.max() - 45.0, torch.tensor(-60.0))) / 45.0).clamp(0.0, 1.0)

    window = torch.hann_window(_WINDOW)
    own = _autocorrelation(window[None])[0]
    found = _autocorrelation((frames - frames.mean(dim=1, keepdim=True)) * window)
    found = found / (found[:, :1] + 1e-9) / (own / own[0]).clamp_min(0.05)
    first, last = _SAMPLE_RATE // _HIGHEST_HZ, _SAMPLE_RATE // _LOWEST_HZ
    # a slight preference for short lags keeps the search off multiples of the period
    preferred = found[:, first:last] * torch.linspace(1.0, 0.85, last - first)
    strength, lag = preferred.max(dim=1)
    voiced = (strength > _VOICED) & (loudness > 0.35)
    log_f0 = torch.log(_SAMPLE_RATE / (lag + first).float())
    if voiced.sum() < 5:
        none = torch.zeros(0)
        return Prosody(loudness, torch.zeros(count), torch.zeros(count, dtype=torch.bool), none, none)
    middle = log_f0[voiced].median()
    spread = (log_f0[voiced] - middle).abs().median().clamp_min(0.03) * 1.48
    pitch = torch.where(voiced, ((log_f0 - middle) / spread).clamp(-3.0, 3.0), torch.zeros(()))
    accents, strengths = _accents(pitch, voiced, loudness)
    return Prosody(loudness, pitch, voiced, accents, strengths)


def smooth(curve: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing along the first axis, [n] or [n, c]; `sigma` in samples, ends held."""
    columns = curve[:, None] if curve.ndim == 1 else curve
    radius = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum()).expand(columns.shape[1], 1, -1)
    padded = F.pad(columns.T[None], (radius, radius), mode="replicate")
    smoothed = F.conv1d(padded, kernel, groups=columns.shape[1])[0].T
    return smoothed[:, 0] if curve.ndim == 1 else smoothed


def _autocorrelation(frames: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(frames, n=_TRANSFORM).abs().square())[:, :_WINDOW]


def _accents(pitch: Tensor, voiced: Tensor, loudness: Tensor) -> tuple[Tensor, Tensor]:
    """Peaks of pitch and loudness together, at least a quarter of a second apart."""
    loud = loudness[voiced]
    relative = ((loudness - loud.mean()) / loud.std().clamp_min(0.05)).clamp(-2.0, 2.0)
    score = smooth(torch.where(voiced, pitch + 0.5 * relative, torch.zeros(())), 0.05 * RATE)
    around = F.max_pool1d(score[None, None], 2 * int(_ACCENT_GAP * RATE) + 1, 1, int(_ACCENT_GAP * RATE))[0, 0]
    peaks = torch.nonzero((score >= around) & (score > _ACCENT))[:, 0]
    return peaks.float() / RATE, score[peaks].clamp(max=2.5)
