"""What the page says: status, notices and errors, escaped, since file names come from outside."""

from __future__ import annotations

import re
from html import escape

from .performance import Status

CONSENT = (
    "Animate yourself, somebody who has agreed, or somebody who does not exist. Every video carries an invisible mark "
    "and says in its metadata that it is synthetic."
)
_FOLDERS = re.compile(r"(?<![\w:/])/(?:[^\s/;,]+/)+")
READY = Status("Ready when you are.")


def status_html(status: Status) -> str:
    """A status with its bar and notices."""
    kind = " problem" if status.problem else ""
    notes = "".join(f"<div>{escape(capital(note))}</div>" for note in status.notices)
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{100 * status.share:.0f}">'
        f'<div style="width: {100 * status.share:.0f}%"></div></div>'
        f'<div class="line{kind}" role="status">{escape(status.words)}</div><div class="notes">{notes}</div>'
    )


def sentence(error: Exception) -> str:
    """An error for the page: files by their names alone, since where they lie on the server is nobody's business."""
    return capital(_FOLDERS.sub("", str(error)))


def capital(sentence: str) -> str:
    """A sentence of ours with a capital letter and a full stop."""
    sentence = sentence.strip()
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
