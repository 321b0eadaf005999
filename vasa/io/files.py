"""Opening what the user names and writing what the user asked for, never leaving half a file behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError

MIN_FREE_BYTES = 2_000_000
"""Below this a folder counts as full before anything is computed."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def open_input(path: str | os.PathLike, what: str) -> BinaryIO:
    """Open a local file for reading.

    Args:
        path: the file; addresses such as http:// are refused, because nothing but local files is ever opened.
        what: how to name the input in messages, e.g. "portrait".

    Raises:
        InputError: the file is missing, empty, a folder, unreadable, or an address.
    """
    if "://" in str(path):
        raise InputError(f"the {what} must be a local file, got the address {path}; download it first")
    path = Path(path)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        file = path.open("rb") if is_file else None
    except PermissionError as error:
        raise InputError(f"the {what} {path} may not be read; change its permissions") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the {what} {path} cannot be opened ({error}); check the path") from error
    if is_folder:
        raise InputError(f"the {what} {path} is a folder; give one file")
    if file is None:
        raise InputError(f"the {what} {path} does not exist or is not a file; check the path")
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise InputError(f"the {what} {path} is empty (0 bytes); export or download it again")
    return file


def check_writable(path: str | os.PathLike, suffixes: tuple[str, ...] = (".mp4",)) -> Path:
    """Make sure, before anything is computed, that `path` can be written.

    Args:
        path: the file to be written later.
        suffixes: allowed endings, lower case.

    Returns:
        The path.

    Raises:
        InputError: wrong ending, missing or read-only folder, a folder of that name, or a full disk.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"the output {path} must end in {' or '.join(suffixes)}; choose another name")
    if path.is_dir():
        raise InputError(f"the output {path} is a folder; name a file in it")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"the output folder {folder} does not exist; create it or choose another")
    try:
        if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise writing_failed(path, error) from error
    return path


def writing_failed(path: str | os.PathLike, error: OSError) -> InputError:
    """The sentence for an operating-system error met while writing `path`."""
    folder = Path(path).parent
    if error.errno in _NO_SPACE:
        return InputError(f"the disk of the output folder {folder} is full; free some space or choose another")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"the output folder {folder} is read-only; choose another folder")
    if error.errno == errno.ENOENT:
        return InputError(f"the output folder {folder} no longer exists; create it or choose another")
    if error.errno == errno.ENAMETOOLONG:
        return InputError(f"the output name {Path(path).name[:40]}… is too long; choose a shorter one")
    return InputError(f"writing into {folder} failed ({error.strerror or error}); choose another folder")


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a hidden name beside `path` to write to; it takes the real name only when the block succeeds.

    On any exception, Ctrl-C included, the partial file is removed and an earlier `path` stays as it was.

    Raises:
        InputError: the operating system refused to write (full disk, read-only or vanished folder).
    """
    path = Path(path)
    # Names may be up to 255 bytes long; the hidden one must fit as well.
    partial = path.with_name(f".{path.stem[:60]}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
