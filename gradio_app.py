"""The demo: python gradio_app.py [--model NAME_OR_FOLDER] [--port 7860]. See docs/app.md."""

from __future__ import annotations

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the page.")
    parser.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; then give --auth")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for it before the page opens")
    parser.add_argument("--mcp", action="store_true", help="offer the functions to language models as well")
    given = parser.parse_args()
    try:
        from vasa.app import serve
        from vasa.errors import InputError
    except ImportError as error:
        sys.exit(f'{error}; the page needs more packages: pip install -e ".[app]"')
    auth = None
    if given.auth is not None:
        user, colon, password = given.auth.partition(":")
        if not (user and colon and password):
            sys.exit("--auth must be USER:PASSWORD")
        auth = (user, password)
    try:
        serve(given.model, device=given.device, host=given.host, port=given.port, auth=auth, mcp=given.mcp)
    except (InputError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
