"""One monotone, invertible map between cosine, score and false accept rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from facecore.errors import InvalidParameter
from facecore.matching.calibration import SCORE_AT, Calibration, wilson_interval
from facecore.models import Knot

Array = np.ndarray[Any, Any]
LEVELS = list(SCORE_AT)
KNOTS = [-0.01, 0.142318, 0.252033, 0.335428, 0.405693]


def calibration(similarities: list[float]) -> Calibration:
    pairs = zip(SCORE_AT.items(), similarities, strict=True)
    return Calibration(tuple(Knot(score, far, s, 0.0, 1.0) for (far, score), s in pairs))


calibrations = (
    st.lists(st.integers(-990, 990), min_size=5, max_size=5, unique=True)
    .map(sorted)
    .map(lambda thousandths: calibration([t / 1000 for t in thousandths]))
)
cosines = st.floats(-1, 1)


@given(calibrations, cosines, cosines)
def test_more_alike_is_never_a_lower_score(made: Calibration, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert made.score(low) <= made.score(high)
    if high - low > 1e-9:
        assert made.score(low) < made.score(high)


@given(calibrations)
def test_no_rounding_step_at_the_knots(made: Calibration) -> None:
    for knot in made.knots:
        just_below, just_above = np.nextafter(knot.similarity, [-1, 1])
        assert made.score(just_below) <= knot.score <= made.score(just_above)


@given(calibrations, cosines, st.floats(0, 100))
def test_score_and_similarity_are_inverse(made: Calibration, cosine: float, score: float) -> None:
    assert made.similarity(made.score(cosine)) == pytest.approx(cosine, abs=1e-9)
    assert made.score(made.similarity(score)) == pytest.approx(score, abs=1e-9)


@given(calibrations)
def test_exact_at_the_knots_and_the_ends(made: Calibration) -> None:
    for knot in made.knots:
        assert made.score(knot.similarity) == knot.score
        assert made.similarity(knot.score) == knot.similarity
        assert made.far(knot.score) == pytest.approx(knot.far, rel=1e-12)
        assert made.threshold(knot.far) == knot.score
    assert made.score([-1.0, 1.0]).tolist() == [0.0, 100.0]
    assert made.similarity([0.0, 100.0]).tolist() == [-1.0, 1.0]
    assert made.far(0.0) == 1
    assert made.far_thresholds == {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}
    assert made.threshold() == 80


@given(st.floats(0, 100))
def test_far_and_threshold_are_inverse(score: float) -> None:
    made = calibration(KNOTS)
    far = float(made.far(score))
    assert made.threshold(far) == pytest.approx(score, abs=1e-9)
    assert made.far(made.threshold(far)) == pytest.approx(far, rel=1e-9)


def test_the_rate_falls_with_the_score_and_beyond_the_knots_is_a_guess() -> None:
    made = calibration(KNOTS)
    rates = made.far(np.linspace(0, 100, 1001))
    assert (np.diff(rates) < 0).all()
    # Half-way between two knots: the geometric mean; beyond the last, ten points are a decade.
    assert made.far(75.0) == pytest.approx(math.sqrt(0.01 * 0.001))
    assert made.far(95.0) == pytest.approx(10**-4.5)
    assert made.is_extrapolated([80.0, 90.0, 90.001, 100.0]).tolist() == [False, False, True, True]


@pytest.mark.parametrize("far", [0.0, -0.1, 1.1, np.nan, 1e-9])
def test_a_rate_that_no_score_has(far: float) -> None:
    with pytest.raises(InvalidParameter, match="far is"):
        calibration(KNOTS).threshold(far)


def test_the_table_cannot_be_changed_by_who_reads_it() -> None:
    made = calibration(KNOTS)
    table: Any = made.far_thresholds
    with pytest.raises(TypeError):
        table[0.01] = 0.0
    assert made.far_thresholds[0.01] == 70


QUANTILE_GRID = (np.arange(200_000) + 0.5) / 200_000


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        (QUANTILE_GRID - 0.5, lambda far: 0.5 - far),
        (stats.norm.ppf(QUANTILE_GRID, 0.05, 0.1), lambda far: stats.norm.isf(far, 0.05, 0.1)),
    ],
    ids=["uniform", "normal"],
)
def test_fit_finds_the_quantiles(values: Array, exact: Any) -> None:
    shuffled = np.random.default_rng(0).permutation(values).reshape(1000, 200)
    made = Calibration.fit(shuffled, dataset="known")
    assert [(knot.far, knot.score) for knot in made.knots] == list(SCORE_AT.items())
    found = [knot.similarity for knot in made.knots]
    np.testing.assert_allclose(found, [exact(far) for far in LEVELS], atol=2e-4)
    for knot in made.knots:
        assert (values >= knot.similarity).mean() == pytest.approx(knot.far, rel=1e-9)
        assert knot.low < knot.far < knot.high
    assert made.dataset == "known"
    assert "200,000" in made.method


@pytest.mark.parametrize("count", [100_003, 104_999, 123_457, 290_000])
def test_a_knot_never_passes_more_than_its_rate(count: int) -> None:
    values = np.linspace(-0.9, 0.9, count)
    for knot in Calibration.fit(values).knots:
        passing = int((values >= knot.similarity).sum())
        assert passing / count <= knot.far < (passing + 1) / count


GOOD = np.linspace(-0.5, 0.5, 100_000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GOOD[1:], "too few"),
        ([], "too few"),
        (np.append(GOOD, np.nan), "cosines"),
        (np.append(GOOD, 1.0), "cosines"),
        (np.append(GOOD, -1.5), "cosines"),
        (np.zeros(100_000), "vary"),
        (np.repeat([-1.0, 0.5], 100_000), "vary"),
    ],
    ids=["one short", "empty", "NaN", "identity", "below", "constant", "two values"],
)
def test_fit_refuses_what_cannot_be_measured(values: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Calibration.fit(values)


def test_fit_takes_measured_intervals() -> None:
    intervals = [(far / 2, min(1.0, far * 2)) for far in LEVELS]
    made = Calibration.fit(GOOD, intervals=intervals)
    assert [(knot.low, knot.high) for knot in made.knots] == intervals


@pytest.mark.parametrize("intervals", [[], [(0.0, 1.0)] * 4, [(0.0, 1.0)] * 6, [(1.0, 0.0)] * 5])
def test_fit_refuses_wrong_intervals(intervals: list[tuple[float, float]]) -> None:
    with pytest.raises(InvalidParameter, match="interval"):
        Calibration.fit(GOOD, intervals=intervals)


@given(st.integers(1, 10**7), st.floats(0, 1))
def test_wilson_interval(total: int, share: float) -> None:
    count = round(share * total)
    wanted = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(count, total)
    assert low == pytest.approx(wanted.low, abs=1e-12, rel=1e-6)
    assert high == pytest.approx(wanted.high, abs=1e-12, rel=1e-6)
    assert 0 <= low <= count / total <= high <= 1
