"""If two things are wrong with a request, the document's earlier check answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from operations.base import BASE, PHOTO_OPERATIONS, pictures_of
from operations.cases import Requests

from facecore import Gallery
from facecore.operations import FaceService, OperationError

MakeService = Callable[..., FaceService]
Change = dict[str, Any]

NOT_BASE64 = "!!!not base64!!!"


def _photo_violations(name: str) -> list[tuple[str, int, Change]]:
    """Return (code, rank, change) of every violation; the rank is that of its check.

    Checks during the fetch run picture by picture. Later checks run for all pictures together.
    """
    first, *_, last = pictures_of(name)
    found: list[tuple[str, int, Change]] = [
        ("MissingParameter", 1, {"MerchantBizId": ""}),
        ("MissingParameter", 1, {last: None}),
        ("InvalidParameter", 2, {"MerchantBizId": "not valid"}),
        ("DataDuplication", 3, {first + "Url": "@url(@alice1)"}),
        ("DataDuplication", 3, {last + "Url": "@url(@alice1)"}),
    ]
    for rank, parameter in ((4, first), (5, last)):
        found += [
            ("ToolargeImage", rank, {parameter: "@toolarge"}),
            ("InvalidParameter", rank, {parameter: NOT_BASE64}),
            ("InvalidParameter", rank, {parameter: None, parameter + "Url": "ftp://host/a.jpg"}),
            ("DownloadTimeout", rank, {parameter: None, parameter + "Url": "@url:refused"}),
        ]
    for parameter in (first, last):
        found += [
            (
                "ToolargeImage",
                6,
                {parameter: None, parameter + "Url": "@url(@alice1;bytes=1048577)"},
            ),
            ("UnqualifiedPhoto", 7, {parameter: "@not_an_image"}),
            ("UnqualifiedPhoto", 7, {parameter: "@lowres"}),
            ("UnqualifiedPhoto", 7, {parameter: "@alice1;fmt=gif"}),
            ("NoFaceDetected", 8, {parameter: "@noface"}),
        ]
    if name == "FaceDuplicationCheckIntl":
        found += [
            ("MissingParameter", 1, {"FaceGroupCodes": ""}),
            ("MissingParameter", 1, {"AutoRegistration": "0"}),  # without a group to store in
            ("InvalidParameter", 2, {"Liveness": "2"}),
            ("InvalidParameter", 2, {"FaceGroupCodes": "nope"}),
            ("InvalidParameter", 2, {"ReturnFaces": "6"}),
        ]
    return found


def _pairs(name: str) -> list[Any]:
    pairs = []
    for one, other in combinations(_photo_violations(name), 2):
        earlier, later = sorted((one, other), key=lambda violation: violation[1])
        touched = {key.removesuffix("Url") for key in earlier[2]}
        if earlier[1] == later[1] or touched & {key.removesuffix("Url") for key in later[2]}:
            continue
        if earlier[0] != later[0]:
            pairs.append((name, earlier[0], {**earlier[2], **later[2]}))
    return pairs


PAIRS = [pair for name in PHOTO_OPERATIONS for pair in _pairs(name)]


@pytest.mark.parametrize("name", PHOTO_OPERATIONS)
def test_one_violation(
    name: str, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    for code, _, change in _photo_violations(name):
        response = service.call(name, requests.build({**BASE[name], **change}))
        assert response.body["Code"] == code, change
        assert "Result" not in response.body


@pytest.mark.parametrize("name", PHOTO_OPERATIONS)
def test_two_violations(
    name: str, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    assert len(PAIRS) > 300
    for operation, code, change in PAIRS:
        if operation == name:
            response = service.call(name, requests.build({**BASE[name], **change}))
            assert response.body["Code"] == code, change


def test_the_pictures_are_fetched_in_order(service: FaceService, requests: Requests) -> None:
    """Source is fetched and checked before Target, both as a download and as text."""
    base = BASE["FaceCompare"]
    refused = {"SourceFacePicture": None, "SourceFacePictureUrl": "@url:refused"}
    request = requests.build({**base, **refused, "TargetFacePicture": NOT_BASE64})
    assert service.call("FaceCompare", request).body["Code"] == "DownloadTimeout"
    refused = {"TargetFacePicture": None, "TargetFacePictureUrl": "@url:refused"}
    request = requests.build({**base, **refused, "SourceFacePicture": NOT_BASE64})
    assert service.call("FaceCompare", request).body["Code"] == "InvalidParameter"


COMPARE_FACES: list[tuple[str, int, Change]] = [
    ("InvalidParam.ImageTypeEmpty", 1, {"TargetImageType": ""}),
    ("InvalidParam.ImageTypeInvalid", 2, {"SourceImageType": "Selfie"}),
    ("InvalidParam.FacePicNotGiven", 3, {"SourceImageType": "IDPic", "TargetImageType": "IDPic"}),
    ("InvalidParam.ParamMissing", 4, {"TargetImageValue": ""}),
    ("InvalidParam.ImageValuePatternError", 5, {"SourceImageValue": "./a.jpg"}),
    ("InvalidParam.ImageValuePatternError", 5, {"SourceImageValue": "base64://***"}),
    ("Error.CompareFacesError", 6, {"TargetImageValue": "@url:refused"}),
    ("InvalidParam.ImageValuePatternError", 7, {"SourceImageValue": "base64://@not_an_image"}),
    ("Error.NoFaceDetected", 8, {"SourceImageValue": "base64://@noface"}),
    ("Error.NoFaceDetected", 8, {"TargetImageValue": "base64://@noface"}),
]


def test_compare_faces(service: FaceService, requests: Requests) -> None:
    base = BASE["CompareFaces"]
    for code, _, change in COMPARE_FACES:
        response = service.call("CompareFaces", requests.build({**base, **change}))
        assert response.body["Code"] == code, change
    for (code, rank, change), (_, later, other) in combinations(COMPARE_FACES, 2):
        if rank < later and not change.keys() & other.keys():
            response = service.call("CompareFaces", requests.build({**base, **change, **other}))
            assert response.body["Code"] == code, (change, other)


ADD_FACE_RECORD: list[tuple[str, int, Change]] = [
    ("MissingParameter", 1, {"ProductCode": ""}),
    ("MissingParameter", 1, {"FaceGroupCode": None}),
    ("MissingParameter", 1, {"FacePicture": ""}),
    ("InvalidParameter", 2, {"ProductCode": "FACE_IDU_MIN"}),
    ("InvalidParameter", 2, {"FaceGroupCode": "nope"}),
    ("InvalidParameter", 2, {"MerchantUserId": "x" * 33}),
    ("InvalidParameter", 2, {"MerchantUserId": "line\nbreak"}),
    ("InvalidParameter", 3, {"FacePictureUrl": "@url(@alice1)"}),
    ("InvalidParameter", 3, {"FacePictureFileObject": "@stream(@alice1)"}),
    ("InvalidParameter", 4, {"FacePicture": NOT_BASE64}),
    ("InvalidParameter", 4, {"FacePicture": None, "FacePictureUrl": "@url:refused"}),
    ("InvalidParameter", 4, {"FacePicture": None, "FacePictureUrl": "@url:404"}),
    ("InvalidParameter", 4, {"FacePicture": None, "FacePictureUrl": "nothing"}),
    ("InvalidParameter", 5, {"FacePicture": "@toolarge10m"}),
    ("InvalidParameter", 6, {"FacePicture": "@not_an_image"}),
    ("InvalidParameter", 6, {"FacePicture": "@alice1;fmt=png"}),
]


def test_add_face_record(service: FaceService, gallery: Gallery, requests: Requests) -> None:
    gallery.create_group("g1")
    base = BASE["AddFaceRecord"]
    for code, _, change in ADD_FACE_RECORD:
        response = service.call("AddFaceRecord", requests.build({**base, **change}))
        assert response.body["Code"] == code, change
    request = {**base, "ProductCode": "wrong", "FacePicture": ""}
    response = service.call("AddFaceRecord", requests.build(request))
    assert response.body["Code"] == "MissingParameter"
    assert len(gallery) == 0


def test_the_gate_comes_first(make_service: MakeService, requests: Requests) -> None:
    def gate(_: str) -> None:
        raise OperationError("Throttling.Api")

    service = make_service(gate=gate)
    for name in PHOTO_OPERATIONS:
        for _, _, change in _photo_violations(name):
            response = service.call(name, requests.build({**BASE[name], **change}))
            assert response.body["Code"] == "Throttling.Api"
