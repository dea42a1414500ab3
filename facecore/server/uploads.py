"""Files that a client uploads first and names in a request later (the vendor's Advance calls).

The client asks for permission (AuthorizeFileUpload), posts the file to the host in the answer,
and sends the operation with the file's address.  Here that host is this server.  The file waits in
memory for the request that names it.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from facecore.server.refusals import Refusal

__all__ = ["Uploads", "is_upload", "permission", "read_upload"]

SECONDS = 60.0  # from the permission to the request that names the file
PARTS = 16  # the vendor's clients send 7
OWN_WAITING = 16  # permissions of one access key at a time; each is good for one file
OWN_BYTES = 32 * 2**20  # total size of one access key's waiting files
BYTES = 64 * 2**20  # total size of all waiting files
HEAD_BYTES = 1024  # longest headers of a part

# RFC 2046, 5.1.1.  Clients also send other characters ("*****"), and without the quotes they need.
_BOUNDARY = re.compile(r""";\s*boundary\s*=\s*("?)([!#-:<-~ ]{0,69}[!#-:<-~])\1\s*(?:;|$)""", re.I)
_NAME = re.compile(rb'^content-disposition:[^\r\n]*; ?name="?([^";\r\n]*)', re.M | re.I)


@dataclass(slots=True)
class _Place:
    owner: str
    until: float
    data: bytes = field(default=b"", repr=False)


class Uploads:
    """Hold uploaded files until a request names them, each for a minute at most.

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
        """Return the key under which the holder of an access key may upload one file.

        Raises
        ------
        Refusal
            Throttling.Api: too many uploads of this holder are waiting.
        """
        with self._lock:
            self._forget()
            if sum(place.owner == owner for place in self._places.values()) >= OWN_WAITING:
                raise Refusal("Throttling.Api", "Too many uploads are waiting.")
            key = secrets.token_hex(16)
            self._places[key] = _Place(owner, self._clock() + SECONDS)
            return key

    def expects(self) -> bool:
        """Whether an upload is permitted; otherwise no upload's body is read."""
        with self._lock:
            self._forget()
            return any(not place.data for place in self._places.values())

    def put(self, key: str, data: bytes) -> None:
        """Store a file.  The key is a secret of 128 bits and serves as the permission.

        Raises
        ------
        Refusal
            InvalidParameter: the key is unknown, its file has arrived already, or the file is
            empty, which ends the permission;
            Throttling.Api: the waiting files are too large in total.
        """
        with self._lock:
            self._forget()
            place = self._places.get(key)
            if place is None or place.data:
                raise Refusal("InvalidParameter", "No upload is expected under this key.")
            if not data:
                del self._places[key]  # the client asks for another permission
                raise Refusal("InvalidParameter", "The file is empty.")
            own = sum(len(p.data) for p in self._places.values() if p.owner == place.owner)
            every = sum(len(p.data) for p in self._places.values())
            if own + len(data) > OWN_BYTES or every + len(data) > BYTES:
                raise Refusal("Throttling.Api", "Too many uploads are waiting.")
            place.data = data

    def take(self, address: str, owner: str) -> bytes | None:
        """Remove and return the file whose key ends an address; None if there is none."""
        key = address.rpartition("/")[2]
        with self._lock:
            self._forget()
            place = self._places.get(key)
            if place is None or place.owner != owner or not place.data:
                return None
            return self._places.pop(key).data

    def forget(self) -> None:
        """Delete expired files, even if no other upload arrives."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        now = self._clock()
        self._places = {key: p for key, p in self._places.items() if p.until > now}


def is_upload(method: str, content_type: str) -> bool:
    """Whether a request uploads a file."""
    media_type = content_type.partition(";")[0].strip().lower()
    return method == "POST" and media_type == "multipart/form-data"


def permission(key: str, host: str, scheme: str) -> dict[str, Any]:
    """Return the answer to AuthorizeFileUpload.

    The client posts to ``https://<Bucket>.<Endpoint>/``, but keeps a scheme that the bucket begins
    with.  Therefore the host is split at its first dot, and over plain HTTP the bucket begins with
    the scheme.

    Parameters
    ----------
    key : str
    host : str
        The Host header: a host, or a whole URL.
    scheme : {"http", "https"}
        Scheme of the request.

    Raises
    ------
    Refusal
        InvalidParameter: a host without a dot cannot be split.
    """
    name = host.rpartition("://")[2].rstrip("/")
    bucket, dot, endpoint = name.partition(".")
    if not dot or name.startswith("["):
        raise Refusal("InvalidParameter", "Uploads need a host with a dot, such as 127.0.0.1.")
    return {
        "AccessKeyId": "upload",
        "Bucket": bucket if scheme == "https" else f"http://{bucket}",
        "Endpoint": endpoint,
        # Clients send these two back; only the key is checked.
        "EncodedPolicy": "e30=",
        "Signature": "none",
        "ObjectKey": key,
        "UseAccelerate": False,
    }


def read_upload(content_type: str, body: bytes | bytearray) -> tuple[str, bytes]:
    """Read the key and the file of a multipart form.

    Starlette's reader would write a file of more than 1 MiB to the disk, and processes some bytes
    one by one in Python.

    Raises
    ------
    Refusal
        InvalidParameter: the form cannot be read, or lacks the key or the file.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise Refusal("InvalidParameter", "The upload has no boundary.")
    # A boundary begins a line; the first one begins the body.  Copy only the two fields.
    line = b"--" + boundary[2].encode()
    fields: dict[str, slice] = {}
    start, parts = (len(line) if body.startswith(line) else 0), 0
    while start <= len(body) and not body.startswith(b"--", start):
        parts += 1
        if parts > PARTS:
            raise Refusal("InvalidParameter", f"There are more than {PARTS} parts.")
        stop = body.find(b"\r\n" + line, start)
        stop = len(body) if stop < 0 else stop
        end = body.find(b"\r\n\r\n", start, min(stop, start + HEAD_BYTES))
        name = _NAME.search(body, start, max(end, start))
        if name:
            fields[name[1].decode("latin-1")] = slice(end + 4, stop)
        start = stop + 2 + len(line)
    whole = memoryview(body)
    try:
        return bytes(whole[fields["key"]]).decode(), bytes(whole[fields["file"]])
    except (KeyError, UnicodeDecodeError):
        raise Refusal("InvalidParameter", "The upload has no key, or no file.") from None
