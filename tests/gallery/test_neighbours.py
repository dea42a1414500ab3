"""Pairs from the graph equal those of the exact comparison, once each and in the same order."""

from __future__ import annotations

import numpy as np
import pytest

from facecore.errors import InvalidParameter
from facecore.gallery import neighbours
from facecore.gallery.neighbours import near_pairs


def test_the_graph_finds_the_exact_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hnswlib")
    random = np.random.default_rng(0)
    people = random.normal(size=(100, 64))
    vectors = people[random.integers(0, 100, 500)] + 0.5 * random.normal(size=(500, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    exact = near_pairs(vectors, 0.6)
    monkeypatch.setattr(neighbours, "MOST_EXACT", 499)
    monkeypatch.setattr(neighbours, "_PROBES", 200)
    found = near_pairs(vectors, 0.6)
    assert len(exact) > 500
    for name in ("first", "second", "similarity"):
        np.testing.assert_array_equal(getattr(found, name), getattr(exact, name))
    monkeypatch.setattr(neighbours, "MAX_PAIRS", 500)
    with pytest.raises(InvalidParameter, match="have a similarity of"):
        near_pairs(vectors, 0.6)
