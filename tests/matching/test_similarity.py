"""The cosine equals the dot product, is symmetric to the last bit, and is clipped."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facecore.matching.similarity import cosine

Array = np.ndarray[Any, Any]


def unit(seed: int, shape: tuple[int, ...]) -> Array:
    rows = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@given(st.integers(0, 2**32), st.integers(1, 600))
def test_swapping_changes_no_bit(seed: int, dimension: int) -> None:
    a, b = unit(seed, (2, dimension))
    assert cosine(a, b).tobytes() == cosine(b, a).tobytes()
    np.testing.assert_allclose(cosine(a, b), np.dot(a.astype(float), b.astype(float)), atol=1e-12)
    assert abs(float(cosine(a, a)) - 1) < 1e-6
    assert abs(float(cosine(a, -a)) + 1) < 1e-6


def test_rows_are_compared_each_on_its_own() -> None:
    a, b = unit(0, (7, 128)), unit(1, (7, 128))
    rows = cosine(a, b)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, [cosine(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_array_equal(cosine(a, b[0]), [cosine(x, b[0]) for x in a])


def test_rounding_never_leaves_the_range() -> None:
    long = np.float32([1.0001, 0.0])
    assert float(cosine(long, long)) == 1
    assert float(cosine(long, -long)) == -1
