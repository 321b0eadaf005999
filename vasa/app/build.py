"""The page as a whole, and how it is served."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from functools import partial
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "0")
if "GRADIO_TEMP_DIR" not in os.environ:
    # Gradio names uploads by their content, and a page that closes deletes those of every page that shares the folder
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="vasa-uploads-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

import gradio as gr
from starlette.middleware import Middleware

from ..animate import name_of
from ..checkpoint import find
from ..errors import InputError
from .animate_tab import build_animate_tab, examples
from .api import build_api
from .cache import make_examples
from .calls import Calls
from .edit_tab import build_edit_tab
from .hints import SCRIPT
from .inspect_tab import build_inspect_tab
from .live_tab import build_live_tab
from .look import CSS, theme
from .proxied import OwnOrigin
from .studio import LONGEST_SECONDS, Studio
from .workers import worker
from .workflow_tab import build_workflow_tab

TITLE = "vasa"
HEAD = '<div class="vasa-head"><h1>vasa</h1><p>One portrait and a speech clip become a talking face.</p></div>'
MAX_FILE_SIZE = "200mb"
MAX_WAITING = 32
"""Requests that may wait; more are told to come back."""
CACHE_SECONDS = 6 * 3600


def build_app(model: Any = "vasa-mini", *, device: str = "auto", longest: float = LONGEST_SECONDS) -> gr.Blocks:
    """The page, ready to be launched or mounted.

    Args:
        model: name or folder of the model, or a loaded one; loaded when it is first needed.
        device: "auto", "cpu", "cuda".
        longest: seconds of speech it takes at a time.
    """
    studio = Studio(model, device, longest=longest)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, CACHE_SECONDS), fill_width=True) as app:
        with gr.Row():
            gr.HTML(HEAD, elem_id="head")
            _choose_model(studio)
        with gr.Tab("Animate", id="animate"):
            shared = build_animate_tab(studio)
        with gr.Tab("Live", id="live"):
            live = build_live_tab(studio)
        with gr.Tab("Edit", id="edit"):
            build_edit_tab(studio, shared)
        with gr.Tab("Inspect", id="inspect"):
            build_inspect_tab(studio, shared)
        with gr.Tab("Workflows", id="workflows"):
            build_workflow_tab(studio)
        build_api(studio)
        app.unload(_leaver(studio, live))
    app.studio, app.live = studio, live
    return app.queue(max_size=MAX_WAITING, default_concurrency_limit=2)


def launch_options(**given: Any) -> dict[str, Any]:
    """What every way of launching the page shares: looks and limits."""
    return {
        "theme": theme(), "css": CSS, "head": SCRIPT, "max_file_size": MAX_FILE_SIZE, "allowed_paths": [],
        "show_error": True, "strict_cors": True, "footer_links": ["api", "settings"], "ssr_mode": False,
        "share": False, "app_kwargs": {"middleware": [Middleware(OwnOrigin)]}, **given,
    }  # fmt: skip


def serve(
    model: Any = "vasa-mini",
    *,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    mcp: bool = False,
    warm: bool = True,
    block: bool = True,
    **launch: Any,
) -> gr.Blocks:
    """Build the page and serve it.

    Args:
        model, device: as in `build_app`.
        host: address to listen on; "0.0.0.0" lets others in: then set `auth`.
        port: default the first free one from 7860 on.
        auth: (user, password) to ask for.
        mcp: also offer the functions to language models (needs `gradio[mcp]`).
        warm: load the model as soon as the page is there and not at the first click, then make the examples while
            nobody uses it.
        block: stay until Ctrl-C.
        launch: for `gradio.Blocks.launch`.

    Raises:
        InputError: no such model. Weights that cannot be read are told where they are first needed.
    """
    if isinstance(model, str | os.PathLike):
        find(model)
    app = build_app(model, device=device)
    with contextlib.ExitStack() as failed:
        failed.callback(app.studio.close)
        options = launch_options(
            server_name=host, server_port=port, auth=auth, mcp_server=mcp, prevent_thread_lock=True, **launch
        )
        app.launch(**options)
        failed.pop_all()
    app.live.mount(app.app)
    if warm:
        worker("warm", partial(_warm, app.studio)).start()
    if block:
        try:
            app.block_thread()
        finally:
            app.studio.close()
    return app


def _warm(studio: Studio) -> None:
    """Load the model, which takes as long as everything before it, then make the examples."""
    try:
        _ = studio.pipe
    except (InputError, OSError) as error:
        sys.stderr.write(f"{error}\n")  # the page says it at the first click
        return
    make_examples(studio, [files for _, *files in examples()])


def _choose_model(studio: Studio) -> None:
    """A list of models where there is more than one."""
    names = list(studio.models)
    if len(names) < 2:
        return
    choice = gr.Dropdown(
        names, value=names[0], label="Model", info="For everybody who uses this page.", elem_id="model", scale=0,
        min_width=280,
    )  # fmt: skip

    def choose(name: str) -> str:
        try:
            studio.use(name)
        except InputError as error:
            gr.Warning(str(error))
        return name_of(studio.model)

    choice.input(choose, choice, choice, api_visibility="private", concurrency_limit=1)


def _leaver(studio: Studio, live: Calls):
    """What happens when a page is closed."""

    def leave(request: gr.Request) -> None:
        studio.stop(request.session_hash)
        live.leave(request.session_hash)

    return leave
