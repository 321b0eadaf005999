"""The one door from the nodes to the engine, under whatever name both were loaded.

In ComfyUI this folder is `<pack>.nodes` and the engine its sibling `<pack>.vasa`, where `<pack>` is any name; installed
or imported from a clone it is `vasa.nodes`, and the engine is its parent.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

_ABOVE = __package__.rpartition(".")[0]
_NAME = f"{_ABOVE}.vasa" if importlib.util.find_spec(f"{_ABOVE}.vasa") else _ABOVE
vasa = importlib.import_module(_NAME)


def room(name: str) -> ModuleType:
    """A module of the engine, e.g. room("io.face")."""
    return importlib.import_module(f"{_NAME}.{name}")


Controls, FaceLatents, InputError, Motion, Vasa = (
    vasa.Controls, vasa.FaceLatents, vasa.InputError, vasa.Motion, vasa.Vasa,
)  # fmt: skip
EMOTIONS = vasa.EMOTIONS
