"""Folders of pictures: read once, divided into people, and searched for duplicates."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import Face, FaceEngine, cli
from facecore.collections import (
    Clusters,
    FoundFace,
    Person,
    VectorCache,
    cluster,
    folder_duplicates,
    known_people,
    read_faces,
    read_folder,
    read_known,
    who,
)
from facecore.collections.folder import write_people
from facecore.collections.report import _thumbnail, render_report, write_report
from facecore.errors import InvalidParameter, UnreadableImage
from facecore.matching.calibration import Calibration

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACECORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, astronaut: Array, hopper: Array) -> Path:
    """Eileen twice and once more on a picture with Grace, a wall, and files without a picture."""
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    both = np.hstack([cv2.resize(astronaut, (512, 600)), hopper])
    pictures = {
        "a.png": astronaut,
        "b.png": cv2.resize(astronaut[:300], None, fx=0.9, fy=0.9),
        "deep/both.png": both,
        "wall.png": np.full((200, 200, 3), 90, np.uint8),
    }
    for name, pixels in pictures.items():
        cv2.imwrite(str(root / name), pixels)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (root / "notes.txt").write_text("no picture")
    return root


def names(faces: tuple[FoundFace, ...]) -> list[str]:
    return [face.path.name for face in faces]


def test_a_folder_is_read_whole(compact: FaceEngine, folder: Path) -> None:
    faces, refused = read_folder(compact, folder)
    assert [face.path.name for face in faces] == ["a.png", "b.png", "both.png", "both.png"]
    assert [face.number for face in faces] == [0, 0, 0, 1]
    assert [(r.path.name, r.code) for r in refused] == [
        ("broken.jpg", "UnreadableImage"),
        ("wall.png", "NoFaceDetected"),
    ]
    largest, _ = read_folder(compact, folder, all_faces=False)
    assert len(largest) == 3
    some, left_out = read_folder(compact, folder, smallest=150)
    assert [face.path.name for face in some] == ["both.png"]
    assert [r.code for r in left_out].count("FaceTooSmall") == 2
    (folder / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    _, left_out = read_folder(compact, folder)
    assert left_out[1].path.name == "phone.HEIC"  # reported, not skipped
    assert left_out[1].code == "UnreadableImage"
    empty = folder.parent / "empty"
    empty.mkdir()
    with pytest.raises(InvalidParameter, match="holds no picture"):
        read_folder(compact, empty)


def test_known_pictures_are_not_embedded_again(
    compact: FaceEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(folder.rglob("*.png"))
    with VectorCache(compact) as cache:
        first = list(read_faces(compact, paths, cache))
        assert cache.path.stat().st_mode & 0o077 == 0

    def refuse(*_: object) -> None:
        raise AssertionError("embedded again")

    shutil.move(folder / "a.png", folder / "moved.png")  # found by content, not by name
    paths[0] = folder / "moved.png"
    monkeypatch.setattr(type(compact._worker_pipeline()), "samples_of", refuse)
    with VectorCache(compact) as cache:
        again = list(read_faces(compact, paths, cache))
    for old, new in zip(first, again, strict=True):
        assert old.sha256 == new.sha256
        for a, b in zip(old.faces, new.faces, strict=True):
            np.testing.assert_array_equal(a.vector, b.vector)
            np.testing.assert_array_equal(a.face.box, b.face.box)
            np.testing.assert_array_equal(a.face.landmarks, b.face.landmarks)


def test_vectors_of_another_pack_never_answer(compact: FaceEngine, folder: Path) -> None:
    other = FaceEngine("compact-int8", threads=1)
    with VectorCache(compact) as cache:
        picture = next(iter(read_faces(compact, [folder / "a.png"], cache)))
        digest = bytes.fromhex(picture.sha256)
        assert cache.get([digest])
        with VectorCache(other) as beside:
            assert not beside.get([digest])


def test_a_quality_that_fails_is_told_in_its_place(
    compact: FaceEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = FaceEngine.quality

    def refuse_the_tall(engine: FaceEngine, sample: Any) -> Any:
        if sample.picture.height == 600:
            raise UnreadableImage("the rest of the picture is missing")
        return measure(engine, sample)

    monkeypatch.setattr(FaceEngine, "quality", refuse_the_tall)
    paths = [folder / name for name in ("deep/both.png", "a.png", "wall.png")]
    found = list(read_faces(compact, paths, quality=True))
    assert [picture.error and picture.error.code for picture in found] == [
        "UnreadableImage", None, "NoFaceDetected",
    ]  # fmt: skip
    assert found[0].faces == ()
    assert found[1].faces[0].quality is not None


def test_a_stricter_engine_reads_again(compact: FaceEngine, folder: Path) -> None:
    strict = FaceEngine("compact", threads=1, min_recognizability=100)
    for engine, count in ((compact, 1), (strict, 0), (compact, 1)):
        with VectorCache(engine) as cache:
            (picture,) = read_faces(engine, [folder / "a.png"], cache)
        assert len(picture.faces) == count


def test_a_cache_with_a_damaged_page_is_refused(compact: FaceEngine, folder: Path) -> None:
    with VectorCache(compact) as cache:
        path = cache.path
        assert next(read_faces(compact, [folder / "a.png"], cache)).faces
    first, size = path.read_bytes()[:4096], path.stat().st_size
    assert size > len(first)
    path.write_bytes(first + b"x" * (size - len(first)))
    with VectorCache(compact) as cache, pytest.raises(InvalidParameter, match="--no-cache"):
        next(read_faces(compact, [folder / "a.png"], cache))


def flipped(row: bytes, at: int) -> bytes:
    return row[:at] + bytes([row[at] ^ 0x40]) + row[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: flipped(row, 0),  # digest
        lambda row: flipped(row, 16),  # number of faces
        lambda row: flipped(row, 20 + 15 * 4 + 3),  # exponent of the vector's first number
        lambda row: row[16:],  # without a digest
        lambda row: row[:-1],
        lambda row: b"",
        lambda row: "text",
        lambda row: 7,
        lambda row: None,
    ],
)
def test_a_damaged_row_is_embedded_again(compact: FaceEngine, folder: Path, damage: Any) -> None:
    """SQLite has no checksums: one flipped bit of a vector would name a stranger."""
    with VectorCache(compact) as cache:
        (first,) = read_faces(compact, [folder / "a.png"], cache)
        digest = bytes.fromhex(first.sha256)
        with sqlite3.connect(cache.path) as database:
            ((row,),) = database.execute("SELECT faces FROM faces")
            database.execute("UPDATE faces SET faces = ?", (damage(row),))
        database.close()
        assert cache.get([digest]) == {}
        (again,) = read_faces(compact, [folder / "a.png"], cache)
        np.testing.assert_array_equal(first.faces[0].vector, again.faces[0].vector)
        assert cache.get([digest])


def test_a_row_of_another_picture_is_missing(compact: FaceEngine) -> None:
    with VectorCache(compact) as cache:
        cache.put({b"a" * 32: []})
        with sqlite3.connect(cache.path) as database:
            database.execute("UPDATE faces SET picture = ?", (b"c" * 32,))
        database.close()
        assert cache.get([b"a" * 32, b"c" * 32]) == {}


def test_a_damaged_cache_begins_anew(compact: FaceEngine, folder: Path) -> None:
    with VectorCache(compact) as cache:
        path = cache.path
    path.write_bytes(b"not a database" * 100)
    with VectorCache(compact) as cache:
        assert next(read_faces(compact, [folder / "a.png"], cache)).faces
    assert sqlite3.connect(path).execute("SELECT count(*) FROM faces").fetchone() == (1,)


def test_duplicates_are_faces_on_different_pictures(compact: FaceEngine, folder: Path) -> None:
    faces, _ = read_folder(compact, folder)
    (one,) = folder_duplicates(faces, compact.calibration, 0.01)
    assert names(one.members) == ["a.png", "b.png", "both.png"]
    assert one.pairs[0].score == max(pair.score for pair in one.pairs)
    score = one.pairs[0].score
    assert folder_duplicates(faces, compact.calibration, threshold=score - 0.01)
    assert not folder_duplicates(faces, compact.calibration, threshold=score + 0.01)
    with pytest.raises(InvalidParameter, match="threshold"):
        folder_duplicates(faces, compact.calibration, threshold=101)
    with pytest.raises(InvalidParameter, match="comparisons") as raised:
        folder_duplicates(faces, compact.calibration, 1e-12)
    assert "threshold" in (raised.value.hint or "")
    alone = [face for face in faces if face.path.name == "both.png"]
    assert folder_duplicates(alone, compact.calibration) == []
    assert folder_duplicates([], compact.calibration) == []
    with pytest.raises(InvalidParameter, match="far"):
        folder_duplicates([], compact.calibration, 5)


def test_clusters_are_people(compact: FaceEngine, folder: Path) -> None:
    faces, _ = read_folder(compact, folder)
    found = cluster(faces, compact.calibration)
    assert [names(person.faces) for person in found.people] == [
        ["a.png", "b.png", "both.png"],
        ["both.png"],
    ]
    assert [person.name for person in found.people] == ["person_0001", "person_0002"]
    again = cluster(faces, compact.calibration)
    assert [p.faces for p in again.people] == [p.faces for p in found.people]
    assert cluster([], compact.calibration).people == ()


def test_new_pictures_get_the_names_that_are_there(
    compact: FaceEngine, folder: Path, hopper_path: Path
) -> None:
    faces, _ = read_folder(compact, folder)
    known = {"grace": next(iter(read_faces(compact, [hopper_path]))).faces}
    found = cluster(faces, compact.calibration, known=known)
    assert [(p.name, p.known, len(p.faces)) for p in found.people] == [
        ("grace", True, 1),
        ("person_0001", False, 3),
    ]


def test_links_to_long_names(compact: FaceEngine, folder: Path, tmp_path: Path) -> None:
    long = tmp_path / "long" / f"{'𠮷' * 62}.png"  # 252 bytes
    long.parent.mkdir()
    shutil.copy(folder / "a.png", long)
    faces, _ = read_folder(compact, long.parent)
    write_people(cluster(faces, compact.calibration), tmp_path / "people")
    (link,) = (tmp_path / "people" / "person_0001").iterdir()
    assert link.resolve() == long.resolve()


def test_two_runs_at_once_keep_the_first_result(
    compact: FaceEngine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "people"

    def overtaken(*_: object) -> bytes:
        out.mkdir()
        (out / "first").touch()
        return b""

    monkeypatch.setattr("facecore.collections.folder.csv_bytes", overtaken)
    found = cluster(read_folder(compact, folder)[0], compact.calibration)
    with pytest.raises(InvalidParameter, match="cannot be written"):
        write_people(found, out)
    assert [path.name for path in out.iterdir()] == ["first"]
    assert not list(tmp_path.glob(".people*"))


def test_people_of_one_run_are_known_to_the_next(
    folder: Path, tmp_path: Path, hopper: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, new = tmp_path / "people", tmp_path / "more", tmp_path / "new"
    assert cli.main(["cluster", str(folder), "--out", str(first)]) == 0
    (first / "person_0001").rename(first / "Eileen")  # person_0002 is Grace, from a picture of both
    new.mkdir()
    shutil.copy(folder / "a.png", new)
    cv2.imwrite(str(new / "grace.png"), hopper)
    cv2.imwrite(str(new / "small.png"), cv2.resize(hopper[40:420, 100:420], None, fx=0.7, fy=0.7))
    (first / "nobody").mkdir()
    shutil.copy(folder / "wall.png", first / "nobody")
    capsys.readouterr()
    assert cli.main(["cluster", str(new), "--known", str(first), "--out", str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"{first / 'nobody' / 'wall.png'}: NoFaceDetected")
    assert lines[:2] == ["person_0002  2 faces", "Eileen  1 face"]
    shutil.rmtree(second)
    assert cli.main(["cluster", str(new), "--known", str(first), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["refused"]) == 1
    # A new person never gets a name that is in use.
    (tmp_path / "other").mkdir()
    shutil.copy(folder / "a.png", tmp_path / "other" / "person_0001.png")
    assert cli.main(["cluster", str(new), "--known", str(tmp_path / "other"), "--json"]) == 0
    people = json.loads(capsys.readouterr().out)["people"]
    assert [(p["name"], p["known"]) for p in people] == [
        ("person", True),
        ("person_0001", False),
    ]
    (tmp_path / "third" / "person_0001").mkdir(parents=True)
    shutil.copy(folder / "a.png", tmp_path / "third" / "person_0001")
    assert cli.main(["cluster", str(new), "--known", str(tmp_path / "third"), "--json"]) == 0
    people = json.loads(capsys.readouterr().out)["people"]
    assert [p["name"] for p in people] == ["person_0001", "person_0002"]


def test_a_link_means_the_face_that_was_grouped(
    compact: FaceEngine, tmp_path: Path, astronaut: Array, hopper: Array
) -> None:
    """A strange face that only the lenient engine reads moves all numbers."""
    both = np.hstack([255 - hopper[:, ::-1], cv2.resize(astronaut, (512, 600))])
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "both.png"), both)
    faces, _ = read_folder(compact, tmp_path / "pictures")
    people = tmp_path / "people"
    write_people(cluster(faces, compact.calibration), people)
    (people / "person_0001").rename(people / "Eileen")
    (link,) = (people / "Eileen").iterdir()
    (eileen,) = faces
    assert eileen.number == 0
    lenient = FaceEngine("compact", threads=1, min_recognizability=0)
    listed = people / "people.json"
    text = listed.read_text()
    elsewhere = json.loads(text)
    with VectorCache(lenient) as cache:
        read = read_known(lenient, people, cache)
        assert read.crowded == ()
        ((name, face),) = read.faces
        assert (name, face.number) == ("Eileen", 1)
        np.testing.assert_allclose(face.face.box, eileen.face.box, atol=1)
        for box in ([0, 0, 40, 40], [0, 0, 1e30, 1e30], [1e308] * 4):
            elsewhere["people"][0]["faces"][0]["box"] = box
            listed.write_text(json.dumps(elsewhere))
            with pytest.raises(InvalidParameter, match="was grouped cannot be recognised"):
                read_known(lenient, people, cache)
        for other in ("", "[]", '{"people": 3}', text.replace('"box": [', '"box": ["x", ')):
            listed.write_text(other)
            read = read_known(lenient, people, cache)
            assert (read.crowded, read.faces[0][1].number) == ((link,), 0)
    # One face is seen, but the link names a second one.
    link = link.rename(link.with_stem(link.stem[:-1] + "1"))
    assert read_known(compact, people).crowded == (link,)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links_below_a_linked_folder(compact: FaceEngine, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "very" / "deep").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "disk" / "very" / "deep")
    shutil.copy(folder / "a.png", tmp_path / "disk" / "very")
    pictures = [folder / "a.png", tmp_path / "short" / ".." / "a.png"]
    out = [tmp_path / "short" / "people", tmp_path / "people"]
    for people, picture in zip(out, read_faces(compact, pictures), strict=True):
        write_people(cluster(picture.faces, compact.calibration), people)
        (link,) = (people / "person_0001").iterdir()
        assert link.resolve() == picture.path.resolve()


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_a_link_whose_picture_is_gone_is_told(
    compact: FaceEngine, folder: Path, tmp_path: Path
) -> None:
    for name in ("eileen", "grace/old", "grace/.hidden"):
        (tmp_path / "known" / name).mkdir(parents=True)
    shutil.copy(folder / "a.png", tmp_path / "known" / "eileen")
    for place in ("grace/old/a.png", "grace/.a.png"):
        (tmp_path / "known" / place).symlink_to(tmp_path / "gone.png")
    answer = who(compact, folder / "a.png", tmp_path / "known")
    assert answer.faces[0].name == "eileen"
    assert [(r.path.parent.name, r.code) for r in answer.refused] == [("old", "UnreadableImage")]
    assert known_people(tmp_path / "known")[-1][0] == "grace"


def test_the_command_divides_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "people", tmp_path / "people.html"
    words = ["cluster", str(folder), "--out", str(out), "--report", str(page)]
    assert cli.main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [len(person["faces"]) for person in printed["people"]] == [3, 1]
    links = sorted((out / "person_0001").iterdir())
    assert {os.path.realpath(link) for link in links} == {
        os.path.realpath(folder / name) for name in ("a.png", "b.png", "deep/both.png")
    }
    assert (out / "people.csv").read_text().count("\n") == 5
    assert json.loads((out / "people.json").read_text())["people"] == printed["people"]
    assert "person_0001" in page.read_text()
    assert cli.main(words) == 2
    assert "exists" in capsys.readouterr().err


def test_the_command_lists_duplicates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["duplicates", str(folder), "--far", "0.01", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["sets"]
    assert len(one["faces"]) == 3
    assert cli.main(["duplicates", str(folder / "deep"), "--no-cache"]) == 1
    assert capsys.readouterr().out.startswith(
        "no duplicates\nthe chance that any pair is wrong is 0.001"
    )


@pytest.mark.parametrize("command", [["duplicates"], ["cluster"], ["who", "photo.jpg"]])
def test_what_only_the_comparison_needs_is_checked_first(
    command: list[str],
    compact: FaceEngine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*command, str(tmp_path / "nothing")]  # missing too, but checked later
    assert cli.main([*words, "--far", "2"]) == 2
    assert "far is 2" in capsys.readouterr().err
    bare = FaceEngine(
        "compact", threads=1, calibration=Calibration.missing("compact", compact.contract_id)
    )
    monkeypatch.setattr("facecore.cli.collections.engine_of", lambda _: bare)
    assert cli.main(words) == 2
    assert "NotCalibrated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "option"),
    [
        (["DIR"], ["--different-users"]),
        (["DIR"], ["--gallery", "g"]),
        (["--group", "staff"], ["--smallest", "0"]),
        (["--group", "staff"], ["--largest"]),
        (["--group", "staff"], ["--no-cache"]),
    ],
)
def test_duplicates_refuse_options_of_the_other_kind(
    place: list[str], option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["duplicates", *place, *option]) == 2
    assert f"{option[0]} cannot be used" in capsys.readouterr().err


def test_paths_may_be_strings(compact: FaceEngine, folder: Path, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.mkdir()
    shutil.copy(folder / "a.png", known / "eileen.png")
    with VectorCache(compact, str(tmp_path / "faces.db")) as cache:
        assert who(compact, str(folder / "a.png"), str(known), cache).faces[0].name == "eileen"
        faces, _ = read_folder(compact, str(known), cache)
    people = cluster(faces, compact.calibration)
    write_people(people, str(tmp_path / "people"))
    write_report(people, str(tmp_path / "people.html"))
    assert (tmp_path / "people" / "person_0001").is_dir()
    (picture,) = read_faces(compact, [str(known / "eileen.png")])
    assert picture.faces[0].path == known / "eileen.png"


def test_names_of_files_and_of_folders(tmp_path: Path) -> None:
    for name in ("eileen.jpg", "eileen_2.jpg", "eileen (3).jpg", "2.jpg", "grace/any.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(name for name, _ in known_people(tmp_path)) == [
        "2", "eileen", "eileen", "eileen", "grace",
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidParameter, match="no picture"):
        known_people(tmp_path / "empty")


def test_who_is_on_a_photo(compact: FaceEngine, folder: Path, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.mkdir()
    shutil.copy(folder / "a.png", known / "eileen.png")
    shutil.copy(folder / "b.png", known / "eileen_2.png")
    shutil.copy(folder / "wall.png", known / "nobody.png")
    answer = who(compact, folder / "deep" / "both.png", known)
    assert [one.name for one in answer.faces] == [None, "eileen"]
    assert answer.faces[1].score > answer.threshold > answer.faces[0].score
    assert (answer.people, answer.pictures) == (1, 2)
    assert [refused.path.name for refused in answer.refused] == ["nobody.png"]
    # A person is on a photo once, unless the caller says otherwise.
    twice = np.hstack([cv2.imread(str(folder / "a.png"))] * 2)
    assert [one.name for one in who(compact, twice, known).faces].count("eileen") == 1
    assert [one.name for one in who(compact, twice, known, once=False).faces].count("eileen") == 2
    assert who(compact, folder / "wall.png", known).faces == ()
    with pytest.raises(UnreadableImage):
        who(compact, folder / "broken.jpg", known)
    with pytest.raises(InvalidParameter, match="far"):
        who(compact, twice, known, far=0)


def test_the_command_who(
    folder: Path, tmp_path: Path, hopper_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tmp_path / "known"
    (known / "Grace Hopper").mkdir(parents=True)
    shutil.copy(hopper_path, known / "Grace Hopper")
    photo, drawn = str(folder / "deep" / "both.png"), tmp_path / "named.png"
    assert cli.main(["who", photo, str(known), "--draw", str(drawn)]) == 0
    out = capsys.readouterr().out
    assert "Grace Hopper, score" in out
    assert "unknown (the nearest, grace_hopper.jpg" in out
    before, after = cv2.imread(photo), cv2.imread(str(drawn))
    assert before.shape == after.shape
    assert (before != after).any()
    assert cli.main(["who", str(folder / "a.png"), str(known)]) == 1
    shutil.copy(photo, known / "Grace Hopper" / "both.png")
    capsys.readouterr()
    assert cli.main(["who", str(folder / "wall.png"), str(known)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"no face that can be recognised in {folder / 'wall.png'}",
        f"{known / 'Grace Hopper' / 'both.png'}: several faces; the largest was used",
    ]


def test_five_of_eight_on_a_collage(
    mobilefacenet: FaceEngine, lfw_folder: Path, tmp_path: Path
) -> None:
    """Name five of eight LFW people, known from two other pictures each."""
    people = [p for p in sorted((lfw_folder / "images").iterdir()) if len(list(p.iterdir())) > 2]
    chosen = [people[i] for i in np.random.default_rng(5).permutation(len(people))[:8]]
    for person in chosen[:5]:
        (tmp_path / "known" / person.name).mkdir(parents=True)
        for picture in sorted(person.iterdir())[1:3]:
            shutil.copy(picture, tmp_path / "known" / person.name)
    tiles = [cv2.imread(str(sorted(person.iterdir())[0])) for person in chosen]
    collage = np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])])
    named = {}
    for one in who(mobilefacenet, collage, tmp_path / "known").faces:
        x, y = (one.face.box[:2] + one.face.box[2:]) / 2 // 250
        if one.name is not None:
            named[int(4 * y + x)] = one.name
    assert named == {i: person.name for i, person in enumerate(chosen[:5])}


def _fifty_groups(compact: FaceEngine, folder: Path) -> Clusters:
    faces, _ = read_folder(compact, folder)
    people = [Person(f"person_{i:04}", tuple(faces[:3])) for i in range(1, 50)]
    people.append(Person("<b>Ann & 김</b>", tuple(faces), known=True))
    found = cluster(faces, compact.calibration)
    return Clusters(tuple(people), found.doubts, found.threshold)


def test_the_page_loads_nothing_and_escapes_names(compact: FaceEngine, folder: Path) -> None:
    page = render_report(_fifty_groups(compact, folder))
    assert "&lt;b&gt;Ann &amp; 김&lt;/b&gt;" in page
    assert "<b>Ann" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_thumbnail_is_free_of_aliasing(compact: FaceEngine, folder: Path) -> None:
    (picture,) = read_faces(compact, [folder / "a.png"])
    box = np.array([300, 300, 1900, 1900], np.float32)
    face = Face(box, np.full((5, 2), 1100, np.float32), 1.0)
    found = replace(picture.faces[0], face=face)
    noise = np.random.default_rng(1).integers(0, 256, (2200, 2200, 3), np.uint8)
    coded = base64.b64decode(_thumbnail(noise, found).partition(",")[2])
    small = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (112, 112, 3)
    assert small[10:-10, 10:-10].std() < 20  # the noise has a deviation of 74


def test_the_page_in_a_browser(compact: FaceEngine, folder: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = tmp_path / "report.html"
    write_report(_fifty_groups(compact, folder), path)
    # Write the number of groups, of drawn groups and the focused group into the page's title.
    probe = """<script>addEventListener("load", () => {
      const key = k => dispatchEvent(new KeyboardEvent("keydown", {key: k}));
      key("j"); key("j"); key("k");
      const groups = [...document.querySelectorAll(".group")];
      const drawn = groups.filter(g => g.offsetHeight > 100 &&
        [...g.querySelectorAll("img")].every(i => i.naturalWidth === 112));
      document.title = JSON.stringify(
        [groups.length, drawn.length, groups.indexOf(document.activeElement)]);
    });</script></body>"""
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "<title>[50,50,0]</title>" in done.stdout
