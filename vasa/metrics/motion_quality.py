"""Is the motion alive, smooth, seamless, and does it blink? Laws of curves, no pictures.

Letters: `T` frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..latents import DYNAMICS
from ..motion.plan import WindowPlan

JITTER_HERTZ = 5.0
_PIECE_SECONDS = 2.0
_MOUTH = [6 + i for i, name in enumerate(DYNAMICS) if name.startswith(("jaw", "mouth"))]
_BLINK_BEGINS, _BLINK_ENDS = 0.5, 0.25


def pose_intensity(head_pose: Tensor) -> float:
    """ΔP (VASA-1, section 4.1): mean change of yaw, pitch and roll from frame to frame, [T, 6] -> degrees."""
    return float(head_pose[:, :3].diff(dim=0).abs().mean().rad2deg())


@dataclass(frozen=True)
class Jitter:
    """What a curve does above 5 Hz.

    Attributes:
        acceleration: mean power of its second derivative, in the curve's unit² per s⁴.
        amplitude: root mean square of the curve itself, in its unit.
    """

    acceleration: float
    amplitude: float


def jitter(curve: Tensor, fps: float) -> Jitter:
    """Spectrum above 5 Hz, averaged over Hann-windowed pieces of two seconds.

    Args:
        curve: [T], at least four frames.
        fps: frames per second.
    """
    # second differences first: they take away the slow movement, whose leakage would drown the fast one
    acceleration = curve.double().diff(n=2) * fps**2
    length = min(round(_PIECE_SECONDS * fps), len(acceleration))
    pieces = acceleration.unfold(0, length, max(1, length // 2))
    window = torch.hann_window(length, dtype=pieces.dtype)
    spectrum = torch.fft.rfft((pieces - pieces.mean(-1, keepdim=True)) * window).abs().square().mean(0)
    power = 2 * spectrum / (length * window.square().sum())
    frequency = torch.fft.rfftfreq(length, 1 / fps, dtype=power.dtype)
    fast = frequency > JITTER_HERTZ
    gain = (2 * fps * torch.sin(torch.pi * frequency / fps)).pow(4)
    return Jitter(float(power[fast].sum()), float((power[fast] / gain[fast]).sum().sqrt()))


@dataclass(frozen=True)
class Seams:
    """How far motion jumps from frame to frame.

    Attributes:
        ratio: mean jump at seams over mean jump elsewhere.
        low, high: 95 % interval of the ratio by resampling the seams.
        count: seams.
    """

    ratio: float
    low: float
    high: float
    count: int


def seam_frames(frames: int, plan: WindowPlan, ahead: int = 0) -> list[int]:
    """Frames with which every window but the first begins to show, in channels that the one before settled further."""
    return list(range(plan.span(0, 0).kept + ahead, frames, plan.hop))


def seam_jumps(
    motion: Tensor, scale: Tensor, plan: WindowPlan, reach: int = 1, ahead: int = 0
) -> tuple[Tensor, Tensor]:
    """Jumps between frames where one window follows another, and elsewhere.

    Args:
        motion: [T, C].
        scale: typical size of every channel, [C].
        plan: how the clip was cut into windows.
        reach: frames from the seam on that count as the seam; a seam that is faded out shows behind it.
        ahead: frames beyond what it gives for which a window settles these channels.

    Returns:
        Root mean square over the channels of the scaled differences: [seams] and [others].
    """
    jumps = (motion.diff(dim=0) / scale).square().mean(1).sqrt()
    at_seam = torch.zeros(len(jumps), dtype=torch.bool)
    for frame in seam_frames(len(motion), plan, ahead):
        at_seam[frame - 1 : frame - 1 + reach] = True
    return jumps[at_seam], jumps[~at_seam]


def seams(jumps: list[tuple[Tensor, Tensor]], generator: Generator) -> Seams:
    """Put the jumps of several clips together."""
    at, elsewhere = (torch.cat(column) for column in zip(*jumps, strict=True))
    usual = elsewhere.mean().clamp_min(1e-9)
    draws = at[torch.randint(len(at), (400, len(at)), generator=generator)].mean(1) / usual
    low, high = draws.quantile(torch.tensor([0.025, 0.975])).tolist()
    return Seams(float(at.mean() / usual), low, high, len(at))


def head_channels(vectors: Tensor) -> Tensor:
    """Head pose out of motion vectors, [T, M] -> [T, 6]."""
    return vectors[..., :6]


def mouth_channels(vectors: Tensor) -> Tensor:
    """Jaw and mouth weights out of motion vectors, [T, M] -> [T, 29]."""
    return vectors[..., _MOUTH]


def blink_peaks(closure: Tensor) -> list[int]:
    """Frames of the deepest closure of every blink.

    A blink begins when the lids are more than half closed and ends when they are open by three quarters.

    Args:
        closure: 0 open to 1 closed, [T].
    """
    peaks, peak = [], None
    for frame, value in enumerate(closure.tolist()):
        if peak is None and value > _BLINK_BEGINS:
            peak = frame
        elif peak is not None and value < _BLINK_ENDS:
            peaks.append(peak)
            peak = None
        if peak is not None and value > closure[peak]:
            peak = frame
    return peaks if peak is None else [*peaks, peak]
