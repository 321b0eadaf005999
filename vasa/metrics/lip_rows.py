"""The rows of the lips: in time with the sound, closed where they must be, at rest in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..controls import Controls
from ..synthetic.behaviour import Behaviour, behave
from .clips import JAW, Clip, Spoken
from .lips import (
    best_lag,
    closures,
    correlation,
    lip_sync,
    shifted_sync,
    silent_opening,
    true_jaw,
    wrong_sync,
)
from .report import Row

SYNC = "lips: jaw opening read from decoded frames against the true curve, median correlation"
CLOSED = "lips: p, b and m closed"
WRONG = "lips: correlation with the curve of a wrong clip"
SHIFTED = "lips: correlation with the curve shifted by 0.5 s"
SILENCE = "mouth in silence, of its speech range"
DEMANDS = {SYNC: "≥ 0.8", CLOSED: "≥ 90 %", WRONG: "< 0.2", SHIFTED: "< 0.2", SILENCE: "≤ 10 %"}


def lip_rows(clips: Sequence[Clip]) -> list[Row]:
    """Lips of decoded clips."""
    sync, wrong, shifted = (_median(measure(clips)) for measure in (lip_sync, wrong_sync, shifted_sync))
    share, count = _share([closures(clip) for clip in clips])
    chance, _ = _share([closures(clip, delay=0.5) for clip in clips])
    silent = torch.cat([silent_opening(clip) for clip in clips])
    quiet = float(silent.mean())
    closing = (
        f"{count} of them; closed: within 20 % of the way from the person's truly closed lips to a true "
        f"'ah', in some frame of the phone. Half a second later, by chance: {chance:.0%}."
    )
    resting = (
        f"mean over {len(silent)} frames inside pauses and appended silence, distance of the lips above "
        "closed lips over its 95th percentile in speech; 95th percentile in silence "
        f"{silent.quantile(0.95):.0%}."
    )
    return [
        Row(SYNC, DEMANDS[SYNC], f"{sync:.2f}", sync >= 0.8, _about_sync(clips)),
        Row(CLOSED, DEMANDS[CLOSED], f"{share:.0%}", share >= 0.9, closing),
        Row(WRONG, DEMANDS[WRONG], f"{wrong:.2f}", wrong < 0.2),
        Row(
            SHIFTED,
            DEMANDS[SHIFTED],
            f"{shifted:.2f}",
            shifted < 0.2,
            "mean of half a second early and late.",
        ),
        Row(SILENCE, DEMANDS[SILENCE], f"{quiet:.0%}", quiet <= 0.1, resting),
    ]


def _about_sync(clips: Sequence[Clip]) -> str:
    each = lip_sync(clips)
    by_lips = lip_sync([replace(clip, jaw=clip.opening) for clip in clips])
    undecoded = lip_sync([replace(clip, jaw=clip.motion.facial_dynamics[:, JAW]) for clip in clips])
    ceiling = [_performed(clip.spoken, clip.motion.fps, seed) for seed, clip in enumerate(clips)]
    lag = best_lag(clips)
    return (
        f"{len(clips)} clips with {sum(clip.spoken.speech_end for clip in clips):.0f} s of unheard sentences "
        f"by an unheard voice, default controls, {len({id(clip.talker) for clip in clips})} faces; the "
        "reader's jawOpen against that of articulation from the true phone times. Clips range from "
        f"{min(each):.2f} to {max(each):.2f}. By the distance of the lips instead {_median(by_lips):.2f}; in "
        f"the motion before decoding {_median(undecoded):.2f}; another performance of the training behaviour "
        f"{_median(ceiling):.2f}. Best at a lag of {lag} frames (positive: late): "
        f"{_median(lip_sync(clips, lag)):.2f}."
    )


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values).median())


def _share(found: Sequence[list[bool]]) -> tuple[float, int]:
    flat = [closed for clip in found for closed in clip]
    return (sum(flat) / len(flat) if flat else 0.0), len(flat)


def _performed(spoken: Spoken, fps: float, seed: int) -> float:
    jaw = acted(spoken, fps, seed).dynamics[:, JAW]
    return correlation(jaw, true_jaw(spoken, len(jaw), fps))


def acted(spoken: Spoken, fps: float, seed: int) -> Behaviour:
    """The behaviour that made the training data, under the default controls."""
    emotion = Controls().curves(1).emotion[0]
    generator = torch.Generator().manual_seed(seed)
    return behave(spoken.waveform, spoken.segments, generator, fps=fps, emotion=emotion, gaze=(0.0, 0.0), distance=1.0)
