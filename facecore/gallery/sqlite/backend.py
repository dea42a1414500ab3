"""Backend of a gallery in a folder: the store, and an index that follows it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from facecore._utils.rwlock import ReadersWriterLock
from facecore.errors import FacecoreError, GalleryNotWritable
from facecore.gallery.backend import Filter
from facecore.gallery.index import ExactIndex
from facecore.gallery.records import (
    Contract,
    FaceRecord,
    GalleryStats,
    Group,
    Hit,
    NewFace,
    OnExisting,
)
from facecore.gallery.sqlite.folder import INDEX
from facecore.gallery.sqlite.hnsw_builder import BackgroundHnswBuilder, new_hnsw
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.saved_index import SavedIndex
from facecore.gallery.sqlite.store import Store, file_size
from facecore.gallery.sqlite.transaction import Row, Snapshot, State, Transaction

__all__ = ["SqliteBackend"]

log = logging.getLogger("facecore.gallery")

T = TypeVar("T")

_TRIES = 3


class SqliteBackend:
    """See `facecore.gallery.backend.Backend` for the methods.

    The first search builds the exact index from the store.  The index matches one state of the
    store.  Its lock (`_rw`) is taken after the store's lock on changes and before a snapshot.  A
    search whose snapshot is at another state first brings the index to that state, so every
    result reflects a single state.

    Parameters
    ----------
    folder : Path
    contract : Contract
    index : {"auto", "exact", "hnsw"}
    read_only : bool
    progress : bool
        Show a progress bar on standard error while the index is built.
    key : bytes, optional
        32 bytes; encrypts the store.  The index then is not saved, and keeps the vectors, because
        decrypting the pages that a search fetches takes longer than the search.
    """

    most_hits = sys.maxsize

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        *,
        index: Literal["auto", "exact", "hnsw"],
        read_only: bool,
        progress: bool,
        key: bytes | None = None,
    ) -> None:
        self._contract = contract
        self._progress = progress
        self._encrypted = key is not None
        self._store = Store(folder, contract, read_only=read_only, key=key)
        self._rw = ReadersWriterLock()
        self._exact: IndexSync[ExactIndex] | None = None
        self._folder = folder / INDEX
        # Made even without HNSW: a saved file must not keep a removed face.
        self._saved = SavedIndex(self._folder, contract, allowed=not self._encrypted)
        self._hnsw: BackgroundHnswBuilder | None = None
        try:
            # Not for "auto": at a recall of 0.999, no measurement shows HNSW to be faster than
            # the exact scan (`python -m benchmarks hnsw`).
            if index == "hnsw":
                new_hnsw(contract.dimension)  # raises if hnswlib is missing
                self._hnsw = BackgroundHnswBuilder(self._store, self._saved, contract.dimension)
            if not read_only:
                with self._store.unchanged(), self._store.snapshot() as snapshot:
                    self._saved.repair(snapshot)
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

    def update_group(  # noqa: D102
        self, name: str, title: str | None, description: str | None, number: int | None
    ) -> Group:
        return self._change(lambda change: change.update_group(name, title, description, number))

    def delete_group(self, name: str, number: int | None) -> int:  # noqa: D102
        return self._remove(lambda change: change.delete_group(name, number))

    def add(  # noqa: D102
        self,
        group: str,
        faces: Sequence[NewFace],
        vectors: NDArray[np.float32],
        on_existing: OnExisting = "add",
    ) -> list[FaceRecord]:
        return self._change(lambda change: change.add(group, faces, vectors, on_existing))

    def remove(self, group: str, user_id: str | None, face_id: str | None) -> int:  # noqa: D102
        return self._remove(lambda change: change.remove(group, user_id, face_id))

    def _remove(self, work: Callable[[Transaction], int]) -> int:
        try:
            return self._change(work)
        except GalleryNotWritable:
            self._store.erase()  # a full disk may have room once the log is empty
            return self._change(work)

    def _change(self, work: Callable[[Transaction], T]) -> T:
        with self._store.change() as change:
            result = work(change)
            change.commit()
            if change.removed or self._erasure_pending:
                self._erase(change.removed)
            if self._hnsw is not None and self._exact is not None:
                self._hnsw.wake()
        return result

    def _erase(self, removed: Sequence[NDArray[np.int64]]) -> None:
        """Erase templates whose removal was just committed.

        Order: the store's rows (with the commit), the index in memory, the log, the saved index.
        After a crash in between, the next opening empties the log and discards the saved index,
        which no longer matches the store.
        """
        try:
            self._erase_in_memory()
        finally:  # an error here, or Ctrl-C, does not undo the removal
            try:
                self._store.erase()
            finally:
                self._saved.discard_faces(removed)

    def _erase_in_memory(self) -> None:
        with self._rw.writing():
            if self._exact is None:
                return
            try:
                with self._store.snapshot() as snapshot:
                    self._follow(snapshot)
            except (FacecoreError, MemoryError) as error:
                # Not raised: the removal is committed, and the caller would repeat it.
                self._exact = None
                log.warning(
                    "%s: the next search builds the index again: %s: %s",
                    self._folder.parent,
                    type(error).__name__,
                    error,
                )

    @property
    def _erasure_pending(self) -> bool:
        return self._store.erasure_pending or self._saved.pending

    def search(  # noqa: D102
        self,
        vector: NDArray[np.float32],
        groups: Sequence[str] | None,
        limit: int,
        *,
        count: bool = False,
    ) -> tuple[list[Hit], int]:
        with self._current(groups or ()) as (index, snapshot, state, chosen):
            labels = None if groups is None else np.array([i for i, _ in chosen], np.int32)
            rows: dict[int, Row] = {}

            def fetch(ids: NDArray[np.int64]) -> NDArray[np.float32]:
                found = snapshot.rows_of(ids)
                rows.update(zip(ids.tolist(), found, strict=True))
                return snapshot.vectors(found)

            nearest = None if labels is not None else self._approximate(vector, limit, state)
            if nearest is None:
                from_store = None if self._encrypted else fetch
                nearest = index.search(vector, limit, labels, fetch=from_store)
            if not rows:
                fetch(nearest[0])
            pairs = zip(*(values.tolist() for values in nearest), strict=True)
            hits = [Hit(snapshot.record(rows[i]), similarity) for i, similarity in pairs]
            return hits, len(index) if groups is None else sum(size for _, size in chosen)

    @contextlib.contextmanager
    def _current(
        self, groups: Sequence[str] = ()
    ) -> Iterator[tuple[ExactIndex, Snapshot, State, list[tuple[int, int]]]]:
        """Yield the exact index, a snapshot at its state, that state, and group ids and sizes."""
        for _ in range(_TRIES):
            with self._rw.reading(), self._store.snapshot() as snapshot:
                exact = self._exact
                state, chosen = snapshot.state_and_groups(groups)
                if exact is not None and exact.whole and exact.state == state:
                    yield exact.index, snapshot, state, chosen
                    return
            with self._rw.writing(), self._store.snapshot() as snapshot:
                self._follow(snapshot)
        # Another process changed the store after each update: search under the write lock.
        with self._rw.writing(), self._store.snapshot() as snapshot:
            yield self._follow(snapshot).index, snapshot, *snapshot.state_and_groups(groups)

    def _follow(self, snapshot: Snapshot) -> IndexSync[ExactIndex]:
        """Bring the exact index to the snapshot's state; the caller holds the lock for writing."""
        exact = self._exact
        if exact is None or not (exact.whole and exact.can_follow(snapshot)):
            new = ExactIndex(self._contract.dimension, keep_vectors=self._encrypted)
            exact = IndexSync(new, State(0, snapshot.state().removal))
        exact.follow(snapshot, progress=self._progress)
        self._exact = exact
        return exact

    def _approximate(
        self, vector: NDArray[np.float32], limit: int, state: State
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Search the HNSW index; return None if there is none at this state."""
        if self._hnsw is None:
            return None
        if not self._hnsw.is_at(state):
            self._hnsw.wake()
        return self._hnsw.search(vector, limit, state)

    def record(self, face_id: str) -> FaceRecord:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.face("face_id", bytes.fromhex(face_id))

    def record_by_id(self, number: int) -> FaceRecord:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.face("id", number)

    def records(self, which: Filter, offset: int, limit: int) -> list[FaceRecord]:  # noqa: D102
        with self._store.snapshot() as snapshot:
            rows = snapshot.rows(_where(snapshot, which), offset, limit, 0)
            return [snapshot.record(row) for row in rows]

    def count(self, which: Filter) -> int:  # noqa: D102
        if which == Filter(which.group):  # groups store their sizes
            return self.comparisons(None if which.group is None else [which.group])
        with self._store.snapshot() as snapshot:
            return snapshot.count(_where(snapshot, which))

    def known(self, face_ids: Collection[str]) -> set[str]:  # noqa: D102
        with self._store.snapshot() as snapshot:
            return snapshot.known(face_ids)

    def templates(  # noqa: D102
        self, which: Filter, batch_size: int
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        last = 0
        while True:
            with self._store.snapshot() as snapshot:
                rows = snapshot.rows(_where(snapshot, which), 0, batch_size, last)
                if not rows:
                    return
                records, vectors = [snapshot.record(row) for row in rows], snapshot.vectors(rows)
            yield records, vectors
            if len(rows) < batch_size:
                return
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
            index_bytes=_bytes_of(self._folder),
            index=self._answering(),
            removed=removed,
            erasure_pending=self._erasure_pending,
        )

    def _answering(self) -> str:
        """Name the index that answers searches now; empty before the first search."""
        exact = self._exact
        if exact is None:
            return ""
        return "hnsw" if self._hnsw and self._hnsw.is_at(exact.state) else "exact"

    def warmup(self) -> None:  # noqa: D102
        with self._current():
            pass

    def compact(self) -> None:  # noqa: D102
        self._store.check_whole()
        with self._store.unchanged():
            self._store.shrink()
            self.warmup()
        if self._hnsw is not None:
            self._hnsw.finish()

    def close(self) -> None:  # noqa: D102
        try:
            if self._hnsw is not None and not self._store.inherited:
                self._hnsw.stop()
            if not (self._store.inherited or self._store.read_only or self._store.closed):
                with self._store.unchanged():
                    if self._erasure_pending:
                        self._erase(())
        except FacecoreError as error:
            log.warning("%s: the files may keep removed templates: %s", self._folder.parent, error)
        finally:
            self._store.close()


def _where(snapshot: Snapshot, which: Filter) -> dict[str, Any]:
    return {
        "group_id": None if which.group is None else snapshot.group(which.group).id,
        "user_id": which.user_id,
        "face_id": None if which.face_id is None else bytes.fromhex(which.face_id),
        "origin": which.origin,
    }


def _bytes_of(folder: Path) -> int:
    # `Path.rglob` raises if the HNSW thread or another process removes a folder meanwhile.
    return sum(file_size(Path(here, name)) for here, _, names in os.walk(folder) for name in names)
