"""Every documented code with its HTTP status and message, and the operations that answer with it.

The document defines the unusual ones: 401 for pictures, 403 for throttling and for a missing
value, the spelling of ToolargeImage.
"""

from __future__ import annotations

from dataclasses import dataclass

from facecore.errors import FacecoreError, InvalidParameter

__all__ = ["CODES", "DOCUMENTED", "Code", "OperationError"]


@dataclass(frozen=True, slots=True)
class Code:
    """One code of the document.

    Attributes
    ----------
    name : str
        The response's ``Code``.
    status : int
        HTTP status.
    message : str
        The response's ``Message``, unless the failure has a more specific one.
    """

    name: str
    status: int
    message: str


# Requests
MISSING_PARAMETER = Code("MissingParameter", 400, "A required parameter is missing or empty.")
INVALID_PARAMETER = Code("InvalidParameter", 400, "A parameter has a value that is not accepted.")
UNKNOWN_ACTION = Code("InvalidAction.NotFound", 404, "There is no such operation.")

# Pictures
NO_FACE_DETECTED = Code("NoFaceDetected", 401, "No face was found in a picture.")
UNQUALIFIED_PHOTO = Code(
    "UnqualifiedPhoto",
    401,
    "A picture or its face cannot be read, or its resolution is not accepted.",
)
TOO_LARGE_IMAGE = Code("ToolargeImage", 401, "A picture is too large.")
DATA_DUPLICATION = Code("DataDuplication", 401, "One picture was given in two ways.")
DOWNLOAD_TIMEOUT = Code("DownloadTimeout", 401, "A picture could not be downloaded in time.")

# Access; an application's gate answers with these
RAM_USER_ACCESS_DENIED = Code(
    "Forbidden.RAMUserAccessDenied", 403, "The user has no permission for this operation."
)
ACCOUNT_ACCESS_DENIED = Code(
    "Forbidden.AccountAccessDenied", 403, "The account has no access to this service."
)
THROTTLING = Code("Throttling.Api", 403, "Too many requests.")

# The device
INTERNAL_ERROR = Code("InternalError", 500, "The request could not be processed.")
SERVICE_UNAVAILABLE = Code("ServiceUnavailable", 503, "The service cannot be used at present.")

# CompareFaces alone
IMAGE_TYPE_EMPTY = Code("InvalidParam.ImageTypeEmpty", 400, "An image type is missing or empty.")
IMAGE_TYPE_INVALID = Code(
    "InvalidParam.ImageTypeInvalid", 400, "An image type is neither FacePic nor IDPic."
)
FACE_PIC_NOT_GIVEN = Code(
    "InvalidParam.FacePicNotGiven", 400, "At least one of the two images must be a FacePic."
)
PARAM_MISSING = Code("InvalidParam.ParamMissing", 403, "An image value is missing or empty.")
IMAGE_VALUE_PATTERN_ERROR = Code(
    "InvalidParam.ImageValuePatternError", 400, "An image value has a form that is not accepted."
)
COMPARE_NO_FACE_DETECTED = Code(
    "Error.NoFaceDetected", 400, "No face was found in one of the images."
)
NO_PERMISSION_ACCESS = Code("Error.NoPermissionAccess", 403, "There is no access to this service.")
COMPARE_FACES_ERROR = Code("Error.CompareFacesError", 500, "The images could not be compared.")
COMPARE_INTERNAL_ERROR = Code("Error.InternalError", 500, "The request could not be processed.")

_REQUEST = (MISSING_PARAMETER, INVALID_PARAMETER)
_PICTURE = (
    NO_FACE_DETECTED,
    UNQUALIFIED_PHOTO,
    TOO_LARGE_IMAGE,
    DATA_DUPLICATION,
    DOWNLOAD_TIMEOUT,
)
_ACCESS = (RAM_USER_ACCESS_DENIED, ACCOUNT_ACCESS_DENIED, THROTTLING)
_GROUPS = (*_REQUEST, *_ACCESS, INTERNAL_ERROR, SERVICE_UNAVAILABLE)

DOCUMENTED: dict[str, tuple[Code, ...]] = {
    "FaceCompare": (*_REQUEST, *_PICTURE, *_ACCESS, INTERNAL_ERROR),
    "FaceCrossCompareIntl": (*_REQUEST, *_PICTURE, *_ACCESS, INTERNAL_ERROR),
    "FaceDuplicationCheckIntl": (*_REQUEST, *_PICTURE, *_ACCESS, INTERNAL_ERROR),
    "AddFaceRecord": (*_REQUEST, *_ACCESS, INTERNAL_ERROR, SERVICE_UNAVAILABLE),
    "CompareFaces": (
        IMAGE_TYPE_EMPTY,
        IMAGE_TYPE_INVALID,
        FACE_PIC_NOT_GIVEN,
        PARAM_MISSING,
        IMAGE_VALUE_PATTERN_ERROR,
        COMPARE_NO_FACE_DETECTED,
        NO_PERMISSION_ACCESS,
        COMPARE_FACES_ERROR,
        COMPARE_INTERNAL_ERROR,
    ),
    "CreateFaceGroup": _GROUPS,
    "QueryFaceGroup": _GROUPS,
    "ModifyFaceGroup": _GROUPS,
    "DeleteFaceGroup": _GROUPS,
    "QueryFaceRecord": _GROUPS,
    "DeleteFaceRecord": _GROUPS,
    "DeleteFaceRecordV2": _GROUPS,
}
"""The codes of each operation, from its document (CreateFaceGroup is our addition)."""

CODES: dict[str, Code] = {
    code.name: code for codes in (*DOCUMENTED.values(), (UNKNOWN_ACTION,)) for code in codes
}
"""Every documented code by its name."""


class OperationError(FacecoreError):
    """An operation was not carried out; `code` and `status` are the document's.

    An application's gate may raise it: ``raise OperationError("Throttling.Api")``.

    Parameters
    ----------
    code : str or Code
        A documented code, or its name.
    message : str, optional
        What was wrong; by default the code's message.

    Attributes
    ----------
    code : str
    status : int
        HTTP status.

    Raises
    ------
    InvalidParameter
        No operation documents this code.

    Examples
    --------
    >>> from facecore.operations import OperationError
    >>> OperationError("Throttling.Api").status
    403
    """

    def __init__(self, code: str | Code, message: str = "") -> None:
        name = code.name if isinstance(code, Code) else code
        if name not in CODES:
            raise InvalidParameter(f"{name!r:.80} is not a documented code", "see operations.CODES")
        self._code = CODES[name]
        super().__init__(message or self._code.message)
        self.args = (name, self.message)  # pickle rebuilds the error from these

    @property
    def code(self) -> str:
        """The documented code."""
        return self._code.name

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return self._code.status
