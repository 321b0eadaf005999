"""Making a few synthetic voices sound like many people in many rooms.

`augment_voice` does all of it: `vary_voice` changes the speaker and the timing of one utterance and
keeps its segments true; `degrade` changes the recording of a batch and leaves the timing alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .chance import happens, uniform
from .phones import Segment

_SAMPLE_RATE = 16_000
_FORMANT_TRANSFORM, _FORMANT_HOP = 512, 128
_ENVELOPE_BINS = 11
"""Width of the spectral smoothing that separates formants from harmonics, in bins of 31 Hz."""


def resample(waveform: Tensor, factor: float) -> Tensor:
    """Change the number of samples by `factor`, band-limited (Fourier transform), [..., N] -> [..., M].

    Silence of 0.05 s is appended during the transform, so that the end does not leak into the beginning.
    """
    count = waveform.shape[-1]
    target = max(1, round(count * factor))
    # a multiple of 441 turns 22.05 kHz into 16 kHz without a remainder
    padded = F.pad(waveform, (0, 800 + (-(count + 800)) % 441))
    length = round(padded.shape[-1] * factor)
    spectrum = torch.fft.rfft(padded) * (length / padded.shape[-1])
    return torch.fft.irfft(spectrum[..., : length // 2 + 1], n=length)[..., :target]


def warp_formants(waveform: Tensor, factor: float) -> Tensor:
    """Move the formants as a vocal tract of another length would, keeping pitch and timing, [N] -> [N].

    Args:
        factor: of the formant frequencies, 0.85 (longer tract) to 1.18 (shorter).
    """
    window = torch.hann_window(_FORMANT_TRANSFORM, device=waveform.device)
    spectrum = torch.stft(waveform, _FORMANT_TRANSFORM, _FORMANT_HOP, window=window, return_complex=True)
    level = spectrum.abs().clamp_min(1e-5).log()
    side = _ENVELOPE_BINS // 2
    envelope = F.avg_pool1d(F.pad(level.T[:, None], (side, side), mode="replicate"), _ENVELOPE_BINS, 1)[:, 0].T
    bins = envelope.shape[0]
    position = (torch.arange(bins, device=waveform.device) / factor).clamp(max=bins - 1.001)
    low = position.long()
    part = (position - low)[:, None]
    moved = envelope[low] * (1.0 - part) + envelope[low + 1] * part
    change = (moved - envelope).clamp(-3.5, 3.5).exp()
    return torch.istft(spectrum * change, _FORMANT_TRANSFORM, _FORMANT_HOP, window=window, length=waveform.shape[-1])


def scale_times(segments: Sequence[Segment], factor: float) -> tuple[Segment, ...]:
    """The same segments in a waveform `factor` times as long."""
    return tuple(replace(s, start=s.start * factor, end=s.end * factor) for s in segments)


def insert_silence(waveform: Tensor, segments: Sequence[Segment], time: float, seconds: float) -> tuple:
    """Stop the speaker for a while: silence at `time`, which should lie in a pause or between phones.

    Returns:
        (waveform [M], segments).
    """
    at, count = round(time * _SAMPLE_RATE), round(seconds * _SAMPLE_RATE)
    longer = torch.cat([waveform[:at], waveform.new_zeros(count), waveform[at:]])
    length = count / _SAMPLE_RATE
    before = [replace(s, end=min(s.end, time)) for s in segments if s.start < time]
    after = [replace(s, start=max(s.start, time) + length, end=s.end + length) for s in segments if s.end > time]
    return longer, (*before, Segment(time, time + length, "sil", 0), *after)


def vary_voice(
    waveform: Tensor, segments: Sequence[Segment], generator: Generator
) -> tuple[Tensor, tuple[Segment, ...]]:
    """Another speaker saying the same: speed, pitch and vocal tract, sometimes an added pause.

    Args:
        waveform: [N] float32, 16 kHz.
        segments: its phones.

    Returns:
        Waveform [M] and its segments.
    """
    segments = tuple(segments)
    factor = uniform(0.87, 1.15, generator)
    waveform, segments = resample(waveform, factor), scale_times(segments, factor)
    if happens(0.6, generator):
        waveform = warp_formants(waveform, uniform(0.85, 1.18, generator))
    pauses = [s for s in segments if s.phone == "sil"]
    if pauses and happens(0.2, generator):
        pause = pauses[int(torch.randint(len(pauses), (1,), generator=generator))]
        waveform, segments = insert_silence(
            waveform, segments, 0.5 * (pause.start + pause.end), uniform(0.2, 1.5, generator)
        )
    return waveform, segments


def augment_voice(
    waveform: Tensor, segments: Sequence[Segment], generator: Generator
) -> tuple[Tensor, tuple[Segment, ...]]:
    """Another speaker in another room: `vary_voice`, then `degrade`, [N] -> [M] and its segments."""
    waveform, segments = vary_voice(waveform, segments, generator)
    return degrade(waveform, generator), segments


def degrade(waveforms: Tensor, generator: Generator) -> Tensor:
    """Other microphones and rooms: equaliser, echo, band limit, company, noise, clipping, coarse quantisation, gain.

    Args:
        waveforms: [B, N] or [N] float32, 16 kHz, on any device.
        generator: CPU generator; every row draws its own.

    Returns:
        The same shape, in [-1, 1]; nothing is delayed.
    """
    batch = waveforms if waveforms.ndim == 2 else waveforms[None]
    rows, count = batch.shape
    batch = batch.float()

    def draw(low: float, high: float, probability: float = 1.0, otherwise: float = 0.0) -> Tensor:
        values = low + (high - low) * torch.rand(rows, 1, generator=generator)
        taken = torch.rand(rows, 1, generator=generator) < probability
        return torch.where(taken, values, torch.full_like(values, otherwise)).to(batch.device)

    size = _good_size(count + _SAMPLE_RATE // 2)
    hertz = torch.fft.rfftfreq(size, 1.0 / _SAMPLE_RATE, device=batch.device)[None]
    response = _equaliser(hertz, draw) * _band(hertz, draw)
    echo = torch.fft.rfft(_echo(rows, draw, generator).to(batch.device), n=size)
    heard = torch.fft.irfft(torch.fft.rfft(batch, n=size) * response * echo, n=size)[:, :count]

    loudness = _active_level(heard)
    company = torch.stack([_company(row, generator) for row in heard])
    heard = heard + company * loudness * 10.0 ** (-draw(6.0, 25.0) / 20.0)

    noise = torch.randn(rows, size, generator=generator).to(batch.device)
    tilt = (hertz.clamp_min(40.0) / 1000.0) ** -draw(0.0, 1.0)
    noise = torch.fft.irfft(torch.fft.rfft(noise) * tilt, n=size)[:, :count]
    noise = noise / noise.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
    heard = heard + noise * loudness * 10.0 ** (-draw(5.0, 40.0, 0.85, 60.0) / 20.0)

    peak = heard.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)
    ceiling = peak * draw(0.15, 0.6, 0.12, 1.0)
    heard = torch.minimum(torch.maximum(heard, -ceiling), ceiling) / ceiling
    coarse = draw(0.0, 1.0) < 0.15
    heard = torch.where(coarse, _mu_law(heard), heard)
    heard = heard * 10.0 ** (-draw(0.0, 26.0) / 20.0)
    return heard if waveforms.ndim == 2 else heard[0]


def _good_size(count: int) -> int:
    """The next multiple of 8000, whose transform is fast."""
    return -(-count // 8000) * 8000


def _equaliser(hertz: Tensor, draw) -> Tensor:
    """Smooth gain over the logarithm of frequency, up to about ±10 dB, [B, bins]."""
    octave = (hertz.clamp_min(50.0) / 50.0).log2() / 7.3
    decibels = draw(-6.0, 6.0) * (octave - 0.5)
    for waves in (1, 2, 3, 4):
        decibels = decibels + draw(-5.0, 5.0) / waves**0.5 * torch.cos(math.pi * (waves * octave + draw(0.0, 2.0)))
    return 10.0 ** (decibels / 20.0)


def _band(hertz: Tensor, draw) -> Tensor:
    """Low-pass at 3.4 to 8 kHz and high-pass at 60 to 300 Hz, each for some rows, [B, bins]."""
    top, bottom = draw(3400.0, 7800.0, 0.5, 16_000.0), draw(60.0, 300.0, 0.4, 1.0)
    return 1.0 / ((1.0 + (hertz / top) ** 12) * (1.0 + (bottom / hertz.clamp_min(1.0)) ** 6)).sqrt()


def _echo(rows: int, draw, generator: Generator) -> Tensor:
    """Room responses whose direct sound comes first, [B, 0.4 s]."""
    length = int(0.4 * _SAMPLE_RATE)
    time = torch.arange(length) / _SAMPLE_RATE
    decay = draw(0.08, 0.6).cpu()
    tail = torch.randn(rows, length, generator=generator) * torch.exp(-6.9 * time / decay)
    tail = tail * (time > 0.002 + 0.01 * draw(0.0, 1.0).cpu())
    tail = tail / tail.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
    response = tail * draw(0.05, 0.7, 0.5).cpu()
    response[:, 0] = 1.0
    return response


def _company(voice: Tensor, generator: Generator) -> Tensor:
    """What else is heard at level 1: music under one row in six, murmur of others under another sixth, [N] -> [N]."""
    kind = float(torch.rand((), generator=generator))
    if kind < 1 / 6:
        sound = _music(voice.shape[0], generator).to(voice.device)
    elif kind < 1 / 3:
        # the voice itself backwards has the colour and the rhythm of speech and says nothing
        turns = torch.randint(voice.shape[0], (2,), generator=generator).tolist()
        sound = sum(voice.flip(0).roll(turn) for turn in turns)
    else:
        return torch.zeros_like(voice)
    return sound / sound.square().mean().sqrt().clamp_min(1e-4)


def _music(count: int, generator: Generator) -> Tensor:
    """Plucked notes of a few pitches, three a second, [count]."""
    seconds = count / _SAMPLE_RATE
    sound = torch.zeros(count)
    pitches = 55.0 * 2.0 ** (torch.randint(0, 48, (5,), generator=generator) / 12.0)
    length = min(count, 2 * _SAMPLE_RATE)
    time = torch.arange(length) / _SAMPLE_RATE
    for _ in range(max(1, round(3 * seconds))):
        start = int(torch.randint(count, (1,), generator=generator))
        hertz = float(pitches[int(torch.randint(5, (1,), generator=generator))])
        decay = uniform(1.5, 8.0, generator)
        tone = sum(torch.sin(2 * math.pi * hertz * k * time) / k for k in range(1, 5) if hertz * k < 7000)
        note = (tone * torch.exp(-decay * time))[: count - start]
        sound[start : start + note.shape[0]] += note
    return sound


def _active_level(batch: Tensor) -> Tensor:
    """Root mean square of the louder half of the 20 ms blocks, [B, 1]; 0.01 at least: silence gets noise."""
    block = min(320, batch.shape[1])
    blocks = batch.unfold(1, block, block).square().mean(dim=2)
    louder = blocks.sort(dim=1).values[:, blocks.shape[1] // 2 :]
    return louder.mean(dim=1, keepdim=True).sqrt().clamp_min(0.01)


def _mu_law(waveform: Tensor) -> Tensor:
    """8-bit mu-law and back."""
    squeezed = waveform.sign() * torch.log1p(255.0 * waveform.abs()) / math.log(256.0)
    squeezed = (squeezed * 127.0).round() / 127.0
    return squeezed.sign() * ((256.0 ** squeezed.abs()) - 1.0) / 255.0
