"""The plainest index: one matrix product; until `facecore.gallery.exact` takes its place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScanIndex"]


class ScanIndex:
    """Every row is compared with the probe."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._ids = np.empty(0, np.int64)
        self._labels = np.empty(0, np.int32)
        self._vectors = np.empty((0, dimension), np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self,
        ids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        labels: NDArray[np.int32] | None = None,
    ) -> None:
        """Add rows; an id that is there is replaced."""
        self.remove(ids)
        labels = np.zeros(len(ids), np.int32) if labels is None else labels
        self._ids = np.concatenate([self._ids, ids])
        self._labels = np.concatenate([self._labels, labels])
        self._vectors = np.concatenate([self._vectors, vectors])

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove rows; return how many were there."""
        kept = ~np.isin(self._ids, ids)
        removed = len(kept) - int(kept.sum())
        if removed:
            self._ids, self._labels = self._ids[kept], self._labels[kept]
            self._vectors = self._vectors[kept]
        return removed

    def search(
        self, vectors: NDArray[np.float32], k: int, labels: NDArray[np.int32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `k` best rows of one probe, shape (D,), best first, ties by lower id."""
        rows = np.arange(len(self._ids))
        if labels is not None:
            rows = np.flatnonzero(np.isin(self._labels, labels))
        similarities = self._vectors[rows] @ vectors
        best = np.lexsort((self._ids[rows], -similarities))[:k]
        return self._ids[rows[best]], similarities[best]
