"""Scan pieces of an array of codes on several threads, with NumPy or in machine code."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore.matching.similarity import Candidates, Codes, Probes, scan_numpy
from facecore.models.cpus import usable_cpus

__all__ = ["Piece", "kernel", "scan"]

# Up to so many products (rows times probes) NumPy answers in about 5 ms, and Numba is imported and
# compiles for a second: `python -m benchmarks search --switch` measures both.
_NUMPY_PRODUCTS = 50_000
_ROOM = 1024
_kernels: dict[int, Callable[..., int]] = {}
_compiling = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
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
    pieces: Sequence[Piece],
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
    rows = sum(len(piece.codes) for piece in pieces)
    width = probes.values.shape[1]
    plain = rows * len(probes) <= _NUMPY_PRODUCTS and width not in _kernels
    queue = iter(pieces)  # taking the next one is atomic
    found = [Candidates(len(probes), k) for _ in range(max(1, min(threads, len(pieces))))]
    if plain:
        _work_numpy(queue, allowed, probes, found[0])
        return found[:1]
    run = kernel(width)
    helpers = [
        _pool().submit(_work_compiled, run, queue, allowed, probes, part) for part in found[1:]
    ]
    try:
        _work_compiled(run, queue, allowed, probes, found[0])
    finally:
        # One that has not begun has nothing left to do: do not wait behind other searches.
        # The others still read the caller's arrays.
        wait([helper for helper in helpers if not helper.cancel()])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    return found


def kernel(width: int, cache: Path | None = None) -> Callable[..., int]:
    """Compile the scan of codes of so many columns, once in a process.

    Parameters
    ----------
    width : int
    cache : Path, optional
        Folder that keeps the machine code for the next process.
    """
    with _compiling:
        if width not in _kernels:
            from facecore.matching.kernels import compile_scan

            _kernels[width] = compile_scan(width, cache)
        return _kernels[width]


def _work_numpy(
    queue: Iterator[Piece], allowed: NDArray[np.bool_], probes: Probes, found: Candidates
) -> None:
    for piece in queue:
        scan_numpy(piece.codes, piece.groups, allowed, probes, piece.first, found)


def _work_compiled(
    run: Callable[..., int],
    queue: Iterator[Piece],
    allowed: NDArray[np.bool_],
    probes: Probes,
    found: Candidates,
) -> None:
    for piece in queue:
        codes, row = piece.codes, 0
        while row < len(codes):
            row = run(
                codes.values,
                codes.scales,
                codes.errors,
                piece.groups,
                allowed,
                probes.values,
                probes.scales,
                probes.gains,
                probes.offsets,
                piece.first,
                row,
                found.best,
                found.rows,
                found.lower,
                found.upper,
                found.counts,
            )
            if row < len(codes):
                found.make_room(_ROOM)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cpus(), thread_name_prefix="facecore-scan")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
