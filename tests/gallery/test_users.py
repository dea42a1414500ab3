"""Users, not only faces: one match per user, verification, identification, duplicates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from templates import template, unit

from facecore import FaceEngine, Gallery, cli
from facecore.errors import (
    GalleryCorrupt,
    GroupExists,
    GroupNotFound,
    InvalidParameter,
    RecordNotFound,
    SeveralFacesDetected,
)
from facecore.gallery.bulk_import import import_pictures
from facecore.gallery.thresholds import best_of

Array = np.ndarray[Any, Any]


def like(token: str, similarity: float, other: str = "noise") -> Array:
    """Return a template with the cosine `similarity` to the template of `token`."""
    one, two = template(token), template(other)
    across = unit(two - (one @ two) * one)
    return unit(similarity * one + np.sqrt(1 - similarity**2) * across)


@pytest.fixture
def people(filled: Gallery) -> Gallery:
    """Ann three times, Bob once; Bob again among the visitors."""
    for i, similarity in enumerate((0.9, 0.8, 0.7)):
        filled.add("staff", like("ann", similarity, f"n{i}"), "ann")
    filled.add("staff", template("bob"), "bob")
    filled.add("visitors", like("bob", 0.9), "robert")
    return filled


def test_one_match_a_user(people: Gallery) -> None:
    faces = people.search(template("ann"), "staff", 3)
    assert [match.user_id for match in faces] == ["ann"] * 3
    users = people.search(template("ann"), "staff", 3, per="user")
    assert [match.user_id for match in users] == ["ann", "bob"]
    assert users[0] == faces[0]
    assert [m.user_id for m in people.search(template("ann"), "staff", 1, per="user")] == ["ann"]
    with pytest.raises(InvalidParameter, match="per"):
        people.search(template("ann"), per="person")  # type: ignore[arg-type]


def test_a_picture_that_is_there_is_told(people: Gallery) -> None:
    stored = people.records("staff")[-1]
    again = people.add("staff", template("bob"), "bob")
    assert again == stored
    assert again.present
    assert not stored.present
    assert not people.add("staff", template("bob"), "ann").present  # another user
    assert not people.add("visitors", template("bob"), "bob").present
    assert not people.add("staff", like("bob", 0.999), "bob").present  # another picture
    assert people.count("staff") == 6
    assert not people.add("staff", template("bob"), "bob", twice=True).present
    assert people.count("staff") == 7
    replaced = people.add("staff", template("bob"), "bob", on_existing="replace")
    assert not replaced.present
    assert people.records("staff")[-1] == replaced


def test_many_pictures_of_which_some_are_there(people: Gallery) -> None:
    bob, new = template("bob"), template("new")
    items = [(bob, "bob"), (new, "ann"), (new, "ann"), (bob, "ann"), (new, "carol")]
    answers = list(people.add_many("staff", items))
    assert [not isinstance(a, Exception) and a.present for a in answers] == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert answers[1] == answers[2]
    assert people.count("staff") == 4 + 3
    assert [getattr(a, "present", None) for a in people.add_many("staff", items)] == [True] * 5
    assert not any(getattr(a, "present", 1) for a in people.add_many("staff", items, twice=True))
    assert people.count("staff") == 4 + 3 + 5


def test_a_gallery_that_cannot_be_read_ends_the_run(
    people: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(*_: object) -> None:
        raise GalleryCorrupt("a test")

    monkeypatch.setattr(people._backend, "templates", corrupt)
    with pytest.raises(GalleryCorrupt):
        list(people.add_many("staff", [(template("bob"), "bob")]))


def test_a_user_with_very_many_faces_hides_nobody(filled: Gallery) -> None:
    rows = np.stack([like("ann", 0.8, f"n{i}") for i in range(50)] + [template("bob")])
    filled.add_templates("staff", rows, ["ann"] * 50 + ["bob"], contract=filled.contract_id)
    found = filled.search(template("ann"), limit=2, per="user")
    assert [match.user_id for match in found] == ["ann", "bob"]


def test_a_store_that_gives_only_so_many_faces(
    people: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for users never asks the store for more faces than `most_hits`."""
    search, asked = people._backend.search, []

    def note(vector: Array, groups: Any, limit: int, *, count: bool = False) -> Any:
        asked.append(limit)
        return search(vector, groups, limit, count=count)

    monkeypatch.setattr(people._backend, "search", note)
    monkeypatch.setattr(people._backend, "most_hits", 3)
    found = people.search(template("ann"), "staff", 2, per="user")
    assert [match.user_id for match in found] == ["ann"]
    assert people.identify(template("ann"), "staff", limit=1)[0].match is not None
    assert asked == [3, 3]


def test_verify_takes_the_best_template_and_counts_all(people: Gallery) -> None:
    answer = people.verify(template("ann"), "staff", "ann")
    assert answer.passed
    assert answer.templates == 3
    assert answer.similarity == pytest.approx(0.9, abs=1e-5)
    assert answer.face_id == people.search(template("ann"), limit=1)[0].face_id
    assert not people.verify(template("carol"), "staff", "ann").passed
    alone = people.verify(like("bob", 0.5), "staff", "bob")
    assert alone.score == pytest.approx(float(people.engine.calibration.score(alone.similarity)))
    with pytest.raises(RecordNotFound):
        people.verify(template("ann"), "visitors", "ann")
    with pytest.raises(GroupNotFound):
        people.verify(template("ann"), "nobody", "ann")


def test_the_score_of_the_best_of_several_has_their_rate(people: Gallery) -> None:
    table = people.engine.calibration
    for similarity in np.linspace(-0.9, 0.99, 40):
        single = float(table.score(similarity))
        scores = [best_of(table, similarity, n) for n in (1, 2, 10, 1000)]
        assert scores[0] == single
        assert scores == sorted(scores, reverse=True)
        rate = 1 - (1 - float(table.far(single))) ** 10
        assert float(table.far(scores[2])) == pytest.approx(rate, rel=1e-6)


def test_identify_names_each_face_once(people: Gallery) -> None:
    picture = np.stack([like("ann", 0.85, "x"), template("carol"), template("ann")])
    first, stranger, best = people.identify(picture, "staff")
    assert (first.match, stranger.match) == (None, None)  # Ann is the third
    assert best.match is not None
    assert best.match.user_id == "ann"
    assert first.candidates[0].user_id == "ann"
    assert [m.user_id for m in stranger.candidates][:1] in (["ann"], ["bob"])
    twice = people.identify(picture, "staff", once=False)
    assert [one.match and one.match.user_id for one in twice] == ["ann", None, "ann"]
    with pytest.raises(InvalidParameter, match="far"):
        people.identify(picture, far=0)
    with pytest.raises(InvalidParameter, match="far"):
        people.identify(picture, far=None)  # type: ignore[arg-type]


def test_nobody_is_identified_in_an_empty_gallery(filled: Gallery) -> None:
    (one,) = filled.identify(template("ann"))
    assert (one.match, one.candidates) == (None, ())


def test_duplicates_of_a_group(people: Gallery) -> None:
    people.add("staff", like("bob", 0.95, "m"), "bobby")
    sets = people.duplicates("staff", far=0.01)
    assert [[record.user_id for record in one.members] for one in sets] == [
        ["ann"] * 3,
        ["bob", "bobby"],
    ]
    (only,) = people.duplicates("staff", far=0.01, different_users=True)
    assert [record.user_id for record in only.members] == ["bob", "bobby"]
    (pair,) = only.pairs
    assert pair.similarity == pytest.approx(0.95, abs=1e-5)
    assert people.duplicates("visitors") == []


def test_duplicates_between_groups(people: Gallery) -> None:
    (one,) = people.duplicates(["staff", "visitors"], far=0.01)
    assert [(r.user_id, r.group) for r in one.members] == [("bob", "staff"), ("robert", "visitors")]
    with pytest.raises(GroupNotFound):
        people.duplicates(["staff", "nobody"])
    with pytest.raises(InvalidParameter, match="groups"):
        people.duplicates(None)  # type: ignore[arg-type]


def test_a_group_that_is_there_will_do(filled: Gallery) -> None:
    there = filled.group("staff")
    assert filled.create_group("staff", title="other", exist_ok=True) == there
    with pytest.raises(GroupExists):
        filled.create_group("staff")


@pytest.fixture
def photos(tmp_path: Path, compact: FaceEngine) -> Iterator[Gallery]:
    with Gallery(tmp_path / "photos.gallery", compact) as gallery:
        gallery.create_group("staff")
        yield gallery


def test_pictures_of_several_people(
    photos: Gallery, tmp_path: Path, astronaut: Array, hopper: Array
) -> None:
    both = np.hstack([cv2.resize(astronaut, (512, 600)), hopper])
    assert photos.add("staff", astronaut, "eileen").others == 0
    record = photos.add("staff", both, "grace")
    assert record.others == 1
    assert photos.record(record.face_id).others is None
    with pytest.raises(SeveralFacesDetected):
        photos.add("staff", both, "grace", if_many="refuse")
    alone, refused = photos.add_many("staff", [(astronaut, "a"), (both, "b")], if_many="refuse")
    assert not isinstance(alone, Exception)
    assert isinstance(refused, SeveralFacesDetected)
    # On a picture of both, each is found.
    named = photos.identify(both)
    assert [one.match and one.match.user_id for one in named] == ["grace", "eileen"]
    (tmp_path / "in" / "mixed").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "mixed" / "both.png"), both)
    done = import_pictures(photos, "staff", tmp_path / "in", if_many="refuse")
    assert done.refused() == {"SeveralFacesDetected": 1}
    with pytest.raises(InvalidParameter, match="no folder of a person"):
        import_pictures(photos, "staff", tmp_path / "in" / "mixed")


def test_the_commands_identify_and_duplicates(
    photos: Gallery,
    tmp_path: Path,
    astronaut: Array,
    hopper: Array,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos.add("staff", astronaut, "eileen")
    photos.add("staff", cv2.resize(astronaut, (450, 450)), "ellen")
    photos.close()
    picture, drawn = str(tmp_path / "both.png"), tmp_path / "named.png"
    cv2.imwrite(picture, np.hstack([cv2.resize(astronaut, (512, 600)), hopper]))
    monkeypatch.setenv("FACECORE_GALLERY", str(tmp_path / "photos.gallery"))
    assert cli.main(["identify", picture, "--draw", str(drawn)]) == 0
    out = capsys.readouterr().out
    assert "unknown (the nearest" in out.splitlines()[0]
    assert out.splitlines()[1].split(": ")[1].startswith(("eileen, score", "ellen, score"))
    assert cv2.imread(str(drawn)).shape == (600, 1024, 3)
    assert cli.main(["duplicates", "--group", "staff", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["sets"]
    assert [face["user_id"] for face in one["faces"]] == ["eileen", "ellen"]
    # A search hides strangers unless --far is none.
    alone = str(tmp_path / "hopper.png")
    cv2.imwrite(alone, hopper)
    assert cli.main(["search", alone]) == 1
    assert capsys.readouterr().out == (
        "nobody\n2 faces compared; a stranger gets a match in 1% of searches\n"
    )
    assert cli.main(["search", alone, "--far", "none", "--per", "user", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["matches"]) == 2
    assert cli.main(["search", alone, "--far", "0"]) == 2
    assert cli.main(["search", picture]) == 1  # Grace is the largest
    assert f"2 faces in {picture}; the largest was used" in capsys.readouterr().out
    assert cli.main(["search", picture, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["others"] == 1
    wall = str(tmp_path / "wall.png")
    cv2.imwrite(wall, np.full((200, 200, 3), 90, np.uint8))
    assert cli.main(["identify", wall, "--draw", str(drawn)]) == 1
    assert capsys.readouterr().out.startswith("no face that can be recognised in ")
    monkeypatch.delenv("FACECORE_GALLERY")
    capsys.readouterr()
    assert cli.main(["search", alone]) == 2
    assert "FACECORE_GALLERY" in capsys.readouterr().err
    monkeypatch.setenv("FACECORE_PACK", "no-such-pack")
    assert cli.main(["detect", alone]) == 2
    assert "no-such-pack" in capsys.readouterr().err
