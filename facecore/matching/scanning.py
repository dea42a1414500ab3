"""Scan blocks of an array of codes on several threads, with NumPy or in machine code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facecore._utils.forks import FORK_LOCK
from facecore._utils.threads import submit
from facecore.matching.similarity import Candidates, Codes, Probes, scan_numpy
from facecore.models.registry import DEFAULT_PACK

__all__ = ["ScanBlock", "afford_numpy", "kernel", "scan", "warmup"]

CACHE_SWITCH = "FACECORE_KERNEL_CACHE"
# "numpy": never import Numba, which takes over 100 MB and, at first, a second to compile.
KERNELS_SWITCH = "FACECORE_KERNELS"

# Number of products (rows times probes) computed with NumPy before the process imports Numba and
# compiles.  They take about as long as compiling: a command that searches once never waits for
# the compiler, and a longer run takes at most twice the optimal time.
# `python -m benchmarks search` prints both times.
_NUMPY_PRODUCTS = 10_000_000
_ROOM = 1024
_kernels: dict[tuple[str, int], Callable[..., int]] = {}
_numpy_products = 0  # so far; an update lost to a race between threads is harmless


@dataclass(frozen=True, slots=True, eq=False)
class ScanBlock:
    """Block of rows that one thread scans at a time.

    Attributes
    ----------
    codes : Codes
    groups : ndarray, shape (N,), int32
    first : int
        Index of the first row.
    """

    codes: Codes
    groups: NDArray[np.int32]
    first: int


def scan(
    blocks: Sequence[ScanBlock],
    probes: Probes,
    k: int,
    allowed: NDArray[np.bool_],
    threads: int,
) -> list[Candidates]:
    """Collect the rows that can be among the k best of each probe.

    The calling thread takes part.  Helper threads come from a process-wide pool, which prevents
    concurrent searches from creating more threads than processors.

    Returns
    -------
    list of Candidates
        One for each thread, for `Candidates.merge`.
    """
    width = probes.values.shape[1]
    queue = iter(blocks)  # taking the next one is atomic
    found = [Candidates(len(probes), k) for _ in range(max(1, min(threads, len(blocks))))]
    products = sum(len(block.codes) for block in blocks) * len(probes)
    if ("scan", width) not in _kernels and afford_numpy(products):
        for block in queue:
            scan_numpy(block.codes, block.groups, allowed, probes, block.first, found[0])
        return found[:1]
    run = kernel("scan", width)
    asked = [submit(partial(_work, run, queue, allowed, probes, part)) for part in found[1:]]
    helpers = [helper for helper in asked if helper is not None]
    try:
        _work(run, queue, allowed, probes, found[0])
    finally:
        # Cancel helpers that have not started instead of waiting behind other searches.  Wait
        # for the others: they still read the caller's arrays.
        if helpers:
            wait([helper for helper in helpers if not helper.cancel()])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    return found


def warmup(*dimensions: int, cache: bool | None = None) -> None:
    """Compile the kernels for vectors of these dimensions now, not in the first large search.

    Call this at start-up in a process that searches large galleries.  Importing facecore
    compiles nothing, comparing two images needs no kernel, and NumPy searches small galleries.
    `FaceEngine.warmup` does this for its own pack, and runs the models once.  With the
    environment variable ``FACECORE_KERNELS=numpy``, NumPy searches all galleries and nothing is
    compiled (docs/small-machines.md).

    Parameters
    ----------
    *dimensions : int
        Dimensions of the embedders; by default that of the default pack.
    cache : bool, optional
        Whether to keep the machine code in the user's cache folder for later processes, which
        then load it in a fraction of the time.  Each version of the kernels, Numba, llvmlite and
        Python, and each kind of processor, uses a separate folder.  True by default; the
        environment variable ``FACECORE_KERNEL_CACHE=0`` changes that.
    """
    if not dimensions:
        from facecore.models.packs import find_pack

        dimensions = (find_pack(DEFAULT_PACK).embedder.output.dimension,)
    for dimension in () if _never_compile() else dimensions:
        kernel("scan", Codes.width(dimension), cache)


def kernel(
    name: Literal["scan", "pairs"], width: int = 0, cache: bool | None = None
) -> Callable[..., int]:
    """Return a kernel of `compile_kernel`; compile it on the first call."""
    if cache is None:
        cache = os.environ.get(CACHE_SWITCH, "") != "0"
    if (name, width) not in _kernels:
        with FORK_LOCK:  # a forked child would inherit Numba's locks in a locked state
            if (name, width) not in _kernels:
                from facecore.matching.kernels import cache_folder, compile_kernel

                folder = cache_folder() if cache else None
                _kernels[name, width] = compile_kernel(name, width, folder)
    return _kernels[name, width]


def _never_compile() -> bool:
    return os.environ.get(KERNELS_SWITCH) == "numpy"


def afford_numpy(products: int) -> bool:
    """Whether to compute `products` with NumPy instead of compiling; if so, count them."""
    global _numpy_products
    if _never_compile():
        return True
    if _numpy_products + products > _NUMPY_PRODUCTS:
        return False
    _numpy_products += products
    return True


def _work(
    run: Callable[..., int],
    queue: Iterator[ScanBlock],
    allowed: NDArray[np.bool_],
    probes: Probes,
    found: Candidates,
) -> None:
    for block in queue:
        codes, row = block.codes, 0
        while row < len(codes):
            row = run(
                codes.values,
                codes.scales,
                codes.errors,
                block.groups,
                allowed,
                probes.values,
                probes.scales,
                probes.gains,
                probes.offsets,
                block.first,
                row,
                found.best,
                found.rows,
                found.lower,
                found.upper,
                found.counts,
            )
            if row < len(codes):
                found.make_room(_ROOM)
