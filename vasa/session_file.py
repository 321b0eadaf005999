"""The state of a session on disk: safetensors with the rest as JSON in its header."""

from __future__ import annotations

import os

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import InputError
from .io.files import check_writable, open_input, replacing

FORMAT = "vasa-session/1"


def save_state(path: str | os.PathLike, state: dict[str, Tensor | str]) -> None:
    """Write what `Session.state()` returned; an earlier file of that name is replaced in one step.

    Raises:
        InputError: the path cannot be written.
    """
    tensors = {name: value.contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    texts = {name: value for name, value in state.items() if isinstance(value, str)}
    with replacing(check_writable(path, (".safetensors",))) as partial:
        save_file(tensors, str(partial), metadata={"format": FORMAT, **texts})


def load_state(path: str | os.PathLike) -> dict[str, Tensor | str]:
    """Read a file that `save_state` wrote, for `Session.resume`.

    Raises:
        InputError: missing, damaged, or not a session.
    """
    open_input(path, "session").close()
    try:
        with safe_open(str(path), "pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a saved session; give a file that save_state wrote") from error
    if texts.pop("format", None) != FORMAT:
        raise InputError(f"{path} is not a saved session of this version; give a file that save_state wrote")
    return {**tensors, **texts}
