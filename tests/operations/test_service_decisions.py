"""The decision table of FaceDuplicationCheckIntl, and the fields of each answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from operations.base import BASE, PHOTO_OPERATIONS
from operations.cases import Requests

from facecore import FaceEngine, Gallery
from facecore.operations import FaceService, duplication_check
from facecore.operations.quality import quality_scores

MakeService = Callable[..., FaceService]
NAME = "FaceDuplicationCheckIntl"
ALWAYS = {"FacePassed", "SubCode", "TransactionId"}

ROWS = list(product("012", (None, False, True), (True, False), (True, False), (True, False)))


def _answer(service: FaceService, requests: Requests, *drop: str, **change: Any) -> dict[str, Any]:
    request = {**BASE[NAME], **change, **dict.fromkeys(drop)}
    response = service.call(NAME, requests.build(request))
    assert response.status == 200, response.body
    result: dict[str, Any] = response.body["Result"]
    return result


@pytest.mark.parametrize(("mode", "attack", "same", "stored", "register"), ROWS)
def test_decision(
    mode: str,
    attack: bool | None,
    same: bool,
    stored: bool,
    register: bool,
    service: FaceService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Test every row; the test sets whether Source is an attack, the engine decides the rest."""
    gallery.create_group("g1")
    gallery.create_group("new")
    gallery.add("g1", requests.symbols.data("@alice4" if stored else "@bob1"), "somebody")
    if attack is not None:
        _attack(monkeypatch, engine, score=80.0 if attack else 20.0)
    found = _answer(
        service,
        requests,
        VerifyModel=mode,
        Liveness="0" if attack is None else "1",
        TargetFacePicture="@alice2" if same else "@bob1",
        AutoRegistration="0" if register else "1",
        FaceRegisterGroupCode="new",
    )

    # The document's table, in its order.
    duplicate = mode in "02" and stored
    if attack:
        sub_code = "205"
    elif mode in "12" and not same:
        sub_code = "204"
    elif duplicate:
        sub_code = "233"
    else:
        sub_code = "200"
    registered = register and sub_code == "200" and mode in "02"
    expected = ALWAYS | ({"FaceComparisonScore"} if mode in "12" else set())
    expected |= {"DuplicateFace"} if duplicate else set()
    expected |= set() if attack is None else {"FaceAttack", "FaceAttackScore"}
    expected |= {"FaceRegistrationResult", "FaceRegistrationId"} if registered else set()

    assert set(found) == expected
    assert (found["SubCode"], found["FacePassed"]) == (sub_code, "Y" if sub_code == "200" else "N")
    if mode in "12":
        assert isinstance(found["FaceComparisonScore"], str)
        assert (float(found["FaceComparisonScore"]) >= engine.threshold) == same
    if duplicate:
        assert [face["merchantUserId"] for face in json.loads(found["DuplicateFace"])] == [
            "somebody"
        ]
    if attack is not None:
        assert found["FaceAttack"] == ("Y" if attack else "N")
        assert found["FaceAttackScore"] == ("80.0" if attack else "20.0")
    assert gallery.count("g1") == 1
    records = gallery.records("new")
    assert len(records) == registered
    if registered:
        (record,) = records
        assert (record.user_id, record.origin) == ("newuser", "AUTO")
        assert found["FaceRegistrationResult"] == 1
        assert type(found["FaceRegistrationResult"]) is int
        assert found["FaceRegistrationId"] == record.face_id


def _attack(monkeypatch: pytest.MonkeyPatch, engine: FaceEngine, score: float) -> None:
    from facecore.face.liveness import Liveness

    def liveness(_: object, *, threshold: float | None = None) -> Liveness:
        return Liveness(score, 50.0 if threshold is None else threshold, {})

    monkeypatch.setattr(engine, "liveness", liveness)


@pytest.mark.parametrize(("threshold", "attack"), [(None, "Y"), (60.0, "Y"), (60.5, "N")])
def test_the_liveness_threshold_is_the_configurations(
    threshold: float | None,
    attack: str,
    make_service: MakeService,
    engine: FaceEngine,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _attack(monkeypatch, engine, score=60.0)
    service = make_service(liveness_threshold=threshold)
    found = _answer(service, requests, VerifyModel="1", Liveness="1")
    assert found["FaceAttack"] == attack


def test_only_source_is_checked_for_an_attack(
    service: FaceService, engine: FaceEngine, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    _attack(monkeypatch, engine, score=1.0)
    real = engine.liveness
    monkeypatch.setattr(
        engine, "liveness", lambda face, **more: seen.append(face) or real(face, **more)
    )
    _answer(
        service, requests, VerifyModel="1", Liveness="1", TargetFacePicture="@alice2;h=700;w=500"
    )
    assert [face.pixels.shape for face in seen] == [(960, 720, 3)]


@pytest.mark.parametrize(
    ("update", "result", "kept"), [(None, 0, True), ("N", 0, True), ("Y", 1, False)]
)
def test_a_user_who_is_there_already(
    update: str | None,
    result: int,
    kept: bool,
    service: FaceService,
    gallery: Gallery,
    requests: Requests,
) -> None:
    gallery.create_group("g1")
    gallery.create_group("new")
    old = gallery.add("new", requests.symbols.data("@bob1"), "newuser")
    found = _answer(
        service,
        requests,
        AutoRegistration="0",
        FaceRegisterGroupCode="new",
        UpdateFaceIfUserExists=update,
    )
    assert (found["FacePassed"], found["SubCode"]) == ("Y", "200")
    assert found["FaceRegistrationResult"] == result
    assert ("FaceRegistrationId" in found) == (not kept)
    (record,) = gallery.records("new")
    assert (record.face_id == old.face_id) == kept


def test_a_face_that_is_registered_finds_itself(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    """A later search also finds the caller's registered face."""
    gallery.create_group("g1")
    change = {"VerifyModel": "0", "AutoRegistration": "0", "FaceRegisterGroupCode": "g1"}
    first = _answer(service, requests, **change)
    again = _answer(service, requests, **change)
    assert (first["SubCode"], again["SubCode"]) == ("200", "233")
    (face,) = json.loads(again["DuplicateFace"])
    assert face == {
        "faceGroupCode": "g1",
        "faceId": first["FaceRegistrationId"],
        "merchantUserId": "newuser",
    }
    assert len(gallery) == 1


@pytest.mark.parametrize("limit", [None, 1, "2", 3, 4, 5])
def test_the_best_duplicates_over_all_groups(
    limit: object, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    data = requests.symbols.data
    for group in ("a", "b", "c"):
        gallery.create_group(group)
    for number, group in zip(range(2, 9), "abababa", strict=True):
        gallery.add(group, data(f"@alice{number}"), f"u{number}")
    gallery.add("c", data("@alice1"), "elsewhere")
    gallery.add("b", data("@bob1"), "other")
    found = _answer(service, requests, VerifyModel="0", FaceGroupCodes="b,a", ReturnFaces=limit)
    users = [face["merchantUserId"] for face in json.loads(found["DuplicateFace"])]
    best = [match.user_id for match in gallery.search(data("@alice1"), ["a", "b"], 5)]
    assert users == best[: int(str(limit or 1))]


def test_an_empty_group_finds_nobody(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    assert set(_answer(service, requests, VerifyModel="0")) == ALWAYS


def test_reserved_parameters_change_nothing(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    plain = _answer(service, requests)
    for value in ("0", "0.99", "100", "nonsense", "Y"):
        reserved = ("FaceVerifyThreshold", "SaveFacePicture", "SceneCode")
        other = _answer(service, requests, **dict.fromkeys(reserved, value))
        assert {**plain, "TransactionId": ""} == {**other, "TransactionId": ""}


SCORES = {
    "FaceQualityScore",
    "IlluminationScore",
    "KaOcclusionScore",
    "OcclusionScore",
    "SharpnessScore",
}


@pytest.mark.parametrize("name", ["FaceCompare", NAME])
def test_quality_scores(
    name: str, service: FaceService, engine: FaceEngine, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    both = SCORES | {f"Target{score}" for score in SCORES}
    pictures = {"SourceFacePicture": "@alice1", "TargetFacePicture": "@blurred_alice"}
    for flag, expected in (("Y", both), ("N", None), ("y", None), (None, None)):
        request = {**BASE[name], **pictures, "FaceQualityCheck": flag}
        result = service.call(name, requests.build(request)).body["Result"]
        info = result.get("ExtFaceInfo")
        assert (info and set(info)) == expected
        if info:
            faces = [engine.sample(requests.symbols.data(p)) for p in pictures.values()]
            assert info == quality_scores(engine, *faces)
            assert info["SharpnessScore"] > info["TargetSharpnessScore"]
            assert all(0 <= score <= 100 for score in info.values())
    if name == NAME:
        request = {**BASE[name], "VerifyModel": "0", "FaceQualityCheck": "Y"}
        result = service.call(name, requests.build(request)).body["Result"]
        assert set(result["ExtFaceInfo"]) == SCORES


@pytest.mark.parametrize(
    ("symbol", "level"), [("@alice1", "HIGH"), ("@blurred_alice", "LOW"), ("@noface", "LOW")]
)
def test_quality_of_a_record(
    symbol: str, level: str, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    face = symbol != "@noface"
    for passed in ("Y" if face else "N", "N"):  # the second time, the user exists
        request = requests.build({**BASE["AddFaceRecord"], "FacePicture": symbol})
        response = service.call("AddFaceRecord", request)
        assert response.body["Message"] == "The request was successful."
        result = response.body["Result"]
        assert set(result) == {"Passed", "ExtFaceInfo"}
        assert json.loads(result["ExtFaceInfo"]) == {"faceQuality": level}
        assert result["Passed"] == passed
        assert len(gallery) == face


@pytest.mark.parametrize(
    ("score", "sharpness", "level"),
    [
        (80.0, 80.0, "HIGH"),
        (79.9, 100.0, "MEDIUM"),
        (100.0, 79.9, "MEDIUM"),
        (50.0, 50.0, "MEDIUM"),
        (49.9, 100.0, "LOW"),
        (100.0, 49.9, "LOW"),
    ],
)
def test_every_quality_is_stored(
    score: float,
    sharpness: float,
    level: str,
    service: FaceService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A poor face is reported, but still stored."""
    gallery.create_group("g1")
    found = SimpleNamespace(score=score, operation_scores={"SharpnessScore": sharpness})
    monkeypatch.setattr(engine, "quality", lambda _: found)
    response = service.call("AddFaceRecord", requests.build(BASE["AddFaceRecord"]))
    result = response.body["Result"]
    assert json.loads(result["ExtFaceInfo"]) == {"faceQuality": level}
    assert result["Passed"] == "Y"
    assert len(gallery) == 1


def test_a_user_is_stored_once_a_group(
    service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    gallery.create_group("g2")

    def passed(symbol: str, group: str, user: str) -> Any:
        change = {"FacePicture": symbol, "FaceGroupCode": group, "MerchantUserId": user}
        request = requests.build({**BASE["AddFaceRecord"], **change})
        return service.call("AddFaceRecord", request).body["Result"]["Passed"]

    assert passed("@alice1", "g1", "u1") == "Y"
    assert passed("@bob1", "g1", "u1") == "N"
    assert passed("@alice1", "g1", "u2") == "Y"  # one face under two ids
    assert passed("@alice1", "g2", "u1") == "Y"
    assert [(r.user_id, r.origin) for r in gallery.records("g1")] == [
        ("u1", "MANUAL"),
        ("u2", "MANUAL"),
    ]


FIELDS = {
    "FaceCompare": {"TransactionId", "Passed", "FaceComparisonScore"},
    "FaceCrossCompareIntl": {
        "TransactionId",
        "FacePassed",
        "FaceComparisonScoreA2B",
        "FaceComparisonScoreB2C",
    },
    NAME: ALWAYS | {"FaceComparisonScore"},
}


@pytest.mark.parametrize("name", PHOTO_OPERATIONS)
def test_envelope(name: str, service: FaceService, gallery: Gallery, requests: Requests) -> None:
    gallery.create_group("g1")
    seen = set()
    for _ in range(2):
        body = service.call(name, requests.build(BASE[name])).body
        assert set(body) == {"RequestId", "Code", "Message", "Result"}
        assert (body["Code"], body["Message"]) == ("Success", "success")
        assert set(body["Result"]) == FIELDS[name]
        assert len(body["Result"]["TransactionId"]) == 32
        assert json.loads(json.dumps(body)) == body
        seen |= {body["RequestId"], body["Result"]["TransactionId"]}
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("flag", "has_network", "found", "expected"),
    [
        ("Y", True, SimpleNamespace(age=31.6, gender="F"), {"FaceAge": "32", "FaceGender": "F"}),
        ("Y", True, None, {}),  # the picture is too poor to estimate
        ("Y", False, None, {}),
        ("N", True, SimpleNamespace(age=31.6, gender="F"), {}),
        (None, True, SimpleNamespace(age=31.6, gender="F"), {}),
    ],
)
def test_age_and_gender_are_there_only_when_computed(
    flag: str | None,
    has_network: bool,
    found: object,
    expected: dict[str, str],
    service: FaceService,
    engine: FaceEngine,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(engine.pack), "attributes", object() if has_network else None)
    if has_network:
        monkeypatch.setattr(engine, "attributes", lambda _: found)
    result = _answer(service, requests, VerifyModel="1", FaceAttributeCheck=flag)
    given = {name: result[name] for name in ("FaceAge", "FaceGender") if name in result}
    assert given == expected


def test_the_lock_waits_for_no_picture(
    service: FaceService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Quality decodes the whole picture before the lock; the registration reuses the sample's."""
    gallery.create_group("g1")
    held = []
    real = engine.quality

    def quality(face: Any) -> Any:
        held.append(service._context.registering.locked())
        return real(face)

    monkeypatch.setattr(engine, "quality", quality)
    change = {"VerifyModel": "0", "AutoRegistration": "0", "FaceRegisterGroupCode": "g1"}
    assert _answer(service, requests, **change)["FaceRegistrationResult"] == 1
    assert held == [False, True]


@pytest.mark.parametrize("check", ["FaceAttributeCheck", "FaceQualityCheck"])
def test_what_fails_registers_nobody(
    check: str,
    service: FaceService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error means that no face was stored, so it must come before the registration."""
    gallery.create_group("g1")

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(type(engine.pack), "attributes", object())
    monkeypatch.setattr(engine, "attributes", fail)
    monkeypatch.setattr(duplication_check, "quality_scores", fail)
    change = {"AutoRegistration": "0", "FaceRegisterGroupCode": "g1", check: "Y"}
    response = service.call(NAME, requests.build({**BASE[NAME], "VerifyModel": "0", **change}))
    assert response.status == 500
    assert len(gallery) == 0


def test_more_faces_than_the_table_reaches(
    make_service: MakeService,
    engine: FaceEngine,
    gallery: Gallery,
    requests: Requests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer names the reason, because "nobody was found" was not checked."""
    gallery.create_group("g1")
    gallery.add("g1", requests.symbols.data("@alice4"), "somebody")
    short = replace(engine.calibration, tail_scale=10.0)
    monkeypatch.setattr(engine, "calibration_for", lambda _: short)
    service = make_service(search_far=1e-6)
    response = service.call(NAME, requests.build({**BASE[NAME], "VerifyModel": "0"}))
    assert (response.status, response.body["Code"]) == (500, "InternalError")
    assert "cannot be searched" in response.body["Message"]
