"""The five operations as methods with Python's own types."""

from __future__ import annotations

import os
import re
import urllib.parse
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Literal, TypeAlias, cast

import pybase64

from facecore.operations.add_face_record import AddFaceRecordResult
from facecore.operations.compare_faces import CompareFacesResult
from facecore.operations.context import OperationResult
from facecore.operations.cross_compare import CrossCompareResult
from facecore.operations.duplication_check import DuplicationCheckResult
from facecore.operations.face_compare import FaceCompareResult
from facecore.operations.parameters import Upload

__all__ = ["PictureInput", "TypedOperations"]

PictureInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, bytes, a binary file, an address that begins with http:// or https://, or a picture as
text: a data URI, or base64 in the standard or the URL-safe alphabet."""

# How JPEG, PNG and WebP begin in base64. No path is as long as a picture.
_BASE64 = re.compile(r"\s*(?:[/_]9j[/_]|iVBORw0KGgo|UklGR)[\w+/=\s-]{300,}", re.ASCII)
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)

_MODES = {"search": "0", "verification": "1", "comprehensive": "2"}


class TypedOperations(ABC):
    """What `FaceService.call` does, without text in the place of pictures and booleans.

    Every check and limit of the document holds here too.  Each method raises `OperationError`,
    with the documented code and status, where `call` answers with them.
    """

    @abstractmethod
    def _perform(self, name: str, params: Mapping[str, object]) -> OperationResult:
        """The operation's typed result; raises OperationError."""

    def face_compare(
        self, source: PictureInput, target: PictureInput, *, quality: bool = False
    ) -> FaceCompareResult:
        """FaceCompare: whether two pictures show one person.

        Parameters
        ----------
        source, target : path, bytes, binary file or address
            JPEG or PNG, at most 1 MiB, from 640x480 to 1920x1080 pixels (height x width).
        quality : bool, default False
            Also judge the quality of both faces.

        Raises
        ------
        OperationError
            With the documented code.
        """
        params = {
            "MerchantBizId": _new_id(),
            **_picture("SourceFacePicture", source),
            **_picture("TargetFacePicture", target),
            "FaceQualityCheck": _yes(quality),
        }
        return cast(FaceCompareResult, self._perform("FaceCompare", params))

    def cross_compare(
        self,
        a: PictureInput,
        b: PictureInput,
        c: PictureInput,
        mode: Literal["chain", "loop"] = "chain",
    ) -> CrossCompareResult:
        """FaceCrossCompareIntl: whether three pictures show one person.

        Parameters
        ----------
        a, b, c : path, bytes, binary file or address
            As of `face_compare`.
        mode : {"chain", "loop"}
            Whether C is compared with A too.

        Raises
        ------
        OperationError
            With the documented code.
        """
        params = {
            "ProductCode": "FACE_CROSS_COMPARE",
            "MerchantBizId": _new_id(),
            "CompareModel": {"chain": "0", "loop": "1"}.get(mode, mode),
            **_picture("SourceAFacePicture", a),
            **_picture("SourceBFacePicture", b),
            **_picture("SourceCFacePicture", c),
        }
        return cast(CrossCompareResult, self._perform("FaceCrossCompareIntl", params))

    def duplication_check(
        self,
        source: PictureInput,
        user_id: str,
        *,
        mode: Literal["search", "verification", "comprehensive"] = "verification",
        target: PictureInput | None = None,
        groups: str | Iterable[str] = (),
        liveness: bool = False,
        auto_register: bool = False,
        register_group: str = "",
        update_existing: bool = False,
        limit: int = 1,
        quality: bool = False,
        attributes: bool = False,
    ) -> DuplicationCheckResult:
        """FaceDuplicationCheckIntl: whether a person is new, the one on another picture, live.

        Parameters
        ----------
        source : path, bytes, binary file or address
            As of `face_compare`.
        user_id : str
            Under which the face is registered.
        mode : {"search", "verification", "comprehensive"}
            Against the stored faces, against `target`, or both.
        target : path, bytes, binary file or address, optional
            As of `face_compare`; not looked at in a search.
        groups : str or iterable of str
            The names of 1 to 10 groups to search; not looked at in a verification.
        liveness : bool, default False
            Whether `source` is checked for a presentation attack.
        auto_register : bool, default False
            Store a face that passes; never in a verification.
        register_group : str
            Where it is stored.
        update_existing : bool, default False
            Replace the faces that the user has in that group.
        limit : int, default 1
            Most duplicates to name, 1 to 5.
        quality : bool, default False
            Also judge the quality of the faces.
        attributes : bool, default False
            Also estimate age and gender, where the engine's pack has a network for it.

        Raises
        ------
        OperationError
            With the documented code.
        """
        codes = (groups,) if isinstance(groups, str) else tuple(groups)
        params = {
            "ProductCode": "FACE_IDU_MIN",
            "MerchantBizId": _new_id(),
            "MerchantUserId": user_id,
            "VerifyModel": _MODES.get(mode, mode),
            "Liveness": "1" if liveness else "0",
            "FaceGroupCodes": codes,
            **_picture("SourceFacePicture", source),
            **_picture("TargetFacePicture", target),
            "AutoRegistration": "0" if auto_register else "1",  # inverted in the document
            "FaceRegisterGroupCode": register_group,
            "ReturnFaces": limit,
            "UpdateFaceIfUserExists": _yes(update_existing),
            "FaceQualityCheck": _yes(quality),
            "FaceAttributeCheck": _yes(attributes),
        }
        return cast(DuplicationCheckResult, self._perform("FaceDuplicationCheckIntl", params))

    def add_face_record(
        self, group: str, picture: PictureInput, user_id: str = ""
    ) -> AddFaceRecordResult:
        """AddFaceRecord: store the largest face of a picture.

        Parameters
        ----------
        group : str
            Which must exist.
        picture : path, bytes, binary file or address
            JPEG, at most 10 MiB and 1920x1080 pixels (height x width).
        user_id : str, optional
            At most 32 characters; by default the picture's name without its ending (up to 256),
            or, where it has none, 32 random hexadecimal digits.

        Raises
        ------
        OperationError
            With the documented code.
        """
        params = {
            "ProductCode": "FACE_ENROLL",
            "FaceGroupCode": group,
            "MerchantUserId": user_id,
            **_picture("FacePicture", picture),
        }
        return cast(AddFaceRecordResult, self._perform("AddFaceRecord", params))

    def compare_faces(
        self,
        source: PictureInput,
        target: PictureInput,
        *,
        source_type: Literal["FacePic", "IDPic"] = "FacePic",
        target_type: Literal["FacePic", "IDPic"] = "FacePic",
    ) -> CompareFacesResult:
        """CompareFaces: how alike two faces are, without a verdict.

        Parameters
        ----------
        source, target : path, bytes, binary file or address
            At most 2 MiB.
        source_type, target_type : {"FacePic", "IDPic"}
            A photograph, or the small portrait of an identity card's chip; not both the latter.

        Raises
        ------
        OperationError
            With the documented code.
        """
        params = {
            "SourceImageType": source_type,
            "SourceImageValue": _value(source),
            "TargetImageType": target_type,
            "TargetImageValue": _value(target),
        }
        return cast(CompareFacesResult, self._perform("CompareFaces", params))


def _new_id() -> str:
    return uuid.uuid4().hex


def _yes(flag: bool) -> str:
    return "Y" if flag else "N"


def _is_address(picture: PictureInput) -> bool:
    return isinstance(picture, str) and picture.startswith(("http://", "https://"))


def _picture(parameter: str, picture: PictureInput | None) -> dict[str, Any]:
    if picture is None:
        return {}
    return {(parameter + "Url" if _is_address(picture) else parameter): _value(picture)}


def _value(picture: PictureInput) -> object:
    if _is_address(picture):
        return picture
    return Upload(_decoded(picture) if isinstance(picture, str) else picture)


def _decoded(text: str) -> str | bytes:
    """Bytes of a picture that is given as text; a path is returned as it is."""
    if start := _DATA_URI.match(text):
        packed = urllib.parse.unquote_to_bytes(text[start.end() :])
    elif _BASE64.fullmatch(text):
        packed = text.encode("ascii")
    else:
        return text
    packed = b"".join(packed.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return pybase64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except ValueError:
        return text  # answered as a file that cannot be read
