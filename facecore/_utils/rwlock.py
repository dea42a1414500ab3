"""Readers–writer lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["ReadersWriterLock"]

# Seconds until a waiting thread looks again: a second Ctrl-C may keep the first from waking it.
_PATIENCE = 0.5


class _Use(NamedTuple):
    writes: bool
    inside: bool
    arrived: int  # value of `_writes` then


class ReadersWriterLock:
    """Readers–writer lock without starvation: many readers or one writer.

    A reader that arrives while a writer waits lets the writer go first.  When a writer leaves,
    all readers waiting at that moment go before the next writer.

    Not re-entrant: a thread that holds the lock, for reading or writing, and requests it again
    may deadlock.

    An exception of a signal handler (Ctrl-C) leaves the lock intact.  Python runs handlers between
    calls of C code, so one such call marks a thread as inside, and another one as gone.
    `threading.Condition`, written in Python, may lose its mutex.

    Examples
    --------
    >>> lock = ReadersWriterLock()
    >>> with lock.reading():
    ...     pass
    >>> with lock.writing():
    ...     pass
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._uses: dict[object, _Use] = {}  # of all that are inside or wait
        self._bells: list[threading.Lock] = []  # each is released to wake one waiting thread
        self._writes = 0  # number of writers that left

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock for reading, shared with other readers."""
        me = object()
        try:
            self._enter(me, writes=False)
            yield
        finally:
            self._uses.pop(me, None)
            self._wake()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for writing, exclusively."""
        me = object()
        try:
            self._enter(me, writes=True)
            yield
        finally:
            self._writes += 1
            self._uses.pop(me, None)
            self._wake()

    def _enter(self, me: object, *, writes: bool) -> None:
        arrived = self._writes
        while True:
            with self._mutex:
                if self._is_free(me, writes=writes, arrived=arrived):
                    self._uses[me] = _Use(writes, True, arrived)
                    return
                self._uses[me] = _Use(writes, False, arrived)
                bell = threading.Lock()
                bell.acquire()
                self._bells.append(bell)
            bell.acquire(timeout=_PATIENCE)

    def _is_free(self, me: object, *, writes: bool, arrived: int) -> bool:
        for who, use in list(self._uses.items()):
            if who is me:
                continue
            if use.inside:
                blocks = use.writes or writes
            elif writes:
                blocks = not use.writes and use.arrived != self._writes
            else:
                blocks = use.writes and arrived == self._writes
            if blocks:
                return False
        return True

    def _wake(self) -> None:
        with self._mutex:
            bells, self._bells = self._bells, []
        for bell in bells:
            bell.release()
