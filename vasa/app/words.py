"""What the page says: status, notices and errors, escaped, since file names come from outside."""

from __future__ import annotations

import re
from html import escape

import torch

from ..errors import InputError
from .performance import Status

CONSENT = (
    "Animate yourself, somebody who has agreed, or somebody who does not exist. Every video carries an invisible mark "
    "and says in its metadata that it is synthetic."
)
_FOLDERS = re.compile(r"(?<![\w:/])/(?:[^\s/;,]+/)+")
PAGE_WORDS = {
    "give its square with --crop X,Y,SIZE, or --crop none if the picture is already cropped to the head": (
        "give its square under Crop, or take the middle of the picture there if it is already cropped to the head"
    ),
    "choose with --face": "choose another under Crop",
    "see them with `vasa crop`": "see them under Crop",
}
"""What the library tells users of its command line, said for this page."""
READY = Status("Ready when you are.")
TROUBLE = (InputError, OSError, torch.OutOfMemoryError)
"""How a run may end through no fault of the program: what was given, the disk, the memory."""


def status_html(status: Status) -> str:
    """A status with its bar and notices."""
    kind = " problem" if status.problem else ""
    notes = "".join(f"<div>{escape(capital(note))}</div>" for note in status.notices)
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{100 * status.share:.0f}">'
        f'<div style="width: {100 * status.share:.0f}%"></div></div>'
        f'<div class="line{kind}" role="status">{escape(status.words)}</div><div class="notes">{notes}</div>'
    )


def live_words(rate: float, delay: float, slow: bool) -> str:
    """How a call in pieces goes, in the words of `web/live.js`."""
    late = ", slower than real time" if slow else ""
    return f"{rate:.0f} frames a second, answers after {1000 * delay:.0f} ms and what the player holds back{late}"


def sentence(error: Exception) -> str:
    """An error for the page: files by their names alone, since where they lie on the server is nobody's business."""
    if isinstance(error, torch.OutOfMemoryError):
        return "The memory of the graphics card does not suffice; try again when it has less to do."
    if isinstance(error, OSError):
        return f"The server cannot use its disk ({error.strerror or error}); make room there, then try again."
    return capital(_FOLDERS.sub("", str(error)))


def bold(error: Exception) -> str:
    """An error as Markdown, in which nothing that came from outside is more than words."""
    return f"**{escape(sentence(error))}**"


def capital(sentence: str) -> str:
    """A sentence of ours for the page, with a capital letter and a full stop."""
    sentence = sentence.strip()
    for theirs, ours in PAGE_WORDS.items():
        sentence = sentence.replace(theirs, ours)
    return f"{sentence[:1].upper()}{sentence[1:]}{'' if sentence.endswith(('.', '!', '?')) else '.'}"


def table_html(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows (subject, finding, remedy, "" | "warn" | "bad") as a table."""
    lines = [
        f'<tr><td>{escape(subject)}</td><td class="{kind}">{escape(finding)}'
        + (f'<span class="remedy">{escape(remedy)}</span>' if remedy else "")
        + "</td></tr>"
        for subject, finding, remedy, kind in rows
    ]
    return f"<table>{''.join(lines)}</table>"
