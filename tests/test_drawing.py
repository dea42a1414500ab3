"""Labels: inside the picture, one per face, in any script that an installed font has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecore import Face, drawing
from facecore.drawing import GREEN, draw_faces, square_around, write_image
from facecore.errors import InvalidParameter

Array = np.ndarray[Any, Any]


def face(x1: float, y1: float, x2: float, y2: float) -> Face:
    box = np.array([x1, y1, x2, y2], np.float32)
    return Face(box, np.full((5, 2), 50, np.float32), 0.9)


def box_pixels(image: Array) -> Array:
    return np.all(image == GREEN, axis=2)


def test_a_label_for_each_face() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    faces = [face(20, 60, 80, 120), face(180, 60, 240, 120)]
    drawn = draw_faces(image, faces, labels=["Ann", "Bartholomew"])
    widths = [int(box_pixels(drawn[:58, left : left + 150]).any(axis=0).sum()) for left in (0, 150)]
    assert 0 < widths[0] < widths[1]
    assert not image.any()  # a copy


@pytest.mark.parametrize("box", [(-5, -5, 40, 40), (290, 2, 310, 30), (280, 180, 330, 230)])
def test_long_labels_stay_inside(box: tuple[int, int, int, int]) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_faces(image, [face(*box)], labels=["x" * 500])
    ground = box_pixels(drawn)
    band = np.flatnonzero(ground[:, 100:200].any(axis=1))
    columns = np.flatnonzero(ground[band].any(axis=0))
    assert len(band) >= 8
    assert columns[-1] - columns[0] > 250
    # Both ends are the ground next to the text, so no part of the label was cut off.
    assert ground[band[1:-1]][:, [columns[0], columns[-1]]].all()
    np.testing.assert_array_equal(draw_faces(image, [face(*box)], labels=["x" * 600]), drawn)


def test_no_label_hides_another() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    first, second = face(20, 60, 80, 120), face(50, 64, 110, 124)
    alone = box_pixels(draw_faces(image, [first], labels=["Bartholomew"]))[:58]
    both = box_pixels(draw_faces(image, [first, second], labels=["Bartholomew", "Ann"]))
    np.testing.assert_array_equal(both[:58], alone)
    assert both[126:].any()  # the second label, below its box


def test_labels_are_one_line_each() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    faces = [face(20, 60, 80, 120)]
    spaced = draw_faces(image, faces, labels=["Ann Lee"])
    np.testing.assert_array_equal(draw_faces(image, faces, labels=["Ann\n Lee "]), spaced)
    with pytest.raises(InvalidParameter, match="2 labels"):
        draw_faces(image, faces, labels=["Ann", "Lee"])


def test_the_label_without_a_word_is_the_confidence() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    given = draw_faces(image, [face(20, 60, 80, 120)], labels=["0.90"])
    np.testing.assert_array_equal(draw_faces(image, [face(20, 60, 80, 120)]), given)


def test_a_square_around_a_face_and_the_face_in_it() -> None:
    image = np.zeros((600, 600, 3), np.uint8)
    image[296:304, 396:404] = 255  # around the landmarks
    box = np.array([300, 200, 500, 400], np.float32)
    crop, moved = square_around(
        image, Face(box, np.full((5, 2), [400, 300], np.float32), 0.9), 400, 100
    )
    assert crop.shape == (100, 100, 3)
    np.testing.assert_allclose(moved.box, [25, 25, 75, 75])
    np.testing.assert_allclose(moved.landmarks, np.full((5, 2), 50))
    assert np.argwhere(crop[..., 0] > 100).mean(axis=0) == pytest.approx([50, 50], abs=1)


def test_other_scripts_are_written_or_escaped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    font, text = drawing._font("Zoë", 20)
    assert (text, drawing._has(font, text)) == ("Zoë", True)
    font, text = drawing._font("Эйлин", 20)
    assert drawing._has(font, text)
    assert not caplog.messages
    monkeypatch.setattr(drawing, "_system_fonts", lambda: ())
    font, text = drawing._font("김", 20)
    assert text == "\\uae40"
    assert "no installed font" in caplog.text
    assert drawing._has(font, text)


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("x.jpg", 70_000, "of 70,000×1 pixels"),
        ("x.webp", 20_000, "of 20,000×1 pixels"),
        ("x.txt", 9, "does not have the extension of a picture format"),
        ("x", 9, "does not have the extension of a picture format"),
        ("x.\udc80", 9, "does not have the extension of a picture format"),
    ],
)
def test_a_picture_that_a_format_cannot_hold(
    name: str, width: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidParameter, match=message):
        write_image(tmp_path / name, np.zeros((1, width, 3), np.uint8))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""
