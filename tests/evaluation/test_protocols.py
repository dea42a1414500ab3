"""Run published protocols end to end on tiny folders in the layout of the real sets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trees import FACELESS, variants, write

from facecore import FaceEngine
from facecore.errors import InvalidParameter
from facecore.evaluation.protocols import folder, lfw, london, pairs
from facecore.evaluation.readers import (
    read_folder,
    read_labels,
    read_lfw_pairs,
    read_pairs,
    utkface_labels,
)

Array = np.ndarray[Any, Any]


def test_the_real_pairs(lfw_folder: Path) -> None:
    pairs = read_lfw_pairs(lfw_folder / "pairs.txt")
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
        "1 1\nA 1 2\nA 3 4\n",  # a fold without an impostor pair
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


def test_lfw_compares_all_pairs_of_its_pictures(engine: FaceEngine, tiny_lfw: Path) -> None:
    labels = tiny_lfw / "labels.csv"
    labels.write_text(
        "image,group\nA/A_0001.jpg,x\nA/A_0002.jpg,x\nH/H_0001.jpg,x\nH/H_0002.jpg,y\n"
    )
    result = lfw(engine, tiny_lfw, labels=labels)
    assert (result.genuine_pairs, result.impostor_pairs) == (6 + 3, 4 * 3)
    assert [point.score for point in result.points] == [70, 80, 90]
    for point in result.points:
        assert point.fmr is not None
        assert point.fnmr is not None
        assert (point.fmr.count, point.fmr.total, point.fnmr.total) == (0, 12, 9)
        assert engine.calibration.score(point.similarity) == pytest.approx(point.score)
    assert result.points[1].nominal_fmr == pytest.approx(0.001)
    assert int(result.histograms.genuine.sum()) == 9
    (x, y) = result.groups
    assert (x.attribute, x.group, x.images, x.people) == ("group", "x", 3, 2)
    assert x.points[0].fmr is not None
    assert (x.points[0].fmr.total, y.images, y.points) == (2, 1, ())
    assert result.notes == ("labels.csv: 4 of 8 pictures have no group",)
    assert len(result.fold_accuracy) == 2
    text = "\n".join(result.lines())
    assert "9 of one person, 12 of two" in text
    assert "group x: 3 pictures" in text
    assert "histograms" not in json.dumps(result.as_dict())


def test_pairs(engine: FaceEngine, tiny_lfw: Path) -> None:
    file = tiny_lfw / "mine.csv"
    rows = ["A/A_0001.jpg,A/A_0002.jpg,1", "H/H_0001.jpg,H/H_0002.jpg,same", ""]
    rows += ["# strangers", "A/A_0001.jpg,H/H_0003.jpg,0", "A/A_0003.jpg,H/H_0004.jpg,different"]
    rows += ["H/H_0001.jpg,H/H_0004.jpg,genuine"]
    lines = [row.replace("A/", "images/A/").replace("H/", "images/H/") for row in rows]
    file.write_text("\n".join(["a,b,label", *lines]))
    result = pairs(engine, file)
    assert (result.genuine, result.impostor, result.skipped) == (3, 2, 2)
    assert (result.images, result.without_face) == (7, 1)
    point = result.points[1]
    assert point.fmr is not None
    assert point.fnmr is not None
    assert (point.fmr.total, point.fmr.count) == (1, 0)  # a skipped impostor pair is left out
    assert (point.fnmr.total, point.fnmr.count) == (3, 1)  # a skipped genuine pair is rejected
    assert result.tar_at_far[0.01].value == pytest.approx(2 / 3)
    json.dumps(result.as_dict())
    file.write_text("images/A/A_0001.jpg\timages/A/A_0002.jpg\t1\n")
    with pytest.raises(InvalidParameter, match="impostor pairs"):
        pairs(engine, file)
    file.write_text("images/A/A_0001.jpg images/A/none.jpg 1\n")
    with pytest.raises(InvalidParameter, match=r"none\.jpg"):
        pairs(engine, file)


@pytest.mark.parametrize("text", ["", "a,b,label\n", "a,b\n", "a,b,maybe\n", "a,,1\n", "a b c 1\n"])
def test_a_pairs_file_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InvalidParameter, match=r"p\.csv"):
        read_pairs(tmp_path / "p.csv")


def test_files_that_cannot_be_read_as_lines(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a" * 200_000 + ",b,1\n")
    with pytest.raises(InvalidParameter, match=r"p\.csv cannot be read as CSV: field larger"):
        read_pairs(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("image,group\n" + "a" * 200_000 + ",b\n")
    with pytest.raises(InvalidParameter, match=r"p\.csv cannot be read as CSV: field larger"):
        read_labels(tmp_path / "p.csv", ["a"])
    (tmp_path / "p.csv").write_text("a" * 100_000 + ",b,maybe\n")
    (tmp_path / "pairs.txt").write_text("1 1\n" + "a" * 100_000)
    for read, name in ((read_pairs, "p.csv"), (read_lfw_pairs, "pairs.txt")):
        with pytest.raises(InvalidParameter) as caught:
            read(tmp_path / name)
        assert len(str(caught.value)) < 500
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_lfw_pairs(tmp_path)


def test_pairs_with_commas_and_blanks_in_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('"a, b.jpg", c d.jpg ,1\n', encoding="utf-8-sig")
    assert read_pairs(tmp_path / "p.csv") == [(tmp_path / "a, b.jpg", tmp_path / "c d.jpg", True)]


def test_a_folder_of_people(engine: FaceEngine, tiny_lfw: Path) -> None:
    images = tiny_lfw / "images"
    (images / "A" / "A_0004.jpg").rename(images / "alone.jpg")  # counts as another person
    (images / "notes.txt").write_text("no picture")
    result = folder(engine, images)
    assert (result.images, result.without_face, result.people) == (8, 1, 3)
    assert (result.genuine_pairs, result.impostor_pairs) == (3 + 3, 21 - 6)
    point = result.points[1]
    assert point.fmr is not None
    assert point.fmr.count == 3  # the loose picture shows A, so it matches A's pictures
    found = result.identification
    assert found is not None
    assert (found.gallery, found.mated, found.non_mated) == (2, 4, 1)
    assert (found.rank_one.value, found.cmc[0]) == (1, 1)
    assert (found.fnir.count, found.fpir and found.fpir.count) == (0, 1)
    assert "1 pictures lie directly in the folder" in result.notes[0]
    assert "1 pictures without a vector" in result.notes[1]
    json.dumps(result.as_dict())
    with pytest.raises(InvalidParameter, match="utkface"):
        folder(engine, images, names="other")  # type: ignore[arg-type]


def test_what_gave_no_vector_is_counted_by_reason(engine: FaceEngine, tiny_lfw: Path) -> None:
    images = tiny_lfw / "images"
    (images / "A" / "A_0004.jpg").write_bytes(b"no picture")
    (images / "nobody").mkdir()
    write(images / "nobody" / "wall.png", FACELESS)
    result = folder(engine, images)
    assert result.without_vector == {"NoFaceDetected": 2, "UnreadableImage": 1}
    assert (result.without_face, result.as_dict()["without_face"], result.people) == (2, 2, 2)
    wanted = "no vector for       3 of 9 pictures (NoFaceDetected 2, UnreadableImage 1)"
    assert wanted in result.lines()


def test_a_folder_with_utkface_names(
    engine: FaceEngine, tmp_path: Path, astronaut: Array, hopper: Array
) -> None:
    for number, image in enumerate([astronaut, hopper]):
        write(tmp_path / f"3{number}_1_0_2017010920440737{number}.jpg", image)
    result = folder(engine, tmp_path, names="utkface")
    assert (result.genuine_pairs, result.impostor_pairs, result.identification) == (0, 1, None)
    assert [point.fnmr for point in result.points] == [None] * 3
    wanted = [("age", "30-44"), ("gender", "female"), ("race", "White")]
    assert [(group.attribute, group.group) for group in result.groups] == wanted
    assert all(group.points[0].fmr for group in result.groups)
    with pytest.raises(InvalidParameter, match="not a folder"):
        read_folder(tmp_path / "nothing")


def test_hidden_files_are_no_pictures_and_no_people(tmp_path: Path) -> None:
    for name in (".thumbs/1.jpg", "a/._1.jpg", "a/1.jpg", "a/.t/2.jpg", "b.jpg", ".b.jpg", "l.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert read_folder(tmp_path) == [("a/1.jpg", "a"), ("b.jpg", "b.jpg")]
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(InvalidParameter, match="1 pictures"):
        read_folder(tmp_path)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if os.fspath(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_folder(tmp_path)


def test_utkface_names() -> None:
    names = ["x/100_1_2_20170105174739309.jpg.chip.jpg", "39_1_20170116174525125.jpg", "me.jpg"]
    labels, notes = utkface_labels(names)
    assert labels == {
        "age": {names[0]: "60+", names[1]: "30-44"},
        "gender": {names[0]: "female", names[1]: "female"},
        "race": {names[0]: "Asian"},
    }
    assert "2 of 3 pictures have no race" in notes[2]
    with pytest.raises(InvalidParameter, match="AGE_GENDER_RACE"):
        utkface_labels(["me.jpg"])


def test_labels_of_several_kinds(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("image,site,lens\na.jpg,east,\nb.jpg,west,wide\nz.jpg,x,y\n")
    labels, notes = read_labels(tmp_path / "l.csv", ["a.jpg", "b.jpg"])
    assert labels == {"site": {"a.jpg": "east", "b.jpg": "west"}, "lens": {"b.jpg": "wide"}}
    assert len(notes) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.jpg,x\n",
        "image\na.jpg\n",
        "image,group\na.jpg\n",
        "image,group\nz.jpg,x\n",
        "image,g,g\n",
    ],
)
def test_labels_that_fit_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InvalidParameter, match=r"l\.csv"):
        read_labels(tmp_path / "l.csv", ["a.jpg"])
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_labels(tmp_path / "none.csv", ["a.jpg"])
