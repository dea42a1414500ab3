"""Opening a gallery of a million faces: time from process start to first result, and memory.

    python -m benchmarks open [--count 1000000] [--keep FOLDER] [--encrypted] [--json FILE]

The gallery is created once, in a temporary folder unless --keep names one.  Fresh processes then
open it, which builds the exact index from the store; figures are medians of --runs.
"seconds" is the wall time from the import of facecore to the result; "cpu" is processor time,
which other load does not stretch; "imports" is the part of "seconds" before opening.  Memory is
anonymous resident memory at the result, minus that after the imports.  With --encrypted, a copy of
the gallery is then encrypted and opened too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from templates import DIMENSION, TemplateEngine

from benchmarks._faces import faces
from benchmarks._measuring import describe, machine, resident, write_json
from facecore import Gallery
from facecore.gallery import rekey

CHILD = "import time; began = time.perf_counter(); from benchmarks import open; open.child(began)"
BATCH = 50_000
KEY = bytes(range(32))
LINE = (
    "opened in {seconds:.2f} s (cpu {cpu:.2f}, imports {imports:.2f}), "
    "{megabytes:.0f} MB, then {megabytes_later:.0f}; a search {search_ms:.1f} ms"
)


def child(began: float) -> None:
    """Open a gallery, search once, then repeatedly; runs in a separate process."""
    import facecore.gallery.sqlite.backend  # noqa: F401 - a gallery in a folder needs it

    imports, memory = time.perf_counter() - began, resident()
    engine: Any = TemplateEngine()
    probe = np.load(sys.argv[2])
    key = bytes.fromhex(sys.argv[3]) or None
    with Gallery(sys.argv[1], engine, index="exact", read_only=True, key=key) as gallery:
        best = gallery.search(probe, limit=1)
        seconds, cpu = time.perf_counter() - began, time.process_time()
        answer = {
            "seconds": seconds,
            "cpu": cpu,
            "imports": imports,
            "megabytes": (resident() - memory) / 1e6,
            "similarity": best[0].similarity,
        }
        probes = faces(200, 200, len(probe))[1]  # new probes, which read other pages
        times = []
        for other in probes:
            start = time.perf_counter()
            gallery.search(other, limit=5)
            times.append(time.perf_counter() - start)
        answer["search_ms"] = 1e3 * float(np.median(times[10:]))
        answer["megabytes_later"] = (resident() - memory) / 1e6
    print(json.dumps(answer))


def opened(folder: Path, probe: Path, runs: int, key: bytes = b"") -> dict[str, float]:
    """Return medians over fresh processes."""
    answers = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), str(probe), key.hex()],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(json.loads(done.stdout))
    return {key: float(np.median([answer[key] for answer in answers])) for key in answers[0]}


def build(folder: Path, vectors: np.ndarray[Any, Any]) -> dict[str, float]:
    """Fill a gallery and time it."""
    engine: Any = TemplateEngine()
    start = time.perf_counter()
    gallery = Gallery(folder, engine, index="exact")
    gallery.create_group("everybody")
    for first in range(0, len(vectors), BATCH):
        part = vectors[first : first + BATCH]
        users = [f"user {i}" for i in range(first, first + len(part))]
        gallery.add_templates("everybody", part, users, contract=engine.contract_id)
    added = time.perf_counter()
    gallery.close()
    return {"add_seconds": added - start, "close_seconds": time.perf_counter() - added}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder to build in, or to use again")
    parser.add_argument("--encrypted", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    facts = machine(["numba"])
    print(describe(facts))
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        vectors, probes = faces(args.count, 1, DIMENSION)
        probe = Path(temporary) / "probe.npy"
        np.save(probe, probes[0])
        folder, results = root / "a.gallery", {}
        if not folder.exists():
            results["build"] = build(folder, vectors)
            print(f"built: {results['build']}")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{args.count:,} faces, {size / 1e6:.0f} MB on the disk")
        results["opened"] = opened(folder, probe, args.runs)
        print(LINE.format(**results["opened"]))
        if args.encrypted:
            copy = shutil.copytree(folder, Path(temporary) / "encrypted.gallery")
            start = time.perf_counter(), time.process_time()
            rekey(copy, new_key=KEY)
            seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            results["encryption"] = {"seconds": seconds, "cpu": cpu}
            print(f"encrypted in {seconds:.2f} s (cpu {cpu:.2f})")
            results["opened encrypted"] = opened(copy, probe, args.runs, KEY)
            print(LINE.format(**results["opened encrypted"]))
    write_json(args.json, facts, count=args.count, results=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
