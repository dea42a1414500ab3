"""AddFaceRecord: store a face under a user's id."""

from __future__ import annotations

import json
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from facecore.errors import UserExists
from facecore.face.quality import Level
from facecore.operations.codes import NO_FACE_DETECTED, OperationError
from facecore.operations.context import Context
from facecore.operations.parameters import Given, Upload, read
from facecore.operations.pictures import ENROLLED
from facecore.operations.quality import enrolment_level
from facecore.operations.tables import ADD_FACE_RECORD

__all__ = ["AddFaceRecordResult", "run"]


@dataclass(frozen=True, slots=True)
class AddFaceRecordResult:
    """Answer of AddFaceRecord.

    Attributes
    ----------
    passed : bool
        Whether the face was stored.
    face_quality : {"HIGH", "MEDIUM", "LOW"}
        LOW if there was no face.
    face_id : str
        Id of the new record; "" if there is none.  The response body omits it: the document has
        no member for it.
    """

    passed: bool
    face_quality: Level
    face_id: str

    def to_response(self) -> dict[str, Any]:
        """Return the members of the response body."""
        return {
            "Message": "The request was successful.",
            "Result": {
                "Passed": "Y" if self.passed else "N",
                "ExtFaceInfo": json.dumps({"faceQuality": self.face_quality}),
            },
        }


def run(context: Context, params: Mapping[str, object]) -> AddFaceRecordResult:
    """Store the largest face of a picture, unless its user is in the group already."""
    values = read(ADD_FACE_RECORD, params)
    group = values["FaceGroupCode"]
    context.check_group(group)
    ways = values.pictures["Face"]
    user_id = values["MerchantUserId"] or _picture_name(ways[0]) or uuid.uuid4().hex
    context.check_user_id(user_id)
    try:
        (face,) = context.faces(values, ENROLLED)
    except OperationError as error:
        if error.code != NO_FACE_DETECTED.name:
            raise
        return AddFaceRecordResult(False, "LOW", "")
    level = enrolment_level(context.engine.quality(face))
    try:
        record = context.gallery.add(group, face, user_id, on_existing="refuse")
    except UserExists:
        return AddFaceRecordResult(False, level, "")
    return AddFaceRecordResult(True, level, record.face_id)


def _picture_name(given: Given) -> str:
    """Return the picture's file name without its extension; "" if the picture has no name."""
    if isinstance(given.value, Upload):
        return given.value.name
    if given.kind != "url":
        return ""
    try:
        path = urllib.parse.urlsplit(str(given.value)).path
    except ValueError:  # not an address: the download reports it
        return ""
    return PurePosixPath(urllib.parse.unquote(path)).stem
