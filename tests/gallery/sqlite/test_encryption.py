"""An encrypted gallery: nothing in its folder can be read, exchanged or changed without its key."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import Gallery, GalleryCorrupt, InvalidParameter, MissingExtra, WrongKey
from facecore.errors import FacecoreError
from facecore.gallery.keys import as_key, read_key
from facecore.gallery.sqlite import hnsw_builder, saved_index

pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
pytestmark = pytest.mark.usefixtures("no_sync")

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
USERS = [f"user-{i:03d}" for i in range(40)]
PAGE = 8192


def fill(folder: Path, engine: Any, key: bytes | None = KEY, **options: Any) -> None:
    with Gallery(folder, engine, key=key, **options) as gallery:
        gallery.create_group("staff-of-the-door", title="a title", description="a description")
        vectors = np.stack([template(user) for user in USERS])
        gallery.add_templates(
            "staff-of-the-door", vectors, USERS, contract=gallery.contract_id, quality=[50.0] * 40
        )


@pytest.fixture
def stored(folder: Path, templates_engine: Any) -> Path:
    fill(folder, templates_engine)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def readable(folder: Path, key: bytes = KEY) -> list[str]:
    """Return the words of the gallery or its key that a file of the folder contains."""
    files = b"".join(contents(folder).values())
    # Long enough not to occur by chance.
    words = [b"SQLite format", b"CREATE TABLE", b"staff-of-the-door", b"a title", b"a description"]
    words += [b"contract", b"digest_key"]
    words += [user.encode() for user in USERS]
    # Eight bytes are enough to recognise a part of a vector; pages may split a row.
    words += [template(user).tobytes()[at : at + 8] for user in USERS for at in (0, 64, 200)]
    words += [key, key.hex().encode(), key.hex().upper().encode(), key[:8]]
    return [repr(word) for word in words if word in files]


def test_what_is_looked_for_stands_in_a_plain_folder(folder: Path, templates_engine: Any) -> None:
    fill(folder, templates_engine, None)
    assert len(readable(folder)) > 40 + 120


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_nothing_can_be_read(
    folder: Path, templates_engine: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check while it is open with a log, after a checkpoint and a compaction, and at the end."""
    for module in (saved_index, hnsw_builder):
        monkeypatch.setattr(module, "WORTHWHILE", 1)
    fill(folder, templates_engine, index=index)
    with Gallery(folder, templates_engine, key=KEY, index=index) as gallery:
        for number in range(12):
            gallery.add("staff-of-the-door", template(USERS[number]), f"{number}")
            gallery.search(template(USERS[number]))
            assert readable(folder) == []
        assert (folder / "gallery.db-wal").stat().st_size > PAGE
        gallery.remove("staff-of-the-door", user_id=USERS[0])
        assert readable(folder) == []
        gallery.compact()
        assert readable(folder) == []
    assert readable(folder) == []
    assert {Path(name).name for name in contents(folder)} <= {"gallery.db", "writer.lock"}


def test_a_saved_index_of_a_plain_gallery_goes(stored: Path, templates_engine: Any) -> None:
    """A folder may hold a saved index from an older copy."""
    index = stored / "index" / "hnsw" / "000001"
    index.mkdir(parents=True)
    (index / "graph.npy").write_bytes(template(USERS[0]).tobytes())
    with Gallery(stored, templates_engine, key=KEY):
        pass
    assert readable(stored) == []


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("key", [None, OTHER])
def test_the_wrong_key_changes_nothing(
    stored: Path, templates_engine: Any, key: bytes | None, read_only: bool, capfd: Any
) -> None:
    before = contents(stored)
    with pytest.raises(WrongKey, match=r"gallery\.db") as caught:
        Gallery(stored, templates_engine, key=key, read_only=read_only)
    assert "--gallery-key-file" in caught.value.hint
    assert contents(stored) == before
    assert capfd.readouterr() == ("", "")  # SQLCipher prints nothing either
    with Gallery(stored, templates_engine, key=KEY) as gallery:
        assert len(gallery) == 40


def test_the_wrong_key_leaves_the_log_of_a_crash(
    stored: Path, templates_engine: Any, tmp_path: Path
) -> None:
    with Gallery(stored, templates_engine, key=KEY) as gallery:
        gallery.add("staff-of-the-door", template("new"), "new")
        crashed = shutil.copytree(stored, tmp_path / "crashed")
    assert (crashed / "gallery.db-wal").stat().st_size
    for key in (None, OTHER):
        with pytest.raises(WrongKey):
            Gallery(crashed, templates_engine, key=key)
    with Gallery(crashed, templates_engine, key=KEY) as gallery:
        assert gallery.search(template("new"))[0].user_id == "new"


def test_a_plain_gallery_takes_no_key(folder: Path, templates_engine: Any) -> None:
    fill(folder, templates_engine, None)
    before = contents(folder)
    for read_only in (False, True):
        with pytest.raises(WrongKey, match="is not encrypted") as caught:
            Gallery(folder, templates_engine, key=KEY, read_only=read_only)
        assert "facecore rekey" in caught.value.hint
    assert contents(folder) == before


def test_a_damaged_head_is_told_from_encryption(folder: Path, templates_engine: Any) -> None:
    fill(folder, templates_engine, None)
    data = bytearray((folder / "gallery.db").read_bytes())
    data[3] ^= 1
    (folder / "gallery.db").write_bytes(data)
    with pytest.raises(GalleryCorrupt):
        Gallery(folder, templates_engine)


def test_every_flipped_bit_is_noticed(stored: Path, templates_engine: Any) -> None:
    data = (stored / "gallery.db").read_bytes()
    rng, codes = random.Random(0), set()
    for page in range(len(data) // PAGE):
        damaged = bytearray(data)
        damaged[page * PAGE + rng.randrange(PAGE)] ^= 1 << rng.randrange(8)
        (stored / "gallery.db").write_bytes(damaged)
        with (
            pytest.raises((GalleryCorrupt, WrongKey)) as caught,
            Gallery(stored, templates_engine, key=KEY) as gallery,
        ):
            gallery.compact()
        codes.add(caught.value.code)
    assert codes == {"GalleryCorrupt", "WrongKey"}  # WrongKey for the first page


def pages_of_templates(folder: Path, engine: Any) -> list[int]:
    """Return the numbers, from 0, of the pages that reading a template needs."""
    data = (folder / "gallery.db").read_bytes()
    found = []
    for page in range(1, len(data) // PAGE):
        damaged = bytearray(data)
        damaged[page * PAGE + 100] ^= 1
        (folder / "gallery.db").write_bytes(damaged)
        try:
            with Gallery(folder, engine, key=KEY) as gallery:
                gallery.records(limit=1)
                list(gallery.templates())
        except FacecoreError:
            found.append(page)
    (folder / "gallery.db").write_bytes(data)
    return found


@pytest.mark.parametrize("from_other", [False, True], ids=["within", "other gallery, same key"])
def test_rows_cannot_be_exchanged(
    stored: Path, templates_engine: Any, tmp_path: Path, from_other: bool
) -> None:
    """A page is bound to its number and to its gallery."""
    pages = pages_of_templates(stored, templates_engine)[-2:]
    source = stored
    if from_other:
        source = tmp_path / "other.gallery"
        fill(source, templates_engine)
    data = bytearray((stored / "gallery.db").read_bytes())
    other = (source / "gallery.db").read_bytes()
    to, taken = (pages[0], pages[0]) if from_other else pages
    data[to * PAGE : (to + 1) * PAGE] = other[taken * PAGE : (taken + 1) * PAGE]
    (stored / "gallery.db").write_bytes(data)
    with (
        pytest.raises(GalleryCorrupt),
        Gallery(stored, templates_engine, key=KEY) as gallery,
    ):
        gallery.compact()


def test_the_same_content_is_encrypted_anew(templates_engine: Any, tmp_path: Path) -> None:
    """No two pages have the same IV, in two galleries and two states of each."""
    starts: set[bytes] = set()
    count = 0
    for name in ("a", "b"):
        fill(tmp_path / name, templates_engine)
        for _ in range(2):
            with Gallery(tmp_path / name, templates_engine, key=KEY) as gallery:
                gallery.compact()  # rewrites the templates
            data = (tmp_path / name / "gallery.db").read_bytes()
            # The IV of a page is 16 bytes in its reserved end.
            found = {data[at + PAGE - 80 : at + PAGE - 64] for at in range(0, len(data), PAGE)}
            assert len(found) == len(data) // PAGE
            new = found - starts
            count += len(new)
            starts |= found
    assert len(starts) == count > 20


def test_a_reader_beside_the_writer(stored: Path, templates_engine: Any) -> None:
    with (
        Gallery(stored, templates_engine, key=KEY) as writer,
        Gallery(stored, templates_engine, key=lambda: KEY.hex(), read_only=True) as reader,
    ):
        stop, wrong = threading.Event(), []

        def search() -> None:
            while not stop.is_set():
                best = reader.search(template(USERS[3]), limit=1)[0]
                if best.user_id != USERS[3]:
                    wrong.append(best)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(30):
            writer.add("staff-of-the-door", template(f"new-{number}"), f"new-{number}")
            assert reader.search(template(f"new-{number}"))[0].user_id == f"new-{number}"
            if number % 3 == 0:
                writer.remove("staff-of-the-door", user_id=f"new-{number}")
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(reader) == len(writer) == 60


def test_answers_are_those_of_a_plain_gallery(
    stored: Path, templates_engine: Any, tmp_path: Path
) -> None:
    fill(tmp_path / "plain", templates_engine, None)
    with (
        Gallery(stored, templates_engine, key=KEY) as encrypted,
        Gallery(tmp_path / "plain", templates_engine) as plain,
    ):
        for token in ("a", "b", USERS[5]):
            found, expected = (
                [(m.user_id, m.similarity, m.score) for m in g.search(template(token), limit=9)]
                for g in (encrypted, plain)
            )
            assert found == expected


@pytest.mark.parametrize(
    "key",
    [b"", b"short", KEY + b"x", "", "00" * 31, "0" * 63, "zz" * 32, 7, object(), lambda: "no"],
)
def test_what_is_no_key(folder: Path, templates_engine: Any, key: Any) -> None:
    with pytest.raises(InvalidParameter, match="the key is not 32 bytes") as caught:
        Gallery(folder, templates_engine, key=key)
    assert "openssl rand" in caught.value.hint
    assert not folder.exists()


@pytest.mark.parametrize(
    "key", [KEY, bytearray(KEY), KEY.hex(), KEY.hex().upper() + "\n", KEY.hex().encode() + b"\r\n"]
)
def test_forms_of_a_key(key: Any) -> None:
    assert as_key(key) == as_key(lambda: key) == KEY


def test_a_key_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "door.key"
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_key(path)
    path.write_text(KEY.hex() + "\n")
    path.chmod(0o600)
    assert read_key(path) == KEY
    path.write_bytes(KEY)
    assert read_key(path) == KEY
    path.write_bytes(b"7" * 10_000)
    with pytest.raises(InvalidParameter, match="is not 32 bytes"):
        read_key(path)
    if os.name == "posix":
        path.chmod(0o644)
        with pytest.raises(InvalidParameter, match="others can read the key"):
            read_key(path)


def test_the_key_is_in_no_text(
    stored: Path, templates_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Gallery(stored, templates_engine, key=KEY) as gallery:
        shown = repr(gallery)
    with pytest.raises(WrongKey) as caught:
        Gallery(stored, templates_engine, key=OTHER)
    texts = shown + str(caught.getrepr(showlocals=False)) + caplog.text
    for key in (KEY, OTHER):
        assert key.hex() not in texts
        assert repr(key) not in texts


def test_milvus_takes_no_key(templates_engine: Any) -> None:
    with pytest.raises(InvalidParameter, match="Milvus gallery takes no key"):
        Gallery("milvus+http://localhost:1", templates_engine, key=KEY)


def test_without_the_extra(
    folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlcipher3.dbapi2", None)
    with pytest.raises(MissingExtra, match=r"facecore\[encryption\]"):
        Gallery(folder, templates_engine, key=KEY)
    assert not folder.exists()
