"""Readers–writer lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ReadersWriterLock"]


class ReadersWriterLock:
    """Readers–writer lock without starvation: many readers or one writer.

    A reader that arrives while a writer waits lets the writer go first.  When a writer leaves,
    all readers waiting at that moment go before the next writer.

    Not re-entrant: a thread that holds the lock, for reading or writing, and requests it again
    may deadlock.

    Examples
    --------
    >>> lock = ReadersWriterLock()
    >>> with lock.reading():
    ...     pass
    >>> with lock.writing():
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._readers = 0  # inside
        self._writer = False  # inside
        self._readers_waiting = 0
        self._writers_waiting = 0
        self._due = 0  # readers that waited when the last writer left: they precede the next writer
        self._writes = 0  # number of finished writes

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock for reading, shared with other readers."""
        with self._changed:
            self._enter_reading()
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers and self._writers_waiting:
                    self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for writing, exclusively."""
        with self._changed:
            self._enter_writing()
        try:
            yield
        finally:
            with self._changed:
                self._writer = False
                self._writes += 1
                self._due = self._readers_waiting
                self._changed.notify_all()

    def _enter_reading(self) -> None:
        if self._writer or self._writers_waiting:
            arrived = self._writes
            self._readers_waiting += 1
            try:
                while self._writer or (self._writers_waiting and self._writes == arrived):
                    self._changed.wait()
            finally:  # also if Ctrl-C interrupts the wait
                self._readers_waiting -= 1
                if self._writes != arrived and self._due:
                    self._due -= 1
                self._changed.notify_all()
        self._readers += 1

    def _enter_writing(self) -> None:
        self._writers_waiting += 1
        try:
            while self._writer or self._readers or self._due:
                self._changed.wait()
        finally:
            self._writers_waiting -= 1
            self._changed.notify_all()  # an interrupted writer must not block readers
        self._writer = True
