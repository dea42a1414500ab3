"""``facecore group import|export|load``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import FaceEngine, Gallery, cli

Array = np.ndarray[Any, Any]


@pytest.fixture
def people(tmp_path: Path, hopper_path: Path, astronaut: Array) -> Path:
    root = tmp_path / "people"
    for name in ("grace", "eileen"):
        (root / name).mkdir(parents=True)
    shutil.copy(hopper_path, root / "grace")
    cv2.imwrite(str(root / "eileen" / "1.png"), astronaut)
    (root / "grace" / "bad.jpg").write_bytes(b"x")
    return root


def run(capsys: pytest.CaptureFixture[str], status: int, *arguments: Any) -> str:
    assert cli.main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    assert (out if status == 2 else err) == ""
    return err if status == 2 else out


def test_import_export_load(
    people: Path, tmp_path: Path, compact: FaceEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    door, other, file = tmp_path / "door", tmp_path / "other", tmp_path / "staff.jsonl"
    add = ("group", "import", people, "--gallery", door, "--group", "staff")
    with Gallery(door, compact) as gallery:
        gallery.create_group("visitors")
    assert "GroupNotFound" in run(capsys, 2, *add)
    run(capsys, 0, "group", "create", "staff", "--gallery", door)
    text = run(capsys, 0, *add, "--report", tmp_path / "refused.csv")
    assert "2 faces added, 0 already present\n1 refused: UnreadableImage\n" in text
    assert "grace/bad.jpg,grace,UnreadableImage" in (tmp_path / "refused.csv").read_text()
    answer = json.loads(run(capsys, 0, *add, "--json"))
    assert (answer["images"], answer["added"], answer["present"]) == (3, 0, 2)
    assert answer["refused"] == {"UnreadableImage": 1}
    assert [r["image"] for r in answer["refusals"]] == ["grace/bad.jpg"]

    text = run(capsys, 0, "group", "export", file, "--gallery", door, "--group", "staff")
    assert text == f"2 faces of 1 group written to {file}\n"
    load = ("group", "load", file, "--gallery", other)
    assert run(capsys, 0, *load) == "2 faces of 1 group: 2 added, 0 already present\n"
    answer = json.loads(run(capsys, 0, *load, "--json"))
    assert answer == {"groups": 1, "faces": 2, "present": 2}
    file.write_bytes(file.read_bytes()[:-1])
    assert run(capsys, 2, *load).startswith(f"facecore: ArchiveCorrupt: {file}: line ")
    with Gallery(door, compact) as first, Gallery(other, compact) as second:
        records = {(r.face_id, r.user_id, r.created) for r in first.records()}
        assert {(r.face_id, r.user_id, r.created) for r in second.records()} == records


def test_nothing_to_import(
    tmp_path: Path, compact: FaceEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people" / "u").mkdir(parents=True)
    for name in ("bad.jpg", "copy.jpg"):
        (tmp_path / "people" / "u" / name).write_bytes(b"x")
    with Gallery(tmp_path / "door", compact) as gallery:
        gallery.create_group("staff")
    add = ("group", "import", tmp_path / "people", "--gallery", tmp_path / "door")
    text = run(capsys, 1, *add, "--group", "staff")
    assert "0 faces added, 0 already present\n2 refused: UnreadableImage\n" in text


def test_commands_on_milvus(
    people: Path, tmp_path: Path, hopper_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    place = ("--gallery", "milvus+" + (tmp_path / "door.db").as_uri())
    run(capsys, 0, "group", "create", "staff", *place)
    run(capsys, 0, "group", "import", people, "--group", "staff", *place)
    assert " grace  staff " in run(capsys, 0, "search", hopper_path, "--far", "0.001", *place)
    run(capsys, 0, "remove", "staff", "--user", "grace", *place)
    assert json.loads(run(capsys, 0, "group", "list", "staff", "--json", *place))["count"] == 1
    assert "GroupExists" in run(capsys, 2, "group", "create", "staff", *place)
