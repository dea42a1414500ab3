"""Keep an index in step with the history of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from facecore.gallery.index import Index
from facecore.gallery.sqlite.transaction import Snapshot, State

__all__ = ["ChangeBatch", "IndexSync"]

IndexT = TypeVar("IndexT", bound=Index)

_BATCH = 16_384
# Least number of faces to read for which a progress bar is shown.
_LONG = 50_000


@dataclass(slots=True)
class IndexSync(Generic[IndexT]):
    """An index, and the state of the store that it reflects.

    The index holds exactly the faces with ids up to `state.face` that existed at the removal
    `state.removal`.  If a change of the index was interrupted, `whole` is False and the index must
    be dropped.  One thread at a time may change the index.
    """

    index: IndexT
    state: State
    whole: bool = True

    def can_follow(self, snapshot: Snapshot) -> bool:
        """Whether the store still has all changes since `state`; False if the store went back."""
        state = snapshot.state()
        return (
            snapshot.oldest_removal() <= self.state.removal <= state.removal
            and self.state.face <= state.face
        )

    def follow(self, snapshot: Snapshot, *, progress: bool = False) -> None:
        """Bring the index to the snapshot's state; `progress` shows a bar for many faces."""
        missing = snapshot.count_after(self.state.face) if progress else 0
        if missing < _LONG:
            while self.step(snapshot):
                pass
            return
        from tqdm import tqdm

        with tqdm(total=missing, unit="face", desc="building the index") as bar:
            while count := self.step(snapshot):
                bar.update(count)

    def step(self, snapshot: Snapshot, limit: int = _BATCH) -> int:
        """Apply removals, and at most `limit` additions; return 0 if nothing is left."""
        if self.state == snapshot.state():
            return 0
        batch = ChangeBatch.read(snapshot, self.state, limit)
        self.take(batch)
        return max(1, len(batch.ids))

    def take(self, batch: ChangeBatch) -> None:
        """Apply one batch."""
        self.whole = False
        self.index.remove(batch.gone)
        if len(batch.ids):
            self.index.add(batch.ids, batch.vectors, batch.labels)
        self.state, self.whole = batch.state, True


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """A part of the history: all removals since a state, and the next additions."""

    gone: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    vectors: NDArray[np.float32]
    state: State

    @classmethod
    def read(cls, snapshot: Snapshot, since: State, limit: int) -> ChangeBatch:
        """Read all removals, and at most `limit` additions."""
        gone = snapshot.removals(since.removal)
        ids, labels, vectors = snapshot.after(since.face, limit)
        target = snapshot.state()
        last = int(ids[-1]) if len(ids) == limit else target.face
        return cls(gone, ids, labels, vectors, State(last, target.removal))
