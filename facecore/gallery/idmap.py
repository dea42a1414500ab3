"""Which row holds which id, in 12 bytes for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["IdMap"]

_LEAST_WAITING, _MOST_WAITING = 1024, 16384


class IdMap:
    """From ids to rows: sorted arrays, and a small dictionary of what changed since.

    A dictionary of a million numbers would take a hundred megabytes.  Changes wait until they
    are an eighth of everything or 16,384, so that sorting them in costs each about a microsecond
    in a million.
    """

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int32)
        self._waiting: dict[int, int] = {}  # row -1: removed

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each id; -1 where there is none."""
        at = np.searchsorted(self._ids, ids)
        found = np.full(len(ids), -1, np.int64)
        inside = at < len(self._ids)
        inside[inside] = self._ids[at[inside]] == ids[inside]
        found[inside] = self._rows[at[inside]]
        if self._waiting:
            for i, key in enumerate(ids.tolist()):
                if key in self._waiting:
                    found[i] = self._waiting[key]
        return found

    def put(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Say where ids are now, each once; row -1 forgets one."""
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
        waiting_rows = np.fromiter(self._waiting.values(), np.int32, count)
        self._waiting = {}
        # The newest word on an id comes first, and the sort keeps it there.
        every = np.concatenate((ids, waiting_ids, self._ids))
        where = np.concatenate((rows.astype(np.int32), waiting_rows, self._rows))
        order = np.argsort(every, kind="stable")
        every, where = every[order], where[order]
        keep = np.ones(len(every), bool)
        keep[1:] = every[1:] != every[:-1]
        keep &= where >= 0
        self._ids, self._rows = every[keep], where[keep]
