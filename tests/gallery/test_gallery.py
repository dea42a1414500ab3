"""Gallery with real pictures: from an image to a match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import facecore
from facecore import FaceEngine, FaceRecord, Gallery, GalleryLocked

Array = np.ndarray[Any, Any]


@pytest.fixture
def gallery(tmp_path: Path, engine: FaceEngine) -> Any:
    with Gallery(tmp_path / "staff.gallery", engine) as made:
        made.create_group("staff")
        yield made


def test_who_was_added_is_found_with_the_score_of_a_comparison(
    gallery: Gallery, engine: FaceEngine, astronaut: Array, hopper: Array
) -> None:
    record = gallery.add("staff", astronaut, "eileen")
    gallery.add("staff", hopper, "grace")
    best, other = gallery.search(astronaut, "staff")
    assert (best.face_id, best.user_id, other.user_id) == (record.face_id, "eileen", "grace")
    assert best.similarity == engine.compare(astronaut, astronaut).similarity
    assert other.score == engine.compare(astronaut, hopper).score
    assert [m.user_id for m in gallery.search(astronaut, far=0.001)] == ["eileen"]


def test_the_quality_is_kept_of_one_picture_that_is_added(
    gallery: Gallery, engine: FaceEngine, astronaut: Array
) -> None:
    score = engine.quality(astronaut).score
    for image in (astronaut, engine.sample(astronaut)):
        record = gallery.add("staff", image, "eileen")
        assert record.quality == score
        assert gallery.record(record.face_id) == record
    (many,) = gallery.add_many("staff", [(astronaut, "eileen")], twice=True)
    assert isinstance(many, FaceRecord)
    assert many.quality is None


def test_one_bad_item_never_ends_a_run(gallery: Gallery, astronaut: Array, hopper: Array) -> None:
    items = [(hopper, "grace"), (b"x", "nobody"), (astronaut, "\n"), (astronaut, "eileen")]
    answers = list(gallery.add_many("staff", items, batch_size=3))
    assert [getattr(a, "code", None) or a.user_id for a in answers] == [  # type: ignore[union-attr]
        "grace",
        "UnreadableImage",
        "InvalidParameter",
        "eileen",
    ]
    assert [a for a in answers if isinstance(a, FaceRecord)] == gallery.records("staff")
    found = list(gallery.search_many([astronaut, b"x", hopper], limit=1))
    assert isinstance(found[1], facecore.UnreadableImage)
    assert [f[0].user_id for f in found if isinstance(f, list)] == ["eileen", "grace"]


def test_another_opens_it_to_read(gallery: Gallery, engine: FaceEngine, hopper: Array) -> None:
    with Gallery(gallery.address, engine, read_only=True) as reader:
        assert reader.search(hopper) == []
        gallery.add("staff", hopper, "grace")
        assert reader.search(hopper)[0].user_id == "grace"
        gallery.remove("staff", user_id="grace")
        assert reader.search(hopper) == []
        with pytest.raises(GalleryLocked, match="read_only"):
            reader.create_group("more")
    with pytest.raises(GalleryLocked, match="already"):
        Gallery(gallery.address, engine)
