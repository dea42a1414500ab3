"""The given cases again, from the vendor's own client over loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from operations.cases import Requests, prepare, run_case
from operations.test_conformance import CASES, gate_of
from server.serving import Running, running

from facecore import Gallery
from facecore.operations import FaceService, Response

vendor = pytest.importorskip("operations.vendor", exc_type=ImportError)

KEY, SECRET = "door-1", "s3cret-s3cret-s3cret"


class Switch:
    """One server serves every test's own service."""

    service: FaceService

    def call(self, name: str, params: Mapping[str, Any], /) -> Response:
        return self.service.call(name, params)


@pytest.fixture(scope="module")
def switched() -> Iterator[tuple[Switch, Running]]:
    switch = Switch()
    with running(switch, {KEY: SECRET}) as server:
        yield switch, server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client would send requests to 127.0.0.1 through a proxy too."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.skipif(not CASES, reason="no spec/ in the reference data; set FACECORE_DATA")
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(
    case: dict[str, Any],
    requests: Requests,
    gallery: Gallery,
    make_service: Callable[..., FaceService],
    switched: tuple[Switch, Running],
) -> None:
    switch, server = switched
    given = case.get("given", {})
    switch.service = make_service(gate=gate_of(given.get("fault")))
    prepare(gallery, given, requests.symbols)
    # Cases that cost little are signed the older way too; a file can only be sent the newer way.
    assert run_case(case, requests, vendor.VendorClient(server.port, KEY, SECRET)) == []
