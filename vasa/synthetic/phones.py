"""Phones of every synthesiser, brought to one inventory and to 23 viseme classes.

Flite and festival's English voices speak ARPAbet, the Italian and Czech voices their own alphabets,
espeak-ng IPA. All of them are rewritten as sequences of `PHONES`, which has no diphthongs: "ay" becomes
"aa" for 60 % of its time and "ih" for the rest, because the mouth is in two places during it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InputError

VISEMES: tuple[str, ...] = (
    "sil", "AA", "AH", "AE", "EH", "IH", "EE", "Y", "AO", "OH", "UH", "ER", "OO", "W", "R",
    "MBP", "FV", "TH", "TDN", "L", "KG", "SZ", "SH",
)  # fmt: skip
"""Mouth shapes; the index is the class label."""

_PHONES_OF_VISEME = {
    "sil": "sil hh q",
    "AA": "aa", "AH": "ah", "AE": "ae", "EH": "eh", "IH": "ih", "EE": "iy", "Y": "y",
    "AO": "ao", "OH": "oh oe", "UH": "uh", "ER": "er", "OO": "uw ue", "W": "w", "R": "r",
    "MBP": "m b p", "FV": "f v", "TH": "th dh", "TDN": "t d n ny rr", "L": "l ly",
    "KG": "k g ng xx", "SZ": "s z ts", "SH": "sh zh ch jh",
}  # fmt: skip

PHONES: tuple[str, ...] = tuple(phone for phones in _PHONES_OF_VISEME.values() for phone in phones.split())
"""The common inventory: ARPAbet without diphthongs, plus oh (closed o), ue and oe (front rounded), rr (tongue
tip), ny and ly (palatals), xx (velar fricative), ts, q (glottal stop) and sil."""

VISEME_OF: dict[str, int] = {
    phone: VISEMES.index(viseme) for viseme, phones in _PHONES_OF_VISEME.items() for phone in phones.split()
}
PHONE_INDEX: dict[str, int] = {phone: index for index, phone in enumerate(PHONES)}
VOWELS = frozenset("aa ah ae eh ih iy ao oh oe uh er uw ue".split())
STOPS = frozenset("p b t d k g".split())

DIPHTHONG_SPLIT = 0.6
"""Share of a diphthong's time that belongs to its first vowel."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech with one mouth target.

    Attributes:
        start, end: seconds from the beginning of the waveform.
        phone: one of `PHONES`.
        viseme: index into `VISEMES`.
    """

    start: float
    end: float
    phone: str
    viseme: int


def _table(pairs: str) -> dict[str, tuple[str, ...]]:
    """Parse "symbol=phone" or "symbol=phone+phone" pairs."""
    return {symbol: tuple(phones.split("+")) for symbol, phones in (pair.split("=") for pair in pairs.split())}


def _same(phones: str) -> dict[str, tuple[str, ...]]:
    return {phone: (phone,) for phone in phones.split()}


ARPABET = _same("aa ah ae eh ih iy ao uh uw er y w r l m b p f v th dh t d n k g ng s z sh zh ch jh hh") | _table(
    "pau=sil h#=sil brth=sil ssil=sil ax=ah axr=er ix=ih dx=d el=l em=m en=n hv=hh "
    "ow=oh+uw aw=aa+uw ay=aa+ih oy=ao+ih ey=eh+ih"
)

ITALIAN = _same("w p t k b d g f s v z ts m n ng l") | _table(
    "#=sil i=iy e=eh E=eh a=aa o=oh O=ao u=uw i1=iy e1=eh E1=eh a1=aa o1=oh O1=ao u1=uw j=y "
    "S=sh Z=zh tS=ch dz=ts dZ=jh J=ny nf=n L=ly r=rr"
)

CZECH = _same("b d f g k l m n p s t v z") | _table(
    "#=sil _=q a=aa a:=aa a::=aa e=eh e:=eh e::=eh i=ih i:=iy i::=iy o=ao o:=oh o::=oh u=uh u:=uw u::=uw "
    "c=ts c~=ch ch=xx d~=d dz=ts dz~=jh h=hh j=y n*=ng n~=ny r=rr r~=zh r~*=sh s~=sh t~=t z~=zh"
)

FINNISH = _same("b d f g k l m n p s t v w") | _table(
    "#=sil ##=sil a=aa e=eh i=iy o=oh u=uw y=ue @=ae &=ae 7=oe h=hh j=y r=rr N=ng L=ly T=th D=dh S=sh Z=zh z=z"
)
FINNISH |= {f"{symbol}:": phones for symbol, phones in FINNISH.items() if "#" not in symbol}
"""The colon means length, of vowels and consonants."""

INDIC = _same("aa ih iy uh uw eh oh f k g ch n p b m y l v s sh zh w") | _table(
    "pau=sil a=ah ee=eh oo=oh @=ae ay=aa+ih aw=aa+uw T=t td=t tth=t th=t D=d ddh=d dh=d N=n L=l r=rr R=rr "
    "j=jh h=hh kh=k gh=g bh=b x=k+s ksh=k+sh sri=sh+rr+iy"
)
"""Hindi, Marathi and Telugu; th and dh are dental stops here."""

RUSSIAN = _same("p b t d k g f v s z m n l sh zh ch") | _table(
    "pau=sil ii=iy yy=ih uu=uw ee=eh oo=ao aa=aa a=ah e=eh i=ih y=ih u=uh ae=eh ay=ih ur=uh pp=p bb=b tt=t dd=d "
    "kk=k gg=g c=ts ff=f vv=v ss=s zz=z sch=sh h=xx hh=xx mm=m nn=ny ll=ly r=rr rr=rr j=y"
)

CATALAN = _same("b d f g k l m n p s t w z") | _table(
    "pau=sil _=sil #=sil ax=ah a=aa a1=aa e=eh e1=eh E=eh E1=eh i=iy i1=iy o=oh o1=oh O=ao O1=ao u=uw u1=uw "
    "j=y J=ny L=ly r=rr rr=rr S=sh Z=zh"
)

_IPA = _same("b d f h k l m n p s t v w z") | _table(
    "h=hh ɦ=hh ħ=hh ʔ=q ʕ=q ʡ=q "
    "a=aa ɑ=aa ɒ=ao ɐ=ah ʌ=ah ə=ah ɘ=ah ɜ=er ɝ=er ɚ=er ɵ=uh ɞ=er æ=ae ɛ=eh e=eh ɪ=ih ɨ=ih ᵻ=ih ɿ=ih ʅ=ih "
    "i=iy ɔ=ao o=oh ɤ=ah ʊ=uh ᵿ=uh u=uw ʉ=uw ɯ=ih y=ue ʏ=ue ø=oe œ=oe ɶ=oe "
    "j=y ʝ=y ɥ=w ʍ=w ɰ=w ɹ=r ɻ=r ɽ=rr ɾ=rr r=rr ʀ=xx ʁ=xx ɭ=l ɫ=l ɬ=l ɮ=l ʎ=ly ʟ=l ɺ=l "
    "ɓ=b ʙ=b β=v ɸ=f ʋ=v ⱱ=v ɱ=m θ=th ð=dh ɗ=d ɖ=d ʈ=t ɳ=n ɲ=ny ŋ=ng ɴ=ng "
    "c=k ɟ=g ɡ=g g=g ɠ=g q=k ɢ=g ʛ=g x=xx χ=xx ɣ=xx ʃ=sh ʒ=zh ʂ=sh ʐ=zh ɕ=sh ʑ=zh "
    "tʃ=ch dʒ=jh tɕ=ch dʑ=jh ʈʂ=ch ɖʐ=jh tʂ=ch dʐ=jh ts=ts dz=ts ʦ=ts ʣ=ts ʧ=ch ʤ=jh ʨ=ch ʥ=jh pf=p+f"
)


def phones_of_ipa(symbol: str) -> tuple[str, ...]:
    """Rewrite one espeak-ng phoneme name in the common inventory.

    Stress, length, tone and secondary articulation are dropped; the longest known symbols are taken.

    Args:
        symbol: IPA, for example "aɪ" or "tʃʰ"; an empty string or one without letters is a pause.

    Raises:
        InputError: the symbol holds a letter this table lacks.
    """
    # decomposition would turn this one letter into a c with a dropped mark
    decomposed = unicodedata.normalize("NFD", symbol.replace("\u00e7", "x"))
    plain = "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Lm"))
    letters = "".join(c for c in plain if c.isalpha())
    found: list[str] = []
    position = 0
    while position < len(letters):
        for length in (2, 1):
            phones = _IPA.get(letters[position : position + length])
            if phones:
                found += phones
                position += length
                break
        else:
            raise InputError(
                f"expected a known IPA letter, got {letters[position]!r} in {symbol!r}; add it to the table"
            )
    return tuple(found) or ("sil",)


def to_segments(timed: Iterable[tuple[str, float, float]], table: dict[str, tuple[str, ...]]) -> tuple[Segment, ...]:
    """Segments in the common inventory from a synthesiser's own phones.

    Args:
        timed: (symbol, start, end) in seconds, in order.
        table: `ARPABET`, `ITALIAN` or `CZECH`.

    Raises:
        InputError: a symbol is not in the table.
    """
    segments: list[Segment] = []
    for symbol, start, end in timed:
        if symbol not in table:
            raise InputError(f"expected a phone of this voice's alphabet, got {symbol!r}; add it to the table")
        segments += split_phones(table[symbol], start, end)
    return tuple(segments)


def split_phones(phones: tuple[str, ...], start: float, end: float) -> list[Segment]:
    """Share [start, end) among a symbol's phones, 60 % for the first of two; nothing if it is empty."""
    if end <= start:
        return []
    if len(phones) == 2:
        cuts = [start, start + DIPHTHONG_SPLIT * (end - start), end]
    else:
        cuts = [start + (end - start) * i / len(phones) for i in range(len(phones))] + [end]
    return [Segment(a, b, p, VISEME_OF[p]) for a, b, p in zip(cuts[:-1], cuts[1:], phones, strict=True)]
