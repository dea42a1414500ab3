"""Atomic writes of files and folders, safe against races and crashes of processes."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from facecore._utils import file_locks
from facecore.errors import InvalidParameter

__all__ = [
    "check_writable",
    "exclusive",
    "make_folder",
    "make_private",
    "publish",
    "read_private",
    "remove",
    "remove_leftovers",
    "staged",
    "sync",
    "sync_folder",
    "write_new",
    "write_whole",
    "written_whole",
]

# For file systems without locks: a temporary folder this old is abandoned.
_ABANDONED_AFTER = 24 * 3600.0


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: on failure, an existing file stays unchanged.

    The mode follows the umask.

    Raises
    ------
    InvalidParameter
        The file cannot be written: for example, the folder is missing or `path` is a folder.
    """
    with written_whole(path) as stream:
        stream.write(data)


def read_private(path: Path, most: int, name: str, hint: str) -> bytes:
    """Read a file of secrets; refuse it if other users can read or change it.

    The group may read it: service managers create secrets with that mode.

    Parameters
    ----------
    path : Path
    most : int
        Maximum number of bytes to read; the rest is ignored.
    name : str
        Name of the content, for the error message.
    hint : str
        What to do if the file cannot be read.

    Raises
    ------
    InvalidParameter
        The file cannot be read, or others on this machine can read or change it.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(most)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{name} in {path} cannot be read: {reason}", hint) from error
    if os.name == "posix" and mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise InvalidParameter(
            f"{path} has mode {stat.S_IMODE(mode):04o}: others can read {name}", f"chmod 600 {path}"
        )
    return data


@contextlib.contextmanager
def written_whole(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that atomically replaces `path` if the block ends without error.

    Parameters
    ----------
    path : Path
    private : bool, default False
        Only the owner may read the file, for any umask.  One process at a time writes it, and
        removes temporary files of processes that died.

    Raises
    ------
    InvalidParameter
        As `write_whole`.
    """
    with _beside(path) as partial, exclusive(path) if private else contextlib.nullcontext():
        with _new(partial, 0o600 if private else 0o666) as stream:
            yield stream
        os.replace(partial, path)


def make_private(path: Path) -> None:
    """Create an empty file for the owner alone, for any umask; keep an existing file."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def absolute(path: Path) -> Path:
    """Make a path absolute.

    Raises
    ------
    InvalidParameter
        The path is relative, and the working directory was deleted.
    """
    try:
        return path.absolute()
    except OSError as error:
        raise InvalidParameter(
            f"{path} cannot be found: the working directory was deleted", "go to another folder"
        ) from error


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Create a folder, with `mode` subject to the umask, and its missing parents.

    Raises
    ------
    InvalidParameter
        The folder cannot be created.
    """
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(
            f"{path} cannot be written: {reason}", "name another folder"
        ) from error


def check_writable(path: Path) -> None:
    """Check before long work that its result can be written; leave no file behind.

    Raises
    ------
    InvalidParameter
        As `write_whole` would.
    """
    with _beside(path) as partial, _new(partial):
        pass


def write_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file into a staged folder and sync it to disk."""
    with _new(path) as stream:
        for chunk in chunks:
            stream.write(chunk)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk; raises OSError."""
    if path.is_dir() and sys.platform == "win32":
        return  # Windows cannot open a folder
    # Windows flushes only files that are open for writing.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, if the system supports it."""
    with contextlib.suppress(OSError):
        sync(folder)


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Lock `target` across processes and threads, and clean up after dead owners.

    The operating system releases the lock when its process ends.  The holder may therefore
    remove every temporary folder of `target`: their owners are gone.  The holder also deletes the
    lock file before releasing it; a process that waited for a deleted lock file starts over, so
    there are never two holders.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f".{_short(target)}.lock"
    while True:
        with path.open("ab") as stream:
            locked = True
            try:
                file_locks.lock(stream, wait=True)
            except OSError:  # the file system has no locks
                locked = False
            if locked and not _is_still(stream, path):
                continue
            try:
                for leftover in target.parent.glob(f".{glob.escape(_short(target))}.tmp-*"):
                    if locked or _age(leftover) > _ABANDONED_AFTER:
                        remove(leftover)
                yield
            finally:
                remove(path)
            return


@contextlib.contextmanager
def staged(target: Path, mode: int = 0o777) -> Iterator[Path]:
    """Create an empty temporary folder next to `target`, and remove it at the end."""
    # Not tempfile.mkdtemp: its mode 0700 would lock other users out of a shared cache.
    folder = _temporary(target)
    try:
        folder.mkdir(mode)
        yield folder
    finally:
        remove(folder)


def publish(folder: Path, target: Path, is_right: Callable[[], bool]) -> None:
    """Move the finished `folder` to `target` atomically.

    Parameters
    ----------
    folder : Path
        From `staged`, with its files synced to disk.
    target : Path
        Destination.  An existing folder that is not right is replaced; it stays on failure.
    is_right : callable
        Tells whether an existing folder at `target` is acceptable.
    """
    sync_folder(folder)
    wrong = _temporary(target)
    if os.path.lexists(target) and not is_right():
        target.rename(wrong)
    try:
        folder.rename(target)
    except OSError:
        # Without locks, another process may have published an equal result first.
        if not is_right():
            raise
    finally:
        if os.path.lexists(wrong) and not os.path.lexists(target):
            wrong.rename(target)
        remove(wrong)
    sync_folder(target.parent)


def remove(path: Path) -> None:
    """Remove a folder, file or link; ignore errors."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove abandoned temporary folders in `folder`; raises OSError."""
    for path in list(folder.iterdir()):
        if path.name.startswith(".") and ".tmp-" in path.name:
            shutil.rmtree(path)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{_short(target)}.tmp-{os.getpid()}-{secrets.token_hex(6)}")


def _short(target: Path) -> str:
    """Return the name, or a hash of a long one, so that a suffix still fits."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= 100 else hashlib.sha256(name).hexdigest()[:32]


def _is_still(stream: IO[bytes], path: Path) -> bool:
    """Return whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except OSError:
        return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`, where a rename is atomic.

    Removes the file at the end, also after a KeyboardInterrupt.
    """
    try:
        _check_replaceable(path)
        partial = _temporary(path)
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
    """Reject a folder, which a rename cannot replace, or a special file, which it must not."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        path.parent.stat()  # raises where the folder is missing
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file")


@contextlib.contextmanager
def _new(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    # Not tempfile: its mode 0600 would hide the result from other users of the folder.
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
