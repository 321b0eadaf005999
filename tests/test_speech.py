"""Synthesisers, corpus and voice augmentation; what needs a synthesiser is skipped without it."""

import ctypes
import importlib.util
import math
import shutil
from pathlib import Path

import pytest
import torch

from vasa.errors import InputError
from vasa.synthetic import corpus, speech
from vasa.synthetic.corpus import cut, installed_voices, lengthen_pauses, load_corpus, make_shard
from vasa.synthetic.espeak import EspeakVoice
from vasa.synthetic.phones import VISEME_OF, VOWELS, Segment
from vasa.synthetic.speech import (
    FESTIVAL_OTHER,
    SAMPLE_RATE,
    FestivalVoice,
    FliteVoice,
    Request,
    Speech,
    installed_festival,
)
from vasa.synthetic.text import HELD_OUT, TRAINING, passage, sentence
from vasa.synthetic.voice_augment import (
    augment_voice,
    degrade,
    insert_silence,
    resample,
    scale_times,
    vary_voice,
    warp_formants,
)


def _has_espeak():
    if importlib.util.find_spec("espeakng_loader") is not None:
        return True
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
needs_festival = pytest.mark.skipif(shutil.which("festival") is None, reason="festival is not installed")
needs_espeak = pytest.mark.skipif(not _has_espeak(), reason="espeak-ng is not installed")
TEXT = "Papa took a big apple to the party, but nobody speaks about it."


def segment(start, end, phone):
    return Segment(start, end, phone, VISEME_OF[phone])


def tone(hertz, seconds=1.0):
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def loudest_hertz(waveform):
    return float(torch.fft.rfft(waveform).abs().argmax()) * SAMPLE_RATE / len(waveform)


def check(said, best_within=0.02, follows=0.3):
    """Segments cover the waveform, and its vowels are where it is loud."""
    segments = said.segments
    assert segments[0].start == 0.0
    assert all(a.end == b.start for a, b in zip(segments[:-1], segments[1:], strict=True))
    assert segments[-1].end == pytest.approx(len(said.waveform) / SAMPLE_RATE, abs=1e-3)
    assert said.waveform.abs().max() > 0.05
    blocks = said.waveform.unfold(0, 160, 160).square().mean(dim=1)
    energy = torch.log(blocks + 1e-7)
    vowel = torch.zeros(len(energy))
    for s in segments:
        if s.phone in VOWELS:
            vowel[round(s.start * 100) : round(s.end * 100)] = 1.0
    lags = range(-10, 11)
    found = [torch.corrcoef(torch.stack([vowel.roll(lag), energy]))[0, 1] for lag in lags]
    best = max(range(len(lags)), key=found.__getitem__)
    assert abs(lags[best]) * 0.01 <= best_within
    assert found[10] > follows
    assert [s.phone for s in segments if s.phone in "pb"]


@needs_flite
@pytest.mark.parametrize("name", ["rms", "awb", "kal16", "slt"])
def test_flite(name):
    slow, fast = FliteVoice(name).speak([Request(TEXT, 1.3), Request(TEXT, 0.8)])
    check(slow)
    assert 1.4 < len(slow.waveform) / len(fast.waveform) < 1.8


@needs_festival
def test_festival():
    try:
        said, higher = FestivalVoice("kal").speak([Request(TEXT), Request(TEXT, pitch=1.3)])
    except InputError as error:
        pytest.skip(str(error))
    check(said, best_within=0.03)
    assert not torch.equal(said.waveform, higher.waveform)


@needs_festival
@pytest.mark.parametrize("name", FESTIVAL_OTHER)
def test_festival_in_other_languages(name):
    voice = FestivalVoice(name)
    generator = torch.Generator().manual_seed(3)
    try:
        texts = [Request(passage(voice.language, 8.0, generator)) for _ in range(2)]
        spoken = voice.speak(texts)
    except InputError as error:
        if "install the Debian package" not in str(error):
            raise
        pytest.skip(str(error))
    for said in spoken:
        check(said, best_within=0.03, follows=0.25)


@needs_espeak
def test_espeak():
    said, other = EspeakVoice("en-us", "f3").speak([Request(TEXT), Request(TEXT, 1.3)])
    check(said)
    assert 1.1 < len(other.waveform) / len(said.waveform) < 1.5
    german = EspeakVoice("de").speak([Request("Guten Morgen, Pfeffer und schöne Bücher.")])[0]
    check(german)
    with pytest.raises(InputError, match="xx-none"):
        EspeakVoice("xx-none").speak([Request("hello")])


def test_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="install the Debian package flite"):
        FliteVoice("rms").speak([Request("hello")])
    with pytest.raises(InputError, match="install the Debian package festival"):
        FestivalVoice("kal").speak([Request("hello")])


def test_a_machine_with_few_voices_says_what_it_lacks(monkeypatch, caplog):
    monkeypatch.setattr(speech.shutil, "which", lambda name: "/usr/bin/flite" if name == "flite" else None)
    monkeypatch.setattr("vasa.synthetic.corpus.has_espeak", lambda: False)
    found = installed_voices()
    assert found["flite"] and not found["festival-english"] and not found["festival-other"] and not found["espeak"]
    assert "festival festvox-kallpc16k" in caplog.text and "espeak-ng" in caplog.text
    generator = torch.Generator().manual_seed(0)
    assert {corpus._plan(3.0, False, found, generator).voice.name[:5] for _ in range(20)} == {"flite"}
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="expected a speech synthesiser, found none"):
        installed_voices()


@needs_festival
def test_installed_festival_voices_are_listed():
    listed = installed_festival()
    assert set(listed) <= {*FESTIVAL_OTHER, "kal", "ked", "slt"}
    assert listed or not Path("/usr/share/festival/voices/english/kal_diphone").exists()


def test_held_out_sentences_and_voice_are_apart():
    assert not set(TRAINING) & set(HELD_OUT)
    assert not any("slt" in name for name in (*speech.FLITE_VOICES, *speech.FESTIVAL_ENGLISH))
    generator = torch.Generator().manual_seed(0)
    text = [sentence(generator, held_out) for held_out in (False, True) for _ in range(60)]
    assert not any("{" in t or "}" in t or "_" in t for t in text)
    same = [passage("en-us", 6.0, torch.Generator().manual_seed(4)) for _ in range(2)]
    assert same[0] == same[1] and len(same[0]) >= 66


def test_pauses_grow_with_their_segments():
    waveform = torch.cat([torch.zeros(1600), tone(200, 0.5), torch.zeros(3200), tone(300, 0.5), torch.zeros(1600)])
    segments = (
        segment(0.0, 0.1, "sil"), segment(0.1, 0.6, "aa"), segment(0.6, 0.8, "sil"), segment(0.8, 1.3, "iy"),
        segment(1.3, 1.4, "sil"),
    )  # fmt: skip
    for seed in range(6):
        said = lengthen_pauses(Speech(waveform, segments, "none"), torch.Generator().manual_seed(seed))
        assert said.segments[-1].end == pytest.approx(len(said.waveform) / SAMPLE_RATE, abs=1e-4)
        for s in said.segments:
            middle = said.waveform[int((s.start + 0.01) * SAMPLE_RATE) : int((s.end - 0.01) * SAMPLE_RATE)]
            assert (middle.abs().max() > 0.2) == (s.phone != "sil")
        assert len(cut(said, 0.7).waveform) <= 0.7 * SAMPLE_RATE


@needs_flite
@needs_festival
@needs_espeak
def test_corpus_round_trip(tmp_path, monkeypatch):
    monkeypatch.setattr("vasa.synthetic.corpus._SHARD_HOURS", 0.006)
    mix = {"flite": 0.6, "festival-english": 0.0, "festival-other": 0.0, "espeak": 0.4}
    monkeypatch.setattr("vasa.synthetic.corpus._MIX", mix)
    make_shard(tmp_path / "speech-0000.safetensors", seed=3)
    (tmp_path / "again").mkdir()
    make_shard(tmp_path / "again" / "speech-0000.safetensors", seed=3)
    corpus, again = load_corpus(tmp_path), load_corpus(tmp_path / "again")
    assert corpus.voices == again.voices
    # espeak-ng's noise, and with it where a closure is found, differs from call to call
    exact = [i for i, voice in enumerate(corpus.voices) if voice.startswith("flite")]
    assert exact and all(torch.equal(corpus.utterance(i)[0], again.utterance(i)[0]) for i in exact)
    assert all(corpus.utterance(i)[1] == again.utterance(i)[1] for i in exact)
    assert len(corpus) >= 2 and not any(corpus.validation)
    for index in range(len(corpus)):
        waveform, segments, voice = corpus.utterance(index)
        assert 2.0 < len(waveform) / SAMPLE_RATE <= 12.01
        assert segments[-1].end == pytest.approx(len(waveform) / SAMPLE_RATE, abs=2e-3)
        assert "slt" not in voice and corpus.text(index)


def test_empty_corpus_is_named(tmp_path):
    with pytest.raises(InputError, match="speech shards"):
        load_corpus(tmp_path)


def test_resample_keeps_tones():
    assert loudest_hertz(resample(tone(1000), 0.5)) == pytest.approx(2000, abs=3)
    assert len(resample(tone(1000), 320 / 441)) == round(16000 * 320 / 441)
    slow = resample(tone(440), 1.15)
    assert loudest_hertz(slow) == pytest.approx(440 / 1.15, abs=2)
    # a tone above the new limit disappears instead of folding down
    assert resample(tone(6000), 0.5)[200:-200].abs().max() < 0.02


def test_times_follow_the_waveform():
    segments = (segment(0.0, 0.5, "sil"), segment(0.5, 1.0, "aa"))
    assert scale_times(segments, 1.1)[1].start == pytest.approx(0.55)
    longer, moved = insert_silence(torch.ones(16000), segments, 0.25, 0.4)
    assert len(longer) == 22400 and longer[4000:10400].abs().max() == 0
    assert [s.phone for s in moved] == ["sil", "sil", "sil", "aa"]
    assert moved[-1].start == pytest.approx(0.9) and moved[-1].end == pytest.approx(1.4)


def test_vary_voice_keeps_segments_true():
    waveform = torch.cat([torch.zeros(8000), tone(200, 0.5), torch.zeros(8000)])
    segments = (segment(0.0, 0.5, "sil"), segment(0.5, 1.0, "aa"), segment(1.0, 1.5, "sil"))
    for seed in range(10):
        varied, moved = vary_voice(waveform, segments, torch.Generator().manual_seed(seed))
        vowel = next(s for s in moved if s.phone == "aa")
        inside = varied[int(vowel.start * SAMPLE_RATE) : int(vowel.end * SAMPLE_RATE)].square().sum()
        assert inside > 0.97 * varied.square().sum()
        assert moved[-1].end == pytest.approx(len(varied) / SAMPLE_RATE, abs=2e-3)


def test_formants_move_and_pitch_stays():
    buzz = torch.zeros(16000)
    buzz[::160] = 1.0
    spectrum = torch.fft.rfft(buzz)
    hertz = torch.fft.rfftfreq(16000, 1 / SAMPLE_RATE)
    voiced = torch.fft.irfft(spectrum * torch.exp(-0.5 * ((hertz - 1200) / 300) ** 2), n=16000)

    def centre(waveform):
        power = torch.fft.rfft(waveform).abs().square()
        return float((power * hertz).sum() / power.sum())

    up, down = warp_formants(voiced, 1.15), warp_formants(voiced, 0.87)
    assert centre(down) + 60 < centre(voiced) < centre(up) - 60
    strongest = torch.fft.rfft(up).abs().argmax()
    assert int(strongest) % 100 == 0


def test_degrade_keeps_time_and_varies_rows():
    burst = torch.zeros(4, 16000)
    burst[:, 8000:8800] = tone(500, 0.05)
    heard = degrade(burst, torch.Generator().manual_seed(0))
    assert heard.shape == burst.shape and heard.abs().max() <= 1.0
    assert torch.equal(heard, degrade(burst, torch.Generator().manual_seed(0)))
    assert not torch.allclose(heard[0], heard[1])
    onset = heard.unfold(1, 160, 160).square().mean(dim=2).argmax(dim=1)
    assert ((onset >= 50) & (onset <= 55)).all()
    assert degrade(burst[0], torch.Generator().manual_seed(0)).shape == (16000,)
    assert torch.isfinite(degrade(torch.zeros(2, 8000), torch.Generator().manual_seed(1))).all()


def test_augment_voice_is_decided_by_the_generator():
    segments = (segment(0.0, 0.5, "sil"), segment(0.5, 1.0, "aa"))
    first, second = (augment_voice(tone(200), segments, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and first[1] == second[1]
    assert not torch.allclose(first[0][:8000], tone(200)[:8000])
    assert first[1][-1].end == pytest.approx(len(first[0]) / SAMPLE_RATE, abs=2e-3)
