"""Client of a Milvus server or of milvus-lite: addresses, calls and errors."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from facecore._utils.extras import require_extra
from facecore.errors import GalleryLocked, GalleryUnavailable, GalleryUnusable, InvalidParameter

__all__ = ["EXAMPLE", "MilvusClient", "is_milvus"]

_PREFIX = "milvus+"
EXAMPLE = "milvus+http://host:19530, or milvus+file:///folder/staff.db"
_HINT = f"for example {EXAMPLE}"

# Seconds per call; pymilvus would retry for minutes.
_TIMEOUT = 60.0


@dataclass(slots=True)
class _Shared:
    """State shared by the galleries of this process with the same address."""

    users: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


_shared: dict[str, _Shared] = {}
_mutex = threading.Lock()


def is_milvus(address: object) -> bool:
    """Return True for the address of a Milvus server or a milvus-lite file."""
    return isinstance(address, str) and address.startswith(_PREFIX)


class MilvusClient:
    """Thread-safe connection to Milvus.

    Parameters
    ----------
    address : str
        ``milvus+http://[user:password@]host:port[/database]``, the same with ``https``, or
        ``milvus+file:///path/name.db`` for milvus-lite, which one process at a time can open.

    Attributes
    ----------
    name : str
        The address without a password, for messages.
    folder : Path or None
        Folder of milvus-lite's data; None for a server.
    changing : RLock
        Held during a change.  All galleries of this process with this address share it,
        because milvus-lite allows one writer at a time.

    Raises
    ------
    MissingExtra
        pymilvus (or milvus-lite, for a file) is not installed.
    InvalidParameter
        The address is invalid.
    GalleryLocked
        Another process has the file open.
    GalleryUnavailable
        The server cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self.name, self.folder, target = _parse(address)
        self.milvus = require_extra("pymilvus", "milvus")
        self._grpc = require_extra("grpc", "milvus")
        # Failures raise exceptions; the logs would only repeat them.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self._process = os.getpid()
        self._client: Any = None
        if self.folder is not None:
            require_extra("milvus_lite", "milvus")
            logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
        with _mutex:
            shared = _shared.setdefault(self.name, _Shared())
            if self.folder is not None and not shared.users:
                _check_file(self.folder)
            with self._typed():
                self._client = self.milvus.MilvusClient(target, timeout=_TIMEOUT)
            shared.users += 1
            self.changing = shared.lock

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of ``pymilvus.MilvusClient``.

        Raises
        ------
        GalleryUnavailable
            The server cannot be reached or rejects the call.
        InvalidParameter
            The gallery is closed, or was opened by another process.
        """
        client = self.client()
        with self._typed():
            return getattr(client, method)(*arguments, timeout=_TIMEOUT, **options)

    def rows(self, collection: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Iterate over all rows of a query in order of primary key, without a limit."""
        batches = self.call("query_iterator", collection, consistency_level="Strong", **options)
        try:
            while True:
                with self._typed():
                    batch = batches.next()
                if not batch:
                    return
                yield from batch
        finally:
            batches.close()

    def size_on_disk(self) -> int:
        """Return the size of milvus-lite's files in bytes; 0 for a server."""
        if self.folder is None:
            return 0
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def client(self) -> Any:
        """Return the pymilvus client; raises InvalidParameter if unusable."""
        if self._process != os.getpid():
            raise GalleryUnusable(
                "this gallery was opened by another process", "open it in the process that uses it"
            )
        if self._client is None:
            raise GalleryUnusable("the gallery is closed")
        return self._client

    def close(self) -> None:
        """Disconnect; the last user of a file stops milvus-lite's server."""
        if self._client is None or self._process != os.getpid():
            return
        with _mutex:
            client, self._client = self._client, None
            client.close()
            shared = _shared[self.name]
            shared.users -= 1
            if not shared.users:
                del _shared[self.name]
                if self.folder is not None:
                    manager = require_extra("milvus_lite.server_manager", "milvus")
                    manager.server_manager_instance.release_server(str(self.folder))

    @contextlib.contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except (self.milvus.MilvusException, self._grpc.RpcError) as error:
            text = " ".join(str(getattr(error, "message", "") or error).split())
            raise GalleryUnavailable(f"{self.name}: {text:.300}") from error


def _parse(address: str) -> tuple[str, Path | None, str]:
    """Return the name for messages, the milvus-lite folder and the address for pymilvus."""
    target = address.removeprefix(_PREFIX)
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError:
        # Omit the original message, which may contain part of a password.
        raise InvalidParameter("the address of the gallery is invalid", _HINT) from None
    if parts.scheme in ("http", "https") and parts.hostname:
        place = parts.hostname + ("" if port is None else f":{port}")
        return f"{_PREFIX}{parts.scheme}://{place}{parts.path.rstrip('/')}", None, target
    if parts.scheme == "file" and not parts.netloc and parts.path.endswith(".db"):
        from urllib.request import url2pathname  # takes 20 ms to import

        folder = Path(url2pathname(parts.path)).absolute()
        if not folder.parent.is_dir():
            raise InvalidParameter(f"{folder.parent} is not a folder", "create the folder first")
        return f"{_PREFIX}{folder.as_uri()}", folder, str(folder)
    raise InvalidParameter("the address of the gallery is incomplete or unsupported", _HINT)


def _check_file(folder: Path) -> None:
    """Open a milvus-lite file to get a specific error; pymilvus only reports a failure."""
    if folder.exists() and not folder.is_dir():
        raise InvalidParameter(f"{folder} is not a database of milvus-lite", "name another file")
    lite = require_extra("milvus_lite", "milvus")
    errors = require_extra("milvus_lite.exceptions", "milvus")
    try:
        folder.mkdir(0o700, exist_ok=True)  # for its owner alone, under any umask
        lite.MilvusLite(str(folder)).close()
    except errors.DataDirLockedError as error:
        raise GalleryLocked(
            f"{folder} is in use already", "one process at a time can open a milvus-lite file"
        ) from error
    except (OSError, errors.MilvusLiteError) as error:
        raise GalleryUnavailable(f"{folder} cannot be opened: {error!s:.200}") from error
