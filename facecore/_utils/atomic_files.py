"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from facecore.errors import InvalidParameter

__all__ = ["check_writable", "make_folder", "sync_folder", "write_whole", "written_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step; one that is there is replaced, or stays as it was.

    Its mode follows the umask.

    Raises
    ------
    InvalidParameter
        The file cannot be written: the folder is missing, say, or `path` is a folder.
    """
    with written_whole(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes its place in one step, when the block ends without error.

    Raises
    ------
    InvalidParameter
        As `write_whole`.
    """
    with _beside(path) as partial:
        with _new(partial) as stream:
            yield stream
        os.replace(partial, path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises
    ------
    InvalidParameter
        It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"{path} cannot be written: {reason}", "name another folder"
        ) from error


def check_writable(path: Path) -> None:
    """Find out before long work that its result cannot be written; leaves nothing behind.

    Raises
    ------
    InvalidParameter
        As `write_whole` would.
    """
    with _beside(path) as partial, _new(partial):
        pass


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder durable, where the system can do that."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Name of a new file in the folder of `path`, as a rename is in one step only there.

    The file is gone at the end, also after a KeyboardInterrupt.
    """
    try:
        _check_replaceable(path)
        # Cut, as the name of `path` may be as long as a name can be.
        partial = path.with_name(f".{path.name[:40]}.tmp-{os.getpid()}-{secrets.token_hex(6)}")
        try:
            yield partial
        finally:
            with contextlib.suppress(OSError, ValueError):
                partial.unlink()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"{path} cannot be written: {reason}", "name another file, or another folder"
        ) from error


def _check_replaceable(path: Path) -> None:
    """Refuse what a rename would fail on, and what it must not replace: a device, say."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file")


@contextlib.contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    # Not tempfile, whose mode 0600 would hide the result from the other users of a folder.
    with path.open("xb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
