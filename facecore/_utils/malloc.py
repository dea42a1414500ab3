"""What large pictures leave in the allocator's heaps goes back to the system."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from time import monotonic

__all__ = ["LARGE", "malloc_trim", "trim_heap"]

LARGE = 1_500_000
"""Pixels from which a picture is worth the call."""

_PAUSE = 1.0  # seconds: the next large picture pays for the first touch of every page again

_last = -_PAUSE


def trim_heap() -> None:
    """Return the free pages of all heaps to the system, at most once a second.

    On Linux, glibc raises the size from which it takes memory from the system directly, up to 32
    MB, once such pieces have been freed; from then on the pixels and tensors of large pictures
    come from heaps, one for each thread, which grow with their gaps.  Elsewhere nothing is done.
    """
    global _last
    now = monotonic()
    trim = malloc_trim()
    if trim is not None and now - _last >= _PAUSE:
        _last = now
        trim(0)


@cache
def malloc_trim() -> Callable[[int], int] | None:
    """`malloc_trim(3)` of glibc; None where the C library has none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):  # no libffi, a static build, musl
        return None
    trim.argtypes = [ctypes.c_size_t]
    return trim
