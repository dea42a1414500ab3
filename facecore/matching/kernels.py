"""Numba kernels that scan 8-bit codes; importing this module imports Numba.

Each width gets its own kernel: with a constant number of columns, LLVM compiles the product of
8-bit codes and 16-bit probes to vector multiply-add instructions on x86 (``vpmaddwd``,
``vpdpwssd``).  The casts of products to 32 bits are needed: unlike C, Numba widens products to
64 bits, which makes the loop three times slower.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
from numba import float32, int32, njit, uintp
from numba.core.registry import cpu_target

from facecore.models.registry import cache_root

__all__ = ["PAIRS_HEAD", "cache_folder", "compile_kernel"]

log = logging.getLogger("facecore.matching")

_CHUNK = 128  # rows that stay in the L1 cache while each probe passes over them
_SCAN_SIGNATURE = (
    "int64(int8[:,::1], float32[::1], float32[::1], int32[::1], boolean[::1], "
    "int16[:,::1], float32[::1], float32[::1], float32[::1], int64, int64, "
    "float32[:,::1], int64[:,::1], float32[:,::1], float32[:,::1], int64[::1])"
)
_PAIRS_SIGNATURE = (
    "int64(int8[:,::1], float32[::1], float32[::1], float32[::1], "
    "int16[:,::1], float32[::1], float32[::1], float32[::1], "
    "int64, int64, float32, int32[::1], int32[::1])"
)
PAIRS_HEAD = 64  # columns that the pair kernel checks first


@njit(nogil=True)
def _replace_least(heap: Any, k: int, value: Any) -> None:
    """Replace the root of a min-heap by a greater value."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@njit(nogil=True)
def _drop(least: Any, rows: Any, lower: Any, upper: Any, count: int) -> int:
    """Remove rows that can no longer be among the best and return the number left."""
    left = 0
    for c in range(count):
        if upper[c] >= least:
            rows[left], lower[left], upper[left] = rows[c], lower[c], upper[c]
            left += 1
    return left


def cache_folder() -> Path | None:
    """Create the cache folder for this version's machine code; None if it must not be used.

    Each version of the kernels, Numba, llvmlite and Python, and each kind of processor, has its
    own folder: machines that share a home directory never load each other's code.  Who can write
    to the folder can run code in this process, so it must belong to this user alone.
    """
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    python = "".join(map(str, sys.version_info[:2]))
    processor = str(cpu_target.target_context.codegen().magic_tuple())  # as Numba compiles for
    name = (
        f"numba{numba.__version__}-llvmlite{version('llvmlite')}-py{python}-{source}"
        f"-{platform.machine()}-{hashlib.sha256(processor.encode()).hexdigest()[:12]}"
    )
    folder = cache_root().parent / "kernels" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        return None
    return folder if os.access(folder, os.W_OK) else None


def compile_kernel(name: str, width: int, cache: Path | None = None) -> Callable[..., int]:
    """Compile a kernel for codes of `width` columns.

    Parameters
    ----------
    name : {"scan", "pairs"}
    width : int
    cache : Path, optional
        Folder that keeps the machine code for the next process.  Without effect where it cannot
        be read or written.
    """
    build = {"scan": _build_scan, "pairs": _build_pairs}[name]
    if cache is not None:
        config: Any = numba.config
        before = config.CACHE_DIR
        config.CACHE_DIR = str(cache)  # read while the kernel is decorated
        try:
            return build(width, True)
        except Exception as error:  # a full disk, a damaged file
            log.warning("%s: the kernels' machine code is not kept: %s", cache, error)
            shutil.rmtree(cache, ignore_errors=True)  # the next process starts it again
        finally:
            config.CACHE_DIR = before
    return build(width, False)


def _build_scan(width: int, cache: bool) -> Callable[..., int]:
    @njit(_SCAN_SIGNATURE, nogil=True, cache=cache)
    def scan(
        values: Any,
        scales: Any,
        errors: Any,
        groups: Any,
        allowed: Any,
        probes: Any,
        probe_scales: Any,
        gains: Any,
        offsets: Any,
        first: int,
        start: int,
        best: Any,
        rows: Any,
        lower: Any,
        upper: Any,
        counts: Any,
    ) -> int:
        """Do the same as `scan_numpy` from row `start`; stop when the buffers are full."""
        k = best.shape[1]
        while start < len(values):
            stop = min(start + _CHUNK, len(values))
            for j in range(len(probes)):
                if counts[j] + (stop - start) > rows.shape[1]:
                    counts[j] = _drop(best[j, 0], rows[j], lower[j], upper[j], counts[j])
                    if counts[j] + (stop - start) > rows.shape[1]:
                        return start
            for j in range(len(probes)):
                least, count = best[j, 0], counts[j]
                scale, gain, offset = probe_scales[j], gains[j], offsets[j]
                for i in range(uintp(start), uintp(stop)):
                    total = int32(0)
                    for d in range(width):
                        product = int32(int32(values[i, d]) * int32(probes[j, d]))
                        total = int32(total + product)
                    similarity = float32(float32(total) * scales[i]) * scale
                    margin = errors[i] * gain + offset
                    if similarity + margin >= least and (len(allowed) == 0 or allowed[groups[i]]):
                        rows[j, count] = first + i
                        lower[j, count] = similarity - margin
                        upper[j, count] = similarity + margin
                        count += 1
                        if similarity - margin > least:
                            _replace_least(best[j], k, similarity - margin)
                            least = best[j, 0]
                counts[j] = count
            start = stop
        return start

    return scan


def _build_pairs(width: int, cache: bool) -> Callable[..., int]:
    head = min(PAIRS_HEAD, width)

    @njit(_PAIRS_SIGNATURE, nogil=True, cache=cache)
    def pairs(
        values: Any,
        scales: Any,
        margins: Any,
        tails: Any,
        probes: Any,
        probe_scales: Any,
        probe_margins: Any,
        probe_tails: Any,
        row: int,
        probe: int,
        least: float,
        rows: Any,
        others: Any,
    ) -> int:
        """List the pairs of a tile that may reach `least`; see `facecore.matching.pairs`.

        Row indices start at `row`, probe indices at `probe`; only pairs whose row index is below
        the probe index count.
        """
        count = 0
        for start in range(0, len(values), _CHUNK):
            for j in range(len(probes)):
                scale, wanted, tail = probe_scales[j], least - probe_margins[j], probe_tails[j]
                stop = min(start + _CHUNK, len(values), probe + j - row)
                for i in range(uintp(start), uintp(max(start, stop))):
                    total = int32(0)
                    for d in range(head):
                        product = int32(int32(values[i, d]) * int32(probes[j, d]))
                        total = int32(total + product)
                    factor = scales[i] * scale
                    if float32(total) * factor + margins[i] + tails[i] * tail < wanted:
                        continue
                    for d in range(head, width):
                        product = int32(int32(values[i, d]) * int32(probes[j, d]))
                        total = int32(total + product)
                    if float32(total) * factor + margins[i] >= wanted:
                        rows[count], others[count] = row + i, probe + j
                        count += 1
        return count

    return pairs
