"""Intervals, curves, searches, quality and attacks against brute force."""

from __future__ import annotations

import math
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore.errors import InvalidParameter, MissingExtra
from facecore.evaluation.all_pairs import Histograms, compare_all
from facecore.evaluation.attacks import attack_errors, bpcer_at_apcer
from facecore.evaluation.identification import search_all
from facecore.evaluation.intervals import Rate, rate
from facecore.evaluation.metrics import (
    error_curve,
    fmr,
    fnmr,
    histogram_curve,
    tar_at_far,
    tar_at_far_rate,
)
from facecore.evaluation.quality import error_versus_discard
from facecore.matching.intervals import draw_people, wilson_interval

Array = np.ndarray[Any, Any]

tenths = st.integers(-10, 10).map(lambda value: value / 10)
sides = st.lists(tenths, min_size=1, max_size=20)


def test_a_rate_without_errors_is_still_uncertain() -> None:
    found = rate(np.zeros(300, bool), np.arange(300))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(0.0126, abs=2e-4)  # Wilson: z2 / (n + z2)
    assert str(found) == "0 (up to 1.26 %)"


def test_more_pictures_of_the_same_people_make_no_rate_surer() -> None:
    # A person's vectors are equal, and orthogonal to those of all other people.
    vectors = np.repeat(np.eye(60, dtype=np.float32), 10, axis=0)
    found = compare_all(vectors, np.repeat(np.arange(60), 10), [0.5])
    fmr, fnmr = found.fmr(), found.fnmr()
    assert fmr is not None
    assert fnmr is not None
    assert fmr[0].total == 177_000
    assert (str(fmr[0]), str(fnmr[0])) == ("0 (up to 0.217 %)", "0 (up to 6.02 %)")
    assert str(rate(np.ones(600), np.repeat(np.arange(60), 10))) == "100.00 % (93.98 % to 100.00 %)"
    both = [[0, 1], [1, 0], [1, 2], [2, 1]] * 5  # three people in two pairs
    assert rate(np.zeros(20), both).high == Rate.wilson(0, 2).high
    alone = compare_all(vectors[9:21], np.repeat([0, 1, 2], [1, 10, 1]), [0.5]).fnmr()
    assert alone is not None
    assert alone[0].high == Rate.wilson(0, 1).high  # one person has two pictures


def test_pairs_of_people_against_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(8)
    who, hits = rng.integers(0, 12, (300, 2)), rng.random(300) < 0.3
    found = rate(hits, who)
    weights = [drawn[who].prod(axis=1) for drawn in draw_people(12)]
    rates = [weight @ hits / weight.sum() for weight in weights]
    low, high = np.quantile(rates, [0.025, 0.975])
    pairs = len(np.unique(np.sort(who), axis=0))
    least = wilson_interval(found.value * pairs, pairs)
    assert (found.low, found.high) == pytest.approx((min(low, least[0]), max(high, least[1])))


@pytest.mark.parametrize("shape", [(60,), (60, 2)])
def test_one_error_gives_no_surer_rate_than_none(shape: tuple[int, ...]) -> None:
    # Ten comparisons of each person, or of each pair of neighbours.
    people = np.stack([np.arange(60), np.arange(1, 61)], axis=1)[:, : len(shape)].reshape(shape)
    people = np.repeat(people, 10, axis=0)
    none, one = (rate(np.arange(600) < count, people) for count in (0, 1))
    assert one.low == 0 < one.value
    assert one.high > none.high == Rate.wilson(0, 60).high


def test_a_hundred_thousand_searches_need_no_gigabyte() -> None:
    tracemalloc.start()
    for people in (1000, 100_000):
        rate(np.arange(100_000) % 7 == 0, np.arange(100_000) % people, resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    # A draw in blocks equals a draw at once.
    drawn = np.random.default_rng(0).multinomial(5000, np.full(5000, 1 / 5000), size=1000)
    np.testing.assert_array_equal(draw_people(5000), drawn)


def test_people_in_many_comparisons_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(50), 40)
    counted = np.repeat(rng.random(50) < 0.2, 40)  # a person's comparisons fail together
    by_people, alone = rate(counted, people), rate(counted)
    assert by_people.value == alone.value
    assert by_people.high - by_people.low > 4 * (alone.high - alone.low)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ease = rng.beta(1, 9, 80)  # 10 % on average
        people = np.repeat(np.arange(80), 10)
        found = rate(rng.random(800) < ease[people], people, resamples=200, seed=seed)
        held += found.low <= 0.1 <= found.high
    assert held >= 50  # 57 expected


@pytest.mark.parametrize(
    ("counted", "people"), [([], None), ([True], [1, 2]), ([True], [[1, 2, 3]])]
)
def test_rates_of_nothing(counted: list[bool], people: Any) -> None:
    with pytest.raises(InvalidParameter):
        rate(counted, people)


def test_no_rate_of_more_than_all() -> None:
    with pytest.raises(InvalidParameter):
        Rate.wilson(3, 2)


def test_tar_interval_with_people_against_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(2)
    own, who = rng.normal(1, 1, 80), rng.integers(0, 25, 80)
    others, pairs = rng.normal(-1, 1, 200), rng.permuted(np.tile(np.arange(25), (200, 1)), axis=1)
    pairs = pairs[:, :2]
    found = tar_at_far_rate(own, others, 0.05, genuine_people=who, impostor_people=pairs)
    assert found.value == pytest.approx(tar_at_far(own, others, 0.05))
    rates = []
    for drawn in draw_people(25, seed=0):
        repeated = np.repeat(others, drawn[pairs].prod(axis=1))
        rates.append(tar_at_far(np.repeat(own, drawn[who]), repeated, 0.05))
    low, high = np.quantile(rates, [0.025, 0.975])
    least = wilson_interval(found.value * len(set(who)), len(set(who)))
    assert (found.low, found.high) == pytest.approx((min(low, least[0]), max(high, least[1])))
    wilson = tar_at_far_rate(own, others, 0.05)
    assert wilson == Rate.wilson(found.count, 80)


@given(sides, sides)
def test_the_curve_against_every_threshold(genuine: list[float], impostor: list[float]) -> None:
    curve = error_curve(genuine, impostor)
    assert (curve.fmr[0], curve.fnmr[0]) == (0, 1)
    for threshold, false_match, miss in zip(curve.thresholds, curve.fmr, curve.fnmr, strict=True):
        assert false_match == pytest.approx(fmr(impostor, threshold))
        assert miss == pytest.approx(fnmr(genuine, threshold))
    # Every threshold's pair of rates lies on the curve's straight lines.
    for threshold in {*genuine, *impostor, math.inf}:
        x, y = fmr(impostor, threshold), fnmr(genuine, threshold)
        at = np.isclose(curve.fmr, x)
        upright = (
            bool(np.any(at)) and curve.fnmr[at].min() - 1e-9 <= y <= curve.fnmr[at].max() + 1e-9
        )
        assert upright or np.interp(x, curve.fmr, curve.fnmr) == pytest.approx(y)
    assert 0 <= curve.eer() <= 1


def test_the_equal_error_rate() -> None:
    assert error_curve([3, 4, 5], [0, 1, 2]).eer() == 0
    assert error_curve([0, 1, 2], [3, 4, 5]).eer() == 1
    assert error_curve([1, 3, 4, 5], [0, 1, 2, 4]).eer() == pytest.approx(0.25)
    assert error_curve([1, 1], [1, 1]).eer() == pytest.approx(0.5)


def test_a_curve_from_counts_is_the_curve_of_the_values() -> None:
    rng = np.random.default_rng(4)
    own, others = rng.integers(0, 8192, 500) / 8192, rng.integers(-8192, 4000, 3000) / 8192
    counted, plain = histogram_curve(Histograms.of(own, others)), error_curve(own, others)
    np.testing.assert_allclose(counted.fmr, plain.fmr)
    np.testing.assert_allclose(counted.tar, plain.tar, atol=1e-12)
    np.testing.assert_allclose(counted.thresholds[1:], plain.thresholds[1:])
    fnmr = plain.fnmr[plain.fmr <= 0.01].min()
    assert 1 - tar_at_far(own, others, 0.01) == pytest.approx(fnmr, abs=1e-9)


@pytest.mark.parametrize(("genuine", "impostor"), [([], [0.1]), ([0.1], []), ([np.nan], [0.1])])
def test_no_curve_of_nothing(genuine: list[float], impostor: list[float]) -> None:
    with pytest.raises(InvalidParameter):
        error_curve(genuine, impostor)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(
        MissingExtra, match=r"scikit-learn is not.*pip install 'facecore\[evaluation\]'"
    ):
        error_curve([0.5], [0.1])


@given(st.data())
def test_searches_against_loops(data: st.DataObject) -> None:
    people = st.integers(0, 4)
    corner = st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4)
    probes = data.draw(st.lists(st.tuples(corner, people), min_size=1, max_size=8))
    gallery = data.draw(st.lists(st.tuples(corner, people), min_size=1, max_size=8))
    found = search_all(
        np.array([v for v, _ in probes], np.float32),
        [p for _, p in probes],
        np.array([v for v, _ in gallery], np.float32),
        [p for _, p in gallery],
    )
    wanted_ranks = []
    for k, (vector, person) in enumerate(probes):
        scores = [(float(np.dot(vector, other)), name) for other, name in gallery]
        mates = [s for s, name in scores if name == person]
        others = [s for s, name in scores if name != person]
        wanted_ranks.append(1 + sum(s >= max(mates) for s in others) if mates else 0)
        assert found.top[k] == max(others, default=-np.inf)
        if mates:
            assert found.mate[k] == max(mates)
    assert found.rank.tolist() == wanted_ranks
    mated = [r for r in wanted_ranks if r]
    if mated:
        wanted = [np.mean([r <= k for r in mated]) for k in (1, 2, 3)]
        assert found.cmc(3).tolist() == pytest.approx(wanted)
        assert found.fnir(rank=1).value == pytest.approx(1 - wanted[0])
        assert found.fnir(0.5).count == sum(m < 0.5 for m in found.mate[found.rank > 0])
    if len(mated) < len(probes):
        assert found.fpir(0.5).count == sum(t >= 0.5 for t in found.top[found.rank == 0])


def test_searches_that_say_nothing() -> None:
    one = np.eye(2, dtype=np.float32)
    mated, alone = search_all(one, [0, 1], one, [0, 1]), search_all(one, [2, 3], one, [0, 1])
    with pytest.raises(InvalidParameter, match="FPIR"):
        mated.fpir(0.5)
    with pytest.raises(InvalidParameter, match="FNIR"):
        alone.fnir()
    with pytest.raises(InvalidParameter, match="CMC"):
        alone.cmc()
    with pytest.raises(InvalidParameter):
        search_all(one, [0], one, [0, 1])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_discarding_against_loops(rows: list[tuple[bool, int, int]]) -> None:
    fails, a, b = (np.array(column) for column in zip(*rows, strict=True))
    curve = error_versus_discard(np.where(fails, 0.1, 0.9), a, b, 0.5)
    worse = np.minimum(a, b)
    levels = np.unique(worse)
    for level, gone, miss in zip(levels, curve.discarded, curve.fnmr, strict=True):
        assert gone == pytest.approx((worse < level).mean())
        assert miss == pytest.approx(fails[worse >= level].mean())
    grid = (np.arange(20_000) + 0.5) / 20_000 * 0.3
    stairs = curve.fnmr[np.searchsorted(curve.discarded, grid, side="right") - 1]
    assert curve.partial_area(0.3) == pytest.approx(stairs.mean(), abs=1e-3)


def test_a_perfect_quality_reaches_the_best_area() -> None:
    fails = np.arange(20_000) < 1000
    curve = error_versus_discard(
        np.where(fails, 0, 1), np.arange(20_000), np.full(20_000, 1e9), 0.5
    )
    assert curve.partial_area(0.2) == pytest.approx(curve.best_area(0.2), abs=1e-4)
    blind = error_versus_discard(np.where(fails, 0, 1), np.ones(20_000), np.ones(20_000), 0.5)
    assert blind.partial_area(0.2) == pytest.approx(0.05)
    with pytest.raises(InvalidParameter):
        curve.partial_area(0)
    with pytest.raises(InvalidParameter):
        error_versus_discard([0.5], [np.nan], [1], 0.5)


def test_attack_errors_count_each_species_on_its_own() -> None:
    attacks = [90, 80, 10, np.nan, 60, 40]
    species = ["print", "print", "print", "print", "replay", "replay"]
    found = attack_errors(attacks, species, [5, 20, 70, np.nan], 60)
    assert {name: r.value for name, r in found.apcer.items()} == {
        "print": pytest.approx(1 / 3),
        "replay": 0.5,
    }
    assert (found.worst_species, found.worst_apcer.count) == ("replay", 1)
    assert found.bpcer == Rate.wilson(1, 3)
    assert (found.apnrr["print"].value, found.bpnrr.value) == (0.25, 0.25)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["print", "mask"])), min_size=1, max_size=30
    ),
    st.lists(st.integers(0, 20), min_size=1, max_size=20),
    st.integers(0, 100),
)
def test_bpcer_at_apcer_against_all_thresholds(
    attacks: list[tuple[int, str]], live: list[int], percent: int
) -> None:
    scores, species = [s for s, _ in attacks], [kind for _, kind in attacks]
    found = bpcer_at_apcer(scores, species, live, percent / 100)
    assert found.worst_apcer.value <= percent / 100 + 1e-9
    least = min(
        sum(value >= t for value in live) / len(live)
        for t in [*range(22), math.inf]
        if all(
            sum(s < t for s, k in attacks if k == kind) / species.count(kind)
            <= percent / 100 + 1e-9
            for kind in set(species)
        )
    )
    assert found.bpcer.value == pytest.approx(least)


@pytest.mark.parametrize(
    ("attacks", "species", "live"),
    [([], [], [1]), ([1], [], [1]), ([1], ["print"], []), ([np.nan], ["print"], [1])],
)
def test_attack_errors_of_nothing(
    attacks: list[float], species: list[str], live: list[float]
) -> None:
    with pytest.raises(InvalidParameter):
        attack_errors(attacks, species, live, 50)
