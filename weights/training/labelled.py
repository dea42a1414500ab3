"""Read real pictures with faces labelled by eye, and pictures of no face; hold out a quarter.

``$FACECORE_DATA/scenes`` holds ``scenes_train.tar.gz`` (``labels.csv``: file, x1, y1, x2, y2, kind;
`face`, `ignore`, or `none` for a scene without a known face) and ``negatives_train.tar.gz``
(``negatives.csv``: file, kind).  A quarter of both, by a hash of the file name, is held out: the
detector is trained on the rest, and ``python -m benchmarks detection`` measures on the quarter.  A
seventh of the rest is the development set: choices are made on it, and its labels are not learnt.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# Faces less than 20 pixels wide in held-out scenes, without a row in ``labels.csv``.  Every box
# without a label that a pack's detector returned there was inspected; these six show a face.
UNLABELLED = {
    "bikes_BikesHelmets37.jpg": (114, 58, 132, 80),
    "bikes_BikesHelmets481.jpg": (155, 69, 174, 93),
    "bikes_BikesHelmets630.jpg": (131, 16, 149, 38),
    "bikes_BikesHelmets725.jpg": (108, 16, 126, 38),
    "bikes_BikesHelmets762.jpg": (141, 21, 157, 44),
    "coco256_va_000000000885.jpg": (497, 26, 513, 47),
}


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3) BGR, its faces and its ignored boxes, (N, 4)."""

    name: str
    kind: str
    pixels: NDArray[np.uint8]
    faces: NDArray[np.float32]
    ignored: NDArray[np.float32]


def _drawn(name: str) -> int:
    """Return the number that assigns a file to a part.

    Windows cut out of one picture, ``parts_X_0.jpg`` and ``parts_X_1.jpg``, stay together.
    """
    if name.startswith("parts_"):
        name = re.sub(r"_\d+\.jpg$", "", name)
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)


def held_out(name: str) -> bool:
    """Whether this file is in the quarter that the detector is not trained on."""
    return _drawn(name) % 4 == 0


def development(name: str) -> bool:
    """Whether this file is in the development set: for choices, not for training."""
    return not held_out(name) and _drawn(name) // 4 % 7 == 0


def scenes(root: Path, *, held: bool | None = None) -> Iterator[Scene]:
    """Yield the scenes with labels; `held` chooses a part, None all."""
    pictures, rows = _read(root / "scenes" / "scenes_train.tar.gz", "labels.csv")
    boxes: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        kinds = boxes.setdefault(row["file"], {"face": [], "ignore": [], "none": []})
        if row["kind"] != "none":
            kinds[row["kind"]].append([float(row[side]) for side in ("x1", "y1", "x2", "y2")])
    for name in UNLABELLED.keys() & boxes.keys():
        boxes[name]["face"].append([float(side) for side in UNLABELLED[name]])
    for name, kinds in sorted(boxes.items()):
        if held in (None, held_out(name)):
            faces, ignored = (
                np.array(kinds[kind], np.float32).reshape(-1, 4) for kind in ("face", "ignore")
            )
            yield Scene(name, "scene", _decoded(pictures[name]), faces, ignored)


def blanks(root: Path, *, held: bool | None = None) -> Iterator[Scene]:
    """Yield the pictures without a human face; `Scene.kind` tells what they show."""
    pictures, rows = _read(root / "scenes" / "negatives_train.tar.gz", "negatives.csv")
    none = np.empty((0, 4), np.float32)
    for row in sorted(rows, key=lambda row: row["file"]):
        if held in (None, held_out(row["file"])):
            yield Scene(row["file"], row["kind"], _decoded(pictures[row["file"]]), none, none)


def _read(path: Path, table: str) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    with tarfile.open(path) as tar:
        files = {
            Path(member.name).name: handle.read()
            for member in tar
            if (handle := tar.extractfile(member)) is not None
        }
    return files, list(csv.DictReader(io.StringIO(files.pop(table).decode())))


def _decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
