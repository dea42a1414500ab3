"""Find faces of one person among many; the threshold follows from the number of pairs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from facecore.gallery.neighbours import near_pairs
from facecore.gallery.records import check_number
from facecore.gallery.thresholds import check_far, score_threshold
from facecore.matching.calibration import Calibration
from facecore.matching.grouping import connected
from facecore.matching.pairs import Pairs

__all__ = ["DuplicatePair", "DuplicateSet", "duplicate_sets"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two faces whose similarity reaches the threshold.

    Attributes
    ----------
    first, second : int
        Indices in `DuplicateSet.members`.
    score : float
        0..100 on the calibrated scale.
    similarity : float
        Cosine, -1..1.
    """

    first: int
    second: int
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class DuplicateSet(Generic[T]):
    """Faces connected by pairs that reach the threshold.

    Attributes
    ----------
    members : tuple
        Two or more faces.
    pairs : tuple of DuplicatePair
        Most similar first.  Two members need not be a pair.
    """

    members: tuple[T, ...]
    pairs: tuple[DuplicatePair, ...]


def duplicate_sets(
    members: Sequence[T],
    vectors: NDArray[np.float32],
    table: Calibration,
    far: float,
    *,
    threshold: float | None = None,
    apart: Sequence[Sequence[Hashable]] = (),
    progress: bool = False,
) -> list[DuplicateSet[T]]:
    """Find the sets of faces that show one person.

    Parameters
    ----------
    members : sequence, N
        Represent the faces in the result.
    vectors : ndarray, shape (N, D), float32
        Of unit length.
    table : Calibration
    far : float
        Probability, above 0 and below 1, that any pair of different people passes, over all pairs
        together.  The threshold follows from `far` and the number of pairs.
    threshold : float, optional
        Minimum score of a pair, 0..100; by default, it follows from `far`.
    apart : sequence of sequences, N, optional
        Labels of the faces.  Two faces with an equal label, such as faces of one picture, are not
        compared.
    progress : bool, default False
        Show a progress bar on standard error.

    Returns
    -------
    list of DuplicateSet
        In the order of their first members.

    Raises
    ------
    InvalidParameter
        An argument is invalid, or the rate for one pair is lower than the calibration supports.
    """
    check_far(far)
    if threshold is not None:
        check_number(threshold, "threshold", 0, 100)
    count = len(members)
    labels = [_numbers(some) for some in apart]
    comparisons = count * (count - 1) // 2
    for some in range(1, 2 ** len(labels)):  # inclusion-exclusion principle
        chosen = [label for bit, label in enumerate(labels) if some >> bit & 1]
        same = np.unique(np.stack(chosen), axis=1, return_counts=True)[1]
        comparisons += (-1) ** len(chosen) * int((same * (same - 1) // 2).sum())
    if not comparisons:
        return []
    least = score_threshold(table, far, comparisons) if threshold is None else threshold
    found = near_pairs(vectors, float(table.similarity(least)), progress=progress)
    for label in labels:
        kept = label[found.first] != label[found.second]
        found = Pairs(found.first[kept], found.second[kept], found.similarity[kept])
    sets: dict[int, list[int]] = {}
    joined = connected(count, found)
    for number in np.unique(np.concatenate((found.first, found.second))).tolist():
        sets.setdefault(int(joined[number]), []).append(number)
    places = {number: place for some in sets.values() for place, number in enumerate(some)}
    pairs: dict[int, list[DuplicatePair]] = {root: [] for root in sets}
    scores = table.score(found.similarity)
    for k in np.argsort(-found.similarity, kind="stable"):  # as a list, five times the memory
        i, j = int(found.first[k]), int(found.second[k])
        pair = DuplicatePair(places[i], places[j], float(scores[k]), float(found.similarity[k]))
        pairs[int(joined[i])].append(pair)
    return [
        DuplicateSet(tuple(members[i] for i in sets[root]), tuple(pairs[root]))
        for root in sorted(sets)
    ]


def _numbers(labels: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.intp)
