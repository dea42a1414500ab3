"""Numba kernels that scan codes; importing this module imports Numba.

Each width gets its own scan kernel: with a constant number of columns, LLVM compiles the product of
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

from facecore.matching import tiles
from facecore.matching.tiles import PROBES, ROWS, multiply_tile
from facecore.models.registry import cache_root

__all__ = ["cache_folder", "compile_kernel"]

log = logging.getLogger("facecore.matching")

_CHUNK = 128  # rows that stay in the L1 or L2 cache while each probe passes over them
_SCAN_SIGNATURE = (
    "int64(int8[:,::1], float32[::1], float32[::1], int32[::1], boolean[::1], "
    "int16[:,::1], float32[::1], float32[::1], float32[::1], int64, int64, "
    "float32[:,::1], int64[:,::1], float32[:,::1], float32[:,::1], int64[::1])"
)
_PAIRS_SIGNATURE = (
    "int64(int16[:,:,::1], int32[:,::1], int64, int64, int64, int32, "
    "int32[:,::1], int32[::1], int32[::1])"
)


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
    own folder: machines that share a home directory never load each other's code.  Write access
    to the folder, or to the one around it, allows running code in this process.  So both must
    belong to this user, and others may not write to them.  The user's cache folder is trusted.
    """
    try:
        code = b"".join(Path(file).read_bytes() for file in (__file__, tiles.__file__))
    except OSError:  # a frozen application has no source files
        return None
    source = hashlib.sha256(code).hexdigest()[:12]
    python = "".join(map(str, sys.version_info[:2]))
    processor = str(cpu_target.target_context.codegen().magic_tuple())  # the target of Numba
    name = (
        f"numba{numba.__version__}-llvmlite{version('llvmlite')}-py{python}-{source}"
        f"-{platform.machine()}-{hashlib.sha256(processor.encode()).hexdigest()[:12]}"
    )
    folder = cache_root().parent / "kernels" / name
    try:
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if hasattr(os, "geteuid") and path.lstat().st_uid != os.geteuid():
                return None
        folder.parent.chmod(0o700)  # earlier versions left it to the umask
        if hasattr(os, "geteuid") and folder.lstat().st_mode & 0o022:
            return None
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def compile_kernel(name: str, width: int = 0, cache: Path | None = None) -> Callable[..., int]:
    """Compile a kernel.

    Parameters
    ----------
    name : {"scan", "pairs"}
    width : int
        Columns of the codes that the kernel "scan" takes; "pairs" takes any.
    cache : Path, optional
        Folder that keeps the machine code for the next process.  Has no effect if it cannot be
        read or written.
    """
    build = {"scan": _build_scan, "pairs": _build_pairs}[name]
    if cache is not None:
        config: Any = numba.config
        before = config.CACHE_DIR
        config.CACHE_DIR = str(cache)  # read while the kernel is decorated
        try:
            return build(width, True)
        except Exception as error:  # a full disk, a damaged file
            log.warning("%s: the kernels' machine code is not cached: %s", cache, error)
            shutil.rmtree(cache, ignore_errors=True)  # the next process creates it again
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


def _build_pairs(_: int, cache: bool) -> Callable[..., int]:
    @njit(_PAIRS_SIGNATURE, nogil=True, cache=cache)
    def pairs(
        rows: Any,
        probes: Any,
        row: int,
        probe: int,
        head: int,
        least: int,
        sums: Any,
        first: Any,
        second: Any,
    ) -> int:
        """List the pairs of rows and probes that may reach `least`; see `facecore.matching.pairs`.

        `rows` and `probes` are those of `multiply_tile`.  Row indices start at `row`, probe
        indices at `probe`; only pairs whose row index is below the probe index count.  The first
        `head` steps bound the product, all steps but the first one compute it.
        """
        count, steps = 0, rows.shape[1]
        for block in range(len(rows)):
            for p in range(0, len(probes), PROBES):
                if not multiply_tile(rows, block, probes, p, 0, head, least, sums):
                    continue
                if not multiply_tile(rows, block, probes, p, 1, steps, least, sums):
                    continue
                for i in range(ROWS):
                    for j in range(PROBES):
                        a, b = row + block * ROWS + i, probe + p + j
                        if sums[j, i] >= least and a < b:
                            first[count], second[count] = a, b
                            count += 1
        return count

    return pairs
