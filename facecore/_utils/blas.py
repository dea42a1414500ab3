"""Matrix products that stay in the calling thread."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["multiply"]

Number = TypeVar("Number", bound=np.floating)

_ALONE = 2**17  # multiplications: half of the most that OpenBLAS does in one thread


def multiply(a: NDArray[Number], b: NDArray[Number]) -> NDArray[Any]:
    """Compute ``a @ b`` of two matrices, a few rows at a time.

    OpenBLAS splits larger products among its worker threads.  These then spin for milliseconds and
    take a processor away from other threads of the process.  It splits products with a single
    vector earlier, so `b` needs at least two columns.
    """
    step = max(2, _ALONE // b.size)
    return np.concatenate([a[i : i + step] @ b for i in range(0, len(a), step)])
