"""The page: `python gradio_app.py`, `vasa.notebook.show()`. Needs the extra `app`."""

from .build import build_app, serve

__all__ = ["build_app", "serve"]
