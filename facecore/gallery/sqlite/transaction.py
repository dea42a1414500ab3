"""SQL of a gallery: consistent reads (`Snapshot`) and atomic changes (`Transaction`)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Never, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facecore.errors import (
    GalleryCorrupt,
    GroupExists,
    GroupNotFound,
    InvalidParameter,
    RecordNotFound,
    UserExists,
)
from facecore.gallery.records import (
    FaceRecord,
    Group,
    NewFace,
    OnExisting,
    from_microseconds,
    to_microseconds,
)
from facecore.gallery.sqlite.digests import COLUMNS, digest
from facecore.gallery.sqlite.schema import TEMPLATES
from facecore.matching.similarity import are_unit

__all__ = ["WAY_BACK", "Row", "Snapshot", "State", "Transaction"]

WAY_BACK = "restore the folder from a backup, or remove the face and add it again"

# Removals kept for the indexes of other processes; an index further behind is rebuilt.
_REMEMBERED = 100_000
_GROUP = "SELECT id, name, title, description, created, size FROM groups"
# LEFT JOIN: a face without its group or template is damaged, not absent.
_FACES = (
    " FROM faces f LEFT JOIN groups g ON g.id = f.group_id LEFT JOIN templates t ON t.id = f.id"
)


Row: TypeAlias = tuple[Any, ...]
"""A stored face: its digest and the values of `COLUMNS`, with the template last."""
_ID = 1  # index of the id in a row


@dataclass(frozen=True, slots=True)
class State:
    """Position in the history of a gallery: ids of the last addition and the last removal."""

    face: int
    removal: int


class Snapshot:
    """The gallery at one moment.

    Parameters
    ----------
    connection : Connection
        Inside a transaction.
    dimension : int
        Length D of a template.
    key : bytes
        Key of the faces' digests; empty if the schema has none.
    """

    def __init__(self, connection: sqlite3.Connection, dimension: int, key: bytes) -> None:
        self._connection = connection
        self._dimension = dimension
        self._key = key
        self._select = f"SELECT {'f.digest' if key else 'NULL'}, {COLUMNS}{_FACES}"

    def state(self) -> State:
        """Return the position in the history."""
        return self.state_and_groups(())[0]

    def state_and_groups(self, names: Sequence[str]) -> tuple[State, list[tuple[int, int]]]:
        """Return the position in the history, and the ids and sizes of groups.

        Raises
        ------
        GroupNotFound
            One of the groups does not exist.
        """
        counters: dict[str, int] = {}
        groups: dict[str, tuple[int, int]] = {}
        for name, number, size in self._all(
            "SELECT name, seq, NULL FROM sqlite_sequence UNION ALL"
            " SELECT name, id, size FROM groups WHERE name IN (SELECT value FROM json_each(?))",
            json.dumps(names),
        ):
            if size is None:
                counters[name] = number
            else:
                groups[name] = number, size
        state = State(counters.get("faces", 0), counters.get("removals", 0))
        return state, [groups[name] if name in groups else _no_group(name) for name in names]

    def oldest_removal(self) -> int:
        """Return the last removal that is no longer in the log."""
        first = self._one("SELECT min(seq) FROM removals")[0]
        return self.state().removal if first is None else int(first) - 1

    def group(self, name: str) -> Group:
        """Return a group by name; raises GroupNotFound."""
        row = self._one(f"{_GROUP} WHERE name = ?", name)
        return _no_group(name) if row is None else _group(row)

    def group_by_id(self, number: int) -> Group:
        """Return a group by id; raises GroupNotFound."""
        row = self._one(f"{_GROUP} WHERE id = ?", number)
        if row is None:
            raise GroupNotFound(f"the gallery has no group of id {number}")
        return _group(row)

    def groups(self, offset: int, limit: int | None, title: str | None) -> list[Group]:
        """Return a page of the groups in order of id."""
        where, values = ("", ()) if title is None else (" WHERE title = ?", (title,))
        most = -1 if limit is None else limit
        rows = self._all(f"{_GROUP}{where} ORDER BY id LIMIT ? OFFSET ?", *values, most, offset)
        return [_group(row) for row in rows]

    def totals(self) -> tuple[int, int, int]:
        """Count groups, faces and users."""
        groups, faces = self._one("SELECT count(*), coalesce(sum(size), 0) FROM groups")
        users = self._one("SELECT count(DISTINCT user_id) FROM faces")[0]
        return int(groups), int(faces), int(users)

    def size(self) -> int:
        """Count the faces."""
        return int(self._one("SELECT coalesce(sum(size), 0) FROM groups")[0])

    def overwritten(self) -> int:
        """Count the overwritten templates whose rows still exist."""
        row = self._one("SELECT value FROM meta WHERE key = 'compacted'")
        with _damage("the number of removals"):
            return self.state().removal - (int(row[0]) if row else 0)

    def face(self, column: str, value: int | bytes) -> FaceRecord:
        """Return the record with this value in `column` (``id`` or ``face_id``).

        Raises
        ------
        RecordNotFound
        GalleryCorrupt
            The face is damaged; also raised by the other methods that return records.
        """
        row = self._one(f"{self._select} WHERE f.{column} = ?", value)
        if row is None:
            shown = value.hex() if isinstance(value, bytes) else value
            raise RecordNotFound(f"the gallery has no face of {column} {shown}")
        return self.record(row)

    def rows(self, where: dict[str, Any], offset: int, limit: int, after: int) -> list[Row]:
        """Return a page of the faces that match, with ids above `after`, in order of id."""
        terms, values = _terms(where)
        return self._all(
            # A subquery, to skip the offset without reading templates.
            f"{self._select} WHERE f.id IN (SELECT f.id FROM faces f WHERE f.id > ? {terms}"
            " ORDER BY f.id LIMIT ? OFFSET ?) ORDER BY f.id",
            after,
            *values,
            limit,
            offset,
        )

    def rows_of(self, ids: NDArray[np.int64]) -> list[Row]:
        """Return the faces of the ids, in order; raises GalleryCorrupt if one is missing."""
        wanted = ids.tolist()
        rows = self._all(
            f"{self._select} WHERE f.id IN (SELECT value FROM json_each(?))", json.dumps(wanted)
        )
        found = {row[_ID]: row for row in rows}
        try:
            return [found[number] for number in wanted]
        except KeyError as error:
            raise GalleryCorrupt(f"the face of id {error} is gone") from error

    def count(self, where: dict[str, Any]) -> int:
        """Count the records that match; None in `where` matches every value."""
        terms, values = _terms(where)
        return int(self._one(f"SELECT count(*) FROM faces f WHERE TRUE {terms}", *values)[0])

    def known(self, face_ids: Collection[str]) -> set[str]:
        """Return the subset of the face ids that are stored."""
        found: set[str] = set()
        remaining = iter(face_ids)
        while some := [bytes.fromhex(face_id) for face_id in islice(remaining, 500)]:
            marks = ", ".join("?" * len(some))
            rows = self._all(f"SELECT face_id FROM faces WHERE face_id IN ({marks})", *some)
            found.update(row[0].hex() for row in rows)
        return found

    def groups_of(self, user_id: str) -> list[str]:
        """List the names of the groups that hold a user, in order of group id."""
        rows = self._all(
            "SELECT name FROM groups WHERE id IN (SELECT group_id FROM faces WHERE user_id = ?)"
            " ORDER BY id",
            user_id,
        )
        return [row[0] for row in rows]

    def after(self, face: int, limit: int) -> tuple[Any, Any, Any]:
        """Return the next faces: ids int64 (n,), group ids int32 (n,), templates (n, D)."""
        rows = self._all(
            "SELECT f.id, f.group_id, t.vector FROM faces f JOIN templates t ON t.id = f.id"
            " WHERE f.id > ? ORDER BY f.id LIMIT ?",
            face,
            limit,
        )
        ids = [row[0] for row in rows]
        vectors = self._templates(ids, [row[2] for row in rows])
        return np.array(ids, np.int64), np.array([row[1] for row in rows], np.int32), vectors

    def count_after(self, face: int) -> int:
        """Count the faces with ids above `face`."""
        return int(self._one("SELECT count(*) FROM faces WHERE id > ?", face)[0])

    def removals(self, after: int) -> NDArray[np.int64]:
        """Return the ids of the faces removed after the removal `after`."""
        rows = self._all("SELECT face FROM removals WHERE seq > ?", after)
        return np.array([row[0] for row in rows], np.int64)

    def fingerprint(self, upto: int) -> str:
        """Identify the set of faces with ids up to `upto`.

        Differs between two histories that diverged, for example after a backup was restored.
        """
        count, total, last = self._one(
            "SELECT count(*), coalesce(sum(id), 0), max(id) FROM faces WHERE id <= ?", upto
        )
        row = self._one("SELECT hex(face_id) FROM faces WHERE id = ?", last)
        return f"{count}-{total}-{row[0].lower() if row else ''}"

    def damage(self) -> str:
        """Return the first fault that SQLite finds in the file, or an empty string."""
        found = str(self._one("PRAGMA integrity_check(1)")[0])
        return "" if found == "ok" else found

    def damaged_faces(self) -> list[str]:
        """List the face ids of all damaged faces."""
        rows = self._connection.execute(self._select)
        return [_shown(row[2]) for row in rows if self._is_damaged(row)]

    def vectors(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return the templates of rows.

        Returns
        -------
        ndarray, shape (n, D), float32

        Raises
        ------
        GalleryCorrupt
            A template is missing or not of unit length; the error names the face.
        """
        return self._templates([row[_ID] for row in rows], [row[-1] for row in rows])

    def _templates(self, ids: Sequence[int], blobs: Sequence[Any]) -> NDArray[np.float32]:
        vectors = self._unpacked(blobs)
        if vectors is None:
            # Check one by one only after a failure, which is rare.  Each template is passed twice,
            # because a single row is measured with another rounding.
            pairs = zip(ids, blobs, strict=True)
            bad = [i for i, blob in pairs if self._unpacked([blob, blob]) is None]
            what = "a template"
            if bad:
                (face_id,) = self._one("SELECT face_id FROM faces WHERE id = ?", bad[0])
                what = f"the template of the face {_shown(face_id)} (id {bad[0]})"
            raise GalleryCorrupt(f"{what} is damaged", WAY_BACK)
        return vectors

    def _unpacked(self, blobs: Sequence[Any]) -> NDArray[np.float32] | None:
        if None in blobs or not set(map(len, blobs)) <= {4 * self._dimension}:
            return None
        vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), self._dimension)
        return vectors.astype(np.float32, copy=False) if are_unit(vectors) else None

    def _is_damaged(self, row: Any) -> bool:
        return bool(self._key) and digest(self._key, *row[1:]) != row[0]

    def record(self, row: Row) -> FaceRecord:
        """Return the record of a row; raises GalleryCorrupt if the row is damaged."""
        _, number, face_id, user_id, group, quality, origin, created, _ = row
        if self._is_damaged(row):
            raise GalleryCorrupt(f"the face {_shown(row[2])} (id {number}) is damaged", WAY_BACK)
        return FaceRecord(
            number,
            face_id.hex(),
            user_id.decode(),
            group.decode(),
            quality,
            origin.decode(),
            from_microseconds(created),
        )

    def _all(self, statement: str, *values: Any) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str, *values: Any) -> Any:
        return self._connection.execute(statement, values).fetchone()


class Transaction(Snapshot):
    """The gallery inside a transaction that may change it.

    Parameters
    ----------
    connection, dimension, key
        As in `Snapshot`.
    check : callable
        Raises if a commit would be lost.

    Attributes
    ----------
    removed : list of ndarray
        Ids of the removed faces.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        dimension: int,
        key: bytes,
        check: Callable[[], None],
    ) -> None:
        super().__init__(connection, dimension, key)
        self._check = check
        self.removed: list[NDArray[np.int64]] = []

    def commit(self) -> None:
        """Commit the changes; they then survive a crash and a power loss."""
        self._check()
        self._connection.execute("COMMIT")

    def create_group(self, name: str, title: str, description: str) -> Group:
        """Add a group; raises GroupExists."""
        try:
            self._connection.execute(
                "INSERT INTO groups (name, title, description, created) VALUES (?, ?, ?, ?)",
                (name, title, description, to_microseconds(datetime.now(UTC))),
            )
        except self._connection.IntegrityError as error:
            raise GroupExists(f"the gallery has a group {name!r} already") from error
        return self.group(name)

    def update_group(
        self, name: str, title: str | None, description: str | None, number: int | None
    ) -> Group:
        """Set the fields that are not None; raises GroupNotFound, also for another id."""
        group = self._chosen(name, number)
        self._connection.execute(
            "UPDATE groups SET title = ?, description = ? WHERE id = ?",
            (
                group.title if title is None else title,
                group.description if description is None else description,
                group.id,
            ),
        )
        return self.group(name)

    def delete_group(self, name: str, number: int | None) -> int:
        """Delete a group and its faces; return their number.  Raises as `update_group`."""
        group = self._chosen(name, number)
        count = self._remove(group, {})
        self._connection.execute("DELETE FROM groups WHERE id = ?", (group.id,))
        return count

    def add(
        self,
        name: str,
        faces: Sequence[NewFace],
        vectors: NDArray[np.float32],
        on_existing: OnExisting = "add",
    ) -> list[FaceRecord]:
        """Add faces to a group, in order.

        Raises
        ------
        GroupNotFound, UserExists
        InvalidParameter
            A face id is already stored.
        """
        group = self.group(name)
        if on_existing != "add":
            for user_id in dict.fromkeys(face.user_id for face in faces):
                if on_existing == "replace":
                    self._remove(group, {"user_id": user_id})
                elif self.count({"group_id": group.id, "user_id": user_id}):
                    raise UserExists(f"the group {name!r} holds the user {user_id!r} already")
        first = self.state().face + 1
        ids = range(first, first + len(faces))
        little = np.ascontiguousarray(vectors, "<f4")
        templates: list[bytes] = little.view(f"V{4 * self._dimension}")[:, 0].tolist()
        rows = [self._row(i, f, group, t) for i, f, t in zip(ids, faces, templates, strict=True)]
        try:
            self._connection.executemany("INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except self._connection.IntegrityError as error:
            raise InvalidParameter(
                f"the gallery already has a face with one of these ids: {faces[0].face_id}"
                + (f" .. {faces[-1].face_id}" if len(faces) > 1 else ""),
                "leave out face_ids: the gallery creates new ones",
            ) from error
        self._connection.executemany(
            "INSERT INTO templates VALUES (?, ?)", zip(ids, templates, strict=True)
        )
        self._resize(group, len(faces))
        return [
            FaceRecord(i, f.face_id, f.user_id, name, f.quality, f.origin, f.created)
            for i, f in zip(ids, faces, strict=True)
        ]

    def remove(self, name: str, user_id: str | None, face_id: str | None) -> int:
        """Remove a user's faces, or one face, from a group; return their number."""
        face = None if face_id is None else bytes.fromhex(face_id)
        return self._remove(self.group(name), {"user_id": user_id, "face_id": face})

    def rewrite_templates(self) -> None:
        """Rewrite the table of templates without the rows of removed faces."""
        for statement in (
            TEMPLATES.format(name="compacted"),
            "INSERT INTO compacted SELECT t.id, t.vector FROM templates t"
            " WHERE EXISTS (SELECT 1 FROM faces f WHERE f.id = t.id) ORDER BY t.id",
            "DROP TABLE templates",
            "ALTER TABLE compacted RENAME TO templates",
            "DELETE FROM removals WHERE seq <="
            f" (SELECT seq - {_REMEMBERED} FROM sqlite_sequence WHERE name = 'removals')",
        ):
            self._connection.execute(statement)
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (str(self.state().removal),)
        )

    def _chosen(self, name: str, number: int | None) -> Group:
        group = self.group(name)
        if number not in (None, group.id):
            raise GroupNotFound(f"the gallery has no group {name!r} of id {number}")
        return group

    def _remove(self, group: Group, where: dict[str, Any]) -> int:
        terms, values = _terms({"group_id": group.id, **where})
        rows = self._all(f"SELECT f.id FROM faces f WHERE TRUE {terms} ORDER BY f.id", *values)
        if not rows:
            return 0
        run = self._connection.executemany
        run("UPDATE templates SET vector = zeroblob(length(vector)) WHERE id = ?", rows)
        try:
            run("DELETE FROM faces WHERE id = ?", rows)
        except self._connection.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            self._connection.execute("REINDEX faces")  # an index does not match a damaged row
            run("DELETE FROM faces WHERE id = ?", rows)
        run("INSERT INTO removals (face) VALUES (?)", rows)
        self._resize(group, -len(rows))
        self.removed.append(np.array([row[0] for row in rows], np.int64))
        return len(rows)

    def _row(self, number: int, face: NewFace, group: Group, template: bytes) -> tuple[Any, ...]:
        """Make a row of the table of faces."""
        face_id, created = bytes.fromhex(face.face_id), to_microseconds(face.created)
        texts = face.user_id.encode(), group.name.encode(), face.quality, face.origin.encode()
        check = digest(self._key, number, face_id, *texts, created, template)
        return number, face_id, group.id, face.user_id, face.origin, face.quality, created, check

    def _resize(self, group: Group, change: int) -> None:
        self._connection.execute(
            "UPDATE groups SET size = size + ? WHERE id = ?", (change, group.id)
        )


def _shown(face_id: Any) -> str:
    """Format a face id that may be damaged."""
    return f"{face_id.hex() if isinstance(face_id, bytes) else face_id!s:.32}"


def _no_group(name: str) -> Never:
    raise GroupNotFound(f"the gallery has no group {name!r}")


def _group(row: Any) -> Group:
    number, name, title, description, created, size = row
    with _damage(f"the group {name!r:.80}"):
        return Group(number, name, title, description, from_microseconds(created), size)


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    try:
        yield
    except (OverflowError, TypeError, ValueError) as error:
        raise GalleryCorrupt(f"{what} is damaged") from error


def _terms(where: dict[str, Any]) -> tuple[str, list[Any]]:
    given = {column: value for column, value in where.items() if value is not None}
    return "".join(f" AND f.{column} = ?" for column in given), list(given.values())
