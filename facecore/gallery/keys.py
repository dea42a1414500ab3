"""Keys of encrypted galleries and archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from facecore._utils.atomic_files import read_private
from facecore.errors import InvalidParameter

__all__ = ["KEY_BYTES", "GalleryKey", "as_key", "read_key"]

KEY_BYTES = 32  # AES-256

GalleryKey = bytes | str | Callable[[], bytes | str]
"""32 bytes, or 64 hexadecimal digits as text or bytes, or a function that returns one of these."""

_LONGEST_FILE = 256
_MAKE = "make one with: openssl rand -hex 32"


def as_key(key: GalleryKey) -> bytes:
    """Convert a key to 32 bytes; white space around and between its bytes is ignored.

    Raises
    ------
    InvalidParameter
        The argument is not a key.  The message does not repeat it.
    """
    value = key() if callable(key) else key
    if isinstance(value, (bytes, bytearray)) and len(value) == KEY_BYTES:
        return bytes(value)
    try:
        text = value if isinstance(value, str) else bytes(value).decode("ascii")
        found = bytes.fromhex(text)
    except (TypeError, ValueError):
        found = b""
    if len(found) != KEY_BYTES:
        raise InvalidParameter(
            f"the key is not {KEY_BYTES} bytes or {2 * KEY_BYTES} hexadecimal digits", _MAKE
        )
    return found


def read_key(path: Path) -> bytes:
    """Read the key in a file.

    Raises
    ------
    InvalidParameter
        The file cannot be read, holds no key, or others on this machine can read it.
    """
    return as_key(read_private(path, _LONGEST_FILE, "the key", _MAKE))
