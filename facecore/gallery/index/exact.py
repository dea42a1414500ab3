"""Exact search: scan 8-bit codes, then compare the remaining candidates in float64."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from facecore._utils.cpus import usable_cpus
from facecore._utils.rwlock import ReadersWriterLock
from facecore.errors import IndexCorrupt, InvalidParameter
from facecore.gallery.index.idmap import IdMap
from facecore.gallery.validation import as_count, as_ids, as_labels, as_rows, writes_into
from facecore.matching.scanning import ScanBlock, scan
from facecore.matching.similarity import (
    MAX_DIMENSION,
    Candidates,
    Codes,
    as_probes,
    dots,
    encode,
    encode_probes,
)

__all__ = ["ExactIndex", "Fetch"]

Fetch = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Fields = dict[str, NDArray[Any]]

_PROBES = 16  # per scan of the codes
_BLOCK = 1 << 14  # rows encoded at a time
_MOST_FETCHED = 4096
_FILES = ("ids", "labels", "vectors")

# Adding never copies existing rows (a doubling array would) and allocates at most one chunk too
# many, of which the OS commits only the pages written.
_CHUNK = 1 << 16
_SCAN_BLOCK = 1 << 15  # rows that one thread scans at a time

# Fields of each row, in addition to its codes ("values") and, if kept, its "vectors".
_FIELDS: dict[str, type] = {
    "ids": np.int64,
    "scales": np.float32,
    "errors": np.float32,
    "groups": np.int32,
}


class ExactIndex:
    """Exact index: scans 8-bit codes, and gives the results of a float64 scan of all rows.

    The 8-bit codes give lower and upper bounds of every similarity
    (`facecore.matching.similarity`).  Each row whose upper bound reaches the k-th greatest lower
    bound is compared again in float64, so the result is exact for any vectors.  A row of D numbers
    takes D, rounded up to a multiple of 32, + 20 bytes without its vector, plus 12 for its id.

    Parameters
    ----------
    dimension : int
        Length of the vectors, 1..8192.
    keep_vectors : bool, default True
        Keep the float32 vectors.  Without them, every search needs `fetch`.
    threads : int, optional
        Threads per search; all usable processors by default.

    Raises
    ------
    InvalidParameter
    """

    def __init__(
        self, dimension: int, *, keep_vectors: bool = True, threads: int | None = None
    ) -> None:
        self._dimension = as_count(dimension, "dimension", 1, MAX_DIMENSION)
        self._threads = usable_cpus() if threads is None else as_count(threads, "threads", 1)
        self._lock = ReadersWriterLock()
        self._rows = _Rows(self._dimension, vectors=keep_vectors)
        self._map = IdMap()
        # Position of each label; rows store positions.
        self._groups: dict[int, int] = {}
        self._sizes = np.zeros(0, np.int64)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    def __len__(self) -> int:
        return self._rows.count

    def add(self, ids: ArrayLike, vectors: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Add rows, or replace them; see `Index.add`."""
        keys, new, of = as_rows(ids, vectors, labels, self._dimension)
        with self._lock.writing():
            for start in range(0, len(keys), _BLOCK):
                cut = slice(start, start + _BLOCK)
                self._add(keys[cut], new[cut], of[cut])

    def remove(self, ids: ArrayLike) -> int:
        """Remove rows; see `Index.remove`."""
        keys = np.unique(as_ids(ids))
        with self._lock.writing():
            rows = self._map.rows(keys)
            keys, rows = keys[rows >= 0], rows[rows >= 0]
            groups = np.asarray(self._rows.take("groups", rows), np.int32)
            moved, places = self._rows.remove(rows)
            self._map.put(
                np.concatenate((keys, moved)), np.concatenate((np.full_like(keys, -1), places))
            )
            self._sizes -= np.bincount(groups, minlength=len(self._sizes))
            return len(keys)

    def search(
        self,
        vectors: ArrayLike,
        k: int,
        labels: ArrayLike | None = None,
        *,
        fetch: Fetch | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the k most similar rows; see `Index.search`.

        Parameters
        ----------
        vectors, k, labels
            As in `Index.search`.
        fetch : callable, optional
            ``fetch(ids)`` returns the float32 vectors that were added, shape (n, D).  It is
            called in this thread while the lock is held, so it must not use this index.
            Required for an index without vectors.

        Raises
        ------
        InvalidParameter
        IndexCorrupt
            `fetch` returned vectors that differ from those added.
        """
        if fetch is None:
            if not self._rows.has_vectors:
                raise InvalidParameter("the index keeps no vectors", "call search with fetch=")
            fetch = self._kept
        probes, alone = as_probes(vectors, self._dimension)
        k = as_count(k, "k", 1)
        wanted = None if labels is None else np.unique(as_labels(labels))
        with self._lock.reading():
            ids, similarities = self._search(probes, k, wanted, fetch)
        return (ids[0], similarities[0]) if alone else (ids, similarities)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``ids.npy``, ``labels.npy`` and ``vectors.npy`` into an existing empty folder.

        Raises
        ------
        InvalidParameter
            The index keeps no vectors, or a file cannot be written.
        """
        folder = Path(folder)
        if not self._rows.has_vectors:
            raise InvalidParameter("the index keeps no vectors, so it cannot be saved")
        with self._lock.reading(), writes_into(folder):
            rows, names = np.arange(len(self)), np.array(list(self._groups), np.int32)
            labels = names[self._rows.take("groups", rows)]
            fields = self._rows.take("ids", rows), labels, self._rows.take("vectors", rows)
            for name, field in zip(_FILES, fields, strict=True):
                np.save(folder / f"{name}.npy", field)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, threads: int | None = None) -> Self:
        """Load an index written by `save`.

        Raises
        ------
        IndexCorrupt
            A file is missing or damaged, or the files contradict each other.
        InvalidParameter
            `threads` is invalid.
        """
        folder = Path(folder)
        threads = usable_cpus() if threads is None else as_count(threads, "threads", 1)
        try:
            ids, labels, vectors = (_read(folder / f"{name}.npy") for name in _FILES)
            index = cls(vectors.shape[-1], threads=threads)
            index.add(ids, vectors, labels)
        except Exception as error:  # NumPy's parser of headers raises many kinds
            raise IndexCorrupt(f"the index in {folder} cannot be read: {error}") from error
        return index

    def _add(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> None:
        codes = encode(vectors)
        names, inverse = np.unique(labels, return_inverse=True)
        for name in names.tolist():
            self._groups.setdefault(name, len(self._groups))
        new = np.zeros(len(self._groups) - len(self._sizes), np.int64)
        self._sizes = np.concatenate((self._sizes, new))
        places = np.array([self._groups[name] for name in names.tolist()], np.int32)
        groups = places[inverse]
        rows = self._map.rows(ids)
        old = np.asarray(self._rows.take("groups", rows[rows >= 0]), np.int32)
        added = rows < 0
        rows[added] = self._rows.count + np.arange(np.count_nonzero(added))
        fields: Fields = {
            "ids": ids,
            "groups": groups,
            "values": codes.values,
            "scales": codes.scales,
            "errors": codes.errors,
            "vectors": vectors,
        }
        self._rows.put(rows, fields)
        self._map.put(ids[added], rows[added])
        # Last: above, the memory can run out.
        count = len(self._sizes)
        self._sizes += np.bincount(groups, minlength=count) - np.bincount(old, minlength=count)

    def _search(
        self,
        probes: NDArray[np.float32],
        k: int,
        labels: NDArray[np.int32] | None,
        fetch: Fetch,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        allowed, there = np.empty(0, np.bool_), self._rows.count
        if labels is not None:
            allowed = np.zeros(len(self._sizes), np.bool_)
            allowed[[self._groups[n] for n in labels.tolist() if n in self._groups]] = True
            there = int(self._sizes[allowed].sum())
        most = min(k, there)
        ids = np.empty((len(probes), most), np.int64)
        similarities = np.empty((len(probes), most))
        if not most:
            return ids, similarities
        blocks = self._rows.blocks()
        for start in range(0, len(probes), _PROBES):
            block = probes[start : start + _PROBES]
            found = scan(blocks, encode_probes(block), most, allowed, self._threads)
            for j, probe in enumerate(block):
                rows, lower, upper = Candidates.merge(found, j)
                best, exact = self._best(probe, rows, lower, upper, most, fetch)
                ids[start + j] = best
                similarities[start + j] = np.clip(exact, -1, 1)
        return ids, similarities

    def _best(
        self,
        probe: NDArray[np.float32],
        rows: NDArray[np.int64],
        lower: NDArray[np.float32],
        upper: NDArray[np.float32],
        k: int,
        fetch: Fetch,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        # Compare in order of falling upper bounds, until no remaining row can be among the best.
        # Fetch in steps, because equal rows can make the whole index a candidate.
        order = np.argsort(-upper, kind="stable")
        best, similarity = np.empty(0, np.int64), np.empty(0)
        start, size = 0, 4 * k
        while start < len(order):
            part = order[start : start + size]
            if len(best) == k and similarity[-1] > upper[part[0]]:
                break
            ids = np.asarray(self._rows.take("ids", rows[part]), np.int64)
            fetched = np.asarray(fetch(ids))
            if fetched.shape != (len(ids), self._dimension) or fetched.dtype != np.float32:
                raise IndexCorrupt(
                    f"the fetched vectors of {len(ids)} ids are {fetched.dtype} {fetched.shape}"
                )
            exact = dots(fetched, probe)
            if not ((lower[part] <= exact) & (exact <= upper[part])).all():
                raise IndexCorrupt("the fetched vectors differ from those that were added")
            ids, exact = np.concatenate((best, ids)), np.concatenate((similarity, exact))
            first = np.lexsort((ids, -exact))[:k]
            best, similarity = ids[first], exact[first]
            start += size
            size = min(2 * size, max(_MOST_FETCHED, 4 * k))
        return best, similarity

    def _kept(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self._rows.take("vectors", self._map.rows(ids)), np.float32)


class _Rows:
    """Rows numbered from 0, stored in chunks with one array per field.

    Parameters
    ----------
    dimension : int
    vectors : bool
        Also keep the float32 vectors.
    """

    def __init__(self, dimension: int, vectors: bool) -> None:
        self.count = 0
        self._shapes: dict[str, tuple[tuple[int, ...], type]] = {
            name: ((_CHUNK,), kind) for name, kind in _FIELDS.items()
        }
        self._shapes["values"] = ((_CHUNK, Codes.width(dimension)), np.int8)
        if vectors:
            self._shapes["vectors"] = ((_CHUNK, dimension), np.float32)
        self.has_vectors = vectors
        self._chunks: list[Fields] = []
        self._blocks: list[ScanBlock] | None = None

    def put(self, rows: NDArray[np.int64], fields: Fields) -> None:
        """Write existing rows or the next ones, without a gap."""
        count = max(self.count, int(rows.max(initial=-1)) + 1)
        while len(self._chunks) * _CHUNK < count:
            self._chunks.append({name: np.empty(*like) for name, like in self._shapes.items()})
        for number, chosen, at in _split(rows):
            for name in self._shapes:
                self._chunks[number][name][at] = fields[name][chosen]
        self.count, self._blocks = count, None

    def take(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a copy of one field of the given rows."""
        shape, kind = self._shapes[name]
        taken: NDArray[Any] = np.empty((len(rows), *shape[1:]), kind)
        for number, chosen, at in _split(rows):
            taken[chosen] = self._chunks[number][name][at]
        return taken

    def remove(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Remove rows (no duplicates); the last rows move into the gaps and are then zeroed.

        Returns
        -------
        ids, rows : ndarray, int64
            Ids that moved, and their new rows.
        """
        count = self.count - len(rows)
        stay = np.ones(len(rows), bool)
        stay[rows[rows >= count] - count] = False
        movers, holes = np.flatnonzero(stay) + count, rows[rows < count]
        moved: Fields = {name: self.take(name, movers) for name in self._shapes}
        self.put(holes, moved)
        for fields in self.parts(count):
            for field in fields.values():
                field[...] = 0
        self.count, self._blocks = count, None
        del self._chunks[-(-count // _CHUNK) :]
        return np.asarray(moved["ids"], np.int64), holes

    def parts(self, start: int = 0) -> Iterator[Fields]:
        """Yield views of all fields from row `start` on, chunk by chunk."""
        for number in range(start // _CHUNK, len(self._chunks)):
            first = number * _CHUNK
            cut = slice(max(start - first, 0), min(self.count - first, _CHUNK))
            yield {name: field[cut] for name, field in self._chunks[number].items()}

    def blocks(self) -> list[ScanBlock]:
        """Return all rows as blocks for a scan."""
        if self._blocks is not None:
            return self._blocks
        made = []
        for number, fields in enumerate(self.parts()):
            codes = Codes(fields["values"], fields["scales"], fields["errors"])
            for start in range(0, len(codes), _SCAN_BLOCK):
                stop = start + _SCAN_BLOCK
                groups: NDArray[np.int32] = fields["groups"][start:stop]
                made.append(ScanBlock(codes.rows(start, stop), groups, number * _CHUNK + start))
        self._blocks = made
        return made


def _split(
    rows: NDArray[np.int64],
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
    # Per chunk: its number, the positions in `rows`, and the rows within the chunk.
    chunk = rows // _CHUNK
    for number in np.unique(chunk):
        chosen = np.flatnonzero(chunk == number)
        yield int(number), chosen, rows[chosen] % _CHUNK


def _read(path: Path) -> NDArray[Any]:
    with path.open("rb") as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array
