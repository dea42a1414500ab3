"""Tables of a gallery's database, and migrations from older versions.

Faces and templates are separate tables to make erasure safe.  A removed template is overwritten in
place and its row stays, because SQLite's ``secure_delete`` is not enough.  It overwrites the
deleted row.  But when SQLite merges pages after a deletion, it may leave a copy of a *neighbouring*
row in the unused part of a page.  That copy would survive the deletion of the neighbouring row.
Rows of a table that only grows at its end never move.  `compact` rewrites the table and drops the
old one as a whole.
"""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "DIGESTS", "MIGRATIONS", "READABLE", "TEMPLATES"]

APPLICATION_ID = 0x66634731  # "fcG1"

# Versions of the schema: the oldest that can be read without a migration, and the first with
# digests of faces.
READABLE, DIGESTS = 1, 2

TEMPLATES = "CREATE TABLE {name} (id INTEGER PRIMARY KEY, vector BLOB NOT NULL)"

# One tuple of statements per version; released statements never change.  AUTOINCREMENT never reuses
# an id, so an index that holds all ids up to n stays complete up to n.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE groups (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            title TEXT NOT NULL,
            description TEXT NOT NULL,
            created INTEGER NOT NULL,      -- microseconds since 1970, UTC
            size INTEGER NOT NULL DEFAULT 0
        )""",
        """CREATE TABLE faces (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            face_id BLOB NOT NULL UNIQUE,  -- 16 bytes
            group_id INTEGER NOT NULL REFERENCES groups (id),
            user_id TEXT NOT NULL,
            origin TEXT NOT NULL,
            quality REAL,
            created INTEGER NOT NULL
        )""",
        "CREATE INDEX faces_by_group ON faces (group_id)",
        "CREATE INDEX faces_by_user ON faces (user_id, group_id)",
        TEMPLATES.format(name="templates"),
        # Faces that other processes and saved indexes still have to remove.
        """CREATE TABLE removals (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            face INTEGER NOT NULL
        )""",
    ),
    # See digests.py; `connection.migrate` fills the column.
    ("ALTER TABLE faces ADD COLUMN digest BLOB",),
)
