"""Without hnswlib only `index="hnsw"` fails, and the error names the command."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from templates import template

from facecore import Gallery, MissingExtra
from facecore.gallery.index import HnswIndex


@pytest.fixture
def no_hnswlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)


@pytest.mark.usefixtures("no_hnswlib")
def test_an_index_names_the_command() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'facecore\[hnsw\]'"):
        HnswIndex(24)


@pytest.mark.usefixtures("no_hnswlib", "no_sync")
def test_a_gallery_needs_it_only_when_asked(
    filled: Gallery, folder: Path, templates_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    filled.add("staff", template("a"), "a")
    filled.close()
    with pytest.raises(MissingExtra, match=r"pip install 'facecore\[hnsw\]'"):
        Gallery(folder, templates_engine, index="hnsw")
    with Gallery(folder, templates_engine) as gallery:  # "auto"
        gallery.compact()
        assert gallery.search(template("a"), limit=1)[0].user_id == "a"
        assert gallery.stats().index == "exact"
    assert caplog.text == ""


def test_another_memory_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Index:
        def __init__(self, space: str, dimension: int) -> None:
            pass

        def init_index(self, capacity: int, **options: int) -> None:
            pass

        def __getstate__(self) -> tuple[dict[str, int]]:
            return ({"ser_version": 2},)

    monkeypatch.setitem(sys.modules, "hnswlib", SimpleNamespace(Index=Index))
    with pytest.raises(MissingExtra, match="another memory layout"):
        HnswIndex(24)
