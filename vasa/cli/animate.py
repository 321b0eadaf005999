"""`vasa animate`: a portrait and a speech file become a video."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from ..latents import EMOTIONS
from .options import Progress, crop, number, weights_of

MAX_GAZE_DEGREES = 30.0
MAX_STEPS = 1000
GUIDANCE = ("audio", "gaze", "distance", "emotion")


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("animate", help="make a video of a portrait speaking a sound file")
    parser.add_argument("portrait", help="picture of one face (JPEG, PNG, WEBP, AVIF ...)")
    parser.add_argument("speech", help="sound file, or a video whose sound is used")
    parser.add_argument("-o", "--out", type=Path, default=Path("talking.mp4"), help="mp4 to write")
    parser.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    parser.add_argument("--seed", type=number(0, 2**63 - 1, int), default=0, help="same seed, same frames")
    parser.add_argument("--steps", type=number(1, MAX_STEPS, int), help="denoising steps, 1 .. 1000")
    parser.add_argument(
        "--guidance",
        type=weights_of(GUIDANCE, 5.0),
        metavar="NAME=SCALE,...",
        help="0 .. 5 each, e.g. audio=0.5,gaze=1.0",
    )
    angle = number(-MAX_GAZE_DEGREES, MAX_GAZE_DEGREES)
    parser.add_argument(
        "--gaze",
        type=angle,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("YAW", "PITCH"),
        help="degrees, -30 .. 30; positive looks to the picture's left and down",
    )
    parser.add_argument("--distance", type=number(0.5, 2.0), default=1.0, help="head distance, 0.5 .. 2")
    parser.add_argument(
        "--emotion",
        type=weights_of(EMOTIONS, 1.0),
        action="append",
        default=[],
        metavar="NAME=W",
        help=f"0 .. 1 each: {', '.join(EMOTIONS)}",
    )
    parser.add_argument(
        "--crop",
        type=crop,
        default="auto",
        metavar="auto|none|X,Y,SIZE",
        help="square around the head, pixels; write --crop=-5,0,300 for a negative X",
    )
    parser.add_argument("--face", type=number(0, 99, int), default=0, help="which face, 0 = largest")
    parser.add_argument("--fps", type=number(1.0, 60.0), help="frames per second, 1 .. 60 (25)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from ..animate import animate
    from ..controls import Controls

    chosen = {"gaze": tuple(math.radians(angle) for angle in given.gaze), "distance": given.distance}
    chosen["emotion"] = {name: weight for weights in given.emotion for name, weight in weights.items()}
    if given.guidance is not None:
        chosen["guidance"] = given.guidance
    if given.steps is not None:
        chosen["steps"] = given.steps
    with Progress() as progress:
        result = animate(
            given.portrait,
            given.speech,
            given.out,
            model=given.model,
            controls=Controls(seed=given.seed, **chosen),
            crop=given.crop,
            face=given.face,
            fps=given.fps,
            device=given.device,
            precision=given.precision,
            progress=progress,
        )
    for notice in result.notices:
        print(f"vasa: note: {notice}", file=sys.stderr)
    print(f"{result.path}: {result.frames} frames, {result.speed:.1f} FPS reached, seed {result.seed}")
