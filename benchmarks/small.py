"""One core: time and memory of a comparison, an enrolment and a search, for the packs that ship.

    python -m benchmarks small
    python -m benchmarks small --packs compact --core 3 --rounds 200

Every process is bound to one core before it imports anything, as by `taskset -c 0` (Linux).  Times
are processor time, which other load disturbs least.  On an idle core, wall clock is the same except
for an enrolment, which also waits for the disk.  Times are medians of the rounds, and all figures
are medians of three processes of each kind, in turn.  Memory is the resident set and its peak; one
process only compares, another only enrols and searches.  facecore searches with NumPy until
compiling a kernel pays, after 1,000 searches among 10,000 faces.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks._measuring import arguments, describe, machine, write_json
from benchmarks._pictures import london, pair
from benchmarks.startup import fill, process

BIND = """
import os
os.sched_setaffinity(0, {int(sys.argv[1])})
import facecore, statistics
engine = facecore.FaceEngine(sys.argv[2])
mark("import and FaceEngine()")
rounds, files = int(sys.argv[3]), sys.argv[5:]
def median(name, run):
    run(0)
    mark("first " + name)
    busy = []
    for turn in range(rounds):
        start = time.process_time()
        run(turn)
        busy.append(time.process_time() - start)
    times[name] = statistics.median(busy)
    mark("rounds")
    memory(name)
    with open("/proc/self/status") as file:
        marks[name + " peak"] = next(int(l.split()[1]) for l in file if "VmHWM" in l) * 1024
"""
COMPARE = """
median("compare", lambda turn: engine.compare(
    files[2 * turn % len(files)], files[(2 * turn + 1) % len(files)]))
"""
SEARCH = """
gallery = facecore.Gallery(sys.argv[4], engine)
gallery.create_group("new", exist_ok=True)
probe = engine.sample(files[0])
engine.embed(probe)
mark("other")
median("search", lambda turn: gallery.search(probe, "all", far=0.01))
median("enrol", lambda turn: gallery.add("new", files[turn % len(files)], "u"))
gallery.delete_group("new")
facecore.warmup(probe.vectors[engine.contract_id].size)
median("compiled", lambda turn: gallery.search(probe, "all", far=0.01))
"""
ROWS = {
    "import facecore, FaceEngine()": "import and FaceEngine(), processor",
    "compare two photographs, first": "first compare, processor",
    "compare two photographs": "compare",
    "enrol a photograph": "enrol",
    "search with a vector, first": "first search, processor",
    "search with a vector": "search",
    "search with a vector, kernel compiled": "compiled",
}
MEMORY = {
    "after comparisons": "compare VmRSS",
    "after comparisons, peak": "compare peak",
    "after searches and enrolments": "enrol VmRSS",
    "after searches and enrolments, peak": "enrol peak",
    "with the kernel compiled": "compiled VmRSS",
    "with the kernel compiled, peak": "compiled peak",
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--packs", nargs="+", default=["compact", "compact-int8"])
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--faces", type=int, default=10_000, help="in the gallery")
    args = parser.parse_args()
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    found: dict[str, list[dict[str, float]]] = {pack: [] for pack in args.packs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [str(path) for path in london() or pair(folder)]
        galleries = {pack: fill(folder / pack, pack, args.faces) for pack in args.packs}
        for _ in range(3):
            for pack in args.packs:
                given = (str(args.core), pack, str(args.rounds), galleries[pack], *files)
                figures: dict[str, float] = {}
                for program in (COMPARE, SEARCH):
                    answer = process(BIND + program, *given)
                    figures |= answer["times"] | answer["marks"]
                found[pack].append(figures)
    medians = {
        pack: {step: float(np.median([run[step] for run in runs])) for step in runs[0]}
        for pack, runs in found.items()
    }
    print(f"\n| {args.faces:,} faces in the gallery | " + " | ".join(args.packs) + " |")
    print("|---|" + "---|" * len(args.packs))
    for title, step in ROWS.items():
        print(
            f"| {title} | " + " | ".join(f"{m[step] * 1e3:.1f} ms" for m in medians.values()), "|"
        )
    for title, step in MEMORY.items():
        cells = " | ".join(f"{m[step] / 1e6:.0f} MB" for m in medians.values())
        print(f"| memory {title} | {cells} |")
    write_json(args.json, facts, medians=medians)


if __name__ == "__main__":
    main()
