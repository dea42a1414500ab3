"""Operating system locks on open files, released when the holding process ends."""

from __future__ import annotations

import errno
import sys
import time
from typing import IO

__all__ = ["HELD", "lock", "unlock"]

HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""Values of ``OSError.errno`` for a lock held by someone else."""


def lock(stream: IO[bytes], *, wait: bool) -> None:
    """Lock an open file exclusively.

    Parameters
    ----------
    stream : binary file, open for writing
    wait : bool
        Wait until the lock is free.

    Raises
    ------
    OSError
        The lock is held (see `HELD`), or the file system does not support locks.
    """
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                stream.seek(0)
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait or error.errno not in HELD:
                    raise
                time.sleep(0.1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(stream: IO[bytes]) -> None:
    """Release a lock; raises OSError on failure."""
    if sys.platform == "win32":
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_UN)
