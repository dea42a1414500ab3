"""Detect motion blur, covers and negatives; the quality of these pictures is never HIGH."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from facecore import FaceEngine, demo
from facecore.errors import FacecoreError
from facecore.evaluation.spoiling import Spoiling
from facecore.face.alignment import align
from facecore.face.measures.occlusion import features
from facecore.face.measures.visibility import LIMITING, detail, limits, visibility
from facecore.face.quality import HIGH_FROM
from facecore.face.recognizability import Gate, likely_reason

Pixels = NDArray[np.uint8]

# The spoiling, the measure that detects it, and a word of the error.
SPOILT = {
    "motion along a row": (Spoiling(line=0.125), "detail", "blurred"),
    "motion along a column": (Spoiling(line=0.125, line_angle=90), "detail", "blurred"),
    "motion along a diagonal": (Spoiling(line=0.125, line_angle=45), "detail", "blurred"),
    "motion between the lines": (Spoiling(line=0.125, line_angle=20), "detail", "blurred"),
    "a tiny face, enlarged": (Spoiling(face_pixels=16.0), "detail", "blurred"),
    "dark sunglasses": (Spoiling(cover="glasses"), "eyes_visible", "covered"),
    "a bar over the eyes": (Spoiling(cover="bar"), "eyes_visible", "covered"),
    "a mask": (Spoiling(cover="mask", shade=180.0), "mouth_visible", "covered"),
    "a negative": (Spoiling(negative=True), "tone", "a negative"),
    "a grey negative": (Spoiling(negative=True, grey=True), "tone", "a negative"),
}


@pytest.fixture(scope="module", params=["astronaut", "hopper"])
def portrait(request: pytest.FixtureRequest) -> Pixels:
    return demo.pictures()["astronaut"] if request.param == "astronaut" else read("hopper")


def read(name: str) -> Pixels:
    picture = cv2.imdecode(np.frombuffer(demo.read(name), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture, np.uint8)


def test_an_untouched_portrait_is_limited_by_nothing(engine: FaceEngine, portrait: Pixels) -> None:
    sample = engine.sample(portrait)
    assert min(limits(sample.crop).values()) > HIGH_FROM


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_portrait_is_never_high(engine: FaceEngine, portrait: Pixels, name: str) -> None:
    spoiling, measure, word = SPOILT[name]
    sample = engine.sample(portrait)
    spoilt = spoiling.apply(portrait, sample.face)
    crop = align(spoilt, sample.face.landmarks)
    low = limits(crop)
    assert low[measure] < HIGH_FROM < limits(sample.crop)[measure], low
    assert word in likely_reason(crop, sample.face)[0]
    try:
        found = engine.sample(spoilt)
    except FacecoreError:  # the face is not found
        return
    # Landmarks of a spoilt picture are inaccurate, so its crop may look better.
    assert engine.quality(found).level != "HIGH"
    (score,) = Gate().scores(np.zeros((1, 1), np.float32), [found.crop])
    assert score == min(limits(found.crop).values())


def test_a_pack_that_was_not_measured_refuses_by_the_crop(portrait: Pixels) -> None:
    gate, engine = Gate(limit=0.3), FaceEngine(threads=1)
    sample = engine.sample(portrait)
    negative = np.asarray(255 - sample.crop, np.uint8)
    fine, poor = gate.scores(np.zeros((2, 4), np.float32), [sample.crop, negative])
    gate.check(fine, sample.crop, sample.face)
    with pytest.raises(FacecoreError, match="probably a negative"):
        gate.check(poor, negative, sample.face)
    Gate(limit=0).check(poor, negative, sample.face)


def test_detail_falls_with_every_blur_and_neither_with_contrast_nor_light(
    engine: FaceEngine, portrait: Pixels
) -> None:
    sample = engine.sample(portrait)
    crop, face = sample.crop, replace(sample.face, box=np.array([8, 0, 104, 112], np.float32))
    faint = np.asarray(crop * 0.5 + 60, np.uint8)
    dark = np.asarray(255 * (crop / 255) ** 1.6, np.uint8)
    assert detail(faint) == pytest.approx(detail(crop), abs=0.1)
    assert detail(dark) == pytest.approx(detail(crop), abs=0.1)
    for angle in range(0, 180, 15):
        blurred = [
            detail(Spoiling(line=length, line_angle=angle).apply(crop, face))
            for length in (0.03, 0.06, 0.12)
        ]
        assert np.all(np.diff([detail(crop), *blurred]) < 0), angle


def test_dark_skin_before_a_bright_wall_is_no_negative(
    engine: FaceEngine, portrait: Pixels
) -> None:
    crop = engine.sample(portrait).crop
    rows, columns = np.mgrid[:112, :112]
    outside = ((columns - 56) / 38) ** 2 + ((rows - 66) / 50) ** 2 > 1
    untouched = visibility(crop)["tone"]
    for wall in (0, 128, 250):
        dark = np.asarray(255 * (crop / 255) ** 1.6, np.uint8)
        dark[outside] = wall
        assert min(limits(dark).values()) > HIGH_FROM, wall
        crop[outside] = wall
        assert visibility(crop)["tone"] == pytest.approx(untouched, abs=1.5), wall


@given(hnp.arrays(np.uint8, (112, 112, 3), elements=st.integers(0, 255)))
def test_any_crop_has_its_measures(crop: Pixels) -> None:
    found = visibility(crop)
    assert tuple(found) == LIMITING
    assert np.isfinite(list(found.values())).all()
    assert visibility(crop, features(crop)) == found


def test_blue_skin_lowers_the_tone_and_ordinary_light_does_not(
    engine: FaceEngine, portrait: Pixels
) -> None:
    crop = engine.sample(portrait).crop
    untouched = visibility(crop)["tone"]
    grey = np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    luma = visibility(grey)["tone"]
    # Red and blue are swapped, as in a colour negative. Luma alone does not show it.
    assert visibility(crop[..., ::-1].copy())["tone"] < min(untouched, luma) - 3
    cool = np.clip(crop * np.array([1.15, 1.0, 0.9]), 0, 255).astype(np.uint8)
    assert visibility(cool)["tone"] == pytest.approx(untouched, abs=1.5)
