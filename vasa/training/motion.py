"""Trains the motion generator on windows of synthetic behaviour; no picture is rendered.

With a supervised dynamics code the labels of the behaviour model are the motion latents, so windows cost
milliseconds: utterance -> sound features (as at inference) and several performances of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..audio import AudioEncoder
from ..config import VasaConfig
from ..latents import DYNAMICS
from ..motion.conditions import Conditions, random_empty
from ..motion.diffusion import add_noise
from ..motion.plan import WindowPlan
from ..motion.transformer import Denoiser
from ..motion.windows import sound_of
from ..synthetic.behaviour import behave
from ..synthetic.corpus import Corpus, load_corpus
from ..synthetic.phones import VISEME_OF, Segment
from ..synthetic.prosody import prosody
from ..synthetic.voice_augment import augment_voice
from .audio import AudioTrainee
from .loop import TimeBox, Trainer, load_matching

_UNHEARD = 0.3
"""Weight of frames whose sound is not known yet. They are drawn beside the others, which see what they show: left
untrained, they opened mouths in a live stream's pauses (docs/log.md)."""


@dataclass(frozen=True)
class MotionWindows:
    """Training windows, K previous and W current frames each.

    Attributes:
        motion: physical units, [N, K + W, M].
        sound: audio features, [N, K + W, A]; 0 for frames not heard yet.
        heard: of how many of the W frames the sound is known, [N].
        gaze: [N, K + W, 2] radians.
        distance: natural logarithm, [N, K + W, 1].
        emotion: [N, 8].
    """

    motion: Tensor
    sound: Tensor
    heard: Tensor
    gaze: Tensor
    distance: Tensor
    emotion: Tensor

    def __len__(self) -> int:
        return self.motion.shape[0]


def make_windows(
    corpus: Corpus, encoder: AudioEncoder, config: VasaConfig, count: int, generator: torch.Generator,
    *, performances: int = 4, augmented: bool = True,
) -> MotionWindows:  # fmt: skip
    """Draw `count` windows: utterances, a few windows of each, several performances of each utterance."""
    k, w, fps = config.motion.num_previous, config.motion.window, config.motion.fps
    plan = WindowPlan.full(w)
    device = next(encoder.parameters()).device
    made: list[tuple[Tensor, ...]] = []
    with tqdm(total=count, unit="window", desc="windows", mininterval=10) as bar:
        while len(made) < count:
            waveform, segments, _ = corpus.utterance(int(torch.randint(len(corpus), (1,), generator=generator)))
            if augmented:
                waveform, segments = augment_voice(waveform, segments, generator)
            waveform, segments = with_silence(waveform, segments, (k + w // 2) / fps, generator)
            frames = int(waveform.shape[0] / config.audio.sample_rate * fps)
            starts = torch.randint(k, frames - w + 1, (3,), generator=generator).tolist()
            ends = _heard(len(starts), w, generator)
            with torch.inference_mode():
                # the last frames of a stream are encoded without what follows them, as they will be in use
                sounds = [
                    sound_of(encoder, waveform.to(device), s - k, k + w, plan.context, fps, None if e == w else k + e)
                    for s, e in zip(starts, ends.tolist(), strict=True)
                ]
            before, said = len(made), prosody(waveform)
            for _ in range(performances):
                acted = behave(waveform, segments, generator, fps=fps, said=said)
                motion = torch.cat([acted.head_pose, acted.dynamics], dim=-1)
                for start, sound, end in zip(starts, sounds, ends, strict=True):
                    rows = slice(start - k, start + w)
                    curves = (acted.gaze[rows], acted.distance[rows].log(), acted.emotion)
                    made.append((motion[rows].half(), sound[0].half().cpu(), end, *curves))
            bar.update(len(made) - before)
    columns = zip(*made[:count], strict=True)
    return MotionWindows(*(torch.stack(c) for c in columns))


def with_silence(
    waveform: Tensor, segments: tuple[Segment, ...], seconds: float, generator: torch.Generator
) -> tuple[Tensor, tuple[Segment, ...]]:
    """Silence of `seconds` to twice that before and after an utterance, so that idling is learned too."""
    before, after = (seconds * (1 + torch.rand(2, generator=generator))).tolist()
    padded = F.pad(waveform, (round(before * 16_000), round(after * 16_000)))
    moved = tuple(replace(s, start=s.start + before, end=s.end + before) for s in segments)
    end = moved[-1].end
    return padded, (
        Segment(0.0, before, "sil", VISEME_OF["sil"]), *moved, Segment(end, end + after, "sil", VISEME_OF["sil"]),
    )  # fmt: skip


def set_statistics(denoiser: Denoiser, windows: MotionWindows) -> None:
    """Fill the denoiser's normalisation from training windows.

    The floor keeps channels that hardly move (cheeks, shrugs) from being blown up to unit variance.
    """
    flat = windows.motion.float().flatten(0, 1)
    floor = torch.full_like(flat[0], 0.03)
    floor[:6] = 0.01
    denoiser.mean.copy_(flat.mean(0))
    denoiser.std.copy_(torch.maximum(flat.std(0), floor))
    denoiser.low.copy_(flat.amin(0) - 0.02)
    denoiser.high.copy_(flat.amax(0) + 0.02)


def motion_loss(x_0: Tensor, target: Tensor, previous: Tensor, heard: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Loss on a window (VASA-1, Eq. 1, with velocity terms, docs/paper.md).

    Args:
        x_0: prediction, [B, L, M].
        target: clean normalised motion, [B, L, M].
        previous: clean normalised frames before, [B, K, M].
        heard: how much each frame counts, [B, L].
        weights: per channel, [M].
    """
    mask = heard[..., None] * weights
    norm = mask.sum()

    def mean(error: Tensor, share: Tensor) -> Tensor:
        return (error.square() * share).sum() / norm

    with_past = torch.cat([previous[:, -1:], x_0], dim=1)
    true_past = torch.cat([previous[:, -1:], target], dim=1)
    velocity = with_past.diff(dim=1) - true_past.diff(dim=1)
    acceleration = x_0.diff(n=2, dim=1) - target.diff(n=2, dim=1)
    return {
        "x_0": mean(x_0 - target, mask),
        "velocity": mean(velocity, mask),
        "acceleration": mean(acceleration, mask[:, 2:]) * 0.5,
        "seam": mean((x_0 - target)[:, :3], mask[:, :3]) * 0.5,
    }


def channel_weights(motion_dim: int) -> Tensor:
    """Pose counts double; mouth, lids and gaze triple."""
    weights = torch.ones(motion_dim)
    weights[:6] = 2.0
    for i, name in enumerate(DYNAMICS):
        if name.startswith(("jaw", "mouth", "eyeBlink", "eyeYaw", "eyePitch")):
            weights[6 + i] = 2.0
        if name in ("jawOpen", "mouthPress_L", "mouthPress_R", "mouthPucker", "mouthFunnel"):
            weights[6 + i] = 3.0
    return weights


def train_motion(
    data: str | Path, out: str | Path, box: TimeBox, config: VasaConfig, audio: str | Path, *, seed: int = 0,
    batch_size: int = 64, count: int = 40_000, resume: str | Path | None = None, validation: str | Path | None = None,
) -> None:  # fmt: skip
    """Train the motion generator.

    Args:
        data: corpus folder.
        out: folder for weights and scores.
        box: time box (making the windows comes on top).
        config: which model.
        audio: weights written by `train_audio`.
        seed: initial weights and batches.
        batch_size: windows per step.
        count: windows to draw.
        resume: weights to start from.
        validation: corpus of an unheard voice.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    trainee = AudioTrainee(config)
    load_matching(trainee, Path(audio) / "weights.safetensors")
    encoder = trainee.encoder.eval()
    windows = make_windows(load_corpus(data), encoder, config, count, generator)
    held_out = None
    if validation:
        heard, few = load_corpus(validation), min(count, 384)
        held_out = make_windows(heard, encoder, config, few, generator, performances=1, augmented=False)
    denoiser = Denoiser(config.motion, config.motion_dim, encoder.feature_dim)
    set_statistics(denoiser, windows)
    trainer = Trainer(denoiser, out, box, resume)
    device = trainer.accelerator.device
    weights = channel_weights(config.motion_dim).to(device)

    def step(index: int) -> dict[str, Tensor]:
        rows = torch.randint(len(windows), (batch_size,), generator=generator)
        losses = _step(trainer.raw, trainer.model, windows, rows, generator, weights, trainer.accelerator, device)
        trainer.descend(sum(losses.values()))
        return losses

    scorer = Denoiser(config.motion, config.motion_dim, encoder.feature_dim).to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        if held_out is None:
            return {}
        averaged = trainer.with_average(scorer)
        fixed = torch.Generator().manual_seed(7)
        rows = torch.arange(len(held_out))
        with torch.inference_mode():
            losses = _step(averaged, averaged, held_out, rows, fixed, weights, trainer.accelerator, device)
        return {f"val_{k}": v.item() for k, v in losses.items()}

    trainer.run(step, panel)


def _step(raw, model, windows, rows, generator, weights, accelerator, device) -> dict[str, Tensor]:
    k = raw.config.num_previous
    batch = MotionWindows(*(getattr(windows, f.name)[rows].to(device).float() for f in fields(MotionWindows)))
    b, length = batch.motion.shape[0], batch.motion.shape[1] - k
    motion = raw.normalise(batch.motion)
    # a little noise on the past keeps errors from growing over many windows
    past = motion[:, :k] + torch.randn(b, k, motion.shape[-1], generator=generator).to(device) * 0.05
    heard = (torch.arange(length, device=device) < batch.heard[:, None]).float()
    conditions = Conditions(
        audio=batch.sound[:, k:],
        heard=heard,
        gaze=batch.gaze[:, k:],
        distance=batch.distance[:, k:],
        emotion=batch.emotion[:, None].expand(-1, length, -1),
        previous_motion=past,
        previous_audio=batch.sound[:, :k],
        empty={name: mask.to(device) for name, mask in random_empty(b, generator).items()},
    )
    t = torch.randint(raw.config.diffusion_steps, (b,), generator=generator)
    noise = torch.randn(b, length, motion.shape[-1], generator=generator).to(device)
    x_t = add_noise(motion[:, k:], t.to(device), noise, raw.config.diffusion_steps)
    with accelerator.autocast():
        x_0 = model(x_t, t.to(device), conditions)
    return motion_loss(x_0, motion[:, k:], motion[:, :k], heard + _UNHEARD * (1 - heard), weights)


def _heard(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Frames heard, [count]: in two of five windows not all, few more often than many (streaming, the paper's drop)."""
    few = 5 * (length / 5) ** torch.rand(count, generator=generator)
    cut = torch.rand(count, generator=generator) < 0.4
    return torch.where(cut, few, torch.full_like(few, length)).round().long()
