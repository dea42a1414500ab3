"""The conformance cases again, through the vendor's client over loopback."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from operations.cases import Requests, prepare, run_case
from operations.symbols import Symbols
from operations.test_conformance import CASES, gate_of
from server.serving import Running, running

from facecore import Gallery
from facecore.operations import FaceService, Response

vendor = pytest.importorskip("operations.vendor", exc_type=ImportError)

KEY, SECRET = "door-1", "s3cret-s3cret-s3cret"


class Switch:
    """Lets one server serve the service of each test."""

    service: FaceService

    def knows(self, name: str) -> bool:
        return self.service.knows(name)

    def check(self) -> None:
        self.service.check()

    def call(
        self, name: str, params: Mapping[str, Any], /, *, groups: frozenset[str] | None = None
    ) -> Response:
        return self.service.call(name, params, groups=groups)


@pytest.fixture(scope="module")
def switched() -> Iterator[tuple[Switch, Running]]:
    switch = Switch()
    with running(switch, {KEY: SECRET}) as server:
        yield switch, server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset proxies, because the client would use them for 127.0.0.1 too."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def check(
    case: dict[str, Any],
    requests: Requests,
    gallery: Gallery,
    make_service: Callable[..., FaceService],
    switched: tuple[Switch, Running],
    **settings: Any,
) -> None:
    switch, server = switched
    given = case.get("given", {})
    switch.service = make_service(gate=gate_of(given.get("fault")))
    prepare(gallery, given, requests.symbols)
    client = vendor.VendorClient(server.port, KEY, SECRET, **settings)
    assert run_case(case, requests, client) == []


FIRST = list({case["operation"]: case for case in reversed(CASES) if case["firm"]}.values())


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(
    case: dict[str, Any],
    requests: Requests,
    gallery: Gallery,
    make_service: Callable[..., FaceService],
    switched: tuple[Switch, Running],
) -> None:
    check(case, requests, gallery, make_service, switched)


@pytest.mark.parametrize("case", FIRST, ids=[case["id"] for case in FIRST])
def test_case_with_the_older_signature(
    case: dict[str, Any],
    requests: Requests,
    gallery: Gallery,
    make_service: Callable[..., FaceService],
    switched: tuple[Switch, Running],
) -> None:
    check(case, requests, gallery, make_service, switched, signature_algorithm="v2")


def test_a_file_of_two_megabytes_is_uploaded_first(
    symbols: Symbols,
    gallery: Gallery,
    make_service: Callable[..., FaceService],
    switched: tuple[Switch, Running],
) -> None:
    switch, server = switched
    switch.service = make_service()
    gallery.create_group("g1")
    client = vendor.VendorClient(server.port, KEY, SECRET)
    picture = symbols.data("@alice1;bytes=2097152")
    request = {
        "ProductCode": "FACE_ENROLL",
        "FaceGroupCode": "g1",
        "MerchantUserId": "u1",
        "FacePictureFileObject": io.BytesIO(picture),
    }
    status, body = client("AddFaceRecord", request)
    assert (status, body["Result"]["Passed"]) == (200, "Y")
    assert [match.user_id for match in gallery.search(picture, limit=1)] == ["u1"]


@pytest.mark.parametrize(
    ("size", "code"), [(0, "InvalidParameter"), (16 * 2**20, "RequestTooLarge")]
)
def test_a_refused_upload_has_a_code(
    size: int, code: str, switched: tuple[Switch, Running]
) -> None:
    client = vendor.VendorClient(switched[1].port, KEY, SECRET)
    with pytest.raises(vendor.TeaException) as refused:
        client._send("AddFaceRecord", {"FacePictureFileObject": io.BytesIO(bytes(size))})
    assert refused.value.code == code
