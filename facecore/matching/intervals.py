"""95 % confidence intervals of a rate: Wilson score intervals and a bootstrap over people.

Comparisons that share a person are not independent; an interval that ignores this is far too
narrow.  The bootstrap draws people with replacement and weights each comparison by how often
its people were drawn.

References
----------
.. [1] ISO/IEC 19795-1:2021, clause on uncertainty: the bootstrap over individuals
.. [2] R. M. Bolle, N. K. Ratha and S. Pankanti, "Error analysis of pattern recognition
       systems: the subsets bootstrap", CVIU 93(1), 2004, doi:10.1016/j.cviu.2003.08.002
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RESAMPLES",
    "bootstrap_rates",
    "draw_people",
    "quantile_interval",
    "resampled_rates",
    "wilson_interval",
]

RESAMPLES = 1000

_BLOCK_CELLS = 1 << 22  # 32 MiB of int64


def wilson_interval(count: float, total: float) -> tuple[float, float]:
    """Compute the 95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Parameters
    ----------
    count, total : float
        ``0 <= count <= total``, ``total > 0``.  `count` may be fractional: the share of many
        dependent comparisons, times `total` independent ones.
    """
    z = 1.959963984540054
    p = count / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # Keep the proportion within the bounds despite rounding.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def quantile_interval(rates: NDArray[np.floating]) -> tuple[float, float]:
    """Compute the 2.5 % and 97.5 % quantiles of the rates of a bootstrap."""
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def draw_people(count: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Count the draws of each of `count` people in each resample; shape (resamples, count)."""
    return np.concatenate([np.empty((0, count), np.int64), *_blocks(count, resamples, seed)])


def _blocks(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the counts of `draw_people` in blocks of a few resamples."""
    rng, rows = np.random.default_rng(seed), max(1, _BLOCK_CELLS // count)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        yield np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=size), np.int64)


def resampled_rates(
    passing: Any, total: Any, *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Compute a rate in each bootstrap resample that contains a comparison.

    Parameters
    ----------
    passing, total : ndarray or sparse array, shape (P, P), or ndarray, shape (P,)
        Numbers of passing and of all comparisons, for each pair of people (or each person).
    resamples, seed : int

    Returns
    -------
    ndarray, shape (R,), float64
        ``R <= resamples``.
    """
    rates = [np.empty(0)]
    for drawn in _blocks(total.shape[0], resamples, seed):
        everything = _weighted(drawn, total)
        there = everything > 0
        rates.append(np.clip(_weighted(drawn, passing)[there] / everything[there], 0, 1))
    return np.concatenate(rates)


def _weighted(drawn: NDArray[np.int64], counts: Any) -> NDArray[np.float64]:
    if counts.ndim == 1:
        return np.asarray(drawn @ counts.astype(np.float64))
    times = drawn.astype(np.float32)
    pairs = np.einsum("rp,rp->r", times @ counts.astype(np.float32), times, dtype=np.float64)
    return np.asarray(pairs, np.float64)


def bootstrap_rates(
    passing: NDArray[np.floating],
    total: NDArray[np.floating],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of a rate; parameters as in `resampled_rates`.

    Returns
    -------
    low, high : float
        0 and 1 if no resample contains a comparison.
    """
    rates = resampled_rates(passing, total, resamples=resamples, seed=seed)
    return quantile_interval(rates) if len(rates) else (0.0, 1.0)
