"""Vectors of two packs, compared as gallery and probe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore.errors import InvalidParameter
from facecore.evaluation.compatibility import compare_variants


def unit(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    vectors = rng.standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.integers(4, 12), st.floats(-0.9, 0.9))
def test_rates_are_counted_over_ordered_pairs(seed: int, n: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    gallery, probes = unit(rng, n), unit(rng, n)
    people = np.arange(n) // 2
    found = compare_variants(gallery, probes, people, [threshold])
    falsely = rejected = genuine = impostor = 0
    matrix = gallery @ probes.T
    for i in range(n):
        for j in range(n):
            if people[i] != people[j]:
                impostor += 1
                falsely += bool(matrix[i, j] >= threshold)
            elif i != j:
                genuine += 1
                rejected += bool(matrix[i, j] < threshold)
    assert (found.genuine, found.impostor, found.pictures) == (genuine, impostor, n)
    assert found.mixed_fmr == (pytest.approx(falsely / impostor),)
    assert found.mixed_fnmr == (pytest.approx(rejected / genuine),)
    cosines = (gallery * probes).sum(axis=1)
    assert found.cosine_mean == pytest.approx(cosines.mean(), abs=1e-6)
    assert found.cosine_low == pytest.approx(np.quantile(cosines, 0.01), abs=1e-6)


def test_a_pack_against_itself_changes_nothing() -> None:
    vectors = unit(np.random.default_rng(0), 20)
    found = compare_variants(vectors, vectors, np.arange(20) // 2, [0.1, 0.4])
    assert (found.mixed_fmr, found.mixed_fnmr) == (found.fmr, found.fnmr)
    assert found.cosine_low == pytest.approx(1, abs=1e-6)


def test_a_picture_without_a_vector_takes_no_part() -> None:
    rng = np.random.default_rng(0)
    gallery, probes, people = unit(rng, 6), unit(rng, 6), np.array([0, 0, 1, 1, 2, 2])
    probes[5] = np.nan
    found = compare_variants(gallery, probes, people, [0.0])
    assert found == compare_variants(gallery[:5], probes[:5], people[:5], [0.0])


def test_what_cannot_be_compared() -> None:
    vectors = unit(np.random.default_rng(0), 4)
    for people in ([0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 1]):
        with pytest.raises(InvalidParameter):
            compare_variants(vectors, vectors, people, [0.0])
    with pytest.raises(InvalidParameter):
        compare_variants(vectors, vectors[:, :4], [0, 0, 1, 1], [0.0])
