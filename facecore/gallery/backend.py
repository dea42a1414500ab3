"""Protocol of the storage backends of `facecore.Gallery`."""

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
    """Criteria that select records; None matches every record."""

    group: str | None = None
    user_id: str | None = None
    face_id: str | None = None
    origin: Origin | None = None


class Backend(Protocol):
    """Storage of groups, faces and templates, with search.

    The caller validates arguments.  Methods that change data return once the change is durable;
    every later search sees it.  All methods are thread-safe.  An unknown group raises
    GroupNotFound in every method that names one.

    Attributes
    ----------
    most_hits : int
        The highest `limit` of a search.
    """

    most_hits: int

    def create_group(self, name: str, title: str, description: str) -> Group:
        """Add a group; raises GroupExists."""

    def group(self, name: str) -> Group:
        """Return a group by name."""

    def group_by_id(self, number: int) -> Group:
        """Return a group by id."""

    def groups(self, offset: int, limit: int | None, title: str | None) -> list[Group]:
        """List a page of groups in order of id; `title` selects an exact title."""

    def update_group(
        self, name: str, title: str | None, description: str | None, number: int | None
    ) -> Group:
        """Set the fields that are not None; `number`, if not None, must be the id of the group."""

    def delete_group(self, name: str, number: int | None) -> int:
        """Delete a group and its faces; return their number.  `number` as in `update_group`."""

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
            Unit length.
        on_existing : {"add", "refuse", "replace"}
            How to treat faces that a user already has in the group.

        Raises
        ------
        UserExists
            `on_existing` is "refuse" and the group holds one of the users.
        InvalidParameter
            A face id is already stored.
        """

    def remove(self, group: str, user_id: str | None, face_id: str | None) -> int:
        """Remove a user's faces, or one face, from a group; return their number."""

    def search(
        self,
        vector: NDArray[np.float32],
        groups: Sequence[str] | None,
        limit: int,
        *,
        count: bool = False,
    ) -> tuple[list[Hit], int]:
        """Find the faces most similar to a vector in the groups (None: all), best first.

        With `count`, the second value is the number of faces that the vector was compared with.
        """

    def record(self, face_id: str) -> FaceRecord:
        """Return a record by face id; raises RecordNotFound."""

    def record_by_id(self, number: int) -> FaceRecord:
        """Return a record by id; raises RecordNotFound."""

    def records(self, which: Filter, offset: int, limit: int) -> list[FaceRecord]:
        """List a page of the records in order of id."""

    def count(self, which: Filter) -> int:
        """Count the records that match."""

    def known(self, face_ids: Collection[str]) -> set[str]:
        """Return the subset of the face ids that are stored."""

    def templates(
        self, which: Filter, batch_size: int
    ) -> Iterator[tuple[list[FaceRecord], NDArray[np.float32]]]:
        """Iterate over records and templates by id; each batch is a consistent snapshot."""

    def comparisons(self, groups: Sequence[str] | None) -> int:
        """Count the faces that a search in these groups compares with."""

    def groups_of(self, user_id: str) -> list[str]:
        """List the names of the groups that hold a user, in order of group id."""

    def stats(self) -> GalleryStats:
        """Return the size of the store and the state of its index."""

    def warmup(self) -> None:
        """Build the index that the first search would build."""

    def compact(self) -> None:
        """Free unused space and optimise the index."""

    def close(self) -> None:
        """Close the backend; further calls do nothing."""
