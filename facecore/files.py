"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from facecore.errors import InvalidParameter

__all__ = ["check_writable", "write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; one that is there is replaced, folders are made.

    Raises
    ------
    InvalidParameter
        It cannot be written.
    """
    with _writing(path) as partial:
        partial.write_bytes(data)
        partial.replace(path)


def check_writable(path: Path) -> None:
    """Find out before long work that its result cannot be written.

    Raises
    ------
    InvalidParameter
        As `write_whole` would.
    """
    with _writing(path) as partial:
        partial.write_bytes(b"")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """A new file beside `path` (a rename is in one step only there), gone at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        partial = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(6)}")
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{path} cannot be written: {reason}") from error
