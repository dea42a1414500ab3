"""A search asks the database once for its state and groups, and once for the faces."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import DIMENSION, unit

from facecore import Gallery, GroupNotFound
from facecore.gallery import rekey
from facecore.gallery.sqlite import connection


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record every SQL statement of the galleries that the test opens."""
    found: list[str] = []
    opened = connection.Database._open

    def traced(self: connection.Database, options: str) -> sqlite3.Connection:
        made = opened(self, options)
        made.set_trace_callback(found.append)
        return made

    monkeypatch.setattr(connection.Database, "_open", traced)
    return found


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize(
    "arguments",
    [{}, {"groups": "staff"}, {"far": 0.5}, {"groups": ["staff", "visitors"], "far": 0.5}],
    ids=str,
)
def test_a_search_is_one_snapshot_and_two_questions(
    statements: list[str], folder: Path, templates_engine: Any, arguments: dict[str, Any]
) -> None:
    vectors = unit(np.random.default_rng(5).normal(size=(60, DIMENSION)))
    with Gallery(folder, templates_engine) as gallery:
        for name, some in (("staff", vectors[:40]), ("visitors", vectors[40:])):
            gallery.create_group(name)
            list(gallery.add_many(name, ((v, f"u{i}") for i, v in enumerate(some))))
        gallery.search(vectors[3], **arguments)  # builds the index
        statements.clear()
        (match, *_) = gallery.search(vectors[3], **arguments)
        assert (match.group, match.user_id) == ("staff", "u3")
        assert [text.split()[0] for text in statements] == ["BEGIN", "SELECT", "SELECT", "ROLLBACK"]


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("key", [None, bytes(32)], ids=["plain", "encrypted"])
def test_an_old_sqlite_knows_the_table_of_tables(
    statements: list[str], folder: Path, templates_engine: Any, key: bytes | None
) -> None:
    """SQLite calls it sqlite_schema too, but only since version 3.33."""
    if key:
        pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    with Gallery(folder, templates_engine, key=key) as gallery:
        store = gallery._backend._store  # type: ignore[attr-defined]
        assert not store._database.lacks_columns()
    if key:
        rekey(folder, key=key)
    assert any("sqlite_master" in text for text in statements)
    assert not any("sqlite_schema" in text for text in statements)


@pytest.mark.usefixtures("no_sync")
def test_groups_are_found_by_exact_names(folder: Path, templates_engine: Any) -> None:
    names = ["faces", "removals", "a'b", 'a"b', "ä, ö", "\U0001f600"]  # two are also counters
    vectors = unit(np.random.default_rng(6).normal(size=(len(names), DIMENSION)))
    with Gallery(folder, templates_engine) as gallery:
        for name, vector in zip(names, vectors, strict=True):
            gallery.create_group(name)
            gallery.add(name, vector, "u")
        for name, vector in zip(names, vectors, strict=True):
            assert [m.group for m in gallery.search(vector, name)] == [name]
        assert {m.group for m in gallery.search(vectors[0], names, limit=9)} == set(names)
        with pytest.raises(GroupNotFound, match="'Faces'"):
            gallery.search(vectors[0], ["faces", "Faces"])
