"""The SQLite database in the folder of a gallery."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from facecore._utils.atomic_files import sync_folder
from facecore.errors import (
    FacecoreError,
    GalleryCorrupt,
    GalleryLocked,
    GalleryNotWritable,
    GalleryUnusable,
    InvalidParameter,
)
from facecore.gallery.records import Contract
from facecore.gallery.sqlite.connection import (
    PATIENCE,
    Database,
    changing,
    check_contract,
    digest_key,
    migrate,
    refuse_foreign,
)
from facecore.gallery.sqlite.folder import DATABASE, FolderLock, claim, partial_copy
from facecore.gallery.sqlite.schema import DIGESTS, READABLE
from facecore.gallery.sqlite.transaction import WAY_BACK, Snapshot, Transaction

__all__ = ["Store", "file_size", "translate_errors"]

log = logging.getLogger("facecore.gallery")

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_UNWRITABLE = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
)

# Milliseconds that an erasure waits for readers in other processes: the first time, and later.
_ERASURE_PATIENCE, _NEXT_PATIENCE = 2000, 50

_NAMED = 10  # damaged faces listed in one message


class Store:
    """Groups, faces and templates, with transactions.

    Thread-safe: any number of snapshots at once, one change at a time.

    Parameters
    ----------
    folder : Path
        Created with its database if missing, unless `read_only` is set.
    contract : Contract
        Contract of the engine; an existing gallery must have the same.
    read_only : bool
        Open without write access, while another process may write.
    key : bytes, optional
        32 bytes; the database is encrypted under this key.

    Raises
    ------
    WrongKey
        The database is encrypted under another key, or not at all.
    ContractMismatch
        The templates belong to another vector space.
    GalleryLocked
        The gallery is already open for writing.
    GalleryCorrupt
        The database is damaged or is not an SQLite database.
    GalleryNotWritable
        The folder is not writable.
    InvalidParameter
        There is no gallery to read, the folder holds other files, or a newer facecore made the
        gallery.
    """

    def __init__(
        self, folder: Path, contract: Contract, *, read_only: bool, key: bytes | None = None
    ) -> None:
        self.path = folder / DATABASE
        self._database = Database(self.path, key)
        # Strings: making a Path takes longer than calling stat.
        self._names = [f"{self.path}{suffix}" for suffix in ("", "-wal", "-shm")]
        self.read_only = read_only
        self.erasure_pending = False
        self._contract = contract
        self._key = b""  # of the digests; empty if the schema has none
        self._free: list[sqlite3.Connection] = []
        self._mutex = threading.Lock()
        self._changing = threading.RLock()
        self.closed = False
        self._files: list[tuple[int, ...]] = []  # device and inode at opening
        self._process = os.getpid()
        self._lock: FolderLock | None = None
        self._writer: sqlite3.Connection | None = None
        self._frozen: tuple[int, ...] | None = None  # the file at opening, on a read-only medium
        try:
            self._database.check_key()
            if read_only:
                self._open_reader()
            else:
                claim(folder)
                self._lock = FolderLock(folder)
                with contextlib.suppress(OSError):
                    partial_copy(folder).unlink(missing_ok=True)  # left by a process that died
                self._open_writer()
            with self.snapshot():
                pass  # check that a connection works
        except BaseException:
            self.close()
            raise

    def _open_writer(self) -> None:
        new = not self.path.exists()
        with translate_errors(self._database):
            self._writer = self._database.connect(read_only=False)
            migrate(self._writer, self.path)
            with changing(self._writer):
                check_contract(self._writer, self._contract, self.path, fill=True)
                self._key = digest_key(self._writer, self.path)
        self._files = self._identities()
        if new:
            for folder in self.path.parents:  # any of them may be new
                sync_folder(folder)
        self.erase()  # a crash may have left removed templates in the log

    def _open_reader(self) -> None:
        if not self.path.is_file():
            raise InvalidParameter(
                f"there is no gallery in {self.path.parent}",
                "check the folder, or open it without read_only to create a gallery",
            )
        self._files = self._identities()
        with translate_errors(self._database):
            try:
                self._free.append(self._database.connect(read_only=True))
                version = refuse_foreign(self._free[0], self.path)
            except self._database.driver.OperationalError as error:
                refused = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                if error.sqlite_errorcode & 0xFF not in refused or self._log_bytes():
                    raise
                for connection in self._free:
                    connection.close()
                # Readers share memory through a file, which a read-only medium cannot hold.
                self._frozen = self._look()
                self._free = [self._database.connect_frozen()]
                version = refuse_foreign(self._free[0], self.path)
            if not version:
                raise InvalidParameter(f"there is no gallery in {self.path.parent} yet")
            if version < READABLE:
                raise InvalidParameter(
                    f"{self.path} has version {version} of the schema, {READABLE} is needed",
                    "open it once for writing to upgrade it",
                )
            check_contract(self._free[0], self._contract, self.path, fill=False)
            if version >= DIGESTS:
                self._key = digest_key(self._free[0], self.path)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read the gallery at one moment.

        Raises
        ------
        GalleryNotWritable
            The database was removed or replaced; GalleryLocked if it was opened read-only.
        """
        self.check_usable()
        if self._frozen is not None and (self._log_bytes() or self._look() != self._frozen):
            raise GalleryLocked(
                f"this user cannot write to {self.path.parent}, and another process changes it",
                "open it again; to see later changes, let this user write to the folder",
            )
        with translate_errors(self._database):
            connection = self._take()
            try:
                connection.execute("BEGIN")
                yield Snapshot(connection, self._contract.dimension, self._key)
            finally:
                self._give(connection)

    @contextlib.contextmanager
    def change(self) -> Iterator[Transaction]:
        """Begin a transaction; it is rolled back unless the caller commits it.

        Raises
        ------
        GalleryLocked
            The gallery was opened read-only.
        GalleryNotWritable
            For example, the disk is full; nothing was changed.
        """
        self.check_usable()
        if self._writer is None:
            raise GalleryLocked(f"{self.path.parent} was opened with read_only=True")
        with self._changing, translate_errors(self._database):
            self.check_usable()  # it may have been closed while this thread waited
            try:
                self._writer.execute("BEGIN IMMEDIATE")  # inside: Ctrl-C may come right after it
                yield Transaction(
                    self._writer, self._contract.dimension, self._key, self._check_in_place
                )
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Block the changes of other threads."""
        with self._changing:
            yield

    def erase(self) -> None:
        """Empty the write-ahead log, which may hold removed templates.

        A failure (another process is reading, or the disk fails) is logged and sets
        `erasure_pending`.  It is not raised, because the removal itself is already committed.
        """
        if self._writer is None:
            return
        with self._changing:
            patience = _NEXT_PATIENCE if self.erasure_pending else _ERASURE_PATIENCE
            reason = ""
            try:
                self._writer.execute(f"PRAGMA busy_timeout = {patience}")
                if self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    reason = "another process is reading"
            except self._database.driver.Error as error:
                reason = " ".join(str(error).split())
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE:.0f}")
        if reason and not self.erasure_pending:
            log.warning(
                "%s: %s, so copies of removed templates may stay in the write-ahead log until a "
                "later change or close",
                self.path,
                reason,
            )
        self.erasure_pending = bool(reason)

    def shrink(self) -> None:
        """Return free pages to the file system."""
        with self.change() as changes:
            changes.rewrite_templates()
            changes.commit()
        with self._changing, translate_errors(self._database):
            if self._writer is not None:
                # `execute` would stop after the first page.
                self._writer.executescript("PRAGMA incremental_vacuum")
        self.erase()

    def check_whole(self) -> None:
        """Check every page, index and face; raises GalleryCorrupt.  Takes time."""
        with self.snapshot() as snapshot:
            problem = snapshot.damage()
            faces = [] if problem else snapshot.damaged_faces()
        if problem:
            raise GalleryCorrupt(f"{self.path}: {problem:.300}")
        if faces:
            named = ", ".join(faces[:_NAMED]) + (", ..." if len(faces) > _NAMED else "")
            raise GalleryCorrupt(f"{self.path}: damaged faces ({len(faces)}): {named}", WAY_BACK)

    def size_on_disk(self) -> int:
        """Return the bytes of the database and its log."""
        return file_size(self.path) + self._log_bytes()

    def close(self) -> None:
        """Close all connections; the last process to close removes the log."""
        if self.inherited:
            return  # the parent owns all; locks of its threads may never be released here
        with self._changing, self._mutex:
            self.closed = True
            for connection in self._free:
                connection.close()
            self._free.clear()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    @property
    def inherited(self) -> bool:
        """Whether this is a copy in a forked child."""
        return self._process != os.getpid()

    def check_usable(self) -> None:
        """Refuse a gallery that was closed or forked."""
        if self.inherited:
            raise GalleryUnusable(
                "this gallery was opened by another process", "open it in the process that uses it"
            )
        if self.closed:
            raise GalleryUnusable("the gallery is closed")

    def _log_bytes(self) -> int:
        return file_size(self.path.with_name(f"{self.path.name}-wal"))

    def _check_in_place(self) -> None:
        """Refuse to write if the files were deleted or replaced."""
        if self._identities() != self._files:
            raise self._lost()

    def _lost(self) -> FacecoreError:
        kind = GalleryLocked if self.read_only else GalleryNotWritable
        return kind(
            f"{self.path.parent} was removed or replaced while it was open",
            "close the gallery; restore the folder, or open it again",
        )

    def _identities(self) -> list[tuple[int, ...]]:
        return [_identity(name) for name in self._names]

    def _look(self) -> tuple[int, ...]:
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _take(self) -> sqlite3.Connection:
        """Take a free connection or open one; the index in memory must be of the same file."""
        with self._mutex:
            free = self._free.pop() if self._free else None
        connection = free or self._connect()
        if _identity(self._names[0]) == self._files[0]:
            return connection
        if free:
            self._give(free)  # keeps the old file open, so that no other file gets its inode
        else:
            connection.close()
        raise self._lost()

    def _connect(self) -> sqlite3.Connection:
        if self._frozen is not None:
            return self._database.connect_frozen()
        return self._database.connect(read_only=True)

    def _give(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._mutex:
            if self.closed:
                connection.close()
            else:
                self._free.append(connection)


def _identity(name: str) -> tuple[int, ...]:
    """Return the device and inode of a file; nothing if it is missing."""
    try:
        status = os.stat(name)
    except OSError:
        return ()
    return status.st_dev, status.st_ino


def file_size(path: Path) -> int:
    """Return the bytes of a file; 0 if it is missing."""
    try:
        return path.stat().st_size
    except OSError:  # missing
        return 0


@contextlib.contextmanager
def translate_errors(database: Database) -> Iterator[None]:
    """Convert errors of SQLite to errors of facecore, by SQLite's result code."""
    try:
        yield
    except database.driver.Error as error:
        raise _translated(error, database) from error


def _translated(error: sqlite3.Error, database: Database) -> FacecoreError:
    full = getattr(error, "sqlite_errorcode", 0)
    code = full & 0xFF
    if not full and "UTF-8" in str(error):  # the text may contain stored data
        return GalleryCorrupt(f"{database.path}: a stored text is not UTF-8")
    text = f"{database.path}: {' '.join(str(error).split())}"
    if code in _DAMAGED or full == sqlite3.SQLITE_IOERR_SHORT_READ:
        return GalleryCorrupt(text)
    if code == sqlite3.SQLITE_ERROR and database.lacks_columns():
        return GalleryCorrupt(text)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return GalleryLocked(f"{text}, for {PATIENCE:g} s")
    if code in _UNWRITABLE:
        return GalleryNotWritable(text)
    return FacecoreError(text, "this is a fault of facecore: please report it with this message")
