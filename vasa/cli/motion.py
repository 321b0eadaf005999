"""`vasa render`, `vasa drive` and `vasa motion`: motion that is saved, edited, filmed, and shown on any portrait."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from .options import Progress, add_screen_options, crop, number, screen_options

PARTS = ("head", "gaze", "face", "mouth")


def add(commands: argparse._SubParsersAction) -> None:
    """Register the commands."""
    render = commands.add_parser("render", help="show a saved motion on a portrait")
    render.add_argument("portrait", help="picture of one face")
    render.add_argument("motion", help="file written with --save-motion or `vasa motion`")
    render.add_argument("--audio", help="sound to carry along, a sound or video file")
    _add_video_options(render, "rendered.mp4")
    render.set_defaults(run=_run_render)

    drive = commands.add_parser("drive", help="let the person in a video move a portrait")
    drive.add_argument("portrait", help="picture of one face")
    drive.add_argument("video", help="driving video; its sound is carried over")
    drive.add_argument("--absolute", action="store_true", help="poses as filmed, not movement since the first frame")
    drive.add_argument("--speech", help="sound file to be spoken and heard in place of the video's")
    drive.add_argument(
        "--from-video",
        type=_parts,
        default=("head", "gaze", "face"),
        metavar="PART,...",
        help=f"with --speech, what the video gives: {', '.join(PARTS)} (head,gaze,face)",
    )
    drive.add_argument("--controls", type=Path, help="with --speech, a control timeline in JSON (docs/controls.md)")
    drive.add_argument("--driver-crop", type=crop, default="auto", metavar="auto|none|X,Y,SIZE")
    drive.add_argument("--driver-face", type=number(0, 99, int), default=0, help="which face of the video, 0 = largest")
    drive.add_argument("--save-motion", type=Path, metavar="FILE", help="also keep the motion (.safetensors)")
    _add_video_options(drive, "driven.mp4")
    drive.set_defaults(run=_run_drive)

    motion = commands.add_parser("motion", help="look at, edit, export and redraw saved motion")
    _add_edits(motion.add_subparsers(required=True, metavar="ACTION"))


def _add_video_options(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("-o", "--out", type=Path, default=Path(name), help="mp4 to write")
    parser.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    parser.add_argument("--crop", type=crop, default="auto", metavar="auto|none|X,Y,SIZE")
    parser.add_argument("--face", type=number(0, 99, int), default=0, help="which face of the portrait, 0 = largest")
    add_screen_options(parser)
    parser.add_argument("--fps", type=number(1.0, 60.0), help="frames per second, 1 .. 60 (the motion's)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")


def _add_edits(actions: argparse._SubParsersAction) -> None:
    def action(name: str, what: str, files: tuple[str, ...] = ("motion",), out: bool = True) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=what)
        for file in files:
            parser.add_argument(file, type=Path)
        if out:
            parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
        parser.set_defaults(run=_ACTIONS[name])
        return parser

    overlap = dict(type=number(0, 100_000, int), default=25, help="frames in which both are mixed (25)")
    action("info", "say what a motion file holds", out=False)
    frames = dict(type=_frames, required=True, metavar="START..STOP", help="the second is not included")
    action("cut", "keep a stretch").add_argument("--frames", **frames)
    splice = action("splice", "one motion after the other", ("first", "second"))
    splice.add_argument("--overlap", **overlap)
    _add_drawing(splice, "--bridge", "draw this many new frames between them instead of mixing", speech=True)
    loop = action("loop", "let the end lead into the beginning")
    loop.add_argument("--overlap", **overlap)
    loop.add_argument("--times", type=number(1, 10_000, int), default=1, help="how often it is repeated (1)")
    _add_drawing(loop, "--bridge", "draw this many new frames from the end to the beginning instead of mixing")
    retime = action("retime", "another pace or frame rate")
    retime.add_argument("--speed", type=number(0.1, 10.0), default=1.0, help="2 plays it in half the time")
    retime.add_argument("--fps", type=number(1.0, 240.0))
    smooth = action("smooth", "calm the head; lips and lids stay as they are")
    smooth.add_argument("--seconds", type=number(0.0, 5.0), default=0.12, help="standard deviation in time (0.12)")
    action("swap", "the head of one motion with the face of another", ("pose", "dynamics"))
    action("export", "head and expression curves as .csv or .json, under ARKit's names")
    regenerate = action("regenerate", "draw a stretch anew; what lies around it stays as it is")
    regenerate.add_argument("--frames", **frames)
    _add_drawing(regenerate, None, "", speech=True)


def _add_drawing(parser: argparse.ArgumentParser, flag: str | None, what: str, speech: bool = False) -> None:
    if flag is not None:
        parser.add_argument(flag, type=number(1, 10_000, int), metavar="FRAMES", help=what)
    if speech:
        parser.add_argument("--speech", help="sound of the whole result; default: silence")
    parser.add_argument("--controls", type=Path, help="control timeline in JSON for what is drawn")
    parser.add_argument("--seed", type=number(0, 2**63 - 1, int), help="another seed draws another take")
    parser.add_argument("--steps", type=number(1, 1000, int), help="denoising steps")
    parser.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"expected parts among {', '.join(PARTS)}, got {unknown[0]!r}")
    return parts


def _frames(text: str) -> tuple[int, int]:
    start, dots, stop = text.partition("..")
    if not (dots and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"expected START..STOP in frames, e.g. 120..180, got {text!r}")
    return int(start), int(stop)


def _run_render(given: argparse.Namespace) -> None:
    from ..animate import render

    with Progress() as progress:
        result = render(
            given.portrait, given.motion, given.out, audio=given.audio, progress=progress, **_video_options(given)
        )
    _report(result)


def _run_drive(given: argparse.Namespace) -> None:
    from ..drive import drive

    if given.controls is not None and given.speech is None:
        raise InputError("--controls steers what speech makes; give --speech FILE with it")
    with Progress() as progress:
        result = drive(
            given.portrait,
            given.video,
            given.out,
            relative=not given.absolute,
            speech=given.speech,
            from_video=given.from_video,
            controls=_controls(given),
            driver_crop=given.driver_crop,
            driver_face=given.driver_face,
            save_motion_to=given.save_motion,
            progress=progress,
            **_video_options(given),
        )
    _report(result)


def _video_options(given: argparse.Namespace) -> dict[str, Any]:
    named = {name: getattr(given, name) for name in ("model", "crop", "face", "fps", "device", "precision")}
    return named | screen_options(given)


def _controls(given: argparse.Namespace) -> Any:
    from dataclasses import replace

    from ..controls import Controls

    chosen = {name: getattr(given, name, None) for name in ("seed", "steps")}
    controls = Controls() if given.controls is None else Controls.from_file(given.controls)
    return replace(controls, **{name: value for name, value in chosen.items() if value is not None})


def _report(result: Any) -> None:
    for notice in result.notices:
        print(f"vasa: note: {notice}", file=sys.stderr)
    print(f"{result.path}: {result.frames} frames, {result.speed:.1f} FPS reached")


def _run_info(given: argparse.Namespace) -> None:
    from ..motion_file import read_motion_file

    file = read_motion_file(given.motion)
    motion = file.motion
    low, high = (getattr(motion.head_pose[:, :3], side)(0).rad2deg().tolist() for side in ("amin", "amax"))
    print(f"{given.motion}: {len(motion)} frames, {len(motion) / motion.fps:.2f} s at {motion.fps:g} frames per second")
    print(f"backend {motion.backend}, model {file.model or 'unknown'}, {motion.facial_dynamics.shape[1]} face channels")
    print("movement about a rest pose" if motion.rest is not None else "absolute poses")
    turns = (f"{n} {a:+.1f} .. {b:+.1f}" for n, a, b in zip(("yaw", "pitch", "roll"), low, high, strict=True))
    print(f"head, degrees: {', '.join(turns)}")
    for name, value in file.info.items():
        print(f"{name}: {json.dumps(value)}")


def _run_cut(given: argparse.Namespace) -> None:
    from ..motion.edit import cut

    _edited(given, given.motion, lambda file: cut(file.motion, *given.frames))


def _run_splice(given: argparse.Namespace) -> None:
    from ..motion.edit import splice
    from ..motion_file import read_motion_file

    second = read_motion_file(given.second).motion
    if given.bridge is None:
        _edited(given, given.first, lambda file: splice(file.motion, second, given.overlap, file.names))
        return
    from ..motion.inpaint import bridge

    def joined(file: Any) -> Any:
        models, options = _drawing(given, file)
        return bridge(*models, file.motion, second, given.bridge, _speech(given), **options)

    _edited(given, given.first, joined)


def _run_loop(given: argparse.Namespace) -> None:
    from ..motion.edit import loop
    from ..motion.inpaint import close_loop

    def looped(file: Any) -> Any:
        if given.bridge is None:
            return loop(file.motion, given.overlap, given.times)
        models, options = _drawing(given, file)
        return loop(close_loop(*models, file.motion, given.bridge, **options), 0, given.times)

    _edited(given, given.motion, looped)


def _run_retime(given: argparse.Namespace) -> None:
    from ..motion.edit import retime

    _edited(given, given.motion, lambda file: retime(file.motion, given.fps, speed=given.speed))


def _run_smooth(given: argparse.Namespace) -> None:
    from ..motion.edit import smooth_pose

    _edited(given, given.motion, lambda file: smooth_pose(file.motion, given.seconds))


def _run_swap(given: argparse.Namespace) -> None:
    from ..motion.edit import swap
    from ..motion_file import read_motion_file

    pose = read_motion_file(given.pose).motion
    _edited(given, given.dynamics, lambda file: swap(pose, file.motion, file.names))


def _run_regenerate(given: argparse.Namespace) -> None:
    from ..motion.inpaint import regenerate

    def redrawn(file: Any) -> Any:
        models, options = _drawing(given, file)
        return regenerate(*models, file.motion, *given.frames, _speech(given), **options)

    _edited(given, given.motion, redrawn)


def _run_export(given: argparse.Namespace) -> None:
    from ..io.files import check_writable, replacing
    from ..motion.curves import curves_table
    from ..motion_file import read_motion_file

    check_writable(given.out, (".csv", ".json"))
    file = read_motion_file(given.motion)
    columns, rows = curves_table(file.motion, file.names)
    with replacing(given.out) as partial, open(partial, "w", newline="", encoding="utf-8") as out:
        if given.out.suffix.lower() == ".csv":
            csv.writer(out).writerows([columns, *rows])
        else:
            about = {"fps": file.motion.fps, "relative": file.motion.rest is not None, "columns": columns}
            json.dump(about | {"frames": rows}, out)
    print(f"{given.out}: {len(rows)} frames, {len(columns)} columns")


def _edited(given: argparse.Namespace, path: Path, edit: Any) -> None:
    """Read, change and write a motion; the file remembers what was done to it."""
    from ..io.files import check_writable
    from ..motion_file import SUFFIX, read_motion_file, save_motion

    check_writable(given.out, (SUFFIX,))
    file = read_motion_file(path)
    motion = edit(file)
    action = given.run.__name__.removeprefix("_run_")
    history = file.info.get("history")
    info = file.info | {"history": [*(history if isinstance(history, list) else []), action]}
    save_motion(given.out, motion, names=file.names, model=file.model, **info)
    print(f"{given.out}: {len(motion)} frames, {len(motion) / motion.fps:.2f} s")


def _drawing(given: argparse.Namespace, file: Any) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """The models that draw motion, and what they are asked for."""
    from .. import checkpoint
    from ..device import pick_device

    if (backend := checkpoint.backend_of(given.model)) != "vasa":
        raise InputError(
            f"{given.model} is a model of the backend {backend!r}, whose motion cannot be drawn anew between known "
            "frames; cut and splice it instead, or make it again with another seed"
        )
    models = checkpoint.load(given.model, pick_device(given.device))
    return (models.motion, models.audio), {"controls": _controls(given), "names": file.names}


def _speech(given: argparse.Namespace) -> Any:
    from ..io.audio import load_audio

    return None if given.speech is None else load_audio(given.speech).waveform


_ACTIONS = {
    "info": _run_info,
    "cut": _run_cut,
    "splice": _run_splice,
    "loop": _run_loop,
    "retime": _run_retime,
    "smooth": _run_smooth,
    "swap": _run_swap,
    "export": _run_export,
    "regenerate": _run_regenerate,
}
