"""What may be printed in a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["is_printable"]


def is_printable(text: str) -> bool:
    """Whether a text holds no line break and no control character; any space is allowed."""
    # str.isprintable takes no space but the ASCII one.
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)
