"""Encrypted stream: the format of an encrypted archive.

The header has 64 bytes: ``facecore sealed`` and the version 1, a random salt of 32 bytes, and a
key check of 16 bytes.  HKDF-SHA256 derives the key check and the key of this file from the key and
the salt.  Pieces of 65,536 bytes follow; the last one is shorter or empty.  AES-256-GCM encrypts
each piece, with a tag of 16 bytes and the header as associated data.  The nonce is the piece's
number, 11 bytes big-endian, and a byte that is 1 for the last piece.  Pieces cannot be changed,
moved, repeated or cut off unnoticed (the STREAM construction, https://eprint.iacr.org/2015/189).
"""

from __future__ import annotations

import hmac
import io
import os
from typing import Any, BinaryIO

from facecore._utils.extras import require_extra
from facecore.errors import ArchiveCorrupt, WrongKey

__all__ = ["SealedReader", "SealedWriter", "is_sealed"]

_MAGIC = b"facecore sealed\x01"
_SALT, _CHECK, _KEY, _TAG = 32, 16, 32, 16
_HEAD = len(_MAGIC) + _SALT + _CHECK
_PIECE = 1 << 16


def is_sealed(stream: BinaryIO) -> bool:
    """Whether a stream at its start is encrypted; rewinds the stream."""
    head = stream.read(len(_MAGIC))
    stream.seek(0)
    return head == _MAGIC


class SealedWriter:
    """Encrypt data into a stream; `close` completes the stream.

    Parameters
    ----------
    stream : binary file
        Stays open.
    key : bytes
        32 bytes.

    Raises
    ------
    MissingExtra
        The package cryptography is not installed.
    """

    def __init__(self, stream: BinaryIO, key: bytes) -> None:
        salt = os.urandom(_SALT)
        self._stream = stream
        check, self._cipher = _derived(key, salt)
        self._head = _MAGIC + salt + check
        self._waiting = bytearray()
        self._number = 0
        stream.write(self._head)

    def write(self, data: bytes) -> None:
        """Encrypt some bytes."""
        self._waiting += data
        while len(self._waiting) >= _PIECE:
            self._put(bytes(self._waiting[:_PIECE]), last=False)
            del self._waiting[:_PIECE]

    def close(self) -> None:
        """Write the last piece."""
        self._put(bytes(self._waiting), last=True)

    def _put(self, piece: bytes, *, last: bool) -> None:
        self._stream.write(self._cipher.encrypt(_nonce(self._number, last), piece, self._head))
        self._number += 1


class SealedReader(io.RawIOBase):
    """Decrypt a stream that `SealedWriter` wrote; return a piece only if its tag is valid.

    Parameters
    ----------
    stream : binary file
        At its start; stays open.
    key : bytes
        32 bytes.

    Raises
    ------
    WrongKey
        The stream is encrypted under another key, or its header is damaged.
    ArchiveCorrupt
        The stream is damaged or cut off; also raised while reading.
    MissingExtra
        The package cryptography is not installed.
    """

    def __init__(self, stream: BinaryIO, key: bytes) -> None:
        self._stream = stream
        self._head = stream.read(_HEAD)
        if len(self._head) < _HEAD:
            raise ArchiveCorrupt("the header is cut off")
        salt = self._head[len(_MAGIC) : -_CHECK]
        check, self._cipher = _derived(key, salt)
        if not hmac.compare_digest(check, self._head[-_CHECK:]):
            raise WrongKey("the file is encrypted under another key, or its header is damaged")
        self._piece, self._number, self._last = b"", 0, False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read decrypted bytes; 0 at the end."""
        while not self._piece and not self._last:
            self._piece = self._next()
        view = memoryview(buffer)
        size = min(len(view), len(self._piece))
        view[:size], self._piece = self._piece[:size], self._piece[size:]
        return size

    def _next(self) -> bytes:
        from cryptography.exceptions import InvalidTag

        piece = self._stream.read(_PIECE + _TAG)
        self._last = len(piece) < _PIECE + _TAG
        try:
            found = self._cipher.decrypt(_nonce(self._number, self._last), piece, self._head)
        except (InvalidTag, ValueError) as error:  # ValueError: shorter than a tag
            raise ArchiveCorrupt(f"piece {self._number + 1} is damaged or cut off") from error
        self._number += 1
        return bytes(found)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _derived(key: bytes, salt: bytes) -> tuple[bytes, Any]:
    """Derive the key check and the cipher of one file."""
    require_extra("cryptography", "encryption")
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    made = HKDF(SHA256(), _CHECK + _KEY, salt, _MAGIC).derive(key)
    return made[:_CHECK], AESGCM(made[_CHECK:])
