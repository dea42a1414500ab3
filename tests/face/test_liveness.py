"""Cues respond to their causes; recaptures of every species score above genuine pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecore import (
    Face,
    FaceEngine,
    FaceSample,
    FaceTooSmall,
    FaceTurned,
    InvalidParameter,
    NoFaceDetected,
    UnrecognizableFace,
)
from facecore.errors import FacecoreError
from facecore.evaluation.attacks import auc
from facecore.face import pad_features
from facecore.face.liveness import AttackClassifier, _in_words, contributions
from facecore.face.pad_features import CUES
from facecore.images.picture import Picture
from facecore.models.packs import load_pack
from facecore.models.specs import CueModel

TRAINING = Path(__file__).parents[2] / "weights" / "training"
sys.path.insert(0, str(TRAINING))

from recapture import SPECIES, photograph, recapture  # noqa: E402

Image = np.ndarray[Any, np.dtype[np.uint8]]

FRONTAL = np.array([[210, 170], [290, 170], [250, 215], [217, 262], [283, 262]], np.float32)


@pytest.fixture(scope="module")
def scene(hopper: Image) -> tuple[Image, np.ndarray]:
    """A genuine picture and the box of its face."""
    return hopper, np.array([165.0, 90.0, 345.0, 320.0])


def clip(picture: np.ndarray) -> Image:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def bluish(picture: Image) -> Image:
    return clip(picture * np.array([1.25, 1, 1]))


def saturated(picture: Image) -> Image:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None].astype(float)
    return clip(grey + 1.8 * (picture - grey))


def overexposed(picture: Image) -> Image:
    return clip(picture * 2.2)


def veiled(picture: Image) -> Image:
    return clip(60 + 0.75 * picture.astype(float))


def blurred(picture: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 5), np.uint8)


def noisy(picture: Image) -> Image:
    noise = np.random.default_rng(1).normal(0, 12, picture.shape[:2])
    return clip(picture + noise[..., None])


# Cue -> its cause, +1 or -1 if the cause raises or lowers it, and changes that hardly move it.
CAUSES: dict[str, tuple[Callable[[Image], Image], int, list[Callable[[Image], Image]]]] = {
    "white_point": (bluish, 1, [blurred, noisy]),
    "blue_cast": (bluish, 1, [blurred, noisy]),
    "gamut": (saturated, 1, [blurred, noisy]),
    "clipping": (overexposed, 1, [blurred, noisy, veiled]),
    "detail": (blurred, -1, [bluish, saturated]),
    "lightness": (overexposed, 1, [blurred, noisy, saturated]),
    "contrast": (veiled, -1, [bluish, noisy]),
}


def test_every_cue_has_a_cause_here() -> None:
    assert tuple(CAUSES) == tuple(CUES)


def measured(picture: Image, box: np.ndarray) -> dict[str, float]:
    return pad_features.measure(pad_features.region(picture, box))


@pytest.mark.parametrize("name", CUES)
def test_a_cue_moves_under_its_cause_and_less_under_others(
    name: str, scene: tuple[Image, np.ndarray]
) -> None:
    picture, box = scene
    cause, sign, others = CAUSES[name]
    before = measured(picture, box)[name]
    moved = measured(cause(picture), box)[name] - before
    assert moved * sign > 0
    for other in others:
        unrelated = abs(measured(other(picture), box)[name] - before)
        assert unrelated < 0.5 * abs(moved), other.__name__


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.integers(-400, 600), min_size=4, max_size=4),
)
def test_any_box_in_any_picture_has_finite_cues(height: int, width: int, ends: list[int]) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    x1, x2 = sorted(ends[:2])
    y1, y2 = sorted(ends[2:])
    box = np.array([x1, y1, x2 + 1, y2 + 1], np.float32)
    found = pad_features.region(pixels, box)
    assert max(found.pixels.shape[:2]) <= pad_features.REGION
    cues = pad_features.measure(found)
    assert tuple(cues) == tuple(CUES)
    assert np.isfinite(list(cues.values())).all()
    assert pad_features.views(pixels, box, found).shape == (112, 192, 3)


def test_a_large_picture_is_reduced_with_its_box(hopper: Image) -> None:
    box = np.array([165.0, 90.0, 345.0, 320.0])
    large = np.asarray(cv2.resize(hopper, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    one, other = pad_features.region(hopper, box), pad_features.region(large, 4 * box)
    assert other.box == pytest.approx(one.box, abs=2)
    here, there = pad_features._view(one), pad_features._view(other)
    assert np.abs(here.astype(float) - there).mean() < 10


def test_the_patch_holds_the_pictures_own_pixels(hopper: Image) -> None:
    box = np.array([200.0, 150, 300, 270])
    both = pad_features.views(hopper, box, pad_features.region(hopper, box))
    assert (both[:, :112] == hopper[154:266, 194:306]).all()


def test_the_view_of_a_tight_crop_is_the_crop(hopper: Image) -> None:
    crop = np.ascontiguousarray(hopper[90:320, 165:345])
    box = np.array([0.0, 0, 180, 230])
    both = pad_features.views(crop, box, pad_features.region(crop, box))
    whole = np.asarray(cv2.resize(crop, (80, 80)), np.uint8)
    assert np.abs(both[:80, 112:].astype(float) - whole).mean() < 3
    assert not both[80:, 112:].any()
    assert not both[:, :112].any()  # a crop may be resized, so its patch stays blank


def model(**changes: Any) -> CueModel:
    plain = CueModel(("gamut", "clipping"), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0), 1.0, 0.0)
    return dataclasses.replace(plain, **changes)


def test_cues_and_network_add_log_odds() -> None:
    cues = {"gamut": 3.0, "clipping": 1e9, "blue_cast": 5.0, "network": 2.0}
    plain = model(weight=(0.5, -1.0), mean=(1.0, 0.0), network=0.75)
    added = contributions(cues, plain, np.zeros(2))
    # Cues are clipped at four scales. blue_cast is measured, but this model does not use it.
    assert added == {"network": 1.5, "gamut": 1.0, "clipping": -4.0}
    given = contributions(cues, plain, np.array([1.0, 0.5]))  # the network adds these weights
    assert given == {"network": 1.5, "gamut": 3.0, "clipping": -2.0}


def test_the_score_is_the_logistic_function_of_their_sum(
    compact: FaceEngine, hopper: Image
) -> None:
    spec = compact.pack.liveness
    assert spec is not None
    sample = compact.sample(hopper)
    found = compact.liveness(sample)
    classifier = compact._optional("liveness", "")
    cues, added = classifier.evidence(sample.pixels, sample.face.box)
    assert cues == found.cues
    z = spec.cues.bias + sum(added.values())
    assert found.attack_score == pytest.approx(100 / (1 + np.exp(-z)))


def test_reasons_are_in_words_and_the_strongest_first() -> None:
    cues = {"gamut": 5.0, "clipping": -3.0, "network": 1.0}
    plain = model(weight=(0.2, -1.0))
    found = _in_words(contributions(cues, plain, np.zeros(2)), cues, plain)
    assert found == (CUES["clipping"].low, "the network detects a recapture", CUES["gamut"].high)
    cues = {"gamut": 0.0, "clipping": 0.0, "network": -5.0}
    assert _in_words(contributions(cues, model(), np.zeros(2)), cues, model()) == ()


class Broken:
    def run(self, names: Any, feeds: Any) -> list[np.ndarray]:
        return [np.full((len(next(iter(feeds.values()))), 1), np.nan, np.float32)]


def test_an_answer_that_is_not_finite_is_an_error(hopper: Image) -> None:
    spec = load_pack("compact").pack.liveness
    assert spec is not None
    session: Any = Broken()
    face = Face(np.array([165.0, 90, 345, 320], np.float32), FRONTAL, 0.9)
    with pytest.raises(FacecoreError, match="not finite"):
        AttackClassifier(session, spec).assess(hopper, face)


def test_genuine_pictures_are_no_attacks(
    compact: FaceEngine, astronaut: Image, hopper: Image
) -> None:
    for picture in (astronaut, hopper):
        found = compact.liveness(picture)
        assert not found.is_attack
        assert 0 <= found.attack_score < found.threshold
        assert tuple(found.cues) == (*CUES, "network")


def portraits(astronaut: Image, hopper: Image) -> list[Image]:
    """Crop the pictures around the face, because every pixel costs the simulation time."""
    return [astronaut[:280, 90:370], hopper[20:420, 80:440]]


def score(engine: FaceEngine, genuine: Image, taken: Image) -> float:
    """Score `taken` at the face of `genuine`; some recaptures hide the face from the detector."""
    sample = engine.sample(genuine)
    return engine.liveness(FaceSample(Picture.of(taken), sample.face, sample.crop)).attack_score


@pytest.mark.parametrize("species", SPECIES)
def test_recaptures_have_higher_scores_than_the_same_camera_alone(
    species: str, compact: FaceEngine, astronaut: Image, hopper: Image
) -> None:
    pictures = [(p, seed) for p in portraits(astronaut, hopper) for seed in range(6)]
    taken = [
        score(compact, p, recapture(p, species, seed, held_out=True, steady=True))
        for p, seed in pictures
    ]
    alone = [
        score(compact, p, photograph(p, seed, held_out=True, steady=True)) for p, seed in pictures
    ]
    assert auc(taken, alone) > 0.7
    assert np.median(taken) > np.median(alone)


def test_the_same_picture_has_the_same_score(compact: FaceEngine, hopper: Image) -> None:
    first, again = compact.liveness(hopper), compact.liveness(compact.sample(hopper))
    assert first == again


def test_the_simulation_is_a_function_of_its_seed(hopper: Image) -> None:
    part = hopper[90:320, 150:360]
    for species in SPECIES:
        first, again = (recapture(part, species, 3, held_out=False) for _ in range(2))
        assert (first == again).all()
        assert (first != recapture(part, species, 3, held_out=True)).any()
        assert (first != recapture(part, species, 4, held_out=False)).any()


def test_large_and_small_faces(compact: FaceEngine, hopper: Image) -> None:
    large = np.asarray(cv2.resize(hopper, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    assert np.isfinite(compact.liveness(large).attack_score)
    small = np.asarray(cv2.resize(hopper, None, fx=0.16, fy=0.16, interpolation=cv2.INTER_AREA))
    assert compact.largest_face(small).size < 48
    with pytest.raises(FaceTooSmall, match=r"the face measures \d+ pixels") as caught:
        compact.liveness(small)
    assert caught.value.code == "FaceTooSmall"
    assert caught.value.hint


def test_a_turned_head_is_told(compact: FaceEngine, hopper: Image) -> None:
    turned = FRONTAL.copy()
    turned[:, 0] = [285, 292, 330, 290, 296]  # the eyes one behind the other, the nose beside them
    sample = compact.sample(hopper)
    face = dataclasses.replace(sample.face, landmarks=turned)
    with pytest.raises(FaceTurned, match=r"turned by \d+ degrees") as caught:
        compact.liveness(FaceSample(sample.picture, face, sample.crop))
    assert caught.value.hint


def test_a_tilted_head_is_told(compact: FaceEngine, hopper: Image) -> None:
    lying = np.ascontiguousarray(np.rot90(hopper))
    assert abs(compact.largest_face(lying).roll) > 45
    with pytest.raises(FaceTurned, match=r"tilted by \d+ degrees"):
        compact.liveness(lying)


def test_an_embedded_face_passes_the_gate_first(compact: FaceEngine, hopper: Image) -> None:
    picky = FaceEngine("compact", min_recognizability=100)
    sample = picky.sample(hopper)
    assert picky.liveness(sample) == compact.liveness(hopper)  # not embedded: the gate does not run
    with pytest.raises(UnrecognizableFace):
        picky.embed(sample)
    with pytest.raises(UnrecognizableFace):
        picky.liveness(sample)


def test_an_older_model_is_refused(compact: FaceEngine) -> None:
    spec = compact.pack.liveness
    assert spec is not None
    session: Any = Broken()
    tensor = dataclasses.replace(spec.input, height=112, width=112)
    old = dataclasses.replace(spec, architecture="native-patches-112", input=tensor)
    with pytest.raises(InvalidParameter, match="does not run liveness models"):
        AttackClassifier(session, old)


def test_arguments_are_checked(compact: FaceEngine, hopper: Image) -> None:
    assert compact.liveness(hopper, threshold=0).is_attack
    for threshold in (-1, 101, float("nan"), True):
        with pytest.raises(InvalidParameter, match="threshold"):
            compact.liveness(hopper, threshold=threshold)
    with pytest.raises(NoFaceDetected):
        compact.liveness(np.zeros((200, 200, 3), np.uint8))


def test_a_pack_without_the_model_says_so(mobilefacenet: FaceEngine, hopper: Image) -> None:
    with pytest.raises(InvalidParameter, match="has no liveness model") as caught:
        mobilefacenet.liveness(hopper)
    assert "compact" in caught.value.hint


def called_attacks(engine: FaceEngine, paths: list[Path], face: Any) -> float:
    found = [engine.liveness(path, face=face).is_attack for path in paths]
    return sum(found) / len(found)


def test_genuine_pictures_of_other_cameras(
    compact: FaceEngine, lfw_folder: Path, london_folder: Path
) -> None:
    from data import tested_pictures

    names = sorted(tested_pictures(lfw_folder.parent))[::20]
    paths = [lfw_folder / "images" / name for name in names]
    assert called_attacks(compact, paths, "central") <= 0.05
    london = sorted(london_folder.glob("*.jpg"))[::2]
    assert called_attacks(compact, london, "largest") <= 0.05
