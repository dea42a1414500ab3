"""Files and folders that are written whole or not at all, also when processes race or die."""

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
    "remove",
    "remove_leftovers",
    "staged",
    "sync",
    "sync_folder",
    "write_new",
    "write_whole",
    "written_whole",
]

# Only used where the file system has no locks: a temporary folder this old has no owner left.
_ABANDONED_AFTER = 24 * 3600.0


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
def written_whole(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write into that takes its place in one step, when the block ends without error.

    Parameters
    ----------
    path : Path
    private : bool, default False
        Only the owner may read it, whatever the umask.  One process at a time writes it, and
        removes what others that died left of it.

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
    """Make an empty file for the owner alone, whatever the umask; one that is there stays."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, with this mode within the umask, and those above it, where they are missing.

    Raises
    ------
    InvalidParameter
        It cannot be made.
    """
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
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


def write_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file into a staged folder, and wait until it is on the disk."""
    with _new(path) as stream:
        for chunk in chunks:
            stream.write(chunk)


def sync(path: Path) -> None:
    """Wait until a file, or the names inside a folder, are on the disk; raises OSError."""
    if path.is_dir() and sys.platform == "win32":
        return  # Windows opens no folder
    # Windows flushes only files that are open for writing.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder durable, where the system can do that."""
    with contextlib.suppress(OSError):
        sync(folder)


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold the lock on `target` across processes and threads, and clean up after dead owners.

    The lock is the operating system's, so it ends with its process.  Its holder may therefore
    remove every temporary folder of `target`, as their makers are gone.  The holder also removes
    the lock file while it holds the lock; a process that waited for a file that is no longer
    there starts over, so that there are never two holders.
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
    """An empty temporary folder beside `target`, removed at the end whatever happens."""
    # Not tempfile.mkdtemp: its mode 0700 would hide a shared cache from its other users.
    folder = _temporary(target)
    try:
        folder.mkdir(mode)
        yield folder
    finally:
        remove(folder)


def publish(folder: Path, target: Path, is_right: Callable[[], bool]) -> None:
    """Move the finished `folder` to `target` in one step.

    Parameters
    ----------
    folder : Path
        From `staged`; its files are on the disk.
    target : Path
        Where it goes.  A wrong folder there is moved out of the way first.
    is_right : callable
        Tells whether a folder that stands at `target` will do.
    """
    sync_folder(folder)
    if os.path.lexists(target) and not is_right():
        wrong = _temporary(target)
        target.rename(wrong)
        remove(wrong)
    try:
        folder.rename(target)
    except OSError:
        # Without locks another process may have been faster; its result is as good as ours.
        if not is_right():
            raise
    sync_folder(target.parent)


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders in `folder` whose makers died; raises OSError."""
    for path in list(folder.iterdir()):
        if path.name.startswith(".") and ".tmp-" in path.name:
            shutil.rmtree(path)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{_short(target)}.tmp-{os.getpid()}-{secrets.token_hex(6)}")


def _short(target: Path) -> str:
    """The name, to which more can be added even where it is as long as a name can be."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= 100 else hashlib.sha256(name).hexdigest()[:32]


def _is_still(stream: IO[bytes], path: Path) -> bool:
    """Tell whether `path` names the open file, and not a newer one or none."""
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
    """Name of a new file in the folder of `path`, as a rename is in one step only there.

    The file is gone at the end, also after a KeyboardInterrupt.
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
    """Refuse what a rename would fail on, and what it must not replace: a device, say."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        path.parent.stat()  # raises where the folder is missing
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file")


@contextlib.contextmanager
def _new(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    # Not tempfile, whose mode 0600 would hide the result from the other users of a folder.
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
