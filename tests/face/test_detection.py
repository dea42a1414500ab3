"""Decoding and suppression against plain loops; faces of every size; pictures without faces."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from facecore import Face, FaceEngine
from facecore.face.decoders import yunet
from facecore.face.detection import non_maximum_suppression

Array = np.ndarray[Any, Any]
STRIDES = (8, 16, 32)


def test_decode_is_what_the_paper_says() -> None:
    height, width, threshold = 64, 96, 0.5
    rng = np.random.default_rng(0)
    cells = [(height // s) * (width // s) for s in STRIDES]
    outputs = [
        rng.normal(0.5 if d == 1 else 0.0, 0.6, (1, n, d)).astype(np.float32)
        for d in (1, 1, 4, 10)
        for n in cells
    ]
    outputs[0][0, 3] = outputs[4][0, 2] = np.nan  # in cls and in obj
    boxes, landmarks, scores = [], [], []
    for scale, stride in enumerate(STRIDES):
        cls, obj, bbox, kps = (outputs[3 * head + scale][0] for head in range(4))
        for cell in range(cells[scale]):
            row, column = divmod(cell, width // stride)
            probabilities = float(cls[cell, 0]), float(obj[cell, 0])
            if any(math.isnan(p) for p in probabilities):
                continue
            score = math.sqrt(math.prod(min(max(p, 0.0), 1.0) for p in probabilities))
            if score < threshold:
                continue
            dx, dy, dw, dh = (float(v) for v in bbox[cell])
            x, y = (column + dx) * stride, (row + dy) * stride
            w, h = math.exp(dw) * stride, math.exp(dh) * stride
            boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            points = kps[cell].reshape(5, 2).tolist()
            landmarks.append([[(column + px) * stride, (row + py) * stride] for px, py in points])
            scores.append(score)
    assert 10 < len(scores) < sum(cells)
    points, found = yunet(outputs, (height, width), STRIDES, threshold)
    answers = points[:, :2].reshape(-1, 4), points[:, 2:], found
    for answer, wanted in zip(answers, (boxes, landmarks, scores), strict=True):
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, np.array(wanted), rtol=1e-5, atol=1e-4)


def test_decode_of_nothing_has_the_right_shapes() -> None:
    outputs = [np.zeros((1, n, d), np.float32) for d in (1, 1, 4, 10) for n in (16, 4, 1)]
    shapes = [part.shape for part in yunet(outputs, (32, 32), STRIDES, 0.5)]
    assert shapes == [(0, 7, 2), (0,)]


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / union) if union > 0 else 0.0


def candidates(smallest: int) -> st.SearchStrategy[list[tuple[int, ...]]]:
    """(x, y, width, height, score in %) on a coarse grid, so that ties and touches occur."""
    side = st.integers(smallest, 8)
    return st.lists(
        st.tuples(st.integers(-6, 6), st.integers(-6, 6), side, side, st.integers(1, 9)),
        max_size=24,
    )


def arrays(drawn: list[tuple[int, ...]]) -> tuple[Array, Array]:
    table = np.array(drawn, np.float32).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return boxes, table[:, 4] / 10


@given(candidates(0), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_against_every_pair(drawn: list[tuple[int, ...]], limit: float) -> None:
    boxes, scores = arrays(drawn)
    wanted: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i].tolist(), boxes[k].tolist()) <= limit for k in wanted):
            wanted.append(i)
    kept = list(non_maximum_suppression(boxes, scores, limit))
    assert [i for i, _ in kept] == wanted
    for i, overlaps in kept:
        expected = [overlap(boxes[i].tolist(), box) for box in boxes.tolist()]
        np.testing.assert_allclose(overlaps, expected, atol=1e-6)


@given(candidates(1), st.sampled_from([0.31, 0.47]))
def test_suppression_against_opencv(drawn: list[tuple[int, ...]], limit: float) -> None:
    boxes, scores = arrays(drawn)
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    wanted = cv2.dnn.NMSBoxes(sized.tolist(), scores.tolist(), 0.0, limit)
    assert [i for i, _ in non_maximum_suppression(boxes, scores, limit)] == list(wanted)


@given(candidates(1), st.sampled_from([0.4, 0.6]))
def test_suppression_of_parts(drawn: list[tuple[int, ...]], inside: float) -> None:
    boxes, scores = arrays(drawn)

    def share(a: Any, b: Any) -> float:
        shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
        return float(shared / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))

    wanted: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(share(boxes[i], boxes[k]) < inside for k in wanted):
            wanted.append(i)
    kept = non_maximum_suppression(boxes, scores, 1.0, inside)
    assert [i for i, _ in kept] == wanted


@pytest.fixture(scope="module", params=["astronaut", "hopper"])
def portrait(request: pytest.FixtureRequest) -> Array:
    image: Array = request.getfixturevalue(request.param)
    return image


def scaled(image: Array, factor: float) -> Array:
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind), np.uint8)


def around(image: Array, box: Array, share: float) -> tuple[Array, Array]:
    """Return the crop in which the box has this share of the area, and its top left corner."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 / math.sqrt(share)
    start = np.maximum(np.round(middle - half), 0).astype(int)
    stop = np.minimum(np.round(middle + half), image.shape[1::-1]).astype(int)
    return image[start[1] : stop[1], start[0] : stop[0]], start


def check_plausible(face: Face) -> None:
    x1, y1, x2, y2 = face.box
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert 0.6 <= face.confidence <= 1
    assert x2 > x1
    assert y2 > y1
    margin = 0.1 * face.size
    assert (face.landmarks > [x1 - margin, y1 - margin]).all()
    assert (face.landmarks < [x2 + margin, y2 + margin]).all()
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    assert 0.25 < (left_eye[0] - right_eye[0]) / (x2 - x1) < 0.75


def test_a_portrait_has_one_face(engine: FaceEngine, portrait: Array) -> None:
    (face,) = engine.detect(portrait)
    check_plausible(face)
    assert face.box.shape == (4,)
    assert face.landmarks.shape == (5, 2)
    assert face.box.dtype == face.landmarks.dtype == np.float32
    assert overlap(face.box, engine.largest_face(portrait).box) > 0.7


def test_the_landmarks_are_where_the_face_is(engine: FaceEngine, astronaut: Array) -> None:
    (face,) = engine.detect(astronaut)
    seen = [[206, 108], [244, 107], [223, 130], [206, 146], [242, 146]]  # marked by hand
    assert np.abs(face.landmarks - seen).max() < 7


@pytest.mark.parametrize("size", [24, 48, 96, 400, 1500])
def test_every_size_is_found(engine: FaceEngine, portrait: Array, size: int) -> None:
    box = engine.largest_face(portrait).box
    factor = size / float(np.sqrt(np.prod(box[2:] - box[:2])))
    face = engine.detect(scaled(portrait, factor))[0]
    check_plausible(face)
    assert overlap(face.box, box * factor) > 0.6


@pytest.mark.parametrize("size", [20, 24])
def test_a_small_face_in_a_large_picture(engine: FaceEngine, portrait: Array, size: int) -> None:
    face = engine.largest_face(portrait)
    small = scaled(portrait, size / face.size)
    canvas = np.full((1200, 1600, 3), 128, np.uint8)
    canvas[900 : 900 + len(small), 1300 : 1300 + small.shape[1]] = small
    (found,) = engine.detect(canvas)
    assert overlap(found.box, face.box * size / face.size + [1300, 900, 1300, 900]) > 0.4
    engine.largest_face(canvas)


@pytest.mark.parametrize("share", [0.85, 1.6])
def test_a_face_that_fills_or_overruns_the_frame(
    engine: FaceEngine, portrait: Array, share: float
) -> None:
    box = engine.largest_face(portrait).box
    part, start = around(portrait, box, share)
    for factor in (1, 8):
        face = engine.detect(scaled(part, factor))[0]
        check_plausible(face)
        assert overlap(face.box, (box - np.tile(start, 2)) * factor) > 0.4


def test_the_largest_comes_first(engine: FaceEngine, astronaut: Array, hopper: Array) -> None:
    small = scaled(hopper, 0.35)
    picture = np.zeros((512, 512 + small.shape[1], 3), np.uint8)
    picture[:, -512:] = astronaut
    picture[: len(small), : small.shape[1]] = small
    first, second = engine.detect(picture)
    assert first.size > second.size
    assert first.box[0] > small.shape[1] > second.box[2]
    assert engine.largest_face(picture).box[0] > small.shape[1]


@pytest.mark.parametrize("shift", [(1, 1), (7, 3), (32, 16), (50, 90)])
def test_a_moved_face_is_found_moved(
    engine: FaceEngine, portrait: Array, shift: tuple[int, int]
) -> None:
    (before,) = engine.detect(portrait)
    moved = cv2.copyMakeBorder(portrait, shift[1], 0, shift[0], 0, cv2.BORDER_REPLICATE)
    (after,) = engine.detect(np.asarray(moved, np.uint8))
    assert overlap(after.box - np.tile(shift, 2), before.box) > 0.85
    assert np.abs(after.landmarks - shift - before.landmarks).max() < 0.08 * before.size


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8),
        np.full((300, 400, 3), 127, np.uint8),
        np.repeat(data.brick()[:, :, None], 3, axis=2),
        np.repeat(data.gravel()[:, :, None], 3, axis=2),
        np.full((1, 1, 3), 200, np.uint8),
        np.full((1, 2000, 3), 90, np.uint8),
        np.full((2000, 1, 3), 90, np.uint8),
        np.arange(45, dtype=np.uint8).reshape(3, 5, 3),
        np.zeros((4, 40_000, 3), np.uint8),
    ],
    ids=["noise", "flat", "brick", "gravel", "1x1", "1x2000", "2000x1", "3x5", "4x40000"],
)
def test_no_face_where_there_is_none(engine: FaceEngine, image: Array) -> None:
    assert engine.detect(image) == []
