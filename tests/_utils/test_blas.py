"""Matrix products that stay in the calling thread."""

from __future__ import annotations

import numpy as np
import pytest

from facecore._utils import blas


@pytest.mark.parametrize("most", [1, 5000, 2**17])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_products_in_parts_are_those_of_the_whole(
    most: int, kind: type[np.floating], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=size).astype(kind) for size in ((71, 144), (144, 32)))
    monkeypatch.setattr(blas, "_ALONE", most)
    found = blas.multiply(a, b)
    assert found.dtype == kind
    np.testing.assert_allclose(found, a @ b, atol=1e-4)
