"""Read the bytes of an encoded image from a path, a buffer or a binary file, within limits."""

from __future__ import annotations

import os
import re
import stat
from typing import Any, BinaryIO

from facecore.errors import FacecoreError, ImageTooLarge, InvalidParameter, UnreadableImage
from facecore.images.limits import DEFAULT_LIMITS, Limits, check_bytes

__all__ = ["open_regular", "read_bytes"]

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)  # Windows only
_ACCEPTED = "give a path, bytes, a binary file, a PIL.Image or a (H, W, 3) uint8 array in BGR order"


def read_bytes(image: object, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the bytes of an encoded input; read at most one byte beyond the limit.

    Raises
    ------
    UnreadableImage, ImageTooLarge, InvalidParameter
        As in `load`, except errors of decoding.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        check_bytes(memoryview(image).nbytes, limits)
        data = bytes(image)
    elif isinstance(image, str | os.PathLike):
        if isinstance(image, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", image):
            raise UnreadableImage(
                f"{image[:80]!r} is a URL", "facecore never downloads; fetch it and give the bytes"
            )
        if isinstance(image, str) and re.match(r"data:", image, re.IGNORECASE):
            raise UnreadableImage(
                f"{image[:40]!r} is a data URI", "decode the part after the comma with base64"
            )
        try:
            with open_regular(image) as file:
                size = os.fstat(file.fileno()).st_size
                check_bytes(size, limits)
                data = _read_stream(file, limits, size)
        except FileNotFoundError as error:
            hint = "check the path"
            raise UnreadableImage(f"no such file: {str(image)[:200]!r}", hint) from error
        except (OSError, ValueError) as error:  # a directory, no permission, a NUL in the name
            if isinstance(error, FacecoreError):
                raise
            reason = getattr(error, "strerror", None) or error
            hint = "give the path of a file that can be read"
            raise UnreadableImage(f"cannot read {str(image)[:200]!r}: {reason}", hint) from error
    elif callable(getattr(image, "read", None)):
        data = _read_stream(image, limits)
    else:
        raise InvalidParameter(f"an image cannot be a {type(image).__name__}", _ACCEPTED)
    if not data:
        raise UnreadableImage(
            "the image is empty: 0 bytes", "give the whole file; after reading a file, call seek(0)"
        )
    return data


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, unbuffered.

    Rejects a pipe, device or socket without blocking.

    Raises
    ------
    OSError, ValueError
        The file does not exist, is not regular, or cannot be read.
    """
    # Without O_NONBLOCK, opening a pipe blocks until a writer opens it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise OSError(None, f"it is {kind}, not a file")
        return open(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def _read_stream(stream: Any, limits: Limits, expected: int = 2**20) -> bytes:
    """Read a stream to its end within the limit; first read `expected` bytes.

    Allocating and freeing a buffer of the limit's size for each read would make threads wait.
    """
    chunks: list[bytes | bytearray] = []
    size = 0
    while size <= limits.max_bytes:  # a raw stream may return less than requested
        try:
            most = 2**16 if chunks else expected + 1
            chunk = stream.read(min(most, limits.max_bytes + 1 - size))
        except Exception as error:
            hint = "give a binary file that is open for reading"
            raise UnreadableImage(f"the file cannot be read: {error}", hint) from error
        if chunk is not None and not isinstance(chunk, bytes | bytearray):
            raise InvalidParameter(
                f"the file's read() returned {type(chunk).__name__}, not bytes",
                "open the file in binary mode, 'rb'",
            )
        if not chunk:
            return bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    raise ImageTooLarge(f"the file exceeds the limit of {limits.max_bytes:,} bytes")
