"""Gallery backend on Milvus, for more faces or machines than a folder serves.

Milvus has no transactions, so this backend differs from a folder:

- A replacement adds the new face before it removes the old ones.  A search in between sees both,
  and a crash leaves both; a replacement never loses a user.
- Uniqueness of groups and, for ``on_existing="refuse"``, of users is checked before the insertion
  and, because of other processes, again after it.  Two processes that add the same name at the
  same moment may both be refused; they never both succeed.
- Uniqueness of face ids given by the caller is checked only before the insertion.
- A group that one process updates while another deletes it may come back, without its faces.
- Removed templates are no longer found.  Milvus erases them when it compacts segments and collects
  garbage; facecore cannot wait for that.

Expressions never contain names or user ids, only their SHA-256, so nothing needs escaping.
All reads use the consistency level Strong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facecore.errors import (
    FacecoreError,
    GalleryLocked,
    GroupExists,
    GroupNotFound,
    InvalidParameter,
    RecordNotFound,
    UserExists,
)
from facecore.gallery.backend import Filter
from facecore.gallery.milvus.client import MilvusClient
from facecore.gallery.milvus.schema import (
    FACE_FIELDS,
    FACES,
    GROUP_FIELDS,
    GROUPS,
    check_contract,
    create,
    face_of,
    group_of,
    group_row,
    key,
    row_of,
)
from facecore.gallery.records import (
    Contract,
    FaceRecord,
    GalleryStats,
    Group,
    Hit,
    NewFace,
    OnExisting,
    to_microseconds,
)
from facecore.matching.similarity import cosine

__all__ = ["MilvusBackend"]

_KINDS = {"auto": "AUTOINDEX", "exact": "FLAT", "hnsw": "HNSW"}
_MOST = 16_384  # rows per response, including the offset: a limit of Milvus
_BATCH = 4_096  # rows per insertion, well below the limit of 64 MiB
_KEYS = 512  # ids or keys per expression


class MilvusBackend:
    """Backend on a Milvus server or a milvus-lite file; see `Backend` for the methods.

    Parameters
    ----------
    address : str
        See `facecore.gallery.milvus.client.MilvusClient`.
    contract : Contract
    index : {"auto", "exact", "hnsw"}
        Milvus's AUTOINDEX, FLAT or HNSW.  An existing gallery keeps its index type.
    read_only : bool
    """

    most_hits = _MOST

    def __init__(
        self,
        address: str,
        contract: Contract,
        *,
        index: Literal["auto", "exact", "hnsw"],
        read_only: bool,
    ) -> None:
        self._contract = contract
        self._read_only = read_only
        self._last_group = 0
        self._server = MilvusClient(address)
        try:
            with self._server.changing:
                self._open(_KINDS[index])
        except BaseException:
            self._server.close()
            raise

    def _open(self, index: str) -> None:
        for collection in (FACES, GROUPS):
            if self._server.call("has_collection", collection):
                check_contract(self._server, collection, self._contract)
            elif self._read_only:
                raise InvalidParameter(
                    f"there is no gallery in {self._server.name}",
                    "check the address, or open it without read_only to create a gallery",
                )
            else:
                create(self._server, collection, self._contract, index)
            self._server.call("load_collection", collection)
        self._kind = str(self._server.call("describe_index", FACES, "vector")["index_type"])
        if not self._read_only:
            self._finish_deletions()

    def create_group(self, name: str, title: str, description: str) -> Group:  # noqa: D102
        with self._change():
            problem = GroupExists(f"the gallery has a group {name!r} already")
            alike = f'name_key == "{key(name)}" and deleted == false'
            if self._group_rows(alike):
                raise problem
            now = to_microseconds(datetime.now(UTC))
            # Increases, and fits the 53 bits of a JSON number.
            self._last_group = max(now, self._last_group + 1)
            row = group_row(self._last_group, name, title, description, now)
            self._server.call("insert", GROUPS, [row])
            if len(self._group_rows(alike)) > 1:  # another process created it too
                self._server.call("delete", GROUPS, ids=[row["id"]])
                raise problem
            return group_of(row, 0)

    def group(self, name: str) -> Group:  # noqa: D102
        return self._sized(self._group_row(name))

    def group_by_id(self, number: int) -> Group:  # noqa: D102
        rows = self._group_rows(f"id == {number} and deleted == false")
        if not rows:
            raise GroupNotFound(f"the gallery has no group of id {number}")
        return self._sized(rows[0])

    def groups(self, offset: int, limit: int | None, title: str | None) -> list[Group]:  # noqa: D102
        rows = self._group_rows("deleted == false")
        some = (row for row in rows if title is None or row["title"] == title)
        stop = None if limit is None else offset + limit
        return [self._sized(row) for row in islice(some, offset, stop)]

    def update_group(  # noqa: D102
        self, name: str, title: str | None, description: str | None, number: int | None
    ) -> Group:
        with self._change():
            row = self._group_row(name, number)
            row["title"] = row["title"] if title is None else title
            row["description"] = row["description"] if description is None else description
            self._put(row)
            return self._sized(row)

    def delete_group(self, name: str, number: int | None) -> int:  # noqa: D102
        with self._change():
            row = self._group_row(name, number)
            # Mark first: a concurrent `add` then sees the mark and undoes its insertion.  Erase by
            # id, because a concurrent `update_group` may remove the mark.
            self._put(row | {"deleted": True})
            return self._erase_group(row["id"])

    def add(  # noqa: D102
        self,
        group: str,
        faces: Sequence[NewFace],
        vectors: NDArray[np.float32],
        on_existing: OnExisting = "add",
    ) -> list[FaceRecord]:
        with self._change():
            check_contract(self._server, FACES, self._contract)
            number = self._group_row(group)["id"]
            if known := self.known([face.face_id for face in faces]):
                raise InvalidParameter(
                    f"the gallery already has a face with one of these ids: {min(known)}",
                    "leave out face_ids: the gallery creates new ones",
                )
            users = {face.user_id for face in faces}
            before = {} if on_existing == "add" else self._faces_of(number, users)
            if on_existing == "refuse":
                _refuse(before, group)
            ids: list[int] = []
            try:
                rows = (row_of(number, f, v) for f, v in zip(faces, vectors, strict=True))
                while some := list(islice(rows, _BATCH)):
                    ids += self._server.call("insert", FACES, some)["ids"]
                self._group_row(group, number)  # raises if it was deleted meanwhile
                if on_existing == "refuse":  # another process may have added them
                    after = self._faces_of(number, users)
                    _refuse({i: user for i, user in after.items() if i not in set(ids)}, group)
            except FacecoreError:
                self._delete(ids)
                raise
            self._delete(before)
            return [
                FaceRecord(i, f.face_id, f.user_id, group, f.quality, f.origin, f.created)
                for i, f in zip(ids, faces, strict=True)
            ]

    def remove(self, group: str, user_id: str | None, face_id: str | None) -> int:  # noqa: D102
        with self._change():
            where = self._where(Filter(group, user_id, face_id), self._names())
            ids = [row["id"] for row in self._rows(where, ["id"])]
            self._delete(ids)
            return len(ids)

    def search(  # noqa: D102
        self,
        vector: NDArray[np.float32],
        groups: Sequence[str] | None,
        limit: int,
        *,
        count: bool = False,
    ) -> tuple[list[Hit], int]:
        if limit > _MOST:
            raise InvalidParameter(f"limit is {limit}, Milvus returns at most {_MOST} faces")
        names = self._names()
        among = self._among(groups, names)
        (found,) = self._server.call(
            "search",
            FACES,
            data=[vector],
            anns_field="vector",
            filter=among,
            limit=limit,
            output_fields=[*FACE_FIELDS, "vector"],
            search_params={
                "metric_type": "IP",
                "params": {"ef": max(128, 2 * limit)} if self._kind == "HNSW" else {},
            },
            consistency_level="Strong",
        )
        rows = [{"id": hit["id"], **hit["entity"]} for hit in found]
        rows = [row for row in rows if row["group_id"] in names]
        compared = self._count(among) if count else 0
        if not rows:
            return [], compared
        # Same summation as for a comparison of two images, so that scores are equal.
        exact = cosine(np.array([row["vector"] for row in rows], np.float32), vector[None])
        hits = [
            Hit(face_of(row, names[row["group_id"]]), float(similarity))
            for row, similarity in zip(rows, exact, strict=True)
        ]
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.record.id)), compared

    def record(self, face_id: str) -> FaceRecord:  # noqa: D102
        return self._record(f'face_id == "{face_id}"', f"face_id {face_id}")

    def record_by_id(self, number: int) -> FaceRecord:  # noqa: D102
        return self._record(f"id == {number}", f"id {number}")

    def records(self, which: Filter, offset: int, limit: int) -> list[FaceRecord]:  # noqa: D102
        names = self._names()
        rows = self._rows(self._where(which, names), FACE_FIELDS, most=offset + limit)
        return [face_of(row, names[row["group_id"]]) for row in islice(rows, offset, None)]

    def count(self, which: Filter) -> int:  # noqa: D102
        return self._count(self._where(which, self._names()))

    def known(self, face_ids: Collection[str]) -> set[str]:  # noqa: D102
        found: set[str] = set()
        for some in _parts(face_ids):
            listed = ", ".join(f'"{face_id}"' for face_id in some)
            rows = self._server.call(
                "query", FACES, filter=f"face_id in [{listed}]", output_fields=["face_id"]
            )
            found.update(row["face_id"] for row in rows)
        return found

    def templates(  # noqa: D102
        self, which: Filter, batch_size: int
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        names = self._names()
        rows = self._rows(self._where(which, names), [*FACE_FIELDS, "vector"])
        while some := list(islice(rows, batch_size)):
            records = [face_of(row, names[row["group_id"]]) for row in some]
            yield records, np.array([row["vector"] for row in some], np.float32)

    def comparisons(self, groups: Sequence[str] | None) -> int:  # noqa: D102
        return self._count(self._among(groups, self._names()))

    def groups_of(self, user_id: str) -> list[str]:  # noqa: D102
        names = self._names()
        rows = self._rows(self._where(Filter(user_id=user_id), names), ["id", "group_id"])
        return [names[number] for number in sorted({row["group_id"] for row in rows})]

    def stats(self) -> GalleryStats:  # noqa: D102
        names = self._names()
        users = {row["user_key"] for row in self._rows(self._among(None, names), ["user_key"])}
        return GalleryStats(
            groups=len(names),
            faces=self.comparisons(None),
            users=len(users),
            dimension=self._contract.dimension,
            contract_id=self._contract.id,
            pack=self._contract.pack,
            store_bytes=self._server.size_on_disk(),
            index_bytes=0,
            index=next((name for name, kind in _KINDS.items() if kind == self._kind), self._kind),
            removed=0,
            erasure_pending=True,  # Milvus does not report when it has erased removed rows
        )

    def warmup(self) -> None:  # noqa: D102
        pass  # the server loads its index when the gallery is opened

    def compact(self) -> None:  # noqa: D102
        with self._change():
            self._finish_deletions()
            self._server.call("flush", FACES)
            self._server.call("compact", FACES)

    def close(self) -> None:  # noqa: D102
        self._server.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        self._server.client()  # raises if closed
        if self._read_only:
            raise GalleryLocked(f"{self._server.name} was opened with read_only=True")
        with self._server.changing:
            yield

    def _finish_deletions(self) -> None:
        """Erase the marked groups that a crash left."""
        for row in self._group_rows("deleted == true"):
            self._erase_group(row["id"])

    def _erase_group(self, number: int) -> int:
        """Remove a group and its faces; return their number."""
        where = f"group_id == {number}"
        removed = self._count(where)
        self._server.call("delete", FACES, filter=where)
        self._server.call("delete", GROUPS, ids=[number])
        return removed

    def _group_rows(self, where: str) -> list[dict[str, Any]]:
        rows = self._server.rows(GROUPS, filter=where, output_fields=GROUP_FIELDS)
        return sorted(rows, key=lambda row: int(row["id"]))

    def _group_row(self, name: str, number: int | None = None) -> dict[str, Any]:
        rows = self._group_rows(f'name_key == "{key(name)}" and deleted == false')
        if not rows or number not in (None, rows[0]["id"]):
            of = "" if number is None else f" of id {number}"
            raise GroupNotFound(f"the gallery has no group {name!r}{of}")
        return rows[0]

    def _put(self, row: dict[str, Any]) -> None:
        columns = (row["id"], row["name"], row["title"], row["description"], row["created"])
        self._server.call("upsert", GROUPS, [group_row(*columns) | {"deleted": row["deleted"]}])

    def _sized(self, row: dict[str, Any]) -> Group:
        return group_of(row, self._count(f"group_id == {row['id']}"))

    def _names(self) -> dict[int, str]:
        """Return the names of the groups by id, oldest first."""
        return {row["id"]: row["name"] for row in self._group_rows("deleted == false")}

    def _record(self, where: str, text: str) -> FaceRecord:
        names = self._names()
        for row in self._rows(where, FACE_FIELDS):
            if row["group_id"] in names:
                return face_of(row, names[row["group_id"]])
        raise RecordNotFound(f"the gallery has no face of {text}")

    def _faces_of(self, group: int, users: Collection[str]) -> dict[int, str]:
        """Map the ids of the users' faces in a group to user ids."""
        found: dict[int, str] = {}
        for some in _parts(users):
            listed = ", ".join(f'"{key(user)}"' for user in some)
            where = f"group_id == {group} and user_key in [{listed}]"
            found.update(
                (row["id"], row["user_id"]) for row in self._rows(where, ["id", "user_id"])
            )
        return found

    def _delete(self, ids: Collection[int]) -> None:
        for some in _parts(ids):
            self._server.call("delete", FACES, ids=list(some))

    def _count(self, where: str) -> int:
        rows = self._server.call("query", FACES, filter=where, output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def _rows(self, where: str, fields: list[str], most: int = -1) -> Iterator[dict[str, Any]]:
        return self._server.rows(FACES, filter=where, output_fields=fields, limit=most)

    def _among(self, groups: Sequence[str] | None, names: dict[int, str]) -> str:
        numbers = {name: number for number, name in names.items()}
        for name in groups or ():
            if name not in numbers:
                raise GroupNotFound(f"the gallery has no group {name!r}")
        # Always list groups: faces of a group being deleted may still exist.
        wanted = list(names) if groups is None else [numbers[name] for name in groups]
        return f"group_id in {wanted}" if wanted else "id < 0"

    def _where(self, which: Filter, names: dict[int, str]) -> str:
        terms = [self._among(None if which.group is None else [which.group], names)]
        if which.user_id is not None:
            terms.append(f'user_key == "{key(which.user_id)}"')
        if which.face_id is not None:
            terms.append(f'face_id == "{which.face_id}"')
        if which.origin is not None:
            terms.append(f'origin == "{which.origin}"')
        return " and ".join(terms)


def _refuse(faces: dict[int, str], group: str) -> None:
    for user_id in faces.values():
        raise UserExists(f"the group {group!r} holds the user {user_id!r} already")


def _parts(values: Collection[Any]) -> Iterator[list[Any]]:
    remaining = iter(values)
    while some := list(islice(remaining, _KEYS)):
        yield some
