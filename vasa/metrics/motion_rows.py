"""The rows of motion: head, seams, blinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..controls import Controls
from ..latents import Motion
from ..motion.plan import SMOOTHING, WindowPlan
from ..synthetic.behaviour import Behaviour
from ..synthetic.corpus import Corpus
from .bench import Bench
from .clips import long_speech
from .lip_rows import acted
from .motion_quality import (
    Seams,
    blink_peaks,
    head_channels,
    jitter,
    mouth_channels,
    pose_intensity,
    seam_jumps,
    seams,
)
from .people import Talker, blink_of, watch
from .report import Row

INTENSITY = "head motion: ΔP against the training distribution"
JITTER = "head motion: acceleration above 5 Hz against the training distribution"
SEAMS = "window seams: jump at a seam against the jump elsewhere"
BLINKS, CLOSURE = "blinks per minute", "blinks: closure of the lids"
DEMANDS = {INTENSITY: "0.7 – 1.3", JITTER: "≤ 2", SEAMS: "≤ 1.1", BLINKS: "10 – 25", CLOSURE: "full (≥ 85 %)"}
_PERFORMANCES = 3
_FULL_CLOSURE = 0.85
_AFTER_SEAM = 12


def motion_rows(bench: Bench, talkers: Sequence[Talker], corpus: Corpus) -> list[Row]:
    """Motion alone, for minutes of speech; only the deepest frames of blinks are decoded."""
    pipe, seconds = bench.pipe, bench.sizes.motion_seconds / len(talkers)
    generator, count = bench.generator(4), bench.counter("motion", len(talkers))
    motions: list[Motion] = []
    usual: list[Behaviour] = []
    for number, talker in enumerate(talkers):
        spoken = long_speech(corpus, seconds, generator)
        motions.append(pipe.generate(spoken.waveform, talker.face, Controls(seed=bench.seed + number)))
        usual += [acted(spoken, pipe.fps, 100 * number + take) for take in range(_PERFORMANCES)]
        count(number + 1)
    return [
        *_head_rows(motions, usual, pipe.fps),
        _seam_row(bench, motions, usual),
        *_blink_rows(bench, talkers, motions, usual),
    ]


def _minutes(frames: Sequence[Tensor], fps: float) -> float:
    return sum(map(len, frames)) / fps / 60


def _head_rows(motions: Sequence[Motion], usual: Sequence[Behaviour], fps: float) -> list[Row]:
    ours, theirs = ([m.head_pose for m in some] for some in (motions, usual))
    intensity = torch.tensor([pose_intensity(pose) for pose in ours])
    wanted = torch.tensor([pose_intensity(pose) for pose in theirs])
    ratio = float(intensity.mean() / wanted.mean())
    note = (
        f"mean change of yaw, pitch and roll per frame over {_minutes(ours, fps):.1f} minutes: "
        f"{intensity.mean():.3f}° generated, {wanted.mean():.3f}° in the behaviour that made the training "
        f"data, for the same sound and controls (from {wanted.min():.3f}° to {wanted.max():.3f}°). Standard "
        f"deviation of yaw, pitch, roll: {_spread(ours)} against {_spread(theirs)}."
    )
    return [
        Row(INTENSITY, DEMANDS[INTENSITY], f"{ratio:.2f}", 0.7 <= ratio <= 1.3, note),
        _jitter_row(ours, theirs, fps),
    ]


def _jitter_row(ours: Sequence[Tensor], theirs: Sequence[Tensor], fps: float) -> Row:
    ratios, amplitudes = {}, []
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        generated, usual = ([jitter(pose[:, axis], fps) for pose in some] for some in (ours, theirs))
        power = [sum(one.acceleration for one in some) / len(some) for some in (generated, usual)]
        ratios[name] = power[0] / max(power[1], 1e-12)
        amplitudes.append([sum(one.amplitude for one in some) / len(some) for some in (generated, usual)])
    worst, (amplitude, usual_amplitude) = max(ratios.values()), torch.tensor(amplitudes).amax(0).rad2deg()
    note = (
        f"largest of {', '.join(f'{name} {ratio:.2f}' for name, ratio in ratios.items())}; below 1 is smoother. "
        f"In degrees the head trembles by {amplitude:.4f}° above 5 Hz (root mean square, worst angle), in the "
        f"training distribution by {usual_amplitude:.4f}°; 0.1° moves the nose by about 0.1 pixel at 256 px."
    )
    return Row(JITTER, DEMANDS[JITTER], f"{worst:.2f}", worst <= 2, note)


def _spread(poses: Sequence[Tensor]) -> str:
    angles = torch.stack([pose[:, :3].std(0) for pose in poses]).mean(0).rad2deg()
    return ", ".join(f"{angle:.1f}°" for angle in angles.tolist())


def _seam_row(bench: Bench, motions: Sequence[Motion], usual: Sequence[Behaviour]) -> Row:
    plan = WindowPlan.full(bench.pipe.config.motion.window)
    scale = bench.pipe.models.motion.std.cpu()
    ours = [motion.vectors for motion in motions]
    seamless = [torch.cat([one.head_pose, one.dynamics], dim=-1) for one in usual]

    def measure(paths: Sequence[Tensor], channels: Callable[[Tensor], Tensor], reach: int = 1) -> Seams:
        ahead = SMOOTHING if channels is head_channels else 0
        jumps = [seam_jumps(channels(path), channels(scale), plan, reach, ahead) for path in paths]
        return seams(jumps, bench.generator(5))

    ratios, listed = [], []
    for name, channels in (("head", head_channels), ("mouth", mouth_channels)):
        generated = measure(ours, channels)
        ratios.append(generated.ratio)
        listed.append(
            f"{name} {generated.ratio:.2f} (95 % interval {generated.low:.2f} to {generated.high:.2f}; seamless "
            f"training motion at the same frames {measure(seamless, channels).ratio:.2f}; all of the {_AFTER_SEAM} "
            f"frames from the seam on {measure(ours, channels, _AFTER_SEAM).ratio:.2f})"
        )
    listed = ", ".join(listed)
    note = f"{generated.count} seams; change of normalised motion per frame, the larger counts: {listed}."
    return Row(SEAMS, DEMANDS[SEAMS], f"{max(ratios):.2f}", max(ratios) <= 1.1, note)


def _blink_rows(
    bench: Bench, talkers: Sequence[Talker], motions: Sequence[Motion], usual: Sequence[Behaviour]
) -> list[Row]:
    fps = bench.pipe.fps
    ours, theirs = [blink_of(m.facial_dynamics) for m in motions], [blink_of(one.dynamics) for one in usual]
    peaks = [blink_peaks(curve) for curve in ours]
    total = sum(map(len, peaks))
    minutes = _minutes(ours, fps)
    rate = total / minutes
    wanted = sum(len(blink_peaks(curve)) for curve in theirs) / _minutes(theirs, fps)
    note = (
        f"{total} blinks in {minutes:.1f} minutes of motion under default controls; training behaviour "
        f"{wanted:.0f} a minute."
    )
    row = Row(BLINKS, DEMANDS[BLINKS], f"{rate:.0f}", 10 <= rate <= 25, note)
    if not total:
        return [row, Row(CLOSURE, DEMANDS[CLOSURE], "no blink", False)]
    each, seen = max(1, bench.sizes.blinks // len(talkers)), []
    for talker, motion, found in zip(talkers, motions, peaks, strict=True):
        if found:
            shown = watch(bench.pipe, talker.face, motion[torch.tensor(found[:each])])
            seen += (blink_of(shown.dynamics) / max(talker.lids_closed, 0.1)).tolist()
    depth = torch.cat([curve[found] for curve, found in zip(ours, peaks, strict=True)]).median()
    closure = float(torch.tensor(seen).median())
    note = (
        f"the reader's eyeBlink in {len(seen)} decoded frames, each the deepest of a blink, over its reading "
        f"of a true picture of the person with shut eyes; median. In the motion before decoding: {depth:.2f}."
    )
    return [row, Row(CLOSURE, DEMANDS[CLOSURE], f"{closure:.0%}", closure >= _FULL_CLOSURE, note)]
