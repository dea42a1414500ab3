"""SQLite connections: encryption, durability and schema migrations."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from facecore._utils.atomic_files import make_private
from facecore._utils.extras import require_extra
from facecore._utils.forks import leak_in_children
from facecore.errors import (
    ContractMismatch,
    GalleryCorrupt,
    GalleryLocked,
    GalleryNotWritable,
    InvalidParameter,
    WrongKey,
)
from facecore.gallery.records import Contract
from facecore.gallery.sqlite import digests
from facecore.gallery.sqlite.schema import APPLICATION_ID, DIGESTS, MIGRATIONS

__all__ = [
    "PAGE",
    "PATIENCE",
    "Database",
    "changing",
    "check_contract",
    "digest_key",
    "migrate",
    "quoted",
    "refuse_foreign",
    "set_format",
]

# How long a statement waits for another process, in seconds.
PATIENCE = 10.0

# Templates of 128 and of 512 numbers fill a page of this size well.  A page of 4096 bytes holds
# only one template of 512 numbers.
PAGE = 8192

# Decrypted pages per connection: decrypting one takes 10 us, and a search needs a dozen.
_CACHE_KIB = 65_536

_DURABLE = (
    "PRAGMA synchronous = FULL",  # in WAL mode: a commit returns after the log was synced
    "PRAGMA fullfsync = ON",  # the same on macOS, where fsync alone does not flush the drive
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",  # no temporary file outside the folder
)


_MAGIC = b"SQLite format 3\0"

# POSIX drops all locks of a process on a file as soon as the process closes any handle of it.
# SQLite takes care within one copy of its library; a plain read, and SQLCipher beside SQLite, do
# not: https://sqlite.org/howtocorrupt.html, sections 2.2 and 2.2.1.
_opening = threading.Lock()
_connections: weakref.WeakKeyDictionary[Any, tuple[tuple[int, ...], Any, bool]] = (
    weakref.WeakKeyDictionary()  # open connections: file, driver, whether it has a key
)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release
    )


class Database:
    """Open connections to the file of a gallery, plain or encrypted.

    SQLite opens a plain file.  SQLCipher, which has SQLite's interface, encrypts each page with
    AES-256-CBC and a random IV, and authenticates the page and its number with HMAC-SHA512:
    https://www.zetetic.net/sqlcipher/design/

    Parameters
    ----------
    path : Path
    key : bytes, optional
        32 bytes; None for a plain file.
    cipher : bool, default False
        Also open a plain file with SQLCipher, which can copy it under a key.

    Attributes
    ----------
    path : Path
    driver : module
        Connections raise its errors.

    Raises
    ------
    MissingExtra
        SQLCipher is not installed.
    """

    def __init__(self, path: Path, key: bytes | None = None, *, cipher: bool = False) -> None:
        self.path = path
        self._key = key
        self.driver: Any = sqlite3
        if cipher or key is not None:
            self.driver = require_extra("sqlcipher3.dbapi2", "encryption")

    def check_key(self) -> None:
        """Refuse an encrypted file without a key, and a plain one with a key; change nothing.

        Raises
        ------
        WrongKey
        """
        with _opening:
            keyed = [has_key for _, has_key in _open_here(self.path)]
            plain = not keyed[0] if keyed else _looks_plain(self.path)
        if plain is None:
            return  # new, or damaged
        if plain and self._key is not None:
            raise WrongKey(
                f"{self.path} is not encrypted, and a key was given",
                "leave the key out, or encrypt the gallery: facecore rekey",
            )
        if not plain and self._key is None:
            raise WrongKey(f"{self.path} is encrypted, or its first bytes are damaged")

    def connect(self, *, read_only: bool) -> sqlite3.Connection:
        """Open the file in autocommit mode; the caller uses it in one thread at a time."""
        if read_only:
            return self._open("mode=ro")
        try:
            make_private(self.path)  # SQLite gives its log and shared memory the same mode
        except OSError as error:
            raise GalleryNotWritable(
                f"{self.path} cannot be created: {error.strerror or error}",
                "check the permissions of the folder",
            ) from error
        connection = self._open("mode=rw")
        try:
            # Both take effect only before the first table is created.
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise GalleryNotWritable(
                    f"{self.path} cannot have a write-ahead log (journal mode {mode})",
                    "keep the gallery on a local disk, not on a network share",
                )
            for pragma in _DURABLE:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_frozen(self) -> sqlite3.Connection:
        """Open the file on a read-only medium, without a lock or a log."""
        return self._open("mode=ro&immutable=1")

    def lacks_columns(self) -> bool:
        """Whether a table or a column that every gallery has is missing."""
        try:
            with (
                closing(sqlite3.connect(":memory:")) as new,
                closing(self.connect(read_only=True)) as found,
            ):
                for statements in MIGRATIONS:
                    for statement in statements:
                        new.execute(statement)
                return not _columns(new) <= _columns(found)
        except (sqlite3.Error, self.driver.Error):
            return False

    def _open(self, options: str) -> sqlite3.Connection:
        with _opening:
            if any(driver is not self.driver for driver, _ in _open_here(self.path)):
                raise GalleryLocked(
                    f"{self.path.parent} is open in this process", "close it in all processes first"
                )
            connection: sqlite3.Connection = self.driver.connect(
                f"{self.path.absolute().as_uri()}?{options}",
                uri=True,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
                factory=_registered(self.driver.Connection),
            )
            _connections[connection] = _file(self.path), self.driver, self._key is not None
        leak_in_children(connection)  # https://sqlite.org/howtocorrupt.html, section 2.6
        try:
            if self._key is not None:
                _unlock(connection, self._key, self.path)
        except BaseException:
            connection.close()
            raise
        return connection


def _unlock(connection: sqlite3.Connection, key: bytes, path: Path) -> None:
    """Give a new connection its key; raises WrongKey if the key does not open the file."""
    connection.execute("PRAGMA cipher_log_level = NONE")  # SQLCipher would write to standard error
    connection.execute(f"PRAGMA key = {quoted(key)}")
    set_format(connection, "main")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except connection.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise WrongKey(f"the key does not open {path}, or its first page is damaged") from error
    connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")


def set_format(connection: sqlite3.Connection, schema: str) -> None:
    """Set the file format of SQLCipher 4, in any version of SQLCipher, with larger pages."""
    connection.execute(f"PRAGMA {schema}.cipher_compatibility = 4")
    connection.execute(f"PRAGMA {schema}.cipher_page_size = {PAGE}")


def quoted(key: bytes) -> str:
    """Quote a key for SQLCipher's statements, as a raw key without key derivation."""
    return f"\"x'{key.hex()}'\""


@cache
def _registered(kind: Any) -> Any:
    """Derive a class of connections that leave `_connections` once they are closed."""

    class Connection(kind):  # type: ignore[misc]
        def close(self) -> None:
            super().close()
            _connections.pop(self, None)

    return Connection


def _open_here(path: Path) -> list[tuple[Any, bool]]:
    """Return driver and keyedness of this process's connections to a file; hold `_opening`."""
    file = _file(path)
    # `keyrefs` makes a list in one step; other threads close connections meanwhile.
    found = [reference() for reference in _connections.keyrefs()]
    entries = [_connections.get(connection) for connection in found if connection is not None]
    return [entry[1:] for entry in entries if entry and file and entry[0] == file]


def _file(path: Path) -> tuple[int, ...]:
    """Return what identifies a file in this process, not in its forks; nothing if missing."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return os.getpid(), status.st_dev, status.st_ino


def _looks_plain(path: Path) -> bool | None:
    """Read whether a file is not encrypted; None if it is new or damaged."""
    head, size = b"", 0
    with suppress(OSError), path.open("rb") as stream:
        head, size = stream.read(len(_MAGIC)), path.stat().st_size
    if not head or size % PAGE:
        return None
    # The damaged header of a plain file still has most of its bytes.
    return sum(a == b for a, b in zip(head, _MAGIC, strict=False)) > len(_MAGIC) / 2


def refuse_foreign(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a gallery's schema; 0 if the database is still empty.

    Raises
    ------
    InvalidParameter
        The database is another program's, or a newer facecore made it.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise InvalidParameter(f"{path} is not the database of a gallery", "name another folder")
    if version > len(MIGRATIONS):
        raise InvalidParameter(
            f"{path} has version {version} of the schema, this facecore knows {len(MIGRATIONS)}",
            "update facecore: pip install --upgrade facecore",
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, in one transaction."""
    if refuse_foreign(connection, path) == len(MIGRATIONS):
        return
    with changing(connection):
        version = refuse_foreign(connection, path)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < DIGESTS:
            _add_digests(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def changing(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction: commit at the end, roll back after an error."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # inside: Ctrl-C may come right after it
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # some errors end the transaction by themselves
            connection.execute("ROLLBACK")


def _add_digests(connection: sqlite3.Connection) -> None:
    """Make the digest key, and the digests of the existing faces."""
    stored = digests.new_key()
    connection.execute("INSERT INTO meta VALUES (?, ?)", (digests.KEY, stored))
    digest = partial(digests.digest, digests.read_key(stored) or b"")
    connection.create_function("digest", 8, digest)
    connection.execute(
        f"UPDATE faces SET digest = (SELECT digest({digests.COLUMNS}) FROM faces f"
        " JOIN groups g ON g.id = f.group_id JOIN templates t ON t.id = f.id"
        " WHERE f.id = faces.id)"
    )


def digest_key(connection: sqlite3.Connection, path: Path) -> bytes:
    """Return the key of the faces' digests; raises GalleryCorrupt if it is damaged."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (digests.KEY,)).fetchone()
    key = digests.read_key(row and row[0])
    if key is None:
        raise GalleryCorrupt(f"{path}: the key of its digests is damaged")
    return key


def check_contract(
    connection: sqlite3.Connection, contract: Contract, path: Path, *, fill: bool
) -> None:
    """Check the engine's contract against the gallery's; `fill` stores it in a new gallery."""
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if fill and set(meta) <= {digests.KEY}:
        rows = [("contract", contract.id), ("pack", contract.pack)]
        rows.append(("dimension", str(contract.dimension)))
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        return
    if meta.get("contract") != contract.id:
        raise ContractMismatch(
            f"{path.parent} holds templates of the pack {meta.get('pack')} "
            f"(contract {meta.get('contract')}), not of {contract.pack} (contract {contract.id})"
        )
    if meta.get("dimension") != str(contract.dimension):
        raise GalleryCorrupt(f"{path}: its dimension is {meta.get('dimension')!r}")


def _columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(
        connection.execute(
            "SELECT s.name, c.name FROM sqlite_master s, pragma_table_info(s.name) c"
            " WHERE s.type = 'table'"
        )
    )
