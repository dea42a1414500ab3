"""After a removal, no file of the folder holds the template in any form."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import Gallery, GalleryCorrupt, GalleryNotWritable
from facecore.gallery.index.idmap import IdMap
from facecore.gallery.sqlite import hnsw_builder, saved_index, store
from facecore.gallery.sqlite.index_sync import ChangeBatch, IndexSync

pytestmark = pytest.mark.usefixtures("no_sync")


def forms(token: str) -> list[bytes]:
    """Return parts of a template, because pages may split a row."""
    data = template(token).tobytes()
    return [data[:24], data[200:224], data[-24:]]


def held(folder: Path, tokens: list[str]) -> list[str]:
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return [token for token in tokens if any(form in files for form in forms(token))]


def add(gallery: Gallery, tokens: list[str], group: str = "staff") -> None:
    vectors = np.stack([template(token) for token in tokens])
    gallery.add_templates(group, vectors, tokens, contract=gallery.contract_id)


def test_a_saved_template_can_be_seen(filled: Gallery, folder: Path) -> None:
    """The tests below search for bytes that a saved gallery really holds."""
    add(filled, ["t"])
    filled.close()
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert all(form in files for form in forms("t"))


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_removed_templates_are_gone(
    folder: Path, templates_engine: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fill and empty pages, because SQLite alone leaves copies in merged pages."""
    for module in (saved_index, hnsw_builder):
        monkeypatch.setattr(module, "WORTHWHILE", 1)
    with Gallery(folder, templates_engine, index=index) as gallery:
        gallery.create_group("staff")
        check_removals(gallery, folder, 0 if index == "exact" else 1)


def check_removals(filled: Gallery, folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    live: list[str] = []
    gone: list[str] = []
    for step in range(40):
        if rng.random() < 0.5 or len(live) < 30:
            new = [f"{seed}-{step}-{i}" for i in range(rng.randrange(1, 80))]
            add(filled, new)
            live += new
        else:
            start = rng.randrange(len(live))
            now = live[start : start + rng.randrange(1, 20)]
            for token in now:
                filled.remove("staff", user_id=token)
                live.remove(token)
            assert held(folder, now) == []
            gone += now
        if rng.random() < 0.1:
            filled.compact()
    assert held(folder, gone) == []
    assert held(folder, live) == live
    assert filled.delete_group("staff") == len(live)
    assert held(folder, live + gone) == []


def test_a_reader_may_hold_an_erasure_up(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(store, "_ERASURE_PATIENCE", 10)
    add(filled, ["t", "other"])
    with Gallery(folder, templates_engine, read_only=True) as reader:
        with reader._backend._store.snapshot() as snapshot:  # type: ignore[attr-defined]
            assert snapshot.size() == 2
            assert filled.remove("staff", user_id="t") == 1
            assert filled.stats().erasure_pending
            assert "another process is reading" in caplog.text
            assert held(folder, ["t"]) == ["t"]
        assert [match.user_id for match in reader.search(template("t"))] == ["other"]
        filled.create_group("any change tries again")
        assert not filled.stats().erasure_pending
        assert held(folder, ["t"]) == []


def test_a_log_that_cannot_be_emptied_does_not_undo_the_removal(
    filled: Gallery, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The change is committed, so an error would be wrong."""
    add(filled, ["t", "other"])
    inner = filled._backend._store  # type: ignore[attr-defined]
    plain = inner._writer

    class Failing:
        def execute(self, statement: str, *values: object) -> object:
            if "wal_checkpoint" in statement:
                raise sqlite3.OperationalError("disk I/O error")
            return plain.execute(statement, *values)

        def __getattr__(self, name: str) -> object:
            return getattr(plain, name)

    inner._writer = Failing()
    assert filled.remove("staff", user_id="t") == 1
    assert filled.stats().erasure_pending
    assert "disk I/O error" in caplog.text
    inner._writer = plain
    assert filled.remove("staff", user_id="t") == 0
    assert not filled.stats().erasure_pending
    assert held(folder, ["t"]) == []


def test_compacting_frees_space(filled: Gallery, folder: Path) -> None:
    tokens = [f"t{i}" for i in range(3000)]
    add(filled, tokens)
    for start in range(0, 2900, 100):
        for token in tokens[start : start + 100 : 50]:
            filled.remove("staff", user_id=token)
    filled.delete_group("visitors")
    add(filled, ["more"])
    assert filled.stats().removed == 58
    before = filled.stats().store_bytes
    filled.create_group("visitors")
    filled.delete_group("staff")
    filled.compact()
    after = filled.stats()
    assert (after.faces, after.removed) == (0, 0)
    assert after.store_bytes < before / 10


@pytest.mark.parametrize("error", [GalleryCorrupt, GalleryNotWritable, MemoryError])
def test_an_index_that_cannot_follow_does_not_undo_the_removal(
    filled: Gallery,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    """The removal is done once, the files are erased, and the next search builds the index."""
    add(filled, ["t", "other"])
    assert len(filled.search(template("t"))) == 2

    def fail(*_: object, **__: object) -> None:
        raise error("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(IndexSync, "follow", fail)
        assert filled.remove("staff", user_id="t") == 1
    assert "builds the index again" in caplog.text
    assert not filled.stats().erasure_pending
    assert held(folder, ["t"]) == []
    assert filled.stats().index == ""
    assert [match.user_id for match in filled.search(template("t"))] == ["other"]


@pytest.mark.parametrize("step", [(IndexSync, "follow"), (IdMap, "put")])
def test_an_interrupted_removal_is_erased(
    filled: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    """Applying half a change of the index twice would remove the other face too."""
    add(filled, ["t", "other"])
    filled.search(template("t"))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            filled.remove("staff", user_id="t")
    assert held(folder, ["t"]) == []
    assert [match.user_id for match in filled.search(template("t"))] == ["other"]


def test_an_error_while_reading_keeps_the_index(
    filled: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One damaged face must not force a reread of a million faces."""
    add(filled, ["t"])
    filled.search(template("t"))
    kept = filled._backend._exact  # type: ignore[attr-defined]

    def fail(*_: object) -> None:
        raise GalleryCorrupt("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(ChangeBatch, "read", fail)
        add(filled, ["other"])
        with pytest.raises(GalleryCorrupt):
            filled.search(template("t"))
    assert {match.user_id for match in filled.search(template("t"))} == {"t", "other"}
    assert filled._backend._exact is kept  # type: ignore[attr-defined]
