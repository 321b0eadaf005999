"""Small foreign pickles (statistics, settings) without running what is in them: NumPy arrays and built-ins only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

MAX_BYTES = 64 << 20
_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = {"list": list, "dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset, "slice": slice,
             "int": int, "float": float, "complex": complex, "bool": bool, "str": str, "bytes": bytes,
             "bytearray": bytearray, "range": range}  # fmt: skip


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAYS and name in ("_reconstruct", "scalar"):
            return getattr(np._core.multiarray if hasattr(np, "_core") else np.core.multiarray, name)
        if module in _BUFFERS and name == "_frombuffer":
            return (np._core.numeric if hasattr(np, "_core") else np.core.numeric)._frombuffer
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("_codecs", "encode"):
            return _latin
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _latin(text: str, encoding: str = "latin1") -> bytes:
    # how old pickles write bytes
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def read_pickle(path: Path) -> Any:
    """The built-ins and NumPy arrays in a pickle.

    Raises:
        InputError: missing, larger than 64 MB, damaged, or with anything else in it, which is not run.
    """
    if not path.is_file():
        raise InputError(f"expected a statistics file at {path}, found none; check the source folder")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} has {path.stat().st_size >> 20} MB, statistics have less than 1; check the path")
    try:
        value = _Restricted(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a hostile pickle may raise anything
        raise InputError(
            f"{path} is not a plain statistics file ({error}); it was not opened further, because pickles can run code"
        ) from error
    _check(value, path)
    return value


def _check(value: Any, path: Path) -> None:
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise InputError(f"{path} holds an array of objects, expected numbers; check the path")
    elif isinstance(value, dict):
        for inner in value.values():
            _check(inner, path)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            _check(inner, path)
