"""Pictures from the page as the files that were uploaded."""

from __future__ import annotations

from typing import Any

import gradio as gr


def picture_input(**given: Any) -> gr.Image:
    """`gr.Image` whose function gets the file's path, undecoded.

    Gradio would decode the file first, and what it cannot read would end in a sentence of its own instead of ours.
    """
    widget = gr.Image(type="filepath", **given)
    widget.preprocess = lambda payload: None if payload is None else payload.path
    return widget
