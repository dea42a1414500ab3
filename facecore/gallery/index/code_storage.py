"""The memory of an exact index: rows of 8-bit codes in chunks, without gaps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.matching.scanning import ScanBlock
from facecore.matching.similarity import Codes

__all__ = ["Fields", "Rows"]

# Adding never copies what is there, as an array that doubles does, and takes at most one chunk
# more than needed, of which the system gives only the pages that were written.
_CHUNK = 1 << 16
_SCAN_BLOCK = 1 << 15  # what one thread scans at a time

# Of each row, beside its codes ("values") and, where they are kept, its "vectors".
_FIELDS: dict[str, type] = {
    "ids": np.int64,
    "scales": np.float32,
    "errors": np.float32,
    "groups": np.int32,
}
Fields = dict[str, NDArray[Any]]


class Rows:
    """Rows that are numbered from 0, each with its fields, in one array of each kind a chunk.

    Parameters
    ----------
    dimension : int
    vectors : bool
        Whether the float32 rows are kept too.
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
        """Write rows: those that exist, or the next ones, without a gap."""
        count = max(self.count, int(rows.max(initial=-1)) + 1)
        while len(self._chunks) * _CHUNK < count:
            self._chunks.append({name: np.empty(*like) for name, like in self._shapes.items()})
        for number, chosen, at in _split(rows):
            for name in self._shapes:
                self._chunks[number][name][at] = fields[name][chosen]
        self.count, self._blocks = count, None

    def take(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """One field of some rows, copied."""
        shape, kind = self._shapes[name]
        taken: NDArray[Any] = np.empty((len(rows), *shape[1:]), kind)
        for number, chosen, at in _split(rows):
            taken[chosen] = self._chunks[number][name][at]
        return taken

    def remove(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Remove rows, each once; the last rows move to their places, and zeros to theirs.

        Returns
        -------
        ids, rows : ndarray, int64
            Which moved, and to where.
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
        """All fields from a row on, chunk by chunk, not copied."""
        for number in range(start // _CHUNK, len(self._chunks)):
            first = number * _CHUNK
            cut = slice(max(start - first, 0), min(self.count - first, _CHUNK))
            yield {name: field[cut] for name, field in self._chunks[number].items()}

    def blocks(self) -> list[ScanBlock]:
        """All rows, for a scan."""
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
    # Chunk by chunk: which of the rows are there, and where in it.
    chunk = rows // _CHUNK
    for number in np.unique(chunk):
        chosen = np.flatnonzero(chunk == number)
        yield int(number), chosen, rows[chosen] % _CHUNK
