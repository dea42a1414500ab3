"""Keys of encrypted galleries and archives."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from facecore.errors import InvalidParameter

__all__ = ["KEY_BYTES", "GalleryKey", "as_key", "read_key"]

KEY_BYTES = 32  # of AES-256

GalleryKey = bytes | str | Callable[[], bytes | str]
"""32 bytes, or 64 hexadecimal digits as text or bytes, or a function that returns one of these."""

_LONGEST_FILE = 256
# As for the server's keys: service managers hand out files that their group may read.
_FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP
_MAKE = "make one with: openssl rand -hex 32"


def as_key(key: GalleryKey) -> bytes:
    """The 32 bytes of a key; white space around hexadecimal digits is ignored.

    Raises
    ------
    InvalidParameter
        It is none.  The message does not repeat it.
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
            f"the key is not {KEY_BYTES} bytes, nor {2 * KEY_BYTES} hexadecimal digits", _MAKE
        )
    return found


def read_key(path: Path) -> bytes:
    """The key in a file.

    Raises
    ------
    InvalidParameter
        The file cannot be read, holds no key, or others on this machine can read it.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(_LONGEST_FILE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidParameter(f"{path} cannot be read: {reason}", _MAKE) from error
    if os.name == "posix" and mode & _FORBIDDEN_MODE:
        raise InvalidParameter(
            f"{path} has mode {stat.S_IMODE(mode):04o}: others can read the key",
            f"chmod 600 {path}",
        )
    return as_key(data)
