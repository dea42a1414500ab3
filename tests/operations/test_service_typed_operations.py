"""The methods with Python types: the same checks, codes and answers as `call`."""

from __future__ import annotations

import base64
import io
import os
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operations.base import BASE
from operations.cases import Requests

from facecore import FaceEngine, Gallery
from facecore.operations import FaceService, OperationError
from tests.images import hostile

MakeService = Callable[..., FaceService]


@pytest.fixture
def alice(requests: Requests, tmp_path: Path) -> list[Any]:
    """Return one picture in every form that a method accepts."""
    data = requests.symbols.data("@alice1")
    path = tmp_path / "alice.jpg"
    path.write_bytes(data)
    url = requests.server.url(data, "/alice.jpg")
    return [data, bytearray(data), memoryview(data), path, str(path), io.BytesIO(data), url]


def test_face_compare(service: FaceService, alice: list[Any], requests: Requests) -> None:
    wire = service.call("FaceCompare", requests.build(BASE["FaceCompare"])).body["Result"]
    other = requests.symbols.data("@alice2")
    for picture in alice:
        found = service.face_compare(picture, other)
        assert found.passed is True
        assert found.score == wire["FaceComparisonScore"]
        assert found.quality is None
        assert len(found.transaction_id) == 32
    found = service.face_compare(source=other, target=alice[0], quality=True)
    assert found.quality is not None
    assert found.quality["TargetFaceQualityScore"] > 0
    assert not service.face_compare(other, requests.symbols.data("@bob1")).passed


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
def test_pictures_as_text(
    service: FaceService, requests: Requests, alphabet: Callable[[bytes], bytes]
) -> None:
    data = requests.symbols.data("@alice1")
    text = alphabet(data).decode()
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    escaped = urllib.parse.quote(text)
    for given in (
        text, lines, text.rstrip("="), f"data:image/jpeg;base64,{text}", f"DATA:;base64,{escaped}",
    ):  # fmt: skip
        assert service.face_compare(given, data).passed
    for wrong in (f"data:image/jpeg;base64,{text}*", "data:image/jpeg,plain", "/9j/no-such-file"):
        with pytest.raises(OperationError) as raised:
            service.face_compare(wrong, data)
        assert raised.value.code == "InvalidParameter"


def test_the_wire_format_names_what_it_does_not_take(
    service: FaceService, requests: Requests
) -> None:
    data = requests.symbols.data("@alice1")
    standard = base64.b64encode(data).decode()
    safe = base64.urlsafe_b64encode(data).decode()
    for given, named in ((f"data:image/jpeg;base64,{standard}", "a data URI"),
                         (safe, "URL-safe base64")):  # fmt: skip
        request = requests.build(BASE["FaceCompare"]) | {"SourceFacePicture": given}
        request.pop("SourceFacePictureUrl", None)
        answer = service.call("FaceCompare", request)
        assert answer.status == 400
        assert named in answer.body["Message"]


def test_a_picture_of_a_request_has_a_budget_of_memory(
    service: FaceService, requests: Requests
) -> None:
    side, packer = 4200, zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 8 * side)) for _ in range(side)) + packer.flush()
    wide = hostile.png(hostile.header(side, side, 16, 6), hostile.chunk(b"IDAT", rows))
    with pytest.raises(OperationError) as raised:
        service.compare_faces(wide, requests.symbols.data("@alice1"))
    assert "MiB" in raised.value.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_refused_at_once(
    service: FaceService, requests: Requests, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OperationError) as raised:
        service.face_compare(tmp_path / "pipe.jpg", requests.symbols.data("@alice1"))
    assert raised.value.code == "InvalidParameter"


def test_cross_compare(service: FaceService, requests: Requests) -> None:
    a, b, c = (requests.symbols.data(f"@{name}") for name in ("alice1", "alice2", "bob1"))
    chain = service.cross_compare(b, a, b)
    assert chain.passed
    assert chain.score_ca is None
    loop = service.cross_compare(a, b, c, "loop")
    assert not loop.passed
    assert loop.score_ca is not None
    assert 0 <= loop.score_ca < loop.score_ab <= 1
    with pytest.raises(OperationError) as raised:
        service.cross_compare(a, b, c, "ring")  # type: ignore[arg-type]
    assert raised.value.code == "InvalidParameter"


def test_duplication_check(service: FaceService, gallery: Gallery, requests: Requests) -> None:
    alice, same, bob = (requests.symbols.data(f"@{name}") for name in ("alice1", "alice2", "bob1"))
    gallery.create_group("g1")
    gallery.create_group("g2")
    first = service.duplication_check(alice, "u1", mode="search", groups="g1")
    assert (first.passed, first.sub_code, first.registered) == (True, "200", None)
    assert len(gallery) == 0  # registration was not requested
    there = {"auto_register": True, "register_group": "g1"}
    first = service.duplication_check(alice, "u1", mode="search", groups=["g1"], **there)
    assert (first.registered, first.score, first.duplicates) == (True, None, ())
    assert gallery.record(first.face_id).user_id == "u1"
    again = service.duplication_check(
        same, "u2", mode="comprehensive", target=alice, groups=["g1", "g2"], limit=5, **there
    )
    assert (again.passed, again.sub_code, again.registered) == (False, "233", None)
    assert [match.face_id for match in again.duplicates] == [first.face_id]
    assert again.score is not None
    assert again.score >= 80
    gallery.create_group("north, gate")  # the wire format cannot name it
    for codes in ("north, gate", ["north, gate", "g2"]):
        assert service.duplication_check(alice, "u1", mode="search", groups=codes).passed
    at_gate = service.add_face_record("north, gate", alice, "u9")
    (match,) = service.duplication_check(
        same, "u2", mode="search", groups=("north, gate",)
    ).duplicates
    assert (match.group, match.face_id) == ("north, gate", at_gate.face_id)
    gallery.delete_group("north, gate")
    verified = service.duplication_check(alice, "u1", target=bob)  # the default mode
    assert (verified.sub_code, verified.is_attack, verified.attack_score) == ("204", None, None)
    user_there = service.duplication_check(bob, "u1", mode="search", groups="g1", **there)
    assert (user_there.passed, user_there.registered, user_there.face_id) == (True, False, "")
    update = service.duplication_check(
        bob, "u1", mode="search", groups="g1", update_existing=True, **there
    )
    assert update.registered is True
    assert [record.face_id for record in gallery.records("g1")] == [update.face_id]
    for wrong in (
        {"groups": []},
        {"groups": ["nope"]},
        {"groups": [1]},
        {"groups": "g1", "limit": 6},
        {"groups": "g1", "mode": "both"},
        {"groups": "g1", "auto_register": True},
    ):
        with pytest.raises(OperationError) as raised:
            service.duplication_check(alice, "u1", **{"mode": "search", **wrong})  # type: ignore[arg-type]
        assert raised.value.status == 400


def test_liveness_is_asked_for(
    service: FaceService, engine: FaceEngine, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facecore.face.liveness import Liveness

    monkeypatch.setattr(engine, "liveness", lambda *_, **__: Liveness(77.0, 50.0, {}))
    picture = requests.symbols.data("@alice1")
    found = service.duplication_check(picture, "u1", target=picture, liveness=True)
    assert (found.passed, found.is_attack, found.attack_score) == (False, True, 77.0)


def test_add_face_record(service: FaceService, gallery: Gallery, alice: list[Any]) -> None:
    gallery.create_group("g1")
    names = []
    for picture in alice:
        found = service.add_face_record("g1", picture)
        names += [record.user_id for record in gallery.records("g1", face_id=found.face_id or None)]
        assert found.face_quality in ("HIGH", "MEDIUM", "LOW")
        for record in gallery.records("g1"):
            gallery.remove("g1", face_id=record.face_id)
    assert [name == "alice" for name in names] == [False, False, False, True, True, False, True]
    assert service.add_face_record("g1", alice[0], "u1").passed
    again = service.add_face_record("g1", alice[0], "u1")
    assert (again.passed, again.face_id) == (False, "")


def test_compare_faces(service: FaceService, requests: Requests, alice: list[Any]) -> None:
    same = requests.symbols.data("@alice2")
    scores = set()
    for picture in alice:
        found = service.compare_faces(picture, same)
        assert found.thresholds == {0.01: 70.0, 0.001: 80.0, 0.0001: 90.0}
        scores.add(found.similarity_score)
    assert len(scores) == 1
    chip = requests.symbols.data("@idchip_alice")
    portrait = service.compare_faces(same, chip, target_type="IDPic")
    assert portrait.similarity_score >= 70
    with pytest.raises(OperationError) as raised:
        service.compare_faces(chip, chip, source_type="IDPic", target_type="IDPic")
    assert raised.value.code == "InvalidParam.FacePicNotGiven"
    with pytest.raises(OperationError) as raised:
        service.compare_faces(b"no picture", chip)
    assert raised.value.code == "InvalidParam.ImageValuePatternError"


def test_the_documents_limits_hold(service: FaceService, requests: Requests) -> None:
    data = requests.symbols.data
    good = data("@alice1")
    assert service.face_compare(data("@alice1;bytes=1048576"), good).passed
    for symbol, code in (
        ("@alice1;bytes=1048577", "ToolargeImage"),
        ("@lowres", "UnqualifiedPhoto"),
        ("@not_an_image", "UnqualifiedPhoto"),
        ("@noface", "NoFaceDetected"),
    ):
        with pytest.raises(OperationError) as raised:
            service.face_compare(good, data(symbol))
        assert (raised.value.code, raised.value.status) == (code, 401)
    for wrong in ("no/such/file.jpg", "/", io.StringIO("text"), 3, "a\0b"):
        with pytest.raises(OperationError) as raised:
            service.face_compare(good, wrong)  # type: ignore[arg-type]
        assert raised.value.code == "InvalidParameter"
    with pytest.raises(OperationError) as raised:
        service.face_compare(good, None)  # type: ignore[arg-type]
    assert raised.value.code == "MissingParameter"


def test_what_fails_is_an_operation_error(
    make_service: MakeService, requests: Requests, caplog: pytest.LogCaptureFixture
) -> None:
    def gate(name: str) -> None:
        raise KeyError(name)

    picture = requests.symbols.data("@alice1")
    with pytest.raises(OperationError) as raised:
        make_service(gate=gate).face_compare(picture, picture)
    assert (raised.value.code, raised.value.status) == ("InternalError", 500)
    assert isinstance(raised.value.__cause__, KeyError)
    assert "KeyError" in caplog.text
