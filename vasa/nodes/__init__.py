"""The ComfyUI nodes of the sibling folder `nodes/`, reached as `vasa.nodes` (see docs/decisions.md, import layout)."""

from pathlib import Path

_SIBLING = Path(__file__).resolve().parents[2] / "nodes"
if _SIBLING.is_dir():
    __path__.append(str(_SIBLING))
