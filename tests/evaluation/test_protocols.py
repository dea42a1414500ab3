"""Published protocols, end to end on tiny trees that look like the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import FaceEngine
from facecore.errors import InvalidParameter
from facecore.evaluation.protocols import lfw, london
from facecore.evaluation.readers import read_lfw_pairs

Array = np.ndarray[Any, Any]


def test_the_real_pairs(shared: Path) -> None:
    pairs = read_lfw_pairs(shared / "lfw" / "pairs.txt")
    assert len(pairs) == 6000
    for fold in range(10):
        same = [pair[1] for pair in pairs if pair[0] == fold]
        assert same == [True] * 300 + [False] * 300
    assert all((a.split("/")[0] == b.split("/")[0]) == same for _, same, a, b in pairs)
    assert pairs[0] == (
        0,
        True,
        "Abel_Pacheco/Abel_Pacheco_0001.jpg",
        "Abel_Pacheco/Abel_Pacheco_0004.jpg",
    )
    assert len({name for pair in pairs for name in pair[2:]}) == 7701


GOOD = "1\t1\nA\t1\t2\nA\t3\tB\t12\n"


def test_a_small_pairs_file(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(GOOD + "\n")
    assert read_lfw_pairs(tmp_path / "pairs.txt") == [
        (0, True, "A/A_0001.jpg", "A/A_0002.jpg"),
        (0, False, "A/A_0003.jpg", "B/B_0012.jpg"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10\n",
        "one 1\n",
        "1 1\nA 1 2\n",
        GOOD + "A 1 2\n",
        "1 1\nA 1 x\nA 3 B 1\n",
        "1 1\nA\nA 3 B 1\n",
        "1 1\nA 1 2\nA 3 B\n",
        "1 1\nA 1 2\nA 3 B 1 2\n",
        "1 1\nA 1 2\nA 3 4\n",  # a fold without a pair of different people
        "1 1\nA 1 2\n../../up 3 B 1\n",
        "0 0\n",
    ],
)
def test_a_malformed_pairs_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(InvalidParameter, match=r"pairs\.txt"):
        read_lfw_pairs(tmp_path / "pairs.txt")


def test_a_pairs_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InvalidParameter, match=r"pairs\.txt"):
        read_lfw_pairs(tmp_path / "pairs.txt")


def variants(image: Array) -> list[Array]:
    """Four pictures of one person."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 0.9)
    return [
        image,
        np.ascontiguousarray(image[:, ::-1]),
        np.asarray(cv2.convertScaleAbs(image, alpha=0.7, beta=10)),
        np.asarray(cv2.warpAffine(image, turn, (width, height))),
    ]


def write(path: Path, image: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


FACELESS = np.full((250, 250, 3), 127, np.uint8)


@pytest.fixture
def tiny_lfw(tmp_path: Path, astronaut: Array, hopper: Array) -> Path:
    """Two folds of 2 + 2 pairs; H's fourth picture shows nobody."""
    for name, image in (("A", astronaut[:300, 75:375]), ("H", hopper[60:460, 60:460])):
        for i, picture in enumerate(variants(image), start=1):
            small = cv2.resize(picture, (250, 250), interpolation=cv2.INTER_AREA)
            write(tmp_path / "images" / name / f"{name}_{i:04d}.jpg", np.asarray(small))
    write(tmp_path / "images" / "H" / "H_0004.jpg", FACELESS)
    (tmp_path / "pairs.txt").write_text(
        "2 2\nA 1 2\nH 1 2\nA 1 H 1\nA 2 H 3\nA 3 4\nH 3 4\nA 3 H 2\nA 4 H 1\n"
    )
    return tmp_path


def test_lfw_counts_a_skipped_pair_as_wrong(engine: FaceEngine, tiny_lfw: Path) -> None:
    result = lfw(engine, tiny_lfw)
    assert (result.pairs, result.skipped, result.images, result.without_face) == (8, 1, 8, 1)
    assert result.accuracy == pytest.approx((1 + 3 / 4) / 2)
    assert result.deviation == pytest.approx(1 / 8)  # of 1 and 3/4: 0.1768 / sqrt(2)
    assert result.fmr_at_threshold == 0
    assert result.fnmr_at_threshold == pytest.approx(1 / 4)
    assert json.loads(json.dumps(result.as_dict()))["skipped"] == 1


def test_an_impostor_pair_without_a_face_is_no_false_match(
    engine: FaceEngine, tiny_lfw: Path
) -> None:
    (tiny_lfw / "pairs.txt").write_text("2 1\nA 1 2\nA 1 H 4\nH 1 2\nA 1 H 1\n")
    result = lfw(engine, tiny_lfw)
    assert result.skipped == 1
    assert result.fmr_at_threshold == 0


def test_lfw_refuses_what_is_not_there(engine: FaceEngine, tiny_lfw: Path) -> None:
    (tiny_lfw / "images" / "A" / "A_0002.jpg").unlink()
    with pytest.raises(InvalidParameter, match="A_0002"):
        lfw(engine, tiny_lfw)
    with pytest.raises(InvalidParameter, match=r"pairs\.txt"):
        lfw(engine, tiny_lfw / "images")


def test_london(engine: FaceEngine, tmp_path: Path, astronaut: Array, hopper: Array) -> None:
    for number, image in (("001", astronaut), ("002", hopper)):
        for expression, picture in zip(("neutral", "smiling"), variants(image), strict=False):
            write(tmp_path / f"{number}_{expression}.jpg", picture)
    write(tmp_path / "003_neutral.jpg", FACELESS)
    write(tmp_path / "003_smiling.jpg", FACELESS)
    result = london(engine, tmp_path)
    assert (result.genuine, result.genuine_passing, result.without_face) == (3, 2, 2)
    assert (result.impostor, result.impostor_passing) == (6, 0)
    assert result.threshold == engine.threshold
    assert engine.threshold <= result.lowest_genuine < 100
    (tmp_path / "002_smiling.jpg").unlink()
    with pytest.raises(InvalidParameter, match="pairs of NNN_neutral"):
        london(engine, tmp_path)


def test_london_without_any_vector_is_refused(engine: FaceEngine, tmp_path: Path) -> None:
    for name in ("001_neutral", "001_smiling", "002_neutral", "002_smiling"):
        write(tmp_path / f"{name}.jpg", FACELESS)
    with pytest.raises(InvalidParameter, match="none of the 4 images"):
        london(engine, tmp_path)
