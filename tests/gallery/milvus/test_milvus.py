"""Milvus only: addresses, races with other processes, and recovery after a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import facecore
from facecore import FaceEngine, Gallery
from facecore.gallery.milvus.client import _parse
from tests.gallery.test_model import GalleryMachine

Array = np.ndarray[Any, Any]


@pytest.fixture
def gallery(tmp_path: Path, compact: FaceEngine) -> Iterator[Gallery]:
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    with Gallery("milvus+" + (tmp_path / "a.db").as_uri(), compact) as made:
        made.create_group("staff")
        yield made


@pytest.mark.parametrize(
    ("address", "name", "target"),
    [
        ("milvus+http://h:19530", "milvus+http://h:19530", "http://h:19530"),
        ("milvus+https://u:p%40@h:1/db/", "milvus+https://h:1/db", "https://u:p%40@h:1/db/"),
    ],
)
def test_addresses_of_servers(address: str, name: str, target: str) -> None:
    assert _parse(address) == (name, None, target)


@pytest.mark.parametrize(
    "address",
    ["http://", "ftp://h", "file:///tmp/a.sqlite", "file://host/tmp/a.db", "http://h:99999", "x"],
)
def test_addresses_that_are_none(address: str, compact: FaceEngine) -> None:
    with pytest.raises(facecore.InvalidParameter):
        Gallery("milvus+" + address, compact)


def test_a_password_is_not_shown(gallery: Gallery) -> None:
    gallery.address = "milvus+http://user:secret@host:19530"
    assert repr(gallery) == "Gallery('milvus+http://host:19530', pack='compact')"


def test_without_the_extra(compact: FaceEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(facecore.MissingExtra, match=r"facecore\[milvus\]"):
        Gallery("milvus+http://localhost:1", compact)


def test_another_process_is_told_that_the_file_is_taken(gallery: Gallery) -> None:
    code = (
        "import sys, facecore\n"
        "try: facecore.Gallery(sys.argv[1], facecore.FaceEngine(threads=1))\n"
        "except facecore.GalleryLocked as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, gallery.address], capture_output=True, text=True, check=True
    )
    assert "is in use already" in run.stdout
    assert run.stderr == ""


def test_galleries_of_one_process_share_a_file(
    gallery: Gallery, compact: FaceEngine, astronaut: Array
) -> None:
    with Gallery(gallery.address, compact) as other:
        other.add("staff", astronaut, "u")
    assert gallery.search(astronaut)[0].user_id == "u"


def test_a_server_that_refuses(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    server = gallery._backend._server  # type: ignore[attr-defined]
    with pytest.raises(facecore.GalleryUnavailable, match="unknown field"):
        server.call("query", "facecore_faces", filter="nosuch == 1")


def test_a_collection_of_somebody_else(tmp_path: Path, compact: FaceEngine) -> None:
    pymilvus = pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    client = pymilvus.MilvusClient(str(tmp_path / "a.db"))
    client.create_collection("facecore_faces", dimension=4)
    client.close()
    manager = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    manager.release_server(str(tmp_path / "a.db"))
    with pytest.raises(facecore.InvalidParameter, match="not facecore's"):
        Gallery("milvus+" + (tmp_path / "a.db").as_uri(), compact)


def interfere(gallery: Gallery, monkeypatch: pytest.MonkeyPatch, when: str, act: Any) -> None:
    """Call `act` right before a call to the server, as another process would."""
    server: Any = gallery._backend._server  # type: ignore[attr-defined]
    call, done = server.call, []

    def meanwhile(method: str, *arguments: Any, **options: Any) -> Any:
        if f"{method} {arguments[0]}" == when and not done:
            done.append(True)
            act()
        return call(method, *arguments, **options)

    monkeypatch.setattr(type(server), "call", lambda self, *a, **o: meanwhile(*a, **o))


def test_two_processes_make_one_group(
    gallery: Gallery, compact: FaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Gallery(gallery.address, compact)
    made: list[Any] = []
    interfere(
        gallery, monkeypatch, "insert facecore_groups", lambda: made.append(other.create_group("x"))
    )
    with pytest.raises(facecore.GroupExists):
        gallery.create_group("x")
    monkeypatch.undo()
    assert gallery.group("x").id == made[0].id
    assert len(gallery.groups()) == 2
    other.close()


def test_two_processes_register_one_user(
    gallery: Gallery, compact: FaceEngine, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Gallery(gallery.address, compact)
    sample, made = compact.sample(astronaut), []

    def add() -> None:
        made.append(other.add("staff", sample, "u", on_existing="refuse"))

    interfere(gallery, monkeypatch, "insert facecore_faces", add)
    with pytest.raises(facecore.UserExists):
        gallery.add("staff", sample, "u", on_existing="refuse")
    monkeypatch.undo()
    assert gallery.records() == made
    other.close()


@pytest.mark.parametrize("again", [False, True])
def test_a_group_that_is_deleted_meanwhile_gets_no_face(
    gallery: Gallery,
    compact: FaceEngine,
    astronaut: Array,
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    other = Gallery(gallery.address, compact)
    sample = compact.sample(astronaut)

    def delete() -> None:
        other.delete_group("staff")
        if again:
            other.create_group("staff")

    interfere(gallery, monkeypatch, "insert facecore_faces", delete)
    with pytest.raises(facecore.GroupNotFound):
        gallery.add("staff", sample, "u")
    monkeypatch.undo()
    assert gallery._backend._count("id >= 0") == 0  # type: ignore[attr-defined]
    other.close()


def test_a_deletion_that_crashed_is_finished(
    gallery: Gallery, compact: FaceEngine, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add("staff", astronaut, "u")

    def crash() -> None:
        raise ZeroDivisionError

    interfere(gallery, monkeypatch, "delete facecore_faces", crash)
    with pytest.raises(ZeroDivisionError):
        gallery.delete_group("staff")
    monkeypatch.undo()
    assert gallery.search(astronaut) == []
    assert (len(gallery), gallery.records(), gallery.groups()) == (0, [], [])
    gallery.create_group("other")
    gallery.add("other", astronaut, "u")
    assert gallery.delete_group("other") == 1  # does not count what the crash left
    gallery.close()
    with Gallery(gallery.address, compact) as again:
        assert again._backend._count("id >= 0") == 0  # type: ignore[attr-defined]


def test_a_group_that_is_updated_while_it_is_deleted(
    gallery: Gallery, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes back an outdated row; the deletion still succeeds."""
    gallery.add("staff", astronaut, "u")
    backend: Any = gallery._backend
    put = backend._put

    def put_then_updated(row: dict[str, Any]) -> None:
        put(row)
        put({**row, "deleted": False, "title": "new"})

    monkeypatch.setattr(backend, "_put", put_then_updated)
    assert gallery.delete_group("staff") == 1
    assert (gallery.groups(), backend._count("id >= 0")) == ([], 0)


def test_a_replacement_that_crashed_loses_nobody(
    gallery: Gallery, astronaut: Array, hopper: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add("staff", astronaut, "u")

    def crash() -> None:
        raise ZeroDivisionError

    interfere(gallery, monkeypatch, "delete facecore_faces", crash)
    with pytest.raises(ZeroDivisionError):
        gallery.add("staff", hopper, "u", on_existing="replace")
    monkeypatch.undo()
    assert gallery.count(user_id="u") == 2


@pytest.mark.parametrize("index", ["exact", "hnsw", "auto"])
def test_kinds_of_index(tmp_path: Path, compact: FaceEngine, index: Any, astronaut: Array) -> None:
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    with Gallery("milvus+" + (tmp_path / "a.db").as_uri(), compact, index=index) as gallery:
        gallery.create_group("staff")
        gallery.add("staff", astronaut, "u")
        gallery.compact()
        assert gallery.search(astronaut, limit=100)[0].user_id == "u"
        assert gallery.stats().index == index
        with pytest.raises(facecore.InvalidParameter, match="16384"):
            gallery.search(astronaut, limit=20_000)
        assert gallery.search(astronaut, limit=5000, per="user")[0].user_id == "u"


class MilvusMachine(GalleryMachine):
    def address(self) -> str:
        return "milvus+" + Path(super().address()).with_suffix(".db").as_uri()


def test_histories() -> None:
    """Run the histories of a folder, and expect the same answers."""
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    run = MilvusMachine.TestCase
    run.settings = settings(max_examples=4, stateful_step_count=15, deadline=None)
    run("runTest").runTest()


def test_only_the_owner_may_read_a_file(tmp_path: Path, compact: FaceEngine) -> None:
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    before = os.umask(0)
    try:
        with Gallery("milvus+" + (tmp_path / "a.db").as_uri(), compact) as gallery:
            gallery.create_group("staff")
    finally:
        os.umask(before)
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o700
