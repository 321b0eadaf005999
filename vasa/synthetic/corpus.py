"""A corpus of synthetic speech: make it once, read it fast.

    python -m vasa.synthetic.corpus OUT_DIR --hours 8 --seed 0
    python -m vasa.synthetic.corpus OUT_DIR --hours 0.5 --seed 1 --split validation

A folder holds shards of a quarter of an hour, each a safetensors file; making a longer corpus with the same
seed continues an interrupted or shorter one. Validation speaks held-out sentences with the held-out voice.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shutil
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from ..errors import InputError
from .chance import choose, uniform
from .espeak import ESPEAK_VARIANTS, EspeakVoice, has_espeak
from .phones import PHONE_INDEX, PHONES, VISEMES, Segment
from .speech import (
    FESTIVAL_ENGLISH,
    FESTIVAL_OTHER,
    FLITE_VOICES,
    SAMPLE_RATE,
    VALIDATION_VOICES,
    FestivalVoice,
    FliteVoice,
    Request,
    Speech,
    festival_package,
    installed_festival,
)
from .text import FOREIGN, passage

_SHARD_HOURS = 0.25
_MIX = {"flite": 0.32, "festival-english": 0.18, "festival-other": 0.30, "espeak": 0.20}
_SECONDS = (4.0, 12.0)
_ESPEAK_ENGLISH = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """One utterance of a corpus.

    Attributes:
        waveform: [N] float32 in [-1, 1], 16 kHz.
        segments: phones and visemes, covering the waveform.
        voice: name such as "flite-rms".
        text: what is said.
    """

    waveform: Tensor
    segments: tuple[Segment, ...]
    voice: str
    text: str


@dataclass(frozen=True)
class _Plan:
    voice: FliteVoice | FestivalVoice | EspeakVoice
    request: Request


def lengthen_pauses(speech: Speech, generator: Generator) -> Speech:
    """Insert silence into half of the pauses, a long one into 4 %, and always some before and after."""
    pieces: list[Tensor] = []
    segments: list[Segment] = []
    shift = 0.0
    last = len(speech.segments) - 1
    for index, segment in enumerate(speech.segments):
        extra = 0.0
        if segment.phone == "sil":
            draw, length = torch.rand(2, generator=generator).tolist()
            if index in (0, last):
                extra = 0.8 * length**2
            elif draw < 0.5:
                extra = (1.2 if draw < 0.04 else 0.45) * length
        count = round(extra * SAMPLE_RATE)
        extra = count / SAMPLE_RATE
        begin, end = round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE)
        middle = end if index == last else begin if index == 0 else (begin + end) // 2
        pieces += [speech.waveform[begin:middle], torch.zeros(count), speech.waveform[middle:end]]
        segments.append(replace(segment, start=segment.start + shift, end=segment.end + shift + extra))
        shift += extra
    return Speech(torch.cat(pieces), tuple(segments), speech.voice)


def cut(speech: Speech, seconds: float) -> Speech:
    """Drop everything after the last phone that ends before `seconds`."""
    kept = tuple(s for s in speech.segments if s.end <= seconds)
    return Speech(speech.waveform[: round(kept[-1].end * SAMPLE_RATE)], kept, speech.voice)


def installed_voices() -> dict[str, tuple[str, ...]]:
    """The training voices at hand, by synthesiser; what is missing is said, with the Debian package that brings it.

    Raises:
        InputError: there is none at all.
    """
    found: dict[str, tuple[str, ...]] = {"flite": FLITE_VOICES if shutil.which("flite") else ()}
    festival = installed_festival()
    found["festival-english"] = tuple(name for name in FESTIVAL_ENGLISH if name in festival)
    found["festival-other"] = tuple(name for name in FESTIVAL_OTHER if name in festival)
    found["espeak"] = ("espeak",) if has_espeak() else ()
    missing = [] if found["flite"] else ["flite"]
    missing += [] if shutil.which("festival") else ["festival"]
    missing += [festival_package(name) for name in (*FESTIVAL_ENGLISH, *FESTIVAL_OTHER) if name not in festival]
    missing += [] if found["espeak"] else ["espeak-ng"]
    if not any(found.values()):
        raise InputError(
            "expected a speech synthesiser, found none; install flite, festival or espeakng-loader, the more voices "
            "the better the training speech"
        )
    if missing:
        _log.warning("fewer voices, for these Debian packages are missing: %s", " ".join(dict.fromkeys(missing)))
    return found


def make_shard(
    path: Path, seed: int, validation: bool = False, voices: dict[str, tuple[str, ...]] | None = None
) -> None:
    """Synthesise a quarter of an hour of utterances into one safetensors file.

    Args:
        path: the file.
        seed: of voices, texts and prosody.
        validation: held-out sentences by the held-out speaker.
        voices: of `installed_voices`, which is asked without them.

    Raises:
        InputError: a synthesiser is missing.
    """
    if voices is None:
        voices = {} if validation else installed_voices()
    generator = Generator().manual_seed(seed)
    plans: list[_Plan] = []
    planned = 0.0
    while planned < _SHARD_HOURS * 3600:
        seconds = uniform(*_SECONDS, generator)
        plans.append(_plan(seconds, validation, voices, generator))
        planned += seconds
    utterances = []
    for number, (plan, speech) in enumerate(_speak(plans)):
        # draws of their own: how many one utterance takes must not change the next
        generator = Generator().manual_seed(1_000 * seed + number)
        speech = cut(lengthen_pauses(speech, generator), _SECONDS[1])
        peak = float(speech.waveform.abs().max())
        if peak < 1e-3 or len(speech.segments) < 4:
            _log.warning("dropped a silent utterance of %s: %s", speech.voice, plan.request.text)
            continue
        level = uniform(0.25, 0.9, generator) / peak
        utterances.append(Utterance(speech.waveform * level, speech.segments, speech.voice, plan.request.text))
    _save(path, utterances, validation)


def make_corpus(folder: Path, hours: float, seed: int, validation: bool = False, workers: int = 1) -> None:
    """Make the shards of `folder` that are still missing."""
    folder.mkdir(parents=True, exist_ok=True)
    voices = {} if validation else installed_voices()
    jobs = []
    for index in range(round(hours / _SHARD_HOURS)):
        path = folder / f"speech-{index:04d}.safetensors"
        if not path.exists():
            jobs.append((path, 100_000 * seed + index, validation, voices))
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            pool.starmap(make_shard, jobs, chunksize=1)
    else:
        for job in jobs:
            make_shard(*job)
            _log.info("made %s", job[0])


class Corpus:
    """Random access to the utterances of a folder of shards.

    Attributes:
        voices: name of every utterance's voice.
        seconds: length of every utterance.
        validation: whether every utterance is a held-out sentence.
    """

    def __init__(self, shards: list[Path]) -> None:
        self.voices: list[str] = []
        self.seconds: list[float] = []
        self.validation: list[bool] = []
        self._index: list[tuple[int, int]] = []
        self._files = [safe_open(str(path), framework="pt") for path in shards]
        self._tables: list[dict[str, Tensor]] = []
        self._texts: list[list[str]] = []
        for number, file in enumerate(self._files):
            table = {name: file.get_tensor(name) for name in file.keys() if name != "audio"}  # noqa: SIM118
            notes = file.metadata()
            names, split = json.loads(notes["voices"]), notes["split"]
            lengths = table["audio_offset"].diff() / SAMPLE_RATE
            self._tables.append(table)
            self._texts.append(json.loads(notes["texts"]))
            for row in range(len(lengths)):
                self._index.append((number, row))
                self.voices.append(names[int(table["voice"][row])])
                self.seconds.append(float(lengths[row]))
                self.validation.append(split == "validation")

    def __len__(self) -> int:
        return len(self._index)

    def utterance(self, index: int) -> tuple[Tensor, tuple[Segment, ...], str]:
        """(waveform [N] float32, segments, voice name) of one utterance."""
        number, row = self._index[index]
        table = self._tables[number]
        begin, end = table["audio_offset"][row : row + 2].tolist()
        waveform = self._files[number].get_slice("audio")[begin:end].float() / 32768.0
        first, last = table["segment_offset"][row : row + 2].tolist()
        times = table["segment_times"][first:last].tolist()
        phones = table["segment_phone"][first:last].tolist()
        visemes = table["segment_viseme"][first:last].tolist()
        segments = tuple(
            Segment(start, stop, PHONES[phone], viseme)
            for (start, stop), phone, viseme in zip(times, phones, visemes, strict=True)
        )
        return waveform, segments, self.voices[index]

    def text(self, index: int) -> str:
        """What an utterance says."""
        number, row = self._index[index]
        return self._texts[number][row]


def load_corpus(folder: str | Path) -> Corpus:
    """Open a corpus made by `make_corpus`.

    Raises:
        InputError: the folder holds no shards.
    """
    shards = sorted(Path(folder).glob("speech-*.safetensors"))
    if not shards:
        raise InputError(
            f"expected speech shards in {folder}, found none; run python -m vasa.synthetic.corpus {folder}"
        )
    return Corpus(shards)


def _plan(seconds: float, validation: bool, voices: dict[str, tuple[str, ...]], generator: Generator) -> _Plan:
    """Draw voice, text and prosody of one utterance."""
    stretch = uniform(0.75, 1.35, generator)
    pitch = uniform(0.7, 1.3, generator)
    if validation:
        name = choose(VALIDATION_VOICES, generator)
        voice = FliteVoice("slt") if name == "flite-slt" else FestivalVoice("slt")
        stretch, pitch = uniform(0.85, 1.2, generator), 1.0
    else:
        shares = torch.tensor([share if voices[kind] else 0.0 for kind, share in _MIX.items()])
        kind = list(_MIX)[int(torch.multinomial(shares, 1, generator=generator))]
        if kind == "flite":
            voice = FliteVoice(choose(voices[kind], generator))
        elif kind.startswith("festival"):
            voice = FestivalVoice(choose(voices[kind], generator))
        else:
            language = choose((*_ESPEAK_ENGLISH, *FOREIGN), generator)
            voice = EspeakVoice(language, choose(ESPEAK_VARIANTS, generator))
    text = passage(voice.language, seconds / stretch, generator, held_out=validation)
    return _Plan(voice, Request(text, stretch, pitch))


def _speak(plans: list[_Plan]) -> list[tuple[_Plan, Speech]]:
    """Synthesise all plans, each voice's together (festival loads a voice once per process)."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, plan in enumerate(plans):
        groups[plan.voice.name].append(index)
    spoken: dict[int, Speech] = {}
    for indices in groups.values():
        voice = plans[indices[0]].voice
        try:
            spoken.update(zip(indices, voice.speak([plans[i].request for i in indices]), strict=True))
        except InputError:
            spoken.update(_speak_one_by_one(plans, indices))
    return [(plans[index], spoken[index]) for index in sorted(spoken)]


def _speak_one_by_one(plans: list[_Plan], indices: list[int]) -> dict[int, Speech]:
    """Leave out the texts a voice cannot read: festival crashes on a few.

    Raises:
        InputError: the voice reads none of several texts, so it is the voice that is at fault.
    """
    spoken: dict[int, Speech] = {}
    for index in indices:
        try:
            spoken[index] = plans[index].voice.speak([plans[index].request])[0]
        except InputError as error:
            _log.warning("dropped %r: %s", plans[index].request.text, error)
            if index == indices[-1] and not spoken and len(indices) > 1:
                raise
    return spoken


def _save(path: Path, utterances: list[Utterance], validation: bool) -> None:
    """Write a shard under a temporary name and rename it, so that a killed run leaves no broken shard."""
    voices = sorted({u.voice for u in utterances})
    segments = [s for u in utterances for s in u.segments]
    zero = torch.zeros(1, dtype=torch.int64)
    tensors = {
        "audio": torch.cat([(u.waveform.clamp(-1, 1) * 32767).round().to(torch.int16) for u in utterances]),
        "audio_offset": torch.cat([zero, torch.tensor([len(u.waveform) for u in utterances]).cumsum(0)]),
        "segment_times": torch.tensor([(s.start, s.end) for s in segments], dtype=torch.float32),
        "segment_phone": torch.tensor([PHONE_INDEX[s.phone] for s in segments], dtype=torch.uint8),
        "segment_viseme": torch.tensor([s.viseme for s in segments], dtype=torch.uint8),
        "segment_offset": torch.cat([zero, torch.tensor([len(u.segments) for u in utterances]).cumsum(0)]),
        "voice": torch.tensor([voices.index(u.voice) for u in utterances], dtype=torch.int32),
    }
    notes = {
        "voices": json.dumps(voices),
        "texts": json.dumps([u.text for u in utterances]),
        "phones": json.dumps(PHONES),
        "visemes": json.dumps(VISEMES),
        "split": "validation" if validation else "train",
    }
    temporary = path.with_suffix(".partial")
    save_file(tensors, str(temporary), metadata=notes)
    temporary.replace(path)


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description="Synthesise a corpus of speech with exact phone times.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_corpus(given.folder, given.hours, given.seed, given.split == "validation", given.workers)


if __name__ == "__main__":
    main()
