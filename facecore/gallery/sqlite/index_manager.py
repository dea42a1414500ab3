"""The index of a store: what it answers is what the store holds, whatever happened to it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facecore._utils.rwlock import ReadersWriterLock
from facecore.errors import FacecoreError
from facecore.gallery.index import Index
from facecore.gallery.index.exact import ExactIndex
from facecore.gallery.records import Contract
from facecore.gallery.sqlite.folder import INDEX
from facecore.gallery.sqlite.hnsw_builder import BackgroundHnswBuilder, new_hnsw
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.saved_index import WORTHWHILE, SavedIndex
from facecore.gallery.sqlite.snapshot import Snapshot, State
from facecore.gallery.sqlite.store import Store
from facecore.gallery.sqlite.transaction import Transaction

__all__ = ["IndexManager"]

log = logging.getLogger("facecore.gallery")

# What is not saved is read from the store at the next opening: this share of all faces may be,
# when a gallery is closed and while it is open.
_UNSAVED_AT_CLOSE, _UNSAVED_OPEN = 1 / 20, 1 / 4
_TRIES = 3


class IndexManager:
    """Holds the exact index of a store, keeps it up to date, and keeps it on the disk.

    Its own lock (`_rw`) is taken after the store's lock on changes, and snapshots after both.
    Under it the index is at one state of the store; a search whose snapshot of the store is at
    another state lets the index follow first, so that every answer is that of one moment.

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
        self._exact: IndexSync | None = None
        self._folder = store.path.parent / INDEX
        self._saved = SavedIndex(self._folder / "exact", "exact", contract)
        saved_hnsw = SavedIndex(self._folder / "hnsw", "hnsw", contract)
        self._all_saved = (self._saved, saved_hnsw)
        self._fast: BackgroundHnswBuilder | None = None
        # Not for "auto": where HNSW finds the best face in 999 of 1,000 searches, it has not been
        # measured to take less time than the exact scan (`python -m benchmarks hnsw`).
        if choice == "hnsw":
            new_hnsw(contract.dimension)  # raises here, where hnswlib is missing
            self._fast = BackgroundHnswBuilder(store, saved_hnsw, contract.dimension)
        if not store.read_only:
            with store.unchanged(), store.snapshot() as snapshot:
                for saved in self._all_saved:
                    saved.repair(snapshot)

    @property
    def kind(self) -> str:
        """What answers a search at present; empty before the first."""
        exact = self._exact
        if exact is None:
            return ""
        return "hnsw" if self._fast and self._fast.is_at(exact.state) else "exact"

    @contextlib.contextmanager
    def current(self) -> Iterator[tuple[Index, Snapshot]]:
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
        index: Index,
        snapshot: Snapshot,
    ) -> NDArray[np.int64]:
        """Ids of the best faces, best first; inside `current`, with what it gave."""
        if self._fast is not None:
            state = snapshot.state()
            if not self._fast.is_at(state):
                self._fast.wake()
            elif labels is None:
                found = self._fast.search(vector, limit, state)
                if found is not None:
                    return found
        return index.search(vector, limit, labels)[0]

    @property
    def erasure_pending(self) -> bool:
        """Whether a saved index that holds a removed template could not be discarded yet."""
        return any(saved.pending for saved in self._all_saved)

    def commit(self, change: Transaction) -> None:
        """Commit a change, and see to it that every later search knows of it.

        What holds a removed template goes in this order: the store's row (with the commit), the
        index in memory, the log, the saved indexes.  A crash between leaves the rest to the next
        opening: it empties the log, and finds that the saved indexes do not fit the store.
        """
        if change.gone and self._exact is None and self._saved.face:
            # Read it while it may be read, or the next opening has to build it anew.
            with self._rw.writing(), self._store.snapshot() as snapshot:
                self._follow(snapshot)
        state = change.state()
        change.commit()  # without the lock: searches go on while the disk is waited for
        with self._rw.writing():
            if self._exact is not None:
                self._exact.apply(change, state)
        try:
            if change.gone or self._store.erasure_pending:
                self._store.erase()
        finally:
            for saved in self._all_saved:
                saved.forget(change.gone)
        if self._exact is not None:
            if self._fast is not None:
                self._fast.wake()
            self._save(self._saved.reached, _UNSAVED_OPEN, least=10 * WORTHWHILE)

    def compact(self) -> None:
        """Free space, and bring everything to its best form, on the disk too."""
        with self._store.unchanged():
            self._store.shrink()
            with self.current():
                pass
            self._save(self._saved.face)
        if self._fast is not None and self._exact is not None:
            self._fast.finish()

    def size_on_disk(self) -> int:
        """Bytes of the saved indexes."""
        total = 0
        for path in self._folder.rglob("*"):
            with contextlib.suppress(OSError):  # another process may be removing it
                total += path.stat().st_size if path.is_file() else 0
        return total

    def close(self) -> None:
        """Stop what runs in the background, and save what the next opening would miss."""
        if self._store.inherited:
            return  # the thread and the locks are the parent's
        if self._fast is not None:
            self._fast.stop()
        if self._store.read_only or self._store.closed:
            return
        try:
            with self._store.unchanged():
                if self._store.erasure_pending:
                    self._store.erase()
                for saved in self._all_saved:
                    saved.forget(())
                self._save(self._saved.face, _UNSAVED_AT_CLOSE, least=WORTHWHILE)
        except FacecoreError as error:
            log.warning("%s: closed without saving the index: %s", self._folder.parent, error)

    def _save(self, since: int, share: float = 0, least: int = 1) -> None:
        """Save the exact index if many faces were added since one; inside `unchanged`."""
        with self._store.snapshot() as snapshot:
            size, last = snapshot.size(), snapshot.state().face
        if size < WORTHWHILE or last - since < max(least, share * size):
            return
        with self.current() as (_, snapshot):
            if self._exact is not None:
                self._saved.save(self._exact, snapshot)

    def _follow(self, snapshot: Snapshot) -> IndexSync:
        """Bring the exact index to the snapshot; under the lock, alone."""
        exact = self._exact
        if exact is None or not exact.can_follow(snapshot):
            exact = self._saved.load(snapshot, self._read)
            if exact is None:
                new = ExactIndex(self._dimension, fetch=self._fetch)
                exact = IndexSync(new, State(0, snapshot.state().removal))
        exact.follow(snapshot, progress=self._progress)
        self._exact = exact
        return exact

    def _read(self, folder: Path) -> Index:
        return ExactIndex.load(folder, fetch=self._fetch)

    def _fetch(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        with self._store.snapshot() as snapshot:  # the one that the search began with
            return snapshot.vectors(ids)
