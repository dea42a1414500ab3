"""Run a short version of `python -m benchmarks concurrency`, which takes a minute."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import concurrency
from facecore.gallery.sqlite.backend import SqliteBackend


@pytest.mark.parametrize(
    ("index", "key"), [("exact", None), ("hnsw", None), ("exact", bytes(range(32)))]
)
def test_answers_are_those_of_a_serial_run(
    folder: Path, index: Any, key: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        pytest.importorskip("sqlcipher3", reason="needs the extra encryption")
    monkeypatch.setattr(SqliteBackend, "_current", SqliteBackend._current)  # restore it at the end
    seconds = float(os.environ.get("FACECORE_SECONDS", "2"))
    result = concurrency.run(folder, seconds, index=index, key=key)
    assert result["problems"] == []
    assert result["searches in threads"] > 0
    assert result["searches in readers"] > 0
    assert result["additions"] > 0
    assert result["searches checked"] > result["searches in readers"]
