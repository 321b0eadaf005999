"""The command line: `vasa animate portrait.png speech.wav -o talking.mp4`, and the rest of the workshop.

Every failure the user can cause ends in one sentence on stderr and exit code 2, Ctrl-C in 130; VASA_DEBUG=1
shows the traceback. The work of each command lives elsewhere and is imported when it runs.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from .config import CONFIGS
from .errors import InputError
from .latents import EMOTIONS

MAX_GAZE_DEGREES = 30.0
MAX_STEPS = 1000
FACE_LOSSES = (
    "image", "painted", "flow", "mask", "encoders", "perceptual", "pair", "identity", "canonical",
)  # fmt: skip
GUIDANCE = ("audio", "gaze", "distance", "emotion")
INPUT_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; default those of the process.

    Returns:
        Exit code: 0 done, 2 something the user can mend, 130 interrupted.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", INTERRUPTED)
    except (InputError, OSError) as error:
        if os.environ.get("VASA_DEBUG") == "1":
            raise
        return _fail(str(error) if isinstance(error, InputError) else _sentence(error), INPUT_ERROR)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _fail(sentence: str, code: int) -> int:
    print(f"vasa: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the free space"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def _number(low: float, high: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """An argparse type: a number within [low, high]; NaN is outside of every range."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            whole = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"expected a {whole} between {low:g} and {high:g}, got {text!r}")
        return value

    return parse


def _weights(names: Sequence[str], high: float) -> Callable[[str], dict[str, float]]:
    """An argparse type: NAME=VALUE[,NAME=VALUE...] with known names and values in [0, high]."""
    value_of = _number(0.0, high)
    known = ", ".join(names)

    def parse(text: str) -> dict[str, float]:
        weights = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if name.strip() not in names or not equals:
                raise argparse.ArgumentTypeError(f"expected NAME=VALUE, NAME one of {known}, got {part!r}")
            weights[name.strip()] = value_of(value)
        return weights

    return parse


def _crop(text: str) -> str | tuple[float, float, float]:
    if text in ("auto", "none"):
        return text
    try:
        x, y, size = (float(part) for part in text.split(","))
    except ValueError:
        x = y = size = math.nan
    if not (math.isfinite(x + y + size) and size > 0):
        raise argparse.ArgumentTypeError(f"expected auto, none or X,Y,SIZE in pixels, got {text!r}")
    return x, y, size


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vasa", description="One portrait and a speech clip become a talking-face video.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_animate(commands.add_parser("animate", help="make a video of a portrait speaking a sound file"))
    doctor = commands.add_parser("doctor", help="report device, kernels, versions and weights")
    doctor.set_defaults(run=_run_doctor)
    _add_synth(commands.add_parser("synth", help="render training people, make training speech"))
    _add_train(commands.add_parser("train", help="train a part of the model"))
    export = commands.add_parser("export", help="gather training runs into a model folder")
    for part in ("face", "audio", "motion", "reader"):
        export.add_argument(f"--{part}", type=Path, required=part != "reader", metavar="RUN")
    export.add_argument("--config", choices=tuple(CONFIGS), default="vasa-mini")
    export.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    export.set_defaults(run=_run_export)
    evaluate = commands.add_parser("evaluate", help="measure a model and write docs/results.md")
    evaluate.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    evaluate.add_argument("--data", type=Path, help="shards of people never trained on (default: rendered now)")
    evaluate.add_argument("--corpus", type=Path, help="speech corpus of a voice never trained on")
    evaluate.add_argument("--portraits", type=Path, help="folder of real pictures")
    evaluate.add_argument("--speech", type=Path, help="folder of real speech")
    evaluate.add_argument("--assets", type=Path, help="asset pack for rendering (VASA_ASSETS)")
    evaluate.add_argument("--people", type=_number(4, 10_000, int), help="how many people")
    evaluate.add_argument("--clips", type=_number(2, 10_000, int), help="how many clips of speech")
    evaluate.add_argument("--quick", action="store_true", help="smaller sizes, a few minutes on two CPU cores")
    evaluate.add_argument("--sheet", type=Path, help="contact sheet of the real pictures at ±20° yaw")
    evaluate.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    evaluate.add_argument("-o", "--out", type=Path, default=Path("docs/results.md"))
    evaluate.set_defaults(run=_run_evaluate)
    return parser


def _add_animate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("portrait", help="picture of one face (JPEG, PNG, WEBP, AVIF ...)")
    parser.add_argument("speech", help="sound file, or a video whose sound is used")
    parser.add_argument("-o", "--out", type=Path, default=Path("talking.mp4"), help="mp4 to write")
    parser.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    parser.add_argument("--seed", type=_number(0, 2**63 - 1, int), default=0, help="same seed, same frames")
    parser.add_argument("--steps", type=_number(1, MAX_STEPS, int), help="denoising steps, 1 .. 1000")
    parser.add_argument(
        "--guidance",
        type=_weights(GUIDANCE, 5.0),
        metavar="NAME=SCALE,...",
        help="0 .. 5 each, e.g. audio=0.5,gaze=1.0",
    )
    angle = _number(-MAX_GAZE_DEGREES, MAX_GAZE_DEGREES)
    parser.add_argument(
        "--gaze",
        type=angle,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("YAW", "PITCH"),
        help="degrees, -30 .. 30; positive looks to the picture's left and down",
    )
    parser.add_argument("--distance", type=_number(0.5, 2.0), default=1.0, help="head distance, 0.5 .. 2")
    parser.add_argument(
        "--emotion",
        type=_weights(EMOTIONS, 1.0),
        action="append",
        default=[],
        metavar="NAME=W",
        help=f"0 .. 1 each: {', '.join(EMOTIONS)}",
    )
    parser.add_argument(
        "--crop",
        type=_crop,
        default="auto",
        metavar="auto|none|X,Y,SIZE",
        help="square around the head, pixels; write --crop=-5,0,300 for a negative X",
    )
    parser.add_argument("--face", type=_number(0, 99, int), default=0, help="which face, 0 = largest")
    parser.add_argument("--fps", type=_number(1.0, 60.0), help="frames per second, 1 .. 60 (25)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.set_defaults(run=_run_animate)


def _add_synth(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    preview = kinds.add_parser("preview", help="contact sheet of rendered people")
    preview.add_argument("-o", "--out", type=Path, default=Path("people.png"))
    preview.add_argument("--people", type=_number(1, 1000, int), default=24)
    preview.set_defaults(run=_run_synth_preview)
    render = kinds.add_parser("render", help="shards of labelled stills for training")
    render.add_argument("out", type=Path, metavar="FOLDER")
    render.add_argument("--people", type=_number(1, 10**7, int), default=1000)
    render.add_argument("--frames", type=_number(2, 1000, int), default=8, help="stills of each person")
    render.add_argument("--split", choices=("train", "test"), default="train")
    render.add_argument("--device", default="auto")
    render.set_defaults(run=_run_synth_render)
    for kind in (preview, render):
        kind.add_argument("--size", type=_number(32, 2048, int), default=256, help="edge of the pictures, pixels")
        kind.add_argument("--assets", type=Path, help="asset pack folder (default: environment VASA_ASSETS)")
        kind.add_argument("--seed", type=_number(0, 2**31 - 1, int), default=0)
    pack = kinds.add_parser("pack", help="build the asset pack from the upstream repositories' folders")
    pack.add_argument("--ict", type=Path, required=True, help="folder of ICT-FaceKit")
    pack.add_argument("--makehuman", type=Path, required=True, help="folder of MakeHuman's assets")
    pack.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    pack.set_defaults(run=_run_synth_pack)
    speech = kinds.add_parser("speech", help="speech with exact phone times")
    speech.add_argument("out", type=Path, metavar="FOLDER")
    speech.add_argument("--hours", type=_number(0.01, 10_000), default=8.0)
    speech.add_argument("--seed", type=_number(0, 2**31 - 1, int), default=0)
    speech.add_argument("--split", choices=("train", "validation"), default="train")
    speech.add_argument("--workers", type=_number(1, 256, int), default=1)
    speech.set_defaults(run=_run_synth_speech)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(required=True, metavar="PART")
    for part, what in (
        ("reader", "face reader: pose, landmarks, expression from a crop"),
        ("encoders", "head pose and dynamics encoders, which the face model then keeps"),
        ("face", "face encoder, warps and decoder"),
        ("audio", "speech encoder"),
        ("motion", "motion generator"),
    ):
        trainer = parts.add_parser(part, help=what)
        trainer.add_argument("--data", type=Path, required=True, help="folder written by `vasa synth`")
        trainer.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
        trainer.add_argument("--validation", type=Path, help="data never trained on, for scores and panels")
        trainer.add_argument("--max-minutes", type=_number(0.01, 1e6), default=60.0, help="time box (60)")
        trainer.add_argument("--save-minutes", type=_number(0.01, 1e6), default=4.0, help="between checkpoints (4)")
        trainer.add_argument("--learning-rate", type=_number(1e-8, 1.0), default=4e-4)
        trainer.add_argument("--batch-size", type=_number(1, 65536, int))
        trainer.add_argument("--seed", type=_number(0, 2**31 - 1, int), default=0)
        trainer.add_argument("--resume", type=Path, help="weights to start from")
        if part != "reader":
            trainer.add_argument("--config", choices=tuple(CONFIGS), default="vasa-mini")
        if part == "face":
            trainer.add_argument("--size", type=_number(32, 1024, int), help="train at this edge, pixels")
            trainer.add_argument("--encoders", type=Path, help="folder written by `vasa train encoders`")
            trainer.add_argument("--reader", type=Path, help="face reader that serves the losses")
            trainer.add_argument(
                "--weights",
                type=_weights(FACE_LOSSES, 1000.0),
                default={},
                metavar="NAME=W,...",
                help=f"loss weights: {', '.join(FACE_LOSSES)}",
            )
        if part == "motion":
            trainer.add_argument("--audio", type=Path, required=True, help="folder written by `vasa train audio`")
        trainer.set_defaults(run=_run_train, part=part)


def _run_animate(given: argparse.Namespace) -> None:
    from .animate import animate
    from .controls import Controls

    chosen = {"gaze": tuple(math.radians(angle) for angle in given.gaze), "distance": given.distance}
    chosen["emotion"] = {name: weight for weights in given.emotion for name, weight in weights.items()}
    if given.guidance is not None:
        chosen["guidance"] = given.guidance
    if given.steps is not None:
        chosen["steps"] = given.steps
    with _Progress() as progress:
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


class _Progress:
    """One line on a terminal: denoising steps first, then frames."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._stage:
            self.__exit__()
            self._stage, self._done = stage, 0
            unit = " frames" if stage == "frames" else " steps"
            # disable=None: silent where nobody watches, such as a pipe
            self._bar = tqdm(total=total, desc=stage, unit=unit, leave=False, disable=None, dynamic_ncols=True)
        self._bar.update(done - self._done)
        self._done = done


def _run_doctor(given: argparse.Namespace) -> None:
    from .doctor import report

    rows = report()
    width = max(len(subject) for subject, _ in rows)
    for subject, finding in rows:
        print(f"{subject:<{width}}  {finding}")


def _run_synth_preview(given: argparse.Namespace) -> None:
    from .io.files import check_writable
    from .synthetic.preview import write_preview

    check_writable(given.out, (".png", ".jpg"))
    write_preview(given.out, people=given.people, size=given.size, seed=given.seed, assets=given.assets)
    print(given.out)


def _run_synth_render(given: argparse.Namespace) -> None:
    from .synthetic.dataset import render_shards

    render_shards(
        given.out,
        people=given.people,
        frames=given.frames,
        size=given.size,
        seed=given.seed,
        split=given.split,
        assets=given.assets,
        device=given.device,
        report=print,
    )
    print(given.out)


def _run_synth_pack(given: argparse.Namespace) -> None:
    from .synthetic.pack import build_pack

    build_pack(given.ict, given.makehuman, given.out)
    print(given.out)


def _run_synth_speech(given: argparse.Namespace) -> None:
    from .synthetic.corpus import make_corpus

    make_corpus(given.out, given.hours, given.seed, given.split == "validation", given.workers)
    print(given.out)


def _run_train(given: argparse.Namespace) -> None:
    from .training.loop import TimeBox

    for folder in filter(None, (given.data, given.validation, given.resume)):
        if not folder.exists():
            raise InputError(f"{folder} does not exist; make it with `vasa synth` or `vasa train`")
    box = TimeBox(given.max_minutes, given.save_minutes, given.learning_rate)
    options = {"seed": given.seed, "resume": given.resume, "validation": given.validation}
    if given.batch_size is not None:
        options["batch_size"] = given.batch_size
    if given.part == "reader":
        from .training.reader import train_reader

        train_reader(given.data, given.out, box, **options)
    elif given.part == "face":
        from .training.face import FaceLossWeights, train_face

        options |= {"size": given.size, "encoders": given.encoders, "reader": given.reader}
        weights = FaceLossWeights(**given.weights)
        train_face(given.data, given.out, box, CONFIGS[given.config], weights=weights, **options)
    elif given.part == "encoders":
        from .training.encoders import train_encoders

        train_encoders(given.data, given.out, box, CONFIGS[given.config], **options)
    elif given.part == "audio":
        from .training.audio import train_audio

        train_audio(given.data, given.out, box, CONFIGS[given.config], **options)
    else:
        from .training.motion import train_motion

        train_motion(given.data, given.out, box, CONFIGS[given.config], given.audio, **options)


def _run_evaluate(given: argparse.Namespace) -> None:
    from .metrics.evaluate import evaluate

    names = ("data", "corpus", "portraits", "speech", "assets", "people", "clips", "quick", "sheet", "device")
    with _Progress() as progress:
        rows = evaluate(given.model, given.out, progress=progress, **{name: getattr(given, name) for name in names})
    for row in rows:
        print(row)
    print(given.out)


def _run_export(given: argparse.Namespace) -> None:
    from .training.export import export

    export(
        given.out,
        CONFIGS[given.config],
        face=given.face,
        audio=given.audio,
        motion=given.motion,
        reader=given.reader,
    )
    print(given.out)
