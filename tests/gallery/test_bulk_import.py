"""Bulk import: the content of the group afterwards, also after several stops."""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import facecore
from facecore import FaceEngine, Gallery
from facecore.gallery import bulk_import
from facecore.gallery.bulk_import import face_id_of, import_pictures

Array = np.ndarray[Any, Any]


@pytest.fixture
def people(tmp_path: Path, hopper_path: Path, astronaut: Array) -> Path:
    """Five good pictures, two bad ones, and one outside a person's folder."""
    root = tmp_path / "people"
    for name in ("grace", "eileen", "noise"):
        (root / name).mkdir(parents=True)
    shutil.copy(hopper_path, root / "grace" / "1.jpg")
    shutil.copy(hopper_path, root / "grace" / "the same.jpg")
    shutil.copy(hopper_path, root / "eileen" / "not she.jpg")
    cv2.imwrite(str(root / "eileen" / "a.png"), astronaut)
    cv2.imwrite(str(root / "eileen" / "b.png"), astronaut[:, ::-1])
    (root / "noise" / "=cut.jpg").write_bytes(hopper_path.read_bytes()[:500])
    cv2.imwrite(str(root / "noise" / "wall.png"), np.full((64, 64, 3), 128, np.uint8))
    shutil.copy(hopper_path, root / "loose.jpg")
    return root


@pytest.fixture
def gallery(tmp_path: Path, compact: FaceEngine) -> Iterator[Gallery]:
    with Gallery(tmp_path / "a.gallery", compact) as made:
        made.create_group("staff")
        yield made


def content(gallery: Gallery) -> set[Any]:
    return {
        (r.group, r.face_id, r.user_id, r.quality, r.origin, vector.tobytes())
        for records, vectors in gallery.templates()
        for r, vector in zip(records, vectors, strict=True)
    }


def test_a_folder_of_people(gallery: Gallery, people: Path, tmp_path: Path) -> None:
    report = tmp_path / "refused.csv"
    result = import_pictures(gallery, "staff", people, report=report)
    assert (result.images, result.added, result.present) == (8, 4, 1)
    assert result.refused() == {
        "InvalidParameter": 1,
        "NoFaceDetected": 1,
        "UnreadableImage": 1,
    }
    users = sorted(record.user_id for record in gallery.records())
    assert users == ["eileen", "eileen", "eileen", "grace"]
    with report.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["image", "user_id", "code", "message"]
    assert [row[:3] for row in rows[1:]] == [
        ["loose.jpg", "", "InvalidParameter"],
        ["noise/=cut.jpg", "noise", "UnreadableImage"],
        ["noise/wall.png", "noise", "NoFaceDetected"],
    ]
    again = import_pictures(gallery, "staff", people)
    assert (again.added, again.present, again.refusals) == (0, 5, result.refusals)
    assert len(gallery) == 4


def test_a_list(gallery: Gallery, people: Path, hopper_path: Path) -> None:
    table = people / "list.csv"
    table.write_text(
        "\ufeffnote,image,user_id\n"
        "x,grace/1.jpg,grace\n"
        f'"a\nb",{hopper_path},"hopper, grace"\n\n'
        ",eileen/none.jpg,eileen\n"
        ",eileen/a.png,\n",
        encoding="utf-8",
    )
    result = import_pictures(gallery, "staff", table)
    assert [record.user_id for record in gallery.records()] == ["grace", "hopper, grace"]
    assert [(r.image, r.code) for r in result.refusals] == [
        ("eileen/none.jpg", "UnreadableImage"),
        ("eileen/a.png", "InvalidParameter"),
    ]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "first line"),
        (b"image\nx\n", "first line"),
        (b"image,user_id\nx\n", "line 2 has 1 of 2"),
        (b'image,user_id\n"x\n', "CSV"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_what_is_no_list(gallery: Gallery, tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(facecore.InvalidParameter, match=match):
        import_pictures(gallery, "staff", tmp_path / "list.csv")


def test_what_is_wrong_is_said_before_the_work(
    gallery: Gallery, people: Path, tmp_path: Path
) -> None:
    with pytest.raises(facecore.GroupNotFound):
        import_pictures(gallery, "nobody", people)
    with pytest.raises(facecore.InvalidParameter, match="neither"):
        import_pictures(gallery, "staff", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("image,user_id\n")
    for source, message in (("empty", "holds no picture of a person"), ("empty.csv", "lists no")):
        with pytest.raises(facecore.InvalidParameter, match=message):
            import_pictures(gallery, "staff", tmp_path / source)
    with pytest.raises(facecore.InvalidParameter, match="cannot be written"):
        import_pictures(gallery, "staff", people, report=tmp_path / "none" / "r.csv")
    assert len(gallery) == 0


def test_the_same_vectors_as_one_by_one(
    gallery: Gallery, people: Path, compact: FaceEngine, hopper_path: Path
) -> None:
    import_pictures(gallery, "staff", people)
    (record,) = gallery.records(user_id="grace")
    digest = hashlib.sha256(hopper_path.read_bytes()).hexdigest()
    assert record.face_id == face_id_of("staff", "grace", digest)
    ((_, vectors),) = gallery.templates()
    place = [r.face_id for r in gallery.records()].index(record.face_id)
    np.testing.assert_allclose(vectors[place], compact.embed(hopper_path), atol=1e-6)


def test_copies_share_the_outcome(
    gallery: Gallery, tmp_path: Path, hopper_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some copies are read before the first picture is added or refused, some after it."""
    monkeypatch.setattr(bulk_import, "_COMMIT", 1)
    monkeypatch.setattr(bulk_import, "_BATCH", 1)
    shutil.copy(hopper_path, tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"x")
    both = ["good.jpg,u", "bad.jpg,u"]
    rows = ["image,user_id", *both, *both, *(f"good.jpg,u{i}" for i in range(4)), *both]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    result = import_pictures(gallery, "staff", tmp_path / "list.csv")
    assert (result.images, result.added, result.present) == (10, 5, 2)
    assert [(r.image, r.code) for r in result.refusals] == [("bad.jpg", "UnreadableImage")] * 3
    assert len(gallery) == 5


def test_cells_of_the_report_are_no_formulas() -> None:
    refusal = bulk_import.RejectedImage("=1+1.jpg", "@x", "Code", "-2\nlines \udcff")
    assert bulk_import._table([refusal]).decode() == (
        "image,user_id,code,message\r\n'=1+1.jpg,'@x,Code,\"'-2\nlines \\udcff\"\r\n"
    )


def test_an_interrupt_leaves_what_can_be_resumed(
    gallery: Gallery, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_import, "_COMMIT", 1)
    add, calls = gallery.add_templates, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return add(*arguments, **options)

    monkeypatch.setattr(gallery, "add_templates", interrupted)
    report = tmp_path / "refused.csv"
    with pytest.raises(KeyboardInterrupt):
        import_pictures(gallery, "staff", people, report=report)
    assert len(gallery) == 2
    assert report.is_file()
    result = import_pictures(gallery, "staff", people)
    assert (result.added, result.present) == (2, 3)


KILLED = """
import sys, facecore
from pathlib import Path
from facecore.gallery import bulk_import
bulk_import._COMMIT = 4
with facecore.Gallery(sys.argv[1], facecore.FaceEngine(threads=1)) as gallery:
    bulk_import.import_pictures(gallery, "staff", Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_and_resumed_is_the_same_as_never_killed(
    tmp_path: Path, compact: FaceEngine, astronaut: Array, hopper: Array
) -> None:
    people = tmp_path / "people"
    for i in range(60):
        (people / f"p{i % 7}").mkdir(parents=True, exist_ok=True)
        source = astronaut if i % 2 else hopper
        picture = cv2.convertScaleAbs(source, alpha=1 - i / 200)
        cv2.imwrite(str(people / f"p{i % 7}" / f"{i}.jpg"), picture)
    (people / "p0" / "bad.jpg").write_bytes(b"x")
    places = [tmp_path / "clean.gallery", tmp_path / "killed.gallery"]
    for place in places:
        with Gallery(place, compact) as gallery:
            gallery.create_group("staff")
    with Gallery(places[0], compact) as gallery:
        import_pictures(gallery, "staff", people)
        whole = content(gallery)
    assert len(whole) == 60
    seen = set()
    for _ in range(3):  # each attempt is killed soon after it has stored something
        command = [sys.executable, "-c", KILLED, str(places[1]), str(people)]
        with Gallery(places[1], compact, read_only=True) as reader:
            before = len(reader)
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                while len(reader) == before and process.poll() is None:
                    time.sleep(0.001)
                process.kill()  # the process may have ended already
        with Gallery(places[1], compact) as gallery:
            seen.add(len(gallery))
            assert content(gallery) <= whole
    assert any(0 < count < 60 for count in seen)
    with Gallery(places[1], compact) as gallery:
        result = import_pictures(gallery, "staff", people)
        assert result.added + result.present == 60
        assert content(gallery) == whole
