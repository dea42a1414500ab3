"""The index of a store: its answers are what the store holds."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facecore._utils.rwlock import ReadersWriterLock
from facecore.errors import FacecoreError
from facecore.gallery.index import ExactIndex
from facecore.gallery.records import Contract
from facecore.gallery.sqlite.folder import INDEX
from facecore.gallery.sqlite.hnsw_builder import BackgroundHnswBuilder, new_hnsw
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.saved_index import SavedIndex
from facecore.gallery.sqlite.snapshot import Snapshot, State
from facecore.gallery.sqlite.store import Store
from facecore.gallery.sqlite.transaction import Transaction

__all__ = ["IndexManager"]

log = logging.getLogger("facecore.gallery")

_TRIES = 3


class IndexManager:
    """Builds the exact index of a store at the first search, and keeps it up to date.

    Its lock (`_rw`) is taken after the store's lock on changes, and snapshots after both.  Under
    it the index is at one state of the store; a search whose snapshot of the store is at another
    state first brings the index to that state, so that every answer is that of one moment.

    Parameters
    ----------
    store : Store
    contract : Contract
    choice : {"auto", "exact", "hnsw"}
    progress : bool
        Show a bar on standard error while the index is built.
    """

    def __init__(
        self,
        store: Store,
        contract: Contract,
        choice: Literal["auto", "exact", "hnsw"],
        progress: bool,
    ) -> None:
        self._store = store
        self._dimension = contract.dimension
        self._progress = progress
        self._rw = ReadersWriterLock()
        self._exact: IndexSync[ExactIndex] | None = None
        self._folder = store.path.parent / INDEX
        # Also where `choice` needs none: it must not keep a face that is removed here.
        self._saved = SavedIndex(self._folder, contract)
        self._hnsw: BackgroundHnswBuilder | None = None
        # Not for "auto": where HNSW finds the best face in 999 of 1,000 searches, it has not been
        # measured to take less time than the exact scan (`python -m benchmarks hnsw`).
        if choice == "hnsw":
            new_hnsw(contract.dimension)  # raises here, where hnswlib is missing
            self._hnsw = BackgroundHnswBuilder(store, self._saved, contract.dimension)
        if not store.read_only:
            with store.unchanged(), store.snapshot() as snapshot:
                self._saved.repair(snapshot)

    @property
    def kind(self) -> str:
        """What answers a search at present; empty before the first."""
        exact = self._exact
        if exact is None:
            return ""
        return "hnsw" if self._hnsw and self._hnsw.is_at(exact.state) else "exact"

    @contextlib.contextmanager
    def current(self) -> Iterator[tuple[ExactIndex, Snapshot]]:
        """The exact index, and the snapshot of the store whose faces it holds."""
        for _ in range(_TRIES):
            with self._rw.reading(), self._store.snapshot() as snapshot:
                exact = self._exact
                if exact is not None and exact.state == snapshot.state():
                    yield exact.index, snapshot
                    return
            with self._rw.writing(), self._store.snapshot() as snapshot:
                self._follow(snapshot)
        # Another process changes the store faster than the lock changes hands.
        with self._rw.writing(), self._store.snapshot() as snapshot:
            yield self._follow(snapshot).index, snapshot

    def search(
        self,
        vector: NDArray[np.float32],
        limit: int,
        labels: NDArray[np.int32] | None,
        index: ExactIndex,
        snapshot: Snapshot,
    ) -> NDArray[np.int64]:
        """Ids of the best faces, best first; inside `current`, with what it gave."""
        if self._hnsw is not None:
            state = snapshot.state()
            if not self._hnsw.is_at(state):
                self._hnsw.wake()
            elif labels is None:
                found = self._hnsw.search(vector, limit, state)
                if found is not None:
                    return found
        return index.search(vector, limit, labels, fetch=snapshot.vectors)[0]

    @property
    def erasure_pending(self) -> bool:
        """Whether a saved index that holds a removed template could not be discarded yet."""
        return self._saved.pending

    def commit(self, change: Transaction) -> None:
        """Commit a change, and make every later search see it.

        A removed template leaves its places in this order: the store's row (with the commit), the
        index in memory, the log, the saved index.  A crash between leaves the rest to the next
        opening: it empties the log, and finds that the saved index does not fit the store.
        """
        state = change.state()
        change.commit()  # without the lock: searches go on during the disk's work
        with self._rw.writing():
            if self._exact is not None:
                self._exact.apply(change, state)
        try:
            if change.gone or self._store.erasure_pending:
                self._store.erase()
        finally:
            self._saved.discard_faces(change.gone)
        if self._exact is not None and self._hnsw is not None:
            self._hnsw.wake()

    def compact(self) -> None:
        """Free space, and bring the indexes to their best form."""
        with self._store.unchanged():
            self._store.shrink()
            with self.current():
                pass
        if self._hnsw is not None:
            self._hnsw.finish()

    def size_on_disk(self) -> int:
        """Bytes of the saved index."""
        total = 0
        for path in self._folder.rglob("*"):
            with contextlib.suppress(OSError):  # another process may be removing it
                total += path.stat().st_size if path.is_file() else 0
        return total

    def close(self) -> None:
        """Stop the background work, and try again to erase what could not be erased before."""
        if self._store.inherited:
            return  # the thread and the locks are the parent's
        if self._hnsw is not None:
            self._hnsw.stop()
        if self._store.read_only or self._store.closed:
            return
        try:
            with self._store.unchanged():
                if self._store.erasure_pending:
                    self._store.erase()
                self._saved.discard_faces(())
        except FacecoreError as error:
            log.warning("%s: removed templates may stay: %s", self._folder.parent, error)

    def _follow(self, snapshot: Snapshot) -> IndexSync[ExactIndex]:
        """Bring the exact index to the snapshot; under the lock, alone."""
        exact = self._exact
        if exact is None or not exact.can_follow(snapshot):
            new = ExactIndex(self._dimension, keep_vectors=False)
            exact = IndexSync(new, State(0, snapshot.state().removal))
        exact.follow(snapshot, progress=self._progress)
        self._exact = exact
        return exact
