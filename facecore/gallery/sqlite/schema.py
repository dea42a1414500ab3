"""The tables of a gallery, and how an older set of them becomes the present one.

Faces and templates are two tables for the sake of erasure.  A template is overwritten where it
lies and its row stays, for SQLite's ``secure_delete`` is not enough: it overwrites the row that
is deleted, but where pages are merged after a deletion, a copy of a *neighbour* may be left in the
unused part of a page, and would survive that neighbour's own deletion.  Rows of a table that only
grows at its end never move.  `compact` writes the table anew and drops the old one whole.
"""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "DIGESTS", "MIGRATIONS", "READABLE", "TEMPLATES"]

APPLICATION_ID = 0x66634731  # "fcG1"

# Versions of the schema: the oldest that can be read without a migration, and the first whose
# faces have digests.
READABLE, DIGESTS = 1, 2

TEMPLATES = "CREATE TABLE {name} (id INTEGER PRIMARY KEY, vector BLOB NOT NULL)"

# One tuple of statements per version; what was released never changes.  AUTOINCREMENT: an id is
# never used again, so that "all ids up to n" stays true of an index once it is.
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
        # What other processes and saved indexes still have to forget.
        """CREATE TABLE removals (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            face INTEGER NOT NULL
        )""",
    ),
    # See digests.py; `connection.migrate` fills it.
    ("ALTER TABLE faces ADD COLUMN digest BLOB",),
)
