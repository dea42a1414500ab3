"""The least-squares transform against two oracles, and the crop against exact geometry."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import transform as skt

from facecore.errors import NoFaceDetected
from facecore.face.alignment import CROP_SIZE, TEMPLATE, align, estimate

Array = np.ndarray[Any, Any]


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> Array:
    """Return the (2, 3) map from the template into a picture."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def apply(matrix: Array, points: Array) -> Array:
    return points @ matrix[:, :2].T + matrix[:, 2]


def least_squares(points: Array, target: Array) -> Array:
    """Solve x' = ax - by + t, y' = bx + ay + u directly for its four parameters."""
    x, y = points.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    A = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    (a, b, t, u), *_ = np.linalg.lstsq(A, target.T.ravel(), rcond=None)
    return np.array([[a, -b, t], [b, a, u]])


def scikit_image(points: Array, target: Array) -> Array:
    if hasattr(skt.SimilarityTransform, "from_estimate"):  # since 0.26
        return np.asarray(skt.SimilarityTransform.from_estimate(points, target).params[:2])
    made = skt.SimilarityTransform()
    assert made.estimate(points, target)
    return np.asarray(made.params[:2])


poses = st.builds(
    similarity,
    st.floats(-1.5, 2.5).map(lambda exponent: 10.0**exponent),
    st.floats(-np.pi, np.pi),
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
noise = hnp.arrays(np.float64, (5, 2), elements=st.floats(-5, 5))  # pixels of the template


@given(poses, noise)
def test_estimate_is_the_least_squares_solution(pose: Array, noise: Array) -> None:
    points = apply(pose, TEMPLATE + noise)
    found = estimate(points, TEMPLATE)
    assert found
    mapped = apply(found.matrix, points)
    np.testing.assert_allclose(mapped, apply(least_squares(points, TEMPLATE), points), atol=1e-5)
    np.testing.assert_allclose(mapped, apply(scikit_image(points, TEMPLATE), points), atol=1e-5)
    spread = np.linalg.norm(TEMPLATE - TEMPLATE.mean(axis=0))
    assert found.residual == pytest.approx(np.linalg.norm(mapped - TEMPLATE) / spread, abs=1e-9)


@given(poses)
def test_a_posed_template_comes_back(pose: Array) -> None:
    points = apply(pose, TEMPLATE)
    found = estimate(points, TEMPLATE)
    np.testing.assert_allclose(apply(found.matrix, points), TEMPLATE, atol=1e-6)
    assert found.residual < 1e-7
    assert found.scale * np.hypot(*pose[:, 0]) == pytest.approx(1)


@given(poses, st.floats(0, np.pi))
def test_points_on_a_line_have_their_least_squares_solution(pose: Array, angle: float) -> None:
    line = np.outer([-20.0, 25, 0, -15, 10], [np.cos(angle), np.sin(angle)])
    points = apply(pose, line)
    mapped = apply(estimate(points, TEMPLATE).matrix, points)
    np.testing.assert_allclose(mapped, apply(least_squares(points, TEMPLATE), points), atol=1e-5)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.where(np.eye(5, 2) > 0, np.nan, TEMPLATE), "finite"),
        (np.where(np.eye(5, 2) > 0, np.inf, TEMPLATE), "finite"),
        (np.full((5, 2), 7.0), "coincide"),
        (TEMPLATE * 1e-9 + 50, "coincide"),
        (TEMPLATE.astype(np.float32) * np.float32(1e-4) + np.float32(1e6), "coincide"),
        (TEMPLATE * [-1, 1], "mirrored"),
        (TEMPLATE * [1, -1] + 300, "mirrored"),
    ],
)
def test_degenerate_points_fail_with_a_reason(points: Array, reason: str) -> None:
    found = estimate(points, TEMPLATE)
    assert not found
    assert reason in found.failure
    assert np.isnan(found.matrix).all()
    with pytest.raises(NoFaceDetected, match=reason):
        align(np.zeros((99, 99, 3), np.uint8), points)


@pytest.mark.parametrize(
    "points",
    [TEMPLATE * [1, 0], TEMPLATE[[1, 2, 0, 3, 4]], TEMPLATE[[0, 2, 3, 4, 1]]],
    ids=["eyes level with the mouth", "three confused", "four confused"],
)
def test_points_that_are_no_face_are_refused(points: Array) -> None:
    with pytest.raises(NoFaceDetected, match="do not fit"):
        align(np.zeros((99, 99, 3), np.uint8), points)


@pytest.mark.parametrize("scale", [1e4, 1e12, 1e30])
def test_absurdly_large_faces_do_no_harm(astronaut: Array, scale: float) -> None:
    crop = align(astronaut, TEMPLATE * scale)
    assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
    assert crop.dtype == np.uint8


def test_a_float32_face_far_from_the_origin_is_aligned_as_well(astronaut: Array) -> None:
    landmarks = np.add(TEMPLATE, (150, 20)).astype(np.float32)
    wide = np.zeros((512, 40_000, 3), np.uint8)  # beyond 2^15, OpenCV's limit in places
    wide[:, 39_000:39_512] = astronaut
    near = align(astronaut, landmarks).astype(int)
    assert abs(align(wide, landmarks + np.float32([39_000, 0])) - near).mean() < 0.5


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("scale", [0.05, 0.13, 0.24, 0.26, 0.4, 0.5, 0.7, 1.0, 1.7, 3.0])
def test_landmarks_land_on_the_template(scale: float, angle: float) -> None:
    """Bright spots drawn around the landmarks have their centres on the template's points."""
    side = int(170 / scale)
    middle = similarity(1 / scale, angle, (0, 0)) @ [-55.5, -71, 1] + side / 2
    landmarks = apply(similarity(1 / scale, angle, (middle[0], middle[1])), TEMPLATE)
    sigma, axis = max(2 / scale, 1.0), np.arange(side)
    spots = [
        np.exp(-((axis[:, None] - y) ** 2 + (axis - x) ** 2) / (2 * sigma**2)) for x, y in landmarks
    ]
    picture = np.repeat((250 * np.sum(spots, axis=0)).astype(np.uint8)[..., None], 3, axis=2)
    crop = align(picture, landmarks)[..., 1].astype(float)
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    for x, y in TEMPLATE:
        weight = crop * (np.hypot(columns - x, rows - y) < 9)
        centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(centre, (x, y), atol=0.15)


def noisy(image: Array, factor: float) -> Array:
    """Enlarge `image` and add noise to every pixel, which only averaging removes."""
    large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(0).normal(0, 20, large.shape)
    return np.clip(large + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [(0, 0), (-170, -60), (330, 20)], ids=["in", "corner", "right"])
@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7])
def test_a_large_face_is_averaged_down_not_subsampled(
    astronaut: Array, factor: int, shift: tuple[float, float]
) -> None:
    large = noisy(astronaut, factor)
    small = cv2.resize(large, (512, 512), interpolation=cv2.INTER_AREA)
    landmarks = np.add(TEMPLATE, (170, 40)) + shift  # in pixels of `small`; scale 1 there
    wanted = align(small, landmarks).astype(int)
    assert wanted.any()
    crop = align(large, (landmarks + 0.5) * factor - 0.5)
    assert abs(crop - wanted).mean() < 4
    np.testing.assert_array_equal(crop.max(axis=2)[wanted.max(axis=2) == 0] > 60, False)
