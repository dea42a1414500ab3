"""Group vectors by person: connected components, average linkage, and assignment of faces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facecore._utils.extras import require_extra
from facecore.matching.pairs import Pairs

__all__ = ["assign", "average_linkage", "by_label", "connected"]

# Largest component with all similarities in memory: 400 MB of them, and 400 MB of distances.
MOST_DENSE = 10_000
# Step by which the threshold rises until a larger component splits.
_STEP = 0.02


def connected(count: int, pairs: Pairs) -> NDArray[np.intp]:
    """Label the connected components of a graph of `count` vectors.

    Parameters
    ----------
    count : int
    pairs : Pairs
        Edges of the graph.

    Returns
    -------
    ndarray, shape (count,), intp
        The lowest index in each vector's component.
    """
    root = list(range(count))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        a, b = find(i), find(j)
        root[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(count)], np.intp)


def average_linkage(vectors: NDArray[np.float32], pairs: Pairs, least: float) -> NDArray[np.intp]:
    """Cluster vectors by average linkage: merge groups while their mean similarity reaches `least`.

    Groups never span two connected components of the pairs, so similarities are needed only
    within a component.  A higher threshold first splits components of more than 10,000 faces.

    Parameters
    ----------
    vectors : ndarray, shape (N, D), float32
        Of unit length.
    pairs : Pairs
        All pairs whose similarity is at least `least`.
    least : float
        -1..1.

    Returns
    -------
    ndarray, shape (N,), intp
        The lowest index in each vector's group.

    Raises
    ------
    MissingExtra
        SciPy is not installed.

    References
    ----------
    .. [1] R. R. Sokal and C. D. Michener, "A statistical method for evaluating systematic
           relationships", University of Kansas Science Bulletin 38, 1958 (UPGMA)
    """
    hierarchy = require_extra("scipy.cluster.hierarchy", "collections")
    pairwise = require_extra("scipy.spatial.distance", "collections")
    groups = np.arange(len(vectors))
    waiting = [(np.arange(len(vectors)), pairs, least)]
    while waiting:
        members, among, limit = waiting.pop()
        for part in by_label(connected(len(members), among)):
            some = members[part]
            if len(some) > MOST_DENSE:
                waiting.append((some, _within(part, among, limit + _STEP), limit + _STEP))
            elif len(some) > 1:
                similarity = pairwise.squareform(vectors[some] @ vectors[some].T, checks=False)
                tree = hierarchy.linkage(np.clip(1 - similarity, 0, 2), "average")
                labels = hierarchy.fcluster(tree, 1 - least, "distance")
                first = {label: i for i, label in reversed(list(zip(some, labels, strict=True)))}
                groups[some] = [first[label] for label in labels]
    return groups


def by_label(labels: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """List the indices of each label, in increasing order of label and index."""
    if not len(labels):
        return []
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def assign(similarity: NDArray[np.floating], least: float, *, once: bool) -> list[int | None]:
    """Assign faces to people greedily, the most similar pair first.

    Parameters
    ----------
    similarity : ndarray, shape (F, P)
        Similarity of each face to each person.
    least : float
        Lowest similarity that counts as a match.
    once : bool
        Whether a person gets at most one face.

    Returns
    -------
    list of int or None, F
        Index of the person, or None for a stranger.
    """
    answer: list[int | None] = [None] * len(similarity)
    taken: set[int] = set()
    for flat in np.argsort(-similarity, axis=None, kind="stable").tolist():
        face, person = divmod(flat, similarity.shape[1])
        if similarity[face, person] < least:
            break
        if answer[face] is None and not (once and person in taken):
            answer[face] = person
            taken.add(person)
    return answer


def _within(part: NDArray[np.intp], pairs: Pairs, least: float) -> Pairs:
    """Select and renumber the pairs within `part` that reach a higher threshold."""
    new = np.full(int(part.max()) + 1, -1, np.int32)
    new[part] = np.arange(len(part))
    inside = np.isin(pairs.first, part) & np.isin(pairs.second, part)
    inside &= pairs.similarity >= least
    return Pairs(new[pairs.first[inside]], new[pairs.second[inside]], pairs.similarity[inside])
