"""Two-way and three-way comparisons."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore import Face
from facecore.matching.calibration import SCORE_AT, Calibration
from facecore.matching.comparison import Template, compare, cross_compare
from facecore.models.specs import Knot

CALIBRATION = Calibration(
    tuple(
        Knot(score, far, cosine, 0.0, 1.0)
        for (far, score), cosine in zip(SCORE_AT.items(), [0.0, 0.1, 0.2, 0.3, 0.4], strict=True)
    )
)


def template(vector: object) -> Template:
    face = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 0.9)
    return Template(face, np.asarray(vector, np.float32))


def at(angle: float) -> Template:
    """Return a vector at this angle, in degrees."""
    return template([math.cos(math.radians(angle)), math.sin(math.radians(angle))])


@given(st.integers(0, 2**32), st.floats(0, 100))
def test_a_swap_changes_only_the_order_of_the_faces(seed: int, threshold: float) -> None:
    vectors = np.random.default_rng(seed).normal(size=(2, 128))
    a, b = (template(v / np.linalg.norm(v)) for v in vectors)
    one, other = compare(a, b, CALIBRATION, threshold), compare(b, a, CALIBRATION, threshold)
    assert one.faces == (a.face, b.face)
    assert dataclasses.replace(other, faces=one.faces) == one
    assert one.passed == (one.score >= threshold)
    assert one.score == CALIBRATION.score(one.similarity)


def test_two_poor_faces_need_more_similarity_than_one() -> None:
    a, b = (dataclasses.replace(at(angle), recognizability=40.0) for angle in (0, 60))
    poor, one_clear = (
        compare(a, other, CALIBRATION, 80.0, 0.25)
        for other in (b, dataclasses.replace(b, recognizability=99.5))
    )
    assert poor.similarity == one_clear.similarity
    assert (poor.allowance, one_clear.allowance) == (0.25, 0.0)
    assert poor.score == CALIBRATION.score(poor.similarity - 0.25) < one_clear.score
    assert one_clear.passed
    far = compare(a, dataclasses.replace(at(180), recognizability=0.0), CALIBRATION, 80.0, 0.25)
    assert far.score >= 0  # the scale ends at a cosine of -1


def test_a_score_on_the_threshold_passes() -> None:
    result = compare(at(0), at(60), CALIBRATION, 80.0)  # cosine 0.5
    assert result.similarity == pytest.approx(0.5, abs=1e-6)
    assert compare(at(0), at(60), CALIBRATION, result.score).passed
    assert not compare(at(0), at(60), CALIBRATION, math.nextafter(result.score, 100)).passed
    assert result.far_thresholds == {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}
    assert result.threshold == 80


def test_a_result_can_be_stored_and_changed_without_harm() -> None:
    result = cross_compare(at(0), at(60), at(90), CALIBRATION, 80.0).ab
    copy = pickle.loads(pickle.dumps(result))
    assert (copy.score, copy.far_thresholds) == (result.score, result.far_thresholds)
    fields = dataclasses.asdict(result)
    assert fields["score"] == result.score
    assert fields["far_thresholds"] == {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}
    table: Any = result.far_thresholds
    table.clear()
    assert compare(at(0), at(60), CALIBRATION, 80.0).far_thresholds == fields["far_thresholds"]


def test_identity_scores_100() -> None:
    assert compare(at(10), at(10), CALIBRATION, 80.0).score == pytest.approx(100, abs=1e-4)


# A pair passes at a score of 80: a cosine of 0.3, an angle of 72.5 degrees.
@pytest.mark.parametrize(
    ("b", "c", "ab", "bc", "ca"),
    [
        (50, 100, True, True, False),
        (30, 60, True, True, True),
        (90, 60, False, True, True),
        (30, 110, True, False, False),
    ],
)
def test_chain_and_loop(b: float, c: float, ab: bool, bc: bool, ca: bool) -> None:
    templates = at(0), at(b), at(c)
    chain = cross_compare(*templates, CALIBRATION, 80.0)
    assert chain.ca is None
    assert (chain.ab.passed, chain.bc.passed) == (ab, bc)
    assert chain.passed == (ab and bc)
    loop = cross_compare(*templates, CALIBRATION, 80.0, "loop")
    assert loop.ca is not None
    assert loop.ca.passed == ca
    assert loop.passed == (ab and bc and ca)
    assert (loop.ab, loop.bc) == (chain.ab, chain.bc)
    assert loop.ca.faces == (templates[2].face, templates[0].face)
