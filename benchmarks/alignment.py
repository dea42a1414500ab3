"""Which detector's landmarks give the best recognition: all packs' detectors, one embedder.

Compares all pairs of the 2,853 LFW pictures that no test pair uses.  Also prints, relative to the
distance between the eyes, how far the landmarks move when the detector sees the picture 1.28
times as large, and their distance from YuNet-n's.

    python -m benchmarks alignment
    python -m benchmarks alignment --pairs    # only the last figure, on the test pairs
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facecore import FaceEngine, images
from facecore.evaluation.metrics import tar_at_far
from facecore.evaluation.readers import read_lfw_pairs
from facecore.face.alignment import align
from facecore.face.embedding import Embedder
from facecore.models.packs import load_pack
from facecore.models.session import open_model

REFERENCE = "mobilefacenet"
ENLARGED = 1.28


def eyes(points: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(points[0] - points[1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", action="store_true", help="only the last figure")
    args = parser.parse_args()
    root = Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2] / "shared")) / "lfw"
    if not root.is_dir():
        raise SystemExit(f"{root} is not there; set FACECORE_DATA")
    tested = {name for pair in read_lfw_pairs(root / "pairs.txt") for name in pair[2:]}
    paths = sorted((root / "images").glob("*/*.jpg"))
    paths = [path for path in paths if f"{path.parent.name}/{path.name}" not in tested]
    if args.pairs:
        of_pairs([root / "images" / name for name in sorted(tested)])
        return
    people = np.array([path.parent.name for path in paths])
    row, column = np.triu_indices(len(paths), 1)
    same = people[row] == people[column]

    loaded = load_pack(REFERENCE)
    embedder = Embedder(open_model(loaded.pack.embedder, loaded.embedder), loaded.pack.embedder)
    found: dict[str, NDArray[np.float32]] = {}
    for name in (REFERENCE, "compact"):
        engine = FaceEngine(name)
        landmarks, vectors, moved = [], [], []
        for path in tqdm(paths, desc=name, disable=not sys.stderr.isatty()):
            picture = images.load(path)
            points = engine.sample(picture, face="central").face.landmarks
            larger = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED)
            again = engine.sample(np.asarray(larger, np.uint8), face="central").face.landmarks
            distance = np.linalg.norm(again / ENLARGED - points, axis=1).mean()
            moved.append(distance / eyes(points))
            landmarks.append(points)
            vectors.append(embedder.embed(align(picture, points)[None])[0])
        found[name] = np.array(landmarks)
        unit = np.array(vectors)
        similarity = (unit @ unit.T)[row, column]
        genuine, impostor = similarity[same], similarity[~same]
        rates = ", ".join(
            f"{tar_at_far(genuine, impostor, far):.2%} at FAR {far:.2%}" for far in (0.001, 0.0001)
        )
        print(f"{name:14} TAR {rates}; enlarged, the landmarks move by {np.median(moved):.1%}")
    print_distance(found["compact"], found[REFERENCE])


def of_pairs(paths: list[Path]) -> None:
    """Measure the distance to YuNet-n's landmarks on test pictures (no tuning on these)."""
    ours, theirs = FaceEngine("compact"), FaceEngine(REFERENCE)
    points = [
        [engine.sample(picture, face="central").face.landmarks for engine in (ours, theirs)]
        for picture in tqdm(map(images.load, paths), total=len(paths), disable=None)
    ]
    print_distance(*np.array(points).swapaxes(0, 1))


def print_distance(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    away = np.linalg.norm(ours - theirs, axis=2).mean(axis=1)
    away = away / np.array([eyes(points) for points in theirs])
    print(
        f"compact's landmarks lie {away.mean():.1%} of the distance between the eyes from "
        f"{REFERENCE}'s on average, {np.median(away):.1%} in the median ({len(away):,} pictures)"
    )


if __name__ == "__main__":
    main()
