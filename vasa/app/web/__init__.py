"""HTML, CSS and JavaScript of the page's own widgets."""

from pathlib import Path


def read_web(name: str) -> str:
    """The text of a file in this folder."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
