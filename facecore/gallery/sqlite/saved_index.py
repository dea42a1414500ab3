"""Indexes on the disk: what may be loaded, and what must not stay there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, IndexCorrupt
from facecore.gallery.index import Index, generations
from facecore.gallery.index.generations import Generation
from facecore.gallery.records import Contract
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.snapshot import Snapshot, State

__all__ = ["SavedIndex"]

log = logging.getLogger("facecore.gallery")

_OTHER_FACES = "the store does not hold the same faces any more"
# Below this many faces an index is made from the store faster than it could be saved.
WORTHWHILE = 5_000


class SavedIndex:
    """The generations of one kind of index.

    The store is the truth, and a generation is believed only if the store holds exactly the
    faces that it holds: none was removed since, and no other history has taken its place.

    Parameters
    ----------
    root : Path
        Folder of the generations.
    kind : str
    contract : Contract

    Attributes
    ----------
    face : int
        Id of the last face of what is on the disk; 0 where nothing is.
    pending : bool
        A removed face may still be on the disk, as it could not be discarded.
    reached : int
        Id of the last face that was ever saved or loaded here, also if it was discarded since:
        a removal must not make an open gallery write its whole index again.
    """

    def __init__(self, root: Path, kind: str, contract: Contract) -> None:
        self._root = root
        self._kind = kind
        self._contract = contract
        self.face = self.reached = 0
        self.pending = False
        self._none = False  # known, as only this process could have made one since
        self._unread = False  # what is on the disk may hold any face

    def repair(self, snapshot: Snapshot) -> None:
        """Remove what a crash kept from being removed.  For the one who writes only."""
        mark = generations.watermark(self._root)
        if mark is not None and _fits(mark, snapshot):
            self.face = self.reached = int(mark["face"])
            self._clean(generations.sweep)
        else:
            self._warn(snapshot, "it cannot be read" if mark is None else _OTHER_FACES)
            self._discard()

    def load(self, snapshot: Snapshot, read: Callable[[Path], Index]) -> IndexSync | None:
        """The newest generation, if it is whole and the store's; else None."""
        if self._none:
            return None
        found = generations.latest(self._root, self._contract.id, self._contract.dimension)
        result = (
            self._load(found, snapshot, read) if isinstance(found, Generation) else found.reason
        )
        if isinstance(result, IndexSync):
            return result
        self._warn(snapshot, result)
        self.face = self.reached = 0
        self._unread = True
        return None

    def _warn(self, snapshot: Snapshot, reason: str) -> None:
        # That there is none is no news: nothing was saved since a removal, or before a crash.
        if snapshot.size() >= WORTHWHILE and generations.numbers(self._root):
            log.warning("%s: the saved index is not used: %s", self._root, reason)

    def _load(
        self, found: Generation, snapshot: Snapshot, read: Callable[[Path], Index]
    ) -> IndexSync | str:
        if found.kind != self._kind:
            return f"{found.folder.name}: it is of the kind {found.kind}"
        if not _fits(found.watermark, snapshot):
            return f"{found.folder.name}: {_OTHER_FACES}"
        try:
            index = read(found.folder)
        except IndexCorrupt as error:
            return f"{found.folder.name}: {error.message}"
        if len(index) != found.rows:
            return f"{found.folder.name}: it has {len(index)} rows of {found.rows}"
        state = State(int(found.watermark["face"]), snapshot.state().removal)
        self.face = self.reached = state.face
        return IndexSync(index, state)

    def save(self, sync: IndexSync, snapshot: Snapshot) -> None:
        """Write a generation; one that cannot be written is only a warning.

        The sync must be at the removals of the snapshot, and stay as it is meanwhile.
        """
        face = sync.state.face
        mark = {"face": face, "holds": snapshot.fingerprint(face)}
        try:
            generations.save(
                self._root,
                sync.index,
                kind=self._kind,
                contract=self._contract.id,
                watermark=mark,
                parameters=getattr(sync.index, "parameters", None),
            )
        except FacecoreError as error:
            log.warning("%s: the index was not saved: %s", self._root, error)
            self._unread = True
            return
        self.face = self.reached = face
        self._none = self._unread = False
        self.pending = self.pending and len(generations.numbers(self._root)) > 1

    def forget(self, gone: Iterable[NDArray[np.int64]]) -> None:
        """Discard what holds one of these faces, or could not be discarded before.

        Where that is impossible, it is logged, and `pending`: the removal itself was done.
        """
        if self.pending or any(self._unread or ids.min() <= self.face for ids in gone):
            self._discard()

    def _discard(self) -> None:
        self.face, self._none = 0, True
        self._clean(generations.discard)

    def _clean(self, clean: Callable[[Path], None]) -> None:
        try:
            clean(self._root)
        except FacecoreError as error:
            if not self.pending:
                log.warning("%s: removed templates may stay for now: %s", self._root, error)
            self.pending = True
        else:
            self.pending = self._unread = False


def _fits(mark: dict[str, object], snapshot: Snapshot) -> bool:
    face = mark.get("face")
    return isinstance(face, int) and mark.get("holds") == snapshot.fingerprint(face)
