"""Fresh processes: import time, time to the first comparison, and memory.

    python -m benchmarks startup                       # 20 processes of each kind, in turn
    python -m benchmarks startup --processes 5 --comparisons 100

Every process first imports `cv2, onnxruntime, numpy`.  The steps after that are facecore's:
`import facecore`, opening an engine, the first comparison of two files and, for contrast, the
second; or the first search in a gallery.  "imported first" is a process that imports facecore
before anything else.  Whole processes are also timed from outside.  Times are wall clock and, where
other load disturbs it, processor time.  Memory (Linux) is the resident set and its anonymous part,
compared with a process that only imports `cv2, onnxruntime`, and the page faults of each
comparison.  All figures are medians.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks._measuring import arguments, describe, machine, write_json
from benchmarks._pictures import london, pair
from facecore import FaceEngine, Gallery

PREPARE = """
import json, sys, time
start, busy = time.perf_counter(), time.process_time()
times, marks = {}, {}
def mark(name):
    global start, busy
    times[name] = time.perf_counter() - start
    times[name + ", processor"] = time.process_time() - busy
    start, busy = time.perf_counter(), time.process_time()
def memory(name):
    import resource
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("VmRSS", "RssAnon"))]
    for key, value, _ in lines:
        marks[name + " " + key.rstrip(":")] = int(value) * 1024
    marks[name + " faults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""
BASE = """
import cv2, onnxruntime, numpy
mark("base")
"""
OWN = """
import facecore
mark("import facecore")
"""
FIRST = """
engine = facecore.FaceEngine(sys.argv[1])
mark("FaceEngine()")
engine.compare(*sys.argv[2:4])
mark("first compare")
engine.compare(*sys.argv[2:4])
mark("second compare")
"""
SEARCH = """
engine = facecore.FaceEngine(sys.argv[1])
vector = engine.sample(sys.argv[2])
engine.embed(vector)
mark("to the vector")
gallery = facecore.Gallery(sys.argv[4], engine, read_only=True)
gallery.search(vector)
mark("open and search")
"""
MEMORY = """
import cv2, onnxruntime
memory("base")
import facecore
engine = facecore.FaceEngine(sys.argv[1])
files = sys.argv[3:]
engine.compare(files[0], files[1])
memory("first")
for i in range(1, int(sys.argv[2])):
    engine.compare(files[2 * i % len(files)], files[(2 * i + 1) % len(files)])
memory("last")
"""
ANSWER = """
print(json.dumps({"times": times, "marks": marks}))
"""
# Steps of each type of process.
KINDS = {
    "base alone": BASE,
    "imported": BASE + OWN,
    "imported first": OWN,
    "to the first result": BASE + OWN + FIRST,
    "to the first search": OWN + SEARCH,
}


SEARCH_STEPS = ("import facecore", "to the vector", "open and search")


def process(program: str, *arguments: str) -> dict[str, Any]:
    """Run a process; return its times and marks, and its total duration."""
    command = [sys.executable, "-c", PREPARE + program + ANSWER, *arguments]
    start = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    whole = time.perf_counter() - start
    answer: dict[str, Any] = json.loads(output)
    answer["times"]["whole process"] = whole
    return answer


def times(count: int, *arguments: str) -> dict[str, dict[str, float]]:
    """Return median seconds by type of process and step."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for turn in tqdm(range(count + 1), disable=not sys.stderr.isatty()):
        for kind, program in KINDS.items():
            answer = process(program, *arguments)["times"]
            if turn:  # the first round loads the files into the page cache
                found[kind].append(answer)
    return {
        kind: {step: float(np.median([each[step] for each in runs])) for step in runs[0]}
        for kind, runs in found.items()
    }


def fill(folder: Path, pack: str, count: int) -> str:
    """Make a gallery of random templates; return its folder."""
    rng, engine = np.random.default_rng(0), FaceEngine(pack)
    dimension = engine.pack.embedder.output.dimension
    with Gallery(folder, engine) as gallery:
        gallery.create_group("all")
        for start in range(0, count, 10_000):
            ids = [str(i) for i in range(start, min(start + 10_000, count))]
            rows = rng.standard_normal((len(ids), dimension), np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            gallery.add_templates("all", rows, ids, contract=engine.contract_id)
    return str(folder)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--processes", type=int, default=20, help="of each kind")
    parser.add_argument("--faces", type=int, default=100_000, help="in the gallery")
    parser.add_argument("--comparisons", type=int, default=1000, help="before memory is read again")
    args = parser.parse_args()
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    with tempfile.TemporaryDirectory() as name:
        a, b = map(str, pair(Path(name)))
        gallery = fill(Path(name) / "gallery", args.pack, args.faces)
        medians = times(args.processes, args.pack, a, b, gallery)
        files = [str(path) for path in london()] or [a, b]
        runs = [process(MEMORY, args.pack, str(args.comparisons), *files) for _ in range(3)]
    base, first = medians["base alone"], medians["to the first result"]
    search = medians["to the first search"]
    print(f"{'milliseconds':44} {'ms':>9} {'x base':>7}")
    rows = {
        "import cv2, onnxruntime, numpy (base)": base["base"],
        "import facecore, after that": medians["imported"]["import facecore"],
        "import facecore, before all else": medians["imported first"]["import facecore"],
        "FaceEngine(), first in the process": first["FaceEngine()"],
        "compare, first in the process": first["first compare"],
        "compare, second": first["second compare"],
        "from the base to the first result": sum(
            first[step] for step in ("import facecore", "FaceEngine()", "first compare")
        ),
        f"import facecore to a search of {args.faces:,}": sum(search[s] for s in SEARCH_STEPS),
        "the same, processor time": sum(search[f"{step}, processor"] for step in SEARCH_STEPS),
        "whole process: base alone": base["whole process"],
        "whole process: import facecore alone": medians["imported first"]["whole process"],
        "whole process: two comparisons": first["whole process"],
    }
    for title, seconds in rows.items():
        print(f"  {title:42} {seconds * 1e3:9.1f} {seconds / base['base']:7.2f}")
    marks = {
        name: float(np.median([run["marks"][name] for run in runs])) for name in runs[0]["marks"]
    }
    faults = (marks.pop("last faults") - marks.pop("first faults")) / (args.comparisons - 1)
    marks = {name: size / 1e6 for name, size in marks.items() if name != "base faults"}
    print(f"{'megabytes':44} {'resident':>9} {'anonymous':>10}")
    titles = {
        "base": "import cv2, onnxruntime",
        "first": "after the first comparison",
        "last": f"after {args.comparisons:,} comparisons",
    }
    for key, title in titles.items():
        print(f"  {title:42} {marks[f'{key} VmRSS']:9.1f} {marks[f'{key} RssAnon']:10.1f}")
    print(f"  pages faulted in by a comparison: {faults:.0f}")
    results = {"medians": medians, "seconds": rows, "megabytes": marks, "faults": faults}
    write_json(args.json, facts, pack=args.pack, **results)


if __name__ == "__main__":
    main()
