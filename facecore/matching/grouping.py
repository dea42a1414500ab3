"""Group vectors by person: connected components, average linkage, and assignment of faces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facecore._utils.extras import require_extra
from facecore.matching.pairs import Pairs

__all__ = ["assign", "average_linkage", "by_label", "connected"]

# Largest component with all similarities in memory: 1 GB with SciPy's copies.
MOST_DENSE = 10_000
# Step by which the threshold rises until a larger component splits.
_STEP = 0.02
_BLOCK = 1 << 20  # pairs; as Python numbers they take six times the memory
_ROWS = 1024  # faces compared with all groups at a time


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

    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        for i, j in zip(pairs.first[block].tolist(), pairs.second[block].tolist(), strict=True):
            a, b = find(i), find(j)
            root[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(count)], np.intp)


def average_linkage(vectors: NDArray[np.float32], pairs: Pairs, least: float) -> NDArray[np.intp]:
    """Cluster vectors by average linkage: merge groups while their mean similarity reaches `least`.

    Groups never span two connected components of the pairs, so similarities are needed only
    within a component.  A higher threshold first splits components of more than 10,000 faces.
    Faces that are alike, such as those of a video, do not split but shatter: of these, 10,000 are
    clustered, and each other face joins the group of the highest mean similarity.

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
    require_extra("scipy", "collections")
    groups = np.arange(len(vectors))
    waiting = [(np.arange(len(vectors)), pairs, least)]
    while waiting:
        members, among, limit = waiting.pop()
        for part in by_label(connected(len(members), among)):
            some = members[part]
            if len(some) == 1:
                continue
            if len(some) <= MOST_DENSE:
                groups[some] = some[_link(vectors[some], least)]
                continue
            inside = _within(part, among, limit)
            above = _within(np.arange(len(some)), inside, limit + _STEP)
            alone = len(some) - len(np.union1d(above.first, above.second))
            # Faces are alike if half of their pairs reach the limit, or a higher one would leave
            # half of them alone.
            if 4 * len(inside) < len(some) ** 2 and 2 * alone < len(some):
                waiting.append((some, above, limit + _STEP))
                continue
            joined = _link_many(vectors[some], least)
            found, rest = np.flatnonzero(joined >= 0), np.flatnonzero(joined < 0)
            groups[some[found]] = some[joined[found]]
            waiting.append((some[rest], _within(rest, inside, limit), limit))
    return _first_members(groups)


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


def _link(vectors: NDArray[np.float32], least: float) -> NDArray[np.intp]:
    """Label the groups of average linkage by their first members."""
    from scipy.cluster import hierarchy
    from scipy.spatial import distance

    similarity = distance.squareform(vectors @ vectors.T, checks=False)
    tree = hierarchy.linkage(np.clip(1 - similarity, 0, 2), "average")
    return _first_members(hierarchy.fcluster(tree, 1 - least, "distance"))


def _link_many(vectors: NDArray[np.float32], least: float) -> NDArray[np.intp]:
    """Link `MOST_DENSE` of the vectors, evenly spaced, and assign the others to their groups.

    Returns
    -------
    ndarray, shape (N,), intp
        A member of each vector's group; -1 if the mean similarity to every group is below `least`.
    """
    chosen = np.arange(MOST_DENSE) * len(vectors) // MOST_DENSE
    roots, numbers, sizes = np.unique(
        chosen[_link(vectors[chosen], least)], return_inverse=True, return_counts=True
    )
    means = np.zeros((len(roots), vectors.shape[1]), np.float32)
    np.add.at(means, numbers, vectors[chosen])
    means /= sizes[:, None].astype(np.float32)
    joined = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), _ROWS):
        similarity = vectors[start : start + _ROWS] @ means.T
        joined[start : start + _ROWS] = np.where(
            similarity.max(axis=1) >= least, roots[similarity.argmax(axis=1)], -1
        )
    joined[chosen] = roots[numbers]
    return joined


def _first_members(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Replace each label by the lowest index that has it."""
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(first[numbers])


def _within(part: NDArray[np.intp], pairs: Pairs, least: float) -> Pairs:
    """Select and renumber the pairs within `part`, in increasing order, that reach `least`."""
    inside = np.isin(pairs.first, part) & np.isin(pairs.second, part)
    inside &= pairs.similarity >= least
    first, second = (
        np.searchsorted(part, some[inside]).astype(np.int32) for some in (pairs.first, pairs.second)
    )
    return Pairs(first, second, pairs.similarity[inside])
