"""Download a published file from its address, or read it from a mirror."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from facecore.errors import PackCorrupt, PackNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from facecore.models.manifest import ModelFile

MIRROR_VARIABLE = "FACECORE_WEIGHTS_MIRROR"

CHUNK = 1 << 16
TIMEOUT = 30.0  # seconds without a single byte
# Minimum rate of the whole transfer, so that a slow server cannot block the process forever.
MINUTES_AT_LEAST = 5
BYTES_PER_SECOND = 16 * 1024

MIRROR_HINT = (
    f"check the network, or set {MIRROR_VARIABLE} to a folder or an http(s):// address "
    "that holds the file"
)


def published_bytes(model: ModelFile, url: str) -> Iterator[bytes]:
    """Stream the bytes of `model` from the mirror if one is set, otherwise from `url`.

    Yields at most ``model.size`` bytes. The caller must verify the hash: the size check here
    only stops a wrong transfer early.

    Raises
    ------
    PackNotFound
        The file is unreachable, or the transfer was interrupted.
    PackCorrupt
        The data differs from the published file.
    """
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip()
    if not mirror:
        return _from_address(url, model, scheme_ok=("https",))
    scheme = _scheme(mirror)
    if scheme in ("http", "https"):
        # A plain http mirror is the administrator's choice; the hash decides what is accepted.
        address = f"{mirror.rstrip('/')}/{urllib.parse.quote(model.file)}"
        return _from_address(address, model, scheme_ok=("http", "https"))
    if scheme == "file":
        try:
            base = urllib.request.url2pathname(urllib.parse.urlsplit(mirror).path)
        except (OSError, ValueError) as error:  # OSError: url2pathname on Windows
            raise PackNotFound(
                f"the mirror {mirror} is not an address: {error}", MIRROR_HINT
            ) from error
        return _from_file(_right_one([Path(base) / model.file], model, mirror))
    if scheme:
        raise PackNotFound(
            f"{MIRROR_VARIABLE} has the unknown scheme {scheme!r}", "use https, http or file"
        )
    folder = Path(os.path.expanduser(mirror))
    return _from_file(_right_one(_named(folder, model.file), model, mirror))


def _scheme(address: str) -> str:
    # Not urlsplit, which raises ValueError for a mistyped address.
    return address.split("://", 1)[0].lower() if "://" in address else ""


class _HttpsRedirectsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https only, so that no hop downgrades the connection."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            fp.close()
            raise urllib.error.URLError(f"redirected to {newurl!r:.120}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    # Not build_opener(), which also accepts ftp, file and data addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _HttpsRedirectsOnly(),
    ):
        opener.add_handler(handler)
    return opener


def _from_address(url: str, model: ModelFile, scheme_ok: tuple[str, ...]) -> Iterator[bytes]:
    if _scheme(url) not in scheme_ok:
        raise PackNotFound(f"{url} is not an {' or '.join(scheme_ok)} address", MIRROR_HINT)
    agent = {"User-Agent": f"facecore/{_version()} (weights pull)", "Accept-Encoding": "identity"}
    deadline = time.monotonic() + MINUTES_AT_LEAST * 60 + model.size / BYTES_PER_SECOND
    try:
        request = urllib.request.Request(url, headers=agent)
        with _opener().open(request, timeout=TIMEOUT) as response:
            announced = response.headers.get("Content-Length")
            if announced is not None and announced != str(model.size):
                raise PackCorrupt(
                    f"{url}: the server announces {announced!r:.20} bytes, "
                    f"{model.file} has {model.size}"
                )
            missing = model.size
            # read1 returns the bytes received so far, so the deadline is checked often.
            while chunk := response.read1(min(CHUNK, missing + 1)):
                if len(chunk) > missing:
                    raise PackCorrupt(f"{url}: longer than the {model.size} bytes expected")
                missing -= len(chunk)
                yield chunk
                if time.monotonic() > deadline:
                    raise PackNotFound(f"{url}: the transfer is too slow", MIRROR_HINT)
    except urllib.error.HTTPError as error:
        error.close()
        raise PackNotFound(f"{url}: HTTP status {error.code}", MIRROR_HINT) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PackNotFound(f"{url}: cannot be downloaded: {reason}", MIRROR_HINT) from error
    if missing:
        found = model.size - missing
        raise PackNotFound(f"{url}: cut after {found} of {model.size} bytes", MIRROR_HINT)


def _named(root: Path, file: str) -> list[Path]:
    """Return the regular files called `file` below `root`, in a stable order."""
    if not os.path.isdir(root):
        raise PackNotFound(
            f"{MIRROR_VARIABLE} names {root}, which is not a folder",
            "give a folder or an http(s):// address",
        )
    found = (Path(folder) / file for folder, _, files in os.walk(root) if file in files)
    return sorted(path for path in found if os.path.isfile(path))


def _right_one(candidates: list[Path], model: ModelFile, mirror: str) -> Path:
    """Return the candidate that has the published hash."""
    looked = 0
    for path in candidates:
        try:
            looked += path.is_file()
            if path.is_file() and path.stat().st_size == model.size:
                digest = hashlib.sha256()
                for chunk in _from_file(path):
                    digest.update(chunk)
                if digest.hexdigest() == model.sha256:
                    return path
        except (OSError, PackNotFound):  # unreadable: try the next one
            continue
    if not looked:
        raise PackNotFound(f"the mirror {mirror} has no file {model.file}", MIRROR_HINT)
    raise PackCorrupt(
        f"the mirror {mirror} has no valid {model.file}: looked at {looked}, "
        f"none has SHA-256 {model.sha256[:12]}…",
        "put the published file there",
    )


def _from_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except OSError as error:
        raise PackNotFound(f"{path}: cannot be read: {error.strerror}", MIRROR_HINT) from error


def _version() -> str:
    try:
        return metadata.version("facecore")
    except metadata.PackageNotFoundError:  # a source checkout on the path
        return "unknown"
