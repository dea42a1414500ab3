"""Data that the disk changed is never returned as an answer."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import Gallery, GalleryCorrupt, GalleryLocked
from facecore.errors import FacecoreError
from facecore.gallery.sqlite import digests
from facecore.gallery.sqlite.schema import MIGRATIONS

pytestmark = pytest.mark.usefixtures("no_sync")

USERS = [f"user-{i:03d}" for i in range(40)]


@pytest.fixture
def stored(folder: Path, templates_engine: Any) -> Path:
    """A closed gallery with one face per user."""
    with Gallery(folder, templates_engine) as gallery:
        gallery.create_group("staff")
        gallery.create_group("visitors")
        vectors = np.stack([template(user) for user in USERS])
        gallery.add_templates("staff", vectors, USERS, contract=gallery.contract_id)
    return folder


def run(folder: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "gallery.db")) as db, db:
        for statement in statements:
            db.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE templates SET vector = (SELECT vector FROM templates WHERE id = 9) WHERE id = 8",
        "UPDATE faces SET user_id = 'user-020' WHERE id = 8",
        "UPDATE faces SET group_id = 2 WHERE id = 8",
        "UPDATE faces SET group_id = 77 WHERE id = 8",
        "UPDATE faces SET face_id = randomblob(16) WHERE id = 8",
        "UPDATE faces SET origin = 'AUTO' WHERE id = 8",
        "UPDATE faces SET quality = 99 WHERE id = 8",
        "UPDATE faces SET quality = 'high' WHERE id = 8",
        "UPDATE faces SET created = created + 1 WHERE id = 8",
        "UPDATE faces SET digest = NULL WHERE id = 8",
        "UPDATE faces SET user_id = CAST(x'ff41' AS TEXT) WHERE id = 8",
        "DELETE FROM templates WHERE id = 8",
    ],
)
def test_a_changed_face_is_named(stored: Path, templates_engine: Any, change: str) -> None:
    with Gallery(stored, templates_engine) as gallery:
        face_id = gallery.record_by_id(8).face_id
        assert gallery.search(template(USERS[7]))[0].user_id == USERS[7]  # an index in memory
        run(stored, change)
        named = "[0-9a-f]{32}" if "face_id =" in change else face_id
        wrong = rf"{named}.* is damaged.*backup, or remove the face"
        if "vector" not in change and "DELETE" not in change:  # the index holds the old vector
            with pytest.raises(GalleryCorrupt, match=wrong):
                gallery.search(template(USERS[7]))
        with pytest.raises(GalleryCorrupt, match=wrong):
            gallery.record_by_id(8)
        with pytest.raises(GalleryCorrupt, match=wrong):
            gallery.records(limit=1000)
        with pytest.raises(GalleryCorrupt, match=wrong):
            list(gallery.templates())
        with pytest.raises(GalleryCorrupt, match=rf"damaged faces \(1\): {named}"):
            gallery.compact()
        assert gallery.search(template(USERS[30]), limit=1)[0].user_id == USERS[30]


def test_a_quality_of_minus_zero(stored: Path, templates_engine: Any) -> None:
    """SQLite stores it as 0.0, so its digest must be that of 0.0."""
    with Gallery(stored, templates_engine) as gallery:
        vectors, contract = template("new")[None], gallery.contract_id
        gallery.add_templates("staff", vectors, ["new"], contract=contract, quality=[-0.0])
        assert gallery.search(template("new"), limit=1)[0].user_id == "new"


def test_no_flipped_bit_is_served(stored: Path, templates_engine: Any) -> None:
    """After any flipped bit, answers equal the stored data or raise a typed error."""
    path, rng = stored / "gallery.db", random.Random(15)
    whole = path.read_bytes()
    served, noticed, codes = 0, 0, set()
    for _ in range(60):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        for name in ("gallery.db-wal", "gallery.db-shm"):
            (stored / name).unlink(missing_ok=True)
        try:
            with Gallery(stored, templates_engine, read_only=True) as gallery:
                gallery.groups(), gallery.stats(), gallery.users_groups(USERS[3])
                for _ in range(2):
                    for user in USERS[::4]:
                        match = gallery.search(template(user), limit=1)[0]
                        assert match.similarity < 0.9 or match.user_id == user
                for records, vectors in gallery.templates():
                    for record, vector in zip(records, vectors, strict=True):
                        assert np.array_equal(vector, template(record.user_id))
                        assert record.group == "staff"
                        assert record.quality is None
            served += 1
        except FacecoreError as error:
            noticed += 1
            codes.add(error.code)
    assert codes <= {"GalleryCorrupt", "InvalidParameter", "ContractMismatch"}
    assert served > 5  # flips in the free space of pages
    assert noticed > 5


def test_the_key_is_checked(stored: Path, templates_engine: Any) -> None:
    for value in ("''", "'zz'", "replace(value, 'a', 'b')", "substr(value, 1, 64)", "x'00'"):
        copy = stored.with_name("copy")
        shutil.copytree(stored, copy)
        run(copy, f"UPDATE meta SET value = {value} WHERE key = '{digests.KEY}'")
        for read_only in (False, True):
            with pytest.raises(GalleryCorrupt, match="key of its digests is damaged"):
                Gallery(copy, templates_engine, read_only=read_only)
        shutil.rmtree(copy)


def test_two_galleries_have_two_keys(stored: Path, tmp_path: Path, templates_engine: Any) -> None:
    Gallery(tmp_path / "other", templates_engine).close()
    keys = set()
    for folder in (stored, tmp_path / "other"):
        with contextlib.closing(sqlite3.connect(folder / "gallery.db")) as db:
            keys.add(db.execute("SELECT value FROM meta WHERE key = 'digest_key'").fetchone()[0])
    assert len(keys) == 2


def test_a_gallery_without_digests_gets_them(
    stored: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gallery of the first schema is readable; opening it for writing adds the digests."""
    run(
        stored,
        "ALTER TABLE faces DROP COLUMN digest",
        "DELETE FROM meta WHERE key = 'digest_key'",
        "PRAGMA user_version = 1",
    )
    assert len(MIGRATIONS) == 2
    with Gallery(stored, templates_engine, read_only=True) as reader:
        assert reader.records(limit=1)[0].user_id == USERS[0]
        with pytest.raises(GalleryLocked):  # and not GalleryCorrupt
            reader.compact()
        with monkeypatch.context() as patch:  # an interruption changes nothing
            patch.setattr(digests, "new_key", lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                Gallery(stored, templates_engine)
        with Gallery(stored, templates_engine) as gallery:
            gallery.compact()
            gallery.add("visitors", template("new"), "new")
            assert reader.search(template("new"), limit=1)[0].user_id == "new"
            assert gallery.search(template(USERS[5]), limit=1)[0].user_id == USERS[5]
    run(stored, "UPDATE faces SET user_id = 'user-020' WHERE id = 8")
    with (
        Gallery(stored, templates_engine, read_only=True) as reader,
        pytest.raises(GalleryCorrupt, match="id 8"),
    ):
        reader.search(template(USERS[7]))


@pytest.mark.parametrize("what", [template(USERS[7]).tobytes(), USERS[7].encode()])
def test_the_way_back(stored: Path, templates_engine: Any, what: bytes) -> None:
    """A damaged face can be removed by its id and added again."""
    data = (stored / "gallery.db").read_bytes()
    # Damage the row, or the index by user.
    for at in {data.index(what) + len(what) - 1, data.rindex(what) + len(what) - 1}:
        with Gallery(stored, templates_engine) as gallery:
            face_id = gallery.record_by_id(8).face_id if len(gallery) == 40 else ""
        flipped = bytearray(data)
        flipped[at] ^= 1
        (stored / "gallery.db").write_bytes(flipped)
        with Gallery(stored, templates_engine) as gallery:
            with pytest.raises(GalleryCorrupt):
                gallery.compact()
            assert gallery.remove("staff", face_id=face_id) == 1
            gallery.add("staff", template(USERS[7]), USERS[7])
            gallery.compact()
            assert gallery.search(template(USERS[7]), limit=1)[0].user_id == USERS[7]
        (stored / "gallery.db").write_bytes(data)
