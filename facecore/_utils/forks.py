"""What a child of ``os.fork`` inherits and can neither use nor close."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref

__all__ = ["FORK_LOCK", "leak_in_children"]

FORK_LOCK = threading.RLock()
"""Hold it during work that must not be half done in a child: a fork waits for it."""

_things: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
_alive: list[object] = []  # during a fork: other threads' objects end before the child's hook


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


def _after() -> None:
    _alive.clear()
    FORK_LOCK.release()


def _in_child() -> None:
    for thing in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
