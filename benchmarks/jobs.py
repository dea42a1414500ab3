"""Five everyday jobs: lines to write with facecore and three other libraries.

    python -m benchmarks jobs --face-recognition PYTHON

The jobs: compare two pictures, name the people on a photo, find duplicates in a folder, enrol and
search, draw boxes with names.  The programs are in ``benchmarks/everyday``.  The pictures are from
LFW.  Five people are known by one picture each; the photo shows other pictures of them, and three
strangers.  PYTHON is an interpreter that has face_recognition.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

PROGRAMS = Path(__file__).parent / "everyday"
LIBRARIES = ("facecore", "face_recognition", "insightface", "uniface")
JOBS = {
    "compare": ["A.jpg", "B.jpg"], "who": ["KNOWN", "PHOTO.jpg"], "duplicates": ["FOLDER"],
    "search": ["KNOWN", "B.jpg"], "boxes": ["KNOWN", "PHOTO.jpg"],
}  # fmt: skip


def program(library: str, job: str) -> Path:
    return next((PROGRAMS / library).glob(f"{job}.*"))


def lines(path: Path) -> int:
    """Count the lines, without blank ones."""
    return sum(bool(line.strip()) for line in path.read_text("utf-8").splitlines())


def prepare(lfw: Path, folder: Path) -> None:
    """Lay out the jobs' pictures."""
    several = [p for p in sorted(lfw.iterdir()) if len(list(p.glob("*.jpg"))) > 1]
    alone = [p for p in sorted(lfw.iterdir()) if len(list(p.glob("*.jpg"))) == 1]
    rng = np.random.default_rng(4)
    known = [several[i] for i in rng.permutation(len(several))[:5]]
    strangers = [alone[i] for i in rng.permutation(len(alone))[:3]]
    tiles = []
    for person in known:
        first, second = sorted(person.glob("*.jpg"))[:2]
        for place in (folder / "KNOWN", folder / "PEOPLE" / person.name, folder / "FOLDER"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(first, place / f"{person.name}.jpg")
        shutil.copy(second, folder / "FOLDER" / f"other {person.name}.jpg")
        tiles.append(cv2.imread(str(second)))
    tiles += [cv2.imread(str(next(person.glob("*.jpg")))) for person in strangers]
    rows = [np.hstack(tiles[:4]), np.hstack(tiles[4:])]
    cv2.imwrite(str(folder / "PHOTO.jpg"), np.vstack(rows))
    pair = sorted(known[0].glob("*.jpg"))
    shutil.copy(pair[0], folder / "A.jpg")
    shutil.copy(pair[1], folder / "B.jpg")


def run(path: Path, python: str, folder: Path) -> tuple[str, float]:
    """Run a program; return its output and processor time, with the interpreter's start."""
    environment = os.environ | {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}
    if path.suffix == ".py":
        command = [python, str(path), *JOBS[path.stem]]
    else:  # this interpreter's facecore, installed or not
        facecore = f"{python} -m facecore.cli "
        text = re.sub(r"^facecore ", facecore, path.read_text("utf-8"), flags=re.MULTILINE)
        command = ["sh", "-c", text]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Traceback" in done.stderr:
        raise SystemExit(f"{path}: {done.stderr[-500:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, spent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--face-recognition", metavar="PYTHON", help="interpreter that has it")
    parser.add_argument("--lfw", type=Path, default=None, help="LFW's folder images")
    args = parser.parse_args()
    data = Path(os.environ.get("FACECORE_DATA", "../shared"))
    print("| job | " + " | ".join(LIBRARIES) + " |")
    print("|---" * (len(LIBRARIES) + 1) + "|")
    for job in JOBS:
        print(f"| {job} | " + " | ".join(str(lines(program(one, job))) for one in LIBRARIES) + " |")
    python = {"facecore": sys.executable, "face_recognition": args.face_recognition}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(args.lfw or data / "lfw/images", folder)
        for library, interpreter in python.items():
            for job in JOBS if interpreter else ():
                output, spent = run(program(library, job), interpreter, folder)
                print(f"\n{library}, {job}: {spent:.1f} s of processor time\n{output.strip()}")


if __name__ == "__main__":
    main()
