"""A valid symbolic request for every operation, which tests change in one place."""

from __future__ import annotations

from typing import Any

BIZ_ID = "e0c34a77f5ac40a5aa5e6ed20c35abcd"

_PICTURES = {
    "FaceCompare": ("Source", "Target"),
    "FaceCrossCompareIntl": ("SourceA", "SourceB", "SourceC"),
    "FaceDuplicationCheckIntl": ("Source", "Target"),
}
PHOTO_OPERATIONS = tuple(_PICTURES)

BASE: dict[str, dict[str, Any]] = {
    "FaceCompare": {"MerchantBizId": BIZ_ID},
    "FaceCrossCompareIntl": {"ProductCode": "FACE_CROSS_COMPARE", "MerchantBizId": BIZ_ID},
    "FaceDuplicationCheckIntl": {
        "ProductCode": "FACE_IDU_MIN",
        "MerchantBizId": BIZ_ID,
        "MerchantUserId": "newuser",
        "VerifyModel": "2",
        "FaceGroupCodes": "g1",
    },
    "AddFaceRecord": {
        "ProductCode": "FACE_ENROLL",
        "FaceGroupCode": "g1",
        "MerchantUserId": "u1",
        "FacePicture": "@alice1",
    },
    "CompareFaces": {
        "SourceImageType": "FacePic",
        "SourceImageValue": "base64://@alice1",
        "TargetImageType": "FacePic",
        "TargetImageValue": "base64://@alice2",
    },
    "CreateFaceGroup": {"GroupCode": "g2", "Name": "a name", "Description": "words"},
    "QueryFaceGroup": {"CurrentPage": 1, "PageSize": 10},
    "ModifyFaceGroup": {"Id": "1", "Name": "another"},
    "DeleteFaceGroup": {"Id": "1"},
    "QueryFaceRecord": {"FaceGroupCode": "g1", "CurrentPage": 1, "PageSize": 10},
    "DeleteFaceRecord": {"Id": "1"},
    "DeleteFaceRecordV2": {"MerchantUserId": "u1"},
}
for _name, _prefixes in _PICTURES.items():
    for _number, _prefix in enumerate(_prefixes, 1):
        BASE[_name][f"{_prefix}FacePicture"] = f"@alice{_number}"


def pictures_of(name: str) -> list[str]:
    """Return the Base64 parameters of a photo operation."""
    return [f"{prefix}FacePicture" for prefix in _PICTURES[name]]


def without(request: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    """Return a copy without some parameters and with others changed."""
    return {**{key: value for key, value in request.items() if key not in names}, **changes}
