"""The operations on groups and records."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from operations.base import BASE
from operations.cases import Requests

from facecore import Gallery
from facecore.operations import FaceService


@pytest.fixture
def ask(service: FaceService) -> Any:
    def call(name: str, **params: Any) -> dict[str, Any]:
        response = service.call(name, params)
        assert response.status == 200, response.body
        assert response.body.pop("Code") == "Success"
        assert response.body.pop("Message") == "success"
        assert response.body.pop("RequestId")
        return response.body

    return call


@pytest.fixture
def people(gallery: Gallery) -> Gallery:
    """Three groups: g1 with u1 twice and u2, g2 with u1, g3 empty; the vectors are random."""
    for code in ("g1", "g2", "g3"):
        gallery.create_group(code, title=f"title {code}", description=f"about {code}")
    rng = np.random.default_rng(0)
    for code, users in (("g1", ["u1", "u1", "u2"]), ("g2", ["u1"])):
        vectors = rng.normal(size=(len(users), len(gallery.engine.embed(_face())))).astype("f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        gallery.add_templates(code, vectors, users, contract=gallery.contract_id)
    return gallery


def _face() -> Any:
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def test_create(ask: Any, gallery: Gallery, service: FaceService) -> None:
    number = ask("CreateFaceGroup", GroupCode="g1", Name="a name", Description="words")["Data"]
    group = gallery.group("g1")
    assert (group.id, group.title, group.description) == (number, "a name", "words")
    for code in ("g2", "x", "a group"):
        assert ask("CreateFaceGroup", GroupCode=code) == {"Data": gallery.group(code).id}
    for code in ("g1", "x" * 65, "a\0", "a,b", "a\uff0cb", " a", "a\t", ","):
        response = service.call("CreateFaceGroup", {"GroupCode": code})
        assert (response.status, response.body["Code"]) == (400, "InvalidParameter")
    assert service.call("CreateFaceGroup", {}).body["Code"] == "MissingParameter"


def test_query_groups(ask: Any, people: Gallery) -> None:
    found = ask("QueryFaceGroup", CurrentPage=1, PageSize=2)
    items = found.pop("Items")
    assert found == {"CurrentPage": 1, "PageSize": 2, "TotalCount": 3, "TotalPage": 2}
    ids = [group.id for group in people.groups()]
    assert items == [
        {"Id": ids[0], "Code": "g1", "Name": "title g1", "Description": "about g1"},
        {"Id": ids[1], "Code": "g2", "Name": "title g2", "Description": "about g2"},
    ]

    def codes(**query: Any) -> list[str]:
        return [
            group["Code"]
            for group in ask("QueryFaceGroup", **{"CurrentPage": 1, "PageSize": 9, **query})[
                "Items"
            ]
        ]

    assert codes() == ["g1", "g2", "g3"]
    assert codes(CurrentPage="2", PageSize="2") == ["g3"]
    assert codes(CurrentPage=3, PageSize=2) == []
    assert codes(GroupCode="g2") == ["g2"]
    assert codes(Name="title g3") == ["g3"]
    assert codes(GroupCode="g2", Name="title g3") == []
    assert codes(MaxResults="x", NextToken="y") == ["g1", "g2", "g3"]


def test_modify(ask: Any, people: Gallery) -> None:
    group = people.group("g2")
    assert ask("ModifyFaceGroup", Id=group.id, Name="new") == {"Data": 1}
    assert people.group("g2").title == "new"
    assert people.group("g2").description == "about g2"
    assert ask("ModifyFaceGroup", Id=str(group.id), Name="new", Description="d") == {"Data": 1}
    assert people.group("g2").description == "d"
    assert people.group("g1").title == "title g1"
    assert ask("ModifyFaceGroup", Id=9999, Name="new") == {"Data": 0}


def test_delete_group(ask: Any, people: Gallery) -> None:
    number = people.group("g1").id
    assert ask("DeleteFaceGroup", Id=number) == {"Data": 1}
    assert [group.name for group in people.groups()] == ["g2", "g3"]
    assert len(people) == 1
    assert ask("DeleteFaceGroup", Id=number) == {"Data": 0}


def test_query_records(ask: Any, people: Gallery) -> None:
    def query(**more: Any) -> dict[str, Any]:
        base = {"FaceGroupCode": "g1", "CurrentPage": 1, "PageSize": 10}
        return dict(ask("QueryFaceRecord", **{**base, **more}))

    found = query()
    records = people.records("g1")
    assert [item["Id"] for item in found["Items"]] == [record.id for record in records]
    assert found["TotalCount"] == 3
    assert set(found["Items"][0]) == {
        "Id",
        "FaceId",
        "MerchantUserId",
        "RegistrationType",
        "GmtCreate",
    }
    first = found["Items"][0]
    assert (first["FaceId"], first["MerchantUserId"]) == (records[0].face_id, "u1")
    assert first["RegistrationType"] == "MANUAL"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["GmtCreate"])
    age = datetime.now(UTC) - datetime.fromisoformat(first["GmtCreate"])
    assert -2 < age.total_seconds() < 3600
    page = query(CurrentPage=2, PageSize=2)
    assert [item["Id"] for item in page["Items"]] == [records[2].id]
    assert (page["TotalCount"], page["TotalPage"]) == (3, 2)
    assert query(MerchantUserId="u1")["TotalCount"] == 2
    assert query(FaceId=records[1].face_id)["Items"][0]["Id"] == records[1].id
    assert query(RegistrationType="MANUAL")["TotalCount"] == 3
    assert query(RegistrationType="AUTO")["TotalCount"] == 0
    assert query(RegistrationType="AUTO")["TotalPage"] == 0
    assert query(MerchantUserId="u2", FaceId=records[1].face_id)["Items"] == []
    for nobody in ({"FaceId": "no face id"}, {"MerchantUserId": "x" * 300}):
        none = query(**nobody)
        assert (none["TotalCount"], none["TotalPage"], none["Items"]) == (0, 0, [])


def test_registration_type(
    ask: Any, service: FaceService, gallery: Gallery, requests: Requests
) -> None:
    gallery.create_group("g1")
    change = {"VerifyModel": "0", "AutoRegistration": "0", "FaceRegisterGroupCode": "g1"}
    request = requests.build({**BASE["FaceDuplicationCheckIntl"], **change})
    service.call("FaceDuplicationCheckIntl", request)
    service.call("AddFaceRecord", requests.build(BASE["AddFaceRecord"]))
    found = {
        kind: ask(
            "QueryFaceRecord",
            FaceGroupCode="g1",
            CurrentPage=1,
            PageSize=5,
            RegistrationType=kind,
        )["Items"]
        for kind in ("AUTO", "MANUAL")
    }
    assert [item["MerchantUserId"] for item in found["AUTO"]] == ["newuser"]
    assert [item["MerchantUserId"] for item in found["MANUAL"]] == ["u1"]


def test_delete_record(ask: Any, people: Gallery) -> None:
    record = people.records("g1")[1]
    assert ask("DeleteFaceRecord", Id=record.id) == {"Data": 1}
    assert record.id not in {other.id for other in people.records()}
    assert len(people) == 3
    assert ask("DeleteFaceRecord", Id=record.id) == {"Data": 0}


def test_delete_a_user(ask: Any, people: Gallery) -> None:
    assert ask("DeleteFaceRecordV2", MerchantUserId="u1", FaceGroupCode="g1") == {
        "Result": {"Deleted": "Y"}
    }
    assert [record.user_id for record in people.records()] == ["u2", "u1"]
    assert ask("DeleteFaceRecordV2", MerchantUserId="u1", FaceGroupCode="g1") == {
        "Result": {"Deleted": "N"}
    }
    people.add_templates("g1", people_vector(people), ["u1"], contract=people.contract_id)
    found = ask("DeleteFaceRecordV2", MerchantUserId="u1")["Result"]
    assert found["Deleted"] == "Y"
    assert found["DeletedGroupCodes"].split(",") == ["g1", "g2"]
    assert [record.user_id for record in people.records()] == ["u2"]
    for nobody in ("u1", "x" * 300):
        result = {"Deleted": "N", "DeletedGroupCodes": ""}
        assert ask("DeleteFaceRecordV2", MerchantUserId=nobody)["Result"] == result
        result = {"Deleted": "N"}
        found = ask("DeleteFaceRecordV2", MerchantUserId=nobody, FaceGroupCode="g1")
        assert found["Result"] == result


def test_a_group_that_is_deleted_while_a_user_is(
    ask: Any, people: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = people.users_groups("u1")
    monkeypatch.setattr(Gallery, "users_groups", lambda *_: ["gone", *groups])
    found = ask("DeleteFaceRecordV2", MerchantUserId="u1")["Result"]
    assert found == {"Deleted": "Y", "DeletedGroupCodes": "g1,g2"}


def people_vector(gallery: Gallery) -> Any:
    vector = gallery.engine.embed(_face())
    return vector[None]


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("QueryFaceGroup", {"CurrentPage": None}, "MissingParameter"),
        ("QueryFaceGroup", {"PageSize": ""}, "MissingParameter"),
        ("QueryFaceGroup", {"CurrentPage": 0}, "InvalidParameter"),
        ("QueryFaceGroup", {"CurrentPage": "1.5"}, "InvalidParameter"),
        ("QueryFaceGroup", {"PageSize": 1001}, "InvalidParameter"),
        ("QueryFaceGroup", {"PageSize": 1000}, "Success"),
        ("QueryFaceGroup", {"PageSize": 0}, "InvalidParameter"),
        ("QueryFaceGroup", {"PageSize": -1}, "InvalidParameter"),
        ("QueryFaceGroup", {"Name": "x" * 5000}, "Success"),
        ("QueryFaceGroup", {"CurrentPage": 999999999}, "Success"),
        ("QueryFaceGroup", {"CurrentPage": 1000000000}, "InvalidParameter"),
        ("QueryFaceRecord", {"FaceGroupCode": "nope"}, "InvalidParameter"),
        ("QueryFaceRecord", {"FaceGroupCode": None}, "MissingParameter"),
        ("QueryFaceRecord", {"PageSize": None}, "MissingParameter"),
        ("QueryFaceRecord", {"RegistrationType": "auto"}, "InvalidParameter"),
        ("ModifyFaceGroup", {"Id": None}, "MissingParameter"),
        ("ModifyFaceGroup", {"Name": None}, "MissingParameter"),
        ("ModifyFaceGroup", {"Id": "g1"}, "InvalidParameter"),
        ("ModifyFaceGroup", {"Id": "-1"}, "InvalidParameter"),
        ("ModifyFaceGroup", {"Name": "x" * 5000}, "InvalidParameter"),
        ("DeleteFaceGroup", {"Id": ""}, "MissingParameter"),
        ("DeleteFaceGroup", {"Id": "1 or 1=1"}, "InvalidParameter"),
        ("DeleteFaceGroup", {"Id": "9" * 18}, "Success"),
        ("DeleteFaceRecord", {"Id": None}, "MissingParameter"),
        ("DeleteFaceRecord", {"Id": "x"}, "InvalidParameter"),
        ("DeleteFaceRecord", {"Id": "9" * 18}, "Success"),
        ("DeleteFaceRecordV2", {"MerchantUserId": None}, "MissingParameter"),
        ("DeleteFaceRecordV2", {"FaceGroupCode": "nope"}, "InvalidParameter"),
        ("DeleteFaceRecordV2", {"MerchantUserId": "nobody"}, "Success"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parameters(
    name: str, change: dict[str, Any], code: str, service: FaceService, people: Gallery
) -> None:
    response = service.call(name, {**BASE[name], **change})
    assert response.body["Code"] == code
    assert response.status == (200 if code == "Success" else 400)


def test_a_caller_of_some_groups(service: FaceService, people: Gallery, requests: Requests) -> None:
    """No request shows or changes a group that the caller may not use."""
    allowed = frozenset({"g1"})
    ids = {group.name: group.id for group in people.groups()}
    other = people.records("g2")[0]

    def ask(name: str, **params: Any) -> Any:
        return service.call(name, params, groups=allowed)

    page = {"CurrentPage": 1, "PageSize": 10}
    shown = ask("QueryFaceGroup", **page).body
    assert [item["Code"] for item in shown["Items"]] == ["g1"]
    assert shown["TotalCount"] == 1
    assert ask("QueryFaceGroup", GroupCode="g2", **page).body["Items"] == []
    check = requests.build({**BASE["FaceDuplicationCheckIntl"], "VerifyModel": "0"})
    face = requests.build(BASE["AddFaceRecord"])
    registers = {"AutoRegistration": "0", "FaceRegisterGroupCode": "g2", "FaceGroupCodes": "g1"}
    for code in ("g2", "there is none"):
        for response in (
            ask("CreateFaceGroup", GroupCode=code),
            ask("QueryFaceRecord", FaceGroupCode=code, **page),
            ask("DeleteFaceRecordV2", MerchantUserId="u1", FaceGroupCode=code),
            ask("AddFaceRecord", **{**face, "FaceGroupCode": code}),
            ask("FaceDuplicationCheckIntl", **{**check, "FaceGroupCodes": f"g1, {code}"}),
            ask("FaceDuplicationCheckIntl", **{**check, **registers}),
        ):
            assert response.status == 403
            assert response.body["Code"] == "Forbidden.RAMUserAccessDenied"
    for name, number in (
        ("ModifyFaceGroup", ids["g2"]),
        ("DeleteFaceGroup", ids["g2"]),
        ("DeleteFaceRecord", other.id),
    ):
        assert ask(name, Id=str(number), Name="mine").body["Data"] == 0
    assert (
        ask("QueryFaceRecord", FaceGroupCode="g1", FaceId=other.face_id, **page).body["Items"] == []
    )
    result = ask("DeleteFaceRecordV2", MerchantUserId="u1").body["Result"]
    assert result == {"Deleted": "Y", "DeletedGroupCodes": "g1"}
    assert [record.face_id for record in people.records("g2")] == [other.face_id]
    assert people.group("g2").title == "title g2"
    assert ask("ModifyFaceGroup", Id=str(ids["g1"]), Name="mine").body["Data"] == 1
    assert ask("DeleteFaceGroup", Id=str(ids["g1"])).body["Data"] == 1
    assert ask("CreateFaceGroup", GroupCode="g1").status == 200


@pytest.mark.parametrize("name", ["ModifyFaceGroup", "DeleteFaceGroup"])
def test_an_id_never_means_another_group(
    name: str, service: FaceService, people: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the group of the id is deleted and another group with its code is created."""
    real = people.group_by_id

    def replaced(number: int) -> Any:
        found = real(number)
        people.delete_group(found.name)
        people.create_group(found.name, title="another")
        return found

    monkeypatch.setattr(people, "group_by_id", replaced)
    response = service.call(name, {"Id": people.group("g3").id, "Name": "changed"})
    assert response.body.get("Data", 0) == 0
    assert people.group("g3").title == "another"
