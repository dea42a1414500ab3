"""Protect objects and locks that a child of ``os.fork`` can neither use nor close."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from typing import Any

__all__ = ["FORK_LOCK", "leak_in_children"]

FORK_LOCK = threading.RLock()
"""Hold this lock during work that a fork must not interrupt: a fork waits for it."""

_things: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
_alive: list[object] = []  # during a fork: keeps other threads' objects for the child's hook
_opencv_threads: list[int] = []  # during a fork: the number that OpenCV may use


def leak_in_children(thing: object) -> None:
    """Never free an object in a forked child, not even when its interpreter ends.

    Closing an ONNX Runtime session there waits for threads that only the parent has, and closing
    an SQLite connection may remove the log of a database that the parent writes.
    """
    _things[id(thing)] = thing


def _before() -> None:
    FORK_LOCK.acquire()
    found = [reference() for reference in _things.valuerefs()]
    _alive[:] = [thing for thing in found if thing is not None]
    # A worker of OpenCV's pool may hold the pool's mutex now.  A child would inherit the mutex
    # locked, and wait for it at exit.  With one thread, the pool ends its workers.
    cv2: Any = sys.modules.get("cv2")
    if hasattr(cv2, "getNumThreads") and (count := cv2.getNumThreads()) > 1:
        _opencv_threads.append(count)
        cv2.setNumThreads(1)


def _after() -> None:
    if _opencv_threads:
        sys.modules["cv2"].setNumThreads(_opencv_threads.pop())
    _alive.clear()
    FORK_LOCK.release()


def _in_child() -> None:
    for thing in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
