"""Cues move under their own cause; recaptures of every species are told from genuine pictures."""

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
from skimage.feature import local_binary_pattern

from facecore import Face, FaceEngine, FaceSample, FaceTooSmall, InvalidParameter, NoFaceDetected
from facecore.errors import FacecoreError
from facecore.face import pad_features
from facecore.face.liveness import AttackClassifier, fuse_scores, patches
from facecore.images.picture import Picture
from facecore.models.packs import load_pack
from facecore.models.specs import LIVENESS_CUES, CueModel

TRAINING = Path(__file__).parents[2] / "weights" / "training"
sys.path.insert(0, str(TRAINING))

from recapture import SPECIES, photograph, read_folder, recapture  # noqa: E402

Image = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def scene(hopper: Image) -> tuple[Image, np.ndarray]:
    """A genuine picture and the box of its face."""
    return hopper, np.array([165.0, 90.0, 345.0, 320.0])


def clip(picture: np.ndarray) -> Image:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def grid(picture: Image) -> Image:
    """Light and dark lines, 3.3 pixels apart, aslant."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return clip(picture + 6 * np.cos(2 * np.pi * (x * 0.29 + y * 0.06))[..., None])


def coloured_grid(picture: Image) -> Image:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    wave = 15 * np.cos(2 * np.pi * (x * 0.11 + y * 0.05))
    return clip(picture + np.dstack([wave, 0 * wave, -wave]))


def blurred(picture: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5), np.uint8)


def greyish(picture: Image) -> Image:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None].astype(float)
    return clip(grey + 0.4 * (picture - grey))


def faded(picture: Image) -> Image:
    return clip(90 + 0.5 * picture.astype(float))


def few_tones(picture: Image) -> Image:
    return np.asarray(picture // 8 * 8 + 4, np.uint8)


def grainy(picture: Image) -> Image:
    """Strong stochastic dots, as of an ink-jet printer."""
    noise = np.random.default_rng(1).normal(0, 12, picture.shape[:2])
    return clip(picture + noise[..., None])


def lamp(picture: Image) -> Image:
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    glow = 260 * np.exp(-(((x - 230) / 40) ** 2 + ((y - 150) / 30) ** 2))
    return clip(picture + glow[..., None])


def bezel(picture: Image) -> Image:
    framed = picture.copy()
    cv2.rectangle(framed, (105, 20), (410, 400), (8, 8, 8), 14)
    return framed


# Cue -> its cause, +1 where the cause raises it, and what should hardly move it.
CAUSES: dict[str, tuple[Callable[[Image], Image], int, list[Callable[[Image], Image]]]] = {
    "grid_peaks": (grid, 1, [blurred, greyish, faded, lamp, bezel, few_tones]),
    "chroma_moire": (coloured_grid, 1, [blurred, grid, faded, lamp, bezel]),
    "high_frequency_loss": (blurred, 1, [greyish, bezel, few_tones]),
    "gamut": (greyish, -1, [blurred, grid, few_tones, bezel]),
    "tonal_range": (faded, -1, [blurred, greyish, grid, few_tones, bezel]),
    "banding": (few_tones, 1, [blurred, greyish, grid, lamp, bezel, grainy]),
    "texture": (grainy, 1, [greyish, lamp, bezel, faded]),
    "specular": (lamp, 1, [blurred, greyish, grid, grainy, few_tones]),
    "frame_edges": (bezel, 1, [greyish, faded, lamp, few_tones]),
}


def test_every_cue_has_a_cause_here() -> None:
    assert tuple(CAUSES) == LIVENESS_CUES


@pytest.mark.parametrize("name", LIVENESS_CUES)
def test_a_cue_moves_under_its_cause_and_less_under_others(
    name: str, scene: tuple[Image, np.ndarray]
) -> None:
    picture, box = scene
    cause, sign, others = CAUSES[name]
    before = pad_features.measure(picture, box)[name]
    moved = pad_features.measure(cause(picture), box)[name] - before
    assert moved * sign > 0
    for other in others:
        unrelated = abs(pad_features.measure(other(picture), box)[name] - before)
        assert unrelated < 0.5 * abs(moved), other.__name__


@given(st.data())
def test_binary_patterns_are_those_of_scikit_image(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    part = rng.integers(0, data.draw(st.integers(1, 256)), (96, 96, 3)).astype(np.uint8)
    part = np.asarray(cv2.blur(part, (1, 1 + data.draw(st.integers(0, 6)))), np.uint8)
    middle = cv2.cvtColor(part[24:72, 24:72], cv2.COLOR_BGR2GRAY)
    expected = local_binary_pattern(middle, P=8, R=1, method="uniform") == 9
    assert pad_features.texture(part) == expected.mean()


def test_a_stronger_grid_stands_out_more(scene: tuple[Image, np.ndarray]) -> None:
    picture, box = scene
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    wave = np.cos(2 * np.pi * (x * 0.23 + y * 0.08))[..., None]
    values = [
        pad_features.measure(clip(picture + a * wave), box)["grid_peaks"] for a in (0, 3, 8, 20)
    ]
    assert values == sorted(values)
    assert values[-1] > values[0] + 2


def test_the_power_spectrum_is_that_of_a_plain_fft() -> None:
    plane = np.random.default_rng(0).normal(100, 20, (96, 96)).astype(np.float32)
    hann = np.outer(np.hanning(96), np.hanning(96))
    expected = np.abs(np.fft.fft2((plane - plane.mean()) * hann))[:, :49] ** 2
    assert pad_features.power(plane) == pytest.approx(expected, rel=1e-2, abs=1)


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
    cues = pad_features.measure(pixels, box)
    assert tuple(cues) == LIVENESS_CUES
    assert np.isfinite(list(cues.values())).all()
    assert patches(pixels, box, 112).shape[1:] == (112, 112, 3)


def test_patches_are_the_pictures_own_pixels(hopper: Image) -> None:
    small = patches(hopper, np.array([200.0, 150, 300, 270]), 112)
    assert small.shape == (1, 112, 112, 3)
    assert (small[0] == hopper[154:266, 194:306]).all()
    assert len(patches(hopper, np.array([100.0, 100, 300, 320]), 112)) == 2


def model(**changes: Any) -> CueModel:
    n = len(LIVENESS_CUES)
    plain = CueModel(LIVENESS_CUES, (0.0,) * n, (1.0,) * n, (0.0,) * n, 1.0, 0.0)
    return dataclasses.replace(plain, **changes)


def test_cues_and_network_are_joined_by_the_logistic_function() -> None:
    cues = dict.fromkeys(LIVENESS_CUES, 0.0)
    assert fuse_scores(cues, 0.0, model()) == 50.0
    assert fuse_scores(cues, 2.0, model()) == pytest.approx(100 / (1 + np.exp(-2)))
    weighted = model(weight=(0.5, *(0.0,) * (len(LIVENESS_CUES) - 1)), mean=(1.0,) * 9)
    assert fuse_scores({**cues, "grid_peaks": 3.0}, 0.0, weighted) == pytest.approx(
        100 / (1 + np.exp(-1))
    )
    # No cue is believed beyond four scales, and no logit overflows.
    assert fuse_scores({**cues, "grid_peaks": 1e9}, 0.0, weighted) == pytest.approx(
        100 / (1 + np.exp(-2))
    )
    assert (fuse_scores(cues, 1e6, model()), fuse_scores(cues, -1e6, model())) == (100.0, 0.0)


class Broken:
    def run(self, names: Any, feeds: Any) -> list[np.ndarray]:
        return [np.full((len(next(iter(feeds.values()))), 1), np.nan, np.float32)]


def test_an_answer_that_is_not_finite_is_an_error(hopper: Image) -> None:
    spec = load_pack("compact").pack.liveness
    assert spec is not None
    session: Any = Broken()
    face = Face(np.array([165.0, 90, 345, 320], np.float32), np.zeros((5, 2), np.float32), 0.9)
    with pytest.raises(FacecoreError, match="not finite"):
        AttackClassifier(session, spec).assess(hopper, face)


def test_genuine_pictures_are_no_attacks(
    compact: FaceEngine, astronaut: Image, hopper: Image
) -> None:
    for picture in (astronaut, hopper):
        found = compact.liveness(picture)
        assert not found.is_attack
        assert 0 <= found.attack_score < found.threshold
        assert tuple(found.cues) == (*LIVENESS_CUES, "network")


def portraits(astronaut: Image, hopper: Image) -> list[Image]:
    """Only what is about the face: every pixel costs the simulation time."""
    return [astronaut[:280, 90:370], hopper[20:420, 80:440]]


def is_attack(engine: FaceEngine, genuine: Image, taken: Image) -> bool:
    """Judged where the genuine picture has its face: some recaptures hide it from the detector."""
    sample = engine.sample(genuine)
    return engine.liveness(FaceSample(Picture.of(taken), sample.face, sample.crop)).is_attack


@pytest.mark.parametrize("species", SPECIES)
def test_recaptures_are_attacks(
    species: str, compact: FaceEngine, astronaut: Image, hopper: Image
) -> None:
    caught = [
        is_attack(compact, p, recapture(p, species, seed, held_out=True, steady=True))
        for p in portraits(astronaut, hopper)
        for seed in range(6)
    ]
    assert sum(caught) >= 9


def test_the_camera_alone_makes_no_attack(
    compact: FaceEngine, astronaut: Image, hopper: Image
) -> None:
    called = [
        is_attack(compact, p, photograph(p, seed, held_out=True))
        for p in portraits(astronaut, hopper)
        for seed in range(6)
    ]
    assert sum(called) <= 1


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
    with pytest.raises(FaceTooSmall, match=r"the face is \d+ pixels large") as caught:
        compact.liveness(small)
    assert caught.value.code == "FaceTooSmall"
    assert caught.value.hint


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


def test_own_recaptures_are_read_by_folder(tmp_path: Path, hopper: Image) -> None:
    for name in ("genuine", "attack-laser print", "attack-tablet", "notes"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), hopper[:8, :8])
        (tmp_path / name / "b.txt").write_text("no picture")
    found = [(species, path.name) for species, path in read_folder(tmp_path)]
    assert found == [("laser print", "a.png"), ("tablet", "a.png"), ("genuine", "a.png")]


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
