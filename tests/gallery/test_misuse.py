"""Wrong arguments and damaged files raise typed errors that name the fault; nothing changes."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import sqlite3
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import DIMENSION, template

from facecore import (
    ContractMismatch,
    FacecoreError,
    FaceEngine,
    Gallery,
    GalleryCorrupt,
    GalleryLocked,
    GalleryNotWritable,
    GroupNotFound,
    InvalidParameter,
    RecordNotFound,
)
from facecore.gallery.sqlite import connection

pytestmark = pytest.mark.usefixtures("no_sync")
FACE = "0" * 32


def given(gallery: Gallery, **changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "group": "staff",
        "vectors": template("t")[None],
        "user_ids": ["u"],
        "contract": gallery.contract_id,
    }
    return gallery.add_templates(**arguments | changed)


@pytest.mark.parametrize(
    "call",
    [
        lambda g: g.create_group(""),
        lambda g: g.create_group("x" * 65),
        lambda g: g.create_group("a\nb"),
        lambda g: g.create_group("half \ud83d of a pair"),
        lambda g: g.create_group(None),
        lambda g: g.create_group("x", title="\x00"),
        lambda g: g.create_group("x", description="d" * 4097),
        lambda g: g.update_group("staff", title=3),
        lambda g: g.group_by_id("1"),
        lambda g: g.groups(offset=-1),
        lambda g: g.groups(limit=1.5),
        lambda g: g.add("staff", template("t"), ""),
        lambda g: g.add("staff", template("t"), "u" * 257),
        lambda g: g.add("staff", template("t"), "u", on_existing="skip"),
        lambda g: g.add("staff", template("t"), "u", origin="manual"),
        lambda g: g.add("staff", "no template", "u"),
        lambda g: g.add_many("staff", [], batch_size=0),
        lambda g: list(g.add_many("staff", [template("t")])),
        lambda g: given(g, vectors=template("t")),
        lambda g: given(g, vectors=template("t")[None, :-1]),
        lambda g: given(g, vectors=2 * template("t")[None]),
        lambda g: given(g, vectors=np.full((1, DIMENSION), np.nan)),
        lambda g: given(g, vectors=[["x"]]),
        lambda g: given(g, user_ids="u"),
        lambda g: given(g, user_ids=3),
        lambda g: given(g, created=3),
        lambda g: given(g, user_ids=["u", "v"]),
        lambda g: given(g, user_ids=[3]),
        lambda g: given(g, face_ids=["x"]),
        lambda g: given(g, face_ids=[FACE, FACE], user_ids=["u", "v"]),
        lambda g: given(g, quality=[101]),
        lambda g: given(g, quality=[True]),
        lambda g: given(g, quality=[]),
        lambda g: given(g, origin="OTHER"),
        lambda g: given(g, created=datetime(2020, 1, 1)),
        lambda g: given(g, created="2020-01-01"),
        lambda g: g.search(template("t"), limit=0),
        lambda g: g.search(template("t"), limit=True),
        lambda g: g.search(template("t"), threshold=101),
        lambda g: g.search(template("t"), threshold=float("nan")),
        lambda g: g.search(template("t"), far=0),
        lambda g: g.search(template("t"), far=1),
        lambda g: g.search(template("t"), far=0.1, threshold=80),
        lambda g: g.search(template("t"), [3]),
        lambda g: g.search(template("t"), 3),
        lambda g: g.search(template("t"), threshold="80"),
        lambda g: g.search(template("t"), far="rare"),
        lambda g: given(g, quality=[10**400]),
        lambda g: given(g, created=datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))),
        lambda g: g.remove("staff"),
        lambda g: g.remove("staff", user_id="u", face_id=FACE),
        lambda g: g.remove("staff", face_id="xyz"),
        lambda g: g.record("xyz"),
        lambda g: g.record_by_id(1.0),
        lambda g: g.records(limit=-1),
        lambda g: g.records(origin="x"),
        lambda g: g.count(user_id="\x7f"),
        lambda g: g.templates(batch_size=0),
        lambda g: g.users_groups(""),
        lambda g: Gallery(g.address, g.engine, index="flat"),
        lambda g: Gallery("redis://x", g.engine),
        lambda g: Gallery(3, g.engine),
        lambda g: Gallery(b"bytes", g.engine),
    ],
)  # fmt: skip
def test_wrong_arguments(filled: Gallery, call: Callable[[Gallery], object]) -> None:
    with pytest.raises(InvalidParameter):
        call(filled)
    assert len(filled) == 0
    assert [group.name for group in filled.groups()] == ["staff", "visitors"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda g: g.group("nobody"), GroupNotFound),
        (lambda g: g.group_by_id(99), GroupNotFound),
        (lambda g: g.update_group("nobody"), GroupNotFound),
        (lambda g: g.delete_group("nobody"), GroupNotFound),
        (lambda g: g.add("nobody", template("t"), "u"), GroupNotFound),
        (lambda g: g.add_many("nobody", []), GroupNotFound),
        (lambda g: given(g, group="nobody"), GroupNotFound),
        (lambda g: g.search(template("t"), ["staff", "nobody"]), GroupNotFound),
        (lambda g: g.search(template("t"), "nobody", far=0.1), GroupNotFound),
        (lambda g: g.remove("nobody", user_id="u"), GroupNotFound),
        (lambda g: g.records("nobody"), GroupNotFound),
        (lambda g: g.count("nobody"), GroupNotFound),
        (lambda g: g.templates("nobody"), GroupNotFound),
        (lambda g: g.record(FACE), RecordNotFound),
        (lambda g: g.record_by_id(7), RecordNotFound),
        (lambda g: g.record_by_id(10**30), RecordNotFound),
        (lambda g: g.group_by_id(2**63), GroupNotFound),
        (lambda g: given(g, contract="c1-0123456789abcdef"), ContractMismatch),
    ],
)  # fmt: skip
def test_what_is_not_there(
    filled: Gallery, call: Callable[[Gallery], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(filled)
    assert len(filled) == 0


def test_more_than_there_can_be_is_all_there_is(filled: Gallery) -> None:
    """Numbers beyond 64 bits must not raise an OverflowError."""
    (record,) = given(filled)
    huge = 10**30
    assert filled.records(limit=huge) == [record]
    assert filled.records(offset=huge, limit=huge) == []
    assert len(filled.groups(limit=huge)) == 2
    assert filled.groups(offset=huge, limit=huge) == []
    assert len(filled.search(template("t"), limit=huge)) == 1
    assert [records for records, _ in filled.templates(batch_size=huge)] == [[record]]
    assert len(list(filled.add_many("staff", [(template("s"), "s")], batch_size=huge))) == 1


def test_a_batch_is_added_whole_or_not_at_all(filled: Gallery) -> None:
    given(filled, face_ids=[FACE])
    vectors = np.stack([template("a"), template("b")])
    with pytest.raises(InvalidParameter, match=FACE):
        given(filled, vectors=vectors, user_ids=["a", "b"], face_ids=["1" * 32, FACE])
    assert [record.face_id for record in filled.records()] == [FACE]
    assert filled.group("staff").size == 1
    assert [match.user_id for match in filled.search(template("a"))] == ["u"]


def test_packs_do_not_mix(
    filled: Gallery, folder: Path, templates_engine: Any, mobilefacenet: FaceEngine
) -> None:
    """The error names both packs, on opening and on adding."""
    with pytest.raises(ContractMismatch, match=r"of the pack mobilefacenet.*of the pack compact"):
        given(filled, contract=mobilefacenet.contract_id)
    filled.close()
    for read_only in (False, True):
        with pytest.raises(ContractMismatch, match=r"of the pack compact .*not of mobilefacenet"):
            Gallery(folder, mobilefacenet, read_only=read_only)
    Gallery(folder, templates_engine).close()  # the refusal released the lock


def test_a_closed_gallery(filled: Gallery) -> None:
    filled.close()
    filled.close()
    for call in (filled.groups, lambda: filled.search(template("t")), lambda: given(filled)):
        with pytest.raises(InvalidParameter, match="closed"):
            call()


def test_one_writer(filled: Gallery, folder: Path, templates_engine: Any) -> None:
    with pytest.raises(GalleryLocked, match=r"open for writing already .*read_only=True"):
        Gallery(folder, templates_engine)
    with Gallery(folder, templates_engine, read_only=True) as reader:
        given(filled)
        assert reader.search(template("t"))[0].user_id == "u"
        for call in (
            lambda: given(reader),
            lambda: reader.create_group("x"),
            lambda: reader.remove("staff", user_id="u"),
            reader.compact,
        ):
            with pytest.raises(GalleryLocked, match="read_only"):
                call()
    filled.close()
    Gallery(folder, templates_engine).close()


def test_a_file_system_without_locks(
    folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other process has it open, so the error must not say so."""

    def refuse(stream: object, *, wait: bool) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("facecore._utils.file_locks.lock", refuse)
    with pytest.raises(GalleryNotWritable, match=r"cannot be locked.*network share"):
        Gallery(folder, templates_engine)


def _use(gallery: Gallery, answers: Any) -> None:
    try:
        gallery.groups()
    except InvalidParameter as error:
        answers.put(error.message)
    gallery.close()  # leaves the parent's locks and files alone
    answers.put("closed")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_gallery_does_not_pass_through_a_fork(filled: Gallery) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_use, args=(filled, answers))
    ready, done = threading.Event(), threading.Event()

    def change() -> None:
        with filled._backend._store.unchanged():  # type: ignore[attr-defined]
            ready.set()
            done.wait(60)

    # A lock that a thread of the parent holds at the fork is never released in the child.
    thread = threading.Thread(target=change)
    thread.start()
    ready.wait()
    process.start()
    done.set()
    thread.join()
    assert "another process" in answers.get(timeout=60)
    assert answers.get(timeout=60) == "closed"
    process.join()
    given(filled)
    assert len(filled) == 1


def test_a_reader_without_a_log_notices_a_writer(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a reader may not write, SQLite reads the file as if it never changed."""
    given(filled)
    filled.close()
    plain = connection.Database.connect

    def refused(self: connection.Database, *, read_only: bool) -> sqlite3.Connection:
        if not read_only:
            return plain(self, read_only=False)
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(connection.Database, "connect", refused)
    with Gallery(folder, templates_engine, read_only=True) as reader:
        assert reader.search(template("t"))[0].user_id == "u"
        monkeypatch.undo()
        with Gallery(folder, templates_engine) as writer:
            writer.remove("staff", user_id="u")
            with pytest.raises(GalleryLocked, match="another process changes it"):
                reader.search(template("t"))
        with pytest.raises(GalleryLocked, match="another process changes it"):
            reader.search(template("t"))


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be moved there")
@pytest.mark.parametrize("while_connecting", [False, True])
@pytest.mark.parametrize("key", [None, bytes(32)], ids=["plain", "encrypted"])
def test_a_reader_notices_another_gallery_in_its_folder(
    folder: Path,
    templates_engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    key: bytes | None,
    while_connecting: bool,
) -> None:
    """It would answer from the deleted files, or with its old index from the new ones."""
    if key:
        pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    other, away = folder.with_name("other"), folder.with_name("away")
    for place, user in ((folder, "dave"), (other, "frank")):
        with Gallery(place, templates_engine, key=key) as gallery:
            gallery.create_group("staff")
            gallery.add("staff", template(user), user)
    reader = Gallery(folder, templates_engine, read_only=True, key=key)
    store, plain = reader._backend._store, connection.Database.connect  # type: ignore[attr-defined]
    assert reader.search(template("dave"))[0].user_id == "dave"

    def replace() -> None:
        folder.rename(away)
        other.rename(folder)

    def late(self: connection.Database, *, read_only: bool) -> sqlite3.Connection:
        replace()
        return plain(self, read_only=read_only)

    lost = pytest.raises(GalleryLocked, match=r"removed or replaced .*open it again")
    if while_connecting:
        monkeypatch.setattr(connection.Database, "connect", late)
        with store.snapshot(), lost:  # the snapshot uses the only connection
            reader.search(template("dave"))
        monkeypatch.undo()
    else:
        replace()
    with lost:
        reader.search(template("dave"))
    folder.rename(other)
    away.rename(folder)
    assert reader.search(template("dave"))[0].user_id == "dave"
    reader.close()


def test_a_change_of_the_working_directory_is_no_loss(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.close()
    monkeypatch.chdir(folder.parent)
    with Gallery(folder.name, templates_engine) as gallery:
        monkeypatch.chdir("/")
        assert gallery.address == str(folder)
        given(gallery)
        store = gallery._backend._store  # type: ignore[attr-defined]
        with store.snapshot():  # the search opens a second connection
            assert gallery.search(template("t"))[0].user_id == "u"


def test_folders_that_are_no_gallery(tmp_path: Path, templates_engine: Any) -> None:
    with pytest.raises(InvalidParameter, match="there is no gallery"):
        Gallery(tmp_path / "missing", templates_engine, read_only=True)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(InvalidParameter, match=r"not empty: 'photo.jpg'"):
        Gallery(tmp_path, templates_engine)
    with pytest.raises(InvalidParameter, match="not a folder"):
        Gallery(tmp_path / "photo.jpg", templates_engine)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("read_only", [False, True])
class TestDamage:
    def expect(self, folder: Path, engine: Any, read_only: bool, text: str) -> None:
        with (
            pytest.raises(GalleryCorrupt, match=text) as caught,
            Gallery(folder, engine, read_only=read_only) as gallery,
        ):
            gallery.search(template("t"))
        assert caught.value.hint

    def test_another_file(
        self, filled: Gallery, folder: Path, templates_engine: Any, read_only: bool
    ) -> None:
        filled.close()
        (folder / "gallery.db").write_bytes(b"no database" * 1000)
        self.expect(folder, templates_engine, read_only, "not a database")

    def test_a_table_is_missing(
        self, filled: Gallery, folder: Path, templates_engine: Any, read_only: bool
    ) -> None:
        filled.add("staff", template("t"), "u")
        filled.close()
        with contextlib.closing(sqlite3.connect(folder / "gallery.db")) as damaged:
            damaged.execute("DROP TABLE templates")
        self.expect(folder, templates_engine, read_only, "no such table: templates")

    def test_a_page(
        self, filled: Gallery, folder: Path, templates_engine: Any, read_only: bool
    ) -> None:
        vectors = np.stack([template(f"t{i}") for i in range(100)])
        given(filled, vectors=vectors, user_ids=["u"] * 100)
        filled.close()
        data = bytearray((folder / "gallery.db").read_bytes())
        at = data.index(vectors[50].tobytes()) // 8192 * 8192
        data[at : at + 64] = b"\xff" * 64
        (folder / "gallery.db").write_bytes(data)
        self.expect(folder, templates_engine, read_only, "gallery.db")

    def test_a_template(
        self, filled: Gallery, folder: Path, templates_engine: Any, read_only: bool
    ) -> None:
        """The error names the face; after its removal the gallery works again."""
        given(filled, vectors=np.stack([template("s"), template("t")]), user_ids=["s", "t"])
        face_id = filled.records(user_id="t")[0].face_id
        filled.close()
        data = (folder / "gallery.db").read_bytes()
        flipped = bytearray(template("t").tobytes())
        flipped[3] ^= 0x40
        (folder / "gallery.db").write_bytes(data.replace(template("t").tobytes(), flipped))
        self.expect(folder, templates_engine, read_only, f"template of the face {face_id}")
        with Gallery(folder, templates_engine) as gallery:
            assert gallery.remove("staff", face_id=face_id) == 1
            assert [match.user_id for match in gallery.search(template("t"))] == ["s"]

    def test_it_is_gone(
        self, filled: Gallery, folder: Path, templates_engine: Any, read_only: bool
    ) -> None:
        filled.close()
        (folder / "gallery.db").unlink()
        (folder / "index" / "exact").mkdir(parents=True)
        if not read_only:
            self.expect(folder, templates_engine, read_only, "has no gallery.db")


@pytest.mark.parametrize("read_only", [False, True])
def test_another_programs_database_is_not_damaged(
    filled: Gallery, folder: Path, templates_engine: Any, read_only: bool
) -> None:
    filled.close()
    (folder / "gallery.db").unlink()
    with contextlib.closing(sqlite3.connect(folder / "gallery.db")) as other:
        other.execute("CREATE TABLE t (a)")
    with pytest.raises(InvalidParameter, match="is not the database of a gallery"):
        Gallery(folder, templates_engine, read_only=read_only)


@pytest.mark.parametrize("statement", ["SELEKT 1", "SELECT nothing FROM faces", "SELECT * FROM no"])
def test_a_fault_of_our_own_is_not_damage(filled: Gallery, statement: str) -> None:
    store = filled._backend._store  # type: ignore[attr-defined]
    with (
        pytest.raises(FacecoreError, match=r"gallery\.db: .*") as caught,
        store.snapshot() as snapshot,
    ):
        snapshot._all(statement)
    assert caught.value.code == "FacecoreError"
    assert "report" in caught.value.hint


def test_compact_reads_everything(filled: Gallery, folder: Path, templates_engine: Any) -> None:
    given(filled, vectors=np.stack([template(f"t{i}") for i in range(500)]), user_ids=["u"] * 500)
    filled.close()
    data = bytearray((folder / "gallery.db").read_bytes())
    at = data.index(template("t499").tobytes()) // 8192 * 8192
    data[at + 8 : at + 16] = b"\x00" * 8
    (folder / "gallery.db").write_bytes(data)
    with (
        Gallery(folder, templates_engine) as gallery,
        pytest.raises(GalleryCorrupt, match=r"gallery\.db"),
    ):
        gallery.compact()


def test_an_older_schema_is_brought_up_to_date(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(filled)
    filled.close()
    newer = (*connection.MIGRATIONS, ("ALTER TABLE groups ADD COLUMN colour TEXT",))
    monkeypatch.setattr(connection, "MIGRATIONS", newer)
    monkeypatch.setattr("facecore.gallery.sqlite.store.READABLE", len(newer))
    with pytest.raises(InvalidParameter, match="version 2 of the schema, 3 is needed"):
        Gallery(folder, templates_engine, read_only=True)
    with Gallery(folder, templates_engine) as gallery:
        assert [match.user_id for match in gallery.search(template("t"))] == ["u"]
    Gallery(folder, templates_engine, read_only=True).close()
    monkeypatch.undo()
    for read_only in (False, True):
        with pytest.raises(InvalidParameter, match=r"version 3 .* knows 2.*update facecore"):
            Gallery(folder, templates_engine, read_only=read_only)


def test_a_migration_that_fails_changes_nothing(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.close()
    newer = (*connection.MIGRATIONS, ("CREATE TABLE more (a)", "CREATE TABLE more (a)"))
    with monkeypatch.context() as patch:
        patch.setattr(connection, "MIGRATIONS", newer)
        with pytest.raises(FacecoreError, match="already exists"):
            Gallery(folder, templates_engine)
    with Gallery(folder, templates_engine) as gallery:
        assert len(gallery.groups()) == 2


def test_a_failed_opening_lets_go(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.close()
    with monkeypatch.context() as patch:
        patch.setattr("facecore.gallery.sqlite.backend.SavedIndex.repair", _fail)
        with pytest.raises(GalleryCorrupt, match="on purpose"):
            Gallery(folder, templates_engine)
    with Gallery(folder, templates_engine) as gallery:
        assert given(gallery, vectors=np.empty((0, DIMENSION)), user_ids=[]) == []


def _fail(*_: object) -> None:
    raise GalleryCorrupt("on purpose")
