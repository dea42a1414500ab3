"""Every pair of a set of pictures, compared in blocks: counts, histograms and intervals.

7,701 pictures make 29.6 million pairs.  Their similarities never exist at once: each block of
the matrix is counted and forgotten, so that memory does not grow with the number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facecore.errors import InvalidParameter
from facecore.evaluation.intervals import Rate
from facecore.matching.intervals import RESAMPLES, draw_people

__all__ = ["AllPairs", "Histograms", "compare_all"]

# A power of two: multiplying by it is exact, so that no value ever falls into a wrong bin.
_BINS_PER_UNIT = 8192
_BINS = 2 * _BINS_PER_UNIT
_NO_PAIR = np.float32(-2)
_BLOCK_CELLS = 1 << 21  # 8 MiB of float32


@dataclass(frozen=True, slots=True)
class Histograms:
    """Counts of similarities in 16,384 equal bins from -1 to 1; the last one holds 1 itself.

    Attributes
    ----------
    genuine, impostor : ndarray, shape (16384,), int64
    """

    genuine: NDArray[np.int64]
    impostor: NDArray[np.int64]

    @classmethod
    def of(cls, genuine: ArrayLike, impostor: ArrayLike) -> Histograms:
        """Count lists of similarities, each in -1..1."""
        return cls(*(_count(np.array(values, np.float32)) for values in (genuine, impostor)))

    @staticmethod
    def edges() -> NDArray[np.float64]:
        """The bins' edges, shape (16385,): multiples of 1/8192, exact in floating point."""
        return np.arange(-_BINS_PER_UNIT, _BINS_PER_UNIT + 1) / _BINS_PER_UNIT


@dataclass(frozen=True, slots=True)
class AllPairs:
    """What all pairs of a set of pictures show.

    Attributes
    ----------
    thresholds : ndarray, shape (T,), float64
        Similarities, in the order they were asked for.
    histograms : Histograms
    genuine_pairs, impostor_pairs : int
    genuine_below, impostor_above : ndarray, shape (T,), int64
        Pairs below, and at or above, each threshold: exact, not read off the histogram.
    people, people_again : int
        People, and those with at least two pictures.
    fnmr_resamples, fmr_resamples : ndarray, shape (T, R), float64
        The rates in each bootstrap resample of the people that holds such a pair.
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
        """False match rate at each threshold; None where there is no impostor pair."""
        pairs = self.people * (self.people - 1) // 2
        return _rates(self.impostor_above, self.impostor_pairs, self.fmr_resamples, pairs)

    def fnmr(self) -> list[Rate] | None:
        """False non-match rate at each threshold; None where there is no genuine pair."""
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

    With :math:`w_p` the times that person p is drawn in a resample, :math:`n_p` their pictures
    and :math:`c_{pq}` the passing pairs of p and q, the resample's false match rate is
    :math:`\sum_{p<q} w_p w_q c_{pq} / \sum_{p<q} w_p w_q n_p n_q`, and its false non-match rate
    :math:`\sum_p w_p f_p / \sum_p w_p n_p (n_p - 1) / 2` with :math:`f_p` failing pairs.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Of unit length, none missing.
    people : array_like, shape (N,)
        Who is on each picture: numbers or names.
    thresholds : array_like, shape (T,)
        Similarities; a pair passes at or above one.
    resamples : int, default 1000
        Of the people, for the intervals; 0 for none (then they are Wilson's).
    seed : int

    Raises
    ------
    InvalidParameter
        Fewer than two pictures, shapes that do not fit, or a vector that is not finite.
    """
    vectors = np.asarray(vectors, np.float32)
    names, person = np.unique(np.asarray(people), return_inverse=True)
    if vectors.ndim != 2 or len(vectors) != person.size or len(vectors) < 2:
        raise InvalidParameter(
            f"{vectors.shape} vectors of {person.size} pictures: pairs need two or more, "
            "a row for each picture"
        )
    if not np.isfinite(vectors).all():
        raise InvalidParameter("a vector is not finite", "leave out pictures without a face")
    # One person's pictures side by side: right of their last one, all pairs are impostors.
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
    """Sums over blocks of the upper triangle of the similarity matrix, rows by person."""

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
        # The least float32 at or above each: then comparing in float32 decides nothing new.
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
        """Count the rows from `start` against the columns from `start`; `block` is spoilt."""
        rows = np.arange(start, start + len(block))
        mixed = int(self.end[rows[-1]]) - start
        columns = np.arange(start, start + mixed)
        # Also what lies left of the diagonal, which other rows have counted.
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
        some, others = weighted_genuine > 0, weighted_impostor > 0  # a resample may hold none
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
    """Histogram of similarities, without those that are no pair; `values` is spoilt."""
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
