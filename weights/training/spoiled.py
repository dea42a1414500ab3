"""Aligned crops of spoiled pictures: what `facecore.evaluation.recognizability` learns from.

Pictures are training crops of every archive, put before their own blurred border, and LFW's
photographs that no test pair uses.  Each is kept as it is and spoiled at random a few times
(`facecore.evaluation.spoiling`); the landmarks of a copy are those of the original, moved as a
detector moves them on a poor picture.  The people of the second part are those that nothing is
trained on; a third of their pictures are also spoiled by every row of the table, and these copies
go through the detector of ``compact``.  No vector is kept: the file serves every embedder.

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
from facecore.evaluation.recognizability import ORIGINAL, spoiled_crops
from facecore.evaluation.spoiling import ROWS
from facecore.face.alignment import TEMPLATE, align
from facecore.face.detection import Face

FRAME = 240  # pixels of the picture around a crop


def framed(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A 128x128 crop in the middle of a picture, its surroundings a blur of itself."""
    wide = cv2.GaussianBlur(cv2.resize(crop, (FRAME, FRAME)), (0, 0), 9)
    edge = (FRAME - len(crop)) // 2
    wide[edge : edge + len(crop), edge : edge + len(crop)] = crop
    return np.asarray(wide, np.uint8)


def pictures(
    engine: FaceEngine, held_out: bool, most: int
) -> Iterator[tuple[str, NDArray[np.uint8], Face]]:
    """(person, picture, its face), a third of them photographs of LFW."""
    root, rng = data_root(), np.random.default_rng(held_out)
    share = min(1.0, (most * 2 / 3) / (5_800 if held_out else 52_000))
    edge = (FRAME - 128) // 2 + 8
    known = Face(np.array([15.7, 8.7, 96, 120], np.float32) + edge,
                 (TEMPLATE + edge).astype(np.float32), 1.0)  # fmt: skip
    for name, crop in crops(root, development=held_out):
        if rng.random() < share:
            yield person_of(name), framed(crop), known
    whole = list(photographs(root, calibration=held_out))
    for i in rng.permutation(len(whole))[: most // 3]:
        picture = images.load(whole[i][1])
        with suppress(FacecoreError):
            yield whole[i][0], picture, engine.sample(picture, face="central").face


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=1800)
    parser.add_argument("--copies", type=int, default=3)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    engine, rng = FaceEngine(threads=1), np.random.default_rng(1)
    pixels, labels = [], []
    for held_out, most in ((False, args.train), (True, args.held_out)):
        for number, (person, picture, face) in enumerate(pictures(engine, held_out, most)):
            kept = [(ORIGINAL, align(picture, face.landmarks))]
            kept += spoiled_crops(picture, face, rng, args.copies)
            for row in list(ROWS)[1:] if held_out and number % 4 == 0 else ():
                with suppress(FacecoreError):
                    spoilt = ROWS[row].apply(picture, face, seed=number)
                    kept.append((row, engine.sample(spoilt, face="central").crop))
            pixels += [crop for _, crop in kept]
            labels += [(held_out, person, number, kind) for kind, _ in kept]
            if number % 300 == 0:
                print(f"{len(pixels)} crops, held out: {held_out}", flush=True)
    np.save(args.out / "crops.npy", np.stack(pixels))
    columns = list(zip(*labels, strict=True))
    np.savez(args.out / "labels.npz", held_out=columns[0], person=columns[1], picture=columns[2],
             kind=columns[3])  # fmt: skip
    print(f"{len(pixels)} crops in {args.out}")


if __name__ == "__main__":
    main()
