"""FaceService, which answers documented requests with documented responses."""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from facecore.engine import FaceEngine
from facecore.errors import (
    DownloadFailed,
    GalleryLocked,
    GalleryNotWritable,
    GalleryUnavailable,
    GroupNotFound,
)
from facecore.gallery.gallery import Gallery
from facecore.operations.add_face_record import run as add_face_record
from facecore.operations.codes import (
    COMPARE_INTERNAL_ERROR,
    DOCUMENTED,
    INTERNAL_ERROR,
    INVALID_PARAMETER,
    SERVICE_UNAVAILABLE,
    UNKNOWN_ACTION,
    OperationError,
)
from facecore.operations.compare_faces import run as compare_faces
from facecore.operations.config import ServiceConfig
from facecore.operations.context import Context, OperationResult
from facecore.operations.cross_compare import run as cross_compare
from facecore.operations.duplication_check import run as duplication_check
from facecore.operations.face_compare import run as face_compare
from facecore.operations.groups import (
    create_group,
    delete_group,
    delete_record,
    delete_record_v2,
    modify_group,
    query_groups,
    query_records,
)
from facecore.operations.typed_operations import TypedOperations

__all__ = ["FaceService", "Response"]

CHECKED_BYTES = 1 << 16  # written and deleted to see whether the disk has room

_log = logging.getLogger("facecore.operations")

Run = Callable[[Context, Mapping[str, object]], OperationResult]

OPERATIONS: dict[str, Run] = {
    "FaceCompare": face_compare,
    "FaceCrossCompareIntl": cross_compare,
    "FaceDuplicationCheckIntl": duplication_check,
    "AddFaceRecord": add_face_record,
    "CompareFaces": compare_faces,
    "CreateFaceGroup": create_group,
    "QueryFaceGroup": query_groups,
    "ModifyFaceGroup": modify_group,
    "DeleteFaceGroup": delete_group,
    "QueryFaceRecord": query_records,
    "DeleteFaceRecord": delete_record,
    "DeleteFaceRecordV2": delete_record_v2,
}


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a caller.

    Attributes
    ----------
    status : int
        HTTP status.
    body : dict
        Members under their documented names, ready for JSON.
    """

    status: int
    body: dict[str, Any]


class FaceService(TypedOperations):
    """Carry out the documented operations on one engine and one gallery.

    Threads can share a service.  `call` takes and returns the documented fields.  Five operations
    are also methods with Python types.

    Parameters
    ----------
    engine : FaceEngine
    gallery : Gallery
        A gallery of the same engine.
    config : ServiceConfig, optional

    Raises
    ------
    NotCalibrated
        The engine's pack has no calibration, which scores need.
    """

    def __init__(
        self, engine: FaceEngine, gallery: Gallery, config: ServiceConfig | None = None
    ) -> None:
        engine.calibration.threshold()  # refuse now, not in every answer
        self.config = config or ServiceConfig()
        self._context = Context(engine, gallery, self.config)

    def call(
        self,
        name: str,
        params: Mapping[str, object],
        *,
        groups: frozenset[str] | None = None,
    ) -> Response:
        """Carry out an operation.

        Parameters
        ----------
        name : str
            Documented name, such as ``"FaceCompare"``.
        params : mapping of str to object
            Values under their documented names: text, or numbers, which are converted to text.
            ``FacePictureFileObject`` takes bytes or a binary file.
        groups : frozenset of str, optional
            The groups that the caller may use; None for all.  A request that names another group
            is refused with Forbidden.RAMUserAccessDenied.  Ids in other groups are not found.

        Returns
        -------
        Response
            A failure is a response too, with its documented status and code; nothing is raised.
        """
        request_id = str(uuid.uuid4()).upper()
        try:
            members = self._perform(name, params, request_id, groups).to_response()
        except OperationError as error:
            return Response(error.status, error_body(error.code, error.message, request_id))
        return Response(
            200, {"RequestId": request_id, "Code": "Success", "Message": "success", **members}
        )

    def knows(self, name: str) -> bool:
        """Whether there is an operation of this name."""
        return name in OPERATIONS

    def check(self) -> None:
        """Check that the gallery can be read and written, and that its server, if any, answers.

        Raises
        ------
        GalleryNotWritable
            The disk is full or failing, or the folder is missing, replaced or cannot be written.
        GalleryCorrupt
            The database is damaged.
        GalleryLocked
            The folder of a gallery that is open for reading only was replaced.
        GalleryUnavailable
            The Milvus server does not answer.
        """
        gallery = self._context.gallery
        gallery.groups(limit=1)
        if "://" in gallery.address:
            return
        try:
            with tempfile.TemporaryFile(dir=gallery.address) as file:
                file.write(bytes(CHECKED_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GalleryNotWritable(f"the folder cannot be written: {error.strerror}") from error

    def _perform(
        self,
        name: str,
        params: Mapping[str, object],
        request_id: str = "",
        groups: frozenset[str] | None = None,
    ) -> OperationResult:
        """Carry out an operation; raise `OperationError` for every failure."""
        run = OPERATIONS.get(name)
        if run is None:
            raise OperationError(UNKNOWN_ACTION)
        try:
            if self.config.gate is not None:
                self.config.gate(name)
            context = self._context if groups is None else replace(self._context, allowed=groups)
            return run(context, params)
        except OperationError as error:
            cause = error.__cause__
            if error.status >= 500 and cause is not None and not isinstance(cause, DownloadFailed):
                _log_failure(name, request_id, cause)
            raise
        except GroupNotFound as error:  # deleted since it was checked
            raise OperationError(INVALID_PARAMETER, f"{error.message}.") from error
        except (GalleryLocked, GalleryNotWritable, GalleryUnavailable) as error:
            _log_failure(name, request_id, error)
            known = SERVICE_UNAVAILABLE in DOCUMENTED[name]
            raise OperationError(
                SERVICE_UNAVAILABLE if known else INTERNAL_ERROR,
                f"The gallery cannot be used at present ({error.code}).",
            ) from error
        except Exception as error:
            _log_failure(name, request_id, error)
            failed = COMPARE_INTERNAL_ERROR if name == "CompareFaces" else INTERNAL_ERROR
            raise OperationError(failed) from error


def error_body(code: str, message: str, request_id: str) -> dict[str, Any]:
    """Return the body of an error response."""
    return {
        "RequestId": request_id,
        "HostId": "facecore",
        "Code": code,
        "Message": message,
    }


def _log_failure(name: str, request_id: str, error: BaseException) -> None:
    """Log error and traceback as text: a log handler might keep frames, which hold pictures."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error(
        "%s failed, request %s: %s: %.300s\n%s",
        name,
        request_id,
        type(error).__name__,
        error,
        frames,
    )
