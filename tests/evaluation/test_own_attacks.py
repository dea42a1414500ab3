"""Evaluate liveness on a user's folder: read pictures, count errors, write a report."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import FaceEngine, InvalidParameter
from facecore.cli import main
from facecore.evaluation.attacks import auc
from facecore.evaluation.own_attacks import evaluate_liveness, read_folder, write_liveness_report

Image = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def folder(tmp_path: Path, hopper: Image, astronaut: Image) -> Path:
    """Two genuine pictures, two species, one picture without a face, and notes."""
    blue = np.clip(cv2.GaussianBlur(hopper, (0, 0), 4) * [1.5, 1.2, 1.0] + 40, 0, 255)
    pictures = {
        "genuine/a.png": hopper,
        "genuine/b.png": astronaut,
        "attack-tablet/a.png": blue.astype(np.uint8),
        "attack-laser print/a.png": hopper[::1],
        "attack-laser print/b.png": np.zeros((64, 64, 3), np.uint8),
        "notes/a.png": hopper,
    }
    for name, picture in pictures.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "genuine" / "b.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_read_by_species(folder: Path) -> None:
    assert [(species, path.name) for species, path in read_folder(folder)] == [
        ("laser print", "a.png"),
        ("laser print", "b.png"),
        ("tablet", "a.png"),
        ("genuine", "a.png"),
        ("genuine", "b.png"),
    ]


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(3)
    attacks, live = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    pairs = [(a > b) + 0.5 * (a == b) for a in attacks for b in live]
    assert auc(attacks, live) == pytest.approx(np.mean(pairs))


def test_errors_and_missing_answers_are_counted(compact: FaceEngine, folder: Path) -> None:
    result = evaluate_liveness(compact, folder)
    assert result.unanswered == {"NoFaceDetected": 1}
    assert result.errors.apnrr["laser print"].count == 1
    assert result.errors.bpcer.total == 2
    scores = {(kind, name): score for kind, name, score in result.scores}
    same = scores["genuine", "genuine/a.png"]
    assert scores["laser print", "attack-laser print/a.png"] == same
    assert math.isnan(scores["laser print", "attack-laser print/b.png"])
    assert result.errors.apcer["laser print"].value == float(same < result.errors.threshold)
    assert any("NoFaceDetected 1" in line for line in result.lines())


def test_a_report_holds_every_score(compact: FaceEngine, folder: Path, tmp_path: Path) -> None:
    written = write_liveness_report(evaluate_liveness(compact, folder), compact, tmp_path / "out")
    facts = json.loads(written.json.read_text())
    assert len(facts["scores"]) == 5
    assert facts["scores"][1] == ["laser print", "attack-laser print/b.png", None]
    assert "laser print" in written.html.read_text()


def test_long_names_of_species_stay_whole_and_apart(
    compact: FaceEngine, folder: Path, tmp_path: Path
) -> None:
    names = ["display of the tablet 10", "display of the tablet 12"]
    for name in names:
        shutil.copytree(folder / "attack-tablet", folder / f"attack-{name}")
    result = evaluate_liveness(compact, folder)
    written = write_liveness_report(result, compact, tmp_path / "out")
    page, lines = written.html.read_text(), result.lines()
    for name in names:
        for row in (f"APCER {name}", f"APNRR {name}"):
            assert f"<th>{row}</th>" in page
            assert sum(line.startswith(f"{row} ") for line in lines) == 1
    assert f"threshold           {result.errors.threshold:g}" in lines


def test_a_species_named_genuine_is_refused(compact: FaceEngine, folder: Path) -> None:
    (folder / "attack-tablet").rename(folder / "attack-genuine")
    with pytest.raises(InvalidParameter, match="attack-genuine"):
        evaluate_liveness(compact, folder)


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status = main(
        ["evaluate", "liveness", str(folder), "--report", str(tmp_path / "r.html"), "--json"]
    )
    assert status == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["areas"]) == {"laser print", "tablet"}
    assert Path(answer["report"]["html"]).is_file()


def test_a_report_is_refused_before_the_work(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("facecore.evaluation.own_attacks.evaluate_liveness", None)
    (tmp_path / "file").touch()
    assert main(["evaluate", "liveness", str(folder), "--report", str(tmp_path / "file/r")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_numbers_are_printed_where_the_report_fails(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise InvalidParameter("No space left on device")

    monkeypatch.setattr("facecore.evaluation.own_attacks.write_whole", full)
    assert main(["evaluate", "liveness", str(folder), "--report", str(tmp_path / "r")]) == 2
    out, err = capsys.readouterr()
    assert "BPCER20" in out
    assert "No space left" in err


def test_a_folder_without_attacks_is_refused(compact: FaceEngine, folder: Path) -> None:
    for name in ("attack-tablet", "attack-laser print"):
        shutil.rmtree(folder / name)
    with pytest.raises(InvalidParameter, match="attack-NAME"):
        evaluate_liveness(compact, folder)


def test_a_pack_without_the_model_says_so(mobilefacenet: FaceEngine, folder: Path) -> None:
    with pytest.raises(InvalidParameter, match="no liveness model"):
        evaluate_liveness(mobilefacenet, folder)
