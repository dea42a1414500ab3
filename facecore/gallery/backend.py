"""What `facecore.Gallery` needs of a place where faces are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facecore.gallery.records import (
    FaceRecord,
    GalleryStats,
    Group,
    Hit,
    NewFace,
    OnExisting,
    Origin,
)

__all__ = ["Backend", "Filter"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records a question is about; what is None does not matter."""

    group: str | None = None
    user_id: str | None = None
    face_id: str | None = None
    origin: Origin | None = None


class Backend(Protocol):
    """Groups, faces and their templates, and a search among them.

    Arguments were checked by the caller.  Every method that changes something returns when the
    change is durable, and every later search sees it.  All methods may be called from many
    threads.  A group that does not exist raises GroupNotFound wherever it is named.
    """

    def create_group(self, name: str, title: str, description: str) -> Group:
        """Add a group; raises GroupExists."""

    def group(self, name: str) -> Group:
        """One group."""

    def group_by_id(self, number: int) -> Group:
        """One group."""

    def groups(self, offset: int, limit: int | None, title: str | None) -> list[Group]:
        """A page of the groups, by id; `title`: only those that have this very one."""

    def update_group(self, name: str, title: str | None, description: str | None) -> Group:
        """Change what is not None."""

    def delete_group(self, name: str) -> int:
        """Delete a group and its faces; return their number."""

    def add(
        self,
        group: str,
        faces: Sequence[NewFace],
        vectors: NDArray[np.float32],
        on_existing: OnExisting = "add",
    ) -> list[FaceRecord]:
        """Add faces in order, all or none.

        Parameters
        ----------
        group : str
        faces : sequence of NewFace, n
        vectors : ndarray, shape (n, D), float32
            Of unit length.
        on_existing : {"add", "refuse", "replace"}
            What happens to faces that a user has in the group already.

        Raises
        ------
        UserExists
            `on_existing` is "refuse", and one is there.
        InvalidParameter
            A face of that id is there.
        """

    def remove(self, group: str, user_id: str | None, face_id: str | None) -> int:
        """Remove a user's faces, or one face, from a group; return their number."""

    def search(
        self, vector: NDArray[np.float32], groups: Sequence[str] | None, limit: int
    ) -> list[Hit]:
        """The faces most like a vector, best first, over all groups together; None: all groups."""

    def record(self, face_id: str) -> FaceRecord:
        """One record; raises RecordNotFound."""

    def record_by_id(self, number: int) -> FaceRecord:
        """One record; raises RecordNotFound."""

    def records(self, which: Filter, offset: int, limit: int, after: int = 0) -> list[FaceRecord]:
        """A page of records with ids above `after`, by id."""

    def count(self, which: Filter) -> int:
        """Number of records."""

    def known(self, face_ids: Collection[str]) -> set[str]:
        """Those of the ids that a face has."""

    def templates(
        self, which: Filter, batch_size: int
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        """Records with their templates, by id, in batches; each as of one moment."""

    def comparisons(self, groups: Sequence[str] | None) -> int:
        """Number of faces that a search in these groups compares with."""

    def groups_of(self, user_id: str) -> list[str]:
        """Names of the groups that hold a user, by the groups' ids."""

    def stats(self) -> GalleryStats:
        """How large it is, and the state of its index."""

    def compact(self) -> None:
        """Free space and bring the index to its best form."""

    def close(self) -> None:
        """Finish; calling it again does nothing."""
