"""Putting a folder in place whole or not at all, also when processes race or are killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from typing import TYPE_CHECKING

from facecore._utils.atomic_files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

# Only used where the file system has no locks: a temporary folder this old has no owner left.
_ABANDONED_AFTER = 24 * 3600.0


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold the lock on `target` across processes and threads, and clean up after dead owners.

    The lock is the operating system's, so it goes with its process. Who holds it may thus
    remove every temporary folder of `target`: their makers are gone. The holder removes the
    lock file too, while it holds the lock; who waited for a file that is no longer there
    starts over, so that there are never two holders.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f".{target.name}.lock"
    while True:
        with path.open("ab") as stream:
            locked = _lock(stream)
            if locked and not _is_still(stream, path):
                continue
            try:
                for leftover in target.parent.glob(f".{target.name}.tmp-*"):
                    if locked or _age(leftover) > _ABANDONED_AFTER:
                        remove(leftover)
                yield
            finally:
                remove(path)
            return


def _is_still(stream: IO[bytes], path: Path) -> bool:
    """Tell whether `path` names the open file, and not a newer one or none."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except OSError:
        return False


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `target`, removed at the end whatever happens."""
    # Not tempfile.mkdtemp: its mode 0700 would hide a shared cache from its other users.
    folder = target.parent / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(6)}"
    try:
        folder.mkdir()
        yield folder
    finally:
        remove(folder)


def publish(folder: Path, target: Path, is_right: Callable[[], bool]) -> None:
    """Move the finished `folder` to `target` in one step.

    Parameters
    ----------
    folder : Path
        From `staged`; its files were already synced by `write`.
    target : Path
        Where it goes. What is there and is not right is set aside first.
    is_right : callable
        Tells whether what is at `target` will do. Asked when it is in the way.
    """
    sync_folder(folder)
    if os.path.lexists(target) and not is_right():
        aside = target.parent / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(6)}"
        target.rename(aside)
        remove(aside)
    try:
        folder.rename(target)
    except OSError:
        # Without locks another process may have been faster; its result is as good as ours.
        if not is_right():
            raise
    sync_folder(target.parent)


def write(path: Path, chunks: Iterator[bytes]) -> None:
    """Write a new file and make sure that it is on the disk."""
    with path.open("xb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _lock(stream: IO[bytes]) -> bool:
    """Wait for the lock on `stream`; False where the file system has none."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                stream.seek(0)
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                time.sleep(0.1)
    else:
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            return False
        return True
