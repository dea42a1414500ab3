"""A gallery in a folder of this machine: the store, and an index that follows it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from facecore.gallery.backend import Filter
from facecore.gallery.records import (
    Contract,
    FaceRecord,
    GalleryStats,
    Group,
    Hit,
    NewFace,
    OnExisting,
)
from facecore.gallery.sqlite.index_manager import IndexManager
from facecore.gallery.sqlite.snapshot import Snapshot
from facecore.gallery.sqlite.store import Store
from facecore.gallery.sqlite.transaction import Transaction
from facecore.matching.similarity import cosine

__all__ = ["SqliteBackend"]

T = TypeVar("T")


class SqliteBackend:
    """See `facecore.gallery.backend.Backend` for the methods.

    Parameters
    ----------
    folder : Path
    contract : Contract
    index : {"auto", "exact", "hnsw"}
    read_only : bool
    progress : bool
        Show a bar on standard error while an index is built.
    """

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        *,
        index: Literal["auto", "exact", "hnsw"],
        read_only: bool,
        progress: bool,
    ) -> None:
        self._contract = contract
        self._store = Store(folder, contract, read_only=read_only)
        try:
            self._index_manager = IndexManager(self._store, contract, index, progress)
        except BaseException:
            self._store.close()
            raise

    def create_group(self, name: str, title: str, description: str) -> Group:  # noqa: D102
        return self._change(lambda change: change.create_group(name, title, description))

    def group(self, name: str) -> Group:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.group(name)

    def group_by_id(self, number: int) -> Group:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.group_by_id(number)

    def groups(self, offset: int, limit: int | None, title: str | None) -> list[Group]:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.groups(offset, limit, title)

    def update_group(self, name: str, title: str | None, description: str | None) -> Group:  # noqa: D102
        return self._change(lambda change: change.update_group(name, title, description))

    def delete_group(self, name: str) -> int:  # noqa: D102
        return self._change(lambda change: change.delete_group(name))

    def add(  # noqa: D102
        self,
        group: str,
        faces: Sequence[NewFace],
        vectors: NDArray[np.float32],
        on_existing: OnExisting = "add",
    ) -> list[FaceRecord]:
        return self._change(lambda change: change.add(group, faces, vectors, on_existing))

    def remove(self, group: str, user_id: str | None, face_id: str | None) -> int:  # noqa: D102
        return self._change(lambda change: change.remove(group, user_id, face_id))

    def _change(self, work: Callable[[Transaction], T]) -> T:
        with self._store.change() as change:
            result = work(change)
            self._index_manager.commit(change)
        return result

    def search(  # noqa: D102
        self, vector: NDArray[np.float32], groups: Sequence[str] | None, limit: int
    ) -> list[Hit]:
        with self._index_manager.current() as (index, snapshot):
            labels = None
            if groups is not None:
                labels = np.array([snapshot.group(name).id for name in groups], np.int32)
            ids = self._index_manager.search(vector, limit, labels, index, snapshot)
            records = snapshot.faces_of(ids)
            # Summed as a comparison of two images sums it, so that the scores are the same.
            exact = cosine(snapshot.vectors(ids), vector[None])
        hits = [Hit(records[i], float(s)) for i, s in zip(ids.tolist(), exact, strict=True)]
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.record.id))

    def record(self, face_id: str) -> FaceRecord:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.face("face_id", bytes.fromhex(face_id))

    def record_by_id(self, number: int) -> FaceRecord:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.face("id", number)

    def records(self, which: Filter, offset: int, limit: int, after: int = 0) -> list[FaceRecord]:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.faces(_where(snapshot, which), offset, limit, after)

    def count(self, which: Filter) -> int:  # noqa: D102
        with self._store.snapshot() as snapshot:
            where = _where(snapshot, which)
            if which.group is not None and len([v for v in where.values() if v is not None]) == 1:
                return snapshot.group(which.group).size
            return snapshot.count(where) if any(where.values()) else snapshot.size()

    def known(self, face_ids: Collection[str]) -> set[str]:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.known(face_ids)

    def templates(  # noqa: D102
        self, group: str | None, batch_size: int
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        last = 0
        while True:
            with self._store.snapshot() as snapshot:
                where = _where(snapshot, Filter(group))
                records = snapshot.faces(where, 0, batch_size, last)
                vectors = snapshot.vectors([record.id for record in records])
            if not records:
                return
            yield records, vectors
            last = records[-1].id

    def comparisons(self, groups: Sequence[str] | None) -> int:  # noqa: D102
        with self._store.snapshot() as snapshot:
            if groups is None:
                return snapshot.size()
            return sum(snapshot.group(name).size for name in set(groups))

    def groups_of(self, user_id: str) -> list[str]:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.groups_of(user_id)

    def stats(self) -> GalleryStats:  # noqa: D102
        with self._store.snapshot() as snapshot:
            groups, faces, users = snapshot.totals()
            removed = snapshot.overwritten()
        return GalleryStats(
            groups=groups,
            faces=faces,
            users=users,
            dimension=self._contract.dimension,
            contract_id=self._contract.id,
            pack=self._contract.pack,
            store_bytes=self._store.size_on_disk(),
            index_bytes=self._index_manager.size_on_disk(),
            index=self._index_manager.kind,
            removed=removed,
            erasure_pending=self._store.erasure_pending or self._index_manager.erasure_pending,
        )

    def compact(self) -> None:  # noqa: D102
        self._store.check_whole()
        self._index_manager.compact()

    def close(self) -> None:  # noqa: D102
        try:
            self._index_manager.close()
        finally:
            self._store.close()


def _where(snapshot: Snapshot, which: Filter) -> dict[str, Any]:
    return {
        "group_id": None if which.group is None else snapshot.group(which.group).id,
        "user_id": which.user_id,
        "face_id": None if which.face_id is None else bytes.fromhex(which.face_id),
        "origin": which.origin,
    }
