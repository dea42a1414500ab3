"""Files that a client uploads first and names in a request later (the vendor's Advance calls).

Such a client asks for permission (AuthorizeFileUpload), posts the file to the host it is told, and
sends the operation with the file's address.  Here that host is this server, and the file waits in
memory for the request that names it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import python_multipart
from python_multipart.exceptions import FormParserError

from facecore.server.refusals import Refusal

__all__ = ["Uploads", "permission", "read_upload"]

SECONDS = 60.0  # from the permission to the request that names the file
WAITING = 64  # permissions at a time; each is good for one file
PARTS = 16  # the vendor's clients send 7
BYTES = 64 * 2**20  # of all files that wait


@dataclass(slots=True)
class _Place:
    owner: str
    until: float
    data: bytes = field(default=b"", repr=False)


class Uploads:
    """The files that wait, each for a minute at most.

    Safe to share between threads.

    Parameters
    ----------
    clock : callable, default time.monotonic
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()

    def allow(self, owner: str) -> str:
        """The key under which the holder of an access key may upload one file.

        Raises
        ------
        Refusal
            Throttling.Api: too many are waiting.
        """
        with self._lock:
            self._forget()
            if len(self._places) >= WAITING:
                raise Refusal("Throttling.Api", "Too many uploads are waiting.")
            key = secrets.token_hex(16)
            self._places[key] = _Place(owner, self._clock() + SECONDS)
            return key

    def put(self, key: str, data: bytes) -> None:
        """Keep a file; the key is the permission, as it is a secret of 128 bits.

        Raises
        ------
        Refusal
            InvalidParameter: there is no such key, or its file has come already;
            Throttling.Api: the files that wait are too large together.
        """
        with self._lock:
            self._forget()
            place = self._places.get(key)
            if place is None or place.data or not data:
                raise Refusal("InvalidParameter", "No upload is expected under this key.")
            if sum(len(p.data) for p in self._places.values()) + len(data) > BYTES:
                raise Refusal("Throttling.Api", "Too many uploads are waiting.")
            place.data = data

    def take(self, address: str, owner: str) -> bytes | None:
        """The file whose key ends an address, once; None where none waits."""
        key = address.rpartition("/")[2]
        with self._lock:
            self._forget()
            place = self._places.get(key)
            if place is None or place.owner != owner or not place.data:
                return None
            return self._places.pop(key).data

    def _forget(self) -> None:
        now = self._clock()
        self._places = {key: p for key, p in self._places.items() if p.until > now}


def permission(key: str, host: str, scheme: str) -> dict[str, Any]:
    """Answer to AuthorizeFileUpload.

    The client posts to ``https://<Bucket>.<Endpoint>/``, but keeps a scheme that the bucket begins
    with; so the host is cut at its first dot, and over plain HTTP the scheme is put before it.

    Parameters
    ----------
    key : str
    host : str
        The Host header: a host, or a whole URL.
    scheme : {"http", "https"}
        In which the request came.

    Raises
    ------
    Refusal
        InvalidParameter: a host without a dot cannot be cut.
    """
    name = host.rpartition("://")[2].rstrip("/")
    bucket, dot, endpoint = name.partition(".")
    if not dot or name.startswith("["):
        raise Refusal("InvalidParameter", "Uploads need a host with a dot, such as 127.0.0.1.")
    return {
        "AccessKeyId": "upload",
        "Bucket": bucket if scheme == "https" else f"http://{bucket}",
        "Endpoint": endpoint,
        # Clients send these two back; the key alone is what counts.
        "EncodedPolicy": "e30=",
        "Signature": "none",
        "ObjectKey": key,
        "UseAccelerate": False,
    }


def read_upload(content_type: str, body: bytes) -> tuple[str, bytes]:
    """Key and file of a multipart form.

    Raises
    ------
    Refusal
        InvalidParameter: it cannot be read, or lacks one of the two.
    """
    _, options = python_multipart.multipart.parse_options_header(content_type)
    fields: dict[bytes, bytes] = {}
    # The parser reports runs of bytes; a part's name stands in its Content-Disposition.
    header, value, name, content = bytearray(), bytearray(), bytearray(), bytearray()

    def end_header() -> None:
        if bytes(header).lower() == b"content-disposition":
            _, parts = python_multipart.multipart.parse_options_header(bytes(value))
            name[:] = parts.get(b"name", b"")
        header.clear()
        value.clear()

    def end_part() -> None:
        if len(fields) >= PARTS:
            raise Refusal("InvalidParameter", f"There are more than {PARTS} parts.")
        fields[bytes(name)] = bytes(content)
        content.clear()
        name.clear()

    callbacks: Any = {
        "on_header_field": lambda data, start, end: header.extend(data[start:end]),
        "on_header_value": lambda data, start, end: value.extend(data[start:end]),
        "on_header_end": end_header,
        "on_part_data": lambda data, start, end: content.extend(data[start:end]),
        "on_part_end": end_part,
    }
    try:
        parser = python_multipart.MultipartParser(options.get(b"boundary", b""), callbacks)
        parser.write(body)
        parser.finalize()
        return fields[b"key"].decode(), fields[b"file"]
    except (FormParserError, KeyError, UnicodeDecodeError):
        raise Refusal("InvalidParameter", "The upload has no key, or no file.") from None
