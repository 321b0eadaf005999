"""`vasa stream`: sound on stdin becomes a talking video on stdout while it arrives."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from .options import crop, number


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("stream", help="sound on stdin becomes a talking video on stdout, live")
    parser.add_argument("portrait", help="picture of one face (JPEG, PNG, WEBP, AVIF ...)")
    parser.add_argument("--rate", type=number(4000, 384_000, int), default=16_000, help="Hz of raw s16le (16000)")
    parser.add_argument(
        "--format", choices=("ts", "rgb"), default="ts", help="MPEG-TS with sound, or raw rgb24 frames without"
    )
    parser.add_argument(
        "--keep-time", action="store_true", help="where no sound arrives in time the face idles in silence"
    )
    parser.add_argument("--hop", type=number(1, 37, int), help="frames at a time (as short as keeps real time)")
    parser.add_argument("--look-ahead", type=number(0, 25, int), default=2, help="frames of sound heard ahead (2)")
    parser.add_argument("--steps", type=number(1, 1000, int), default=10, help="denoising steps (10)")
    parser.add_argument("--idle", type=number(0.0, 2.0), default=1.0, help="head movement while nobody speaks, 0 .. 2")
    parser.add_argument("--controls", type=Path, metavar="FILE", help="controls as JSON; their times count from 0")
    parser.add_argument("--seed", type=number(0, 2**63 - 1, int), help="same seed, same frames")
    parser.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    parser.add_argument("--crop", type=crop, default="auto", metavar="auto|none|X,Y,SIZE")
    parser.add_argument("--face", type=number(0, 99, int), default=0, help="which face, 0 = largest")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from dataclasses import replace

    from ..controls import Controls
    from ..io.face import portrait_crop
    from ..io.image import load_image
    from ..io.pcm import PcmReader
    from ..live import Report, live_plan, run_live
    from ..pipeline import Vasa
    from ..stream import LIVE, Session

    output = sys.stdout.buffer
    if output.isatty():
        raise InputError("stdout is a terminal; send the video into a player or a file, e.g. | ffplay -")
    controls = LIVE if given.controls is None else Controls.from_file(given.controls)
    if given.seed is not None:
        controls = replace(controls, seed=given.seed)
    picture = load_image(given.portrait)
    pipe = Vasa.from_pretrained(given.model, device=given.device, precision=given.precision)
    framed = portrait_crop(picture.pixels, given.crop, face=given.face, size=pipe.size, refine=pipe.read_pose)
    face = pipe.encode(framed.picture)
    for notice in [*picture.notices, *framed.notices]:
        _say(f"note: {notice}")
    if given.hop is None:
        plan, pace = live_plan(pipe, face, steps=given.steps, look_ahead=given.look_ahead)
        if pace is not None and (load := pace.load(plan.hop, pipe.fps)) > 1:
            _say(f"note: this machine needs {load:.1f} s for a second of video; the picture will fall behind")
    else:
        plan = pipe.live_plan(given.hop, given.look_ahead, given.steps)
    session = Session(pipe, face, controls, plan, idle=given.idle)
    _say(f"{pipe.size} pixels, {pipe.fps:g} frames per second, hop {plan.hop} + {plan.look_ahead}, {plan.steps} steps")
    # unbuffered: a thread that waits inside a buffered stdin cannot be left behind when Python ends
    reader = PcmReader(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), given.rate)  # noqa: SIM115
    sink = (_Transport if given.format == "ts" else _Rgb)(output, pipe, reader.sample_rate)
    report = Report()
    try:
        run_live(session, reader, sink.write, keep_time=given.keep_time, report=report)
        sink.close()
    except KeyboardInterrupt:
        sink.close()
        _say(f"interrupted; what was sent can be played: {report}")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # what Python still holds for stdout must not raise again at exit
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), output.fileno())
        raise InputError(f"whoever read the video has stopped reading: {report}") from None
    _say(str(report))


def _say(sentence: str) -> None:
    print(f"vasa: {sentence}", file=sys.stderr)


class _Transport:
    """MPEG-TS with sound."""

    def __init__(self, output: BinaryIO, pipe, sample_rate: int) -> None:
        from ..io.transport import TransportStream

        self._output, self._stream = output, TransportStream(pipe.size, pipe.fps, sample_rate)

    def write(self, frames, samples) -> None:
        self._send(self._stream.write(frames, samples))

    def close(self) -> None:
        self._send(self._stream.close())

    def _send(self, data: bytes) -> None:
        self._output.write(data)
        self._output.flush()


class _Rgb:
    """Raw rgb24 frames."""

    def __init__(self, output: BinaryIO, pipe, sample_rate: int) -> None:
        self._output = output

    def write(self, frames, samples) -> None:
        pixels = (frames * 255).round().byte().permute(0, 2, 3, 1)
        self._output.write(pixels.contiguous().numpy().tobytes())
        self._output.flush()

    def close(self) -> None:
        self._output.flush()
