"""Speed benchmarks run to their end, and their floor repeats the calls of the engine."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import _floor, _peers, _pictures, mutations, soak, startup
from facecore import FaceEngine

Runner = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    """Run a benchmark in this process and return its JSON."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        path = tmp_path / "answer.json"
        monkeypatch.setattr(sys, "argv", [name, *arguments, "--json", str(path)])
        importlib.import_module(f"benchmarks.{name}").main()
        answer: dict[str, Any] = json.loads(path.read_text())
        return answer

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two portraits that every machine has."""
    folder = tmp_path_factory.mktemp("portraits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pictures, "DATA", folder)
        return _pictures.pair(folder)


@pytest.mark.parametrize("name", ["compare", "throughput", "startup", "soak", "growth"])
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "scale"),
    [
        (cv2.IMREAD_UNCHANGED, 1),
        (cv2.IMREAD_COLOR, 1),
        (cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, 1),
        (cv2.IMREAD_REDUCED_COLOR_2, 2),
        (cv2.IMREAD_REDUCED_GRAYSCALE_4, 4),
        (cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION, 8),
    ],
)
def test_scale_of_a_decoding(flags: int, scale: int, files: tuple[Path, Path]) -> None:
    data = np.frombuffer(files[0].read_bytes(), np.uint8)
    assert _floor.decode_scale((data, flags)) == scale
    decoded = cv2.imdecode(data, flags)
    assert decoded is not None
    assert decoded.shape[:2] == (960 // scale, 720 // scale)


def test_the_floor_is_what_the_engine_asks_for(
    compact: FaceEngine, files: tuple[Path, Path]
) -> None:
    before = cv2.imdecode
    with _floor.traced(compact.pack) as trace:
        compact.compare(*files)
    assert cv2.imdecode is before
    assert len(trace.decodes) == len(trace.detector) == 2
    assert sum(shape[0] for shape in trace.embedder) == 2
    floor = _floor.Floor("compact")
    runs = floor.pair(trace)
    with _floor.traced(compact.pack) as replayed:
        for run in runs.values():
            run(0)
    assert len(runs) in (2, 6)  # with one processor, with more
    assert len(replayed.decodes) == len(replayed.detector) == 2 * len(runs)
    assert sum(shape[0] for shape in replayed.embedder) == 2 * len(runs)
    assert set(replayed.detector) == set(trace.detector)
    assert floor.stages(trace).keys() == set(_floor.STAGES)


def test_nothing_seen_is_said(compact: FaceEngine) -> None:
    with pytest.raises(SystemExit, match="not seen"), _floor.traced(compact.pack):
        pass


def test_the_scripts_see_the_same_faces(compact: FaceEngine, files: tuple[Path, Path]) -> None:
    astronaut, hopper = files
    for script in (_peers.Script(compact.pack), _peers.FaceDetectorYN(compact.pack)):
        assert script.compare(astronaut, astronaut) == pytest.approx(1, abs=1e-5)
        ours = compact.compare(astronaut, hopper).similarity
        assert script.compare(astronaut, hopper) == pytest.approx(ours, abs=0.15)
        assert script.embed(hopper) @ compact.embed(hopper) > 0.8


def test_a_peer_in_another_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import sys
print(1, 2, flush=True)
for line in sys.stdin:
    print(line.count("b"), flush=True)
"""
    monkeypatch.setattr(_peers.FaceRecognition, "PROGRAM", program)
    with _peers.face_recognition(Path(sys.executable)) as peer:
        assert peer.version == "face_recognition 1, dlib-bin 2"
        assert [peer.compare(Path("a"), Path("bb")), peer.compare(Path("a"), Path("a"))] == [2, 0]


def test_an_interpreter_without_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peers.FaceRecognition, "PROGRAM", "raise SystemExit(1)")
    python = Path(sys.executable)
    with pytest.raises(SystemExit, match="--face-recognition"), _peers.face_recognition(python):
        pass


def test_photograph(compact: FaceEngine, files: tuple[Path, Path], tmp_path: Path) -> None:
    path = _pictures.photograph(compact, files[0], tmp_path / "large.jpg", (1200, 900))
    pixels = cv2.imread(str(path))
    assert pixels is not None
    assert pixels.shape == (900, 1200, 3)
    box = compact.largest_face(path).box
    assert (box[3] - box[1]) / 900 == pytest.approx(0.25, abs=0.05)


def test_compare(run: Runner, files: tuple[Path, Path]) -> None:
    names = map(str, files)
    answer = run("compare", "--rounds", "2", "--large", "0", "--files", *names)
    assert answer["small"]["of_floor"] > 0
    assert len(answer["small"]["stages_ms"]) == 5
    assert answer["scripts"]["ratio"] > 0
    assert "large" not in answer


def test_throughput(run: Runner, lfw_folder: Path) -> None:
    answer = run("throughput", "--images", "6", "--part", "3", "--of", "lfw")
    assert [part["images"] for part in answer["parts"]] == [3, 3]
    assert [part["failed"] for part in answer["parts"]] == [0, 0]
    assert answer["ratio"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fresh_processes(files: tuple[Path, Path]) -> None:
    names = [str(path) for path in files]
    first = startup.process(startup.KINDS["to the first result"], "compact", *names)["times"]
    assert {"base", "import facecore", "FaceEngine()", "first compare"} < first.keys()
    steps = [seconds for step, seconds in first.items() if not step.endswith(", processor")]
    assert sum(steps) - first["whole process"] < first["whole process"]
    marks = startup.process(startup.MEMORY, "compact", "2", *names)["marks"]
    assert 0 < marks["base RssAnon"] < marks["first RssAnon"] < marks["last VmRSS"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_soak(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SIDES", (64, 400))
    plot = tmp_path / "soak.png"
    options = ("--images", "60", "--files", "30", "--every", "10", "--plot", str(plot))
    answer = run("soak", *options)
    assert answer["images"][-1] >= 60
    assert isinstance(answer["flat"], bool)
    assert cv2.imread(str(plot)) is not None


def test_growth(run: Runner, tmp_path: Path) -> None:
    plot = tmp_path / "growth.png"
    options = ["--heights", "200", "400", "--sizes", "200", "400", "--hnsw", "100", "200", "400"]
    answer = run("growth", *options, "--rounds", "2", "--plot", str(plot))
    assert answer["milliseconds"]["exact search"].keys() == {"200", "400"}
    assert answer["milliseconds"]["compare, arrays"].keys() == {"30000", "120000"}
    assert set(answer["exponents"]) == set(answer["milliseconds"])
    assert cv2.imread(str(plot)) is not None


def test_every_mutation_has_its_place() -> None:
    folder = mutations.REPO / mutations.OPERATIONS
    for one in mutations.MUTATIONS:
        assert (folder / one.file).read_text("utf-8").count(one.old) == 1, one.what
