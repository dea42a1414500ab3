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

# Products (rows times probes) that a process leaves to NumPy before it imports Numba and compiles:
# they take about as long as that does, so that a command that searches once never waits for a
# compiler, and one that searches on never takes more than twice as long as it had to.
# `python -m benchmarks search` prints both times.
_NUMPY_PRODUCTS = 10_000_000
_ROOM = 1024
_kernels: dict[tuple[str, int], Callable[..., int]] = {}
_numpy_products = 0  # so far; a lost count of two threads at once does no harm


@dataclass(frozen=True, slots=True, eq=False)
class ScanBlock:
    """Rows that one thread scans in one go.

    Attributes
    ----------
    codes : Codes
    groups : ndarray, shape (N,), int32
    first : int
        Number of the first row.
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

    The calling thread does its share; helpers come from one pool for the whole process, so that
    many searches at once do not make more threads than there are processors.

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
        # One that has not begun has nothing left to do: do not wait behind other searches.
        # The others still read the caller's arrays.
        if helpers:
            wait([helper for helper in helpers if not helper.cancel()])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    return found


def warmup(*dimensions: int, cache: bool | None = None) -> None:
    """Compile the kernels for vectors of these dimensions now, not in the first large search.

    Importing facecore compiles nothing, comparing two images needs no kernel, and small galleries
    are searched with NumPy; a process that will search large ones calls this when it starts.
    `FaceEngine.warmup` does this for its own pack, and runs the models once.

    Parameters
    ----------
    *dimensions : int
        Of the embedders that will be used; by default that of the default pack.
    cache : bool, optional
        Whether the machine code is kept in the user's cache folder for the next process. Each
        version of the kernels, Numba, llvmlite and Python has a folder of its own, so that none
        ever runs another's. If not given, the environment says: ``FACECORE_KERNEL_CACHE=1``.
    """
    if not dimensions:
        from facecore.models.packs import find_pack

        dimensions = (find_pack(DEFAULT_PACK).embedder.output.dimension,)
    for dimension in dimensions:
        kernel("scan", Codes.width(dimension), cache)


def kernel(
    name: Literal["scan", "pairs"], width: int, cache: bool | None = None
) -> Callable[..., int]:
    """A kernel of `facecore.matching.kernels` for codes of so many columns, compiled once."""
    if cache is None:
        cache = os.environ.get(CACHE_SWITCH, "") == "1"
    if (name, width) not in _kernels:
        with FORK_LOCK:  # a child would inherit Numba's locks and nobody to release them
            if (name, width) not in _kernels:
                from facecore.matching.kernels import cache_folder, compile_kernel

                folder = cache_folder() if cache else None
                _kernels[name, width] = compile_kernel(name, width, folder)
    return _kernels[name, width]


def afford_numpy(products: int) -> bool:
    """Whether so many products are still cheaper in NumPy than compiling a kernel first."""
    global _numpy_products
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
