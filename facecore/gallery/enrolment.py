"""Validation and batching of faces to store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facecore.errors import FacecoreError, InvalidParameter
from facecore.gallery.records import (
    FaceRecord,
    NewFace,
    Origin,
    check_choice,
    check_face_id,
    check_number,
    check_user_id,
    new_face_id,
)

if TYPE_CHECKING:
    from facecore.engine import FaceInput
    from facecore.gallery.backend import Backend

__all__ = ["SAME_PICTURE", "Pairs", "new_faces", "pack_of", "stored"]

# Cosine: vectors of one picture differ only by rounding, between batches or providers.
SAME_PICTURE = 0.9999


def new_faces(
    user_ids: Sequence[str],
    *,
    face_ids: Sequence[str] | None = None,
    quality: Sequence[float | None] | None = None,
    origin: Origin | Sequence[Origin] = "MANUAL",
    created: datetime | Sequence[datetime] | None = None,
) -> list[NewFace]:
    """Validate faces, adding missing ids and times; parameters as in `Gallery.add_templates`."""
    if isinstance(user_ids, str) or not isinstance(user_ids, Sized):
        raise InvalidParameter(
            f"user_ids is {user_ids!r:.80}", "give a list of one user_id per vector"
        )
    count = len(user_ids)
    moment = datetime.now(UTC) if created is None else created
    ids = [new_face_id() for _ in range(count)] if face_ids is None else face_ids
    columns: list[tuple[str, Sequence[Any]]] = [
        ("user_ids", user_ids),
        ("face_ids", ids),
        ("quality", [None] * count if quality is None else quality),
        ("origin", [origin] * count if isinstance(origin, str) else origin),
        ("created", [moment] * count if isinstance(moment, datetime) else moment),
    ]
    for name, column in columns:
        if not isinstance(column, Sized) or len(column) != count:
            raise InvalidParameter(f"{name} must have {count} entries, one per user_id")
    faces = [
        NewFace(check_user_id(user_id), check_face_id(face_id), _quality(q), _origin(o), _moment(t))
        for user_id, face_id, q, o, t in zip(*(column for _, column in columns), strict=True)
    ]
    if len({face.face_id for face in faces}) != count:
        raise InvalidParameter("two of the face_ids are the same")
    return faces


def pack_of(contract: object) -> str:
    """Name the pack with this contract id, for messages."""
    from facecore.models.listing import list_packs
    from facecore.models.manifest import contract_id

    for pack in list_packs():
        if pack.manifest is not None and contract_id(pack.manifest.embedder) == contract:
            return f"the pack {pack.name}"
    return "an unknown pack"


class Pairs:
    """Iterate over the images of (image, user_id) pairs and queue the user ids.

    Attributes
    ----------
    users : deque
        Unchecked user ids of the images that were read and are not yet stored.
    """

    def __init__(self, items: Iterable[tuple[FaceInput, str]]) -> None:
        self._items = items
        self.users: deque[object] = deque()

    def __length_hint__(self) -> int:
        return length_hint(self._items)

    def __iter__(self) -> Iterator[FaceInput]:
        for item in self._items:
            try:
                image, user_id = item
            except (TypeError, ValueError) as error:
                raise InvalidParameter(
                    f"an item is {item!r:.80}, must be a pair of an image and a user_id"
                ) from error
            self.users.append(user_id)
            yield image


def stored(
    backend: Backend,
    group: str,
    pairs: Pairs,
    vectors: Iterator[NDArray[np.float32] | FacecoreError],
    batch_size: int,
    known: Callable[[str, str, NDArray[np.float32]], FaceRecord | None] | None,
) -> Iterator[FaceRecord | FacecoreError]:
    """Store vectors, one transaction per batch; yield a record or an error for each.

    `known` finds the record of a picture that the user already has in the group; without it,
    every picture is stored.
    """
    while answers := list(islice(vectors, batch_size)):
        # A tuple is an index in `faces`, and whether an earlier picture of the batch is the same.
        outcomes: list[FacecoreError | FaceRecord | tuple[int, bool]] = []
        faces: list[NewFace] = []
        matrix: list[NDArray[np.float32]] = []
        for vector in answers:
            user_id = pairs.users.popleft()
            if isinstance(vector, FacecoreError):
                outcomes.append(vector)
                continue
            try:
                (face,) = new_faces([check_user_id(user_id)])
            except FacecoreError as error:
                outcomes.append(error.with_traceback(None))
                continue
            if known:
                if there := known(group, face.user_id, vector):
                    outcomes.append(replace(there, present=True))
                    continue
                same = [
                    place
                    for place, (other, its) in enumerate(zip(faces, matrix, strict=True))
                    if other.user_id == face.user_id and its @ vector > SAME_PICTURE
                ]
                if same:
                    outcomes.append((same[0], True))
                    continue
            outcomes.append((len(faces), False))
            faces.append(face)
            matrix.append(vector)
        records = backend.add(group, faces, np.stack(matrix)) if faces else []
        for outcome in outcomes:
            if isinstance(outcome, tuple):
                yield replace(records[outcome[0]], present=outcome[1])
            else:
                yield outcome


def _quality(value: float | None) -> float | None:
    if value is None:
        return None
    return check_number(value, "quality", 0, 100)


def _origin(value: Origin) -> Origin:
    check_choice(value, "origin", Origin)
    return value


def _moment(value: object) -> datetime:
    if not (isinstance(value, datetime) and value.utcoffset() is not None):
        raise InvalidParameter(f"created is {value!r:.80}, must be a datetime with a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidParameter(f"created is {value!r:.80}, which is out of range in UTC") from error
