"""`vasa train` and `vasa export`: parts of a model, and the model from its parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import CONFIGS
from ..errors import InputError
from .options import number, weights_of

FACE_LOSSES = (
    "image", "painted", "flow", "landmarks", "mask", "background", "light", "encoders", "perceptual", "pair",
    "identity", "canonical", "adversarial", "matching", "regions", "texture", "expression", "head",
)  # fmt: skip


def add(commands: argparse._SubParsersAction) -> None:
    """Register the commands."""
    parser = commands.add_parser("train", help="train a part of the model")
    parts = parser.add_subparsers(required=True, metavar="PART")
    for part, what in (
        ("reader", "face reader: pose, landmarks, expression from a crop"),
        ("matte", "person's matte, which pasting back and alpha use"),
        ("encoders", "head pose and dynamics encoders, which the face model then keeps"),
        ("closeups", "the face model's close-ups of mouth and eyes"),
        ("face", "face encoder, warps and decoder"),
        ("audio", "speech encoder"),
        ("motion", "motion generator"),
    ):
        trainer = parts.add_parser(part, help=what)
        trainer.add_argument("--data", type=Path, required=True, help="folder written by `vasa synth`")
        trainer.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
        trainer.add_argument("--validation", type=Path, help="data never trained on, for scores and panels")
        trainer.add_argument("--max-minutes", type=number(0.01, 1e6), default=60.0, help="time box (60)")
        trainer.add_argument("--save-minutes", type=number(0.01, 1e6), default=4.0, help="between checkpoints (4)")
        trainer.add_argument("--learning-rate", type=number(1e-8, 1.0), default=4e-4)
        trainer.add_argument("--batch-size", type=number(1, 65536, int))
        trainer.add_argument("--seed", type=number(0, 2**31 - 1, int), default=0)
        trainer.add_argument("--resume", type=Path, help="weights to start from")
        if part != "matte":
            trainer.add_argument("--config", choices=tuple(CONFIGS), default="vasa-mini")
        if part == "face":
            trainer.add_argument("--size", type=number(32, 1024, int), help="train at this edge, pixels")
            trainer.add_argument("--encoders", type=Path, help="folder written by `vasa train encoders`")
            trainer.add_argument("--closeups", type=Path, help="folder written by `vasa train closeups`, to go on with")
            trainer.add_argument("--reader", type=Path, help="face reader that serves the losses")
            trainer.add_argument(
                "--geometry", type=number(0.0, 1.0), default=0.0, metavar="SHARE",
                help="share of the time box for the flow alone, in steps of half the cost (0)",
            )  # fmt: skip
            trainer.add_argument(
                "--weights",
                type=weights_of(FACE_LOSSES, 1000.0),
                default={},
                metavar="NAME=W,...",
                help=f"loss weights: {', '.join(FACE_LOSSES)}",
            )
        if part == "motion":
            trainer.add_argument("--audio", type=Path, required=True, help="folder written by `vasa train audio`")
        trainer.set_defaults(run=_run_train, part=part)
    faces = parts.add_parser(
        "faces", help="people, encoders, readers and face in one time box, for a GPU lent by the minute"
    )
    faces.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    faces.add_argument("--model", default="vasa-mini", help="name or folder to go on with")
    faces.add_argument("--assets", type=Path, help="asset pack folder (default: VASA_ASSETS, else formulas)")
    faces.add_argument("--max-minutes", type=number(0.01, 1e6), default=60.0, help="time box (60)")
    faces.add_argument("--workers", type=number(1, 256, int), default=1, help="processes that render (1)")
    faces.add_argument("--seed", type=number(0, 2**31 - 1, int), default=0)
    faces.add_argument("--size", type=number(32, 1024, int), default=256, help="edge of the pictures, pixels")
    faces.set_defaults(run=_run_faces)
    export = commands.add_parser("export", help="gather training runs into a model folder")
    for part in ("face", "closeups", "audio", "motion", "reader", "matte"):
        export.add_argument(f"--{part}", type=Path, required=part in ("face", "audio", "motion"), metavar="RUN")
    export.add_argument("--config", choices=tuple(CONFIGS), default="vasa-mini")
    export.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    export.set_defaults(run=_run_export)


def _run_train(given: argparse.Namespace) -> None:
    from ..training.loop import TimeBox

    for folder in filter(None, (given.data, given.validation, given.resume)):
        if not folder.exists():
            raise InputError(f"{folder} does not exist; make it with `vasa synth` or `vasa train`")
    box = TimeBox(given.max_minutes, given.save_minutes, given.learning_rate)
    options = {"seed": given.seed, "resume": given.resume, "validation": given.validation}
    if given.batch_size is not None:
        options["batch_size"] = given.batch_size
    if given.part == "reader":
        from ..training.reader import train_reader

        train_reader(given.data, given.out, box, CONFIGS[given.config], **options)
    elif given.part == "matte":
        from ..training.matte import train_matte

        train_matte(given.data, given.out, box, **options)
    elif given.part == "face":
        from ..training.face import FaceLossWeights, train_face

        options |= {name: getattr(given, name) for name in ("size", "encoders", "closeups", "reader", "geometry")}
        weights = FaceLossWeights(**given.weights)
        train_face(given.data, given.out, box, CONFIGS[given.config], weights=weights, **options)
    elif given.part == "closeups":
        from ..training.closeups import train_closeups

        train_closeups(given.data, given.out, box, CONFIGS[given.config], **options)
    elif given.part == "encoders":
        from ..training.encoders import train_encoders

        train_encoders(given.data, given.out, box, CONFIGS[given.config], **options)
    elif given.part == "audio":
        from ..training.audio import train_audio

        train_audio(given.data, given.out, box, CONFIGS[given.config], **options)
    else:
        from ..training.motion import train_motion

        train_motion(given.data, given.out, box, CONFIGS[given.config], given.audio, **options)


def _run_faces(given: argparse.Namespace) -> None:
    from ..training.faces import train_faces

    options = {name: getattr(given, name) for name in ("model", "assets", "workers", "seed", "size")}
    print(train_faces(given.out, given.max_minutes, **options))


def _run_export(given: argparse.Namespace) -> None:
    from ..training.export import export

    export(
        given.out,
        CONFIGS[given.config],
        face=given.face,
        closeups=given.closeups,
        audio=given.audio,
        motion=given.motion,
        reader=given.reader,
        matte=given.matte,
    )
    print(given.out)
