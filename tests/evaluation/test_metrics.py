"""Error rates against brute force over every threshold, ties included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facecore.errors import InvalidParameter
from facecore.evaluation.all_pairs import compare_all
from facecore.evaluation.metrics import (
    best_threshold,
    fmr,
    k_fold_accuracy,
    tar_at_far,
)

Array = np.ndarray[Any, Any]

# Tenths often tie, arbitrary floats rarely.
values = st.one_of(st.integers(-10, 10).map(lambda tenths: tenths / 10), st.floats(-1, 1))
labelled = st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=30)


def split(pairs: list[tuple[float, bool]]) -> tuple[Array, Array]:
    return np.array([v for v, _ in pairs]), np.array([s for _, s in pairs])


def accuracy(values: Array, same: Array, threshold: float) -> float:
    right = sum((v >= threshold) == s for v, s in zip(values.tolist(), same, strict=True))
    return float(right / len(values))


@given(labelled)
@example([(1.0, False), (math.nextafter(1.0, 2.0), True)])  # no float lies between
@example([(0.0, False), (5e-324, True)])
def test_best_threshold_against_all_thresholds(pairs: list[tuple[float, bool]]) -> None:
    values, same = split(pairs)
    best = max(accuracy(values, same, t) for t in [*values.tolist(), math.inf])
    assert accuracy(values, same, best_threshold(values, same)) == best


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    found = best_threshold(np.array([0.1, 0.9, 0.2, 0.6]), np.array([False, True, False, True]))
    assert found == pytest.approx(0.4)


@given(st.lists(st.tuples(values, st.booleans(), st.integers(0, 2)), max_size=30))
def test_k_fold_accuracy_against_loops(rows: list[tuple[float, bool, int]]) -> None:
    rows += [(0.5, True, k) for k in range(3)]
    values, same = split([row[:2] for row in rows])
    fold = np.array([row[2] for row in rows])
    wanted = []
    for k in range(3):
        threshold = best_threshold(values[fold != k], same[fold != k])
        wanted.append(accuracy(values[fold == k], same[fold == k], threshold))
    np.testing.assert_array_equal(k_fold_accuracy(values, same, fold), wanted)


def test_a_fold_never_chooses_its_own_threshold() -> None:
    # Fold 0 separates at 0.3, fold 1 at 0.7. With swapped thresholds, half of each is right.
    values = np.array([0.2, 0.4, 0.6, 0.8])
    same = np.array([False, True, False, True])
    assert k_fold_accuracy(values, same, np.array([0, 0, 1, 1])).tolist() == [0.5, 0.5]


def test_scores_in_single_precision_are_not_rounded_to_the_threshold() -> None:
    scores = np.float32([99, 100, 99, 100])
    fold = np.array([0, 0, 1, 1])
    assert k_fold_accuracy(scores, np.zeros(4, bool), fold).tolist() == [1, 1]


def test_a_pair_that_was_not_compared_teaches_nothing_and_is_wrong() -> None:
    values = np.array([np.nan, 0.8, np.nan, 0.2, np.nan, np.nan, np.nan, 0.2])
    same = np.array([True, True, False, False] * 2)
    assert k_fold_accuracy(values, same, np.repeat([0, 1], 4)).tolist() == [0.5, 0.25]


@pytest.mark.parametrize("fold", [[], [0, 0]])
def test_folds_that_cannot_be_held_out(fold: list[int]) -> None:
    values, same = np.linspace(0, 1, len(fold)), np.zeros(len(fold), bool)
    with pytest.raises(InvalidParameter, match="fold"):
        k_fold_accuracy(values, same, np.array(fold, int))


@given(
    st.lists(values, min_size=1, max_size=20),
    st.lists(values, min_size=1, max_size=20),
    st.integers(0, 100),
)
@example([0.5], [i / 100 for i in range(100)], 29)  # 0.29 * 100 = 28.999999999999996
@example([0.705], [i / 100 for i in range(100)], 29)
def test_tar_at_far_against_all_thresholds(
    genuine: list[float], impostor: list[float], percent: int
) -> None:
    far = percent / 100
    thresholds = [-math.inf, *(math.nextafter(v, math.inf) for v in impostor)]
    allowed = [t for t in thresholds if sum(v >= t for v in impostor) / len(impostor) <= far]
    wanted = sum(v >= min(allowed) for v in genuine) / len(genuine)
    assert tar_at_far(genuine, impostor, far) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("genuine", "impostor", "far"),
    [
        ([0.5], [], 0.1),
        ([], [0.5], 0.1),
        ([0.5], [0.5], -0.1),
        ([0.5], [0.5], 1.1),
        ([1], [1], np.nan),
        ([0.5], [0.1, np.nan], 0.1),
    ],
)
def test_tar_at_far_refuses(genuine: list[float], impostor: list[float], far: float) -> None:
    with pytest.raises(InvalidParameter):
        tar_at_far(genuine, impostor, far)


def test_fmr_counts_the_threshold_itself() -> None:
    assert fmr([0.1, 0.5, 0.5, 0.9], 0.5) == 0.75
    assert fmr([0.1, 0.5, 0.5, 0.9], 0.9000001) == 0


def fmr_interval(vectors: Array, people: Array, thresholds: Any) -> Array:
    found = compare_all(vectors, people, thresholds).fmr_resamples
    return np.quantile(found, [0.025, 0.975], axis=1).T


def test_fmr_interval_against_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(20) * 7, 2)
    vectors = np.repeat(rng.normal(size=(20, 4)), 2, axis=0) + rng.normal(0, 0.3, (40, 4))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    rates = []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(people == p) for p in rng.choice(people[::2], 20)])
        different = people[rows][:, None] != people[rows]
        rates.append((vectors[rows] @ vectors[rows].T >= 0.5)[different].mean())
    wanted = np.quantile(rates, [0.025, 0.975])
    low, high = fmr_interval(vectors, people, [0.5])[0]
    assert (low, high) == pytest.approx(wanted, abs=0.015)
    different = people[:, None] != people
    assert low < (vectors @ vectors.T >= 0.5)[different].mean() < high
    # Everything passes, or nothing passes. A second draw gives the same interval.
    assert fmr_interval(vectors, people, [-1.1, 1.1]).tolist() == [[1, 1], [0, 0]]
    np.testing.assert_array_equal(fmr_interval(vectors, people, 0.5)[0], [low, high])


def test_fmr_interval_of_few_people_has_no_hole() -> None:
    vectors = np.eye(3, dtype=np.float32)  # a resample of three people is often one person
    assert np.isfinite(fmr_interval(vectors, np.arange(3), [0.5])).all()
