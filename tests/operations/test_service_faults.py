"""Every code of every operation, and unexpected failures."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operations.base import BASE
from operations.cases import Requests

from facecore import (
    FacecoreError,
    FaceEngine,
    Gallery,
    GalleryLocked,
    GalleryNotWritable,
    GalleryUnavailable,
    InvalidParameter,
)
from facecore.operations import CODES, DOCUMENTED, FaceService, OperationError, ServiceConfig
from facecore.operations.service import OPERATIONS

MakeService = Callable[..., FaceService]

# The document's list, including its odd statuses.
STATUS = {
    "MissingParameter": 400,
    "InvalidParameter": 400,
    "InvalidAction.NotFound": 404,
    "NoFaceDetected": 401,
    "UnqualifiedPhoto": 401,
    "ToolargeImage": 401,
    "DataDuplication": 401,
    "DownloadTimeout": 401,
    "Forbidden.RAMUserAccessDenied": 403,
    "Forbidden.AccountAccessDenied": 403,
    "Throttling.Api": 403,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "InvalidParam.ImageTypeEmpty": 400,
    "InvalidParam.ImageTypeInvalid": 400,
    "InvalidParam.FacePicNotGiven": 400,
    "InvalidParam.ParamMissing": 403,
    "InvalidParam.ImageValuePatternError": 400,
    "Error.NoFaceDetected": 400,
    "Error.NoPermissionAccess": 403,
    "Error.CompareFacesError": 500,
    "Error.InternalError": 500,
}
REQUEST_ID = r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}"


def test_the_codes_are_the_documents() -> None:
    assert {name: code.status for name, code in CODES.items()} == STATUS
    assert set(DOCUMENTED) == set(OPERATIONS) == set(BASE)
    assert all(code.message.endswith(".") for code in CODES.values())


@pytest.mark.parametrize("name", BASE)
def test_a_gate_answers_with_every_code_of_an_operation(
    name: str, make_service: MakeService
) -> None:
    for code in DOCUMENTED[name]:

        def gate(operation: str, code: str = code.name) -> None:
            assert operation == name
            raise OperationError(code, "closed")

        # The request is empty, because the gate comes before all checks of the request.
        response = make_service(gate=gate).call(name, {})
        assert response.status == STATUS[code.name]
        assert response.body.pop("HostId")
        assert re.fullmatch(REQUEST_ID, response.body.pop("RequestId"))
        assert response.body == {"Code": code.name, "Message": "closed"}


def test_a_gate_that_returns_lets_pass(make_service: MakeService, gallery: Gallery) -> None:
    seen: list[str] = []
    response = make_service(gate=seen.append).call("QueryFaceGroup", BASE["QueryFaceGroup"])
    assert (response.status, seen) == (200, ["QueryFaceGroup"])


@pytest.mark.parametrize("name", ["", "facecompare", "FaceCompareV2", "__init__"])
def test_unknown_operation(name: str, make_service: MakeService) -> None:
    def gate(_: str) -> None:
        raise AssertionError

    response = make_service(gate=gate).call(name, {})
    assert (response.status, response.body["Code"]) == (404, "InvalidAction.NotFound")


@pytest.mark.parametrize("name", BASE)
def test_what_nobody_foresaw(
    name: str, make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    def gate(_: str) -> None:
        raise RuntimeError("secret reason " * 100)

    with caplog.at_level(logging.DEBUG):
        response = make_service(gate=gate).call(name, {})
    code = "Error.InternalError" if name == "CompareFaces" else "InternalError"
    assert (response.status, response.body["Code"]) == (500, code)
    assert "secret" not in str(response.body)
    (record,) = caplog.records
    text = record.getMessage()
    assert response.body["RequestId"] in text
    assert "RuntimeError: secret reason" in text
    assert "in gate" in text
    assert len(text) < 2000
    assert record.exc_info is None  # frames would keep pictures alive


@pytest.mark.parametrize("name", ["FaceCompare", "CompareFaces", "AddFaceRecord"])
def test_an_engine_that_fails(
    name: str,
    service: FaceService,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gallery.create_group("g1")
    monkeypatch.setattr(FaceEngine, "sample", lambda *_: 1 / 0)
    request = requests.build(BASE[name])
    response = service.call(name, request)
    code = "Error.CompareFacesError" if name == "CompareFaces" else "InternalError"
    assert (response.status, response.body["Code"]) == (500, code)
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert response.body["RequestId"] in record.getMessage()
    longest = max(map(len, re.findall(r"[A-Za-z0-9+/]+", record.getMessage())))
    assert longest < 200  # no base64, no array


def test_id_portraits_without_a_table(
    service: FaceService, engine: FaceEngine, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "id_portrait_calibration", None)
    request = requests.build({**BASE["CompareFaces"], "TargetImageType": "IDPic"})
    response = service.call("CompareFaces", request)
    assert (response.status, response.body["Code"]) == (500, "Error.CompareFacesError")


@pytest.mark.parametrize(("field", "value"), [("liveness", None), ("runs_liveness", False)])
def test_liveness_that_cannot_be_checked_is_an_error(
    field: str,
    value: object,
    service: FaceService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gallery.create_group("g1")
    monkeypatch.setattr(type(engine.pack), field, value)
    request = {**BASE["FaceDuplicationCheckIntl"], "Liveness": "1"}
    response = service.call("FaceDuplicationCheckIntl", requests.build(request))
    assert (response.status, response.body["Code"]) == (500, "InternalError")
    assert "no liveness model" in response.body["Message"]
    assert "no liveness model" in caplog.text
    wrong = {**request, "FaceGroupCodes": "nope"}  # the caller's mistakes come first
    assert service.call("FaceDuplicationCheckIntl", requests.build(wrong)).status == 400
    request["Liveness"] = "0"
    assert service.call("FaceDuplicationCheckIntl", requests.build(request)).status == 200


CHANGES: dict[str, tuple[str, int, str]] = {
    "CreateFaceGroup": ("create_group", 503, "ServiceUnavailable"),
    "ModifyFaceGroup": ("update_group", 503, "ServiceUnavailable"),
    "DeleteFaceGroup": ("delete_group", 503, "ServiceUnavailable"),
    "DeleteFaceRecord": ("remove", 503, "ServiceUnavailable"),
    "DeleteFaceRecordV2": ("remove", 503, "ServiceUnavailable"),
    "AddFaceRecord": ("add", 503, "ServiceUnavailable"),
    "FaceDuplicationCheckIntl": ("add", 500, "InternalError"),  # its document has no 503
}


@pytest.mark.parametrize("error", [GalleryNotWritable, GalleryLocked, GalleryUnavailable])
@pytest.mark.parametrize("name", CHANGES)
def test_a_gallery_that_cannot_be_changed(
    name: str,
    error: type[FacecoreError],
    service: FaceService,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = gallery.create_group("g1")
    vector = np.zeros((1, gallery.engine.pack.embedder.output.dimension), np.float32)
    vector[0, 0] = 1
    (record,) = gallery.add_templates("g1", vector, ["u1"], contract=gallery.contract_id)
    number = gallery.record(record.face_id).id if name == "DeleteFaceRecord" else group.id
    method, status, code = CHANGES[name]

    def fail(*_: object, **__: object) -> None:
        raise error("no room in /srv/secret/folder")

    monkeypatch.setattr(Gallery, method, fail)
    request = {**BASE[name], "VerifyModel": "0", "AutoRegistration": "0"}
    request |= {"FaceRegisterGroupCode": "g1", "MerchantUserId": "u1"}
    if "Id" in request:
        request["Id"] = str(number)
    response = service.call(name, requests.build(request))
    assert (response.status, response.body["Code"]) == (status, code)
    assert error.__name__ in response.body["Message"]
    assert "secret" not in str(response.body)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is Linux's")
def test_a_full_disk_and_a_lost_folder_are_told(
    service: FaceService, gallery: Gallery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = sorted(path.name for path in Path(gallery.address).iterdir())
    service.check()
    assert sorted(path.name for path in Path(gallery.address).iterdir()) == before
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda dir: open("/dev/full", "wb"))  # noqa: SIM115
        with pytest.raises(GalleryNotWritable, match="No space left"):
            service.check()
    with monkeypatch.context() as patch:
        patch.setattr(gallery, "address", str(tmp_path / "gone"))
        with pytest.raises(GalleryNotWritable, match="No such file"):
            service.check()
    Path(gallery.address).rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", gallery.address)
    with pytest.raises(GalleryNotWritable, match="replaced"):
        service.check()


@pytest.mark.parametrize("state", ["closed", "forked"])
@pytest.mark.parametrize("name", [name for name in BASE if "Compare" not in name])
def test_a_gallery_that_is_closed_or_forked(
    name: str,
    state: str,
    service: FaceService,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Such a gallery deletes and finds nobody, and the caller's values are not the reason."""
    gallery.create_group("g1")
    if state == "closed":
        gallery.close()
    else:
        monkeypatch.setattr(gallery._backend._store, "_process", -1)  # type: ignore[attr-defined]
    response = service.call(name, requests.build({**BASE[name], "VerifyModel": "0"}))
    assert (response.status, response.body["Code"]) == (500, "InternalError")
    assert response.body["RequestId"] in caplog.text
    assert {"closed": "is closed", "forked": "another process"}[state] in caplog.text


def test_operation_error() -> None:
    error = OperationError("Throttling.Api", "slower")
    assert (error.code, error.status, error.message) == ("Throttling.Api", 403, "slower")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.status, copy.message, str(copy)) == (
        "Throttling.Api",
        403,
        "slower",
        "slower",
    )
    assert OperationError("Throttling.Api").message == "Too many requests."
    with pytest.raises(InvalidParameter, match="not a documented code"):
        OperationError("TooManyRequests")


@pytest.mark.parametrize(
    "settings",
    [
        {"download_timeout": 0},
        {"download_timeout": None},
        {"download_timeout": float("nan")},
        {"threshold": 101},
        {"threshold": True},
        {"threshold": "80"},
        {"search_far": 0},
        {"search_far": 1},
        {"search_far": None},
        {"liveness_threshold": -1},
        {"gate": 3},
        {"any_orientation": 1},
        {"exact_biz_id": "yes"},
        {"allow_private_addresses": "no"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(settings))):
        ServiceConfig(**settings)


def test_settings_have_the_documented_defaults() -> None:
    assert ServiceConfig() == ServiceConfig(
        allow_private_addresses=False,
        download_timeout=5.0,
        gate=None,
        threshold=None,
        search_far=0.01,
        liveness_threshold=None,
        any_orientation=False,
        exact_biz_id=True,
    )


@pytest.mark.parametrize(
    "value", [b"bytes", ["a"], {"a": 1}, object(), np.zeros(3), 10**5000, "\ud800"], ids=type
)
@pytest.mark.parametrize("name", BASE)
def test_values_of_other_types_are_refused(
    name: str, value: object, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    """No value that a caller in process passes gives a 500."""
    gallery.create_group("g1")
    ignored = {"FaceGroupCodes"} if BASE[name].get("VerifyModel") == "1" else set()
    for parameter in BASE[name].keys() - ignored:
        response = service.call(name, {**requests.build(BASE[name]), parameter: value})
        assert response.status == 400, parameter
