"""Drawing motion between frames that are known on both sides: regeneration, hand-overs and loops without a seam.

The known frames are put into every prediction of x_0, so that what is drawn grows out of the one side and into the
other. What the model would have drawn for the outermost known frames differs from them by some offset; it fades out
into the gap from either side, the way one window follows another (`vasa/motion/diffusion.py`). Not in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..audio import AudioEncoder
from ..controls import Controls
from ..errors import InputError
from ..latents import POSE, Motion
from .conditions import Conditions, nothing_empty
from .diffusion import FACE_FADE, POSE_FADE, frame_noise, sample
from .edit import check_frames, match
from .gaze import told
from .place import generator_rest, place
from .sound import SoundBuffer
from .transformer import Denoiser
from .windows import calm, sound_of

OVERLAP = 10
"""Known frames inside a window on either side of the gap."""
CONTEXT = 10
"""Frames of sound around a window that the audio encoder also hears."""


@torch.inference_mode()
def regenerate(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    motion: Motion,
    start: int,
    stop: int,
    waveform: Tensor | None = None,
    controls: Controls | None = None,
    names: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Motion:
    """Draw frames start .. stop - 1 anew; every other frame stays as it is, bit by bit.

    Args:
        denoiser: H.
        encoder: the audio encoder.
        motion: [T, ...] at the model's frame rate.
        start, stop: the frames.
        waveform: the speech of the whole motion, mono 16 kHz in [-1, 1], [N]; None: silence.
        controls: gaze, distance, emotion, guidance, steps and seed of what is drawn. Another seed gives another take.
        names: meaning of the dynamics channels, as in `vasa.motion.place.place`.
        progress: progress(done, total) after each denoising step; may raise to cancel.

    Raises:
        InputError: no such frames, or a motion of another model or frame rate.
    """
    controls = controls or Controls()
    check_frames(motion, start, stop)
    _check_speaks(denoiser, motion)
    about = motion
    if motion.rest is not None:
        about = place(motion, generator_rest(motion.head_pose), names)
    whole = denoiser.normalise(about.vectors.to(denoiser.mean))[None].clone()  # [1, T, M]
    sound = torch.zeros(0) if waveform is None else waveform
    windows = _windows(start, stop, len(motion), denoiser.config.window)
    total, done = len(windows) * controls.steps, 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    for first, last in windows:
        whole[:, first:last] = _fill(denoiser, encoder, whole, first, last, stop, sound, controls, step)
    drawn = denoiser.denormalise(whole[0, start:stop]).to(motion.head_pose)
    new = Motion.from_vectors(drawn, motion.fps, motion.backend, about.rest)
    if motion.rest is not None:
        new = place(new, motion.rest, names)
    parts = [motion.vectors[:start], new.vectors.to(motion.vectors), motion.vectors[stop:]]
    return replace(Motion.from_vectors(torch.cat(parts), motion.fps, motion.backend), rest=motion.rest)


def bridge(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    first: Motion,
    second: Motion,
    frames: int = 25,
    waveform: Tensor | None = None,
    controls: Controls | None = None,
    names: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Motion:
    """Two motions with newly drawn frames between them.

    Args:
        first, second: [T1, ...] and [T2, ...]; the second is brought to the first's frame rate and rest.
        frames: how many to draw.
        waveform: speech of the whole result, [N]; None: silence.
        controls, names, progress: as in `regenerate`.

    Returns:
        T1 + frames + T2 frames, the first T1 exactly those of `first`.

    Raises:
        InputError: motions that do not fit together or not the model.
    """
    if frames < 1:
        raise InputError(f"a bridge needs at least 1 frame, got {frames}")
    second = match(second, first, names)
    a, b = first.vectors, second.vectors.to(first.vectors)
    joined = Motion.from_vectors(torch.cat([a, _ramp(a[-1], b[0], frames), b]), first.fps, first.backend, first.rest)
    end = len(first) + frames
    return regenerate(denoiser, encoder, joined, len(first), end, waveform, controls, names, progress)


def close_loop(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    motion: Motion,
    frames: int = 25,
    controls: Controls | None = None,
    names: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Motion:
    """A motion with newly drawn frames behind it that lead from its last frame into its first, in silence.

    Returns:
        T + frames frames, the first T exactly those of `motion`; played again and again it has no seam.

    Raises:
        InputError: a motion that does not fit the model.
    """
    around = OVERLAP + denoiser.config.num_previous
    before, after = motion[max(0, len(motion) - around) :], motion[:around]
    joined = bridge(denoiser, encoder, before, after, frames, None, controls, names, progress)
    drawn = joined.vectors[len(before) : len(before) + frames]
    return Motion.from_vectors(torch.cat([motion.vectors, drawn]), motion.fps, motion.backend, motion.rest)


def _fill(
    denoiser: Denoiser,
    encoder: AudioEncoder,
    whole: Tensor,
    first: int,
    last: int,
    stop: int,
    sound: Tensor,
    controls: Controls,
    progress: Callable[[], None],
) -> Tensor:
    """Normalised frames first .. last - 1, [1, n, M]; everything before them is known, and from `stop` on."""
    k, fps = denoiser.config.num_previous, denoiser.config.fps
    begin = max(0, first - OVERLAP)
    end = min(whole.shape[1], last + OVERLAP) if last == stop else last
    length, device = end - begin, denoiser.mean.device
    features = sound_of(encoder, SoundBuffer(sound.to(device)), begin - k, k + length, CONTEXT, fps)
    given = controls.curves(length, fps, begin)
    empty = nothing_empty(1, device)
    empty["previous"] = torch.full_like(empty["previous"], begin < k)
    for name, is_given in given.given.items():
        empty[name] = torch.full_like(empty[name], not is_given)
    conditions = Conditions(
        audio=features[:, k:],
        heard=features.new_ones(1, length),
        gaze=told(given.gaze, controls.guidance)[None].to(features),
        distance=given.distance[None].to(features),
        emotion=given.emotion[None].to(features),
        previous_motion=whole[:, begin - k : begin] if begin >= k else features.new_zeros(1, k, whole.shape[2]),
        previous_audio=features[:, :k],
        empty=empty,
    )
    before, after = whole[:, begin:first], whole[:, last:end]
    x_0 = sample(
        denoiser,
        conditions,
        length,
        scales={n: s for n, s in controls.guidance.items() if given.given.get(n, True) and n in denoiser.guided},
        steps=controls.steps,
        sampler=controls.sampler,
        noise=frame_noise(controls.seed, range(begin, end), whole.shape[2])[None],
        constrain=lambda drawn: between(before, drawn, after),
        progress=progress,
    )
    return between(before, calm(x_0), after)[:, first - begin : last - begin]


def between(before: Tensor, drawn: Tensor, after: Tensor) -> Tensor:
    """Known frames in front and behind; their offsets from what was drawn there fade out into the gap.

    Args:
        before: [B, P, M], P may be 0.
        drawn: [B, L, M], the whole window.
        after: [B, Q, M], Q may be 0.

    Returns:
        [B, L, M]: `before`, L - P - Q frames of the gap, `after`.
    """
    p, q, length = before.shape[1], after.shape[1], drawn.shape[1]
    gap = drawn[:, p : length - q]
    frame = torch.arange(1, gap.shape[1] + 1, device=drawn.device)[:, None]
    if p:
        gap = gap + (before[:, -1:] - drawn[:, p - 1 : p]) * _fade(frame, gap.shape[1], drawn)
    if q:
        gap = gap + (after[:, :1] - drawn[:, length - q : length - q + 1]) * _fade(frame, gap.shape[1], drawn).flip(0)
    return torch.cat([before, gap, after], dim=1)


def _fade(frame: Tensor, gap: int, like: Tensor) -> Tensor:
    """1 at a known frame to 0, [gap, M]; over the whole gap at most, so that it is 0 where the other side is known."""
    lengths = torch.full((like.shape[-1],), float(FACE_FADE), device=like.device)
    lengths[: len(POSE)] = POSE_FADE
    return (1 + torch.cos(torch.pi * (frame / lengths.clamp(max=gap + 1)).clamp(max=1))) / 2


def _windows(start: int, stop: int, total: int, window: int) -> list[tuple[int, int]]:
    """The gap in pieces that fit the model's window with their known frames; the last one meets what follows."""
    behind = min(OVERLAP, total - stop)
    largest = window - OVERLAP - behind
    count = max(0, -(-(stop - start - largest) // (window - OVERLAP)))
    lead = stop - start - largest if count else 0
    edges = [start + lead * i // count for i in range(count)] if count else []
    edges += [start + lead, stop]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _ramp(a: Tensor, b: Tensor, frames: int) -> Tensor:
    share = torch.arange(1, frames + 1, device=a.device)[:, None] / (frames + 1)
    return torch.lerp(a[None], b[None], share)


def _check_speaks(denoiser: Denoiser, motion: Motion) -> None:
    channels, ours = len(POSE) + motion.facial_dynamics.shape[-1], denoiser.mean.numel()
    if motion.backend != "vasa" or channels != ours:
        raise InputError(
            f"the motion has {channels} channels of the backend {motion.backend!r}, the model draws {ours} of 'vasa'; "
            "use the model that made it"
        )
    if abs(motion.fps - denoiser.config.fps) > 1e-3:
        raise InputError(
            f"the motion has {motion.fps:g} frames per second, the model draws {denoiser.config.fps:g}; "
            "re-time it first"
        )
