"""The kernels of the sibling folder `kernels/`, reached as `vasa.kernels` (see docs/decisions.md, import layout)."""

from pathlib import Path

_SIBLING = Path(__file__).resolve().parents[2] / "kernels"
# an installed package holds the files itself, and a folder of that name beside it is somebody else's
if not Path(__file__).with_name("dispatch.py").exists() and _SIBLING.is_dir():
    __path__.append(str(_SIBLING))

from .dispatch import backend_report, use_backend  # noqa: E402

__all__ = ["backend_report", "use_backend"]
