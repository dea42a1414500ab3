"""Rates with 95 % intervals: the wider of Wilson's and of a bootstrap over people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.matching.intervals import (
    RESAMPLES,
    quantile_interval,
    resampled_rates,
    wilson_interval,
)

__all__ = ["Rate", "rate"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of comparisons with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        0..1, ``low <= value <= high``.
    count, total : int
        ``value`` is ``count / total``.
    """

    value: float
    low: float
    high: float
    count: int
    total: int

    @classmethod
    def wilson(cls, count: int, total: int) -> Rate:
        """Create a rate of `total` independent comparisons with Wilson's interval."""
        if not 0 <= count <= total or not total:
            raise InvalidParameter(f"{count} of {total} comparisons is not a rate")
        return cls(count / total, *wilson_interval(count, total), count, total)

    @classmethod
    def resampled(
        cls, count: int, total: int, rates: NDArray[np.floating], *, independent: int
    ) -> Rate:
        """Create a rate with the lower of two lower bounds and the higher of two upper bounds.

        One interval has the 2.5 % and 97.5 % quantiles of the bootstrap `rates`, which vary too
        little if few comparisons count.  The other is Wilson's for the same share of `independent`
        comparisons: the number of pairs of people for impostor comparisons, and of people for
        genuine ones.
        """
        if not 0 <= count <= total or not total or independent < 1:
            raise InvalidParameter(f"{count} of {total} comparisons is not a rate")
        value = count / total
        people = min(independent, total)
        bounds = [value, *wilson_interval(value * people, people)]
        if len(rates):
            bounds += quantile_interval(rates)
        return cls(value, min(bounds), max(bounds), count, total)

    def __str__(self) -> str:
        if self.count == 0:
            return f"0 (up to {_percent(self.high)})"
        return f"{_percent(self.value)} ({_percent(self.low)} to {_percent(self.high)})"


def _percent(share: float) -> str:
    """Format a share in percent with three significant digits, however small it is."""
    if share >= 0.1:
        return f"{100 * share:.2f} %"
    text = f"{100 * share:#.3g}"
    return f"{100 * share:.7f} %" if "e" in text else f"{text} %"


def rate(
    counted: ArrayLike,
    people: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Rate:
    """Compute the share of comparisons that count, with its interval.

    Parameters
    ----------
    counted : array_like, shape (N,), bool
    people : array_like, shape (N,) or (N, 2), optional
        One person per genuine comparison, two per impostor comparison.  By default the
        comparisons are assumed to be independent.
    resamples : int
    seed : int

    Examples
    --------
    >>> str(rate([True, False, False, False]))
    '25.00 % (4.56 % to 69.94 %)'
    """
    hits = np.asarray(counted, bool)
    if not hits.size:
        raise InvalidParameter("a rate needs at least one comparison")
    count, total = int(hits.sum()), hits.size
    if people is None:
        return Rate.wilson(count, total)
    who = np.asarray(people)
    if len(who) != total or who.shape[1:] not in ((), (2,)):
        raise InvalidParameter(f"people has shape {who.shape}, must be ({total},) or ({total}, 2)")
    names, person = np.unique(who, return_inverse=True)
    # Unordered pairs of people, and the number of comparisons of each.
    distinct, row = np.unique(
        np.sort(person.reshape(total, -1), axis=1), axis=0, return_inverse=True
    )
    row = row.ravel()
    passing, all_ = (np.bincount(row, weight, len(distinct)) for weight in (hits, np.ones(total)))
    if who.ndim == 1:
        rates = resampled_rates(passing, all_, resamples=resamples, seed=seed)
    else:
        from scipy.sparse import csr_array  # slow to import

        shape, where = (len(names), len(names)), tuple(distinct.T)
        between = (csr_array((counts, where), shape=shape) for counts in (passing, all_))
        rates = resampled_rates(*between, resamples=resamples, seed=seed)
    return Rate.resampled(count, total, rates, independent=len(distinct))
