"""The parameters of every operation, one row each, in the document's order.

The operations check what a row cannot express: that a group exists, that a list has at most ten
codes.
"""

from __future__ import annotations

from facecore.operations.codes import (
    IMAGE_TYPE_EMPTY,
    IMAGE_TYPE_INVALID,
    PARAM_MISSING,
)
from facecore.operations.parameters import Parameter, PictureParameter

__all__ = [
    "ADD_FACE_RECORD",
    "COMPARE_FACES_TYPES",
    "COMPARE_FACES_VALUES",
    "CREATE_FACE_GROUP",
    "CROSS_COMPARE",
    "DELETE_FACE_GROUP",
    "DELETE_FACE_RECORD",
    "DELETE_FACE_RECORD_V2",
    "DUPLICATION_CHECK",
    "EXACT_BIZ_ID",
    "FACE_COMPARE",
    "MODIFY_FACE_GROUP",
    "QUERY_FACE_GROUP",
    "QUERY_FACE_RECORD",
]

BIZ_ID = "[A-Za-z0-9]{1,32}"
EXACT_BIZ_ID = "[A-Za-z0-9]{32}"
ID = "[0-9]{1,18}"
LISTED_CODE = r"[^\s,\uff0c]([^,\uff0c]*[^\s,\uff0c])?"  # FaceGroupCodes can name it
PAGE = "[1-9][0-9]{0,8}"
PAGE_SIZE = "[1-9][0-9]{0,2}|1000"

FACE_COMPARE = (
    Parameter("MerchantBizId", required=True, pattern=BIZ_ID),
    PictureParameter("Source", "SourceFacePicture", "SourceFacePictureUrl"),
    PictureParameter("Target", "TargetFacePicture", "TargetFacePictureUrl"),
    Parameter("FaceQualityCheck", default="N"),  # Y asks for scores; anything else does not
    Parameter("FacePictureQualityCheck", ignored=True),  # deprecated
)

CROSS_COMPARE = (
    Parameter("ProductCode", required=True, allowed=("FACE_CROSS_COMPARE",)),
    Parameter("MerchantBizId", required=True, pattern=BIZ_ID),  # see ServiceConfig.exact_biz_id
    Parameter("SceneCode", ignored=True),
    Parameter("CompareModel", default="0", allowed=("0", "1")),
    PictureParameter("Source A", "SourceAFacePicture", "SourceAFacePictureUrl"),
    PictureParameter("Source B", "SourceBFacePicture", "SourceBFacePictureUrl"),
    PictureParameter("Source C", "SourceCFacePicture", "SourceCFacePictureUrl"),
    Parameter("FaceVerifyThreshold", ignored=True),
)

_VERIFIES = {"VerifyModel": ("1", "2")}
_SEARCHES = {"VerifyModel": ("0", "2")}
_REGISTERS = {**_SEARCHES, "AutoRegistration": ("0",)}

DUPLICATION_CHECK = (
    Parameter("ProductCode", required=True, allowed=("FACE_IDU_MIN",)),
    Parameter("MerchantBizId", required=True, pattern=BIZ_ID),
    Parameter("MerchantUserId", required=True),
    Parameter("VerifyModel", required=True, allowed=("0", "1", "2")),
    Parameter("SceneCode", ignored=True),
    Parameter("Liveness", default="0", allowed=("0", "1")),
    # The document's example has the full-width comma.
    Parameter("FaceGroupCodes", required=True, when=_SEARCHES, separator="[,\uff0c]"),
    PictureParameter("Source", "SourceFacePicture", "SourceFacePictureUrl"),
    PictureParameter("Target", "TargetFacePicture", "TargetFacePictureUrl", when=_VERIFIES),
    # Inverted in the document: 0 registers, 1 does not.
    Parameter("AutoRegistration", default="1", allowed=("0", "1"), when=_SEARCHES),
    Parameter("FaceRegisterGroupCode", required=True, when=_REGISTERS),
    Parameter("ReturnFaces", default="1", allowed=("1", "2", "3", "4", "5"), when=_SEARCHES),
    Parameter("SaveFacePicture", ignored=True),
    Parameter("FaceVerifyThreshold", ignored=True),
    Parameter("UpdateFaceIfUserExists", default="N", allowed=("Y", "N"), when=_SEARCHES),
    Parameter("FaceQualityCheck", default="N"),  # Y asks for scores; anything else does not
    Parameter("FaceAttributeCheck", default="N"),  # Y asks for age and gender
)

ADD_FACE_RECORD = (
    Parameter("ProductCode", required=True, allowed=("FACE_ENROLL",)),
    Parameter("FaceGroupCode", required=True),
    Parameter("MerchantUserId", pattern=".{1,32}"),  # the picture's name may be longer
    PictureParameter(
        "Face", "FacePicture", "FacePictureUrl", files=("FacePictureFileObject", "FacePictureFile")
    ),
    Parameter("FaceQualityCheck", ignored=True),
)

COMPARE_FACES_TYPES = tuple(
    Parameter(
        name,
        required=True,
        allowed=("FacePic", "IDPic"),
        missing=IMAGE_TYPE_EMPTY,
        invalid=IMAGE_TYPE_INVALID,
    )
    for name in ("SourceImageType", "TargetImageType")
)
# One parameter takes both forms: an http(s) address, or base64:// followed by the text.
COMPARE_FACES_VALUES = (
    PictureParameter("Source", "SourceImageValue", missing=PARAM_MISSING),
    PictureParameter("Target", "TargetImageValue", missing=PARAM_MISSING),
)

# The vendor's console creates groups; here an operation creates them.
CREATE_FACE_GROUP = (
    Parameter("GroupCode", required=True, pattern=LISTED_CODE),
    Parameter("Name"),
    Parameter("Description"),
)
QUERY_FACE_GROUP = (
    Parameter("CurrentPage", required=True, pattern=PAGE),
    Parameter("PageSize", required=True, pattern=PAGE_SIZE),
    Parameter("GroupCode"),
    Parameter("Name"),
    Parameter("MaxResults", ignored=True),  # pages are numbered
    Parameter("NextToken", ignored=True),
)
MODIFY_FACE_GROUP = (
    Parameter("Id", required=True, pattern=ID),
    Parameter("Name", required=True),
    Parameter("Description"),
)
DELETE_FACE_GROUP = (Parameter("Id", required=True, pattern=ID),)
QUERY_FACE_RECORD = (
    Parameter("FaceGroupCode", required=True),
    Parameter("CurrentPage", required=True, pattern=PAGE),
    Parameter("PageSize", required=True, pattern=PAGE_SIZE),
    Parameter("FaceId"),
    Parameter("MerchantUserId"),
    Parameter("RegistrationType", allowed=("MANUAL", "AUTO")),
    Parameter("MaxResults", ignored=True),
    Parameter("NextToken", ignored=True),
)
DELETE_FACE_RECORD = (Parameter("Id", required=True, pattern=ID),)
DELETE_FACE_RECORD_V2 = (
    Parameter("MerchantUserId", required=True),
    Parameter("FaceGroupCode"),
)
