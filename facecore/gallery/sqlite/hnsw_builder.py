"""HNSW index next to the exact one: built in the background, searched only when up to date."""

from __future__ import annotations

import atexit
import logging
import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError
from facecore.gallery.sqlite.index_sync import ChangeBatch, IndexSync
from facecore.gallery.sqlite.saved_index import WORTHWHILE, SavedIndex
from facecore.gallery.sqlite.transaction import Snapshot, State

if TYPE_CHECKING:
    from facecore.gallery.index.hnsw import HnswIndex
    from facecore.gallery.sqlite.store import Store

__all__ = ["BackgroundHnswBuilder", "new_hnsw"]

log = logging.getLogger("facecore.gallery")

# Faces added at a time: a fraction of a second of work.
_BATCH = 256
# Share of all faces that may be unsaved, and share of removed faces in the graph above which
# `finish` rebuilds it.
_UNSAVED = 1 / 4
_GARBAGE = 1 / 10


class BackgroundHnswBuilder:
    """Build an HNSW index in a background thread, and search it when it matches the store.

    Only the process that changes the store builds an HNSW index; others load a saved index.

    Parameters
    ----------
    store : Store
    saved : SavedIndex
    dimension : int
    """

    def __init__(self, store: Store, saved: SavedIndex, dimension: int) -> None:
        self._store = store
        self._saved = saved
        self._dimension = dimension
        self._sync: IndexSync[HnswIndex] | None = None
        self._at: State | None = None  # None while the index changes
        self._changed = threading.Condition()
        # Tickets: the last one issued, the last one of `finish`, the last one served.
        self._asked = self._thorough = self._done = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    def is_at(self, state: State) -> bool:
        """Whether the index is at a state of the store."""
        return self._at == state

    def wake(self) -> int:
        """Make the index catch up with the store, in the background; return a ticket."""
        with self._changed:
            if not self._stopping:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="facecore-hnsw", daemon=True
                    )
                    atexit.register(self.stop)  # Python must not end while hnswlib works
                    self._thread.start()
                self._asked += 1
                self._changed.notify_all()
            return self._asked

    def search(
        self, vector: NDArray[np.float32], limit: int, state: State
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Search at a state of the store; return None if the index is at another state."""
        sync = self._sync
        if sync is None or self._at != state:
            return None
        found = sync.index.search(vector, limit)
        return found if self._at == state else None  # it may have changed meanwhile

    def finish(self) -> None:
        """Wait until the index is up to date and saved; rebuild it if much of it was removed."""
        with self._changed:
            self._thorough = ticket = self.wake()
            self._changed.wait_for(lambda: self._stopping or self._done >= ticket)

    def stop(self) -> None:
        """End the thread, which first saves the index if much of it is unsaved."""
        if self._store.inherited:
            return  # a forked child has no such thread
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            atexit.unregister(self.stop)

    def _run(self) -> None:
        try:
            while not self._stopping:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping or self._done < self._asked)
                    ticket = self._asked
                    thorough = self._thorough > self._done
                self._catch_up(thorough)
                if self._save(thorough):
                    with self._changed:
                        self._done = ticket
                        self._changed.notify_all()
        except FacecoreError as error:
            log.warning("%s: no HNSW index: %s", self._store.path.parent, error)
        finally:
            with self._changed:
                self._stopping, self._at = True, None
                self._changed.notify_all()

    def _catch_up(self, thorough: bool) -> None:
        while not self._stopping:
            with self._store.snapshot() as snapshot:
                sync = self._open(snapshot, thorough)
                if sync is None:
                    self._stopping = True  # do not wait until another process saves one
                    return
                if sync.state == snapshot.state():
                    self._at = sync.state
                    return
                batch = ChangeBatch.read(snapshot, sync.state, _BATCH)
            # Outside the snapshot, because an open snapshot delays an erasure.
            self._at = None
            sync.take(batch)

    def _open(self, snapshot: Snapshot, thorough: bool) -> IndexSync[HnswIndex] | None:
        sync = self._sync
        renew = thorough and sync is not None and sync.index.garbage > _GARBAGE
        if renew or sync is None or not sync.can_follow(snapshot):
            self._at = None
            sync = None if renew else self._saved.load(snapshot)
            if sync is None and not self._store.read_only:
                start = State(0, snapshot.state().removal)
                sync = IndexSync(new_hnsw(self._dimension), start)
            self._sync = sync
        return sync

    def _save(self, thorough: bool) -> bool:
        """Save the index if much of it is unsaved, even if it is not up to date.

        Returns False if a removal came in between: the index must catch up first.
        """
        if self._store.read_only or self._sync is None or not self._saved.allowed:
            return True
        with self._store.unchanged(), self._store.snapshot() as snapshot:
            state, at, size = snapshot.state(), self._sync.state, snapshot.size()
            if at.removal != state.removal:
                return False
            since = self._saved.face if self._stopping or thorough else self._saved.reached
            least = 0 if thorough else _UNSAVED * size
            if size >= WORTHWHILE and at.face - since > least:
                self._saved.save(self._sync, snapshot)
        return True


def new_hnsw(dimension: int) -> HnswIndex:
    """Make an empty index; raises MissingExtra if hnswlib is not installed."""
    from facecore.gallery.index import HnswIndex

    return HnswIndex(dimension)
