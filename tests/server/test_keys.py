"""The keys file: accepted forms, and no secret in any message."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from facecore import InvalidParameter
from facecore.server.keys import Key, read_keys

SECRET = "s3cret-s3cret-s3cret"


def keys_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_and_comments(tmp_path: Path) -> None:
    path = keys_file(tmp_path, f"# doors\n\n door-1\t{SECRET} \nback.door {SECRET}+/=\n")
    assert read_keys(path) == {
        "door-1": Key("door-1", SECRET),
        "back.door": Key("back.door", SECRET + "+/="),
    }


def test_what_a_key_may_do(tmp_path: Path) -> None:
    options = "operations=FaceCompare,AddFaceRecord groups=staff,visitors until=2026-12-31 rate=2.5"
    key = read_keys(keys_file(tmp_path, f"door-1 {SECRET} {options}\n"))["door-1"]
    assert key == Key(
        "door-1",
        SECRET,
        operations=frozenset({"FaceCompare", "AddFaceRecord"}),
        groups=frozenset({"staff", "visitors"}),
        until=datetime.date(2026, 12, 31),
        rate=2.5,
    )
    assert key.allows("FaceCompare")
    assert not key.allows("DeleteFaceGroup")
    assert SECRET not in repr(key)
    end = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert not key.expired(end - 1)
    assert key.expired(end)
    assert not Key("a", SECRET).expired(end)
    assert Key("a", SECRET).allows("DeleteFaceGroup")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# none\n",
        f"{SECRET}\n",
        f"a b {SECRET}\n",
        f"ä {SECRET}\n",
        "a short\n",
        f"a {SECRET}ü\n",
        f"a {SECRET}\na {SECRET}x\n",
        f"a:{SECRET}\n",
        "a " + "x" * 300 + SECRET,
        "a " * (1 << 20),
        f"a {SECRET} b",
        f"a {SECRET} until",
        f"a {SECRET} until=",
        f"a {SECRET} until=2026-02-30",
        f"a {SECRET} until=20261231",
        f"a {SECRET} rate=0",
        f"a {SECRET} rate=-1",
        f"a {SECRET} rate=nan",
        f"a {SECRET} rate=1 rate=2",
        f"a {SECRET} groups=",
        f"a {SECRET} groups=a,",
        f"a {SECRET} operations=",
        f"a {SECRET} operations=FaceCompare,facecompare",
        f"a {SECRET} opertions=FaceCompare",
        f"a short {SECRET}",
    ],
)
def test_other_forms_are_refused_without_naming_a_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_keys(keys_file(tmp_path, text))
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_others_must_not_read_the_file(tmp_path: Path) -> None:
    for mode in (0o604, 0o602, 0o620, 0o644, 0o666):
        with pytest.raises(InvalidParameter, match="others can read"):
            read_keys(keys_file(tmp_path, f"a {SECRET}", mode))
    for mode in (0o400, 0o600, 0o640):
        read_keys(keys_file(tmp_path, f"a {SECRET}", mode))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "nul\0"):
        with pytest.raises(InvalidParameter, match="cannot be read"):
            read_keys(path)
