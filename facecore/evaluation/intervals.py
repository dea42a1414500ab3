"""Rates with their 95 % intervals: by bootstrap of people, or Wilson's where nobody is named.

Comparisons that share a person are not independent, and an interval that takes them to be is
far too narrow.  So people are drawn with replacement, and a comparison counts as often as the
people in it were drawn.

References
----------
.. [1] ISO/IEC 19795-1:2021, clause on uncertainty: the bootstrap over individuals
.. [2] R. M. Bolle, N. K. Ratha and S. Pankanti, "Error analysis of pattern recognition
       systems: the subsets bootstrap", CVIU 93(1), 2004, doi:10.1016/j.cviu.2003.08.002
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.matching.calibration import wilson_interval

__all__ = ["RESAMPLES", "Rate", "draw_people", "rate"]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of comparisons and its 95 % interval.

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
        """Of `total` independent comparisons."""
        if not 0 <= count <= total or not total:
            raise InvalidParameter(f"{count} of {total} comparisons is no rate")
        return cls(count / total, *wilson_interval(count, total), count, total)

    @classmethod
    def resampled(cls, count: int, total: int, rates: NDArray[np.floating]) -> Rate:
        """With the 2.5 % and 97.5 % quantiles of a bootstrap's `rates`.

        Where no resample differs, as when no comparison counts or every one, Wilson's interval
        is given: it is then the least that the uncertainty can be.
        """
        if count in (0, total) or not len(np.unique(rates)) > 1:
            return cls.wilson(count, total)
        value = count / total
        low, high = np.quantile(rates, [0.025, 0.975])
        return cls(value, min(float(low), value), max(float(high), value), count, total)

    def __str__(self) -> str:
        if self.count == 0:
            return f"0 (up to {_percent(self.high)})"
        return f"{_percent(self.value)} ({_percent(self.low)} to {_percent(self.high)})"


def _percent(share: float) -> str:
    """Three digits that mean something, however rare."""
    if share >= 0.1:
        return f"{100 * share:.2f} %"
    text = f"{100 * share:#.3g}"
    return f"{100 * share:.7f} %" if "e" in text else f"{text} %"


def draw_people(count: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """How often each of `count` people is drawn in each resample; shape (resamples, count)."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=resamples), np.int64)


def comparison_weights(
    people: NDArray[np.generic],
    resamples: int = RESAMPLES,
    seed: int = 0,
    *,
    once: bool = False,
) -> NDArray[np.int64]:
    """How often each comparison counts in each resample of the people.

    Parameters
    ----------
    people : ndarray, shape (N,) or (N, 2)
        Who is compared: one person (genuine), or two (impostor).
    resamples, seed : int
    once : bool
        A row that names one person twice is a genuine comparison: it counts as one person.

    Returns
    -------
    ndarray, shape (resamples, N), int64
    """
    names, person = np.unique(people, return_inverse=True)
    person = person.reshape(np.shape(people))
    drawn = draw_people(len(names), resamples, seed)
    if person.ndim == 1:
        return np.asarray(drawn[:, person])
    first, second = person.T
    other = drawn[:, second]
    if once:
        other[:, first == second] = 1
    return np.asarray(drawn[:, first] * other)


def rate(
    counted: ArrayLike,
    people: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Rate:
    """Share of the comparisons that are counted, with its interval.

    Parameters
    ----------
    counted : array_like, shape (N,), bool
    people : array_like, shape (N,) or (N, 2), optional
        Who is compared: one person for genuine, two for impostor comparisons.  Without it
        the comparisons are taken for independent.
    resamples : int
    seed : int

    Examples
    --------
    >>> str(rate([True, False, False, False]))
    '25.00 % (4.56 % to 69.94 %)'
    """
    hits = np.asarray(counted, bool)
    if not hits.size:
        raise InvalidParameter("there is no comparison to take a rate of")
    count, total = int(hits.sum()), hits.size
    if people is None:
        return Rate.wilson(count, total)
    who = np.asarray(people)
    if len(who) != total or who.shape[1:] not in ((), (2,)):
        raise InvalidParameter(f"people has shape {who.shape}, must name {total} comparisons")
    weights = comparison_weights(who, resamples, seed)
    all_weights = weights.sum(axis=1)
    kept = all_weights > 0
    return Rate.resampled(count, total, (weights @ hits)[kept] / all_weights[kept])
