"""The kernels of the sibling folder `kernels/`, reached as `vasa.kernels` (see docs/decisions.md, import layout)."""

from pathlib import Path

_SIBLING = Path(__file__).resolve().parents[2] / "kernels"
if _SIBLING.is_dir():
    __path__.append(str(_SIBLING))
