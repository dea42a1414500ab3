"""Text for a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["count_of", "is_printable"]


def count_of(number: int, noun: str = "face") -> str:
    """Format a number of things: ``1 face``, ``1,234 faces``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def is_printable(text: str) -> bool:
    """Whether a text holds no line break and no control character; any space is allowed."""
    # str.isprintable rejects all spaces but the ASCII one.
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)
