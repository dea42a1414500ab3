"""SQLite connections: durability and schema migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from facecore._utils.atomic_files import make_private
from facecore._utils.forks import leak_in_children
from facecore.errors import (
    ContractMismatch,
    GalleryCorrupt,
    GalleryNotWritable,
    InvalidParameter,
)
from facecore.gallery.records import Contract
from facecore.gallery.sqlite import digests
from facecore.gallery.sqlite.schema import APPLICATION_ID, DIGESTS, MIGRATIONS

__all__ = [
    "PATIENCE",
    "check_contract",
    "connect",
    "connect_frozen",
    "digest_key",
    "lacks_columns",
    "migrate",
    "refuse_foreign",
]

# How long a statement waits for another process, in seconds.
PATIENCE = 10.0

# Templates of 128 and of 512 numbers fill such a page well; one of 4096 bytes holds but one of 512.
_PAGE = 8192

_DURABLE = (
    "PRAGMA synchronous = FULL",  # in WAL mode: a commit returns after the log was synced
    "PRAGMA fullfsync = ON",  # the same on macOS, where fsync alone stops at the drive
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",  # no copy of anything outside the folder
)


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a database in autocommit mode; the caller uses it in one thread at a time."""
    if read_only:
        return _open(f"{path.absolute().as_uri()}?mode=ro")
    try:
        make_private(path)  # SQLite gives its log and shared memory the same mode
    except OSError as error:
        raise GalleryNotWritable(
            f"{path} cannot be made: {error.strerror or error}",
            "check who may write to the folder",
        ) from error
    connection = _open(f"{path.absolute().as_uri()}?mode=rw")
    try:
        # Both only matter before the first table, and change nothing later.
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise GalleryNotWritable(
                f"{path} cannot have a write-ahead log (journal mode {mode})",
                "keep the gallery on a local disk, not on a network share",
            )
        for pragma in _DURABLE:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_frozen(path: Path) -> sqlite3.Connection:
    """Open a database on a medium that nobody can write to: no lock, no log."""
    return _open(f"{path.absolute().as_uri()}?mode=ro&immutable=1")


class _Connection(sqlite3.Connection):
    """One that weak references can point to."""


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
        check_same_thread=False,
        factory=_Connection,
    )
    leak_in_children(connection)  # https://sqlite.org/howtocorrupt.html, section 2.6
    return connection


def refuse_foreign(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a gallery's schema; 0 where the database is still empty.

    Raises
    ------
    InvalidParameter
        It is another program's database, or a newer facecore made it.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise InvalidParameter(f"{path} is not the database of a gallery", "name another folder")
    if version > len(MIGRATIONS):
        raise InvalidParameter(
            f"{path} has version {version} of the schema, this facecore knows {len(MIGRATIONS)}",
            "update facecore: pip install --upgrade facecore",
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, whole or not at all."""
    if refuse_foreign(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = refuse_foreign(connection, path)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < DIGESTS:
            _add_digests(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _add_digests(connection: sqlite3.Connection) -> None:
    """Make the key, and the digests of the faces that are there."""
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
    """The key of the faces' digests; raises GalleryCorrupt where it is damaged."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (digests.KEY,)).fetchone()
    key = digests.read_key(row and row[0])
    if key is None:
        raise GalleryCorrupt(f"{path}: the key of its digests is damaged")
    return key


def check_contract(
    connection: sqlite3.Connection, contract: Contract, path: Path, *, fill: bool
) -> None:
    """Hold the engine's contract against the gallery's; a new gallery takes it."""
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


def lacks_columns(path: Path) -> bool:
    """Whether a table or a column that every gallery has is missing."""
    try:
        with (
            closing(sqlite3.connect(":memory:")) as new,
            closing(connect(path, read_only=True)) as found,
        ):
            for statements in MIGRATIONS:
                for statement in statements:
                    new.execute(statement)
            return not _columns(new) <= _columns(found)
    except sqlite3.Error:
        return False


def _columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(
        connection.execute(
            "SELECT s.name, c.name FROM sqlite_schema s, pragma_table_info(s.name) c"
            " WHERE s.type = 'table'"
        )
    )
