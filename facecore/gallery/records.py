"""Records and results of a gallery, and checks of its arguments."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from facecore.errors import InvalidParameter
from facecore.face.detection import Face

__all__ = [
    "Contract",
    "FaceRecord",
    "GalleryStats",
    "Group",
    "Hit",
    "Identification",
    "Match",
    "NewFace",
    "OnExisting",
    "Origin",
    "Verification",
    "check_choice",
    "check_count",
    "check_face_id",
    "check_name",
    "check_number",
    "check_text",
    "check_user_id",
    "from_microseconds",
    "new_face_id",
    "to_microseconds",
]

Origin = Literal["MANUAL", "AUTO"]
OnExisting = Literal["add", "refuse", "replace"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Largest id or count: the sum of two fits the 64 bits of SQLite and Milvus.
MOST = 2**62 - 1
LONGEST_NAME, LONGEST_USER_ID, LONGEST_TEXT = 64, 256, 4096


@dataclass(frozen=True, slots=True)
class Contract:
    """The vector space of a gallery's templates.

    Attributes
    ----------
    id : str
        See `facecore.models.manifest.contract_id`.
    pack : str
        Name of the pack, for messages.
    dimension : int
        Length D of a template.
    """

    id: str
    pack: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of faces.

    Attributes
    ----------
    id : int
        Never reused, even after the group is deleted.
    name : str
        Identifies the group in every method; the documented operations call it the code.
    title, description : str
        Free text for people.
    created : datetime
        UTC.
    size : int
        Number of faces.
    """

    id: int
    name: str
    title: str
    description: str
    created: datetime
    size: int


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """A stored face.

    Attributes
    ----------
    id : int
        Increases with each addition; never reused.
    face_id : str
        32 lower-case hexadecimal digits, unique everywhere.
    user_id : str
        A user may have several faces in a group.
    group : str
        Name of the group.
    quality : float or None
        0..100, from `facecore.FaceEngine.quality`.  None if it was not measured: `Gallery.add`
        measures it, `add_many` and the bulk import do not.
    origin : {"MANUAL", "AUTO"}
        "MANUAL": a caller added the face.  "AUTO": an operation registered it.
    created : datetime
        UTC.
    others : int or None
        Number of other faces in the picture; set by `Gallery.add`, not stored.
    present : bool
        True if `Gallery.add` or `add_many` found the picture already stored.
    """

    id: int
    face_id: str
    user_id: str
    group: str
    quality: float | None
    origin: Origin
    created: datetime
    others: int | None = field(default=None, compare=False)
    present: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Match:
    """A stored face that is similar to the probe.

    Attributes
    ----------
    face_id, user_id, group : str
        As in `FaceRecord`.
    score : float
        0..100 on the calibrated scale of `facecore.Comparison`.
    similarity : float
        Cosine, -1..1.
    """

    face_id: str
    user_id: str
    group: str
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of `Gallery.verify`.

    Attributes
    ----------
    passed : bool
        ``score >= threshold``.
    score : float
        0..100, corrected for the number n of templates: impostors reach it at the rate
        ``1 - (1 - p)^n``, where p is the false accept rate of the best comparison alone.
    similarity : float
        Cosine with the most similar template, -1..1.
    threshold : float
        0..100.
    face_id : str
        Face of the most similar template.
    templates : int
        Number of the user's templates in the group.
    """

    passed: bool
    score: float
    similarity: float
    threshold: float
    face_id: str
    templates: int


@dataclass(frozen=True, slots=True)
class Identification:
    """Result of `Gallery.identify` for one face.

    Attributes
    ----------
    face : Face
    match : Match or None
        The user, with the most similar face; None for an unknown person.
    candidates : tuple of Match
        The most similar users at any score, best first.
    """

    face: Face
    match: Match | None
    candidates: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class GalleryStats:
    """Size of a gallery, and the state of its index.

    Attributes
    ----------
    groups, faces, users : int
        Counts; a user in two groups counts once.
    dimension : int
        Length D of a template.
    contract_id, pack : str
        The vector space, and the name of its pack.
    store_bytes, index_bytes : int
        Size on disk.
    index : str
        The index that answers searches now: ``"exact"``, ``"hnsw"``, or ``""`` before any search.
    removed : int
        Number of overwritten templates whose space `Gallery.compact` frees.
    erasure_pending : bool
        Copies of a removed template may remain in the write-ahead log or a saved HNSW index,
        because another process was reading or a file could not be emptied.  They may stay until
        a later change, `Gallery.compact` or `Gallery.close`.
    """

    groups: int
    faces: int
    users: int
    dimension: int
    contract_id: str
    pack: str
    store_bytes: int
    index_bytes: int
    index: str
    removed: int
    erasure_pending: bool


@dataclass(frozen=True, slots=True)
class NewFace:
    """A face to store, without its template."""

    user_id: str
    face_id: str
    quality: float | None
    origin: Origin
    created: datetime


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored face, and its cosine with the probe, -1..1."""

    record: FaceRecord
    similarity: float


def check_name(name: object, what: str = "the name of a group") -> str:
    """Check the name of a group: 1..64 characters, no control characters."""
    return _text(name, what, 1, LONGEST_NAME)


def check_user_id(user_id: object) -> str:
    """Check a user id: 1..256 characters, no control characters."""
    return _text(user_id, "user_id", 1, LONGEST_USER_ID)


def check_text(text: object, what: str) -> str:
    """Check a title or a description; line breaks and tabs are allowed."""
    return _text(text, what, 0, LONGEST_TEXT, allowed="\n\r\t")


def check_face_id(face_id: object) -> str:
    """Check a face id: 32 lower-case hexadecimal digits."""
    if not (isinstance(face_id, str) and re.fullmatch("[0-9a-f]{32}", face_id)):
        raise InvalidParameter(f"face_id is {face_id!r:.80}, must be 32 lower-case hex digits")
    return face_id


def check_choice(value: object, what: str, choices: Any) -> None:
    """Check that a value is one of a ``Literal``."""
    values = choices.__args__  # get_args takes ten times as long, for each face of a batch
    if value not in values:
        allowed = " or ".join(f'"{choice}"' for choice in values)
        raise InvalidParameter(f"{what} is {value!r:.80}", f"use {allowed}")


def check_count(value: object, what: str, least: int) -> int:
    """Check an integer of at least `least`; return it, or `MOST` if it is larger."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidParameter(f"{what} is {value!r:.80}, must be an integer from {least}")
    return min(value, MOST)


def check_number(value: object, what: str, least: float, most: float) -> float:
    """Check a number within `least`..`most`."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and least <= value <= most):  # type: ignore[operator]  # a NaN fails too
        raise InvalidParameter(f"{what} is {value!r:.80}, must be within {least:g}..{most:g}")
    return float(value) + 0.0  # type: ignore[arg-type]  # SQLite stores -0.0 as 0.0


def new_face_id() -> str:
    """Make a random face id: 32 lower-case hexadecimal digits."""
    return os.urandom(16).hex()


def to_microseconds(moment: datetime) -> int:
    """Convert to microseconds since 1970, exactly; a float of seconds would round."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(microseconds: int) -> datetime:
    """Convert from microseconds since 1970 to UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _text(value: object, what: str, least: int, most: int, allowed: str = "") -> str:
    if not isinstance(value, str):
        raise InvalidParameter(f"{what} is {value!r:.80}, must be a string")
    if not least <= len(value) <= most:
        raise InvalidParameter(f"{what} has {len(value)} characters, must have {least}..{most}")
    # Cs is half of a surrogate pair, which no encoding can hold.  Cc and Cs are not printable.
    if not value.isprintable() and any(
        unicodedata.category(c) in ("Cc", "Cs") and c not in allowed for c in value
    ):
        raise InvalidParameter(f"{what} is {value!r:.80}, must not hold a control character")
    return value
