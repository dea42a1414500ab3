"""Bulk import: its rate against the floor, and whether a killed import resumes correctly.

    python -m benchmarks importing                 # all pictures of LFW
    python -m benchmarks importing --images 1000   # the first of them

The floor is the minimum work of any import on the same processors: decoding the pictures (OpenCV,
from memory), and running the bare detector and embedder at the sizes and batches of `embed_many`.
Each of the three is timed separately, with one thread per processor and with models that use all
processors per run; the faster variant counts, and the floor is the sum.  It reads no files, checks
no headers, decodes no candidates, aligns no faces and writes no database.  Floor and import take
turns, a thousand pictures each.

Then another import is killed with SIGKILL about half-way, resumed, and compared bit by bit with
the uninterrupted one.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks._floor import Clock, Floor, beside, traced
from benchmarks._measuring import DATA, arguments, describe, machine, write_json
from benchmarks._pictures import lfw
from facecore import FaceEngine, Gallery
from facecore.gallery.bulk_import import import_pictures

GROUP = "lfw"


def write_list(path: Path, pictures: Sequence[Path]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "user_id"])
        writer.writerows([picture, picture.parent.name] for picture in pictures)
    return path


def rates(engine: FaceEngine, pictures: Sequence[Path], folder: Path, size: int) -> Any:
    floor, parts = Floor(engine.pack.name), []
    list(engine.embed_many(pictures[:64]))
    with Gallery(folder / "timed.gallery", engine) as gallery:
        gallery.create_group(GROUP)
        import_pictures(gallery, GROUP, write_list(folder / "warm.csv", pictures[:64]))
        gallery.delete_group(GROUP)
        gallery.create_group(GROUP)
        for start in tqdm(range(0, len(pictures), size), disable=not sys.stderr.isatty()):
            some = pictures[start : start + size]
            with traced(engine.pack) as trace:
                list(engine.embed_many(some))
            bare = floor.stages(trace)
            table, start = write_list(folder / "some.csv", some), Clock.now()
            import_pictures(gallery, GROUP, table)
            parts.append({"images": len(some), "import": start.passed(), **bare})
        return parts, content(gallery)


def content(gallery: Gallery) -> set[Any]:
    """Return the contents that an import determines: all but record ids and times."""
    return {
        (r.group, r.face_id, r.user_id, r.quality, r.origin, vector.tobytes())
        for records, vectors in gallery.templates()
        for r, vector in zip(records, vectors, strict=True)
    }


ATTEMPT = """
import sys, facecore
from pathlib import Path
from facecore.gallery.bulk_import import import_pictures
with facecore.Gallery(sys.argv[1], facecore.FaceEngine(sys.argv[2])) as gallery:
    import_pictures(gallery, sys.argv[4], Path(sys.argv[3]))
"""


def killed(engine: FaceEngine, pictures: Sequence[Path], folder: Path) -> tuple[int, Any, Any]:
    """Return the faces at the kill, the resumed import's result and the final contents."""
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
    parser = arguments(__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--images", type=int, help="how many (default: all)")
    parser.add_argument("--part", type=int, default=1024, help="pictures in one turn")
    args = parser.parse_args()
    pictures = lfw()[: args.images]
    if not pictures:
        raise SystemExit(f"no pictures of LFW in {DATA}; set FACECORE_DATA")
    engine = FaceEngine(args.pack)
    with tempfile.TemporaryDirectory() as name:
        parts, clean = rates(engine, pictures, Path(name), args.part)
        before, resumed, again = killed(engine, pictures, Path(name))
    count = sum(part["images"] for part in parts)
    facts = machine(("onnxruntime", "opencv-python-headless"))
    print(describe(facts))
    print(f"pack {args.pack}, {count:,} images, {len(clean):,} faces")
    ratios = beside(parts, "import")
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
        **ratios,
        killed={"stored": before, "added": resumed.added, "same": same},
    )


if __name__ == "__main__":
    main()
