"""The page and its videos inside a notebook: Jupyter, JupyterHub behind a proxy, Colab."""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

_running: list[Any] = []


def show(model: Any = "vasa-mini", *, device: str = "auto", height: int = 900, port: int | None = None) -> Any:
    """Show the page in this notebook; the cell returns at once. Calling it again replaces the page before.

    Nothing is tunnelled to the outside. Behind JupyterHub the page is reached through `jupyter-server-proxy`, whose
    address is read from the environment; Colab's own proxy is found by Gradio.

    Args:
        model: name or folder of the model, or a loaded one.
        device: "auto", "cpu", "cuda".
        height: of the frame, pixels.
        port: default the first free one.

    Returns:
        The Gradio app; `close()` ends it.

    Raises:
        ImportError: the extra `app` is not installed.
    """
    from .app import serve

    close()
    port = port or free_port()
    path = proxy_path(port)
    # Gradio's own frame points to this machine's address, which only a browser on it, or Colab's proxy, can reach
    inline = "google.colab" in sys.modules
    app = serve(
        model, device=device, port=port, block=False, warm=False, quiet=True, inline=inline, height=height,
        root_path=path,
    )  # fmt: skip
    _running.append(app)
    if not inline:
        from IPython.display import HTML, display

        source = f"{path}/" if path else app.local_url
        allowed = "autoplay; camera; microphone; clipboard-read; clipboard-write"
        display(
            HTML(f'<iframe src="{source}" width="100%" height="{height}" allow="{allowed}" frameborder="0"></iframe>')
        )
    return app


def close() -> None:
    """End the page that `show` started, if there is one."""
    while _running:
        app = _running.pop()
        app.close(verbose=False)
        app.studio.close()


def video(path: str | os.PathLike, width: int = 360) -> Any:
    """A finished video inside the notebook itself, without a server: it stays when the notebook is sent to others.

    Args:
        path: mp4 file, best under 20 MB.
        width: pixels.
    """
    from IPython.display import HTML

    data = base64.b64encode(Path(path).read_bytes()).decode()
    return HTML(f'<video controls loop width="{width}" src="data:video/mp4;base64,{data}"></video>')


def curves(motion: str | os.PathLike, speech: str | os.PathLike | None = None) -> Any:
    """A picture of a motion file: head, eyes, and the mouth against the loudness of the speech."""
    from IPython.display import Image

    from .app.inspection import curves_figure
    from .io.audio import load_audio
    from .motion_file import read_motion_file

    file = read_motion_file(motion)
    figure = curves_figure(file.motion, file.names, None if speech is None else load_audio(speech))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return Image(picture.getvalue())


def proxy_path(port: int) -> str | None:
    """Where the notebook's server shows a port of this machine; None where the browser can reach it directly."""
    given = os.environ.get("GRADIO_ROOT_PATH")
    if given:
        return given
    hub = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    return f"{hub.rstrip('/')}/proxy/{port}" if hub else None


def free_port() -> int:
    """A port nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
