"""One large file over HTTP: resumed where it stopped, in this run or a later one, and verified before it has its name.

The hub's own client no longer keeps half a file from one run to the next, so this is done here.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ...checkpoint import sha256
from ...errors import InputError

_TRIES = 4
_TIMEOUT = 30.0
_PIECE = 1 << 20


def fetched(address: str, target: Path, size: int, digest: str) -> Path:
    """Bring a file here, unless it is here already.

    Args:
        address: of the file; redirections are followed.
        target: where it goes; what has come so far lies beside it as `<name>.<digest>.partial`.
        size: bytes it should have, 0 if unknown.
        digest: SHA-256 it should have, "" if unknown.

    Returns:
        `target`.

    Raises:
        InputError: no room, no connection, or another content than was listed.
    """
    if target.is_file() and (sha256(target) == digest if digest else target.stat().st_size == size):
        return target
    partial = target.with_name(f"{target.name}.{digest[:12] or size}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        have = partial.stat().st_size if partial.is_file() else 0
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise InputError(f"{target.parent} cannot be written ({error.strerror}); choose another folder") from error
    if free < size - have:
        raise InputError(
            f"{target.name} needs {(size - have) / 1e6:.0f} MB, {target.parent} has {free / 1e6:.0f} MB free; make room"
        )
    _complete(address, partial, size, target.name)
    if digest and sha256(partial) != digest:
        partial.unlink()
        raise InputError(f"{target.name} is damaged: its SHA-256 is not {digest[:12]}…; run the same command again")
    os.replace(partial, target)
    return target


def _complete(address: str, partial: Path, size: int, name: str) -> None:
    reason: Exception | None = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.5 * attempt)
        try:
            if _append(address, partial, size, name):
                return
            reason = None
        except urllib.error.HTTPError as error:
            reason = error
            error.close()
            if error.code == 416:
                partial.unlink(missing_ok=True)  # it is longer than the file is
            elif error.code < 500 and error.code != 429:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = error
    what = f" ({type(reason).__name__}: {' '.join(str(reason).split())[:80]})" if reason else ""
    raise InputError(f"downloading {name} failed{what}; run the same command again to resume")


def _append(address: str, partial: Path, size: int, name: str) -> bool:
    """Fetch what is missing; whether the file is complete now."""
    have = partial.stat().st_size if partial.is_file() else 0
    if size and have == size:
        return True
    request = urllib.request.Request(address, headers={"User-Agent": "vasa"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with contextlib.ExitStack() as stack:
        answer = stack.enter_context(urllib.request.urlopen(request, timeout=_TIMEOUT))
        goes_on = answer.status == 206
        out = stack.enter_context(open(partial, "ab" if goes_on else "wb"))
        shown = tqdm(
            total=size or None, initial=have if goes_on else 0, unit="B", unit_scale=True, desc=name,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        stack.enter_context(shown)
        while piece := answer.read(_PIECE):
            out.write(piece)
            shown.update(len(piece))
        length = answer.length
    have = partial.stat().st_size
    return have == size if size else length in (0, None)
