"""Map from ids to rows in 12 bytes per id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["IdMap"]

_LEAST_WAITING, _MOST_WAITING = 1024, 16384


class IdMap:
    """Map from ids to rows: sorted arrays plus a small dictionary of pending changes.

    A dictionary of a million ids would take a hundred megabytes.  Pending changes are merged
    once they exceed an eighth of the map (1,024 to 16,384 entries), which costs about a
    microsecond per change in a map of a million.
    """

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int32)
        self._waiting: dict[int, int] = {}  # row -1: removed

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each id; -1 for unknown ids."""
        found = np.full(len(ids), -1, np.int64)
        there = _among(self._ids, ids)
        found[there] = self._rows[np.searchsorted(self._ids, ids[there])]
        if self._waiting:
            for i, key in enumerate(ids.tolist()):
                if key in self._waiting:
                    found[i] = self._waiting[key]
        return found

    def put(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Set the rows of ids (no duplicates); row -1 removes an id."""
        limit = min(max(_LEAST_WAITING, len(self._ids) // 8), _MOST_WAITING)
        if len(ids) <= limit:
            self._waiting.update(zip(ids.tolist(), rows.tolist(), strict=True))
            if len(self._waiting) <= limit:
                return
            ids, rows = np.empty(0, np.int64), np.empty(0, np.int64)
        self._merge(ids, rows)

    def _merge(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        count = len(self._waiting)
        waiting_ids = np.fromiter(self._waiting.keys(), np.int64, count)
        waiting_rows = np.fromiter(self._waiting.values(), np.int64, count)
        self._waiting = {}
        # `unique` keeps the first entry of a repeated id: the newest one.
        new, first = np.unique(np.concatenate((ids, waiting_ids)), return_index=True)
        where = np.concatenate((rows, waiting_rows))[first].astype(np.int32)
        at = np.searchsorted(self._ids, new[_among(self._ids, new)])
        if len(at):
            self._ids, self._rows = np.delete(self._ids, at), np.delete(self._rows, at)
        new, where = new[where >= 0], where[where >= 0]
        at = np.searchsorted(self._ids, new)
        # One array at a time, so that memory peaks at one copy of it.
        self._ids = np.insert(self._ids, at, new)
        self._rows = np.insert(self._rows, at, where)


def _among(ordered: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    at = np.searchsorted(ordered, ids)
    found = at < len(ordered)
    found[found] = ordered[at[found]] == ids[found]
    return found
