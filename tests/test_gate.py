"""Refuse unreadable faces on every path, with the reason; impostor pairs in poor pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facecore import FaceEngine, FaceSample, Gallery, demo
from facecore.errors import FacecoreError, InvalidParameter, UnrecognizableFace
from facecore.evaluation.spoiling import ROWS, Spoiling
from facecore.face.quality import assess
from facecore.face.recognizability import allowance
from facecore.operations import FaceService, ServiceConfig

Pixels = NDArray[np.uint8]

SPOILT = {
    "dark": Spoiling(gain=0.12, noise=3.0),
    "blurred": Spoiling(line=0.2),
    "covered": Spoiling(cover="glasses"),
    "small": Spoiling(face_pixels=14.0),
}


@pytest.fixture(scope="module")
def astronaut() -> Pixels:
    return demo.pictures()["astronaut"]


@pytest.fixture(scope="module")
def unreadable(compact: FaceEngine, astronaut: Pixels) -> Pixels:
    """A picture with a face that the detector finds but the embedder cannot read."""
    face = compact.largest_face(astronaut)
    return Spoiling(line=0.2, gain=0.4, noise=6.0).apply(astronaut, face)


@pytest.fixture(scope="module")
def open_engine() -> FaceEngine:
    return FaceEngine("compact", threads=1, min_recognizability=0)


def test_ordinary_pictures_pass(compact: FaceEngine) -> None:
    for name in ("astronaut", "hopper"):
        sample = compact.sample(demo.read(name))
        assert sample.recognizability is None
        compact.embed(sample)
        assert sample.recognizability is not None
        assert sample.recognizability > 50
        assert compact.quality(sample).level != "LOW"


def test_another_thread_that_sees_the_vector_sees_the_score(
    compact: FaceEngine, astronaut: Pixels
) -> None:
    sample = compact.sample(astronaut)

    class Watched(dict[str, NDArray[np.float32]]):
        def __setitem__(self, contract: str, vector: NDArray[np.float32]) -> None:
            assert contract in sample.scores
            super().__setitem__(contract, vector)

    object.__setattr__(sample, "vectors", Watched())
    compact.embed(sample)
    assert list(sample.vectors) == [compact.contract_id]


def test_every_call_of_the_engine_refuses(
    compact: FaceEngine, astronaut: Pixels, unreadable: Pixels
) -> None:
    with pytest.raises(UnrecognizableFace, match=r"probably"):
        compact.embed(unreadable)
    with pytest.raises(UnrecognizableFace, match="image b: the face cannot be recognised"):
        compact.compare(astronaut, unreadable)
    with pytest.raises(UnrecognizableFace, match="image c"):
        compact.cross_compare(astronaut, astronaut, unreadable)
    with pytest.raises(UnrecognizableFace, match="image reference"):
        compact.compare_all(unreadable, astronaut)
    assert compact.compare_all(astronaut, unreadable) == []
    assert compact.samples(unreadable) == []
    many = list(compact.embed_many([astronaut, unreadable, astronaut]))
    assert isinstance(many[1], UnrecognizableFace)
    assert np.allclose(many[0], many[2])


def test_a_gallery_refuses(
    compact: FaceEngine, astronaut: Pixels, unreadable: Pixels, tmp_path: Path
) -> None:
    (tmp_path / "in" / "u1").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "u1" / "poor.png"), unreadable)
    cv2.imwrite(str(tmp_path / "in" / "u1" / "good.png"), astronaut)
    with Gallery(tmp_path / "g", compact) as gallery:
        gallery.create_group("g")
        with pytest.raises(UnrecognizableFace):
            gallery.add("g", unreadable, user_id="u")
        added = list(gallery.add_many("g", [(unreadable, "u"), (astronaut, "v")]))
        assert isinstance(added[0], UnrecognizableFace)
        assert len(gallery) == 1
        for ask in (
            lambda: gallery.search(unreadable),
            lambda: gallery.verify(unreadable, "g", "v"),
        ):
            with pytest.raises(UnrecognizableFace):
                ask()
        assert gallery.identify(unreadable) == []


def test_an_operation_answers_unqualified_photo(
    compact: FaceEngine, astronaut: Pixels, unreadable: Pixels, tmp_path: Path
) -> None:
    import base64

    def coded(pixels: Pixels) -> str:
        return base64.b64encode(cv2.imencode(".jpg", pixels)[1].tobytes()).decode()

    with Gallery(tmp_path / "g", compact) as gallery:
        service = FaceService(compact, gallery, ServiceConfig(any_orientation=True))
        answer = service.call(
            "FaceCompare",
            {
                "MerchantBizId": "b1",
                "SourceFacePicture": coded(astronaut),
                "TargetFacePicture": coded(unreadable),
            },
        )
    assert (answer.status, answer.body["Code"]) == (401, "UnqualifiedPhoto"), answer.body


def test_zero_switches_the_gate_off(open_engine: FaceEngine, unreadable: Pixels) -> None:
    assert open_engine.min_recognizability == 0
    sample = open_engine.sample(unreadable)
    open_engine.embed(sample)
    assert sample.recognizability is not None
    assert len(open_engine.samples(unreadable)) == 1
    assert pickle.loads(pickle.dumps(open_engine)).min_recognizability == 0
    with pytest.raises(InvalidParameter, match="min_recognizability"):
        FaceEngine("compact", min_recognizability=101)


def test_a_stricter_limit_refuses_more(astronaut: Pixels) -> None:
    strict = FaceEngine("compact", threads=1, min_recognizability=100)
    with pytest.raises(UnrecognizableFace, match="limit 100"):
        strict.embed(astronaut)


@pytest.mark.parametrize("word", SPOILT)
def test_the_reason_is_named(compact: FaceEngine, astronaut: Pixels, word: str) -> None:
    face = compact.largest_face(astronaut)
    spoilt = SPOILT[word].apply(astronaut, face)
    if word == "small":
        spoilt = cv2.resize(spoilt, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    strict = FaceEngine("compact", threads=1, min_recognizability=100)
    with pytest.raises(UnrecognizableFace, match=f"probably (too )?{word}") as caught:
        strict.embed(np.asarray(spoilt, np.uint8))
    assert caught.value.hint.startswith("use a ")


def test_quality_is_at_most_the_recognizability(
    open_engine: FaceEngine, unreadable: Pixels
) -> None:
    sample = open_engine.sample(unreadable)
    alone = assess(sample).score
    assert open_engine.quality(sample).score == min(alone, sample.recognizability or 0.0)
    assert open_engine.quality(sample).level != "HIGH"


def strangers(engine: FaceEngine, paths: list[Path], row: str) -> tuple[float, float, int]:
    """Return the share of pairs at score 80, the share of pictures refused, and pairs compared."""
    samples: list[FaceSample] = []
    refused = 0
    for i, path in enumerate(paths):
        pixels = np.asarray(cv2.imread(str(path)), np.uint8)
        face = engine.sample(pixels, face="central").face
        try:
            sample = engine.sample(ROWS[row].apply(pixels, face, seed=i), face="central")
            engine.embed(sample)
            samples.append(sample)
        except FacecoreError:  # no face, or none that can be read
            refused += 1
    vectors = np.stack([sample.vectors[engine.contract_id] for sample in samples] or [np.zeros(2)])
    clear = np.array([sample.recognizability for sample in samples])
    spec = engine.pack.embedder.recognizability
    assert spec is not None
    taken = allowance(np.maximum(clear, clear[:, None]), spec.allowance)
    upper = (vectors @ vectors.T - taken)[np.triu_indices(len(samples), 1)]
    passing = float((upper >= engine.calibration.similarity(80)).mean()) if len(upper) else 0.0
    return passing, refused / len(paths), len(upper)


# Largest share of London's pairs at 80; it has 0.12 % untouched.  All rows: docs/calibration.md.
MOST = {
    "as they are": 0.01, "upside down": 0.01, "on their side": 0.01, "dark sunglasses drawn": 0.02,
    "lower face covered": 0.02, "face of 16 pixels": 0.01, "blurred by motion": 0.02,
}  # fmt: skip


@pytest.mark.parametrize("row", list(ROWS))
def test_strangers_in_poor_pictures(engine: FaceEngine, london_folder: Path, row: str) -> None:
    paths = sorted(london_folder.glob("*_neutral.jpg"))[::4]
    passing, refused, pairs = strangers(engine, paths, row)
    assert passing <= MOST.get(row, 1.0), (row, passing, refused, pairs)
    if row in ("as they are", "upside down", "on their side"):
        assert refused <= 0.05
    elif row not in MOST:
        assert refused >= 0.2, (row, passing, pairs)
