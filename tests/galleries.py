"""Fixtures for fast galleries without models: an image is its own template."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from templates import TemplateEngine

from facecore import Gallery
from facecore.gallery.sqlite import connection


@pytest.fixture(scope="session")
def templates_engine() -> Any:
    return TemplateEngine()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a.gallery"


@pytest.fixture
def filled(folder: Path, templates_engine: Any) -> Iterator[Gallery]:
    with Gallery(folder, templates_engine) as gallery:
        gallery.create_group("staff")
        gallery.create_group("visitors")
        yield gallery


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip disk syncs: tests that do not simulate a crash need no durability."""
    relaxed = [p.replace("synchronous = FULL", "synchronous = OFF") for p in connection._DURABLE]
    monkeypatch.setattr(connection, "_DURABLE", relaxed)
    monkeypatch.setattr(os, "fsync", lambda _: None)
