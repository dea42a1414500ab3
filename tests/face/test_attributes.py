"""Age and gender from the network's answer; None if the picture is too poor."""

from __future__ import annotations

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import Attributes, FaceEngine
from facecore.errors import FacecoreError, InvalidParameter
from facecore.face.attributes import AttributeEstimator
from facecore.models.manifest import AttributesSpec
from facecore.models.packs import load_pack

Array = NDArray[np.uint8]
CROPS = np.zeros((2, 112, 112, 3), np.uint8)


def spec() -> AttributesSpec:
    found = load_pack("compact").pack.attributes
    assert found is not None
    return found


class Fake:
    """A session that answers with fixed probabilities."""

    def __init__(self, shares: Any, female: Any) -> None:
        self.answer = [np.asarray(shares, np.float32), np.asarray(female, np.float32)]

    def run(self, names: Any, feeds: Any) -> Any:
        return self.answer


def estimator(shares: Any, female: Any) -> AttributeEstimator:
    fake: Any = Fake(shares, female)
    return AttributeEstimator(fake, spec())


def test_the_age_is_the_mean_of_the_distribution() -> None:
    shares = np.zeros((2, 101))
    shares[0, 30] = 1
    shares[1, [20, 40]] = 0.5
    one, two = estimator(shares, [0.9, 0.2]).estimate(CROPS)
    assert one == Attributes(30.0, 0.0, "F", pytest.approx(0.9))
    assert two.age == pytest.approx(30)
    assert two.age_spread == pytest.approx(10)
    assert (two.gender, two.gender_confidence) == ("M", pytest.approx(0.8))


@pytest.mark.parametrize(("share", "female"), [(np.nan, 0.5), (0.1, np.nan), (0.1, 1.5)])
def test_an_answer_that_is_no_probability_is_refused(share: float, female: float) -> None:
    with pytest.raises(FacecoreError, match="not a probability"):
        estimator(np.full((2, 101), share), [0.5, female]).estimate(CROPS)


def test_no_crops_no_answers() -> None:
    assert estimator([], []).estimate(CROPS[:0]) == []


def test_two_adults(compact: FaceEngine, astronaut: Array, hopper: Array) -> None:
    woman, admiral = compact.attributes(astronaut), compact.attributes(hopper)
    assert woman is not None
    assert admiral is not None
    assert woman.gender == "F"
    assert 20 < woman.age < 55  # 43 in the picture
    assert woman.age < admiral.age < 90  # 77 in the picture
    assert 0.5 <= woman.gender_confidence <= 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        woman.age = 18.0  # type: ignore[misc]


def test_too_poor_a_picture_has_no_age(compact: FaceEngine, hopper: Array) -> None:
    blurred = np.asarray(cv2.GaussianBlur(hopper, (0, 0), 14), np.uint8)
    assert compact.quality(blurred).level == "LOW"
    assert compact.attributes(blurred) is None


def test_a_pack_without_the_network_says_so(mobilefacenet: FaceEngine, hopper: Array) -> None:
    assert mobilefacenet.pack.attributes is None
    with pytest.raises(InvalidParameter, match="no network for age and gender"):
        mobilefacenet.attributes(hopper)


def test_threads_share_one_network(hopper: Array) -> None:
    engine = FaceEngine(threads=1)
    sample = engine.sample(hopper)
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: engine.attributes(sample), range(16)))
    assert len(answers) == 1


def test_it_is_no_part_of_the_contract() -> None:
    pack = load_pack("compact").pack
    without = dataclasses.replace(pack.manifest, attributes=None)
    assert dataclasses.replace(pack, manifest=without).contract_id == pack.contract_id
    assert re.fullmatch("c1-[0-9a-f]{16}", pack.contract_id)
