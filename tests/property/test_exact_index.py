"""After any additions, replacements and removals, the exact index equals brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecore.gallery.index import ExactIndex
from facecore.gallery.index.idmap import IdMap
from facecore.matching.scanning import warmup
from facecore.matching.similarity import dots

Array = np.ndarray[Any, Any]

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "remove"]),
        st.lists(st.integers(0, 40), max_size=12, unique=True),
        st.integers(0, 2**32),
    ),
    max_size=12,
)


def vectors(seed: int, count: int, dimension: int) -> Array:
    """Draw hard vectors: few different values, so many are equal or nearly equal."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 5)
    if kind == 0:
        rows = rng.normal(size=(count, dimension))
    elif kind == 1:
        rows = np.eye(dimension)[rng.integers(0, dimension, count)]
    elif kind == 2:
        rows = rng.choice([-1.0, 1.0], (count, dimension))
    elif kind == 3:
        rows = np.ones((count, dimension)) + 1e-7 * rng.normal(size=(count, dimension))
    else:
        rows = np.random.default_rng(seed % 3).normal(size=(1, dimension)) * np.ones((count, 1))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("compiled", [False, True])
@settings(max_examples=60)
@given(steps=steps, wide=st.booleans(), k=st.integers(1, 50), stored=st.booleans())
def test_equal_to_brute_force(
    compiled: bool, steps: list[tuple[str, list[int], int]], wide: bool, k: int, stored: bool
) -> None:
    # The compiled scan needs a kernel for the width; without one, NumPy serves.
    dimension = (130 if wide else 3) if compiled else (300 if wide else 70)
    if compiled:
        warmup(dimension)
    truth: dict[int, tuple[Array, int]] = {}

    def fetch(ids: Array) -> Array:
        return np.stack([truth[key][0] for key in ids.tolist()])

    index = ExactIndex(dimension, keep_vectors=not stored, threads=2)
    for what, ids, seed in steps:
        if what == "add":
            new = vectors(seed, len(ids), dimension)
            labels = [(key + seed) % 3 for key in ids]
            index.add(ids, new, labels)
            truth.update({key: (new[i], labels[i]) for i, key in enumerate(ids)})
        else:
            assert index.remove(ids) == len(truth.keys() & set(ids))
            for key in ids:
                truth.pop(key, None)
    assert len(index) == len(truth)
    probes = np.concatenate([vectors(seed, 2, dimension) for seed in range(4)])
    for wanted in (None, [1], [0, 2]):
        keys = np.array(
            [key for key, (_, label) in truth.items() if wanted is None or label in wanted], int
        )
        found, similarities = index.search(probes, k, wanted, fetch=fetch if stored else None)
        assert found.shape == (len(probes), min(k, len(keys)))
        for probe, row, values in zip(probes, found, similarities, strict=True):
            if len(keys):
                exact = dots(np.stack([truth[key][0] for key in keys]), probe)
                order = np.lexsort((keys, -exact))[:k]
                assert row.tolist() == keys[order].tolist()
                np.testing.assert_array_equal(values, np.clip(exact[order], -1, 1))


@settings(max_examples=50)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 2**32), st.integers(1, 60), st.booleans()), max_size=12
    )
)
def test_the_map_is_a_dictionary(changes: list[tuple[int, int, bool]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facecore.gallery.index.idmap._LEAST_WAITING", 10)
        made, truth = IdMap(), dict[int, int]()
        for seed, count, remove in changes:
            rng = np.random.default_rng(seed)
            ids = rng.choice(100, count, replace=False) * 2**50
            rows = np.full(count, -1) if remove else rng.integers(0, 2**31, count)
            made.put(ids, rows)
            truth.update(zip(ids.tolist(), rows.tolist(), strict=True))
            every = np.arange(101) * 2**50
            assert made.rows(every).tolist() == [truth.get(key, -1) for key in every.tolist()]
