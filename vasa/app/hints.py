"""What appears when the pointer rests on a control: one line about it, and the paper's term for it."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

import gradio as gr

HINTS: dict[str, str] = {
    # what goes in and comes out
    "portrait": "One picture of one person, best from the front (the paper's source image).",
    "speech": "What the portrait says: any sound file, or your own voice (the audio clip; features A).",
    "preview": "Yellow: faces and their numbers; click one to choose it. Green: the square that the model gets.",
    "video": "Plays while it is made.",
    "animate": "Make the video; it starts to play within a second or two.",
    "stop": "Stop; what was made so far is kept.",
    "save-video": "The finished mp4 with its sound.",
    "save-motion": "The motion: head and face over time, to be edited or shown on another portrait (motion latents X).",
    "json": "All controls as text, for the command line, ComfyUI and programs.",
    "json-write": "Write the text from the controls of this page.",
    "json-read": "Set the controls of this page from the text.",
    "timeline": "Controls over time (condition signals that change within a clip).",
    # controls
    "preset": "Sets some of the controls below to values that go well together.",
    "gaze": "Drag the dot, or move it with the arrow keys (main gaze direction g = (θ, φ)).",
    "emotion": "Emotion offset e: which one.",
    "weight": "Emotion offset e: how much of it.",
    "distance": "Head-to-camera distance d.",
    "amplitude": "Head pose z_pose: how far it strays from where it rests.",
    "expression": "Facial dynamics z_dyn beside the mouth.",
    "mouth": "Facial dynamics z_dyn of jaw and lips.",
    "yaw": "Head pose z_pose: yaw, an offset.",
    "pitch": "Head pose z_pose: pitch, an offset.",
    "roll": "Head pose z_pose: roll, an offset.",
    "natural_blinks": "Facial dynamics z_dyn of the lids, as generated.",
    "blink_rate": "Facial dynamics z_dyn of the lids, at a rate of your own.",
    "blink_at": "Facial dynamics z_dyn of the lids, at instants of your own.",
    "guide_audio": "Classifier-free guidance scale λ_A of the audio (Eq. 2).",
    "guide_gaze": "Classifier-free guidance scale λ_g of the gaze (Eq. 2).",
    "guide_distance": "Classifier-free guidance scale λ_d of the head distance (Eq. 2).",
    "guide_emotion": "Classifier-free guidance scale λ_e of the emotion offset (Eq. 2).",
    "steps": "Denoising steps of the diffusion sampler; the paper takes 50.",
    "sampler": "How the diffusion steps are taken: DDIM, or DPM-Solver++.",
    "seed": "The noise from which the diffusion starts.",
    # the other tabs
    "take": "Copy it from the tab Animate.",
    "still": "The portrait with the sliders applied, drawn at once (source face, z_pose and z_dyn by hand).",
    "prepare": "Read the portrait; after that, Start begins the call.",
    "live": "The portrait says what you say.",
    "microphone": "Your voice; it is not stored.",
    "motion": "A motion file saved on this page, or a video whose motion is read (driving video).",
    "second": "The other one, for splicing and swapping.",
    "sound": "Put under the result; nothing if the video stays silent.",
    "render": "Draw the motion on the portrait at the top (decode z_pose, z_dyn).",
    "result": "The motion on the portrait; it can be saved from its corner.",
    "end": "Stop; nothing is kept.",
    "motion-file": "A motion file saved on this page: its curves, and how well the lips follow the speech.",
    "any-video": "Looks for our invisible mark, our metadata and a C2PA signature.",
    "look": "Report on everything that is given here.",
    "seen": "What the detector sees in the portrait.",
    "plot": "Head, eyes and mouth over time; the loudness of the speech behind the mouth.",
    "own-workflow": "A file saved from ComfyUI with “Export (API)”.",
    "driver": "The person in it moves the portrait (driving video).",
    "overrides": 'Inputs of the nodes to replace, by name, or by number and name: {"5.steps": 10}.',
    "run": "Run the workflow with these inputs.",
    "results": "Everything that the workflow saved.",
    "nodes": "The nodes and their inputs.",
}

SCRIPT = """<script>
{ const hints = %HINTS%;
  document.addEventListener('mouseover', event => {
    const box = event.target.closest('[class*="hint-"]');
    if (!box || box.title) return;
    const name = [...box.classList].find(c => c.startsWith('hint-'));
    box.title = hints[name.slice(5)] || '';
  }); }
</script>""".replace("%HINTS%", json.dumps(HINTS).replace("<", "\\u003c"))
"""For the head of the page. Widgets are drawn late and anew, so their titles are set when they are pointed at."""


def hinted(widget: Any, name: str) -> Any:
    """The widget, with the hint of that name.

    Raises:
        KeyError: no such hint.
    """
    if name not in HINTS:
        raise KeyError(name)
    widget.elem_classes = [*(widget.elem_classes or []), f"hint-{name}"]
    return widget


def line(name: str) -> gr.HTML:
    """The hint of that name as a small line where the caller is, for those who have no pointer to rest anywhere; the
    paper's term, in parentheses at its end, stays in the tooltip.
    """
    plain = re.sub(r" \(.*\)\.$", ".", HINTS[name])
    return gr.HTML(f"<p>{escape(plain)}</p>", padding=False, elem_classes="vasa-line")


def told(widget: Any, name: str) -> Any:
    """The widget with its hint, and the hint's line below it."""
    hinted(widget, name), line(name)
    return widget
