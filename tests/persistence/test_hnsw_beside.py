"""The HNSW index next to the exact one: built in the background, saved, resumed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templates import template
from waiting import until

from facecore import Gallery
from facecore.gallery.index import generations
from facecore.gallery.index.hnsw import HnswIndex
from facecore.gallery.sqlite import hnsw_builder, saved_index

pytest.importorskip("hnswlib")

pytestmark = pytest.mark.usefixtures("no_sync", "small")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (saved_index, hnsw_builder):
        monkeypatch.setattr(module, "WORTHWHILE", 1)


def add(gallery: Gallery, start: int, stop: int) -> None:
    tokens = [f"t{i}" for i in range(start, stop)]
    vectors = np.stack([template(token) for token in tokens])
    gallery.add_templates("staff", vectors, tokens, contract=gallery.contract_id)


def finds(gallery: Gallery, number: int) -> bool:
    return gallery.search(template(f"t{number}"), limit=1)[0].user_id == f"t{number}"


def test_a_build_that_was_stopped_goes_on(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(filled, 0, 300)
    filled.close()
    monkeypatch.setattr(hnsw_builder, "_BATCH", 10)
    rows: list[int] = []
    plain = HnswIndex.add

    searched, stopping = threading.Event(), threading.Event()

    def slow(self: HnswIndex, ids: Any, *rest: Any) -> None:
        searched.wait(30)
        if sum(rows) >= 100:
            stopping.wait(1)  # keeps the build from ending before the close
        rows.append(len(ids))
        plain(self, ids, *rest)

    monkeypatch.setattr(HnswIndex, "add", slow)
    with Gallery(folder, templates_engine, index="hnsw") as gallery:
        assert finds(gallery, 299)  # does not wait for the build
        assert gallery.stats().index == "exact"
        searched.set()
        until(lambda: sum(rows) >= 100)
    stopping.set()
    half = generations.watermark(folder / "index" / "hnsw")
    assert half is not None
    assert 100 <= half["face"] < 300
    rows.clear()
    with Gallery(folder, templates_engine, index="hnsw") as gallery:
        gallery.remove("staff", user_id="t299")  # not in the saved index, so nothing is lost
        gallery.compact()
        assert gallery.stats().index == "hnsw"
        assert finds(gallery, 5)
        assert finds(gallery, 298)
        assert len(gallery.search(template("t5"), limit=1000)) == 299
    assert sum(rows) == 299 - half["face"]


def test_a_reader_loads_it_and_never_makes_one(
    filled: Gallery, folder: Path, templates_engine: Any
) -> None:
    add(filled, 0, 100)
    filled.close()
    with Gallery(folder, templates_engine, index="hnsw", read_only=True) as reader:
        assert finds(reader, 7)
        reader._backend._hnsw._thread.join(60)  # type: ignore[attr-defined]
        assert finds(reader, 7)
        assert reader.stats().index == "exact"
    with Gallery(folder, templates_engine, index="hnsw") as gallery:
        gallery.compact()
        with Gallery(folder, templates_engine, index="hnsw", read_only=True) as reader:
            until_hnsw(reader, 7)
            add(gallery, 100, 110)
            gallery.remove("staff", user_id="t7")
            assert finds(reader, 109)
            until_hnsw(reader, 109)
            assert not finds(reader, 7)


def until_hnsw(gallery: Gallery, number: int) -> None:
    for _ in range(2000):
        assert finds(gallery, number)
        if gallery.stats().index == "hnsw":
            return
        time.sleep(0.005)
    raise AssertionError("it never came")


def test_compacting_builds_it_anew_if_much_was_removed(
    filled: Gallery, folder: Path, templates_engine: Any
) -> None:
    add(filled, 0, 100)
    filled.close()
    with Gallery(folder, templates_engine, index="hnsw") as gallery:
        gallery.compact()
        for i in range(30):
            gallery.remove("staff", user_id=f"t{i}")
        gallery.compact()
        index = gallery._backend._hnsw._sync.index  # type: ignore[attr-defined]
        assert (len(index), index.garbage) == (70, 0)
        assert finds(gallery, 30)
        assert gallery.stats().index == "hnsw"


def test_compacting_while_it_saves_builds_it_anew_too(
    filled: Gallery, folder: Path, templates_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(filled, 0, 100)
    filled.close()
    saving, go_on = threading.Event(), threading.Event()
    plain = hnsw_builder.BackgroundHnswBuilder._save

    def slow(self: Any, thorough: bool) -> bool:
        done = plain(self, thorough)
        saving.set()
        go_on.wait(10)
        return done

    with Gallery(folder, templates_engine, index="hnsw") as gallery:
        gallery.compact()
        monkeypatch.setattr(hnsw_builder.BackgroundHnswBuilder, "_save", slow)
        for i in range(30):
            gallery.remove("staff", user_id=f"t{i}")
        fast = gallery._backend._hnsw  # type: ignore[attr-defined]
        fast.wake()
        assert saving.wait(10)
        compacting = threading.Thread(target=gallery.compact)
        compacting.start()
        until(lambda: fast._thorough > fast._done)
        go_on.set()
        compacting.join(30)
        index = fast._sync.index
        assert (len(index), index.garbage) == (70, 0)
