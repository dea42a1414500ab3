"""The pages: every relative link leads somewhere, and no figure is left to be filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
FOLDERS = ("", "docs", "docs/operations", "weights", "weights/training")
PAGES = sorted(page for folder in FOLDERS for page in (REPO / folder).glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "@@" not in text
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
