"""Bulk import: its rate against the floor, and whether a killed one resumes to the same.

    python -m benchmarks importing                 # all pictures of LFW
    python -m benchmarks importing --images 1000   # the first of them

The floor is what no import can do without, on the same processors: to decode the pictures
(OpenCV, from memory), and to run the bare detector at the sizes that the pictures have and the
bare embedder in batches.  Each of the three is timed by itself, both with one thread for every
processor and with models that use all processors for one run, and the faster one counts; their
sum is the floor.  It has no files to read, no header to check, no candidates to decode, no faces
to align and no database to write.  Floor and import take turns, a thousand pictures each.

Then another import is killed with SIGKILL about half-way, resumed, and compared, record by
record and bit by bit, with the one that was not.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks._measuring import describe, machine, write_json
from facecore import FacecoreError, FaceEngine, Gallery, images
from facecore.gallery.importing import import_pictures
from facecore.models.cpus import usable_cpus
from facecore.models.packs import load_pack
from facecore.models.runtime import open_model

BATCH = 32
GROUP = "lfw"


class Clock(NamedTuple):
    """Seconds on the wall, and of all processors together."""

    wall: float
    processors: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def passed(self) -> Clock:
        now = Clock.now()
        return Clock(now.wall - self.wall, now.processors - self.processors)


class Recorder:
    """A session that notes the shapes it is run at."""

    def __init__(self, session: Any) -> None:
        self.session, self.shapes = session, []

    def run(self, names: Any, feed: Any) -> Any:
        self.shapes.append(next(iter(feed.values())).shape)
        return self.session.run(names, feed)


class Floor:
    """Decoding and the bare models, for some pictures at a time."""

    def __init__(self, pack: str) -> None:
        loaded = load_pack(pack)
        self.workers = usable_cpus()
        self.pool = ThreadPoolExecutor(self.workers)
        self.specs = {"detector": loaded.pack.detector, "embedder": loaded.pack.embedder}
        self.models = {
            (role, threads): open_model(spec, getattr(loaded, role), threads=threads)
            for role, spec in self.specs.items()
            for threads in {1, self.workers}
        }
        self.watched = FaceEngine(pack, threads=1)
        detector = self.watched._pipeline.detector
        self.recorder = Recorder(detector._session)
        detector._session = self.recorder  # type: ignore[assignment]
        self.rng = np.random.default_rng(0)

    def seconds(self, paths: Sequence[Path]) -> dict[str, Clock]:
        """Of each of the three."""
        self.recorder.shapes.clear()
        faces = 0
        for path in paths:  # not timed
            try:
                self.watched.sample(path)
                faces += 1
            except FacecoreError:
                pass
        data = [path.read_bytes() for path in paths]
        batches = [BATCH] * (faces // BATCH) + ([faces % BATCH] if faces % BATCH else [])
        crops = [(size, 3, 112, 112) for size in batches]
        return {
            "decoding": self._timed(lambda i: decode(data[i]), len(data), self.workers),
            "detector": self._model("detector", list(self.recorder.shapes)),
            "embedder": self._model("embedder", crops),
        }

    def _model(self, role: str, shapes: Sequence[tuple[int, ...]]) -> Clock:
        name = self.specs[role].input.name
        tensors = {s: self.rng.uniform(0, 255, s).astype(np.float32) for s in set(shapes)}
        times = []
        for threads in {1, self.workers}:
            session = self.models[role, threads]

            def run(i: int, session: Any = session) -> None:
                session.run(None, {name: tensors[shapes[i]]})

            run(0)
            times.append(self._timed(run, len(shapes), self.workers // threads))
        return min(times)

    def _timed(self, run: Callable[[int], object], count: int, workers: int) -> Clock:
        start = Clock.now()
        if workers == 1:
            for i in range(count):
                run(i)
        else:
            list(self.pool.map(run, range(count)))
        return start.passed()


def decode(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def write_list(path: Path, pictures: Sequence[Path]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "user_id"])
        writer.writerows([picture, picture.parent.name] for picture in pictures)
    return path


def rates(engine: FaceEngine, pictures: Sequence[Path], folder: Path, size: int) -> Any:
    floor, parts = Floor(engine.pack.name), []
    with Gallery(folder / "timed.gallery", engine) as gallery:
        gallery.create_group(GROUP)
        import_pictures(gallery, GROUP, write_list(folder / "warm.csv", pictures[:64]))
        gallery.delete_group(GROUP)
        gallery.create_group(GROUP)
        for start in tqdm(range(0, len(pictures), size), disable=not sys.stderr.isatty()):
            some = pictures[start : start + size]
            bare = floor.seconds(some)
            table, start = write_list(folder / "some.csv", some), Clock.now()
            import_pictures(gallery, GROUP, table)
            parts.append({"images": len(some), "import": start.passed(), **bare})
        return parts, content(gallery)


def content(gallery: Gallery) -> set[Any]:
    """All that an import decides; the number and the time of the addition are not of it."""
    return {
        (r.group, r.face_id, r.user_id, r.quality, r.origin, vector.tobytes())
        for records, vectors in gallery.templates()
        for r, vector in zip(records, vectors, strict=True)
    }


ATTEMPT = """
import sys, facecore
from pathlib import Path
from facecore.gallery.importing import import_pictures
with facecore.Gallery(sys.argv[1], facecore.FaceEngine(sys.argv[2])) as gallery:
    import_pictures(gallery, sys.argv[4], Path(sys.argv[3]))
"""


def killed(engine: FaceEngine, pictures: Sequence[Path], folder: Path) -> tuple[int, Any, Any]:
    """Faces when it was killed, what the resumed import did, and what is there in the end."""
    place, table = folder / "killed.gallery", write_list(folder / "all.csv", pictures)
    with Gallery(place, engine) as gallery:
        gallery.create_group(GROUP)
    command = [sys.executable, "-c", ATTEMPT, str(place), engine.pack.name, str(table), GROUP]
    with (
        subprocess.Popen(command) as process,
        Gallery(place, engine, read_only=True) as reader,
    ):
        while len(reader) < len(pictures) / 2 and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    with Gallery(place, engine) as gallery:
        before = len(gallery)
        return before, import_pictures(gallery, GROUP, table), content(gallery)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--images", type=int, help="how many (default: all)")
    parser.add_argument("--part", type=int, default=1024, help="pictures in one turn")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    root = Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2] / "shared"))
    pictures = sorted((root / "lfw" / "images").glob("*/*.jpg"))[: args.images]
    if not pictures:
        raise SystemExit(f"no pictures of LFW in {root}; set FACECORE_DATA")
    images.load(pictures[0])
    engine = FaceEngine(args.pack)
    with tempfile.TemporaryDirectory() as name:
        parts, clean = rates(engine, pictures, Path(name), args.part)
        before, resumed, again = killed(engine, pictures, Path(name))
    count = sum(part["images"] for part in parts)
    stages = ("decoding", "detector", "embedder")
    wall, processors = (
        {name: sum(part[name][kind] for part in parts) for name in (*stages, "import")}
        for kind in (0, 1)
    )
    ratios = [sum(part[stage].wall for stage in stages) / part["import"].wall for part in parts]
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    print(f"pack {args.pack}, {count:,} images, {len(clean):,} faces")
    print("  an image         on the wall   of all processors")
    for times in (wall, processors):
        times["floor"] = sum(times[stage] for stage in stages)
    for name in (*stages, "floor", "import"):
        each, busy = (times[name] / count * 1e3 for times in (wall, processors))
        print(f"  {name:12} {each:12.2f} ms {busy:14.2f} ms")
    floor, ours = (count / wall[name] for name in ("floor", "import"))
    print(
        f"{ours:.1f} images a second, {ours / floor:.3f} of the floor's {floor:.1f} "
        f"(median of {len(ratios)} turns {np.median(ratios):.3f}; "
        f"by processor time {processors['floor'] / processors['import']:.3f})"
    )
    same = again == clean
    print(
        f"killed with {before:,} faces stored; resumed: {resumed.added:,} added, "
        f"{resumed.present:,} were there; {'the same' if same else 'OTHER'} records as of one run"
    )
    write_json(
        args.json,
        facts,
        pack=args.pack,
        parts=parts,
        ratio=ours / floor,
        processor_time_ratio=processors["floor"] / processors["import"],
        median_ratio=float(np.median(ratios)),
        killed={"stored": before, "added": resumed.added, "same": same},
    )


if __name__ == "__main__":
    main()
