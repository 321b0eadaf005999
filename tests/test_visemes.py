"""Mouth curves from hand-made segments."""

import pytest
import torch

from vasa.errors import InputError
from vasa.latents import EXPRESSIONS
from vasa.synthetic.phones import ARPABET, PHONES, VISEME_OF, VISEMES, Segment, phones_of_ipa, to_segments
from vasa.synthetic.visemes import JAW_OPEN, articulate, close_lips

FPS = 25.0


def say(*timed):
    """Segments from (phone, duration) pairs."""
    segments, start = [], 0.0
    for phone, duration in timed:
        segments.append(Segment(start, start + duration, phone, VISEME_OF[phone]))
        start += duration
    return tuple(segments)


def curve(segments, seed=0, gain=1.2, fps=FPS):
    frames = int(segments[-1].end * fps)
    return articulate(segments, frames, fps, gain, torch.Generator().manual_seed(seed))


def weight(curves, name):
    return curves[:, EXPRESSIONS.index(name)]


def frames_of(segment, fps=FPS):
    return slice(int(segment.start * fps), max(int(segment.end * fps), int(segment.start * fps) + 1))


def test_there_are_23_classes_and_every_phone_has_one():
    assert len(VISEMES) == 23
    assert set(VISEME_OF) == set(PHONES)


def test_diphthong_is_split_sixty_to_forty():
    first, second = to_segments([("ay", 0.1, 0.2)], ARPABET)
    assert (first.phone, second.phone) == ("aa", "ih")
    assert first.end == pytest.approx(0.16) == second.start
    assert second.end == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("ˈaɪ", ("aa", "ih")),
        ("tʃʰ", ("ch",)),
        ("\u00e7", ("xx",)),
        ("ɑ̃ː", ("aa",)),
        ("", ("sil",)),
        ("_:", ("sil",)),
    ],
)
def test_ipa(symbol, expected):
    assert phones_of_ipa(symbol) == expected


def test_unknown_symbols_are_named():
    with pytest.raises(InputError, match="'zz'"):
        to_segments([("zz", 0.0, 0.1)], ARPABET)
    with pytest.raises(InputError, match="ж"):
        phones_of_ipa("ж")


@pytest.mark.parametrize("phone", ["p", "b", "m"])
@pytest.mark.parametrize("duration", [0.045, 0.06, 0.1])
@pytest.mark.parametrize("offset", [0.0, 0.013, 0.027])
def test_lips_meet_in_every_bilabial(phone, duration, offset):
    segments = say(("sil", 0.3 + offset), ("aa", 0.15), (phone, duration), ("aa", 0.15), ("sil", 0.3))
    curves = curve(segments, gain=1.6)
    around = slice(frames_of(segments[2]).start - 1, frames_of(segments[2]).stop + 1)
    # the opening left between the lips, in units of jawOpen
    opening = (weight(curves, "jawOpen") - weight(curves, "mouthClose") / 0.77).clamp_min(0)
    opening = opening + weight(curves, "mouthLowerDown_L") + weight(curves, "mouthUpperUp_L")
    press = weight(curves, "mouthPress_L")
    shut = opening[around] < 0.02
    assert shut.any()
    assert press[around][shut].max() > 0.3
    assert weight(curves, "jawOpen").max() > 0.35


def test_emotion_does_not_part_closed_lips():
    segments = say(("sil", 0.3), ("aa", 0.2), ("m", 0.12), ("aa", 0.2), ("sil", 0.3))
    curves = curve(segments) + 0.3
    closed = close_lips(curves, segments, FPS)
    middle = int(0.56 * FPS)
    assert weight(closed, "mouthUpperUp_L")[middle] < 0.02 < weight(curves, "mouthUpperUp_L")[middle]


def test_jaw_follows_vowel_openness():
    order = ["aa", "eh", "ih", "uw"]
    openness = []
    for vowel in order:
        segments = say(("sil", 0.3), ("t", 0.06), (vowel, 0.25), ("t", 0.06), ("sil", 0.3))
        openness.append(float(weight(curve(segments), "jawOpen")[frames_of(segments[2])].max()))
    assert openness == sorted(openness, reverse=True)
    assert openness[0] > 2 * openness[-1]


def test_jaw_correlates_with_vowels():
    generator = torch.Generator().manual_seed(3)
    consonants, vowels = ["t", "s", "m", "k", "f", "n"], ["aa", "ae", "ao", "eh"]
    pairs = [("sil", 0.3)]
    for _ in range(20):
        pairs.append((consonants[int(torch.randint(6, (1,), generator=generator))], 0.1))
        pairs.append((vowels[int(torch.randint(4, (1,), generator=generator))], 0.15))
    segments = say(*pairs, ("sil", 0.3))
    jaw = curve(segments)[:, JAW_OPEN]
    times = (torch.arange(len(jaw)) + 0.5) / FPS
    vowel = torch.zeros(len(jaw))
    for segment in segments:
        if segment.phone in vowels:
            vowel[(times >= segment.start) & (times < segment.end)] = 1.0
    correlation = torch.corrcoef(torch.stack([jaw, vowel]))[0, 1]
    assert correlation > 0.5
    shifted = torch.corrcoef(torch.stack([jaw[2:], vowel[:-2]]))[0, 1]
    assert shifted < correlation - 0.3


def test_rounding_and_spreading():
    rounded = curve(say(("sil", 0.3), ("uw", 0.3), ("sil", 0.3)))
    spread = curve(say(("sil", 0.3), ("iy", 0.3), ("sil", 0.3)))
    assert weight(rounded, "mouthPucker").max() > 0.6 > 0.1 > weight(spread, "mouthPucker").max()
    assert weight(spread, "mouthStretch_L").max() > 0.3 > 0.1 > weight(rounded, "mouthStretch_L").max()


def test_silence_is_rest():
    segments = say(("sil", 1.5), ("aa", 0.2), ("sil", 1.5))
    curves = curve(segments)
    assert curves[: int(1.1 * FPS)].max() < 0.06
    assert curves[int(2.1 * FPS) :].max() < 0.06
    assert articulate((), 5, FPS, 1.0, torch.Generator()).abs().max() == 0


def test_h_takes_the_shape_of_the_next_vowel():
    segments = say(("sil", 0.4), ("hh", 0.12), ("aa", 0.2), ("sil", 0.4))
    jaw = curve(segments)[:, JAW_OPEN]
    assert jaw[int(0.46 * FPS)] > 0.5 * jaw.max()


def test_gain_scales_and_generator_decides():
    segments = say(("sil", 0.3), ("aa", 0.2), ("s", 0.1), ("eh", 0.2), ("sil", 0.3))
    assert torch.equal(curve(segments, 5), curve(segments, 5))
    assert not torch.equal(curve(segments, 5), curve(segments, 6))
    assert curve(segments, gain=1.5)[:, JAW_OPEN].max() > 1.4 * curve(segments, gain=0.9)[:, JAW_OPEN].max()


def test_frame_rate_does_not_change_the_curve():
    segments = say(("sil", 0.4), ("aa", 0.3), ("iy", 0.3), ("sil", 0.4))
    slow, fast = curve(segments, fps=25.0)[:, JAW_OPEN], curve(segments, fps=50.0)[:, JAW_OPEN]
    pairs = fast[: 2 * len(slow)].view(-1, 2).mean(dim=1)
    assert (pairs - slow).abs().max() < 0.05
