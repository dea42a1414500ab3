"""The streamed comparison of all pairs against the whole similarity matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore.errors import InvalidParameter
from facecore.evaluation import all_pairs
from facecore.evaluation.all_pairs import Histograms, compare_all

Array = np.ndarray[Any, Any]

# Cosines of these are multiples of 1/4, exact in float32 for any order of summation.
CORNERS = np.array(np.meshgrid(*[[-0.5, 0.5]] * 4)).reshape(4, -1).T.astype(np.float32)


def dense(vectors: Array, people: Array) -> tuple[Array, Array]:
    one, other = np.triu_indices(len(vectors), 1)
    values = np.clip((vectors @ vectors.T)[one, other], -1, 1)
    same = people[one] == people[other]
    return values[same], values[~same]


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 4)), min_size=2, max_size=40),
    st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.3, 1.0]), min_size=1, max_size=3),
    st.sampled_from([1, 7, 64, 1 << 21]),
)
def test_streamed_equals_dense(
    pictures: list[tuple[int, int]], thresholds: list[float], cells: int
) -> None:
    vectors = CORNERS[[corner for corner, _ in pictures]]
    people = np.array([person for _, person in pictures])
    genuine, impostor = dense(vectors, people)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "_BLOCK_CELLS", cells)
        found = compare_all(vectors, people, thresholds, resamples=5)
    assert (found.genuine_pairs, found.impostor_pairs) == (len(genuine), len(impostor))
    assert found.impostor_above.tolist() == [int((impostor >= t).sum()) for t in thresholds]
    assert found.genuine_below.tolist() == [int((genuine < t).sum()) for t in thresholds]
    edges = Histograms.edges()
    for counts, values in (
        (found.histograms.genuine, genuine),
        (found.histograms.impostor, impostor),
    ):
        np.testing.assert_array_equal(counts, np.histogram(values, edges)[0])


def test_any_vectors_in_blocks_are_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(300, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people = rng.integers(0, 90, 300)
    genuine, impostor = dense(vectors, people)
    monkeypatch.setattr(all_pairs, "_BLOCK_CELLS", 1000)
    # Half-way between two neighbouring similarities, so rounding cannot change a count.
    thresholds = [float(np.sort(impostor)[-k - 1 :][:2].mean()) for k in (5, 50, 5000)]
    found = compare_all(vectors, people.astype(str), thresholds, resamples=200)
    assert found.impostor_above.tolist() == [5, 50, 5000]
    assert found.genuine_below.tolist() == [int((genuine < t).sum()) for t in thresholds]
    rates = found.fmr()
    assert rates is not None
    for rate in rates:
        assert 0 <= rate.low < rate.value < rate.high <= 1


def test_the_resamples_against_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(5)
    vectors = CORNERS[rng.integers(0, 16, 60)]
    people = np.append(np.arange(12), rng.integers(0, 12, 48))
    found = compare_all(vectors, people, [0.5], resamples=20, seed=9)
    drawn = np.random.default_rng(9).multinomial(12, np.full(12, 1 / 12), size=20)
    one, other = np.triu_indices(60, 1)
    passing = (vectors[one] * vectors[other]).sum(1) >= 0.5
    same = people[one] == people[other]
    for k, weight in enumerate(drawn):
        pairs = weight[people[one]] * weight[people[other]] * ~same
        assert found.fmr_resamples[0, k] == pytest.approx(pairs @ passing / pairs.sum())
        own = weight[people[one]] * same
        assert found.fnmr_resamples[0, k] == pytest.approx(own @ ~passing / own.sum())


def test_a_threshold_between_two_float32_is_not_rounded_down() -> None:
    vectors = np.array([[1, 0], [np.float32(0.3), np.sqrt(1 - 0.09)]], np.float32)
    value = float(np.float32(0.3))
    for threshold, passing in ((value, 1), (np.nextafter(value, 1), 0)):
        assert compare_all(vectors, [0, 1], threshold).impostor_above.tolist() == [passing]


def test_sides_that_are_empty() -> None:
    strangers = compare_all(CORNERS[:3], [0, 1, 2], [0.5])
    assert strangers.fnmr() is None
    assert strangers.fmr() is not None
    alone = compare_all(CORNERS[:3], [7, 7, 7], [0.5])
    assert (alone.fmr(), alone.genuine_pairs, alone.impostor_pairs) == (None, 3, 0)
    assert compare_all(CORNERS[:3], [0, 1, 2], []).impostor_pairs == 3


def test_histograms_hold_both_ends() -> None:
    counts = Histograms.of([-1.0, 1.0, np.nextafter(1.0, 0)], [0.0])
    assert counts.genuine[[0, -1]].tolist() == [1, 2]
    assert np.flatnonzero(counts.impostor).tolist() == [8192]


@pytest.mark.parametrize(
    ("vectors", "people"),
    [
        (CORNERS[:1], [0]),
        (CORNERS[:3], [0, 1]),
        (CORNERS[0], [0, 1, 2, 3]),
        (np.full((2, 4), np.nan, np.float32), [0, 1]),
    ],
)
def test_what_cannot_be_compared(vectors: Array, people: list[int]) -> None:
    with pytest.raises(InvalidParameter):
        compare_all(vectors, people, [0.5])
