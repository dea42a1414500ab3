"""The documented limits, each from both sides."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operations.base import BASE, PHOTO_OPERATIONS, pictures_of
from operations.cases import Requests
from operations.symbols import pad

from facecore import FaceEngine, Gallery
from facecore.images import Limits
from facecore.operations import FaceService
from facecore.operations.parameters import Upload
from facecore.operations.pictures import decode_base64

MakeService = Callable[..., FaceService]
MIB = 2**20


def _codes(service: FaceService, requests: Requests, name: str, **change: Any) -> Any:
    return service.call(name, requests.build({**BASE[name], **change})).body["Code"]


@pytest.mark.parametrize("name", PHOTO_OPERATIONS)
def test_size_of_a_picture(
    name: str, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    for parameter in pictures_of(name):

        def code(symbol: str, url: bool = False, p: str = parameter) -> Any:
            if url:
                return _codes(service, requests, name, **{p: None, p + "Url": f"@url({symbol})"})
            return _codes(service, requests, name, **{p: symbol})

        # Base64 text is limited to 1 MiB of characters, which is 786,432 bytes.
        assert code("@alice1;bytes=786432") == "Success"
        assert code("@alice1;bytes=786433") == "ToolargeImage"
        assert code("@alice1;bytes=1048576", url=True) == "Success"
        assert code("@alice1;bytes=1048577", url=True) == "ToolargeImage"


def test_the_characters_are_counted_not_the_bytes(service: FaceService, requests: Requests) -> None:
    text = base64.b64encode(requests.symbols.data("@alice1")).decode()
    for length, expected in ((MIB, "Success"), (MIB + 1, "ToolargeImage")):
        long = text + "\n" * (length - len(text))
        assert _codes(service, requests, "FaceCompare", SourceFacePicture=long) == expected


@pytest.mark.parametrize("way", ["SourceFacePicture", "SourceFacePictureUrl"])
def test_the_engine_takes_fewer_bytes(
    way: str,
    engine: FaceEngine,
    service: FaceService,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "limits", Limits(max_bytes=600_000))
    for size, code in ((600_000, "Success"), (600_001, "ToolargeImage")):
        symbol = f"@alice1;bytes={size}"
        change = {"SourceFacePicture": None, way: f"@url({symbol})" if "Url" in way else symbol}
        assert _codes(service, requests, "FaceCompare", **change) == code


@pytest.mark.parametrize(
    ("height", "width", "accepted"),
    [
        (640, 480, True),
        (639, 480, False),
        (640, 479, False),
        (1920, 1080, True),
        (1921, 1080, False),
        (1920, 1081, False),
        (640, 1080, True),
        (1920, 480, True),
        (720, 960, True),
        (480, 640, False),
        (1080, 1920, False),
        (800, 800, True),
    ],
)
def test_resolution(
    height: int, width: int, accepted: bool, service: FaceService, requests: Requests
) -> None:
    symbol = f"@alice1;h={height};w={width}"
    code = _codes(service, requests, "FaceCompare", TargetFacePicture=symbol)
    assert code == ("Success" if accepted else "UnqualifiedPhoto")


@pytest.mark.parametrize(
    ("height", "width", "code"),
    [
        (480, 640, "Success"),
        (1080, 1920, "Success"),
        (640, 480, "Success"),
        (479, 640, "UnqualifiedPhoto"),
        (480, 639, "UnqualifiedPhoto"),
        (1081, 1920, "UnqualifiedPhoto"),
        (1080, 1921, "UnqualifiedPhoto"),
    ],
)
def test_resolution_in_any_orientation(
    height: int, width: int, code: str, make_service: MakeService, requests: Requests
) -> None:
    service = make_service(any_orientation=True)
    symbol = f"@alice1;h={height};w={width}"
    assert _codes(service, requests, "FaceCompare", SourceFacePicture=symbol) == code


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(turn: int, service: FaceService, requests: Requests) -> None:
    """The bounds apply to the upright picture, for every orientation in the file."""
    lying = turn >= 5
    for height, width, code in (
        (1920, 1080, "Success"),
        (640, 480, "Success"),
        (639, 480, "UnqualifiedPhoto"),
        (1921, 1080, "UnqualifiedPhoto"),
        (1080, 1920, "UnqualifiedPhoto"),
        (480, 640, "UnqualifiedPhoto"),
    ):
        stored = (width, height) if lying else (height, width)
        symbol = f"@alice1;h={stored[0]};w={stored[1]};exif={turn}"
        assert _codes(service, requests, "FaceCompare", SourceFacePicture=symbol) == code
    symbol = f"@alice1;h={720 if lying else 960};w={960 if lying else 720};exif={turn}"
    request = requests.build({**BASE["FaceCompare"], "SourceFacePicture": symbol})
    assert service.call("FaceCompare", request).body["Result"]["Passed"] == "Y"


@pytest.mark.parametrize(
    ("fmt", "code"),
    [
        ("jpeg", "Success"),
        ("png", "Success"),
        ("gif", "UnqualifiedPhoto"),
        ("bmp", "UnqualifiedPhoto"),
        ("webp", "UnqualifiedPhoto"),
    ],
)
def test_format(fmt: str, code: str, service: FaceService, requests: Requests) -> None:
    """The content decides: the address of a JPEG may end in .png, and of a WebP in .jpg."""
    symbol = f"@alice1;fmt={fmt}"
    assert _codes(service, requests, "FaceCompare", SourceFacePicture=symbol) == code
    url = f"@url({symbol})/picture.jpg"
    change = {"SourceFacePicture": None, "SourceFacePictureUrl": url}
    assert _codes(service, requests, "FaceCompare", **change) == code


def test_a_cut_picture(service: FaceService, requests: Requests) -> None:
    for symbol in ("@alice1", "@alice1;fmt=png"):
        data = requests.symbols.data(symbol)
        text = base64.b64encode(data[: len(data) // 2]).decode()
        code = _codes(service, requests, "FaceCompare", TargetFacePicture=text)
        assert code == "UnqualifiedPhoto"


@pytest.mark.parametrize("name", PHOTO_OPERATIONS)
@pytest.mark.parametrize(
    ("biz_id", "code", "loose"),
    [
        ("", "MissingParameter", "MissingParameter"),
        ("a", "InvalidParameter", "Success"),
        ("a" * 31, "InvalidParameter", "Success"),
        ("aZ09" * 8, "Success", "Success"),
        ("a" * 33, "InvalidParameter", "InvalidParameter"),
        ("a" * 31 + "-", "InvalidParameter", "InvalidParameter"),
        ("a" * 31 + "é", "InvalidParameter", "InvalidParameter"),
        ("a" * 31 + "\N{ARABIC-INDIC DIGIT ONE}", "InvalidParameter", "InvalidParameter"),
        ("a" * 31 + "\n", "InvalidParameter", "InvalidParameter"),
        (12345678901234567890123456789012, "Success", "Success"),
    ],
)
def test_biz_id(
    name: str,
    biz_id: object,
    code: str,
    loose: str,
    make_service: MakeService,
    gallery: Gallery,
    requests: Requests,
) -> None:
    gallery.create_group("g1")
    expected = code if name == "FaceCrossCompareIntl" else loose
    assert _codes(make_service(), requests, name, MerchantBizId=biz_id) == expected
    service = make_service(exact_biz_id=False)
    assert _codes(service, requests, name, MerchantBizId=biz_id) == loose


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("g1", "Success"),
        (",".join(f"g{i}" for i in range(10)), "Success"),
        (",".join(f"g{i}" for i in range(11)), "InvalidParameter"),
        ("g1," * 11, "Success"),
        (" g1 ,, g2,", "Success"),
        ("g1，g2", "Success"),
        ("g1;g2", "InvalidParameter"),
        (",", "InvalidParameter"),
        (" ", "InvalidParameter"),
        ("G1", "InvalidParameter"),
        ("x" * 65, "InvalidParameter"),
        ("g1\x00", "InvalidParameter"),
        ("g1,\ud800", "InvalidParameter"),
    ],
)
def test_group_codes(
    codes: str, expected: str, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    for i in range(11):
        gallery.create_group(f"g{i}")
    assert _codes(service, requests, "FaceDuplicationCheckIntl", FaceGroupCodes=codes) == expected


_MODE_1 = {"VerifyModel": "1", "FaceGroupCodes": None}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"VerifyModel": "0", "TargetFacePicture": None}, "Success"),
        ({"VerifyModel": "0", "TargetFacePicture": "!!"}, "Success"),
        ({"VerifyModel": "0", "TargetFacePictureUrl": "@url:timeout"}, "Success"),
        (_MODE_1, "Success"),
        ({**_MODE_1, "FaceGroupCodes": "nope"}, "Success"),
        ({**_MODE_1, "AutoRegistration": "2"}, "Success"),
        ({**_MODE_1, "ReturnFaces": "6", "UpdateFaceIfUserExists": "y"}, "Success"),
        ({**_MODE_1, "AutoRegistration": "0"}, "Success"),
        ({**_MODE_1, "AutoRegistration": "0", "FaceRegisterGroupCode": "nope"}, "Success"),
        ({"AutoRegistration": "1", "FaceRegisterGroupCode": "nope"}, "Success"),
        ({"AutoRegistration": "0"}, "MissingParameter"),
        ({"AutoRegistration": 0, "FaceRegisterGroupCode": ""}, "MissingParameter"),
        ({"AutoRegistration": "0", "FaceRegisterGroupCode": "nope"}, "InvalidParameter"),
        ({"AutoRegistration": "0", "FaceRegisterGroupCode": "g1,g1"}, "InvalidParameter"),
        ({"AutoRegistration": "2", "FaceRegisterGroupCode": "g1"}, "InvalidParameter"),
        ({"AutoRegistration": "2"}, "InvalidParameter"),
        ({"AutoRegistration": "true", "FaceRegisterGroupCode": "g1"}, "InvalidParameter"),
        ({"VerifyModel": None}, "MissingParameter"),
        ({"VerifyModel": 0, "TargetFacePicture": None}, "Success"),
        ({"VerifyModel": "3"}, "InvalidParameter"),
        ({"VerifyModel": "01"}, "InvalidParameter"),
        ({"VerifyModel": "1 "}, "InvalidParameter"),
        ({"VerifyModel": "1\n"}, "InvalidParameter"),
        ({"TargetFacePicture": None}, "MissingParameter"),
        ({**_MODE_1, "TargetFacePicture": None}, "MissingParameter"),
        ({"FaceGroupCodes": None}, "MissingParameter"),
        ({"MerchantUserId": None}, "MissingParameter"),
        ({"MerchantUserId": "x" * 257}, "Success"),
        (
            {"MerchantUserId": "x" * 257, "AutoRegistration": "0", "FaceRegisterGroupCode": "g1"},
            "InvalidParameter",
        ),
        (
            {"MerchantUserId": "x" * 256, "AutoRegistration": "0", "FaceRegisterGroupCode": "g1"},
            "Success",
        ),
        (
            {"MerchantUserId": "a\x07", "AutoRegistration": "0", "FaceRegisterGroupCode": "g1"},
            "InvalidParameter",
        ),
        ({"Liveness": "true"}, "InvalidParameter"),
        ({"Liveness": 0}, "Success"),
        ({"Liveness": ""}, "Success"),
        ({"ReturnFaces": "5"}, "Success"),
        ({"ReturnFaces": 1}, "Success"),
        ({"ReturnFaces": "0"}, "InvalidParameter"),
        ({"ReturnFaces": "6"}, "InvalidParameter"),
        ({"ReturnFaces": "+1"}, "InvalidParameter"),
        ({"ReturnFaces": "1.0"}, "InvalidParameter"),
        ({"ReturnFaces": "２"}, "InvalidParameter"),
        ({"UpdateFaceIfUserExists": "Y"}, "Success"),
        ({"UpdateFaceIfUserExists": "y"}, "InvalidParameter"),
        ({"SaveFacePicture": "maybe", "SceneCode": "\n", "FaceVerifyThreshold": "x"}, "Success"),
        ({"FaceQualityCheck": "maybe", "FaceAttributeCheck": "maybe"}, "Success"),
        ({"NoSuchParameter": object()}, "Success"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_duplication_check(
    change: dict[str, Any],
    code: str,
    service: FaceService,
    gallery: Gallery,
    requests: Requests,
) -> None:
    gallery.create_group("g1")
    assert _codes(service, requests, "FaceDuplicationCheckIntl", **change) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"CompareModel": ""}, "Success"),
        ({"CompareModel": 0}, "Success"),
        ({"CompareModel": True}, "InvalidParameter"),
        ({"CompareModel": "chain"}, "InvalidParameter"),
        ({"ProductCode": "FACE_CROSS_COMPARE "}, "InvalidParameter"),
        ({"ProductCode": None}, "MissingParameter"),
        ({"SceneCode": "x" * 100, "FaceVerifyThreshold": "-"}, "Success"),
    ],
    ids=str,
)
def test_cross_compare(
    change: dict[str, Any], code: str, service: FaceService, requests: Requests
) -> None:
    assert _codes(service, requests, "FaceCrossCompareIntl", **change) == code


@pytest.mark.parametrize(
    ("symbol", "code"),
    [
        ("@alice1;bytes=10485760", "Success"),
        ("@alice1;bytes=10485761", "InvalidParameter"),
        ("@alice1;h=1920;w=1080", "Success"),
        ("@alice1;h=1921;w=1080", "InvalidParameter"),
        ("@alice1;h=1920;w=1081", "InvalidParameter"),
        ("@alice1;h=1081;w=1920", "InvalidParameter"),
        ("@alice1;h=300;w=300", "Success"),
        ("@alice1;fmt=png", "InvalidParameter"),
        ("@alice1;fmt=webp", "InvalidParameter"),
    ],
)
def test_picture_to_enrol(
    symbol: str, code: str, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    ways = {
        "FacePicture": symbol,
        "FacePictureUrl": f"@url({symbol})",
        "FacePictureFileObject": f"@stream({symbol})",
        "FacePictureFile": f"@url({symbol})",
    }
    for number, (parameter, value) in enumerate(ways.items()):
        change = {"FacePicture": None, "MerchantUserId": f"u{number}", parameter: value}
        assert _codes(service, requests, "AddFaceRecord", **change) == code, parameter
    assert len(gallery) == (4 if code == "Success" else 0)


def test_user_id_of_a_record(service: FaceService, gallery: Gallery, requests: Requests) -> None:
    gallery.create_group("g1")
    for user_id, code in (
        ("x" * 32, "Success"),
        ("x" * 33, "InvalidParameter"),
        ("\N{CJK UNIFIED IDEOGRAPH-4E00}" * 32, "Success"),
        ("tab\t", "InvalidParameter"),
        (4711, "Success"),
    ):
        assert _codes(service, requests, "AddFaceRecord", MerchantUserId=user_id) == code
    users = {record.user_id for record in gallery.records("g1")}
    assert users == {"x" * 32, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 32, "4711"}


def test_the_picture_names_its_user(
    service: FaceService, gallery: Gallery, requests: Requests, tmp_path: Path
) -> None:
    gallery.create_group("g1")
    data = requests.symbols.data("@alice1")
    file = tmp_path / "by.file.jpg"
    file.write_bytes(data)
    url = requests.server.url
    with file.open("rb") as stream:
        for number, way in enumerate(
            [
                {"FacePictureUrl": url(data, "/by_url.jpg?size=3#top")},
                {"FacePictureUrl": url(data, "/folder/by%20url.jpeg")},
                {"FacePictureUrl": url(data, f"/{'0' * 64}.jpg")},  # as in object stores
                {"FacePictureFileObject": stream},
                {"FacePictureFileObject": file},
                {"FacePictureFileObject": io.BytesIO(data)},
                {"FacePictureFileObject": data},
                {"FacePicture": base64.b64encode(data).decode()},
            ]
        ):
            request = {"ProductCode": "FACE_ENROLL", "FaceGroupCode": "g1", **way}
            response = service.call("AddFaceRecord", request)
            assert response.status == 200, response.body
            # The same file names the same user, who is in the group by then.
            assert response.body["Result"]["Passed"] == ("N" if number == 4 else "Y")
    users = [record.user_id for record in gallery.records("g1")]
    assert users[:4] == ["by_url", "by url", "0" * 64, "by.file"]
    assert len(users) == 7
    assert all(len(user) == 32 and int(user, 16) for user in users[4:])
    request = {"ProductCode": "FACE_ENROLL", "FaceGroupCode": "g1"}
    request["FacePictureUrl"] = url(data, f"/{'0' * 257}.jpg")
    assert service.call("AddFaceRecord", request).body["Code"] == "InvalidParameter"


@pytest.mark.parametrize("parameter", ["SourceImageValue", "TargetImageValue"])
def test_picture_to_compare(parameter: str, service: FaceService, requests: Requests) -> None:
    def code(value: str) -> Any:
        return _codes(service, requests, "CompareFaces", **{parameter: value})

    bad = "InvalidParam.ImageValuePatternError"
    assert code("base64://@alice1;bytes=2097152") == "1"
    assert code("base64://@alice1;bytes=2097153") == bad
    assert code("@url(@alice1;bytes=2097152)") == "1"
    assert code("@url(@alice1;bytes=2097153)") == bad
    assert code("base64://@alice1;fmt=webp") == "1"
    assert code("base64://@alice1;fmt=bmp") == "1"
    assert code("base64://@lowres") == "1"
    assert code("@url:404") == "Error.CompareFacesError"
    assert code("@url:refused") == "Error.CompareFacesError"
    for value in ("@alice1|raw64", "base64:/x", "BASE64://x", "http:/a", "https://", "http://"):
        assert code(value) == bad, value


def test_size_of_a_comparisons_body(service: FaceService, requests: Requests) -> None:
    base = requests.build(BASE["CompareFaces"])
    room = 8 * MIB - sum(len(base[key]) for key in ("SourceImageValue", "TargetImageValue"))
    for more, code in ((room, "1"), (room + 1, "InvalidParam.ImageValuePatternError")):
        request = {**base, "TargetImageValue": base["TargetImageValue"] + "\n" * more}
        assert service.call("CompareFaces", request).body["Code"] == code


def test_private_addresses_are_refused(make_service: MakeService, requests: Requests) -> None:
    service = make_service(allow_private_addresses=False)
    change = {"SourceFacePicture": None, "SourceFacePictureUrl": "@url(@alice1)"}
    assert _codes(service, requests, "FaceCompare", **change) == "InvalidParameter"
    change = {"SourceImageValue": "@url(@alice1)"}
    code = _codes(service, requests, "CompareFaces", **change)
    assert code == "InvalidParam.ImageValuePatternError"


@pytest.mark.parametrize("reason", ["timeout", "refused", "404"])
def test_downloads_that_fail(
    reason: str, make_service: MakeService, gallery: Gallery, requests: Requests
) -> None:
    service = make_service(download_timeout=0.3)
    for parameter in ("SourceFacePicture", "TargetFacePicture"):
        change = {parameter: None, parameter + "Url": f"@url:{reason}"}
        assert _codes(service, requests, "FaceCompare", **change) == "DownloadTimeout"
    change = {"TargetImageValue": f"@url:{reason}"}
    assert _codes(service, requests, "CompareFaces", **change) == "Error.CompareFacesError"
    gallery.create_group("g1")
    change = {"FacePicture": None, "FacePictureUrl": f"@url:{reason}"}
    assert _codes(service, requests, "AddFaceRecord", **change) == "InvalidParameter"


@pytest.mark.parametrize(
    "url",
    ["ftp://host/a.jpg", "file:///etc/passwd", "http://", "host/a.jpg", "HTTP//x", "data:,x", "é"],
)
def test_addresses_of_another_form(url: str, service: FaceService, requests: Requests) -> None:
    change = {"TargetFacePicture": None, "TargetFacePictureUrl": url}
    assert _codes(service, requests, "FaceCompare", **change) == "InvalidParameter"


def test_files_that_cannot_be_read(service: FaceService, gallery: Gallery) -> None:
    gallery.create_group("g1")
    closed = io.BytesIO(b"x")
    closed.close()
    for file in (Path("no such file"), closed, io.StringIO("text"), b"", Upload("\0")):
        request = {
            "ProductCode": "FACE_ENROLL",
            "FaceGroupCode": "g1",
            "FacePictureFileObject": file,
        }
        assert service.call("AddFaceRecord", request).body["Code"] == "InvalidParameter"


class _Trickle(io.RawIOBase):
    """A file whose reads return less than requested."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000) if size >= 0 else 1000)


def test_files_are_read_to_their_end(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    data = requests.symbols.data("@alice1")
    for size, code in ((10 * MIB, "Success"), (10 * MIB + 1, "InvalidParameter")):
        request = {
            "ProductCode": "FACE_ENROLL",
            "FaceGroupCode": "g1",
            "FacePictureFileObject": _Trickle(pad(data, size)),
        }
        assert service.call("AddFaceRecord", request).body["Code"] == code


@given(st.binary(min_size=1, max_size=300), st.data())
def test_base64_in_every_form(data: bytes, more: st.DataObject) -> None:
    text = base64.b64encode(data).decode()
    places = more.draw(st.lists(st.integers(0, len(text)), max_size=5))
    broken = text
    for place in sorted(places, reverse=True):
        broken = broken[:place] + more.draw(st.sampled_from(["\n", "\r\n"])) + broken[place:]
    for form in (text, text.rstrip("="), text.replace("+", " "), broken):
        assert decode_base64(form) == data


@given(st.text(max_size=40))
def test_base64_or_nothing(text: str) -> None:
    """Accepted text decodes like the cleaned text in the standard library."""
    try:
        found = decode_base64(text)
    except ValueError:
        return
    core = text.replace("\r", "").replace("\n", "").replace(" ", "+").rstrip("=")
    assert found == base64.b64decode(core + "=" * (-len(core) % 4), validate=True)


@pytest.mark.parametrize(
    "text", ["", "\n", "=", "====", "A", "AAAAA", "QQ===", "Q=Q=", "QQ-_", "QQ\tQQ", "é", "data:,"]
)
def test_no_base64(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_base64(text)
