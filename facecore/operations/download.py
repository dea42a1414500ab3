"""Download from a checked address, until a deadline.

httpcore implements HTTP.  Its network backend opens the connections; the backend of this module
looks up, checks and pins the host name first.  The URL keeps the host name, and so do the Host
header, SNI and the name in the certificate.
"""

from __future__ import annotations

import functools
import ssl
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import certifi
import httpcore

from facecore.errors import AddressRefused, DownloadFailed, ImageTooLarge
from facecore.operations import addresses
from facecore.operations.addresses import Address, Deadline

__all__ = ["Redirect", "fetch", "get"]

REDIRECTS = 3
REDIRECTING = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that names another address, absolute or relative."""

    location: str


def fetch(url: str, *, limit: int, timeout: float = 5.0, allow_private: bool = False) -> bytes:
    """Download the bytes at an http or https address.

    No proxy, cookie or credential of the environment is used.  A compressed answer is refused,
    not unpacked.

    Parameters
    ----------
    url : str
        Names in other scripts are encoded (IDNA 2003); a fragment is dropped.
    limit : int
        Maximum number of bytes to read.
    timeout : float, default 5.0
        Total time in seconds: name service, connections, redirects and every byte.
    allow_private : bool, default False
        Also accept addresses that are not public, such as loopback and private ones.

    Raises
    ------
    AddressRefused
        `url` is not an http(s) address, carries credentials, or leads (directly, by the name
        service or by a redirect) to a machine that is not on the public internet.
    ImageTooLarge
        The answer has more than `limit` bytes.
    DownloadFailed
        Unknown name, refused connection, no time left, a status other than 2xx, more than 3
        redirects, or an answer that breaks off or is not HTTP.
    """
    deadline = Deadline(timeout)
    address = addresses.parse(url)
    for _ in range(REDIRECTS + 1):
        answer = get(address, limit=limit, deadline=deadline, allow_private=allow_private)
        if isinstance(answer, bytes):
            return answer
        try:
            location = urllib.parse.urljoin(str(address), answer.location)
        except ValueError as error:  # brackets that do not match
            raise AddressRefused(f"a redirect cannot be read: {error}") from None
        address = addresses.parse(location)
    raise DownloadFailed(f"more than {REDIRECTS} redirects")


def get(
    address: Address, *, limit: int, deadline: Deadline, allow_private: bool
) -> bytes | Redirect:
    """Request an address; return the body of the answer, or its redirect.

    Raises
    ------
    AddressRefused, ImageTooLarge, DownloadFailed
        As in `facecore.operations.download.fetch`.
    """
    url = httpcore.URL(
        scheme=address.scheme, host=address.host, port=address.port, target=address.target
    )
    headers = [
        ("Host", address.authority),
        ("User-Agent", "facecore"),
        ("Accept", "image/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    context = _tls() if address.scheme == "https" else None
    backend = _Checked(deadline, allow_private)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=context, network_backend=backend) as pool,
            pool.stream("GET", url, headers=headers) as response,
        ):
            return _answer(response, limit)
    except httpcore.TimeoutException:
        raise DownloadFailed(f"the download took more than {deadline.seconds:g} seconds") from None
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise DownloadFailed(f"the download failed: {error or type(error).__name__}") from error


def _answer(response: httpcore.Response, limit: int) -> bytes | Redirect:
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    if response.status in REDIRECTING and b"location" in headers:
        return Redirect(headers[b"location"])
    if response.status // 100 != 2:
        raise DownloadFailed(f"the server answered with HTTP status {response.status}")
    if headers.get(b"content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise DownloadFailed("the server answered with compressed bytes")
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > limit:
            raise ImageTooLarge(f"the picture has more than {limit} bytes")
    return bytes(body)


class _Checked(httpcore.NetworkBackend):
    """Connect to checked addresses only."""

    def __init__(self, deadline: Deadline, allow_private: bool) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        found = addresses.resolve(host, port, self._deadline, allow_private=self._allow_private)
        for tried, ip in enumerate(found):
            # Divide the time: an address that never answers must not use up that of the others.
            share = self._deadline.remaining() / (len(found) - tried)
            try:
                stream = self._sockets.connect_tcp(ip, port, share)
                return _Timed(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class _Timed(httpcore.NetworkStream):
    """A stream whose operations all share one deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.remaining())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.remaining())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.remaining()
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@functools.cache
def _tls() -> ssl.SSLContext:
    # Trust the machine's authorities, to which an administrator may have added some, and those of
    # certifi: a small container image often has none.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
