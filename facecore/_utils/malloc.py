"""Keep free heap pages between images, and release them after large ones (glibc)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from time import monotonic

import numpy as np

__all__ = ["LARGE", "keep_pages", "malloc_trim", "trim_heap"]

LARGE = 1_500_000
"""Minimum number of pixels for which trimming is worthwhile."""

_KEPT = 16 << 20  # bytes; half of the largest block that raises glibc's thresholds

_PAUSE = 1.0  # seconds; after trimming, the next large picture must fault in every page again

_last = -_PAUSE


@cache
def keep_pages() -> None:
    """Make glibc keep up to 32 MB of free pages at the end of each heap.

    Its default is 128 KiB.  Then pixels and tensors go back to the OS after each image, and the
    next image faults in up to a thousand pages.  Freeing one mapped block raises glibc's mmap
    threshold to the block's size and its trim threshold to twice that (`mallopt(3)`); glibc does
    the same after any image of that size.  Other C libraries ignore this.
    """
    np.empty(_KEPT, np.uint8)


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
