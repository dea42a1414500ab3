"""Files appear whole, with the mode that the umask gives, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facecore._utils import atomic_files
from facecore._utils.atomic_files import check_writable, publish, staged, write_whole
from facecore.errors import InvalidParameter

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    for data in (b"first", b"", b"second" * 100_000):
        check_writable(path)
        write_whole(path, data)
        assert path.read_bytes() == data
        assert names(tmp_path) == ["out.bin"]


@posix
def test_the_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "out.bin"
    write_whole(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    write_whole(path, b"replaced")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"data")
    assert names(tmp_path) == ["x" * 255]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    there: bool,
    error: BaseException,
) -> None:
    path = tmp_path / "out.bin"
    if there:
        path.write_bytes(b"before")

    def fail(*_: object) -> None:
        assert len(names(tmp_path)) == 1 + there  # the temporary file exists
        raise error

    monkeypatch.setattr(atomic_files.os, step, fail)
    wanted = InvalidParameter if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted) as caught:
        write_whole(path, b"after")
    if isinstance(caught.value, InvalidParameter):
        assert caught.value.message == f"{path} cannot be written: No space left on device"
        assert caught.value.hint
    assert names(tmp_path) == ["out.bin"] * there
    assert not there or path.read_bytes() == b"before"


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_replaced_or_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    target = tmp_path / "pack"
    target.mkdir()
    (target / "old").write_bytes(b"")
    rename = Path.rename
    with staged(target) as folder:
        (folder / "new").write_bytes(b"")

        def refuse(self: Path, other: Path) -> Path:
            if fails and self == folder:
                raise PermissionError(errno.EACCES, "Access is denied")
            return rename(self, other)

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(PermissionError) if fails else contextlib.nullcontext():
            publish(folder, target, lambda: False)
    assert names(target) == (["old"] if fails else ["new"])
    assert names(tmp_path) == ["pack"]


def write_something(path: Path) -> None:
    write_whole(path, b"data")


both = pytest.mark.parametrize("call", [write_something, check_writable])


@both
def test_what_cannot_be_written_is_named(tmp_path: Path, call: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "folder", "directory"),
        (Path("."), "directory"),
        (tmp_path / "missing" / "out.bin", "No such file"),
        (tmp_path / "file" / "out.bin", ""),
        (tmp_path / ("x" * 256), ""),
        (Path(f"{tmp_path}/a\0b"), ""),
    ):
        with pytest.raises(InvalidParameter, match="cannot be written") as caught:
            call(path)
        assert caught.value.message.startswith(str(path))
        assert reason in caught.value.message
    assert names(tmp_path) == ["file", "folder"]
    assert names(tmp_path / "folder") == []


@posix
@both
def test_a_folder_without_permission(tmp_path: Path, call: Callable[[Path], None]) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(InvalidParameter, match="Permission denied"):
        call(folder / "out.bin")


@posix
@both
def test_a_device_is_not_replaced(tmp_path: Path, call: Callable[[Path], None]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidParameter, match="not a regular file"):
        call(pipe)
    assert pipe.is_fifo()
