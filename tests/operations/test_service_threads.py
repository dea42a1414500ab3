"""One service, many threads."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from operations.base import BASE
from operations.cases import Requests

from facecore import FaceEngine, FaceSample, Gallery
from facecore.operations import FaceService

THREADS = 8


def _at_once(service: FaceService, calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    barrier = Barrier(len(calls))

    def one(call: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        barrier.wait(30)
        response = service.call(*call)
        assert response.status == 200, response.body
        return response.body

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_a_user_is_added_once(service: FaceService, gallery: Gallery, requests: Requests) -> None:
    gallery.create_group("g1")
    request = requests.build(BASE["AddFaceRecord"])
    bodies = _at_once(service, [("AddFaceRecord", request)] * THREADS)
    assert Counter(body["Result"]["Passed"] for body in bodies) == {"Y": 1, "N": THREADS - 1}
    assert len(gallery) == 1


def test_a_face_is_registered_once(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    """If requests send one new face under different ids, one registers it and the rest find it."""
    gallery.create_group("g1")
    base = requests.build({**BASE["FaceDuplicationCheckIntl"], "VerifyModel": "0"})
    calls = [
        (
            "FaceDuplicationCheckIntl",
            {
                **base,
                "MerchantUserId": f"u{number}",
                "AutoRegistration": "0",
                "FaceRegisterGroupCode": "g1",
            },
        )
        for number in range(THREADS)
    ]
    bodies = _at_once(service, calls)
    codes = Counter(body["Result"]["SubCode"] for body in bodies)
    assert codes == {"200": 1, "233": THREADS - 1}
    assert len(gallery) == 1


def test_registration_and_addition_of_one_user(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    gallery.create_group("empty")
    add = requests.build({**BASE["AddFaceRecord"], "MerchantUserId": "newuser"})
    register = requests.build(
        {
            **BASE["FaceDuplicationCheckIntl"],
            "VerifyModel": "0",
            "FaceGroupCodes": "empty",
            "AutoRegistration": "0",
            "FaceRegisterGroupCode": "g1",
        }
    )
    calls = [("AddFaceRecord", add), ("FaceDuplicationCheckIntl", register)] * (THREADS // 2)
    results = [body["Result"] for body in _at_once(service, calls)]
    done = [r.get("Passed") == "Y" or r.get("FaceRegistrationResult") == 1 for r in results]
    assert sum(done) == 1
    assert len(gallery) == 1


def test_answers_do_not_mix(service: FaceService, requests: Requests) -> None:
    pairs = [("@alice1", "@alice2"), ("@alice1", "@bob1"), ("@bob1", "@bob3"), ("@bob1", "@alice3")]
    calls = [
        (
            "FaceCompare",
            requests.build({**BASE["FaceCompare"], "SourceFacePicture": a, "TargetFacePicture": b}),
        )
        for a, b in pairs * 3
    ]
    alone = [service.call(*call).body["Result"]["FaceComparisonScore"] for call in calls[:4]]
    together = [body["Result"]["FaceComparisonScore"] for body in _at_once(service, calls)]
    assert together == alone * 3


@pytest.mark.parametrize("name", ["AddFaceRecord", "FaceDuplicationCheckIntl"])
def test_a_group_that_is_deleted_meanwhile(
    name: str,
    service: FaceService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery.create_group("g1")
    real = engine.sample

    def sample(image: Any, **more: Any) -> FaceSample:
        if gallery.groups():
            gallery.delete_group("g1")
        return real(image, **more)

    monkeypatch.setattr(engine, "sample", sample)
    response = service.call(name, requests.build(BASE[name]))
    assert (response.status, response.body["Code"]) == (400, "InvalidParameter")
