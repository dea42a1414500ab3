"""One monotone, invertible map between cosine, score and false accept rate."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from facecore.errors import InvalidParameter, NotCalibrated
from facecore.matching.calibration import SCORE_AT, Calibration
from facecore.matching.intervals import wilson_interval
from facecore.models.specs import Knot

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
    # Half-way between two knots: the geometric mean.
    assert made.far(75.0) == pytest.approx(math.sqrt(0.01 * 0.001))
    # Beyond the last knot, without a fitted scale, the last segment's decade continues.
    decade = KNOTS[-1] - KNOTS[-2]
    assert made.far(made.score(KNOTS[-1] + decade)) == pytest.approx(1e-5)
    fitted = dataclasses.replace(made, tail_scale=0.03)
    assert fitted.far(fitted.score(KNOTS[-1] + 0.06)) == pytest.approx(1e-4 * math.exp(-2))
    assert fitted.threshold(1e-4 * math.exp(-2)) == pytest.approx(fitted.score(KNOTS[-1] + 0.06))
    assert made.is_extrapolated([80.0, 90.0, 90.001, 100.0]).tolist() == [False, False, True, True]


@given(calibrations, st.floats(0.003, 1), st.floats(0, 100), st.floats(0, 100))
def test_more_score_is_never_more_false_accepts(
    made: Calibration, scale: float, a: float, b: float
) -> None:
    made = dataclasses.replace(made, tail_scale=scale)
    low, high = sorted((a, b))
    assert 0 < made.far(high) <= made.far(low) <= 1
    if high - low > 1e-6:
        assert made.far(high) < made.far(low)


def test_every_method_works_elementwise() -> None:
    made = calibration(KNOTS)
    grid = np.linspace(0, 100, 12).reshape(3, 4)
    for method in (made.score, made.similarity, made.far, made.is_extrapolated):
        whole = method(grid / 100)  # within the domain of all of them
        assert whole.shape == grid.shape
        np.testing.assert_array_equal(whole.ravel(), [method(v) for v in (grid / 100).ravel()])
    rates = np.array([[0.5, 0.02], [0.001, 1e-6]])
    np.testing.assert_array_equal(
        made.threshold(rates), [[made.threshold(float(far)) for far in row] for row in rates]
    )
    assert isinstance(made.threshold(0.02), float)


@pytest.mark.parametrize("far", [0.0, -0.1, 1.1, np.nan, 1e-30])
def test_a_rate_that_no_score_has(far: float) -> None:
    with pytest.raises(InvalidParameter, match="far is"):
        calibration(KNOTS).threshold(far)


def test_the_table_cannot_be_changed_by_who_reads_it() -> None:
    made = calibration(KNOTS)
    table: Any = made.far_thresholds
    table[0.01] = 0.0
    assert made.far_thresholds[0.01] == 70


def test_it_can_be_pickled_also_after_use() -> None:
    made = calibration(KNOTS)
    assert made.far_thresholds
    made.score(0.5), made.far(99.0)  # fill the caches
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    assert copy.far_thresholds == made.far_thresholds
    assert copy.score(0.123) == made.score(0.123)
    assert dataclasses.asdict(made)["contract"] == made.contract


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
    made = Calibration.fit(None, shuffled, dataset="known")
    assert [(knot.far, knot.score) for knot in made.knots] == list(SCORE_AT.items())
    found = [knot.similarity for knot in made.knots]
    np.testing.assert_allclose(found, [exact(far) for far in LEVELS], atol=2e-4)
    for knot in made.knots:
        assert (values >= knot.similarity).mean() == pytest.approx(knot.far, rel=1e-9)
        assert knot.low < knot.far < knot.high
        assert knot.measured
        assert knot.fnmr is None
    assert (made.dataset, made.genuine, made.impostor) == ("known", 0, 200_000)


@pytest.mark.parametrize("count", [100_003, 104_999, 123_457, 290_000])
def test_a_knot_never_passes_more_than_its_rate(count: int) -> None:
    values = np.linspace(-0.9, 0.9, count)
    for knot in Calibration.fit(None, values).knots:
        passing = int((values >= knot.similarity).sum())
        assert passing / count <= knot.far < (passing + 1) / count


GOOD = np.linspace(-0.5, 0.5, 100_000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GOOD[:999], "too few"),
        ([], "too few"),
        (np.append(GOOD, np.nan), "cosines"),
        (np.append(GOOD, 1.0), "cosines"),
        (np.append(GOOD, -1.5), "cosines"),
        (np.zeros(100_000), "vary"),
        (np.repeat([-1.0, 0.5], 100_000), "vary"),
        (np.append(np.linspace(-0.5, 0.9, 1500), np.full(20, 0.99)), "too close"),
        (np.append(np.full(9000, -1.0), np.linspace(-0.99, -0.1, 5000)), "vary"),
    ],
    ids=[
        "one short",
        "empty",
        "NaN",
        "identity",
        "below",
        "constant",
        "two values",
        "a tail beyond identity",
        "opposites",
    ],
)
def test_fit_refuses_what_cannot_be_measured(values: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Calibration.fit(None, values)


@pytest.mark.parametrize("count", [1000, 9_999, 10_000, 99_999, 100_000])
def test_a_rate_that_too_few_comparisons_show_is_marked(count: int) -> None:
    values = stats.norm.ppf((np.arange(count) + 0.5) / count, 0.0, 0.08)
    made = Calibration.fit(None, values)
    assert [knot.measured for knot in made.knots] == [far * count >= 10 for far in LEVELS]
    assert made.rarest_measured.far * count >= 10
    assert made.is_extrapolated(made.rarest_measured.score + 1e-6)
    assert not made.is_extrapolated(made.rarest_measured.score)
    assert made.to_spec() == Calibration.from_spec(made.to_spec()).to_spec()
    assert made.far_thresholds == {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}


def test_the_tail_finds_an_exponential_law() -> None:
    scale, count = 0.03, 5_000
    values = 0.1 + scale * stats.expon.isf((np.arange(count) + 0.5) / count)
    made = Calibration.fit(None, values)
    assert made.tail_scale == pytest.approx(scale, rel=0.01)
    for knot in made.knots[-2:]:
        assert not knot.measured
        assert knot.similarity == pytest.approx(0.1 - scale * math.log(knot.far), abs=3e-3)
        assert knot.low <= knot.far <= knot.high  # the interval holds the extrapolated rate
    assert made.threshold(1e-6) == pytest.approx(made.score(0.1 - scale * math.log(1e-6)), abs=0.2)


def test_many_pictures_of_few_people_measure_little() -> None:
    assert Calibration.fit(None, GOOD, identities=500).rarest_measured.far == 1e-4
    assert Calibration.fit(None, GOOD, identities=142).rarest_measured.far == 1e-3
    assert Calibration.fit(None, GOOD, identities=46).rarest_measured.far == 0.01
    with pytest.raises(InvalidParameter, match="45 people are too few") as caught:
        Calibration.fit(None, GOOD, identities=45)
    assert "46 people" in caught.value.hint


@given(
    st.integers(1000, 120_000),
    st.integers(0, 2**32),
    st.floats(-1, 1),
    st.floats(1e-4, 2),
    st.sampled_from(["normal", "standard_cauchy", "rayleigh"]),
    st.integers(0, 9),
)
def test_whatever_is_fitted_is_a_valid_table(
    count: int, seed: int, middle: float, spread: float, law: str, people: int
) -> None:
    rng = np.random.default_rng(seed)
    values = middle + spread * getattr(rng, law)(size=count)
    values = np.clip(values, -1, np.nextafter(1, 0))
    try:
        made = Calibration.fit(None, values, identities=100 * people or None)
    except InvalidParameter:
        return
    assert Calibration.from_spec(made.to_spec()) == made
    assert (np.diff(made.score(np.linspace(-1, 1, 401))) > 0).all()
    assert (np.diff(made.far(np.linspace(0, 100, 401))) < 0).all()
    for knot in made.knots:
        assert made.score(knot.similarity) == knot.score


def test_genuine_comparisons_move_no_knot_and_are_reported() -> None:
    genuine = np.array([0.2, 0.45, 0.495, 0.6, 1.0, 0.7, 0.8, 0.9])
    made, without = Calibration.fit(genuine, GOOD), Calibration.fit([], GOOD)
    assert [k.similarity for k in made.knots] == [k.similarity for k in without.knots]
    assert all(knot.fnmr is None for knot in without.knots)
    assert made.genuine == 8
    for knot in made.knots:
        assert knot.fnmr is not None
        below = int((genuine < knot.similarity).sum())
        assert knot.fnmr.value == below / 8
        assert (knot.fnmr.low, knot.fnmr.high) == wilson_interval(below, 8)


@pytest.mark.parametrize(
    ("genuine", "message"),
    [
        (GOOD, "not above"),  # a folder that mixes people
        (-np.ones(3), "not above"),
        ([0.9, np.nan], "cosines"),
        ([0.9, 1.1], "cosines"),
    ],
)
def test_fit_refuses_genuine_comparisons_that_are_none(genuine: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Calibration.fit(genuine, GOOD)


def test_swapped_arguments_are_noticed() -> None:
    with pytest.raises(InvalidParameter, match="not above"):
        Calibration.fit(GOOD, np.linspace(0.6, 0.8, 5000))


def test_intervals_are_only_widened() -> None:
    plain = Calibration.fit(np.linspace(0.55, 0.95, 50), GOOD)
    wide = [(far / 2, min(1.0, far * 2)) for far in LEVELS]
    made = plain.with_intervals(wide, [(0.0, 0.5)] * 5, method="by hand")
    assert [(knot.low, knot.high) for knot in made.knots] == wide
    assert [knot.fnmr and knot.fnmr.high for knot in made.knots] == [0.5] * 5
    assert made.method == "by hand"
    narrow = plain.with_intervals([(far, far) for far in LEVELS], method="too sure")
    for knot, before in zip(narrow.knots, plain.knots, strict=True):
        assert knot.low <= before.low < before.high <= knot.high
        assert knot.low == pytest.approx(before.low, rel=2e-3)
        assert knot.high == pytest.approx(before.high, rel=2e-3)
        assert knot.fnmr == before.fnmr


@pytest.mark.parametrize("intervals", [[], [(0.0, 1.0)] * 4, [(0.0, 1.0)] * 6, [(1.0, 0.0)] * 5])
def test_wrong_intervals_are_refused(intervals: list[tuple[float, float]]) -> None:
    made = Calibration.fit([0.9], GOOD)
    for far, fnmr in ((intervals, None), ([(0.0, 1.0)] * 5, intervals)):
        with pytest.raises(InvalidParameter, match="interval"):
            made.with_intervals(far, fnmr, method="")


def test_a_missing_table_takes_no_intervals() -> None:
    with pytest.raises(NotCalibrated):
        Calibration.missing("bare").with_intervals([], method="")


@given(st.integers(1, 10**7), st.floats(0, 1))
def test_wilson_interval(total: int, share: float) -> None:
    count = round(share * total)
    wanted = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(count, total)
    assert low == pytest.approx(wanted.low, abs=1e-12, rel=1e-6)
    assert high == pytest.approx(wanted.high, abs=1e-12, rel=1e-6)
    assert 0 <= low <= count / total <= high <= 1
