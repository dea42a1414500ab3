"""A gallery on Milvus, for more faces or more machines than one.

What differs from a folder, because Milvus has no transactions:

- A face that is replaced is added before the old ones are removed.  A search in between, or a
  crash, leaves both; a replacement never loses a user.
- ``on_existing="refuse"`` and new groups are checked before and, for other processes, once more
  after the insertion.  Two processes that do the same at the same moment may both be refused;
  never do both succeed.
- Removed templates are invisible at once, and erased when Milvus compacts and collects its
  garbage, which nobody here can wait for.

Names and user ids never become part of an expression: they are looked up by their SHA-256, so
there is nothing to escape.  All reads are of consistency level Strong.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facecore.errors import (
    ContractMismatch,
    FacecoreError,
    GalleryCorrupt,
    GalleryLocked,
    GroupExists,
    GroupNotFound,
    InvalidParameter,
    RecordNotFound,
    UserExists,
)
from facecore.gallery.backend import Filter
from facecore.gallery.milvus_server import Server
from facecore.gallery.queries import from_microseconds, to_microseconds
from facecore.gallery.records import (
    Contract,
    FaceRecord,
    GalleryStats,
    Group,
    Hit,
    NewFace,
    OnExisting,
)
from facecore.matching.similarity import cosine

__all__ = ["MilvusBackend"]

GROUPS, FACES = "facecore_groups", "facecore_faces"
_PROPERTY = "facecore"
_INDEXES = {"auto": "AUTOINDEX", "exact": "FLAT", "hnsw": "HNSW"}
_HNSW = {"M": 16, "efConstruction": 200}
_MOST = 16_384  # rows of one answer: a limit of Milvus
_BATCH = 4_096  # rows of one insertion, well below its 64 MiB
_GROUP = ["id", "name", "title", "description", "created", "deleted"]
_FACE = ["id", "face_id", "group_id", "user_id", "origin", "quality", "created"]


class MilvusBackend:
    """See `facecore.gallery.backend.Backend` for the methods.

    Parameters
    ----------
    address : str
        See `facecore.gallery.milvus_server.Server`.
    contract : Contract
    index : {"auto", "exact", "hnsw"}
        AUTOINDEX, FLAT or HNSW of Milvus, when the gallery is made.
    read_only : bool
    """

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
        self._server = Server(address)
        try:
            with self._server.changing:
                self._open(_INDEXES[index])
        except BaseException:
            self._server.close()
            raise

    def _open(self, index: str) -> None:
        for name in (FACES, GROUPS):
            if self._server.call("has_collection", name):
                self._check_contract(name)
            elif self._read_only:
                raise InvalidParameter(
                    f"there is no gallery in {self._server.name}",
                    "check the address; without read_only, a gallery is made",
                )
            else:
                self._create(name, index)
            self._server.call("load_collection", name)
        if not self._read_only:
            for row in self._group_rows("deleted"):  # what a crash left unfinished
                self._finish_deletion(row["id"])

    def _create(self, name: str, index: str) -> None:
        types = self._server.milvus.DataType
        schema = self._server.milvus.MilvusClient.create_schema(auto_id=name == FACES)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("created", types.INT64)

        def text(field: str, length: int) -> None:
            schema.add_field(field, types.VARCHAR, max_length=length)

        if name == FACES:
            # Milvus counts bytes: a character has up to four.
            for field, length in (("face_id", 32), ("user_id", 1024), ("user_key", 64)):
                text(field, length)
            text("origin", 8)
            schema.add_field("group_id", types.INT64, is_partition_key=True)
            schema.add_field("quality", types.DOUBLE, nullable=True)
            schema.add_field("vector", types.FLOAT_VECTOR, dim=self._contract.dimension)
        else:
            for field, length in (("name", 256), ("name_key", 64)):
                text(field, length)
            text("title", 16_384)
            text("description", 16_384)
            schema.add_field("deleted", types.BOOL)
            # No collection of Milvus may be without one.
            schema.add_field("vector", types.FLOAT_VECTOR, dim=2)
        indexes = self._server.milvus.MilvusClient.prepare_index_params()
        kind = index if name == FACES else "FLAT"
        params = _HNSW if kind == "HNSW" else {}
        indexes.add_index("vector", index_type=kind, metric_type="IP", params=params)
        own = {"contract": self._contract.id, "pack": self._contract.pack, "version": 1}
        self._server.call(
            "create_collection",
            name,
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
            properties={_PROPERTY: json.dumps(own)},
        )

    def _check_contract(self, collection: str) -> None:
        properties = self._server.call("describe_collection", collection).get("properties", {})
        try:
            own = json.loads(properties[_PROPERTY])
            contract, pack, version = own["contract"], own["pack"], own["version"]
        except (KeyError, TypeError, ValueError) as error:
            raise GalleryCorrupt(
                f"{self._server.name}: {collection} is not facecore's", "name another database"
            ) from error
        if version != 1:
            raise InvalidParameter(
                f"{self._server.name} has version {version} of the schema, this facecore knows 1",
                "update facecore: pip install --upgrade facecore",
            )
        if contract != self._contract.id:
            raise ContractMismatch(
                f"{self._server.name} holds templates of the pack {pack} (contract {contract}), "
                f"not of {self._contract.pack} (contract {self._contract.id})"
            )

    def create_group(self, name: str, title: str, description: str) -> Group:  # noqa: D102
        with self._change():
            now = datetime.now(UTC)
            row = {
                "id": to_microseconds(now),  # rises, and fits the 53 bits of a JSON number
                "name": name,
                "name_key": _key(name),
                "title": title,
                "description": description,
                "created": to_microseconds(now),
                "deleted": False,
                "vector": [1.0, 0.0],
            }
            time.sleep(2e-6)  # the next one has another id
            problem = GroupExists(f"the gallery has a group {name!r} already")
            if self._group_rows(f'name_key == "{_key(name)}" and not deleted'):
                raise problem
            self._server.call("insert", GROUPS, [row])
            if len(self._group_rows(f'name_key == "{_key(name)}" and not deleted')) > 1:
                self._server.call("delete", GROUPS, ids=[row["id"]])
                raise problem
            return _group(row, 0)

    def group(self, name: str) -> Group:  # noqa: D102
        return self._sized(self._group_row(name))

    def group_by_id(self, number: int) -> Group:  # noqa: D102
        rows = self._group_rows(f"id == {int(number)} and not deleted") if _fits(number) else []
        if not rows:
            raise GroupNotFound(f"the gallery has no group of id {number}")
        return self._sized(rows[0])

    def groups(self, offset: int, limit: int | None, title: str | None) -> list[Group]:  # noqa: D102
        rows = self._group_rows("not deleted")
        some = (row for row in rows if title is None or row["title"] == title)
        stop = None if limit is None else offset + limit
        return [self._sized(row) for row in islice(some, offset, stop)]

    def update_group(self, name: str, title: str | None, description: str | None) -> Group:  # noqa: D102
        with self._change():
            row = self._group_row(name)
            row["title"] = row["title"] if title is None else title
            row["description"] = row["description"] if description is None else description
            self._put_group(row)
            return self._sized(row)

    def delete_group(self, name: str) -> int:  # noqa: D102
        with self._change():
            row = self._group_row(name)
            # Marked first: whoever adds a face from now on finds out, and takes it back.
            self._put_group(row | {"deleted": True})
            return self._finish_deletion(row["id"])

    def add(  # noqa: D102
        self,
        group: str,
        faces: Sequence[NewFace],
        vectors: NDArray[np.float32],
        on_existing: OnExisting = "add",
    ) -> list[FaceRecord]:
        with self._change():
            self._check_contract(FACES)
            number = self._group_row(group)["id"]
            if known := self.known([face.face_id for face in faces]):
                raise InvalidParameter(
                    f"a face of one of these ids is in the gallery already: {min(known)}",
                    "leave face_ids out, and new ones are made",
                )
            users = {face.user_id for face in faces}
            before = [] if on_existing == "add" else self._ids_of(number, users)
            if on_existing == "refuse" and before:
                raise UserExists(f"the group {group!r} holds one of the users already")
            ids: list[int] = []
            try:
                for start in range(0, len(faces), _BATCH):
                    part = slice(start, start + _BATCH)
                    rows = [
                        _row(number, face, vector)
                        for face, vector in zip(faces[part], vectors[part], strict=True)
                    ]
                    ids += self._server.call("insert", FACES, rows)["ids"]
                self._group_row(group)  # it may have been deleted meanwhile
                if on_existing == "refuse" and set(self._ids_of(number, users)) - set(ids):
                    raise UserExists(f"the group {group!r} holds one of the users already")
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
            where = self._where(Filter(group, user_id, face_id))
            ids = [row["id"] for rows in self._rows(where, ["id"]) for row in rows]
            self._delete(ids)
            return len(ids)
