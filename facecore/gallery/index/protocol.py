"""The protocol that every index of templates follows."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Index"]


class Index(Protocol):
    """Templates by id, each in one group, searched by cosine similarity.

    Safe to use from many threads: any number of searches at once, or one change.
    """

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def add(self, ids: ArrayLike, vectors: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Add rows; one whose id is there already is replaced.

        Parameters
        ----------
        ids : array_like, shape (n,), int64
            At least 0, each once.
        vectors : array_like, shape (n, D), float32
            Of unit length, within 0.001.
        labels : array_like, shape (n,), int32, optional
            Group of each row, at least 0; 0 where none is given.

        Raises
        ------
        InvalidParameter
            Then nothing was added.
        """
        ...

    def remove(self, ids: ArrayLike) -> int:
        """Remove rows and overwrite their data; ids that are not there are ignored.

        Returns
        -------
        int
            How many were removed.
        """
        ...

    def search(
        self, vectors: ArrayLike, k: int, labels: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the rows that are most similar to each vector, best first, ties by lower id.

        Parameters
        ----------
        vectors : array_like, shape (q, D) or (D,), float32
            Of unit length, within 0.001.
        k : int
            At least 1.
        labels : array_like of int, optional
            Only rows of these groups.

        Returns
        -------
        ids : ndarray, shape (q, m) or (m,), int64
            m is the smaller one of k and the number of rows in these groups.
        similarities : ndarray, like ids, float32
            Cosines, -1..1.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the index's files into an empty folder that exists."""
        ...
