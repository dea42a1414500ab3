"""Invariants between the answers of different operations, for any pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from operations.base import BASE, BIZ_ID
from operations.cases import Requests

from facecore import FaceEngine, Gallery, NotCalibrated
from facecore.matching.calibration import Calibration
from facecore.operations import FaceService

MakeService = Callable[..., FaceService]

PICTURES = ("@alice1", "@alice2", "@alice5", "@bob1", "@bob3", "@two_faces", "@blurred_alice")
PAIRS = list(combinations(PICTURES, 2))


@pytest.fixture
def ask(service: FaceService, requests: Requests) -> Callable[..., dict[str, Any]]:
    def call(name: str, **change: Any) -> dict[str, Any]:
        response = service.call(name, requests.build({**BASE[name], **change}))
        assert response.status == 200, response.body
        result: dict[str, Any] = response.body.get("Result") or response.body["Data"]
        return result

    return call


Ask = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_pairs(a: str, b: str, ask: Ask, engine: FaceEngine, requests: Requests) -> None:
    data = requests.symbols.data
    truth = engine.compare(data(a), data(b))
    compared = ask("FaceCompare", SourceFacePicture=a, TargetFacePicture=b)
    swapped = ask("FaceCompare", SourceFacePicture=b, TargetFacePicture=a)
    verified = ask(
        "FaceDuplicationCheckIntl", VerifyModel="1", SourceFacePicture=a, TargetFacePicture=b
    )
    similar = ask(
        "CompareFaces", SourceImageValue=f"base64://{a}", TargetImageValue=f"base64://{b}"
    )
    assert compared["FaceComparisonScore"] == truth.score == similar["SimilarityScore"]
    assert compared["Passed"] == ("Y" if truth.passed else "N")
    assert swapped["FaceComparisonScore"] == pytest.approx(truth.score, abs=1e-4)
    assert swapped["Passed"] == compared["Passed"]
    assert float(verified["FaceComparisonScore"]) == truth.score
    assert (verified["SubCode"] == "200") == truth.passed
    assert json.loads(similar["ConfidenceThresholds"]) == {
        "0.0001": "90.00",
        "0.001": "80.00",
        "0.01": "70.00",
    }


TRIPLES = [
    ("@alice1", "@alice2", "@alice3"),
    ("@alice1", "@alice2", "@bob1"),
    ("@alice1", "@bob1", "@alice2"),
    ("@bob1", "@alice1", "@alice2"),
    ("@alice1", "@bob1", "@bob3"),
]


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("model", ["0", "1", None])
def test_triples(
    triple: tuple[str, str, str],
    model: str | None,
    ask: Ask,
    engine: FaceEngine,
    requests: Requests,
) -> None:
    names = ("SourceAFacePicture", "SourceBFacePicture", "SourceCFacePicture")
    found = ask("FaceCrossCompareIntl", CompareModel=model, **dict(zip(names, triple, strict=True)))
    a, b, c = (engine.sample(requests.symbols.data(symbol)) for symbol in triple)
    pairs = {"A2B": engine.compare(a, b), "B2C": engine.compare(b, c)}
    if model == "1":
        pairs["C2A"] = engine.compare(c, a)
    scores = {name: found.get(f"FaceComparisonScore{name}") for name in ("A2B", "B2C", "C2A")}
    assert set(scores) - {name for name in scores if scores[name] is None} == set(pairs)
    for name, pair in pairs.items():
        # A batch of three faces may round differently from a batch of two.
        assert scores[name] == pytest.approx(min(max(pair.similarity, 0), 1), abs=1e-5)
    assert found["FacePassed"] == ("Y" if all(p.passed for p in pairs.values()) else "N")


def test_a_chain_does_not_look_at_c_and_a(ask: Ask) -> None:
    """A matches B and B matches C, but C does not match A: a chain passes, a loop does not."""
    pictures = {
        "SourceAFacePicture": "@alice1",
        "SourceBFacePicture": "@morph_ab",
        "SourceCFacePicture": "@bob1",
    }
    chain = ask("FaceCrossCompareIntl", **pictures)
    loop = ask("FaceCrossCompareIntl", CompareModel="1", **pictures)
    assert (chain["FacePassed"], loop["FacePassed"]) == ("Y", "N")
    assert "FaceComparisonScoreC2A" not in chain
    assert loop["FaceComparisonScoreC2A"] < loop["FaceComparisonScoreA2B"]


def test_ways_of_giving_a_picture(ask: Ask) -> None:
    """Base64 in any form and an address give the same pixels and the same score."""
    forms: list[dict[str, Any]] = [
        {"SourceFacePicture": "@alice1"},
        {"SourceFacePicture": "@alice1|mime"},
        {"SourceFacePicture": "@alice1|plus_to_space"},
        {"SourceFacePicture": None, "SourceFacePictureUrl": "@url(@alice1)"},
        {"SourceFacePicture": "", "SourceFacePictureUrl": "@url(@alice1)/a.png"},
    ]
    scores = [ask("FaceCompare", **form)["FaceComparisonScore"] for form in forms]
    assert len(set(scores)) == 1


@pytest.mark.parametrize(("a", "b"), [("@alice1", "@alice2"), ("@alice1", "@bob1")])
def test_the_verdict_follows_the_threshold(
    a: str, b: str, make_service: MakeService, engine: FaceEngine, requests: Requests
) -> None:
    score = engine.compare(requests.symbols.data(a), requests.symbols.data(b)).score
    for threshold in (0.0, score, min(score + 1e-9, 100.0), 100.0):
        service = make_service(threshold=threshold)
        passes = score >= threshold
        request = requests.build(
            {**BASE["FaceCompare"], "SourceFacePicture": a, "TargetFacePicture": b}
        )
        result = service.call("FaceCompare", request).body["Result"]
        assert (result["Passed"] == "Y") == passes
        request |= {"VerifyModel": 1, "ProductCode": "FACE_IDU_MIN", "MerchantUserId": "u"}
        result = service.call("FaceDuplicationCheckIntl", request).body["Result"]
        assert result["SubCode"] == ("200" if passes else "204")
        cross = {
            "ProductCode": "FACE_CROSS_COMPARE",
            "MerchantBizId": BIZ_ID,
            "SourceAFacePicture": request["SourceFacePicture"],
            "SourceBFacePicture": request["TargetFacePicture"],
            "SourceCFacePicture": request["TargetFacePicture"],
        }
        result = service.call("FaceCrossCompareIntl", cross).body["Result"]
        assert (result["FacePassed"] == "Y") == passes


@pytest.mark.parametrize(
    ("rate", "others", "settings", "found"),
    [
        # `rate` is the share of strangers as similar as the template. The threshold is 80.
        (0.0005, 0, {}, True),
        (0.002, 0, {}, False),
        (0.002, 0, {"threshold": 70.0}, True),
        (0.0005, 0, {"threshold": 95.0}, False),
        # The higher one of the threshold and the score for search_far decides.
        (0.0005, 0, {"search_far": 0.001}, True),
        (0.0005, 0, {"search_far": 0.0001}, False),
        (0.002, 0, {"search_far": 0.1}, False),
        # 1 % over 100 faces is 0.01 % per face.
        (0.0005, 99, {}, False),
        (0.0005, 9, {}, True),
        (0.0005, 99, {"search_far": 0.1}, True),
        (0.00005, 99, {}, True),
    ],
)
def test_how_strict_a_search_is(
    rate: float,
    others: int,
    settings: dict[str, Any],
    found: bool,
    make_service: MakeService,
    gallery: Gallery,
    engine: FaceEngine,
    requests: Requests,
) -> None:
    probe = engine.embed(requests.symbols.data("@alice1")).astype(np.float64)
    rng = np.random.default_rng(0)
    strangers = rng.normal(size=(others + 1, len(probe)))
    strangers -= np.outer(strangers @ probe, probe)  # orthogonal to the probe
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    similarity = float(engine.calibration.similarity(engine.calibration.threshold(rate)))
    strangers[0] = similarity * probe + np.sqrt(1 - similarity**2) * strangers[0]
    gallery.create_group("g1")
    users = [f"u{number}" for number in range(others + 1)]
    vectors = strangers.astype(np.float32)
    gallery.add_templates("g1", vectors, users, contract=gallery.contract_id)
    request = requests.build({**BASE["FaceDuplicationCheckIntl"], "VerifyModel": "0"})
    response = make_service(**settings).call("FaceDuplicationCheckIntl", request)
    assert response.body["Result"]["SubCode"] == ("233" if found else "200")


def test_what_is_enrolled_is_found_iff_it_matches(
    ask: Ask, gallery: Gallery, engine: FaceEngine, requests: Requests
) -> None:
    data = requests.symbols.data
    gallery.create_group("g1")
    assert ask("AddFaceRecord")["Passed"] == "Y"
    for probe in PICTURES:
        found = ask("FaceDuplicationCheckIntl", VerifyModel="0", SourceFacePicture=probe)
        same = engine.compare(data("@alice1"), data(probe)).passed
        assert found["SubCode"] == ("233" if same else "200")


def test_id_portraits_have_a_table_of_their_own(
    ask: Ask, engine: FaceEngine, requests: Requests
) -> None:
    data = requests.symbols.data
    photo, chip = data("@alice2"), data("@idchip_alice")
    values = ("base64://@alice2", "base64://@idchip_alice")
    truth = engine.compare(photo, chip, id_portrait=True).score
    assert truth != engine.compare(photo, chip).score
    for source, target in (values, values[::-1]):
        types = {
            "SourceImageType": "IDPic" if "chip" in source else "FacePic",
            "TargetImageType": "IDPic" if "chip" in target else "FacePic",
        }
        found = ask("CompareFaces", SourceImageValue=source, TargetImageValue=target, **types)
        assert found["SimilarityScore"] == pytest.approx(truth, abs=1e-4)


def test_a_pack_without_a_table_is_refused_at_once(
    engine: FaceEngine, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "calibration", Calibration.missing("bare"))
    with pytest.raises(NotCalibrated, match="the pack bare has no calibration"):
        FaceService(engine, gallery)
