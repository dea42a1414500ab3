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


def drawn(seed: int, count: int, dimension: int, people: int, kind: str = "faces") -> Array:
    """Draw unit vectors around a few directions; many pairs are near any threshold."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(people, dimension))
    vectors = centres[random.integers(0, people, count)]
    vectors = vectors + random.normal(size=(count, dimension)) * random.uniform(0.1, 1.5)
    if kind == "falling":  # most of the length lies in few columns
        vectors *= np.geomspace(1, 0.01, dimension)
    elif kind == "axes":  # the largest integers, and zero in most columns
        vectors = np.eye(dimension)[random.integers(0, dimension, count)]
        vectors *= random.choice([-1, 1], (count, 1))
    elif kind == "equal":
        vectors = np.repeat(vectors[:1], count, axis=0)
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
    dimension=st.sampled_from([1, 7, 32, 96, 160]),
    people=st.integers(1, 40),
    least=st.floats(-1, 1) | st.sampled_from([0.0, 1.0]),
    kind=st.sampled_from(["faces", "falling", "axes", "equal"]),
)
def test_the_pairs_are_those_of_brute_force(
    compiled: bool,
    seed: int,
    count: int,
    dimension: int,
    people: int,
    least: float,
    kind: str,
) -> None:
    vectors = drawn(seed, count, dimension, people, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "afford_numpy", lambda products: not compiled)
        found = pairs_above(vectors, least)
    pairs_found = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    # A pair within rounding of the threshold may count or not.
    exact = np.clip(vectors.astype(np.float64) @ vectors.T.astype(np.float64), -1, 1)
    disputed = set(pairs_found) ^ brute_force(vectors, least)
    assert all(abs(exact[i, j] - least) < 1e-12 for i, j in disputed)
    assert pairs_found == sorted(pairs_found, key=lambda pair: pair[::-1])
    np.testing.assert_allclose(found.similarity, exact[found.first, found.second], atol=1e-6)


@pytest.mark.parametrize("head", [2, 8, 17, 33])
def test_any_width_of_the_first_test_finds_the_same(
    head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "afford_numpy", lambda products: False)
    monkeypatch.setattr(pairs, "_choose_head", lambda *_: head)
    vectors = drawn(5, 1500, 64, 30)
    found = pairs_above(vectors, 0.45)
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == brute_force(
        vectors, 0.45
    )


def test_the_first_test_is_as_wide_as_the_vectors_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test uses few columns if they hold most of the length, and more otherwise."""
    monkeypatch.setattr(pairs, "afford_numpy", lambda products: False)
    falling, level = (drawn(2, 3000, 160, 3000, kind) for kind in ("falling", "faces"))
    heads = [pairs._Table(vectors, 0.6).head for vectors in (falling, level)]
    assert heads[0] < heads[1]


def test_the_kernel_multiplies_the_largest_integers_without_overflow() -> None:
    from facecore.matching.kernels import compile_kernel
    from facecore.matching.tiles import PROBES, ROWS

    codes = np.zeros((ROWS, 4), np.int16)
    codes[:, 2] = np.where(np.arange(ROWS) % 2, 32_032, -32_032)  # column 1 + 1e-3
    rows = codes.reshape(1, ROWS, 2, 2).swapaxes(1, 2).reshape(1, 2, 2 * ROWS)
    sums, pairs_found = np.empty((PROBES, ROWS), np.int32), np.empty((2, ROWS**2), np.int32)
    args = (np.ascontiguousarray(rows), codes.view(np.int32), 0, 0, 1, 0, sums, *pairs_found)
    count = compile_kernel("pairs")(*args)
    assert count == 2 * (ROWS // 2) * (ROWS // 2 - 1) // 2
    assert set(np.unique(np.abs(sums.astype(np.int64)))) == {32_032**2}


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
