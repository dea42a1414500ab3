"""The index of a store: always what the store says, however it came there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Literal

from facecore.gallery.changes import Changes
from facecore.gallery.queries import Snapshot, State
from facecore.gallery.records import Contract
from facecore.gallery.scan import ScanIndex
from facecore.gallery.store import Store

__all__ = ["IndexKeeper"]

_BATCH = 20_000


class IndexKeeper:
    """Holds the index, brings it up to date, and keeps it on the disk."""

    def __init__(
        self,
        store: Store,
        contract: Contract,
        choice: Literal["auto", "exact", "hnsw"],
        progress: bool,
    ) -> None:
        self._store = store
        self._contract = contract
        self._lock = threading.RLock()
        self._index: ScanIndex | None = None
        self._state = State(0, 0)
        self.kind = ""

    @contextlib.contextmanager
    def current(self) -> Iterator[tuple[ScanIndex, Snapshot]]:
        """The index and the snapshot of the store that it is equal to."""
        with self._lock, self._store.snapshot() as snapshot:
            yield self._follow(snapshot), snapshot

    def commit(self, change: Changes) -> None:
        """Commit a change, and let the index follow before anybody searches."""
        state = change.state()
        with self._lock:
            change.commit()
            if self._index is not None:
                for ids in change.removed:
                    self._index.remove(ids)
                for added, labels, vectors in change.added:
                    self._index.add(added, vectors, labels)
                self._state = state
        if change.removed or self._store.erasure_pending:
            self._store.erase()

    def compact(self) -> None:
        """Free space."""
        self._store.shrink()

    def size_on_disk(self) -> int:
        """Bytes."""
        return 0

    def close(self) -> None:
        """Finish."""

    def _follow(self, snapshot: Snapshot) -> ScanIndex:
        state = snapshot.state()
        if self._index is None or self._state.removal < snapshot.oldest_removal():
            self._index, self._state = ScanIndex(self._contract.dimension), State(0, state.removal)
            self.kind = "exact"
        if state != self._state:
            self._index.remove(snapshot.removals(self._state.removal))
            last = self._state.face
            while True:
                ids, labels, vectors = snapshot.after(last, _BATCH)
                if not len(ids):
                    break
                self._index.add(ids, vectors, labels)
                last = int(ids[-1])
            self._state = state
        return self._index
