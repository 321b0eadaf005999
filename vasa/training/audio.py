"""Trains the small Wav2Vec2 of `vasa-mini` on synthetic speech with exact phone times.

Per frame it names the viseme and gives the mouth curves that articulation would make of it; both heads are thrown
away afterwards, the hidden states are the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import AudioEncoder
from ..config import VasaConfig
from ..latents import EXPRESSIONS
from ..synthetic.corpus import Corpus, load_corpus
from ..synthetic.phones import VISEMES, Segment
from ..synthetic.visemes import articulate
from ..synthetic.voice_augment import augment_voice
from .loop import TimeBox, Trainer

RATE = 16_000
FPS = 25
MOUTH = [i for i, name in enumerate(EXPRESSIONS) if name.startswith(("jaw", "mouth"))]


@dataclass(frozen=True)
class SpeechBatch:
    """Stretches of speech.

    Attributes:
        waveform: [B, N], 16 kHz.
        viseme: class per 20 ms, [B, 2T].
        mouth: mouth curves per video frame, [B, T, len(MOUTH)].
    """

    waveform: Tensor
    viseme: Tensor
    mouth: Tensor


class AudioTrainee(nn.Module):
    """The encoder with the heads it is trained through."""

    def __init__(self, config: VasaConfig) -> None:
        super().__init__()
        self.encoder = AudioEncoder(config.audio)
        self.viseme = nn.Linear(self.encoder.feature_dim, len(VISEMES))
        self.mouth = nn.Linear(self.encoder.feature_dim, len(MOUTH))

    def forward(self, waveform: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """Viseme logits at twice the frame rate and mouth curves at the frame rate."""
        fine = self.encoder(waveform, 2 * num_frames)
        return self.viseme(fine).float(), self.mouth(F.avg_pool1d(fine.transpose(1, 2), 2).transpose(1, 2)).float()


def viseme_track(segments: tuple[Segment, ...], start: float, count: int, rate: float) -> Tensor:
    """Viseme class at `count` instants (middles of 1 / rate seconds) from `start` on, silence outside; [count]."""
    times = start + (torch.arange(count) + 0.5) / rate
    ends = torch.tensor([s.end for s in segments])
    classes = torch.tensor([*(s.viseme for s in segments), 0])
    track = classes[torch.searchsorted(ends, times, right=True)]
    return torch.where(times < segments[0].start, torch.zeros_like(track), track)


def speech_batch(
    corpus: Corpus, batch_size: int, frames: int, generator: torch.Generator, augmented: bool
) -> SpeechBatch:
    """Random stretches of `frames` video frames, four of each utterance; utterances may begin or end inside."""
    stretches: list[tuple[Tensor, Tensor, Tensor]] = []
    while len(stretches) < batch_size:
        waveform, segments, _ = corpus.utterance(int(torch.randint(len(corpus), (1,), generator=generator)))
        if augmented:
            waveform, segments = augment_voice(waveform, segments, generator)
        curves = articulate(segments, round(waveform.shape[0] / RATE * FPS) + 1, FPS, 1.0, generator)[:, MOUTH]
        stretches += [_stretch(waveform, segments, curves, frames, generator) for _ in range(4)]
    return SpeechBatch(*(torch.stack(column) for column in zip(*stretches[:batch_size], strict=True)))


def _stretch(
    waveform: Tensor, segments: tuple[Segment, ...], curves: Tensor, frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    hop = RATE // FPS
    room = waveform.shape[0] // hop - frames
    # frame-aligned, so that labels and sound agree
    first = int(torch.randint(min(0, room) - frames // 8, max(0, room) + frames // 8, (1,), generator=generator))
    piece = waveform[max(first, 0) * hop : max(first + frames, 0) * hop]
    piece = F.pad(piece, (max(0, -first) * hop, 0))
    piece = F.pad(piece, (0, frames * hop - piece.shape[0]))
    index = first + torch.arange(frames)
    inside = ((index >= 0) & (index < curves.shape[0])).float()[:, None]
    mouth = curves[index.clamp(0, curves.shape[0] - 1)] * inside
    return piece, viseme_track(segments, first / FPS, 2 * frames, 2 * FPS), mouth


def train_audio(
    data: str | Path, out: str | Path, box: TimeBox, config: VasaConfig, *, seed: int = 0, batch_size: int = 16,
    frames: int = 80, resume: str | Path | None = None, validation: str | Path | None = None,
) -> None:  # fmt: skip
    """Train the audio encoder.

    Args:
        data: corpus folder.
        out: folder for weights and scores.
        box: time box.
        config: which model.
        seed: initial weights and batches.
        batch_size, frames: stretches per step and their length in video frames.
        resume: weights to start from.
        validation: corpus of an unheard voice and unheard sentences.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    corpus = load_corpus(data)
    held_out = load_corpus(validation) if validation else None
    model = AudioTrainee(config)
    trainer = Trainer(model, out, box, resume)
    device = trainer.accelerator.device
    spread = torch.full((len(MOUTH),), 0.1, device=device)

    def step(index: int) -> dict[str, Tensor]:
        batch = speech_batch(corpus, batch_size, frames, generator, augmented=True)
        with trainer.accelerator.autocast():
            viseme, mouth = trainer.model(batch.waveform.to(device), frames)
        losses = {
            "viseme": F.cross_entropy(viseme.flatten(0, 1), batch.viseme.flatten().to(device), label_smoothing=0.05),
            "mouth": F.smooth_l1_loss(mouth / spread, batch.mouth.to(device) / spread, beta=1.0) * 2,
        }
        trainer.descend(sum(losses.values()))
        return losses

    scorer = AudioTrainee(config).to(device)

    def panel(trainer: Trainer) -> dict[str, float]:
        return score_audio(trainer.with_average(scorer), held_out, frames) if held_out else {}

    trainer.run(step, panel)


def score_audio(model: AudioTrainee, corpus: Corpus, frames: int = 80) -> dict[str, float]:
    """Frame accuracy of visemes, recall and precision of p/b/m, correlation of the jaw curve; unheard voice."""
    generator = torch.Generator().manual_seed(5)
    batch = speech_batch(corpus, 48, frames, generator, augmented=False)
    device = next(model.parameters()).device
    with torch.inference_mode():
        viseme, mouth = model(batch.waveform.to(device), frames)
    guess, truth = viseme.argmax(-1).cpu(), batch.viseme
    spoken = truth != 0
    lips = VISEMES.index("MBP")
    hits = ((guess == lips) & (truth == lips)).sum()
    jaw = MOUTH.index(EXPRESSIONS.index("jawOpen"))
    pair = torch.stack([mouth[..., jaw].cpu().flatten(), batch.mouth[..., jaw].flatten()])
    return {
        "val_viseme_accuracy": (guess == truth)[spoken].float().mean().item(),
        "val_silence_accuracy": (guess == truth)[~spoken].float().mean().item(),
        "val_mbp_recall": (hits / (truth == lips).sum().clamp_min(1)).item(),
        "val_mbp_precision": (hits / (guess == lips).sum().clamp_min(1)).item(),
        "val_jaw_r": torch.corrcoef(pair)[0, 1].item(),
    }
