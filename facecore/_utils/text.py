"""Text for a terminal."""

from __future__ import annotations

import re

__all__ = ["count_of", "is_printable"]

# Control characters, line breaks, changes of the writing direction, halves of surrogate pairs.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def count_of(number: int, noun: str = "face") -> str:
    """Format a number of things: ``1 face``, ``1,234 faces``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def is_printable(text: str) -> bool:
    """Whether a text is UTF-8 without line breaks, control characters and changes of direction."""
    # str.isprintable also rejects most spaces, and the joiners of Persian words and of emoji.
    return not _UNSAFE.search(text)
