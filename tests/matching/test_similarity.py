"""The cosine equals the dot product, is symmetric to the last bit, and is clipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore.errors import InvalidParameter
from facecore.matching.similarity import as_vectors, cosine

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


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    "number",
    [np.uint32(0x7F800001).view(np.float32), np.uint64(0x7FF0000000000001).view(np.float64)],
    ids=["float32", "float64"],
)
def test_a_signalling_nan_is_refused_without_a_warning(number: Any, rows: int) -> None:
    """Warnings are errors here, as in a program that runs with ``-W error``."""
    with pytest.raises(InvalidParameter, match="vector 0 has length"):
        as_vectors(np.array([[number] * 4] * rows), 4)
