"""``facecore group``, ``add``, ``search``, ``remove`` and ``rekey``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import Gallery, cli

Array = np.ndarray[Any, Any]


class Shell:
    """Runs commands on one gallery."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        done = cli.main([*arguments, "--gallery", str(self.folder)])
        out, err = self.capsys.readouterr()
        assert done == status, err
        return out if status < 2 else err

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", status=status))


@pytest.fixture
def shell(folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(folder, capsys)


@pytest.fixture
def pictures(tmp_path: Path, astronaut: Array, hopper_path: Path) -> tuple[str, str]:
    cv2.imwrite(str(tmp_path / "eileen.png"), astronaut)
    return str(tmp_path / "eileen.png"), str(hopper_path)


def test_from_an_empty_folder_to_a_match(shell: Shell, pictures: tuple[str, str]) -> None:
    eileen, grace = pictures
    assert "created" in shell("group", "create", "staff", "--title", "Our staff")
    made = shell.json("group", "create", "visitors")
    assert (made["name"], made["size"]) == ("visitors", 0)
    added = shell.json("add", "staff", eileen, "eileen")
    assert added.pop("others") == 0  # other faces in the picture; not kept by the gallery
    assert added.pop("present") is False
    assert (added["user_id"], added["group"], added["origin"]) == ("eileen", "staff", "MANUAL")
    assert "added to visitors" in shell("add", "visitors", grace, "grace")
    assert "already has this picture in visitors" in shell("add", "visitors", grace, "grace")
    assert shell("group", "list") == "staff  1 face  Our staff\nvisitors  1 face\n"
    second = shell.json("group", "list", "--offset", "1")
    assert ([g["name"] for g in second["groups"]], second["more"]) == (["visitors"], False)
    assert shell("group", "list", "--limit", "1").endswith("\nand more: --offset 1\n")
    assert "limit is -1" in shell("group", "list", "--limit", "-1", status=2)
    listed = shell.json("group", "list", "staff")
    assert (listed["count"], listed["faces"]) == (1, [added])
    shell("add", "staff", eileen, "twin")
    assert shell("group", "list", "staff", "--limit", "1").endswith("1 of 2\n")

    assert "in 0.001% of searches" in shell("search", eileen, "--far", "1e-5")
    found = shell.json("search", eileen, "--group", "staff", "--limit", "1")
    assert found["matches"][0]["face_id"] == added["face_id"]
    assert found["matches"][0]["score"] >= 99.99
    best, *_ = shell("search", grace).splitlines()
    assert best.startswith("100.0  grace  visitors")
    nobody = shell("search", grace, "--group", "staff", "--far", "0.001", status=1)
    assert nobody.startswith("nobody\n2 faces compared")
    assert shell.json("search", grace, "--threshold", "80")["matches"][0]["user_id"] == "grace"

    assert shell.json("remove", "staff", "--user", "eileen")["removed"] == 1
    assert "0 faces" in shell("remove", "staff", "--user", "eileen", status=1)
    compacted = shell.json("group", "compact")
    assert (compacted["faces"], compacted["removed"]) == (2, 1)
    assert "2 faces; freed the space of 0 removed" in shell("group", "compact")
    twin = shell.json("group", "list", "staff")["faces"][0]["face_id"]
    assert "1 face removed" in shell("remove", "staff", "--face", twin)
    assert "with 1 face\n" in shell("group", "delete", "visitors")
    assert shell("search", grace, status=1).startswith("nobody\n0 faces compared")


def test_errors(shell: Shell, pictures: tuple[str, str], compact: Any) -> None:
    assert shell("group", "list", status=2).startswith("facecore: InvalidParameter: there is no")
    shell("group", "create", "staff")
    assert "GroupExists" in shell("group", "create", "staff", status=2)
    assert shell("group", "create", "staff", "--exist-ok").startswith("staff: exists, id ")
    assert "GroupNotFound" in shell("search", pictures[0], "--group", "x", status=2)
    shell("add", "staff", pictures[0], "eileen")
    refused = shell("add", "staff", pictures[0], "eileen", "--on-existing", "refuse", status=2)
    assert refused.startswith("facecore: UserExists: ")
    with Gallery(shell.folder, compact):
        assert "GalleryLocked" in shell("add", "staff", pictures[0], "e", status=2)
        assert shell("search", pictures[0]).startswith("100.0  eileen")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "x.jpg", "--far", "0.1", "--threshold", "80", "--gallery", "g"],
        ["search", "x.jpg", "--far", "low", "--gallery", "g"],
        ["remove", "staff", "--gallery", "g"],
    ],
)
def test_wrong_calls(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("facecore: InvalidParameter: ")
    assert "_far" not in error


def test_an_encrypted_gallery(
    shell: Shell, pictures: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    first, second, archive = tmp_path / "1.key", tmp_path / "2.key", tmp_path / "archive"
    for number, path in enumerate((first, second)):
        path.write_text(f"{number}" * 64 + "\n")
        path.chmod(0o600)
    shell("group", "create", "staff")
    shell("add", "staff", pictures[0], "eileen")
    assert "encrypted under the new key, 1 face\n" in shell("rekey", "--new-key-file", str(first))
    assert "WrongKey" in shell("group", "list", status=2)
    under_first = ("--gallery-key-file", str(first))
    assert "eileen" in shell("search", pictures[0], *under_first)
    shell("group", "export", str(archive), *under_first)
    assert b"eileen" not in archive.read_bytes()
    answer = shell.json("rekey", *under_first, "--new-key-file", str(second))
    assert answer == {"gallery": str(shell.folder), "faces": 1, "encrypted": True}
    assert "WrongKey" in shell("group", "list", *under_first, status=2)
    monkeypatch.setenv("FACECORE_GALLERY_KEY", "1" * 64)
    assert "staff  1 face" in shell("group", "list")
    assert "WrongKey" in shell("group", "load", str(archive), status=2)
    assert "1 already" in shell("group", "load", str(archive), "--archive-key-file", str(first))
    shell("group", "export", str(archive), "--plain")
    assert b"eileen" in archive.read_bytes()
    assert "not encrypted, 1 face" in shell("rekey", "--decrypt")
    assert "is not encrypted" in shell("group", "list", status=2)
    monkeypatch.setenv("FACECORE_GALLERY_KEY", "no key")
    assert "the key is not 32 bytes" in shell("group", "list", status=2)
    monkeypatch.delenv("FACECORE_GALLERY_KEY")
    assert "staff  1 face" in shell("group", "list")
