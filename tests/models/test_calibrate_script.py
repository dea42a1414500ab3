"""The table that `weights/training/calibrate.py` fits to several sets of impostor pairs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "training"))

from calibrate import Strangers, both, table

from facecore.matching.calibration import Calibration

PICTURES = 400


def made_sets() -> list[Strangers]:
    """Make six sets of random vectors: one with similar strangers, one with people twice."""
    rng = np.random.default_rng(0)
    sets = []
    for number in range(6):
        vectors = rng.normal(size=(PICTURES, 64))
        who = np.array([f"{number}/{i}" for i in range(PICTURES)])
        if number == 1:
            vectors[:40] += 6 * rng.normal(size=64) / 8
        if number == 5:
            who[1::2] = who[::2]
            vectors[1::2] = vectors[::2] + rng.normal(size=(PICTURES // 2, 64))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        faces = vectors.astype(np.float32)
        apart = who[:, None] != who[None]
        same = np.triu(~apart, 1) if number == 5 else None
        sets.append(both(f"set {number}", faces, faces, who, apart, same)[0])
    return sets


@pytest.fixture(scope="module")
def sets() -> list[Strangers]:
    return made_sets()


@pytest.fixture(scope="module")
def made(sets: list[Strangers]) -> Calibration:
    return table(sets, "c1-0123456789abcdef")


def test_no_set_passes_more_than_four_times_the_nominal_rate(
    sets: list[Strangers], made: Calibration
) -> None:
    pooled = np.concatenate([one.similarity[one.pairs] for one in sets])
    moved = 0
    for knot in made.knots:
        if knot.far <= 0.01:
            assert max(one.rate(knot.similarity) for one in sets) <= 4 * knot.far * (1 + 1e-6)
            moved += bool((pooled >= knot.similarity).mean() < 0.8 * knot.far)
    assert moved, "the set of people who are alike moves no knot: it tests nothing"


def test_the_genuine_pairs_are_counted_at_the_knot_that_is_written(
    sets: list[Strangers], made: Calibration
) -> None:
    last = sets[-1]
    assert last.same is not None
    genuine = last.similarity[last.same]
    assert (genuine < made.knots[-1].similarity).any()
    for knot in made.knots:
        assert knot.fnmr is not None
        assert knot.fnmr.value == pytest.approx((genuine < knot.similarity).mean(), rel=1e-5)
        assert knot.fnmr.low <= knot.fnmr.value <= knot.fnmr.high


def test_people_are_counted_not_pictures(sets: list[Strangers], made: Calibration) -> None:
    assert made.identities == 5 * PICTURES + PICTURES // 2
    assert made.impostor == sum(int(one.pairs.sum()) for one in sets)


def test_a_bootstrap_draws_all_pictures_of_a_person_together() -> None:
    # With two people, a draw of both has all impostor pairs, and any other draw has none.
    who = np.array(["a", "a", "b"])
    vectors = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    one, _ = both("two people", vectors, vectors, who, who[:, None] != who[None])
    rates = one.resampled(0.5, seed=0)
    assert set(rates[~np.isnan(rates)].tolist()) == {0.5}
    assert np.isnan(rates).any()
