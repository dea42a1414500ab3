"""Load, save and discard the HNSW index on disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, IndexCorrupt
from facecore.gallery.index import generations
from facecore.gallery.index.generations import Generation
from facecore.gallery.records import Contract
from facecore.gallery.sqlite.index_sync import IndexSync
from facecore.gallery.sqlite.transaction import Snapshot, State

if TYPE_CHECKING:
    from facecore.gallery.index import HnswIndex

__all__ = ["SavedIndex"]

log = logging.getLogger("facecore.gallery")

_KIND = "hnsw"
_OTHER_FACES = "the faces in the store have changed"
# With fewer faces than this, building the index takes less time than saving it.
WORTHWHILE = 5_000


class SavedIndex:
    """The saved generations of the HNSW index of a store.

    A generation is used only if the store still holds exactly its faces: none was removed since,
    and the store has no other history (a restored backup).

    Parameters
    ----------
    folder : Path
        The gallery's folder of indexes.
    contract : Contract
    allowed : bool, default True
        Whether files may hold faces; if not, nothing is saved and existing files are deleted.

    Attributes
    ----------
    face : int
        Id of the last face in the files; 0 if no file can be used.
    pending : bool
        A file may still hold a removed face, because it could not be deleted.
    reached : int
        Id of the last face ever saved or loaded by this object, even if it was discarded since.
        A removal must not make an open gallery write its whole index again.
    """

    def __init__(self, folder: Path, contract: Contract, *, allowed: bool = True) -> None:
        self._root = folder / _KIND
        self._exact = folder / "exact"  # facecore 0.1.0 saved the exact index too
        self._contract = contract
        self.allowed = allowed
        self.face = self.reached = 0
        self.pending = False
        self._unknown = False  # the files may hold any face

    def repair(self, snapshot: Snapshot) -> None:
        """Delete files that do not match the store or that a crash left.  For the writer only."""
        mark = generations.watermark(self._root)
        if self.allowed and mark is not None and _fits(mark, snapshot):
            self.face = self.reached = int(mark["face"])
            self._clean(generations.sweep)
        elif not self.allowed:
            self._clean(generations.discard)
        else:
            self._warn(snapshot, "it cannot be read" if mark is None else _OTHER_FACES)
            self._clean(generations.discard)

    def load(self, snapshot: Snapshot) -> IndexSync[HnswIndex] | None:
        """Load the newest generation if it is intact and matches the store; else return None."""
        found = generations.latest(self._root, self._contract.id, self._contract.dimension)
        result = self._load(found, snapshot) if isinstance(found, Generation) else found.reason
        if isinstance(result, IndexSync):
            self.face = self.reached = result.state.face
            return result
        self._warn(snapshot, result)
        self.face = self.reached = 0
        self._unknown = True
        return None

    def _warn(self, snapshot: Snapshot, reason: str) -> None:
        # No warning without a file: none was saved since a removal, or before a crash.
        if snapshot.size() >= WORTHWHILE and generations.numbers(self._root):
            log.warning("%s: the saved index is not used: %s", self._root, reason)

    def _load(self, found: Generation, snapshot: Snapshot) -> IndexSync[HnswIndex] | str:
        if found.kind != _KIND:
            return f"{found.folder.name}: its kind is {found.kind}"
        if not _fits(found.watermark, snapshot):
            return f"{found.folder.name}: {_OTHER_FACES}"
        from facecore.gallery.index import HnswIndex

        try:
            index = HnswIndex.load(found.folder)
        except IndexCorrupt as error:
            return f"{found.folder.name}: {error.message}"
        if len(index) != found.rows:
            return f"{found.folder.name}: it has {len(index)} rows, not {found.rows}"
        return IndexSync(index, State(int(found.watermark["face"]), snapshot.state().removal))

    def save(self, sync: IndexSync[HnswIndex], snapshot: Snapshot) -> None:
        """Write a generation; a failure is only logged as a warning.

        `sync` must have applied all removals of the snapshot, and must not change meanwhile.
        """
        face = sync.state.face
        try:
            generations.save(
                self._root,
                sync.index,
                kind=_KIND,
                contract=self._contract.id,
                watermark={"face": face, "holds": snapshot.fingerprint(face)},
                parameters=sync.index.parameters,
            )
        except FacecoreError as error:
            log.warning("%s: the index was not saved: %s", self._root, error)
            self._unknown = True
            return
        self._unknown = False
        self.face = self.reached = face
        self.pending = self.pending and len(generations.numbers(self._root)) > 1

    def discard_faces(self, removed: Iterable[NDArray[np.int64]]) -> None:
        """Discard the files if they hold one of these faces, or if an earlier discard failed.

        A failure is logged and sets `pending`.  It is not raised: the removal itself is done.
        """
        if self.pending or any(self._unknown or ids.min() <= self.face for ids in removed):
            self._clean(generations.discard)

    def _clean(self, clean: Callable[[Path], None]) -> None:
        try:
            if self._exact.exists():
                shutil.rmtree(self._exact)
            clean(self._root)
        except (FacecoreError, OSError) as error:
            if not self.pending:
                log.warning(
                    "%s: the files may keep removed templates for now: %s", self._root, error
                )
            self.pending = True
        else:
            self.pending = self._unknown = False
            if clean is generations.discard:
                self.face = 0


def _fits(mark: dict[str, object], snapshot: Snapshot) -> bool:
    face = mark.get("face")
    # SQLite's integers are below 2**63.
    return (
        type(face) is int and 0 <= face < 2**63 and mark.get("holds") == snapshot.fingerprint(face)
    )
