"""Make a photograph look like the portrait on an identity card's chip."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from facecore import Face, FaceEngine
from facecore.errors import NoFaceDetected
from facecore.face.id_portrait import HEIGHT, MAX_BYTES, WIDTH, id_portrait

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def portrait(engine: FaceEngine, hopper: Array) -> Array:
    return id_portrait(hopper, engine.largest_face(hopper))


def test_it_is_small_nearly_grey_and_coarse(portrait: Array, hopper: Array) -> None:
    assert portrait.shape == (126, 102, 3) == (HEIGHT, WIDTH, 3)
    assert portrait.dtype == np.uint8
    colour = cv2.cvtColor(portrait, cv2.COLOR_BGR2HSV)[..., 1].mean()
    assert colour < 0.5 * cv2.cvtColor(hopper, cv2.COLOR_BGR2HSV)[..., 1].mean()
    # It is already coarse, so it stays small at the same JPEG quality.
    again = cv2.imencode(".jpg", portrait, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    assert len(again) < 1.5 * MAX_BYTES


def test_the_face_is_level_and_where_a_card_has_it(engine: FaceEngine, portrait: Array) -> None:
    eyes = engine.largest_face(portrait).landmarks[:2]
    np.testing.assert_allclose(eyes.mean(0), [WIDTH / 2, 52], atol=3)
    np.testing.assert_allclose(eyes[1] - eyes[0], [25, 0], atol=3)


def test_it_is_still_the_person(engine: FaceEngine, portrait: Array, hopper: Array) -> None:
    result = engine.compare(portrait, hopper, id_portrait=True)
    assert result.passed
    assert result.score < 100


def test_a_turned_head_is_levelled_and_it_is_repeatable(
    engine: FaceEngine, portrait: Array, hopper: Array
) -> None:
    face = engine.largest_face(hopper)
    assert id_portrait(hopper, face).tobytes() == portrait.tobytes()
    turn = cv2.getRotationMatrix2D((256, 200), 20, 1)
    turned = np.asarray(cv2.warpAffine(hopper, turn, hopper.shape[1::-1]), np.uint8)
    landmarks = face.landmarks @ turn[:, :2].T + turn[:, 2]
    levelled = id_portrait(turned, Face(face.box, landmarks.astype(np.float32), 1.0))
    middle = np.s_[35:90, 25:77]
    assert np.abs(levelled[middle].astype(int) - portrait[middle]).mean() < 12


def test_beyond_the_picture_is_white(hopper: Array) -> None:
    eyes = np.float32([[0, 0], [50, 0], [25, 30], [5, 50], [45, 50]])
    corner = id_portrait(hopper, Face(np.float32([0, 0, 50, 60]), eyes, 1.0))
    assert corner[:40].min() > 200


@pytest.mark.parametrize("eye", [[10.0, 10.0], [np.nan, 0.0]])
def test_eyes_that_coincide(hopper: Array, eye: list[float]) -> None:
    landmarks = np.full((5, 2), 10, np.float32)
    landmarks[1] = eye
    with pytest.raises(NoFaceDetected, match="eyes"):
        id_portrait(hopper, Face(np.zeros(4, np.float32), landmarks, 1.0))
