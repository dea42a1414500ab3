"""Faces at any roll get correct landmarks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import FaceEngine, demo
from facecore.face import orientation
from facecore.face.alignment import TEMPLATE
from facecore.face.detection import Face
from facecore.face.orientation import estimate_rolls, find_turned, right
from facecore.images.picture import Picture

Pixels = NDArray[np.uint8]


def tilted(pixels: Pixels, degrees: float) -> tuple[Pixels, NDArray[np.float64]]:
    """Turn the picture clockwise on a canvas that holds all of it; return it and the map."""
    height, width = pixels.shape[:2]
    side = int(np.hypot(height, width))
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    return np.asarray(cv2.warpAffine(pixels, turn, (side, side)), np.uint8), turn


def off(degrees: float, wanted: float) -> float:
    return abs((degrees - wanted + 180) % 360 - 180)


@pytest.fixture(scope="module")
def astronaut() -> Pixels:
    return demo.pictures()["astronaut"]


@pytest.mark.parametrize("roll", range(-180, 180, 30))
def test_landmarks_follow_the_roll(engine: FaceEngine, astronaut: Pixels, roll: int) -> None:
    upright = engine.largest_face(astronaut)
    turned, turn = tilted(astronaut, roll)
    found = engine.largest_face(turned)
    assert off(found.roll, upright.roll + roll) < 18
    wanted = upright.landmarks @ turn[:, :2].T + turn[:, 2]
    eyes = np.linalg.norm(upright.landmarks[1] - upright.landmarks[0])
    assert np.linalg.norm(found.landmarks - wanted, axis=1).max() < 0.45 * eyes
    centre = found.box.reshape(2, 2).mean(0)
    assert np.linalg.norm(centre - wanted.mean(0)) < upright.size / 2
    assert upright.size / 1.5 < found.size < upright.size * 1.5


def test_turning_both_pictures_changes_no_score(engine: FaceEngine) -> None:
    pictures = list(demo.pictures().values())
    for a, b in pairwise([*pictures, pictures[0]]):
        scores = [
            engine.compare(np.rot90(a, k).copy(), np.rot90(b, k).copy()).score for k in range(4)
        ]
        assert max(scores) - min(scores) < 10, scores  # 9.1 for an impostor pair with score 28


def test_quarter_turns_of_lfw(engine: FaceEngine, lfw_folder: Path) -> None:
    pictures = sorted((lfw_folder / "images").glob("*/*_0002.jpg"))[::40]
    rolls = [
        (engine.largest_face(np.rot90(pixels, -k).copy()).roll, 90 * k)
        for pixels in (np.asarray(cv2.imread(str(path)), np.uint8) for path in pictures)
        for k in range(4)
    ]
    assert np.mean([off(found, wanted) < 35 for found, wanted in rolls]) > 0.97


def test_boxes_at_the_edge_and_beyond_have_a_roll() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
    corners = [[-30, -30, 20, 20], [0, 0, 90, 60], [10, 10, 10, 10], [500, 500, 600, 600]]
    boxes = list(np.array(corners, np.float32))
    rolls, certainty = estimate_rolls([Picture.of(noise)] * 4, boxes)
    assert np.isfinite(rolls).all()
    assert ((certainty >= 0) & (certainty <= 1)).all()


def test_nothing_is_found_turned_where_nothing_is(engine: FaceEngine) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    detector = engine._pipeline.detector
    assert find_turned(detector, Picture.of(noise)) == []
    assert right(detector, [], []) == []


def test_a_face_that_is_not_found_again_stays(engine: FaceEngine, astronaut: Pixels) -> None:
    upside_down = np.rot90(astronaut, 2).copy()
    (face,) = engine.detect(upside_down)[:1]

    class Blind:
        upright_confidence = 0.88

        def prominent_each(self, pictures: list[Picture]) -> list[list[Face]]:
            return [[] for _ in pictures]

    assert right(Blind(), [Picture.of(upside_down)], [face]) == [face]  # type: ignore[arg-type]


class Answers:
    """A detector that finds the same faces in every picture."""

    upright_confidence = 0.9

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def prominent_each(self, pictures: list[Picture]) -> list[list[Face]]:
        return [self.faces for _ in pictures]

    def coarse_scale(self, picture: Picture) -> float:
        return 1.0

    def fine_scale(self, picture: Picture) -> float:
        return 1.0


def a_face(box: tuple[float, float, float, float], confidence: float) -> Face:
    x, y, right_, bottom = box
    scale = np.array([right_ - x, bottom - y], np.float32) / 112
    landmarks = (TEMPLATE * scale + [x, y]).astype(np.float32)
    return Face(np.array(box, np.float32), landmarks, confidence)


@pytest.mark.parametrize(("crowd", "turned"), [(1, True), (3, False)])
def test_one_face_of_a_turn_does_not_replace_a_crowd(
    monkeypatch: pytest.MonkeyPatch, crowd: int, turned: bool
) -> None:
    picture = Picture.of(np.zeros((200, 200, 3), np.uint8))
    monkeypatch.setattr(
        orientation, "estimate_rolls", lambda *_: (np.array([90.0]), np.array([0.9]))
    )
    found = [a_face((50 * k, 50, 50 * k + 40, 90), 0.7) for k in range(crowd)]
    answer = find_turned(Answers(a_face((80, 80, 120, 120), 0.8)), picture, found)  # type: ignore[arg-type]
    assert (answer != found) == turned


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_box_of_a_reduced_copy_is_mapped_to_the_picture(
    monkeypatch: pytest.MonkeyPatch, quarters: int
) -> None:
    pixels = np.zeros((403, 606, 3), np.uint8)
    pixels[80:120, 200:280] = 255

    class Seeing(Answers):
        turns = iter((1, 3, 2))

        def prominent_each(self, pictures: list[Picture]) -> list[list[Face]]:
            rows, columns = np.nonzero(pictures[0].pixels()[..., 0])
            edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            box = tuple(float(edge) - 0.5 for edge in edges)  # pixel centres are whole numbers
            assert sorted(pictures[0].pixels().shape) == [3, 100, 151]
            return [[a_face(box, 0.9)] if next(self.turns) == quarters else []]  # type: ignore[arg-type]

        def fine_scale(self, picture: Picture) -> float:
            return 0.25

    roll = np.array([90.0 * quarters])
    monkeypatch.setattr(orientation, "estimate_rolls", lambda *_: (roll, np.array([0.9])))
    (face,) = find_turned(Seeing(), Picture.of(pixels))  # type: ignore[arg-type]
    np.testing.assert_allclose(face.box, [199.5, 79.5, 279.5, 119.5], atol=1e-3)


@pytest.mark.parametrize("width", [4000, 1920])
def test_turned_copies_are_no_larger_than_the_fine_pass_needs(
    engine: FaceEngine, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    detector, sides = engine._pipeline.detector, []
    search = detector.prominent_each

    def watched(pictures: list[Picture]) -> list[list[Face]]:
        sides.append(max(pictures[0].pixels().shape))
        return search(pictures)

    monkeypatch.setattr(detector, "prominent_each", watched)
    assert engine.detect(np.zeros((160, width, 3), np.uint8)) == []
    assert sides == [min(width, 2000)] * 3


def test_a_small_face_in_a_large_picture_on_its_side(engine: FaceEngine, astronaut: Pixels) -> None:
    small = cv2.resize(np.rot90(astronaut[:250, 100:350]), (150, 150), interpolation=cv2.INTER_AREA)
    large = np.full((1500, 4000, 3), 128, np.uint8)
    large[600:750, 2000:2150] = small
    assert engine.sample(large).face.size < 80


@pytest.mark.parametrize(
    ("shift", "estimate", "moves"), [(0, 180, True), (50, 180, False), (0, 0, False)]
)
def test_a_look_may_not_move_to_another_face_nor_contradict_the_pixels(
    monkeypatch: pytest.MonkeyPatch, shift: int, estimate: float, moves: bool
) -> None:
    picture = Picture.of(np.zeros((300, 300, 3), np.uint8))
    face, other = (
        a_face((100, 100, 200, 200), 0.6),
        a_face((100 + shift, 100, 200 + shift, 200), 0.8),
    )
    upside_down = Face(other.box, other.box.reshape(2, 2).sum(0) - other.landmarks, 0.8)
    monkeypatch.setattr(
        orientation, "estimate_rolls", lambda *_: (np.array([estimate]), np.array([0.9]))
    )
    monkeypatch.setattr(orientation, "_look_again", lambda *_: upside_down)
    (answer,) = right(Answers(), [picture], [face])  # type: ignore[arg-type]
    assert (answer is not face) == moves


@pytest.mark.parametrize("roll", [-45, 45])
@pytest.mark.parametrize("name", ["astronaut", "hopper"])
def test_a_tilted_face_gets_the_landmarks_of_an_upright_look(
    engine: FaceEngine, name: str, roll: int
) -> None:
    picture = demo.pictures()[name]
    upright = engine.largest_face(picture)
    turned, turn = tilted(picture, roll)
    wanted = upright.landmarks @ turn[:, :2].T + turn[:, 2]
    eyes = np.linalg.norm(upright.landmarks[1] - upright.landmarks[0])
    found = engine.largest_face(turned).landmarks
    assert np.linalg.norm(found - wanted, axis=1).mean() < 0.08 * eyes


@pytest.mark.parametrize(("certainty", "roll"), [(0.2, 180.0), (0.9, 0.0)])
def test_an_uncertain_look_at_the_pixels_does_not_confirm_a_doubtful_face(
    monkeypatch: pytest.MonkeyPatch,
    engine: FaceEngine,
    astronaut: Pixels,
    certainty: float,
    roll: float,
) -> None:
    detector = engine._pipeline.detector
    true = engine.largest_face(astronaut)
    upside_down = np.ascontiguousarray(np.rot90(astronaut, 2))
    box = np.tile(astronaut.shape[1::-1], 2).astype(np.float32) - true.box[[2, 3, 0, 1]]
    # For an upside-down face, detectors answer landmarks as if it stood upright.
    landmarks = true.landmarks - true.box.reshape(2, 2).mean(0) + box.reshape(2, 2).mean(0)
    doubtful = detector.upright_confidence - orientation.DOUBT / 2
    monkeypatch.setattr(
        orientation, "estimate_rolls", lambda *_: (np.zeros(1), np.array([certainty]))
    )
    face = Face(box, landmarks.astype(np.float32), doubtful)
    (found,) = right(detector, [Picture.of(upside_down)], [face])
    assert off(found.roll, true.roll + roll) < 18
