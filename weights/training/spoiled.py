"""Make aligned crops of spoiled pictures for `facecore.evaluation.recognizability`.

The pictures are training crops of every archive, with a blurred border, and LFW's photographs that
no test pair uses.  A group of 24 from one archive is kept unchanged and spoiled at random a few
times, the whole group in the same way.  The landmarks of a copy are those of the original, moved as
a detector moves them on a poor picture.  The second part shows people on whom nothing is trained.
A third of its groups is also spoiled by every row of the table, and these copies go through the
detector of ``compact``.  The file holds no vectors, so it serves every embedder.

    python weights/training/spoiled.py --out RUN/spoiled
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from data import crops, data_root, person_of, photographs
from numpy.typing import NDArray

from facecore import FaceEngine, images
from facecore.errors import FacecoreError
from facecore.evaluation.spoiled_crops import ALIKE, ORIGINAL, spoiled_alike
from facecore.evaluation.spoiling import ROWS
from facecore.face.alignment import TEMPLATE, align
from facecore.face.detection import Face

FRAME = 240  # pixels of the picture around a crop


def framed(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a 128x128 crop in the middle of a picture, surrounded by a blurred copy of itself."""
    wide = cv2.GaussianBlur(cv2.resize(crop, (FRAME, FRAME)), (0, 0), 9)
    edge = (FRAME - len(crop)) // 2
    wide[edge : edge + len(crop), edge : edge + len(crop)] = crop
    return np.asarray(wide, np.uint8)


def groups(
    engine: FaceEngine, held_out: bool, most: int
) -> Iterator[list[tuple[str, NDArray[np.uint8], Face]]]:
    """Yield groups of (person, picture, face) of one archive; a third are LFW's photographs."""
    root, rng = data_root(), np.random.default_rng(held_out)
    share = min(1.0, (most * 2 / 3) / (5_800 if held_out else 52_000))
    edge = (FRAME - 128) // 2 + 8
    known = Face(np.array([15.7, 8.7, 96, 120], np.float32) + edge,
                 (TEMPLATE + edge).astype(np.float32), 1.0)  # fmt: skip
    of_archive: dict[str, list[tuple[str, NDArray[np.uint8]]]] = {}
    for name, crop in crops(root, development=held_out):
        if rng.random() < share:
            of_archive.setdefault(name.partition("/")[0], []).append((person_of(name), crop))
    for some in of_archive.values():
        order = rng.permutation(len(some))
        for i in range(0, len(some) - ALIKE // 2, ALIKE):
            yield [(*(some[k][0], framed(some[k][1])), known) for k in order[i : i + ALIKE]]
    whole = list(photographs(root, calibration=held_out))
    ready = []
    for i in rng.permutation(len(whole))[: most // 3]:
        picture = images.load(whole[i][1])
        with suppress(FacecoreError):
            ready.append((whole[i][0], picture, engine.sample(picture, face="central").face))
        if len(ready) == ALIKE:
            yield ready
            ready = []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=4500)
    parser.add_argument("--held-out", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    engine, rng = FaceEngine(threads=1, min_recognizability=0), np.random.default_rng(1)
    pixels: list[NDArray[np.uint8]] = []
    labels: list[tuple[bool, str, int, str, int]] = []
    pictures = group = 0
    for held_out, most in ((False, args.train), (True, args.held_out)):
        for number, some in enumerate(groups(engine, held_out, most)):
            shown = [(picture, face) for _, picture, face in some]
            made: list[tuple[str, list[NDArray[np.uint8] | None]]] = [
                (ORIGINAL, [align(picture, face.landmarks) for picture, face in shown])
            ]
            for _ in range(args.copies):
                kind, spoilt = spoiled_alike(shown, rng)
                made.append((kind, [*spoilt]))
            for row in list(ROWS)[1:] if held_out and number % 3 == 0 else ():
                found: list[NDArray[np.uint8] | None] = []
                for place, (picture, face) in enumerate(shown):
                    try:
                        spoilt_picture = ROWS[row].apply(picture, face, seed=pictures + place)
                        found.append(engine.sample(spoilt_picture, face="central").crop)
                    except FacecoreError:
                        found.append(None)
                made.append((row, found))
            for kind, of_kind in made:
                for place, crop in enumerate(of_kind):
                    if crop is not None:
                        pixels.append(crop)
                        labels.append((held_out, some[place][0], pictures + place, kind, group))
                group += 1
            pictures += len(some)
            if number % 20 == 0:
                print(f"{len(pixels)} crops, held out: {held_out}", flush=True)
    np.save(args.out / "crops.npy", np.stack(pixels))
    names = ("held_out", "person", "picture", "kind", "group")
    np.savez(args.out / "labels.npz", **dict(zip(names, zip(*labels, strict=True), strict=True)))
    print(f"{len(pixels)} crops in {args.out}")


if __name__ == "__main__":
    main()
