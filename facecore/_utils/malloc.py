"""Release free heap pages to the OS after large images (glibc)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from time import monotonic

__all__ = ["LARGE", "malloc_trim", "trim_heap"]

LARGE = 1_500_000
"""Minimum number of pixels for which trimming is worthwhile."""

_PAUSE = 1.0  # seconds; after trimming, the next large picture must fault in every page again

_last = -_PAUSE


def trim_heap() -> None:
    """Release the free pages of all heaps to the OS, at most once per second.

    On Linux, glibc raises its mmap threshold to up to 32 MB after freeing mapped blocks.  The
    pixels and tensors of large pictures then come from per-thread heaps, which fragment and grow.
    Does nothing on other systems.
    """
    global _last
    now = monotonic()
    trim = malloc_trim()
    if trim is not None and now - _last >= _PAUSE:
        _last = now
        trim(0)


@cache
def malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim(3)`, or None for another C library."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):  # no libffi, a static build, musl
        return None
    trim.argtypes = [ctypes.c_size_t]
    return trim
