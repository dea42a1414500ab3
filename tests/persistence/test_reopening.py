"""What an opening finds, believes, repairs and builds anew."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._templates import template
from facecore import Gallery
from facecore.gallery.index import generations
from facecore.gallery.sqlite import hnsw_builder, index_manager, saved_index
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.store import Store
from facecore.matching.similarity import encode

pytestmark = pytest.mark.usefixtures("no_sync", "small")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the index of the smallest gallery."""
    for module in (saved_index, index_manager, hnsw_builder):
        monkeypatch.setattr(module, "WORTHWHILE", 1)


def add(gallery: Gallery, start: int, stop: int) -> None:
    tokens = [f"t{i}" for i in range(start, stop)]
    vectors = np.stack([template(token) for token in tokens])
    gallery.add_templates("staff", vectors, tokens, contract=gallery.contract_id)


def finds(gallery: Gallery, *numbers: int) -> bool:
    return all(gallery.search(template(f"t{i}"), limit=1)[0].user_id == f"t{i}" for i in numbers)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that were read from the store to make or follow an index, at each look."""
    counts: list[int] = []
    plain = IndexSync.take

    def take(self: IndexSync, batch: Any) -> None:
        counts.append(len(batch.ids))
        plain(self, batch)

    monkeypatch.setattr(IndexSync, "take", take)
    return counts


@pytest.mark.parametrize("read_only", [False, True])
def test_only_what_came_later_is_read(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    loads: list[int],
    read_only: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(filled, 0, 100)
    filled.close()
    assert list((folder / "index" / "exact").iterdir())
    monkeypatch.setattr(index_manager, "WORTHWHILE", 10**9)  # this one saves nothing
    with Gallery(folder, templates_engine) as gallery:
        add(gallery, 100, 107)
    loads.clear()
    with Gallery(folder, templates_engine, read_only=read_only) as gallery:
        assert finds(gallery, 0, 99, 100, 106)
    assert loads == [7]
    assert caplog.text == ""


def damage_nothing_there(root: Path) -> None:
    shutil.rmtree(root)


def damage_manifest(root: Path) -> None:
    next(root.rglob("manifest.json")).write_bytes(b"{}")


def damage_a_bit(root: Path) -> None:
    path = next(root.rglob("values.npy"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_length(root: Path) -> None:
    path = next(root.rglob("ids.npy"))
    path.write_bytes(path.read_bytes()[:-8])


def foreign(root: Path) -> None:
    """The index of another gallery of the same pack, size and ids."""
    other = root.parents[2] / "other"
    from benchmarks._templates import TemplateEngine

    engine: Any = TemplateEngine()
    with Gallery(other, engine) as gallery:
        gallery.create_group("staff")
        add(gallery, 1000, 1100)
    shutil.rmtree(root)
    shutil.copytree(other / "index" / "exact", root)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (damage_nothing_there, None),
        (damage_manifest, ""),
        (damage_a_bit, "values.npy is damaged"),
        (damage_length, "ids.npy has 920 bytes of 928"),
        (foreign, "the store does not hold the same faces"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_bad_index_is_made_anew(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    loads: list[int],
    read_only: bool,
    damage: Callable[[Path], None],
    why: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(filled, 0, 100)
    filled.close()
    damage(folder / "index" / "exact")
    loads.clear()
    with Gallery(folder, templates_engine, read_only=read_only) as gallery:
        assert finds(gallery, 0, 50, 99)
    assert loads == [100]
    if why is None:  # as after a crash that followed a removal: no reason for a warning
        assert caplog.text == ""
    else:
        assert f"the saved index is not used: {why}" in caplog.text.replace("000001: ", "")
    caplog.clear()
    if not read_only:
        loads.clear()
        with Gallery(folder, templates_engine) as gallery:
            assert finds(gallery, 0, 99)
        assert loads == []
        assert caplog.text == ""


def test_a_restored_backup_of_the_database_is_not_mistaken(
    filled: Gallery, folder: Path, templates_engine: Any, tmp_path: Path
) -> None:
    """The index of another history, of as many faces with the same ids, is not believed."""
    add(filled, 0, 50)
    filled.close()
    shutil.copy(folder / "gallery.db", tmp_path / "backup.db")
    with Gallery(folder, templates_engine) as gallery:
        add(gallery, 50, 100)
    shutil.copy(tmp_path / "backup.db", folder / "gallery.db")
    with Gallery(folder, templates_engine) as gallery:
        add(gallery, 200, 250)
        assert finds(gallery, 0, 49, 200, 249)
        assert len(gallery.search(template("t60"), limit=1000)) == 100
        assert gallery.search(template("t60"), limit=1)[0].user_id != "t60"


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_a_removal_discards_what_was_saved(
    filled: Gallery, folder: Path, templates_engine: Any, index: Any
) -> None:
    add(filled, 0, 100)
    filled.close()
    with Gallery(folder, templates_engine, index=index) as gallery:
        gallery.compact()
        assert gallery.stats().index == index
        generation = [path.name for path in (folder / "index" / index).iterdir()]
        assert len(generation) == 1
        add(gallery, 100, 110)
        gallery.remove("staff", user_id="t105")  # it came after the saving: no reason to discard
        assert [path.name for path in (folder / "index" / index).iterdir()] == generation
        gallery.remove("staff", user_id="t7")
        assert list((folder / "index" / index).iterdir()) == []
        assert finds(gallery, 0, 8, 109)
    with Gallery(folder, templates_engine, index=index) as gallery:
        assert finds(gallery, 0, 8, 109)
        assert len(gallery.search(template("t7"), limit=1000)) == 108


def test_an_index_that_cannot_be_discarded_is_discarded_later(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The removal is done, so it does not look as if it had failed; what is left is told."""
    add(filled, 0, 100)
    filled.close()

    def in_use(*args: object) -> None:
        raise PermissionError("in use")

    with Gallery(folder, templates_engine) as gallery:
        with monkeypatch.context() as failing:
            failing.setattr(shutil, "rmtree", in_use)
            assert gallery.remove("staff", user_id="t7") == 1
        assert gallery.stats().erasure_pending
        assert "removed templates may stay for now" in caplog.text
        assert held(folder, "t7")
        gallery.create_group("any change tries again")
        assert not gallery.stats().erasure_pending
        assert not held(folder, "t7")


def held(folder: Path, token: str) -> bool:
    vector = template(token)
    code = encode(vector[None]).values.tobytes()[: len(vector)]
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return vector.tobytes() in files or code in files


CRASHES: dict[str, tuple[Any, str, bool]] = {
    "before the commit": (Store, "change", False),
    "before the log is emptied": (Store, "erase", True),
    "before the saved index goes": (saved_index.SavedIndex, "forget", True),
    "while the saved index goes": (shutil, "rmtree", True),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_in_a_removal(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    tmp_path: Path,
    crash: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The files as they are at some point of a removal are what a crash there leaves."""
    add(filled, 0, 100)
    filled.close()
    owner, name, gone = CRASHES[crash]
    plain, copy = getattr(owner, name), tmp_path / "copy"

    def crashing(*args: Any, **options: Any) -> Any:
        if not copy.exists():
            shutil.copytree(folder, copy)
        return plain(*args, **options)

    with Gallery(folder, templates_engine) as gallery:
        assert finds(gallery, 7)
        monkeypatch.setattr(owner, name, crashing)
        gallery.remove("staff", user_id="t7")
    monkeypatch.undo()
    assert copy.exists()
    vector = template("t7")
    forms = [vector.tobytes(), encode(vector[None]).values.tobytes()[: len(vector)]]
    with Gallery(copy, templates_engine) as gallery:
        files = b"".join(path.read_bytes() for path in copy.rglob("*") if path.is_file())
        assert [form in files for form in forms] == [not gone, not gone]
        assert len(gallery) == 100 - gone
        assert finds(gallery, 0, 8, 99)
        assert len(gallery.search(vector, limit=200)) == 100 - gone


@pytest.mark.parametrize("point", ["index.save", "rename", "older ones removed"])
def test_a_crash_while_the_index_is_saved(
    filled: Gallery,
    folder: Path,
    templates_engine: Any,
    tmp_path: Path,
    point: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(filled, 0, 100)
    filled.close()
    copy = tmp_path / "copy"
    owner: Any
    owner, name = {
        "index.save": (generations, "_write_manifest"),
        "rename": (generations, "_sync"),
        "older ones removed": (generations, "_remove"),
    }[point]
    plain = getattr(owner, name)

    def crashing(*args: Any) -> Any:
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(folder, copy)
        return plain(*args)

    with Gallery(folder, templates_engine) as gallery:
        add(gallery, 100, 200)
        monkeypatch.setattr(owner, name, crashing)
    monkeypatch.setattr(owner, name, plain)
    with Gallery(copy, templates_engine) as gallery:
        assert finds(gallery, 0, 99, 100, 199)
        gallery.remove("staff", user_id="t3")
        vector = template("t3")
        files = b"".join(path.read_bytes() for path in copy.rglob("*") if path.is_file())
        assert vector.tobytes() not in files
        assert encode(vector[None]).values.tobytes()[: len(vector)] not in files


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
    shutil.rmtree(folder / "index")
    for progress in (False, True):
        with Gallery(folder, templates_engine, read_only=True, progress=progress) as gallery:
            assert finds(gallery, 3)
        assert ("building the index: 100%" in capsys.readouterr().err) == progress


def test_an_index_that_cannot_be_saved_is_only_a_warning(
    filled: Gallery, folder: Path, templates_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "index").write_bytes(b"in the way")
    with caplog.at_level(logging.WARNING):
        add(filled, 0, 10)
        filled.close()
    assert "the index was not saved" in caplog.text
    (folder / "index").unlink()
    with Gallery(folder, templates_engine) as gallery:
        assert finds(gallery, 0, 9)


def test_what_cannot_be_cleaned_does_not_keep_a_gallery_shut(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(filled, 0, 100)
    filled.close()
    damage_manifest(folder / "index" / "exact")

    def in_use(*args: object) -> None:
        raise PermissionError("in use")

    with monkeypatch.context() as failing:
        failing.setattr(shutil, "rmtree", in_use)
        gallery = Gallery(folder, templates_engine)
    with gallery:
        assert finds(gallery, 7)
        assert gallery.stats().erasure_pending
        gallery.create_group("any change tries again")
        assert not gallery.stats().erasure_pending
    with Gallery(folder, templates_engine) as gallery:
        assert finds(gallery, 7)
