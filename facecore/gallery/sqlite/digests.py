"""Keyed digests of stored faces, to detect damage that SQLite does not detect.

SQLite checks the structure of its pages, not their contents: a flipped bit in a template or a user
id would go unnoticed.  The digest is BLAKE2b, with a random key per database, over all columns of a
face and its template.  The key is in the same database, so the digest detects errors of disks and
copies, but not forgery by a person who can write to the folder.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import struct
from typing import Any

__all__ = ["COLUMNS", "KEY", "digest", "new_key", "read_key"]

KEY = "digest_key"  # in the table meta
# Digested columns of the tables faces f, groups g and templates t.  Texts are read as bytes,
# because a damaged text may not be valid UTF-8.
COLUMNS = (
    "f.id, f.face_id, CAST(f.user_id AS BLOB), CAST(g.name AS BLOB), f.quality,"
    " CAST(f.origin AS BLOB), f.created, t.vector"
)
_HEAD = struct.Struct("<qqd4H").pack
_SIZE, _KEY_SIZE, _CHECK_SIZE = 16, 32, 8


def digest(key: bytes, *row: Any) -> bytes:
    """Digest the values of `COLUMNS`; return no bytes if they cannot be from a face."""
    number, face_id, user_id, group, quality, origin, created, vector = row
    try:
        lengths = len(face_id), len(user_id), len(group), len(origin)
        head = _HEAD(number, created, math.nan if quality is None else quality, *lengths)
        data = b"".join((head, face_id, user_id, group, origin, vector))
    except (struct.error, TypeError):
        return b""
    return hashlib.blake2b(data, key=key, digest_size=_SIZE).digest()


def new_key() -> str:
    """Make a random key, followed by its check value, as hexadecimal digits."""
    key = secrets.token_bytes(_KEY_SIZE)
    return (key + _check(key)).hex()


def read_key(stored: object) -> bytes | None:
    """Decode a stored key; None if it is missing or damaged."""
    try:
        data = bytes.fromhex(stored) if isinstance(stored, str) else b""
    except ValueError:
        return None
    key = data[:_KEY_SIZE]
    return key if len(key) == _KEY_SIZE and data[_KEY_SIZE:] == _check(key) else None


def _check(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=_CHECK_SIZE).digest()
