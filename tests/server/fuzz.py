"""Random malformed requests, as bytes."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from urllib.parse import quote_plus

import cv2
import numpy as np
import skimage.data

_OPERATIONS = """
FaceCompare FaceCrossCompareIntl FaceDuplicationCheckIntl AddFaceRecord CompareFaces
CreateFaceGroup QueryFaceGroup ModifyFaceGroup DeleteFaceGroup QueryFaceRecord
DeleteFaceRecord DeleteFaceRecordV2 AuthorizeFileUpload facecompare FaceCompare2 ../etc
"""
_NAMES = """
MerchantBizId SourceFacePicture SourceFacePictureUrl TargetFacePicture TargetFacePictureUrl
FaceQualityCheck ProductCode SceneCode CompareModel SourceAFacePicture SourceBFacePicture
SourceCFacePicture SourceAFacePictureUrl FaceVerifyThreshold MerchantUserId VerifyModel
Liveness FaceGroupCodes AutoRegistration FaceRegisterGroupCode ReturnFaces SaveFacePicture
UpdateFaceIfUserExists FaceAttributeCheck FaceGroupCode FacePicture FacePictureUrl
FacePictureFile FacePictureFileObject SourceImageType TargetImageType SourceImageValue
TargetImageValue CurrentPage PageSize MaxResults NextToken GroupCode Name Id Description
FaceId RegistrationType Code Title Action Version Format Signature AccessKeyId
"""
_WORDS = """
0 1 2 -1 6 99999999999999999999 1e9 NaN Y N FACE_CROSS_COMPARE FACE_IDU_MIN FACE_ENROLL
FacePic IDPic base64:// base64://aGk= data:image/png;base64,aGk= 2022-08-09 2019-03-07 json
XML MANUAL AUTO g1 g1,g1 a,b,c,d,e,f,g,h,i,j,k '; DROP TABLE faces;-- %00 %s {0} ../../x
http://127.0.0.1/ http://10.0.0.1 http://[::1]/ http://0177.1/ http://a@b/ file:///etc/passwd
ftp://a http:// https://[ http://169.254.169.254/latest ＡＢＣ ü 名 \U0001f600
"""
_KINDS = """
application/json
text/xml
multipart/form-data
multipart/form-data; boundary=b
multipart/form-data; boundary=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
application/x-www-form-urlencoded; x
"""
OPERATIONS, NAMES, WORDS = _OPERATIONS.split(), _NAMES.split(), _WORDS.split()
KINDS = _KINDS.strip().splitlines()
INSERTED = [
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"x" * 70_000,
    b"\xff\0\n",
]
PARTS = [
    b"--b\r\n",
    b"--b--",
    b"\r\n",
    b'Content-Disposition: form-data; name="key"\r\n',
    b'Content-Disposition: form-data; name="file"; filename="a"\r\n',
    b"{}",
    b"\xff",
]


def png(width: int, height: int, data: bytes = b"\0") -> bytes:
    """Return a PNG whose header claims more pixels than it holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 20])[1])


FILES = [png(60_000, 60_000), png(480, 640), jpeg(480, 640), jpeg(8, 8), b"GIF89a" + bytes(40)]


def _face() -> bytes:
    pixels = skimage.data.astronaut()[:, 48:432, ::-1]
    return bytes(cv2.imencode(".jpg", cv2.resize(pixels, (480, 640)))[1])


FACE = base64.b64encode(_face()).decode()
BIZ = "e0c34a77f5ac40a5aa5e6ed20c35abcd"
PAGE = {"CurrentPage": "1", "PageSize": "10"}
# Requests that would succeed, so only the spoiled parameters are wrong.
RIGHT: list[tuple[str, dict[str, str]]] = [
    (
        "FaceCompare",
        {"MerchantBizId": BIZ, "SourceFacePicture": FACE, "TargetFacePicture": FACE},
    ),
    (
        "FaceCrossCompareIntl",
        {"ProductCode": "FACE_CROSS_COMPARE", "MerchantBizId": BIZ, "CompareModel": "1"}
        | {f"Source{letter}FacePicture": FACE for letter in "ABC"},
    ),
    (
        "FaceDuplicationCheckIntl",
        {
            "ProductCode": "FACE_IDU_MIN",
            "MerchantBizId": BIZ,
            "MerchantUserId": "u1",
            "VerifyModel": "2",
            "Liveness": "1",
            "FaceGroupCodes": "g1",
            "AutoRegistration": "0",
            "FaceRegisterGroupCode": "g1",
            "SourceFacePicture": FACE,
            "TargetFacePicture": FACE,
        },
    ),
    (
        "AddFaceRecord",
        {
            "ProductCode": "FACE_ENROLL",
            "FaceGroupCode": "g1",
            "MerchantUserId": "u1",
            "FacePicture": FACE,
        },
    ),
    (
        "CompareFaces",
        {
            "SourceImageType": "FacePic",
            "SourceImageValue": f"base64://{FACE}",
            "TargetImageType": "IDPic",
            "TargetImageValue": f"base64://{FACE}",
        },
    ),
    ("CreateFaceGroup", {"GroupCode": "g1", "Name": "staff", "Description": "all"}),
    ("QueryFaceGroup", PAGE),
    ("ModifyFaceGroup", {"Id": "1", "Name": "staff"}),
    ("DeleteFaceGroup", {"Id": "9"}),
    ("QueryFaceRecord", {"FaceGroupCode": "g1", **PAGE}),
    ("DeleteFaceRecord", {"Id": "1"}),
    ("DeleteFaceRecordV2", {"MerchantUserId": "u1", "FaceGroupCode": "g1"}),
]


class Fuzz:
    """An endless source of requests, the same for the same seed."""

    def __init__(self, seed: int, port: int) -> None:
        self._random = random.Random(seed)
        self._host = f"127.0.0.1:{port}"

    def request(self) -> bytes:
        """Return one request, complete or not, never empty."""
        kind = self._random.choices(
            [self._nearly, self._operation, self._mutated, self._other_body, self._noise],
            [5, 5, 3, 1, 1],
        )[0]
        return kind() or b"\0"

    def _nearly(self) -> bytes:
        """Return a valid request with up to three parameters spoiled."""
        pick = self._random
        name, right = pick.choice(RIGHT)
        fields = dict(right)
        for _ in range(pick.randint(0, 3)):
            spoiled = pick.choice([*right, pick.choice(NAMES)])
            if pick.random() < 0.2:
                fields.pop(spoiled, None)
            else:
                fields[spoiled] = self._value()
        body = _encode(list(fields.items())).encode()
        return self._http("POST", "/", body, [f"x-acs-action: {name}"])

    def _operation(self) -> bytes:
        pick = self._random
        names = pick.sample(NAMES, pick.randint(0, 14))
        fields = [(name, self._value()) for name in names]
        cut = pick.randint(0, len(fields))
        query, form = _encode(fields[:cut]), _encode(fields[cut:])
        headers = []
        if pick.random() < 0.9:
            headers.append(f"x-acs-action: {pick.choice(OPERATIONS)}")
        if pick.random() < 0.1:
            headers.append(f"authorization: {pick.choice(['x', 'ACS3-HMAC-SHA256 Credential=a'])}")
        method = pick.choice(["POST"] * 8 + ["GET", "PUT"])
        return self._http(method, f"/?{query}", form.encode(), headers)

    def _value(self) -> str:
        pick = self._random
        way = pick.random()
        if way < 0.55:
            return pick.choice(WORDS)
        if way < 0.65:
            return ""
        if way < 0.75:
            length = pick.choice([1, 32, 33, 300, 5000])
            return "".join(
                chr(pick.choice([0, 10, 65, 0x7F, 0x300, 0x4E00])) for _ in range(length)
            )
        data = pick.choice(FILES)
        if way < 0.85:  # damaged
            data = data[: pick.randint(1, len(data))] + pick.randbytes(pick.randint(0, 50))
        text = base64.b64encode(data).decode()
        return pick.choice(["", "", "", "base64://", "data:,"]) + text

    def _mutated(self) -> bytes:
        pick = self._random
        data = bytearray(self._operation())
        for _ in range(pick.randint(1, 6)):
            # Mostly in the head, where a byte matters most.
            at = pick.randrange(min(len(data), pick.choice([20, 300, len(data)])))
            change = pick.random()
            if change < 0.5:
                data[at] = pick.choice(b"\0\r\n :%&=\xff0Zz")
            elif change < 0.7:
                del data[at : at + pick.randint(1, 20)]
            else:
                data[at:at] = pick.choice(INSERTED)
            if not data:
                break
        return bytes(data)

    def _other_body(self) -> bytes:
        pick = self._random
        kind, body = pick.choice(KINDS), b"".join(pick.choices(PARTS, k=pick.randint(0, 12)))
        return self._http("POST", "/?Action=AddFaceRecord", body, [f"content-type: {kind}"])

    def _noise(self) -> bytes:
        pick = self._random
        if pick.random() < 0.5:
            return pick.randbytes(pick.choice([1, 30, 1000]))
        path = "/" + "".join(pick.choices("a/.%0\x7f?#;", k=pick.randint(0, 30)))
        method = pick.choice(["GET", "POST", "HEAD2", "CONNECT", "OPTIONS", "TRACE", "PRI"])
        return self._http(method, path, pick.randbytes(pick.choice([0, 10])), [])

    def _http(self, method: str, target: str, body: bytes, headers: list[str]) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._host}", "connection: close"]
        if not any(line.startswith("content-type") for line in headers) and body:
            lines.append("content-type: application/x-www-form-urlencoded")
        lines += [*headers, f"content-length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


def _encode(fields: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote_plus(value)}" for name, value in fields)
