"""All pairs above a threshold, against brute force in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecore.errors import InvalidParameter
from facecore.matching import pairs, scanning
from facecore.matching.pairs import pairs_above

Array = np.ndarray[Any, Any]


def drawn(seed: int, count: int, dimension: int, people: int) -> Array:
    """Unit vectors around a few directions, so that many pairs are near any threshold."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(people, dimension))
    vectors = centres[random.integers(0, people, count)]
    vectors = vectors + random.normal(size=(count, dimension)) * random.uniform(0.1, 1.5)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(vectors: Array, least: float) -> set[tuple[int, int]]:
    exact = vectors.astype(np.float64)
    first, second = np.nonzero(np.triu(np.clip(exact @ exact.T, -1, 1) >= least, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "kernel"])
@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([0, 1, 2, 255, 256, 257, 700]),
    dimension=st.sampled_from([32, 96, 128]),
    people=st.integers(1, 40),
    least=st.floats(-0.2, 1),
)
def test_the_pairs_are_those_of_brute_force(
    compiled: bool, seed: int, count: int, dimension: int, people: int, least: float
) -> None:
    vectors = drawn(seed, count, dimension, people)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "afford_numpy", lambda products: not compiled)
        found = pairs_above(vectors, least)
    pairs_found = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    # A pair that lies within rounding of the threshold may count or not.
    exact = np.clip(vectors.astype(np.float64) @ vectors.T.astype(np.float64), -1, 1)
    disputed = set(pairs_found) ^ brute_force(vectors, least)
    assert all(abs(exact[i, j] - least) < 1e-12 for i, j in disputed)
    assert pairs_found == sorted(pairs_found, key=lambda pair: pair[::-1])
    np.testing.assert_allclose(found.similarity, exact[found.first, found.second], atol=1e-6)


def test_tiles_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """More vectors than one tile has rows, and every pair above the threshold."""
    monkeypatch.setattr(pairs, "afford_numpy", lambda products: False)
    vectors = drawn(1, 2500, 64, 3)
    assert len(pairs_above(vectors, -1.0)) == 2500 * 2499 // 2


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_PAIRS", 100)
    with pytest.raises(InvalidParameter, match="more than 100 pairs"):
        pairs_above(drawn(0, 50, 32, 1), -1.0)


def test_numpy_is_left_when_its_products_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_numpy_products", 0)
    assert scanning.afford_numpy(scanning._NUMPY_PRODUCTS)
    assert not scanning.afford_numpy(1)
