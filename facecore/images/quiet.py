"""Contexts that silence decoders and override Pillow's global settings."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["quiet", "strict_pillow"]


_MOST_PIXELS = 2**28


class _Window:
    """A reentrant context manager that changes process-wide state while any thread is inside.

    Parameters
    ----------
    change : callable
        Makes the change and returns a function that undoes it.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._change = change
        self._undo: Callable[[], None] | None = None
        self._inside = 0
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo = self._change()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._undo is not None:
                self._undo()

    def _reset(self) -> None:
        """Reset a forked child: it has no other threads, and a held lock is never released."""
        if self._inside and self._undo is not None:
            self._undo()
        self._inside, self._lock = 0, threading.Lock()


def _silence() -> Callable[[], None]:
    """Suppress standard error of C libraries and OpenCV's log.

    libjpeg, libpng and libtiff print warnings about a file, and OpenCV's builds cannot disable
    them. This changes the C library's ``stderr`` pointer, which glibc allows, and not the file
    descriptor, so Python's standard error still works. Other C libraries keep printing.
    """
    import cv2

    logging: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # before OpenCV 5
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    place, nowhere = _c_stderr()
    before = None
    if place is not None:
        before, place.value = place.value, nowhere

    def undo() -> None:
        if place is not None:
            place.value = before
        logging.setLogLevel(level)

    return undo


@cache
def _c_stderr() -> tuple[ctypes.c_void_p | None, int | None]:
    """Return the C library's variable ``stderr`` and a stream to the null device."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", ()):
        return None, None
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    nowhere = library.fopen(os.devnull.encode(), b"we")
    if not nowhere:
        return None, None
    return ctypes.c_void_p.in_dll(library, "stderr"), nowhere


def _be_strict() -> Callable[[], None]:
    """Make Pillow reject truncated files, and suppress all warnings."""
    from PIL import Image, ImageFile

    truncated, filters = ImageFile.LOAD_TRUNCATED_IMAGES, warnings.catch_warnings()
    most = Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if most is not None:  # `Limits` applies here; other threads keep some protection
        Image.MAX_IMAGE_PIXELS = max(most, _MOST_PIXELS)
    filters.__enter__()
    warnings.simplefilter("ignore")

    def undo() -> None:
        filters.__exit__(*sys.exc_info())
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
        Image.MAX_IMAGE_PIXELS = most

    return undo


quiet = _Window(_silence)
"""Context in which decoders print nothing."""

strict_pillow = _Window(_be_strict)
"""Context in which Pillow's global settings and Python's warning filters have no effect."""
