"""The page's field reference of pack.toml equals the one generated from the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pack_fields.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("pack_fields", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    made = script()
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.page_with(made.reference()) == page, "run: python docs/pack_fields.py"


def test_every_field_has_a_text() -> None:
    for line in script().reference().splitlines():
        if line.startswith("| `"):
            name, kind, text = line.strip("| ").split(" | ", 2)
            assert name
            assert kind
            assert len(text) > 1
