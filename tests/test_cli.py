"""The command: its output streams and its exit status."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facecore import Comparison, Face, FaceEngine, cli, images
from facecore.cli import compare
from facecore.face.measures import MEASURES
from facecore.matching.calibration import SCORE_AT, Calibration
from facecore.models.pull import PullResult
from facecore.models.registry import shipped_root
from facecore.models.specs import Knot

PACK = shipped_root() / "compact"


@pytest.fixture
def face(tmp_path: Path, astronaut: np.ndarray) -> str:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), astronaut)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_compare_same_person(capsys: pytest.CaptureFixture[str], face: str) -> None:
    status, out, err = run(capsys, "compare", face, face)
    assert status == 0
    assert out.startswith("same person: score ")
    assert err == ""


def test_compare_others(capsys: pytest.CaptureFixture[str], face: str, hopper_path: Path) -> None:
    status, out, _ = run(capsys, "compare", face, str(hopper_path))
    assert status == 1
    assert out.startswith("NOT the same person")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full device is Linux's")
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_printed_keeps_its_status(closed: str, tmp_path: Path) -> None:
    for arguments, status in (
        ("compare a.jpg b.jpg --json", 2),
        ("compare", 2),
        ("group create staff --gallery door", 0),
        ("group list --gallery door", 0),
    ):
        command = f"{sys.executable} -m facecore.cli {arguments} {closed}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, stdout=subprocess.PIPE)
        assert (done.returncode, bool(done.stdout)) == (status, status == 0), command


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a working directory")
def test_a_working_directory_that_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, _, err = run(capsys, "group", "list", "--gallery", "door")
    assert status == 2
    assert "the working directory was deleted" in err


@pytest.mark.parametrize(
    ("similarity", "strangers"),
    [(-0.9, "at least 1 in 2 pairs"), (0.2, "about 1 in 100 pairs"), (0.99, "fewer than 1 in ")],
)
def test_how_often_strangers_score_as_high(similarity: float, strangers: str) -> None:
    cosines = dict(zip(SCORE_AT, (0.0, 0.1, 0.2, 0.3, 0.4), strict=True))
    table = Calibration(tuple(Knot(SCORE_AT[f], f, c, 0.0, 1.0) for f, c in cosines.items()))
    face = Face(np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 0.9)
    score = float(table.score(similarity))
    result = Comparison(score, similarity, score >= 80, 80.0, table.far_thresholds, (face, face))
    assert strangers in compare._verdict(result, table)
    assert "allowance" not in compare._verdict(result, table)
    poor = replace(result, allowance=0.15)
    assert f"{similarity:.3f} less an allowance of 0.150)" in compare._verdict(poor, table)
    assert compare._comparison(poor)["allowance"] == 0.15


@pytest.mark.parametrize("terminal", [True, False])
def test_pull_shows_a_bar_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    asked = []

    def pull(name: str, *, progress: bool = True) -> PullResult:
        asked.append(progress)
        return PullResult(name, PACK, 0)

    monkeypatch.setattr("facecore.models.pull.pull", pull)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert run(capsys, "weights", "pull", "compact")[0] == 0
    assert asked == [terminal]


def test_json_is_one_object(
    capsys: pytest.CaptureFixture[str], face: str, hopper_path: Path
) -> None:
    status, out, err = run(capsys, "compare", face, str(hopper_path), "--json")
    answer = json.loads(out)
    assert (status, err) == (1, "")
    assert answer["passed"] is False
    assert answer["far_thresholds"] == {"0.01": 70.0, "0.001": 80.0, "0.0001": 90.0}
    assert [len(found["landmarks"]) for found in answer["faces"]] == [5, 5]
    assert 0 <= answer["score"] < answer["threshold"] == 80
    assert answer["allowance"] == 0  # both faces are easy to read


def test_threshold_decides(
    capsys: pytest.CaptureFixture[str], face: str, hopper_path: Path
) -> None:
    assert run(capsys, "compare", face, str(hopper_path), "--threshold", "0")[0] == 0
    status, _, err = run(capsys, "compare", face, face, "--threshold", "101")
    assert status == 2
    assert err.startswith("facecore: InvalidParameter:")


@pytest.mark.parametrize(("mode", "ca"), [("chain", False), ("loop", True)])
def test_cross_compare(
    capsys: pytest.CaptureFixture[str], face: str, hopper_path: Path, mode: str, ca: bool
) -> None:
    status, out, _ = run(
        capsys, "cross-compare", face, face, str(hopper_path), "--mode", mode, "--json"
    )
    answer = json.loads(out)
    assert status == 1
    assert answer["ab"]["passed"]
    assert not answer["bc"]["passed"]
    assert (answer["ca"] is not None) == ca


def test_detect_draws(capsys: pytest.CaptureFixture[str], face: str, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    status, out, _ = run(capsys, "detect", face, "--draw", str(drawn), "--json")
    assert status == 0
    assert json.loads(out)["width"] == 512
    before, after = images.load(face), images.load(drawn)
    changed = np.flatnonzero((before != after).any(axis=(1, 2)))
    top, bottom = json.loads(out)["faces"][0]["box"][1::2]
    assert changed[0] < top + 5
    assert bottom - 5 < changed[-1] < bottom + 5


def test_detect_without_a_face(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((200, 300, 3), 128, np.uint8))
    assert run(capsys, "detect", str(path))[:2] == (0, "0 faces\n")
    status, out, err = run(capsys, "compare", str(path), str(path))
    assert (status, out) == (2, "")
    assert err.startswith("facecore: NoFaceDetected: image a: no face was found")


@pytest.mark.parametrize("name", ["drawn", "drawn.nothing", "missing/drawn.png"])
def test_drawing_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], face: str, tmp_path: Path, name: str
) -> None:
    status, _, err = run(capsys, "detect", face, "--draw", str(tmp_path / name))
    assert status == 2
    assert err.startswith("facecore: InvalidParameter:")
    assert [path.name for path in tmp_path.iterdir()] == ["face.png"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "UnreadableImage"), (b"", "UnreadableImage"), (b"not an image", "UnreadableImage")],
)
def test_bad_pictures(
    capsys: pytest.CaptureFixture[str],
    face: str,
    tmp_path: Path,
    content: bytes | None,
    code: str,
) -> None:
    bad = tmp_path / "bad.jpg"
    if content is not None:
        bad.write_bytes(content)
    status, out, err = run(capsys, "compare", face, str(bad), "--json")
    assert (status, out) == (2, "")
    assert err.startswith(f"facecore: {code}: image b:")
    assert err.count("\n") == 1


def test_a_model_that_fails(
    capsys: pytest.CaptureFixture[str], face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise RuntimeError("CUDA failure 2: out of memory")

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    monkeypatch.setattr("facecore.pipeline.open_model", lambda *_, **__: Failing())
    for command in (["detect", face], ["compare", face, face]):
        status, out, err = run(capsys, *command)
        assert (status, out) == (2, "")
        assert "the model failed: CUDA failure 2: out of memory" in err
        assert err.count("\n") == 1


def test_unknown_pack_and_provider(capsys: pytest.CaptureFixture[str], face: str) -> None:
    _, _, err = run(capsys, "compare", face, face, "--pack", "nothing")
    assert err.startswith("facecore: PackNotFound:")
    _, _, err = run(capsys, "compare", face, face, "--provider", "NoSuchProvider")
    assert err.startswith("facecore: InvalidParameter:")
    absent = "tensorrt" if sys.platform == "darwin" else "coreml"
    _, _, err = run(capsys, "compare", face, face, "--provider", absent)
    assert err.startswith("facecore: ProviderUnavailable:")


def test_flipped_byte_never_loads(
    capsys: pytest.CaptureFixture[str], face: str, tmp_path: Path
) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(PACK, pack)
    assert run(capsys, "compare", face, face, "--pack", str(pack))[0] == 0
    model = pack / "embedder.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    status, _, err = run(capsys, "compare", face, face, "--pack", str(pack))
    assert status == 2
    assert err.startswith("facecore: PackCorrupt:")


def test_arguments_that_lack_explain_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare"])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "exit status: 0 same person, 1 not, 2 error" in err
    assert err.splitlines()[-1].startswith("facecore: InvalidParameter: the following arguments")


def test_weights(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "weights", "list", "--json")
    packs = json.loads(out)
    assert status == 0
    assert packs["compact"]["installed"]
    for pack in packs.values():
        for model in pack["models"].values():
            assert model["license"]
            assert model["training_data"]
            assert model["caveat"]
    text = run(capsys, "weights", "list")[1]
    assert "training data: MS-Celeb-1M" in text
    status, out, _ = run(capsys, "weights", "verify", "compact")
    assert status == 0
    assert out.count(": ok\n") == len(packs["compact"]["models"])


def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    drawn = tmp_path / "demo.jpg"
    status, out, _ = run(capsys, "demo", "--draw", str(drawn), "--json")
    same, other = json.loads(out).values()
    assert status == 0
    assert same["passed"]
    assert not other["passed"]
    assert images.load(drawn).shape[1] == 720


def test_evaluate_needs_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "evaluate", "lfw", str(tmp_path / "nothing"))
    assert status == 2
    assert "is not a folder" in err
    long = "x" * 300  # longer than a file system allows
    for test_set, told in (("lfw", "is not a folder"), ("pairs", "is not a file")):
        status, _, err = run(capsys, "evaluate", test_set, str(tmp_path / long))
        assert (status, told in err) == (2, True)
    (tmp_path / "pairs.csv").write_text(f"{long},b.png,1")
    status, _, err = run(capsys, "evaluate", "pairs", str(tmp_path / "pairs.csv"))
    assert (status, "2 missing files" in err) == (2, True)
    status, _, err = run(capsys, "evaluate", "london", str(tmp_path))
    assert status == 2
    assert "does not hold" in err
    status, _, err = run(capsys, "evaluate", "pairs", str(tmp_path))
    assert status == 2
    assert "is not a file" in err


def test_evaluate_own_pictures(
    capsys: pytest.CaptureFixture[str], face: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / "people" / name).mkdir(parents=True)
        for number in "12":
            (tmp_path / "people" / name / f"{number}.png").write_bytes(Path(face).read_bytes())
    status, out, _ = run(capsys, "evaluate", "folder", str(tmp_path / "people"), "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["genuine_pairs"], found["impostor_pairs"]) == (2, 4)
    assert found["points"][0]["fmr"]["value"] == 1  # one face under two names
    (tmp_path / "p.csv").write_text("people/a/1.png,people/b/1.png,1\n" * 3 + "face.png,face.png,0")
    status, out, err = run(capsys, "evaluate", "pairs", str(tmp_path / "p.csv"), "--progress")
    assert status == 0
    assert "pairs               3 of one person, 1 of two" in out
    assert "embedding" in err


def test_liveness_says_what_it_measured(
    capsys: pytest.CaptureFixture[str], face: str, tmp_path: Path
) -> None:
    status, out, err = run(capsys, "liveness", face, "--draw", str(tmp_path / "out.png"))
    assert (status, err) == (0, "")
    assert out.startswith("no attack found: attack score ")
    assert "white_point" in out
    assert images.load(tmp_path / "out.png").shape == (512, 512, 3)


def test_liveness_as_json_with_a_threshold(capsys: pytest.CaptureFixture[str], face: str) -> None:
    status, out, _ = run(capsys, "liveness", face, "--json", "--threshold", "0")
    answer = json.loads(out)
    assert (status, answer["is_attack"], answer["threshold"]) == (1, True, 0)
    assert 0 <= answer["attack_score"] <= 100
    assert {"clipping", "network"} <= set(answer["cues"])
    status, _, err = run(capsys, "liveness", face, "--threshold", "101")
    assert status == 2
    assert "threshold" in err


def test_quality(capsys: pytest.CaptureFixture[str], face: str, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    status, out, err = run(capsys, "quality", face, "--draw", str(drawn))
    assert (status, err) == (0, "")
    assert out.startswith("HIGH: score ")
    assert "sharpness" in out
    chart = images.load(drawn)
    bars = (chart[:, -140:-15].min(2) < 240).all(1)  # rows that a bar covers from end to end
    assert np.sum(np.diff(bars.astype(int)) == 1) == len(MEASURES)


def test_quality_as_json(capsys: pytest.CaptureFixture[str], face: str) -> None:
    status, out, _ = run(capsys, "quality", face, "--json")
    answer = json.loads(out)
    assert status == 0
    assert set(answer) == {"score", "level", "measures", "raw"}  # no age unless asked for
    status, out, _ = run(capsys, "quality", face, "--json", "--attributes")
    assert set(json.loads(out)["attributes"]) == {
        "age", "age_spread", "gender", "gender_confidence",
    }  # fmt: skip


def test_quality_says_the_age_when_asked(capsys: pytest.CaptureFixture[str], face: str) -> None:
    assert "apparent age" not in run(capsys, "quality", face)[1]
    assert "apparent age" in run(capsys, "quality", face, "--attributes")[1]


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "bench", "--seconds", "0.2", "--threads", "1", "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert list(answer["stages_ms"]) == ["load", "detect", "align", "embed", "compare"]
    assert answer["comparison_ms"] * answer["comparisons_per_second"] == pytest.approx(1000)
    assert answer["stages_ms"]["detect"] > 0
    assert answer["embed_many_per_second"] > 0
    assert answer["search_ms"] > 0
    assert {"facecore", "onnxruntime"} <= answer["machine"]["versions"].keys()


def test_bench_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "bench", "--seconds", "0.2")
    assert status == 0
    for title in ("load", "detect", "align", "embed", "compare", "one comparison", "embed_many"):
        assert any(line.strip().startswith(title) for line in out.splitlines()), title
    assert "among 100,000 templates" in out


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_bench_needs_time(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    status, out, err = run(capsys, "bench", f"--seconds={seconds}")
    assert (status, out) == (2, "")
    assert err.startswith("facecore: InvalidParameter: --seconds")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_names_that_the_output_cannot_encode_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    answers = ({"user_id": "\u5c0f\u660e"}, 0, ["\u5c0f\u660e", "folder \udce9"])
    monkeypatch.setattr(cli, "_parser", lambda: OneAnswer(answers))
    assert cli.main([]) == 0
    assert raw.getvalue() == b"\\u5c0f\\u660e\nfolder \\udce9\n".replace(b"\n", os.linesep.encode())


class OneAnswer:
    """A parser whose only command returns a fixed answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def parse_args(self, _: object) -> Any:
        return argparse.Namespace(run=lambda _: self.answer, json=False)


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe that closes")
def test_a_closed_pipe_and_a_full_disk_are_no_tracebacks() -> None:
    code = (
        "import sys, argparse, facecore.cli as cli\n"
        "class P:\n"
        "    def parse_args(self, _):\n"
        "        answer = {}, 0, ['line'] * 100_000\n"
        "        return argparse.Namespace(run=lambda _: answer, json=False)\n"
        "cli._parser = P\n"
        "sys.exit(cli.main([]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (2, b"")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, env=environment
            )
        assert done.returncode == 2
        assert done.stderr.startswith(b"facecore: OutputNotWritten: ")
        assert done.stderr.count(b"\n") == 1


def test_compare_with_every_face(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    face: str,
    hopper: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    party = str(tmp_path / "party.png")
    cv2.imwrite(party, np.hstack([cv2.resize(cv2.imread(face), (512, 600)), hopper]))
    status, out, _ = run(capsys, "compare", face, party)
    assert status == 1
    assert f"2 faces in {party}; the largest was used" in out
    status, out, _ = run(capsys, "compare", face, party, "--all")
    assert status == 0
    assert "same person" in out.splitlines()[0]
    assert "NOT" in out.splitlines()[1]
    status, out, _ = run(capsys, "compare", party, face, "--all")
    assert f"2 faces in {party}; the largest was used" in out
    status, out, _ = run(capsys, "cross-compare", face, party, face)
    assert out.count("2 faces in ") == 1
    status, out, _ = run(capsys, "compare", face, party, "--all", "--json")
    assert [c["passed"] for c in json.loads(out)["comparisons"]] == [True, False]
    status, _, err = run(capsys, "compare", face, party, "--if-many", "refuse")
    assert status == 2
    assert "SeveralFacesDetected" in err
    samples = FaceEngine.samples  # as if the embedder could read only the largest
    monkeypatch.setattr(FaceEngine, "samples", lambda *given: samples(*given)[:1])
    status, out, _ = run(capsys, "compare", face, party, "--all")
    assert out.splitlines()[1:] == ["1 face cannot be recognised"]
