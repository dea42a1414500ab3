"""Opening a gallery reuses, repairs or rebuilds its saved index."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template

from facecore import Gallery
from facecore._utils import atomic_files
from facecore.gallery.index import HnswIndex, generations
from facecore.gallery.sqlite import hnsw_builder, saved_index
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.store import Store

pytestmark = pytest.mark.usefixtures("no_sync", "small")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the index of the smallest gallery."""
    for module in (saved_index, hnsw_builder):
        monkeypatch.setattr(module, "WORTHWHILE", 1)


def add(gallery: Gallery, start: int, stop: int) -> None:
    tokens = [f"t{i}" for i in range(start, stop)]
    vectors = np.stack([template(token) for token in tokens])
    gallery.add_templates("staff", vectors, tokens, contract=gallery.contract_id)


def finds(gallery: Gallery, *numbers: int) -> bool:
    return all(gallery.search(template(f"t{i}"), limit=1)[0].user_id == f"t{i}" for i in numbers)


@pytest.fixture
def saved(filled: Gallery, folder: Path, templates_engine: Any) -> Path:
    """Return the folder of a gallery of 100 faces with a saved HNSW index."""
    add(filled, 0, 100)
    filled.close()
    with Gallery(folder, templates_engine, index="hnsw") as gallery:
        assert finds(gallery, 0)
        gallery.compact()
    assert generations.numbers(folder / "index" / "hnsw")
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many rows each update of the HNSW index reads from the store."""
    counts: list[int] = []
    plain = IndexSync.take

    def take(self: IndexSync[Any], batch: Any) -> None:
        if isinstance(self.index, HnswIndex):
            counts.append(len(batch.ids))
        plain(self, batch)

    monkeypatch.setattr(IndexSync, "take", take)
    return counts


@contextlib.contextmanager
def opened(folder: Path, engine: Any) -> Iterator[Gallery]:
    """Open the gallery and bring its HNSW index up to date."""
    with Gallery(folder, engine, index="hnsw") as gallery:
        assert finds(gallery, 0)
        hnsw = gallery._backend._hnsw  # type: ignore[attr-defined]
        hnsw.finish()
        assert gallery.stats().index == "hnsw"
        yield gallery


def test_only_what_came_later_is_read(
    saved: Path, templates_engine: Any, loads: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with Gallery(saved, templates_engine) as gallery:
        add(gallery, 100, 107)
    with opened(saved, templates_engine) as gallery:
        assert finds(gallery, 0, 99, 100, 106)
    assert sum(loads) == 7
    assert caplog.text == ""


def damage_nothing_there(root: Path) -> None:
    shutil.rmtree(root)


def damage_manifest(root: Path) -> None:
    next(root.rglob("manifest.json")).write_bytes(b"{}")


def damage_types(root: Path) -> None:
    """Write a wrong manifest with a correct hash."""
    path = next(root.rglob("manifest.json"))
    manifest = json.loads(path.read_bytes())
    manifest["generation"]["rows"] = None
    manifest["generation"]["watermark"]["face"] = 2**70
    path.write_bytes(generations._sealed(manifest))


def damage_a_bit(root: Path) -> None:
    path = next(root.rglob("vectors.f4"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_length(root: Path) -> None:
    path = next(root.rglob("ids.i8"))
    path.write_bytes(path.read_bytes()[:-8])


def foreign(root: Path) -> None:
    """Replace the index by that of another gallery with the same pack, size and ids."""
    other = root.parents[2] / "other"
    from templates import TemplateEngine

    engine: Any = TemplateEngine()
    with Gallery(other, engine, index="hnsw") as gallery:
        gallery.create_group("staff")
        add(gallery, 1000, 1100)
        gallery.compact()
    shutil.rmtree(root)
    shutil.copytree(other / "index" / "hnsw", root)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (damage_nothing_there, None),
        (damage_manifest, ""),
        (damage_types, "the faces in the store have changed"),
        (damage_a_bit, "vectors.f4 is damaged"),
        (damage_length, "ids.i8 has 792 bytes, not 800"),
        (foreign, "the faces in the store have changed"),
    ],
)
def test_a_bad_index_is_built_again(
    saved: Path,
    templates_engine: Any,
    loads: list[int],
    damage: Callable[[Path], None],
    why: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(saved / "index" / "hnsw")
    loads.clear()
    with opened(saved, templates_engine) as gallery:
        assert finds(gallery, 0, 50, 99)
    assert sum(loads) == 100
    if why is None:  # as after a crash that followed a removal: no reason for a warning
        assert caplog.text == ""
    else:
        assert f"the saved index is not used: {why}" in caplog.text.replace("000001: ", "")
    caplog.clear()
    loads.clear()
    with opened(saved, templates_engine) as gallery:
        assert finds(gallery, 0, 99)
    assert loads == []
    assert caplog.text == ""


def test_a_restored_backup_of_the_database_is_not_mistaken(
    saved: Path, templates_engine: Any, tmp_path: Path
) -> None:
    """An index of another history, with as many faces and the same ids, is not used."""
    shutil.copy(saved / "gallery.db", tmp_path / "backup.db")
    with opened(saved, templates_engine) as gallery:
        add(gallery, 100, 150)
        gallery.compact()
    shutil.copy(tmp_path / "backup.db", saved / "gallery.db")
    with Gallery(saved, templates_engine) as gallery:
        add(gallery, 200, 250)
    with opened(saved, templates_engine) as gallery:
        assert finds(gallery, 0, 99, 200, 249)
        assert len(gallery.search(template("t120"), limit=1000)) == 150
        assert gallery.search(template("t120"), limit=1)[0].user_id != "t120"


def test_a_removal_discards_what_was_saved(saved: Path, templates_engine: Any) -> None:
    root = saved / "index" / "hnsw"
    with opened(saved, templates_engine) as gallery:
        generation = generations.numbers(root)
        add(gallery, 100, 110)
        gallery.remove("staff", user_id="t105")  # not in the saved index, which stays
        assert generations.numbers(root) == generation
        gallery.remove("staff", user_id="t7")
        assert list(root.iterdir()) == []
        assert finds(gallery, 0, 8, 109)
    with opened(saved, templates_engine) as gallery:
        assert finds(gallery, 0, 8, 109)
        assert len(gallery.search(template("t7"), limit=1000)) == 108


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_a_saved_exact_index_of_an_older_version_is_deleted(
    saved: Path, templates_engine: Any, index: Any
) -> None:
    generation = saved / "index" / "exact" / "000001"
    generation.mkdir(parents=True)
    (generation / "vectors.npy").write_bytes(template("t7").tobytes())
    Gallery(saved, templates_engine, read_only=True).close()
    assert generation.exists()  # only the writer changes the folder
    with Gallery(saved, templates_engine, index=index) as gallery:
        assert not (saved / "index" / "exact").exists()
        assert finds(gallery, 0, 99)


def held(folder: Path, token: str) -> bool:
    vector = template(token)
    return vector.tobytes() in b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_an_index_that_cannot_be_discarded_is_discarded_later(
    saved: Path,
    templates_engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The removal succeeds; `stats` and the log report what is left."""

    def in_use(*args: object) -> None:
        raise PermissionError("in use")

    with Gallery(saved, templates_engine) as gallery:
        with monkeypatch.context() as failing:
            failing.setattr(shutil, "rmtree", in_use)
            assert gallery.remove("staff", user_id="t7") == 1
        assert gallery.stats().erasure_pending
        assert "may keep removed templates for now" in caplog.text
        assert held(saved, "t7")
        gallery.create_group("any change tries again")
        assert not gallery.stats().erasure_pending
        assert not held(saved, "t7")


CRASHES: dict[str, tuple[Any, str, bool]] = {
    "before the commit": (Store, "change", False),
    "before the log is emptied": (Store, "erase", True),
    "before the saved index goes": (saved_index.SavedIndex, "discard_faces", True),
    "while the saved index goes": (shutil, "rmtree", True),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_in_a_removal(
    saved: Path,
    templates_engine: Any,
    tmp_path: Path,
    crash: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of the files at some point of a removal is what a crash there leaves."""
    owner, name, gone = CRASHES[crash]
    plain, copy = getattr(owner, name), tmp_path / "copy"

    def crashing(*args: Any, **options: Any) -> Any:
        if not copy.exists():
            shutil.copytree(saved, copy)
        return plain(*args, **options)

    with Gallery(saved, templates_engine) as gallery:
        assert finds(gallery, 7)
        monkeypatch.setattr(owner, name, crashing)
        gallery.remove("staff", user_id="t7")
    monkeypatch.undo()
    assert held(copy, "t7")  # nothing can be erased before that
    with Gallery(copy, templates_engine) as gallery:
        assert held(copy, "t7") != gone
        assert len(gallery) == 100 - gone
        assert finds(gallery, 0, 8, 99)
        assert len(gallery.search(template("t7"), limit=200)) == 100 - gone


@pytest.mark.parametrize("point", ["index.save", "rename", "older ones removed"])
def test_a_crash_while_the_index_is_saved(
    saved: Path,
    templates_engine: Any,
    tmp_path: Path,
    point: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = tmp_path / "copy"
    owner: Any
    owner, name = {
        "index.save": (generations, "_write_manifest"),
        "rename": (atomic_files, "sync"),
        "older ones removed": (generations, "_remove"),
    }[point]
    plain = getattr(owner, name)

    def crashing(*args: Any) -> Any:
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(saved, copy)
        return plain(*args)

    with opened(saved, templates_engine) as gallery:
        add(gallery, 100, 120)  # too few to save them at once
        monkeypatch.setattr(owner, name, crashing)
        gallery.compact()
    monkeypatch.setattr(owner, name, plain)
    assert copy.exists()
    with opened(copy, templates_engine) as gallery:
        assert finds(gallery, 0, 99, 100, 119)
        gallery.remove("staff", user_id="t3")
        assert not held(copy, "t3")


def test_a_bar_is_shown_where_it_was_asked_for(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("facecore.gallery.sqlite.index_sync._LONG", 50)
    add(filled, 0, 100)
    filled.close()
    for progress in (False, True):
        with Gallery(folder, templates_engine, read_only=True, progress=progress) as gallery:
            assert finds(gallery, 3)
        assert ("building the index: 100%" in capsys.readouterr().err) == progress


def test_an_index_that_cannot_be_saved_is_only_a_warning(
    filled: Gallery, folder: Path, templates_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    add(filled, 0, 10)
    filled.close()
    (folder / "index").write_bytes(b"in the way")
    with caplog.at_level(logging.WARNING), opened(folder, templates_engine):
        pass
    assert "the index was not saved" in caplog.text
    (folder / "index").unlink()
    with opened(folder, templates_engine) as gallery:
        assert finds(gallery, 0, 9)


def test_what_cannot_be_cleaned_does_not_keep_a_gallery_shut(
    saved: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_manifest(saved / "index" / "hnsw")

    def in_use(*args: object) -> None:
        raise PermissionError("in use")

    with monkeypatch.context() as failing:
        failing.setattr(shutil, "rmtree", in_use)
        gallery = Gallery(saved, templates_engine)
    with gallery:
        assert finds(gallery, 7)
        assert gallery.stats().erasure_pending
        gallery.create_group("any change tries again")
        assert not gallery.stats().erasure_pending
    with Gallery(saved, templates_engine) as gallery:
        assert finds(gallery, 7)
