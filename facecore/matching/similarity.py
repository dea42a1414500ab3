"""How alike two unit vectors are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cosine"]


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine similarity of unit vectors, row by row.

    The sum runs in float64 and over the same products whichever comes first, so that
    ``cosine(a, b) == cosine(b, a)`` to the last bit.

    Parameters
    ----------
    a, b : ndarray, shape (..., D), float32
        Of unit length.

    Returns
    -------
    ndarray, shape (...), float64
        Clipped to -1..1.
    """
    dot = (a.astype(np.float64) * b.astype(np.float64)).sum(axis=-1)
    return np.asarray(np.clip(dot, -1.0, 1.0))
