"""Quality measures: formulas, ranges, and whether each one responds to its degradation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from facecore import FaceEngine, NoFaceDetected, UnrecognizableFace
from facecore.evaluation.degradations import DEGRADATIONS, turn_head
from facecore.evaluation.quality import error_versus_discard
from facecore.face.alignment import TEMPLATE
from facecore.face.detection import Face
from facecore.face.measures import MEASURES
from facecore.face.measures.geometry import geometry, head_pose
from facecore.face.measures.occlusion import coverage, occlusion
from facecore.face.measures.pixels import (
    blockiness,
    colour_distance,
    entropy,
    luminance,
    photometry,
    sharpness,
    texture,
)
from facecore.face.quality import HIGH_FROM, HINGES, LOW_BELOW, assess, unified_score
from facecore.face.sample import FaceSample
from facecore.images.picture import Picture

Array = NDArray[np.uint8]
CROPS = hnp.arrays(np.uint8, (112, 112, 3))


def made_up(crop: Array, pixels: Array | None = None) -> FaceSample:
    """Return a sample of any pixels, with its landmarks on the template."""
    box = np.array([20, 24, 92, 116], np.float32)
    face = Face(box, TEMPLATE.astype(np.float32), 0.9)
    return FaceSample(Picture.of(crop if pixels is None else pixels), face, crop)


# Maps from raw values to scores.


@given(st.floats(-1e6, 1e6))
def test_every_score_is_within_0_and_100(raw: float) -> None:
    for measure in MEASURES.values():
        assert 0 <= measure(raw) <= 100


@pytest.mark.parametrize(
    ("name", "raw", "score"),
    [  # from OFIQ's formulas, by hand
        ("eye_distance", 70.0, 50.0),
        ("eye_distance", 90.0, 100 / (1 + math.exp(-1))),
        ("over_exposure", 0.0, 100.0),
        ("over_exposure", 0.04, 20.0),
        ("under_exposure", 0.92, 120 * (0.832 - 0.5)),
        ("under_exposure", 0.97, 120 * (0.832 - 1 / (1 + math.exp(-1)))),
        ("under_exposure", 1.0, 0.0),
        ("dynamic_range", 8.0, 100.0),
        ("luminance_variance", 1 / 60, 100.0),
        ("luminance_mean", 0.2, 50.0),
        ("yaw", 60.0, 25.0),
        ("roll", -45.0, 50.0),
        ("roll", 170.0, 0.0),
        ("head_size", 0.45, 100.0),
        ("margin_above", 1.4, 50.0),
        ("natural_colour", 0.0, 100.0),
        ("illumination_uniformity", 1.0, 100.0),
        ("occlusion", 0.25, 75.0),
    ],
)
def test_scores_by_hand(name: str, raw: float, score: float) -> None:
    assert MEASURES[name](raw) == pytest.approx(score, rel=1e-4, abs=1e-6)


# Raw values of pixels with known answers.


@given(hnp.arrays(np.uint8, (4, 5, 3)))
def test_luminance_is_the_sum_of_linear_light(pixels: Array) -> None:
    v = pixels / 255
    light = np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)
    expected = 255 * (light @ [0.0722, 0.7152, 0.2126])
    assert np.abs(luminance(pixels) - expected).max() <= 0.501


def test_photometry_of_a_plain_crop() -> None:
    raw = photometry(np.full((112, 112, 3), 255, np.uint8))
    assert raw["luminance_mean"] == pytest.approx(1)
    assert raw["over_exposure"] == 1
    assert raw["under_exposure"] == 0
    assert raw["dynamic_range"] == 0
    assert raw["luminance_variance"] == pytest.approx(0, abs=1e-9)
    assert raw["illumination_uniformity"] == 1


def test_entropy_of_a_uniform_histogram_is_its_bits() -> None:
    assert entropy(np.full(256, 1 / 256)) == pytest.approx(8)
    assert entropy(np.array([1.0, 0])) == 0


def test_skin_is_natural_and_grey_and_blue_are_not() -> None:
    assert colour_distance(np.array([120.0, 150, 200])) == 0  # BGR
    grey = colour_distance(np.array([128.0, 128, 128]))
    assert grey == pytest.approx(math.hypot(5, 5), abs=0.01)
    assert colour_distance(np.array([200.0, 120, 80])) > 20


@given(CROPS)
def test_photometry_is_finite(crop: Array) -> None:
    assert all(math.isfinite(value) for value in photometry(crop).values())


def test_sharpness_ignores_contrast_and_sees_blur() -> None:
    rng = np.random.default_rng(0)
    fine = cv2.GaussianBlur(rng.uniform(0, 255, (160, 160)), (0, 0), 1.5)
    fine = np.uint8((fine - fine.min()) / np.ptp(fine) * 255)
    faint = np.uint8(fine * 0.4 + 60)
    assert sharpness(faint) == pytest.approx(sharpness(fine), abs=0.1)
    blurred = [sharpness(cv2.GaussianBlur(fine, (0, 0), sigma)) for sigma in (1, 2, 4, 8)]
    assert np.all(np.diff([sharpness(fine), *blurred]) < 0)


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 9), (9, 3), (8, 8), (17, 250)])
def test_blockiness_of_any_size_is_a_number(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    assert 0 <= blockiness(rng.integers(0, 256, shape, dtype=np.uint8)) < 10


def test_blockiness_finds_the_grid_wherever_it_lies() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (32, 32), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    # A border every eight pixels and nothing between.
    assert blockiness(blocks) > 3
    assert blockiness(blocks[3:, 5:]) == pytest.approx(blockiness(blocks), abs=0.2)
    assert blockiness(rng.integers(0, 256, (256, 256), dtype=np.uint8)) < 0.1
    assert blockiness(np.zeros((256, 256), np.uint8)) == 0


# Pose.


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Roll after pitch after yaw; x right, y down, z away."""
    a, b, c = np.radians([yaw, pitch, roll])
    Y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    P = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    R = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(R @ P @ Y)


@given(
    st.floats(-60, 60), st.floats(-40, 40), st.floats(-170, 170), st.floats(5, 500),
    st.floats(-1e3, 1e4),
)  # fmt: skip
def test_pose_of_the_model_itself_is_found(
    yaw: float, pitch: float, roll: float, scale: float, shift: float
) -> None:
    model = np.array(
        [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.595, -0.6], [-0.39, 1.105, -0.09], [0.39, 1.105, -0.09]]
    )
    points = scale * (model @ rotation(yaw, pitch, roll).T)[:, :2] + shift
    level = rotation(yaw, pitch, 0)
    expected_yaw = math.degrees(math.atan2(-level[0, 2], level[0, 0]))
    found = head_pose(points)
    R = rotation(yaw, pitch, roll)
    expected_roll = math.degrees(math.atan2(R[1, 0], R[0, 0]))
    turn = rotation(0, 0, -expected_roll)
    aligned = turn @ R
    assert found[2] == pytest.approx(expected_roll, abs=0.01)
    assert found[0] == pytest.approx(
        math.degrees(math.atan2(-aligned[0, 2], aligned[0, 0])), abs=0.01
    )
    assert found[1] == pytest.approx(math.degrees(math.asin(-aligned[1, 2])), abs=0.01)
    if pitch == 0:
        assert found[0] == pytest.approx(expected_yaw, abs=0.01)


def test_pose_keeps_its_signs() -> None:
    points = TEMPLATE.copy()
    points[2, 0] += 8  # the nose moves to the image's right
    assert head_pose(points)[0] > 10
    points = TEMPLATE.copy()
    points[2, 1] += 6  # and down
    assert head_pose(points)[1] > head_pose(TEMPLATE)[1] + 5


@given(hnp.arrays(np.float32, (5, 2), elements=st.floats(-1e4, 1e4, width=32)))
def test_geometry_of_any_points_is_finite(points: NDArray[np.float32]) -> None:
    face = Face(np.zeros(4, np.float32), points, 0.5)
    assert all(math.isfinite(value) for value in geometry(face, 480, 640).values())


# The unified score.


@given(CROPS)
def test_quality_of_any_pixels_is_in_range(crop: Array) -> None:
    result = assess(made_up(crop))
    assert 0 <= result.score <= 100
    assert set(result.measures) == set(result.raw) == set(MEASURES)
    assert all(0 <= value <= 100 for value in result.measures.values())
    assert all(math.isfinite(value) for value in result.raw.values())
    assert result.level == (
        "HIGH" if result.score >= HIGH_FROM else "LOW" if result.score < LOW_BELOW else "MEDIUM"
    )
    assert all(0 <= value <= 100 for value in result.operation_scores.values())


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (77, 101), (255, 257)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    crop = np.full((112, 112, 3), 90, np.uint8)
    result = assess(made_up(crop, np.full((*shape, 3), 90, np.uint8)))
    assert all(math.isfinite(value) for value in result.raw.values())


@given(st.dictionaries(st.sampled_from(list(MEASURES)), st.floats(0, 100)), st.data())
def test_a_better_measure_never_lowers_the_score(
    some: dict[str, float], data: st.DataObject
) -> None:
    measures = {name: some.get(name, 70.0) for name in MEASURES}
    name = data.draw(st.sampled_from(list(MEASURES)))
    better = measures | {name: data.draw(st.floats(measures[name], 100))}
    assert unified_score(better) >= unified_score(measures)


def test_the_score_uses_no_measure_of_layout_or_skin() -> None:
    used = {name for name, _, _ in HINGES}
    assert used
    assert used <= set(MEASURES)
    assert not used & {"luminance_mean", "natural_colour", "head_size"}


def test_a_good_portrait(engine: FaceEngine, hopper: Array, astronaut: Array) -> None:
    assert engine.quality(hopper).level == "HIGH"
    for picture in (hopper, astronaut):
        result = engine.quality(picture)
        assert result.level in ("HIGH", "MEDIUM")
        assert result.measures["sharpness"] > 80
        assert result.measures["occlusion"] > 75
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.score = 0.0  # type: ignore[misc]


def test_the_five_scores_of_the_operations(engine: FaceEngine, hopper: Array) -> None:
    result = engine.quality(hopper)
    scores = result.operation_scores
    assert list(scores) == [
        "FaceQualityScore", "IlluminationScore", "KaOcclusionScore", "OcclusionScore",
        "SharpnessScore",
    ]  # fmt: skip
    assert scores["FaceQualityScore"] == result.score
    sample = engine.sample(hopper)
    masked = hopper.copy()
    x1, _, x2, y2 = (int(v) for v in sample.face.box)
    masked[int(sample.face.landmarks[2, 1]) : y2 + 20, x1 - 10 : x2 + 10] = (200, 180, 120)
    turned = Picture.of(masked)
    covered = dataclasses.replace(sample, picture=turned, crop=_crop(masked, sample.face))
    worse = assess(covered).operation_scores
    assert worse["KaOcclusionScore"] < scores["KaOcclusionScore"] - 30
    assert worse["OcclusionScore"] < scores["OcclusionScore"] - 10
    dark = assess(made_up(np.uint8(sample.crop // 16))).operation_scores
    assert dark["IlluminationScore"] < scores["IlluminationScore"]


def _crop(pixels: Array, face: Face) -> Array:
    from facecore.face.alignment import align

    return align(pixels, face.landmarks)


def test_a_sample_and_its_image_have_one_quality(engine: FaceEngine, hopper: Array) -> None:
    assert engine.quality(engine.sample(hopper)) == engine.quality(hopper)


def test_a_sample_is_measured_once(
    engine: FaceEngine, hopper: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = engine.sample(hopper)
    first = engine.quality(sample)
    monkeypatch.setattr("facecore.face.quality.texture", None)
    assert engine.quality(sample) is first
    with pytest.raises(TypeError):  # a copy with other pixels is another sample
        assess(dataclasses.replace(sample, picture=Picture.of(hopper[:, ::-1])))


def test_no_face_has_no_quality(engine: FaceEngine) -> None:
    with pytest.raises(NoFaceDetected):
        engine.quality(np.zeros((200, 200, 3), np.uint8))


def test_a_sample_that_nothing_can_align(hopper: Array) -> None:
    face = Face(np.array([0, 0, 50, 50], np.float32), np.zeros((5, 2), np.float32), 0.9)
    with pytest.raises(NoFaceDetected, match="coincide"):
        assess(FaceSample(Picture.of(hopper), face, hopper[:112, :112]))


def test_a_grey_picture(engine: FaceEngine, hopper: Array) -> None:
    grey = cv2.cvtColor(cv2.cvtColor(hopper, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    result, coloured = engine.quality(np.asarray(grey, np.uint8)), engine.quality(hopper)
    assert result.score > coloured.score - 10
    assert 40 < result.measures["natural_colour"] < 80


def test_a_tiny_face(engine: FaceEngine, hopper: Array) -> None:
    small = cv2.resize(hopper, None, fx=0.15, fy=0.15, interpolation=cv2.INTER_AREA)
    result, large = engine.quality(np.asarray(small, np.uint8)), engine.quality(hopper)
    assert result.measures["eye_distance"] < 10
    assert result.measures["resolution"] == pytest.approx(0.15 * 83 / 35.2 * 100, rel=0.1)
    assert result.score < large.score


# benchmarks/quality.py measures `DEGRADATIONS` on 32 pictures; this test on one.
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_each_measure_notices_its_own_degradation(
    engine: FaceEngine, london_folder: object, name: str
) -> None:
    kind = DEGRADATIONS[name]
    pixels = cv2.imread(f"{london_folder}/013_neutral.jpg")
    sample = engine.sample(np.asarray(pixels, np.uint8))
    answers = []
    for degree in kind.degrees:
        changed = kind.apply(sample.pixels, sample.face, degree)
        answers.append(engine.quality(changed).measures[kind.measures[0]])
    # The detector's landmarks follow a nod only in part; benchmarks/quality.py has more pictures.
    assert answers[-1] < answers[0] - (1.5 if name == "pitch" else 5)
    assert np.sum(np.diff(answers) > 1) <= 1


def test_a_turned_head_is_turned(engine: FaceEngine, hopper: Array) -> None:
    face = engine.largest_face(hopper)
    yaw = [
        engine.quality(turn_head(hopper, face, yaw=degree)).raw["yaw"]
        for degree in (-30, -15, 0, 15, 30)
    ]
    assert np.all(np.diff(yaw) > 0.5)
    assert yaw[-1] - yaw[0] > 25


def test_coverage_is_where_the_cover_is(engine: FaceEngine, hopper: Array) -> None:
    crop = engine.sample(hopper).crop
    covered = crop.copy()
    covered[64:] = (30, 140, 60)
    seen = coverage(covered)
    assert seen.shape == (7, 7)
    assert seen[4:].mean() > 0.8
    assert seen[1:3].mean() < 0.3
    assert occlusion(covered)["occlusion"] > occlusion(crop)["occlusion"] + 0.3


def test_texture_reads_only_around_the_face(engine: FaceEngine, hopper: Array) -> None:
    sample = engine.sample(hopper)
    wide = cv2.copyMakeBorder(hopper, 400, 400, 400, 400, cv2.BORDER_CONSTANT, value=(9, 9, 9))
    shift = np.float32(400)
    moved = Face(sample.face.box + shift, sample.face.landmarks + shift, sample.face.confidence)
    again = texture(np.asarray(wide, np.uint8), moved)
    assert again["sharpness"] == pytest.approx(texture(hopper, sample.face)["sharpness"], abs=0.01)


def test_discarding_the_worst_helps(engine: FaceEngine, astronaut: Array, hopper: Array) -> None:
    """Compare degraded copies with the picture; low scores must mark the copies that fail."""
    # The default gate would refuse the worst copies.
    engine = FaceEngine(engine.pack.folder, threads=1, min_recognizability=0)
    similarities, scores = [], []
    for picture in (astronaut, hopper):
        sample = engine.sample(picture)
        vector = engine.embed(sample)
        for name in ("blur", "low resolution", "yaw", "cover from below", "dark"):
            kind = DEGRADATIONS[name]
            for degree in kind.degrees:
                try:
                    seen = engine.sample(kind.apply(picture, sample.face, degree))
                    similarities.append(float(vector @ engine.embed(seen)))
                except (NoFaceDetected, UnrecognizableFace):
                    continue
                scores.append(engine.quality(seen).score)
    threshold = float(np.quantile(similarities, 0.2))
    curve = error_versus_discard(similarities, scores, scores, threshold)
    left = curve.fnmr[np.searchsorted(curve.discarded, 0.3)]
    assert left < 0.7 * curve.fnmr[0]


def test_the_page_lists_every_measure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")
    for m in MEASURES.values():
        assert f"| `{m.name}` | {m.raw} | {m.formula} | {m.source} |" in page
