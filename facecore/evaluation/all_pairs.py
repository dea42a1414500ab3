"""Compare every pair of a set of pictures in blocks: counts, histograms and intervals.

7,701 pictures make 29.6 million pairs.  Each block of the similarity matrix is counted and
discarded, so memory does not grow with the number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.evaluation.intervals import Rate
from facecore.matching.intervals import RESAMPLES, draw_people

__all__ = ["AllPairs", "Histograms", "compare_all"]

# A power of two makes the multiplication exact: no value falls into a wrong bin.
_BINS_PER_UNIT = 8192
_BINS = 2 * _BINS_PER_UNIT
_NO_PAIR = np.float32(-2)
_BLOCK_CELLS = 1 << 21  # 8 MiB of float32


@dataclass(frozen=True, slots=True)
class Histograms:
    """Counts of similarities in 16,384 equal bins from -1 to 1; the last bin includes 1.

    Attributes
    ----------
    genuine, impostor : ndarray, shape (16384,), int64
    """

    genuine: NDArray[np.int64]
    impostor: NDArray[np.int64]

    @classmethod
    def of(cls, genuine: ArrayLike, impostor: ArrayLike) -> Histograms:
        """Count similarities, each in -1..1."""
        return cls(*(_count(np.array(values, np.float32)) for values in (genuine, impostor)))

    @staticmethod
    def edges() -> NDArray[np.float64]:
        """Bin edges, shape (16385,): multiples of 1/8192, exact in floating point."""
        return np.arange(-_BINS_PER_UNIT, _BINS_PER_UNIT + 1) / _BINS_PER_UNIT


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Result of `compare_all`.

    Attributes
    ----------
    thresholds : ndarray, shape (T,), float64
        Similarities, in input order.
    histograms : Histograms
    genuine_pairs, impostor_pairs : int
    genuine_below, impostor_above : ndarray, shape (T,), int64
        Exact numbers of genuine pairs below, and impostor pairs at or above, each threshold.
    people, people_again : int
        Number of people, and of people with at least two pictures.
    fnmr_resamples, fmr_resamples : ndarray, shape (T, R), float64
        Rates in the bootstrap resamples (over people) that contain such pairs.
    """

    thresholds: NDArray[np.float64]
    histograms: Histograms
    genuine_pairs: int
    impostor_pairs: int
    genuine_below: NDArray[np.int64]
    impostor_above: NDArray[np.int64]
    people: int
    people_again: int
    fnmr_resamples: NDArray[np.float64]
    fmr_resamples: NDArray[np.float64]

    def fmr(self) -> list[Rate] | None:
        """False match rate at each threshold; None without impostor pairs."""
        pairs = self.people * (self.people - 1) // 2
        return _rates(self.impostor_above, self.impostor_pairs, self.fmr_resamples, pairs)

    def fnmr(self) -> list[Rate] | None:
        """False non-match rate at each threshold; None without genuine pairs."""
        again = self.people_again
        return _rates(self.genuine_below, self.genuine_pairs, self.fnmr_resamples, again)


def compare_all(
    vectors: NDArray[np.float32],
    people: ArrayLike,
    thresholds: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AllPairs:
    r"""Compare every pair of pictures once.

    With :math:`w_p` the number of times a resample draws person p, :math:`n_p` their pictures
    and :math:`c_{pq}` the passing pairs of p and q, the resample's false match rate is
    :math:`\sum_{p<q} w_p w_q c_{pq} / \sum_{p<q} w_p w_q n_p n_q`, and its false non-match rate
    :math:`\sum_p w_p f_p / \sum_p w_p n_p (n_p - 1) / 2` with :math:`f_p` failing pairs.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Of unit length, without missing rows.
    people : array_like, shape (N,)
        Number or name of the person in each picture.
    thresholds : array_like, shape (T,)
        Similarities; a pair passes at or above the threshold.
    resamples : int, default 1000
        Number of bootstrap resamples over people; 0 gives Wilson intervals.
    seed : int

    Raises
    ------
    InvalidParameter
        Fewer than two pictures, mismatched shapes, or a vector that is not finite.
    """
    vectors = np.asarray(vectors, np.float32)
    names, person = np.unique(np.asarray(people), return_inverse=True)
    if vectors.ndim != 2 or len(vectors) != person.size or len(vectors) < 2:
        raise InvalidParameter(
            f"vectors has shape {vectors.shape}, people has {person.size} entries",
            "give two pictures or more, one row each",
        )
    if not np.isfinite(vectors).all():
        raise InvalidParameter("a vector is not finite", "leave out pictures without a face")
    # Sort by person: right of a person's last column, all pairs are impostors.
    order = np.argsort(person, kind="stable")
    vectors, person = np.ascontiguousarray(vectors[order]), person[order]
    counter = _Counter(person, len(names), thresholds, draw_people(len(names), resamples, seed))
    start, total = 0, len(vectors)
    while start < total:
        stop = min(total, start + max(1, _BLOCK_CELLS // (total - start)))
        block = vectors[start:stop] @ vectors[start:].T
        np.clip(block, -1, 1, out=block)  # float32 rounds past 1
        counter.add(block, start)
        start = stop
    return counter.result()


class _Counter:
    """Accumulates counts over blocks of the upper triangle, with rows sorted by person."""

    def __init__(
        self,
        person: NDArray[np.intp],
        people: int,
        thresholds: ArrayLike,
        drawn: NDArray[np.int64],
    ) -> None:
        self.person = person
        self.end = np.searchsorted(person, person, side="right")
        self.thresholds = np.asarray(thresholds, np.float64).ravel()
        # Round up to float32: comparing in float32 then gives the same result as in float64.
        self.limits = self.thresholds.astype(np.float32)
        low = self.limits < self.thresholds
        self.limits[low] = np.nextafter(self.limits[low], np.float32(np.inf))
        self.weights = np.ascontiguousarray(drawn.T, np.float32)  # person by resample
        self.pictures = np.bincount(person, minlength=people)
        self.genuine = np.zeros(_BINS, np.int64)
        self.impostor = np.zeros(_BINS, np.int64)
        self.failing = np.zeros((len(self.limits), people), np.int64)
        self.above = np.zeros(len(self.limits), np.int64)
        self.weighted_above = np.zeros((len(self.limits), len(drawn)))

    def add(self, block: NDArray[np.float32], start: int) -> None:
        """Count the rows from `start` against the columns from `start`; overwrites `block`."""
        rows = np.arange(start, start + len(block))
        mixed = int(self.end[rows[-1]]) - start
        columns = np.arange(start, start + mixed)
        # Includes cells left of the diagonal, which earlier rows have counted.
        same = columns < self.end[rows][:, None]
        row, column = np.nonzero(same & (columns > rows[:, None]))
        values = block[row, column]
        self.genuine += _count(values.copy())
        for k, limit in enumerate(self.limits):
            below = self.person[rows[row[values < limit]]]
            self.failing[k] += np.bincount(below, minlength=self.failing.shape[1])
        block[:, :mixed][same] = _NO_PAIR
        self._add_passing(block, start)
        self.impostor += _count(block)

    def _add_passing(self, block: NDArray[np.float32], start: int) -> None:
        from scipy.sparse import csr_array  # slow to import

        if not len(self.limits):
            return
        lowest = max(np.float32(self.limits.min()), np.float32(-1))
        passing = np.flatnonzero(block >= lowest)
        values = block.ravel()[passing]
        row, column = np.divmod(passing, block.shape[1])
        first, last = self.person[start], self.person[start + len(block) - 1]
        one, other = self.person[start + row] - first, self.person[start + column]
        shape = (last - first + 1, len(self.pictures))
        for k, limit in enumerate(self.limits):
            chosen = values >= limit
            count = int(chosen.sum())
            self.above[k] += count
            if count and self.weights.shape[1]:
                where = (one[chosen], other[chosen])
                pairs = csr_array((np.ones(count, np.float32), where), shape=shape)
                sums = self.weights[first : last + 1] * (pairs @ self.weights)
                self.weighted_above[k] += sums.sum(axis=0, dtype=np.float64)

    def result(self) -> AllPairs:
        n = self.pictures.astype(np.float64)
        genuine = self.pictures * (self.pictures - 1) // 2
        total = len(self.person)
        genuine_pairs = int(genuine.sum())
        weights = self.weights.astype(np.float64)
        weighted_genuine = genuine @ weights
        weighted_impostor = ((n @ weights) ** 2 - (n**2) @ weights**2) / 2
        some, others = weighted_genuine > 0, weighted_impostor > 0  # may be 0 in a resample
        return AllPairs(
            self.thresholds,
            Histograms(self.genuine, self.impostor),
            genuine_pairs,
            total * (total - 1) // 2 - genuine_pairs,
            self.failing.sum(axis=1),
            self.above,
            len(self.pictures),
            int((self.pictures > 1).sum()),
            (self.failing @ weights)[:, some] / weighted_genuine[some],
            self.weighted_above[:, others] / weighted_impostor[others],
        )


def _count(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Histogram of similarities, ignoring `_NO_PAIR`; overwrites `values`."""
    values *= np.float32(_BINS_PER_UNIT)
    bins = np.floor(values, out=values).astype(np.int32).ravel() + _BINS
    counts = np.bincount(bins, minlength=_BINS_PER_UNIT + _BINS + 1)[_BINS_PER_UNIT:]
    counts[_BINS - 1] += counts[_BINS]
    return counts[:_BINS].astype(np.int64)


def _rates(
    counts: NDArray[np.int64], total: int, resamples: NDArray[np.float64], independent: int
) -> list[Rate] | None:
    if not total:
        return None
    pairs = zip(counts, resamples, strict=True)
    return [
        Rate.resampled(int(count), total, rates, independent=independent) for count, rates in pairs
    ]
