"""Cluster the faces of a collection by person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from facecore.collections.faces import FoundFace
from facecore.gallery.neighbours import near_pairs
from facecore.gallery.thresholds import check_far, score_threshold
from facecore.matching.calibration import Calibration
from facecore.matching.grouping import average_linkage, by_label
from facecore.matching.pairs import Pairs

__all__ = ["Clusters", "Doubt", "Person", "cluster"]

_DOUBTS = 25  # of each kind


@dataclass(frozen=True, slots=True)
class Person:
    """Faces of one person.

    Attributes
    ----------
    name : str
        The name of a known person; else ``person_0001`` and so on, except names in `known`.
    faces : tuple of FoundFace
        In input order.
    known : bool
        Whether the name comes from `known`.
    """

    name: str
    faces: tuple[FoundFace, ...]
    known: bool = False


@dataclass(frozen=True, slots=True)
class Doubt:
    """Two faces for manual review.

    Attributes
    ----------
    first, second : FoundFace
    score : float
        0..100.
    joined : bool
        True for the least similar faces of one group, False for the most similar of two groups.
    """

    first: FoundFace
    second: FoundFace
    score: float
    joined: bool


@dataclass(frozen=True, slots=True)
class Clusters:
    """Result of `cluster`.

    Attributes
    ----------
    people : tuple of Person
        Known people, then the other groups, largest first; a face without a match is a person.
    doubts : tuple of Doubt
        The closest decisions: joined pairs in order of increasing similarity, then the other
        pairs in order of decreasing similarity.
    threshold : float
        Lowest mean score at which two groups are joined.
    """

    people: tuple[Person, ...]
    doubts: tuple[Doubt, ...]
    threshold: float


def cluster(
    faces: Sequence[FoundFace],
    table: Calibration,
    far: float = 0.9,
    *,
    known: Mapping[str, Sequence[FoundFace]] | None = None,
    progress: bool = False,
) -> Clusters:
    """Cluster faces by person.

    Groups are joined while the mean similarity of all their pairs reaches a threshold
    (average linkage over the graph of all pairs that reach it).  The result depends only on
    the faces and their order.

    Parameters
    ----------
    faces : sequence of FoundFace
        From `read_folder`.
    table : Calibration
        Calibration of the engine that embedded the faces.
    far : float, default 0.9
        Probability that a face matches any stranger's face in the collection.  Fewer groups are
        joined wrongly, because the mean decides; docs/collections.md lists measured rates.
        The threshold is never below that of one comparison at a rate of 0.1 %.
    known : mapping of str to faces, optional
        Named people.  A group gets the name of the most similar known person if their mean
        similarity reaches the threshold; the known faces are not part of the result.
    progress : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    InvalidParameter
        `far` is invalid, or the rate for one pair is lower than the calibration supports.
    MissingExtra
        SciPy is not installed.
    """
    check_far(far)
    old = [] if known is None else [face for some in known.values() for face in some]
    threshold = score_threshold(table, far, max(1, len(faces) + len(old) - 1))
    threshold = max(threshold, table.threshold())  # few faces: not lower than for a single pair
    if not faces:
        return Clusters((), (), threshold)
    least = float(table.similarity(threshold))
    vectors = np.stack([face.vector for face in faces])
    pairs = near_pairs(vectors, least, progress=progress)
    groups = average_linkage(vectors, pairs, least)
    sums = np.zeros_like(vectors)
    np.add.at(sums, groups, vectors)
    members = by_label(groups)
    members.sort(key=lambda some: (-len(some), some[0]))
    named: dict[str, list[int]] = {}
    if known:
        means = np.stack(
            [np.mean([face.vector for face in some], axis=0) for some in known.values()]
        )
        names = list(known)
        unnamed = []
        for some in members:
            likeness = means @ (sums[some[0]] / len(some))
            if likeness.max() >= least:
                named.setdefault(names[int(np.argmax(likeness))], []).extend(some.tolist())
            else:
                unnamed.append(some)
        members = unnamed
    people = [
        Person(name, tuple(faces[i] for i in sorted(some)), True) for name, some in named.items()
    ]
    free = (name for i in count(1) if (name := f"person_{i:04}") not in (known or {}))
    people += [
        Person(name, tuple(faces[i] for i in some.tolist()))
        for name, some in zip(free, members, strict=False)
    ]
    return Clusters(tuple(people), tuple(_doubts(faces, vectors, groups, pairs, table)), threshold)


def _doubts(
    faces: Sequence[FoundFace],
    vectors: NDArray[np.float32],
    groups: NDArray[np.intp],
    pairs: Pairs,
    table: Calibration,
) -> list[Doubt]:
    one, other = groups[pairs.first], groups[pairs.second]
    nearest = np.full(len(faces), -1.0, np.float32)  # highest similarity within the group
    mate = np.full(len(faces), -1, np.intp)
    apart: dict[tuple[int, int], int] = {}
    for k in np.argsort(-pairs.similarity, kind="stable"):  # as a list, five times the memory
        i, j = int(pairs.first[k]), int(pairs.second[k])
        if one[k] != other[k]:
            if len(apart) < _DOUBTS:
                apart.setdefault((min(one[k], other[k]), max(one[k], other[k])), k)
            continue
        for face, next_to in ((i, j), (j, i)):
            if mate[face] < 0:
                nearest[face], mate[face] = pairs.similarity[k], next_to
    joined: dict[int, int] = {}  # group -> its face with the lowest `nearest`
    for face in np.flatnonzero(mate >= 0).tolist():
        root = int(groups[face])
        if root not in joined or nearest[face] < nearest[joined[root]]:
            joined[root] = face
    weakest = sorted(joined.values(), key=lambda face: (float(nearest[face]), face))[:_DOUBTS]
    doubts = [
        Doubt(faces[i], faces[int(mate[i])], float(table.score(nearest[i])), True) for i in weakest
    ]
    for k in apart.values():
        first, second = faces[int(pairs.first[k])], faces[int(pairs.second[k])]
        doubts.append(Doubt(first, second, float(table.score(pairs.similarity[k])), False))
    return doubts
