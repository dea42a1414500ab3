"""Folder of a gallery: creation, checks and the lock of its writer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

from facecore._utils import file_locks
from facecore._utils.atomic_files import make_private
from facecore.errors import GalleryCorrupt, GalleryLocked, GalleryNotWritable, InvalidParameter

__all__ = ["DATABASE", "INDEX", "FolderLock", "claim", "partial_copy"]

DATABASE, LOCK, INDEX = "gallery.db", "writer.lock", "index"


def claim(folder: Path) -> None:
    """Make a gallery's folder, accessible to its owner only, or check an existing one.

    Raises
    ------
    InvalidParameter
        The folder holds something else.
    GalleryCorrupt
        The folder was a gallery, and its database is missing.
    GalleryNotWritable
        The folder cannot be made.
    """
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
    except FileExistsError as error:
        raise InvalidParameter(f"{folder} is not a folder", "name another folder") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise GalleryNotWritable(f"{folder} cannot be used: {reason}") from error
    if DATABASE in names:
        return
    if INDEX in names:
        raise GalleryCorrupt(f"{folder} has no {DATABASE} any more")
    if names - {LOCK}:
        raise InvalidParameter(
            f"{folder} is not a gallery and not empty: {min(names)!r} is in it",
            "name an empty or a new folder",
        )


def partial_copy(folder: Path) -> Path:
    """Return the path of the copy that `rekey` makes; only the process of `rekey` may use it."""
    return folder / f"{DATABASE}.rekey"


class FolderLock:
    """Lock of a gallery's writer; the operating system releases it when the process ends.

    Raises
    ------
    GalleryLocked
        Another process, or another `Gallery` of this process, holds the lock.
    GalleryNotWritable
        The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            make_private(path)
            self._stream: IO[bytes] = path.open("ab")
        except OSError as error:
            raise GalleryNotWritable(
                f"{folder} cannot be written: {error.strerror or error}",
                "open it with read_only=True, or check the permissions of the folder",
            ) from error
        try:
            file_locks.lock(self._stream, wait=False)
        except OSError as error:
            self._stream.close()
            if error.errno not in file_locks.HELD:
                raise GalleryNotWritable(
                    f"{folder} cannot be locked: {error.strerror or error}",
                    "keep the gallery on a local disk, not on a network share",
                ) from error
            raise GalleryLocked(f"{folder} is open for writing already") from error

    def release(self) -> None:
        """Release the lock; the file stays, because removing it could race."""
        with contextlib.suppress(OSError):
            file_locks.unlock(self._stream)
        self._stream.close()
