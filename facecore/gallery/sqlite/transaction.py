"""Changes of the store: all of one transaction, or none."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import GroupExists, InvalidParameter, UserExists
from facecore.gallery.records import FaceRecord, Group, NewFace, OnExisting, to_microseconds
from facecore.gallery.sqlite.snapshot import Snapshot

__all__ = ["Transaction"]

# Removals that are kept for the indexes of other processes; one that lags more is built anew.
_REMEMBERED = 100_000


class Transaction(Snapshot):
    """The gallery as the one who changes it sees it.

    Attributes
    ----------
    before : State
        Of the store when the transaction began.
    new : list of (ids, labels, vectors)
        Faces that were added: for the index, once all is committed.
    gone : list of ndarray
        Ids of faces that were removed.
    """

    def __init__(self, connection: sqlite3.Connection, dimension: int) -> None:
        super().__init__(connection, dimension)
        self.before = self.state()
        self.new: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]] = []
        self.gone: list[NDArray[np.int64]] = []

    def commit(self) -> None:
        """Make it last; when this returns, it survives a crash and a loss of power."""
        self._connection.execute("COMMIT")

    def create_group(self, name: str, title: str, description: str) -> Group:
        """Add a group; raises GroupExists."""
        try:
            self._connection.execute(
                "INSERT INTO groups (name, title, description, created) VALUES (?, ?, ?, ?)",
                (name, title, description, to_microseconds(datetime.now(UTC))),
            )
        except sqlite3.IntegrityError as error:
            raise GroupExists(f"the gallery has a group {name!r} already") from error
        return self.group(name)

    def update_group(self, name: str, title: str | None, description: str | None) -> Group:
        """Change what is not None; raises GroupNotFound."""
        group = self.group(name)
        self._connection.execute(
            "UPDATE groups SET title = ?, description = ? WHERE id = ?",
            (
                group.title if title is None else title,
                group.description if description is None else description,
                group.id,
            ),
        )
        return self.group(name)

    def delete_group(self, name: str) -> int:
        """Delete a group and its faces; return their number."""
        group = self.group(name)
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
            A face of that id is there already.
        """
        group = self.group(name)
        if on_existing != "add":
            for user_id in dict.fromkeys(face.user_id for face in faces):
                known = {"group_id": group.id, "user_id": user_id}
                if on_existing == "replace":
                    self._remove(group, {"user_id": user_id})
                elif self.count(known):
                    raise UserExists(f"the group {name!r} holds the user {user_id!r} already")
        first = self.state().face + 1
        ids = np.arange(first, first + len(faces), dtype=np.int64)
        rows = [
            (i, bytes.fromhex(f.face_id), group.id, f.user_id, f.origin, f.quality, _time(f))
            for i, f in zip(ids.tolist(), faces, strict=True)
        ]
        try:
            self._connection.executemany("INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError as error:
            raise InvalidParameter(
                f"a face of one of these ids is in the gallery already: {faces[0].face_id}"
                + (f" .. {faces[-1].face_id}" if len(faces) > 1 else ""),
                "leave face_ids out, and new ones are made",
            ) from error
        little = np.ascontiguousarray(vectors, "<f4")
        self._connection.executemany(
            "INSERT INTO templates VALUES (?, ?)",
            ((i, memoryview(v).cast("B")) for i, v in zip(ids.tolist(), little, strict=True)),
        )
        self._resize(group, len(faces))
        self.new.append((ids, np.full(len(faces), group.id, np.int32), vectors))
        return [
            FaceRecord(i, f.face_id, f.user_id, name, f.quality, f.origin, f.created)
            for i, f in zip(ids.tolist(), faces, strict=True)
        ]

    def remove(self, name: str, user_id: str | None, face_id: str | None) -> int:
        """Remove a user or one face from a group; return the number of faces."""
        face = None if face_id is None else bytes.fromhex(face_id)
        return self._remove(self.group(name), {"user_id": user_id, "face_id": face})

    def rewrite_templates(self) -> None:
        """Write the templates anew, without the rows of those that were removed."""
        from facecore.gallery.sqlite.schema import TEMPLATES

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

    def _remove(self, group: Group, where: dict[str, Any]) -> int:
        given = {column: value for column, value in where.items() if value is not None}
        terms = "".join(f" AND {column} = ?" for column in given)
        rows = self._all(
            f"SELECT id FROM faces WHERE group_id = ?{terms} ORDER BY id", group.id, *given.values()
        )
        if not rows:
            return 0
        run = self._connection.executemany
        run("UPDATE templates SET vector = zeroblob(length(vector)) WHERE id = ?", rows)
        run("DELETE FROM faces WHERE id = ?", rows)
        run("INSERT INTO removals (face) VALUES (?)", rows)
        self._resize(group, -len(rows))
        self.gone.append(np.array([row[0] for row in rows], np.int64))
        return len(rows)

    def _resize(self, group: Group, change: int) -> None:
        self._connection.execute(
            "UPDATE groups SET size = size + ? WHERE id = ?", (change, group.id)
        )


def _time(face: NewFace) -> int:
    return to_microseconds(face.created)
