"""`vasa animate`: a portrait and a speech file become a video."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..latents import EMOTIONS
from .options import Progress, add_screen_options, crop, number, screen_options, weights_of

if TYPE_CHECKING:
    from ..controls import Controls
    from ..repeat import Recipe

MAX_STEPS = 1000
GUIDANCE = ("audio", "gaze", "distance", "emotion")


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("animate", help="make a video of a portrait speaking a sound file")
    parser.add_argument("portrait", help="picture of one face (JPEG, PNG, WEBP, AVIF ...)")
    parser.add_argument("speech", help="sound file, or a video whose sound is used")
    parser.add_argument("-o", "--out", type=Path, default=Path("talking.mp4"), help="mp4 to write")
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="vasa-mini, or a folder of your own")
    parser.add_argument("--controls", type=Path, metavar="FILE", help="control timeline, JSON; other flags override it")
    parser.add_argument(
        "--like", type=Path, metavar="VIDEO", help="controls, seed, model, crop and fps of a video made by vasa"
    )
    parser.add_argument("--seed", type=number(0, 2**63 - 1, int), help="same seed, same frames (0)")
    parser.add_argument("--steps", type=number(1, MAX_STEPS, int), help="denoising steps, 1 .. 1000 (25)")
    parser.add_argument("--sampler", choices=("ddim", "dpm++"), help="dpm++ comes closer in few steps (ddim)")
    parser.add_argument(
        "--guidance",
        type=weights_of(GUIDANCE, 5.0),
        metavar="NAME=SCALE,...",
        help="0 .. 5 each, e.g. audio=0.2,gaze=1.0",
    )
    _add_controls(parser)
    parser.add_argument(
        "--crop",
        type=crop,
        metavar="auto|none|X,Y,SIZE",
        help="square around the head, pixels; write --crop=-5,0,300 for a negative X",
    )
    parser.add_argument("--face", type=number(0, 99, int), help="which face, 0 = largest (see vasa crop)")
    add_screen_options(parser)
    parser.add_argument("--save-motion", type=Path, metavar="FILE", help="also keep the motion (.safetensors)")
    parser.add_argument(
        "--continue-motion", type=Path, metavar="FILE", help="go on from this motion (.safetensors) without a jump"
    )
    parser.add_argument("--fps", type=number(1.0, 60.0), help="frames per second, 1 .. 60 (25)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.set_defaults(run=run)


def _add_controls(parser: argparse.ArgumentParser) -> None:
    """Flags for constant values of what a control timeline can also say over time."""
    angle = number(-30.0, 30.0)
    parser.add_argument(
        "--gaze",
        type=angle,
        nargs=2,
        metavar=("YAW", "PITCH"),
        help="degrees, -30 .. 30; positive looks to the picture's left and down (0 0)",
    )
    parser.add_argument("--distance", type=number(0.5, 2.0), help="head distance, 0.5 .. 2 (1)")
    parser.add_argument(
        "--emotion",
        type=weights_of(EMOTIONS, 1.0),
        action="append",
        metavar="NAME=W",
        help=f"0 .. 1 each: {', '.join(EMOTIONS)}",
    )
    parser.add_argument(
        "--head-pose",
        type=angle,
        nargs=3,
        metavar=("YAW", "PITCH", "ROLL"),
        help="turn added to the head, degrees: -30 .. 30, -20 .. 20, -20 .. 20 (0 0 0)",
    )
    factor = number(0.0, 2.0)
    parser.add_argument("--head-motion", type=factor, metavar="FACTOR", help="head movement, 0 still .. 2 (1)")
    parser.add_argument(
        "--blink-rate", type=number(0.0, 60.0), metavar="PER_MINUTE", help="blinks a minute, 0 .. 60 (as generated)"
    )
    parser.add_argument("--expression", type=factor, metavar="FACTOR", help="brows, cheeks and lids, 0 .. 2 (1)")
    parser.add_argument("--mouth", type=factor, metavar="FACTOR", help="movement of the mouth, 0 .. 2 (1)")


def run(given: argparse.Namespace) -> None:
    from ..animate import animate
    from ..repeat import recipe_of

    recipe = None if given.like is None else recipe_of(given.like)
    controls = _controls(given, recipe)
    if recipe is not None and recipe.continues and given.continue_motion is None:
        raise InputError(f"{given.like} went on from a motion; name that one with --continue-motion to make it again")

    def chosen(name: str, usual: object) -> object:
        value = getattr(given, name)
        return value if value is not None else usual if recipe is None else getattr(recipe, name)

    with Progress() as progress:
        result = animate(
            given.portrait,
            given.speech,
            given.out,
            model=chosen("model", "vasa-mini"),
            controls=controls,
            crop=chosen("crop", "auto"),
            face=chosen("face", 0),
            fps=chosen("fps", None),
            device=given.device,
            precision=given.precision,
            save_motion_to=given.save_motion,
            previous=given.continue_motion,
            progress=progress,
            **screen_options(given),
        )
    for notice in result.notices:
        print(f"vasa: note: {notice}", file=sys.stderr)
    print(f"{result.path}: {result.frames} frames, {result.speed:.1f} FPS reached, seed {result.seed}")


def _controls(given: argparse.Namespace, recipe: Recipe | None) -> Controls:
    """A file's controls, those of an earlier video or the usual ones, with what the flags change."""
    from dataclasses import replace

    from ..controls import Blink, Controls, HeadPose

    controls = Controls() if recipe is None else recipe.controls
    if given.controls is not None:
        controls = Controls.from_file(given.controls)
    changes = {
        name: value
        for name in ("seed", "steps", "sampler", "guidance", "distance", "expression", "mouth")
        if (value := getattr(given, name)) is not None
    }
    if given.gaze is not None:
        changes["gaze"] = tuple(math.radians(angle) for angle in given.gaze)
    if given.emotion is not None:
        changes["emotion"] = {name: weight for weights in given.emotion for name, weight in weights.items()}
    offset, amplitude = controls.head_pose.offset, controls.head_pose.amplitude
    if given.head_pose is not None:
        offset = tuple(math.radians(angle) for angle in given.head_pose)
    if given.head_motion is not None:
        amplitude = given.head_motion
    changes["head_pose"] = HeadPose(offset, amplitude)
    if given.blink_rate is not None:
        changes["blink"] = Blink(given.blink_rate, controls.blink.at)
    return replace(controls, **changes)
