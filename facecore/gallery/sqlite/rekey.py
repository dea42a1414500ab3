"""Change the key of a gallery: encrypt it, decrypt it, or replace its key."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from facecore._utils.atomic_files import make_private, sync, sync_folder
from facecore.errors import (
    GalleryCorrupt,
    GalleryLocked,
    GalleryNotWritable,
    InvalidParameter,
    WrongKey,
)
from facecore.gallery.keys import GalleryKey, as_key
from facecore.gallery.sqlite.connection import (
    PAGE,
    Database,
    digest_key,
    migrate,
    quoted,
    set_format,
)
from facecore.gallery.sqlite.folder import DATABASE, INDEX, FolderLock, partial_copy
from facecore.gallery.sqlite.store import translate_errors
from facecore.gallery.sqlite.transaction import Snapshot

__all__ = ["rekey"]


def rekey(
    folder: str | os.PathLike[str],
    *,
    key: GalleryKey | None = None,
    new_key: GalleryKey | None = None,
) -> int:
    """Encrypt a gallery under another key, or decrypt it.

    The gallery must not be open.  `rekey` writes a copy under the new key, reads and checks it, and
    replaces the database with it.  A crash leaves the old or the new database, complete; call
    `rekey` again after a crash.  For a moment the folder needs twice the space.

    The old file is deleted, not overwritten.  Remains of it on a disk, in a snapshot or in a backup
    can still be read with the old key, or without a key if the old file was not encrypted.

    Parameters
    ----------
    folder : str or PathLike
    key : bytes, str or callable, optional
        The current key, as in `facecore.Gallery`; None for a gallery that is not encrypted.
    new_key : bytes, str or callable, optional
        None to decrypt the gallery.

    Returns
    -------
    int
        Number of faces.

    Raises
    ------
    WrongKey
        Neither key opens the gallery.
    GalleryLocked
        The gallery is open.
    GalleryCorrupt, GalleryNotWritable
        The gallery is damaged, or the disk is full, for example.  Nothing was changed.
    InvalidParameter
        There is no gallery, or both keys are the same.
    MissingExtra
        The extra ``encryption`` is not installed.
    """
    place = Path(folder)
    old = None if key is None else as_key(key)
    new = None if new_key is None else as_key(new_key)
    if old == new:
        raise InvalidParameter("the new key is the old one", "give another key")
    if not (place / DATABASE).is_file():
        raise InvalidParameter(f"there is no gallery in {place}", "check the folder")
    lock = FolderLock(place)
    try:
        return _rekey(place, old, new)
    except OSError as error:
        raise GalleryNotWritable(f"{place}: {error.strerror or error}") from error
    finally:
        lock.release()


def _rekey(folder: Path, old: bytes | None, new: bytes | None) -> int:
    path, copy = folder / DATABASE, partial_copy(folder)
    copy.unlink(missing_ok=True)
    source, target = Database(path, old, cipher=True), Database(copy, new, cipher=True)
    with translate_errors(source):
        try:
            source.check_key()
            connection = source.connect(read_only=False)
        except WrongKey:
            return _finished(Database(path, new, cipher=True))
        with closing(connection):
            migrate(connection, path)
            _shut_out(connection, folder)
            try:
                make_private(copy)
                _export(connection, copy, new)
                count = _check(target, connection)
                sync(copy)
                if (folder / INDEX).exists():
                    shutil.rmtree(folder / INDEX)  # holds plain vectors, and can be rebuilt
                if sys.platform == "win32":
                    connection.close()  # an open file cannot be replaced
                os.replace(copy, path)
            finally:
                copy.unlink(missing_ok=True)
            sync_folder(folder)
    return count


def _shut_out(connection: sqlite3.Connection, folder: Path) -> None:
    """Refuse if another connection has the database open; keep others from opening it."""
    statements = "journal_mode = DELETE", "locking_mode = EXCLUSIVE"
    try:
        for statement in statements:
            connection.execute(f"PRAGMA {statement}").fetchone()
        connection.execute("BEGIN EXCLUSIVE")  # takes the lock, which outlasts the commit
        connection.execute("COMMIT")
    except connection.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        raise GalleryLocked(
            f"{folder} is open for reading", "close it in all processes first"
        ) from error


def _export(connection: sqlite3.Connection, copy: Path, key: bytes | None) -> None:
    secret = "''" if key is None else quoted(key)
    connection.execute(f"ATTACH ? AS copy KEY {secret}", (str(copy),))
    if key is not None:
        set_format(connection, "copy")
    connection.execute("PRAGMA copy.journal_mode = OFF")  # after a failure, the copy is deleted
    connection.execute(f"PRAGMA copy.page_size = {PAGE}")
    connection.execute("PRAGMA copy.auto_vacuum = INCREMENTAL")
    # Not sqlcipher_export, whose errors all have one code.
    connection.execute("BEGIN")
    created = "SELECT name, type, sql FROM main.sqlite_master WHERE sql NOT NULL ORDER BY rowid"
    for name, kind, statement in connection.execute(created).fetchall():
        if name == "sqlite_sequence":  # SQLite makes it with the first table that has ids
            continue
        connection.execute(re.sub(r"^CREATE \w+ ", r"\g<0>copy.", statement))
        if kind == "table":
            connection.execute(f"INSERT INTO copy.{name} SELECT * FROM main.{name}")
    connection.execute("DELETE FROM copy.sqlite_sequence")
    connection.execute("INSERT INTO copy.sqlite_sequence SELECT * FROM main.sqlite_sequence")
    connection.execute("COMMIT")
    for name in ("application_id", "user_version"):
        value = connection.execute(f"PRAGMA main.{name}").fetchone()[0]
        connection.execute(f"PRAGMA copy.{name} = {value}")
    connection.execute("DETACH copy")


def _check(target: Database, source: sqlite3.Connection) -> int:
    """Read every page and face of the copy; return the number of faces."""
    with translate_errors(target), closing(target.connect_frozen()) as connection:
        snapshot = Snapshot(connection, 0, digest_key(connection, target.path))
        count = snapshot.size()
        whole = Snapshot(source, 0, b"").size() == count
        if not whole or snapshot.damage() or snapshot.damaged_faces():
            raise GalleryCorrupt(f"{target.path.parent} is damaged, so its key was not changed")
    return count


def _finished(database: Database) -> int:
    """Return the number of faces if the gallery already has the new key; else raise WrongKey."""
    database.check_key()
    with closing(database.connect(read_only=True)) as connection:
        sync_folder(database.path.parent)
        return Snapshot(connection, 0, b"").size()
