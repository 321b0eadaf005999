"""The boxes that every tab has for a portrait and for speech."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .hints import hinted


def picture_input(**given: Any) -> gr.Image:
    """`gr.Image` whose function gets the file's path, undecoded.

    Gradio would decode the file first, and what it cannot read would end in a sentence of its own instead of ours.
    """
    widget = gr.Image(type="filepath", **given)
    widget.preprocess = lambda payload: None if payload is None else payload.path
    return hinted(widget, "portrait")


def speech_input(**given: Any) -> gr.Audio:
    """A box for a sound file or one's own voice."""
    return hinted(gr.Audio(type="filepath", label="Speech", sources=["upload", "microphone"], **given), "speech")
