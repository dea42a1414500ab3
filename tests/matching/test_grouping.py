"""Connected sets, average linkage against SciPy on the whole matrix, and assignment."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from facecore.matching import grouping
from facecore.matching.grouping import assign, average_linkage, connected
from facecore.matching.pairs import Pairs, pairs_above

Array = np.ndarray[Any, Any]


def unit(rows: Array) -> Array:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> Array:
    random = np.random.default_rng(3)
    people = random.normal(size=(60, 48))[random.integers(0, 60, 300)]
    return unit(people + 0.75 * random.normal(size=people.shape))


def partition(labels: Array) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def test_connected_sets() -> None:
    first, second = np.array([[1, 4, 0], [4, 5, 2]], np.int32)
    pairs = Pairs(first, second, np.ones(3, np.float32))
    assert connected(6, pairs).tolist() == [0, 1, 0, 3, 1, 1]


def test_connecting_many_pairs_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_BLOCK", 100)
    first, second = np.zeros((2, 20_000), np.int32)
    pairs = Pairs(first, second + np.int32(1), np.ones(20_000, np.float32))
    tracemalloc.start()
    assert connected(3, pairs).tolist() == [0, 0, 2]
    assert tracemalloc.get_traced_memory()[1] < len(pairs)  # bytes
    tracemalloc.stop()


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


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2, 0.8])
def test_many_faces_that_are_alike_stay_together(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(4)
    alike = unit(random.normal(size=48) + noise * random.normal(size=(150, 48)))
    monkeypatch.setattr(grouping, "MOST_DENSE", 100)
    labels = average_linkage(alike, pairs_above(alike, 0.2), 0.2)
    assert labels.tolist() == [0] * 150


def test_a_chain_of_faces_stays_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face is near to few others, and no threshold up to 1 splits the chain."""
    angle = np.linspace(0, 1.2, 400)
    chain = unit(np.stack((np.cos(angle), np.sin(angle)), axis=1))
    near = np.arange(399, dtype=np.int32)
    pairs = Pairs(near, near + np.int32(1), np.full(399, 0.9999, np.float32))
    monkeypatch.setattr(grouping, "MOST_DENSE", 100)
    assert average_linkage(chain, pairs, 0.3).tolist() == [0] * 400


def test_a_large_set_of_several_people_is_that_of_all_similarities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, most, least = 302, 250, 0.4
    random = np.random.default_rng(6)
    person = random.integers(0, 5, count)
    person[np.setdiff1d(np.arange(count), np.arange(most) * count // most)[:2]] = 5
    shown = random.normal(size=(6, 48)) + 0.7 * random.normal(size=48)
    several = unit(shown[person] + 0.5 * random.normal(size=(count, 48)))
    pairs = pairs_above(several, least)
    assert not connected(count, pairs).any()
    monkeypatch.setattr(grouping, "MOST_DENSE", most)
    assert partition(average_linkage(several, pairs, least)) == partition(person)


def test_a_large_album_of_many_people_is_split_not_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """People with two pictures may have none among the sampled faces."""
    random = np.random.default_rng(5)
    person = np.repeat(np.arange(150), [32] * 30 + [2] * 120)
    random.shuffle(person)
    shown = random.normal(size=(150, 128)) + 0.6 * random.normal(size=128)
    album = unit(shown[person] + 0.8 * random.normal(size=(len(person), 128)))
    pairs = pairs_above(album, 0.42)
    sizes = np.bincount(connected(len(album), pairs))
    exact = partition(average_linkage(album, pairs, 0.42))
    monkeypatch.setattr(grouping, "MOST_DENSE", int(sizes.max()) // 2)
    assert partition(average_linkage(album, pairs, 0.42)) == exact


def test_each_person_once_and_the_best_first() -> None:
    similarity = np.array([[0.9, 0.2], [0.8, 0.5], [0.1, 0.3]])
    assert assign(similarity, 0.4, once=True) == [0, 1, None]
    assert assign(similarity, 0.4, once=False) == [0, 0, None]
    assert assign(np.empty((0, 2)), 0.4, once=True) == []
