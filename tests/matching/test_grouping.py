"""Connected sets, average linkage against SciPy on the whole matrix, and assignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from facecore.matching import grouping
from facecore.matching.grouping import assign, average_linkage, connected
from facecore.matching.pairs import Pairs, pairs_above

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def vectors() -> Array:
    random = np.random.default_rng(3)
    people = random.normal(size=(60, 48))[random.integers(0, 60, 300)]
    noisy = people + 0.75 * random.normal(size=people.shape)
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


def partition(labels: Array) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def test_connected_sets() -> None:
    first, second = np.array([[1, 4, 0], [4, 5, 2]], np.int32)
    pairs = Pairs(first, second, np.ones(3, np.float32))
    assert connected(6, pairs).tolist() == [0, 1, 0, 3, 1, 1]


@pytest.mark.parametrize("least", [0.3, 0.4, 0.5, 0.6])
def test_average_linkage_is_that_of_all_similarities(vectors: Array, least: float) -> None:
    # Average linkage never joins connected sets, because similarities between them are lower.
    whole = linkage(1 - (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)], "average")
    labels = average_linkage(vectors, pairs_above(vectors, least), least)
    assert partition(labels) == partition(fcluster(whole, 1 - least, "distance"))
    assert all(labels[labels[i]] == labels[i] <= i for i in range(len(labels)))


def test_a_set_that_is_too_large_is_divided_first(
    vectors: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = 0.3
    pairs = pairs_above(vectors, least)
    sizes = np.bincount(connected(len(vectors), pairs))
    monkeypatch.setattr(grouping, "MOST_DENSE", int(sizes.max()) - 1)
    labels = average_linkage(vectors, pairs, least)
    assert 20 < len(np.unique(labels)) < 200


def test_each_person_once_and_the_best_first() -> None:
    similarity = np.array([[0.9, 0.2], [0.8, 0.5], [0.1, 0.3]])
    assert assign(similarity, 0.4, once=True) == [0, 1, None]
    assert assign(similarity, 0.4, once=False) == [0, 0, None]
    assert assign(np.empty((0, 2)), 0.4, once=True) == []
