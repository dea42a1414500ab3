"""The vendor's clients against a server with given answers: check what callers receive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from server.serving import Answered, Running, running

intl = pytest.importorskip("alibabacloud_cloudauth_intl20220809.client")

from alibabacloud_cloudauth20190307 import models as models_2019  # noqa: E402
from alibabacloud_cloudauth20190307.client import Client as Client2019  # noqa: E402
from alibabacloud_cloudauth_intl20220809 import models  # noqa: E402
from alibabacloud_tea_openapi import exceptions  # noqa: E402
from alibabacloud_tea_openapi.utils_models import Config  # noqa: E402
from Tea.exceptions import TeaException  # noqa: E402

KEY, SECRET = "door-1", "s3cret-s3cret-s3cret"


class Given:
    """Returns the answer that a test sets, and records its calls."""

    def __init__(self) -> None:
        self.answer = Answered(200, {})
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def knows(self, name: str) -> bool:
        return True

    def check(self) -> None:
        pass

    def call(
        self, name: str, params: Mapping[str, Any], /, *, groups: frozenset[str] | None = None
    ) -> Answered:
        self.calls.append((name, dict(params)))
        return self.answer


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Running, Given]]:
    service = Given()
    with running(service, {KEY: SECRET}) as server:
        yield server, service


@pytest.fixture
def given(pair: tuple[Running, Given]) -> Given:
    pair[1].calls.clear()
    pair[1].answer = Answered(200, {"Code": "Success", "RequestId": "R", "Message": "success"})
    return pair[1]


def config(server: Running, **settings: Any) -> Config:
    options = {
        "access_key_id": KEY,
        "access_key_secret": SECRET,
        "region_id": "local",
        "endpoint": f"127.0.0.1:{server.port}",
        "protocol": "HTTP",
    }
    return Config(**(options | settings))


def compare(server: Running, **settings: Any) -> Any:
    request = models.FaceCompareRequest(
        merchant_biz_id="1", source_face_picture="a+b/c=", target_face_picture_url="http://ü.test"
    )
    return intl.Client(config(server, **settings)).face_compare(request)


@pytest.mark.parametrize("signature", [None, "v2"])
def test_parameters_arrive(pair: tuple[Running, Given], given: Given, signature: str) -> None:
    server, _ = pair
    answer = compare(server, signature_algorithm=signature)
    assert (answer.status_code, answer.body.code, answer.body.request_id) == (200, "Success", "R")
    name, params = given.calls[0]
    assert name == "FaceCompare"
    assert params["MerchantBizId"] == "1"
    assert params["SourceFacePicture"] == "a+b/c="
    assert params["TargetFacePictureUrl"] == "http://ü.test"


def test_a_whole_url_as_endpoint(pair: tuple[Running, Given], given: Given) -> None:
    server, _ = pair
    answer = compare(server, endpoint=f"http://127.0.0.1:{server.port}", protocol=None)
    assert answer.status_code == 200


@pytest.mark.parametrize("signature", [None, "v2"])
def test_compare_faces(pair: tuple[Running, Given], given: Given, signature: str) -> None:
    given.answer = Answered(
        200,
        {
            "Code": "1",
            "Success": True,
            "RequestId": "R",
            "Data": {"SimilarityScore": 98.79, "ConfidenceThresholds": '{"0.01":"70.02"}'},
        },
    )
    request = models_2019.CompareFacesRequest(
        source_image_type="FacePic",
        source_image_value="base64://a+/=",
        target_image_type="IDPic",
        target_image_value="http://127.0.0.1/a",
    )
    client = Client2019(config(pair[0], signature_algorithm=signature))
    body = client.compare_faces(request).body
    assert (body.code, body.success, body.data.similarity_score) == ("1", True, 98.79)
    assert body.data.confidence_thresholds == '{"0.01":"70.02"}'
    assert given.calls[0][1]["SourceImageValue"] == "base64://a+/="


def test_the_oldest_client(pair: tuple[Running, Given], given: Given) -> None:
    core = pytest.importorskip("aliyunsdkcore.client")
    from aliyunsdkcloudauth.request.v20190307.CompareFacesRequest import CompareFacesRequest

    request = CompareFacesRequest()
    request.set_endpoint(f"127.0.0.1:{pair[0].port}")
    request.set_protocol_type("http")
    request.set_accept_format("json")
    request.set_SourceImageValue("base64://a+/ =")
    answer = core.AcsClient(KEY, SECRET, "local").do_action_with_exception(request)
    assert b"Success" in answer
    assert given.calls[0][0] == "CompareFaces"
    assert given.calls[0][1]["SourceImageValue"] == "base64://a+/ ="


def refusal(server: Running, **settings: Any) -> TeaException:
    with pytest.raises(TeaException) as caught:
        compare(server, **settings)
    error = caught.value
    assert error.data["HostId"] == "facecore"
    return error


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "MissingParameter", exceptions.ClientException),
        (401, "NoFaceDetected", exceptions.ClientException),
        (403, "Throttling.Api", exceptions.ThrottlingException),
        (500, "InternalError", exceptions.ServerException),
        (503, "ServiceUnavailable", exceptions.ServerException),
    ],
)
def test_errors(
    pair: tuple[Running, Given], given: Given, status: int, code: str, kind: type[TeaException]
) -> None:
    body = {"RequestId": "R", "HostId": "facecore", "Code": code, "Message": "why"}
    given.answer = Answered(status, body)
    error = refusal(pair[0])
    assert isinstance(error, kind)
    assert (error.status_code, error.code, error.request_id) == (status, code, "R")
    assert "why" in error.message
    if code == "Throttling.Api":
        assert error.retry_after == 1000


@pytest.mark.parametrize("signature", [None, "v2"])
def test_signatures(pair: tuple[Running, Given], given: Given, signature: str) -> None:
    wrong = refusal(pair[0], signature_algorithm=signature, access_key_secret=SECRET + "x")
    assert (wrong.status_code, wrong.code) == (400, "SignatureDoesNotMatch")
    unknown = refusal(pair[0], signature_algorithm=signature, access_key_id="door-2")
    assert (unknown.status_code, unknown.code) == (404, "InvalidAccessKeyId.NotFound")
    assert given.calls == []


def test_a_security_token_is_ignored(pair: tuple[Running, Given], given: Given) -> None:
    answer = compare(pair[0], security_token="token", type="sts")
    assert answer.status_code == 200


def test_without_keys_any_credentials_do(given: Given) -> None:
    with running(given) as server:
        assert compare(server, access_key_id="any", access_key_secret="any").status_code == 200
        assert compare(server, endpoint=f"http://127.0.0.1:{server.port}").status_code == 200
