"""The command line: `vasa animate portrait.png speech.wav -o talking.mp4`, and the rest of the workshop.

Every failure the user can cause ends in one sentence on stderr and exit code 2, Ctrl-C in 130; VASA_DEBUG=1
shows the traceback. One module a command family; the work of each command lives elsewhere and is imported when it
runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import InputError
from . import animate, bench, convert, doctor, evaluate, motion, picture, stream, synth, train, verify, workflow
from .options import Parser

COMMANDS = (animate, doctor, synth, train, evaluate, workflow, picture, motion, stream, bench, convert, verify)
INPUT_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; default those of the process.

    Returns:
        Exit code: 0 done, 2 something the user can mend, 130 interrupted.
    """
    try:
        arguments = parser().parse_args(argv)
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


def parser() -> Parser:
    """The parser of all commands."""
    top = Parser(prog="vasa", description="One portrait and a speech clip become a talking-face video.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
