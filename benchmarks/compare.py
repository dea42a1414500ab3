"""One comparison of two files: against the floor and against other implementations.

    python -m benchmarks compare                   # a person of the London set twice, 960x720
    python -m benchmarks compare --files A B       # two files of your own
    python -m benchmarks compare --face-recognition /path/to/its/bin/python --json compare.json

All candidates take turns in one run; all figures are medians.  A ratio above 1 means that the
candidate is slower than `engine.compare` with default settings (all processors).  Prints wall time
and processor time, which other load disturbs less.

The floor decodes at the engine's scale and runs the two bare models at the engine's shapes, in
sessions with its settings (`benchmarks/_floor.py`).  Its variants take one picture after the other
with one thread or with all, or both at the same time with one thread each.  The embedder runs once
for both faces or once per face.  The fastest variant counts.

The scripts (`benchmarks/_peers.py`) use the pack's models at facecore's detector size, in sessions
with ONNX Runtime's defaults.  One uses OpenCV's FaceDetectorYN as detector; another runs
FaceDetectorYN with YuNet-n from the reference data.  `face_recognition` runs in a separate
environment:

    python -m venv peers
    peers/bin/pip install dlib-bin face_recognition_models 'setuptools<81' pillow click numpy
    peers/bin/pip install --no-deps face_recognition

The two large photographs have 4000x3000 pixels and are made from the two portraits; the faces take
a quarter of the height.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import _peers
from benchmarks._floor import Floor, traced
from benchmarks._measuring import DATA, arguments, both_clocks, describe, machine, write_json
from benchmarks._pictures import pair, photograph
from facecore import FaceEngine
from facecore.cli import benchmark_stages

OURS = "engine.compare"
SAME_MODELS = ("script: ONNX Runtime", "script: FaceDetectorYN, the same models")
FULL = "full cv2.imdecode of both"
TOGETHER = f"{FULL}, at the same time"
PAUSE = 0.01  # seconds for idle ONNX Runtime threads of the scripts to stop spinning
ROW = 4  # runs per turn
YUNET = DATA / "weights" / "yunet" / "yunet_n_dynamic.onnx"

Runs = dict[str, Callable[[int], object]]
Medians = Mapping[str, tuple[float, float]]
"""Wall time, and processor time of this process's threads, in seconds."""


def floors(engine: FaceEngine, floor: Floor, a: Path, b: Path) -> Runs:
    """Return the variants of the floor for two pictures; print the engine's calls."""
    engine.compare(a, b)  # warm up: parts of the engine open at first use
    with traced(engine.pack) as trace:
        engine.compare(a, b)
    shapes = ", ".join(f"{shape[3]}x{shape[2]}" for shape in trace.detector)
    print(
        f"\n{a.name}, {b.name}: decoded at 1/{', 1/'.join(map(str, trace.scales()))}, "
        f"detector at {shapes} pixels, embedder in batches of {[s[0] for s in trace.embedder]}"
    )
    return {f"floor: {name}": run for name, run in floor.pair(trace).items()}


def scripts(engine: FaceEngine, a: Path, b: Path) -> Runs:
    """Return the peers on OpenCV and ONNX Runtime; print their agreement with facecore."""
    pack = engine.pack
    made = {
        SAME_MODELS[0]: _peers.Script(pack),
        SAME_MODELS[1]: _peers.FaceDetectorYN(pack),
    }
    if YUNET.exists():
        made["script: FaceDetectorYN, YuNet-n"] = _peers.FaceDetectorYN(pack, YUNET)
    print(f"\nsimilarity: ours {engine.compare(a, b).similarity:.3f}", end="")
    for name, script in made.items():
        print(f", {name} {script.compare(a, b):.3f}", end="")
    print()
    return {name: lambda turn, s=s: s.compare(a, b) for name, s in made.items()}  # type: ignore[misc]


def table(title: str, medians: Medians) -> dict[str, Any]:
    """Print and return the medians and their ratios to ours, fastest first."""
    print(f"{title}\n  {'':64} {'ms':>9} {'x ours':>7} {'on a processor':>15}")
    rows = {}
    for name, (wall, busy) in sorted(medians.items(), key=lambda item: item[1]):
        ratio = wall / medians[OURS][0]
        rows[name] = {"ms": wall * 1e3, "ratio": ratio, "processor_ms": busy * 1e3}
        print(f"  {name:64} {wall * 1e3:9.2f} {ratio:7.2f} {busy * 1e3:12.2f} ms")
    return rows


def of_floor(medians: Medians) -> dict[str, float]:
    """Return our wall and processor times as multiples of the best floor."""
    floor = np.array([times for name, times in medians.items() if name.startswith("floor")])
    wall, busy = (np.array(medians[OURS]) / floor.min(axis=0)).tolist()
    print(f"{wall:.3f} x the best floor; by processor time {busy:.3f} x the cheapest")
    return {"of_floor": wall, "of_floor_by_processor_time": busy}


def small(engine: FaceEngine, floor: Floor, a: Path, b: Path, rounds: int) -> dict[str, Any]:
    """Compare with the floor, and time the stages."""
    bare, parts = floors(engine, floor, a, b), benchmark_stages.runs(engine, a, b)
    ours: Runs = {OURS: parts.pop("whole")}
    medians = both_clocks({**ours, **bare}, rounds, row=ROW)
    result: dict[str, Any] = {"medians": table("one comparison", medians)}
    result |= of_floor(medians)
    medians |= both_clocks(parts, rounds)
    shares = {stage: medians[stage][0] for stage in benchmark_stages.STAGES}
    total = sum(shares.values())
    print(f"stages, for both pictures; together {total / medians[OURS][0]:.2f} x one comparison")
    for stage, seconds in shares.items():
        print(f"  {stage:8} {seconds * 1e3:8.2f} ms {seconds / total:6.1%}")
    result["stages_ms"] = {stage: seconds * 1e3 for stage, seconds in shares.items()}
    return result


def scripted(engine: FaceEngine, a: Path, b: Path, rounds: int) -> dict[str, Any]:
    """Compare with the scripts, apart from the floor because their idle threads spin."""
    peers = scripts(engine, a, b)
    ours: Runs = {OURS: lambda turn: engine.compare(a, b)}
    medians = both_clocks({**ours, **peers}, rounds, pause=PAUSE)
    result: dict[str, Any] = {"medians": table("scripts", medians)}
    result["ratio"] = min(result["medians"][name]["ratio"] for name in SAME_MODELS)
    print(f"{result['ratio']:.2f} x faster than the better script with the same models")
    return result


def large(engine: FaceEngine, floor: Floor, a: Path, b: Path, rounds: int) -> dict[str, Any]:
    """Compare two 12-megapixel photographs; also time their full decoding."""
    data = [np.frombuffer(path.read_bytes(), np.uint8) for path in (a, b)]

    def decode(i: int) -> Any:
        return cv2.imdecode(data[i], cv2.IMREAD_COLOR)

    with ThreadPoolExecutor(1) as other:

        def both(turn: int) -> None:
            second = other.submit(decode, 1)
            decode(0)
            second.result()

        runs: Runs = {
            OURS: lambda turn: engine.compare(a, b),
            FULL: lambda turn: (decode(0), decode(1)),
            TOGETHER: both,
            **floors(engine, floor, a, b),
        }
        medians = both_clocks(runs, rounds, warm=1, row=ROW)
    result: dict[str, Any] = {"medians": table("12-megapixel photographs", medians)}
    result |= of_floor(medians)
    full, together = (1 / result["medians"][name]["ratio"] for name in (FULL, TOGETHER))
    result["of_full_decode"], result["of_full_decode_together"] = full, together
    print(f"{full:.2f} x {FULL}, {together:.2f} x that at the same time")
    return result


def face_recognition(
    engine: FaceEngine, python: Path, a: Path, b: Path, rounds: int
) -> dict[str, Any]:
    with _peers.face_recognition(python) as peer:
        print(f"\n{peer.version}; distance {peer.compare(a, b):.2f}, same person below 0.6")
        runs: Runs = {
            OURS: lambda turn: engine.compare(a, b),
            "face_recognition": lambda turn: peer.compare(a, b),
        }
        medians = both_clocks(runs, rounds, warm=1)
    rows = table("face_recognition", medians)
    return {"version": peer.version, "medians": rows, "ratio": rows["face_recognition"]["ratio"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--files", type=Path, nargs=2, default=(), metavar=("A", "B"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--large", type=int, default=15, help="rounds on large ones; 0 for none")
    parser.add_argument(
        "--face-recognition", type=Path, metavar="PYTHON", help="an interpreter that has it"
    )
    args = parser.parse_args()
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    engine, floor, results = FaceEngine(args.pack), Floor(args.pack), {}
    with tempfile.TemporaryDirectory() as name:
        a, b = pair(Path(name), args.files)
        results["small"] = small(engine, floor, a, b, args.rounds)
        results["scripts"] = scripted(engine, a, b, args.rounds)
        if args.large:
            big = [
                photograph(engine, path, Path(name) / f"12 megapixels {i}.jpg", seed=i)
                for i, path in enumerate((a, b))
            ]
            results["large"] = large(engine, floor, big[0], big[1], args.large)
        if args.face_recognition:
            rounds = max(5, args.rounds // 5)
            results["face_recognition"] = face_recognition(
                engine, args.face_recognition, a, b, rounds
            )
    write_json(args.json, facts, pack=args.pack, **results)


if __name__ == "__main__":
    main()
