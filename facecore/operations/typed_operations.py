"""Five operations as methods with Python types."""

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

# Base64 prefixes of JPEG, PNG and WebP. The length tells a picture from a path.
_BASE64 = re.compile(r"\s*(?:[/_]9j[/_]|iVBORw0KGgo|UklGR)[\w+/=\s-]{300,}", re.ASCII)
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)

_MODES = {"search": "0", "verification": "1", "comprehensive": "2"}


class TypedOperations(ABC):
    """Five operations of `FaceService.call` as methods that take pictures and booleans, not text.

    Every documented check and limit applies here too.  Where `call` answers with an error, a method
    raises `OperationError` with the same code and status.
    """

    @abstractmethod
    def _perform(self, name: str, params: Mapping[str, object]) -> OperationResult:
        """Carry out an operation; return its typed result or raise OperationError."""

    def face_compare(
        self, source: PictureInput, target: PictureInput, *, quality: bool = False
    ) -> FaceCompareResult:
        """FaceCompare: decide whether two pictures show one person.

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
        """FaceCrossCompareIntl: decide whether three pictures show one person.

        Parameters
        ----------
        a, b, c : path, bytes, binary file or address
            As in `face_compare`.
        mode : {"chain", "loop"}
            ``"loop"`` also compares C with A.

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
        """FaceDuplicationCheckIntl: check whether a person is new, matches `target` and is live.

        Parameters
        ----------
        source : path, bytes, binary file or address
            As in `face_compare`.
        user_id : str
            Id under which the face is registered.
        mode : {"search", "verification", "comprehensive"}
            Compare with the stored faces, with `target`, or with both.
        target : path, bytes, binary file or address, optional
            As in `face_compare`; ignored in a search.
        groups : str or iterable of str
            The names of 1 to 10 groups to search; ignored in a verification.
        liveness : bool, default False
            Check `source` for a presentation attack.
        auto_register : bool, default False
            Store a face that passes; never in a verification.
        register_group : str
            Group in which the face is stored.
        update_existing : bool, default False
            Replace the faces that the user has in `register_group`.
        limit : int, default 1
            Maximum number of duplicates to return, 1 to 5.
        quality : bool, default False
            Also judge the quality of the faces.
        attributes : bool, default False
            Also estimate age and gender, if the engine's pack has a network for them.

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
            A group that exists.
        picture : path, bytes, binary file or address
            JPEG, at most 10 MiB and 1920x1080 pixels (height x width).
        user_id : str, optional
            At most 32 characters.  By default, the picture's file name without extension (up to
            256), or 32 random hexadecimal digits if it has no name.

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
        """CompareFaces: score the similarity of two faces, without a verdict.

        Parameters
        ----------
        source, target : path, bytes, binary file or address
            At most 2 MiB.
        source_type, target_type : {"FacePic", "IDPic"}
            A photograph, or the small portrait of an identity card's chip; at most one portrait.

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
    """Decode a picture that is given as text; return a path unchanged."""
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
        return text  # the answer reports a file that cannot be read
