"""Approximate search: candidates from hnswlib's graph, compared again in float64."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore._utils.cpus import usable_cpus
from facecore._utils.rwlock import ReadersWriterLock
from facecore.errors import IndexCorrupt
from facecore.gallery.index import hnsw_files
from facecore.gallery.index.hnsw_files import MAX_ROWS, REMOVED, HnswFiles
from facecore.gallery.index.hnsw_graph import MAX_M, Graph, new_hnswlib
from facecore.gallery.index.idmap import IdMap
from facecore.gallery.validation import as_count, as_ids, as_labels, as_rows, writes_into
from facecore.matching.similarity import MAX_DIMENSION, as_probes, dots

__all__ = ["HnswIndex"]

Array = NDArray[Any]
Answers = tuple[Array, Array]  # ids and similarities, both (probes, most)

# With this and a graph of default parameters, recall@1 was at least 0.999 and recall@5 at least
# 0.995 among 20,000 and 100,000 faces (`python -m benchmarks hnsw`); with 200, recall@5 was lower.
_EF_SEARCH = 400
_LEAST_CAPACITY = 1024
_BLOCK = 1 << 13  # rows added at a time
_SCANNED = 1 << 15  # rows compared at a time without the graph
_PROBES = 16  # probes per pass without the graph
_SPARE = 8  # candidates beyond k: hnswlib ranks by rounded similarities
# Rows compared without the graph in the time of one step of a graph search.
_ROWS_PER_STEP = 20


class HnswIndex:
    """Approximate index: finds most of `ExactIndex`'s results; search time hardly grows with size.

    Every returned similarity is computed in float64 from the row's own vector. Removed and
    replaced rows stay in the graph as intermediate nodes but never appear in results; `garbage`
    tells when to rebuild the index. If too few candidates qualify (removed, other labels), the
    search goes deeper, up to all rows that qualify.

    Parameters
    ----------
    dimension : int
        Length of the vectors, 1..8192.
    m : int
        Links per row, 2..512; twice as many on the lowest level.
    ef_construction : int
        Width of the search for links when adding, at least 1.
    ef_search : int
        Width of a search, at least 1: more gives higher recall and takes longer.
    deterministic : bool
        Add with one thread, so that the same calls give the same graph, byte for byte. Each
        call adds rows in order of id.
    threads : int, optional
        Threads for adding and for searches with many vectors; all usable processors by default.

    Raises
    ------
    InvalidParameter
    MissingExtra
        hnswlib is not installed.

    Notes
    -----
    A removed vector is overwritten immediately in the index's own rows and is in no file that
    `save` writes. hnswlib keeps a copy in memory, which cannot be changed, for the lifetime of
    this object.
    """

    def __init__(
        self,
        dimension: int,
        *,
        m: int = 32,
        ef_construction: int = 200,
        ef_search: int = _EF_SEARCH,
        deterministic: bool = False,
        threads: int | None = None,
    ) -> None:
        self._dimension = as_count(dimension, "dimension", 1, MAX_DIMENSION)
        self._m = as_count(m, "m", 2, MAX_M)
        self._ef_construction = as_count(ef_construction, "ef_construction", 1, MAX_ROWS)
        self._ef_search = as_count(ef_search, "ef_search", 1, MAX_ROWS)
        self._threads = usable_cpus() if threads is None else as_count(threads, "threads", 1, 1024)
        self._adding_threads = 1 if deterministic else self._threads
        self._lock = ReadersWriterLock()
        # A row's number is its label in hnswlib and is never reused.
        self._count = 0
        self._ids = np.empty(0, np.int64)
        self._labels = np.empty(0, np.int32)
        self._vectors = np.empty((0, self._dimension), np.float32)
        self._map = IdMap()
        self._sizes: Counter[int] = Counter()  # rows of each label
        self._live = 0  # rows of all labels
        self._hnswlib: Any = new_hnswlib(
            self._dimension, self._m, self._ef_construction, capacity=1
        )
        self._widen()

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    @property
    def parameters(self) -> dict[str, int]:
        """Construction parameters of the graph: ``m`` and ``ef_construction``."""
        return {"m": self._m, "ef_construction": self._ef_construction}

    @property
    def garbage(self) -> float:
        """Share of the graph's rows that are removed or replaced, 0..1."""
        return 1 - len(self) / self._count if self._count else 0.0

    def __len__(self) -> int:
        return self._live

    def add(
        self,
        ids: ArrayLike,
        vectors: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Add rows, or replace them; see `Index.add`.

        Searches run between blocks of rows and find the blocks added so far.

        Parameters
        ----------
        ids, vectors, labels
            As in `Index.add`.
        progress : callable, optional
            Called after each block with its number of rows.

        Raises
        ------
        InvalidParameter
            An argument is invalid; nothing was added.
        IndexCorrupt
            hnswlib failed; rebuild the index.
        """
        keys, new, of = as_rows(ids, vectors, labels, self._dimension)
        order = np.argsort(keys, kind="stable")
        for start in range(0, len(keys), _BLOCK):
            part = order[start : start + _BLOCK]
            with self._lock.writing():
                self._add(keys[part], new[part], of[part])
            if progress:
                progress(len(part))

    def remove(self, ids: ArrayLike) -> int:
        """Remove rows; see `Index.remove`."""
        keys = np.unique(as_ids(ids))
        with self._lock.writing():
            rows = self._map.rows(keys)
            keys, rows = keys[rows >= 0], rows[rows >= 0]
            self._retire(rows)
            self._map.put(keys, np.full(len(keys), -1))
            self._widen()
            return len(keys)

    def search(
        self, vectors: ArrayLike, k: int, labels: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the k most similar rows; see `Index.search`.

        Raises
        ------
        InvalidParameter
        """
        probes, alone = as_probes(vectors, self._dimension)
        k = as_count(k, "k", 1)
        wanted = None if labels is None else np.unique(as_labels(labels))
        with self._lock.reading():
            ids, similarities = self._search(probes, k, wanted)
        return (ids[0], similarities[0]) if alone else (ids, similarities)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index's files into an existing empty folder.

        Raises
        ------
        InvalidParameter
            A file cannot be written.
        """
        folder = Path(folder)
        with self._lock.reading(), writes_into(folder):
            graph, order = None, np.empty(0, np.int64)
            if self._hnswlib.element_count:
                graph, order = Graph.of(self._hnswlib)
            saved = HnswFiles(
                self._dimension,
                self._m,
                self._ef_construction,
                graph,
                self._ids,
                self._labels,
                self._vectors,
            )
            hnsw_files.save(folder, saved, order)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        ef_search: int = _EF_SEARCH,
        deterministic: bool = False,
        threads: int | None = None,
    ) -> Self:
        """Load an index written by `save`, with its saved ``m`` and ``ef_construction``.

        Raises
        ------
        IndexCorrupt
            The files are missing, damaged or contradict each other.
        InvalidParameter, MissingExtra
        """
        saved = hnsw_files.load(Path(folder))
        index = cls(
            saved.dimension,
            m=saved.m,
            ef_construction=saved.ef_construction,
            ef_search=ef_search,
            deterministic=deterministic,
            threads=threads,
        )
        if saved.graph is None:
            return index
        index._count = len(saved.ids)
        index._ids, index._labels, index._vectors = saved.ids, saved.labels, saved.vectors
        rows = np.flatnonzero(saved.ids != REMOVED)
        index._map.put(saved.ids[rows], rows)
        index._sizes.update(_counted(saved.labels[rows]))
        index._live = len(rows)
        index._hnswlib = saved.graph.to_hnswlib(saved.vectors)
        index._widen()
        return index

    def _add(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> None:
        old = self._map.rows(ids)
        same = old >= 0
        same[same] = (self._vectors[old[same]] == vectors[same]).all(axis=1)
        self._relabel(old[same], labels[same])
        ids, vectors, labels, old = ids[~same], vectors[~same], labels[~same], old[~same]
        if not len(ids):
            return
        rows = self._count + np.arange(len(ids))
        try:
            self._reserve(self._count + len(ids))
            # Written as removed first, so that an interruption leaves no partial row visible.
            self._ids[rows] = REMOVED
            self._vectors[rows], self._labels[rows] = vectors, labels
            self._count += len(ids)
            self._hnswlib.add_items(vectors, rows, num_threads=self._adding_threads)
        except RuntimeError as error:
            raise IndexCorrupt(f"hnswlib could not add {len(ids)} rows: {error}") from error
        self._retire(old[old >= 0])
        self._ids[rows] = ids
        self._map.put(ids, rows)
        self._sizes.update(_counted(labels))
        self._live += len(ids)
        self._widen()

    def _reserve(self, count: int) -> None:
        capacity = len(self._ids)
        if count > capacity:
            capacity = max(count, capacity + capacity // 2, _LEAST_CAPACITY)
            for name in ("_ids", "_labels", "_vectors"):
                old = getattr(self, name)
                new = np.empty((capacity, *old.shape[1:]), old.dtype)
                new[: self._count] = old[: self._count]
                setattr(self, name, new)
        if capacity > self._hnswlib.max_elements:
            # Moves hnswlib's memory; the write lock excludes searches meanwhile.
            self._hnswlib.resize_index(capacity)

    def _relabel(self, rows: NDArray[np.int64], labels: NDArray[np.int32]) -> None:
        self._sizes -= _counted(self._labels[rows])
        self._labels[rows] = labels
        self._sizes.update(_counted(labels))

    def _retire(self, rows: NDArray[np.int64]) -> None:
        # hnswlib's own deletion marks are not used: they slow its searches, and an insertion that
        # reaches only deleted rows reads past an empty list.
        self._sizes -= _counted(self._labels[rows])
        self._live -= len(rows)
        self._ids[rows] = REMOVED
        self._labels[rows] = 0
        self._vectors[rows] = 0

    def _widen(self) -> None:
        # Widen for removed rows, which use up width; hnswlib does not save `ef`.
        live = max(len(self), 1)
        self._hnswlib.set_ef(math.ceil(self._ef_search * max(self._count, 1) / live))

    def _search(self, probes: Array, k: int, labels: Array | None) -> Answers:
        there = len(self) if labels is None else sum(self._sizes[n] for n in labels.tolist())
        most = min(k, there)
        if there == self._count and there > self._scannable(most + _SPARE):
            rows = self._reached(probes, most + _SPARE)
            if rows is not None:
                return _ranked(self._ids[rows], self._exact(rows, probes), most)
        # Depth for k qualifying rows: twice the expected depth, because the other rows are not
        # evenly spread. With labels, keeping the recall needs a search wider by the inverse share
        # of qualifying rows; `_widen` accounts for removed rows.
        wanted = 2 * most if labels is None else max(2 * most, self._ef_search)
        depth = -(-wanted * self._count // max(there, 1)) + _SPARE
        ids, exact = np.empty((len(probes), most), np.int64), np.empty((len(probes), most))
        pending = np.arange(len(probes) if most else 0)
        while len(pending):
            if there <= self._scannable(depth):
                found, enough = self._scan(probes[pending], most, labels), pending >= 0
            else:
                found, enough = self._walk(probes[pending], most, depth, labels)
            ids[pending[enough]], exact[pending[enough]] = found
            pending = pending[~enough]
            depth *= 4
        return ids, exact

    def _scannable(self, depth: int) -> int:
        """Return how many rows a scan compares in the time of a graph search of this depth."""
        return int(_ROWS_PER_STEP * max(self._hnswlib.ef, depth))

    def _counts(self, rows: Array | slice, labels: Array | None) -> Array:
        """Return a mask of the rows that qualify for the result."""
        counts: Array = self._ids[rows] != REMOVED
        if labels is not None:
            counts &= np.isin(self._labels[rows], labels)
        return counts

    def _walk(
        self, probes: Array, most: int, depth: int, labels: Array | None
    ) -> tuple[Answers, Array]:
        """Search the graph to `depth`; return results and mask of the probes with enough rows."""
        # hnswlib's filter callback takes twice the time at half of the rows and blocks other
        # threads, because every call needs the interpreter lock.
        rows = self._reached(probes, depth)
        if rows is None:
            none = np.empty((0, most), np.int64), np.empty((0, most))
            return none, np.zeros(len(probes), bool)
        counts = self._counts(rows, labels)
        enough = counts.sum(axis=1) >= most
        rows, counts = rows[enough], counts[enough]
        first = np.argsort(~counts, axis=1, kind="stable")[:, : most + _SPARE]
        rows = _taken(rows, first)
        exact = self._exact(rows, probes[enough])
        exact[~_taken(counts, first)] = -np.inf
        return _ranked(self._ids[rows], exact, most), enough

    def _reached(self, probes: Array, depth: int) -> Array | None:
        try:
            rows = self._hnswlib.knn_query(probes, depth, num_threads=self._threads)[0]
        except RuntimeError:  # fewer rows are reachable
            return None
        return np.asarray(rows.view(np.int64))

    def _exact(self, rows: Array, probes: Array) -> Array:
        if len(rows) == 1:
            return dots(self._vectors[rows[0]], probes)[None]
        exact = np.empty(rows.shape)
        for part in _blocks(len(rows), max(1, _SCANNED // rows.shape[1])):
            exact[part] = dots(self._vectors[rows[part]], probes[part, None])
        return exact

    def _scan(self, probes: Array, most: int, labels: Array | None) -> Answers:
        """Search all rows that qualify, without the graph."""
        rows = np.flatnonzero(self._counts(slice(self._count), labels))
        ids, exact = np.empty((len(probes), most), np.int64), np.empty((len(probes), most))
        # Upper bound of the rounding error of D float32 products summed in any order; doubled
        # for the two rows compared.
        error = 2 * 1.01 * self._dimension * 2.0**-24
        for block in _blocks(len(probes), _PROBES):
            rough = np.empty((len(probes[block]), len(rows)), np.float32)
            for part in _blocks(len(rows), _SCANNED):
                rough[:, part] = probes[block] @ self._vectors[rows[part]].T
            for i, scores in enumerate(rough, start=block.start):
                worst = np.partition(scores, len(rows) - most)[len(rows) - most]
                near = rows[scores >= worst - error]
                fine = np.empty(len(near))
                for part in _blocks(len(near), _SCANNED):
                    fine[part] = dots(self._vectors[near[part]], probes[i])
                best = _ranked(self._ids[near][None], fine[None], most)
                ids[i], exact[i] = best[0][0], best[1][0]
        return ids, exact


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _counted(labels: NDArray[np.int32]) -> Counter[int]:
    names, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(names.tolist(), counts.tolist(), strict=True)))


def _ranked(ids: Array, exact: Array, most: int) -> Answers:
    """Sort each row best first, ties by lower id; clip similarities to -1..1."""
    best = np.lexsort((ids, -exact), axis=-1)[:, :most]
    exact = _taken(exact, best)
    np.minimum(exact, 1.0, out=exact)  # faster than np.clip for so few
    np.maximum(exact, -1.0, out=exact)
    return _taken(ids, best), exact


def _taken(rows: Array, columns: Array) -> Array:
    # Faster than np.take_along_axis, which takes as long as a short search.
    return rows[np.arange(len(rows))[:, None], columns]
