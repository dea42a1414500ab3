"""Protocol of all template indexes."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Index"]


class Index(Protocol):
    """Templates by id, each in one group, searched by cosine similarity.

    Thread-safe: any number of concurrent searches, or one change.
    """

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def add(self, ids: ArrayLike, vectors: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Add rows; a row with an existing id is replaced.

        Parameters
        ----------
        ids : array_like, shape (n,), int64
            At least 0, no duplicates.
        vectors : array_like, shape (n, D), float32
            Of unit length, within 0.001.
        labels : array_like, shape (n,), int32, optional
            Group of each row, at least 0; 0 by default.

        Raises
        ------
        InvalidParameter
            An argument is invalid; nothing was added.
        """
        ...

    def remove(self, ids: ArrayLike) -> int:
        """Remove rows and overwrite their data; unknown ids are ignored.

        Returns
        -------
        int
            Number of rows removed.
        """
        ...

    def search(
        self, vectors: ArrayLike, k: int, labels: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the rows most similar to each vector, best first, ties by lower id.

        Parameters
        ----------
        vectors : array_like, shape (q, D) or (D,), float32
            Of unit length, within 0.001.
        k : int
            At least 1.
        labels : array_like of int, optional
            Groups to search; all by default.

        Returns
        -------
        ids : ndarray, shape (q, m) or (m,), int64
            m is the minimum of k and the number of rows in these groups.
        similarities : ndarray, like ids, float64
            Cosines, -1..1, summed in the same way as in a comparison of two images.
        """
        ...

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index's files into an existing empty folder.

        Raises
        ------
        InvalidParameter
            A file cannot be written.
        """
        ...
