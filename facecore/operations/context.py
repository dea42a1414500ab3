"""Engine, gallery and settings, which all operations share."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from facecore.engine import FaceEngine
from facecore.errors import GalleryUnusable, GroupExists, GroupNotFound, InvalidParameter
from facecore.face.sample import FaceSample
from facecore.gallery import records
from facecore.gallery.gallery import Gallery
from facecore.operations.codes import (
    INVALID_PARAMETER,
    RAM_USER_ACCESS_DENIED,
    OperationError,
)
from facecore.operations.config import ServiceConfig
from facecore.operations.parameters import Values
from facecore.operations.pictures import PictureRules, read_faces

__all__ = ["Context", "OperationResult", "new_transaction_id", "refusing"]


class OperationResult(Protocol):
    """The typed result of an operation."""

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body, with their documented names and types."""


@dataclass(frozen=True, slots=True)
class Context:
    """Engine, gallery and settings of one service.

    Attributes
    ----------
    engine : FaceEngine
    gallery : Gallery
    config : ServiceConfig
    allowed : frozenset of str, optional
        The groups that the caller may use; None for all.
    registering : threading.Lock
        Held from a search to the registration that depends on it.  Of two requests with the
        same new face, only one finds it new, if the search covers the group to register in.
    """

    engine: FaceEngine
    gallery: Gallery
    config: ServiceConfig
    allowed: frozenset[str] | None = None
    registering: threading.Lock = field(default_factory=threading.Lock)

    def may_use(self, code: str) -> bool:
        """Whether the caller may use a group."""
        return self.allowed is None or code in self.allowed

    def check_access(self, code: str) -> None:
        """Refuse a group that the caller may not use, whether it exists or not.

        Raises
        ------
        OperationError
            Forbidden.RAMUserAccessDenied.
        """
        if not self.may_use(code):
            raise OperationError(RAM_USER_ACCESS_DENIED, "The caller may not use this group.")

    def faces(self, values: Values, rules: PictureRules) -> list[FaceSample]:
        """Return the largest face of every picture of a request, in the table's order."""
        return read_faces(values.pictures.values(), rules, self.config, self.engine)

    def check_group(self, code: str) -> None:
        """Refuse a group that the caller may not use, or that does not exist.

        Raises
        ------
        OperationError
            Forbidden.RAMUserAccessDenied, InvalidParameter.
        """
        self.check_access(code)
        with refusing():
            self.gallery.group(code)

    def check_user_id(self, user_id: str) -> None:
        """Refuse a user's id that cannot be stored.

        Raises
        ------
        OperationError
            InvalidParameter.
        """
        with refusing():
            records.check_user_id(user_id)


@contextmanager
def refusing() -> Iterator[None]:
    """Answer with InvalidParameter if the gallery refuses a value."""
    try:
        yield
    except GalleryUnusable:  # not the caller's mistake
        raise
    except (GroupExists, GroupNotFound, InvalidParameter) as error:
        raise OperationError(INVALID_PARAMETER, f"{error.message}.") from error


def new_transaction_id() -> str:
    """Return 32 random hexadecimal digits."""
    return uuid.uuid4().hex
