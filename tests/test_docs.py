"""The pages: every relative link leads somewhere, and no figure is left to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
FOLDERS = ("", "benchmarks", "docs", "docs/operations", "weights", "weights/training")
PAGES = sorted(page for folder in FOLDERS for page in (REPO / folder).glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text
    assert not re.search(r"^[A-Z_]*FIGURES$", text, re.MULTILINE)
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_benchmark_has_its_line() -> None:
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `python -m benchmarks (\w+)` \|", page, re.MULTILINE)
    assert listed == sorted(p.stem for p in (REPO / "benchmarks").glob("[!_]*.py"))
