"""Detectors on real scenes: recall, false and nested faces, the largest face, rolls.

Reads the labelled scenes and the pictures without faces in FACECORE_DATA/scenes, by default the
held-out quarter (weights/training/labelled.py).  A face counts if it is at least 20 pixels wide.
It is found if a box overlaps it by 0.4 or more (intersection over union).  A box is false if it
matches no labelled face and does not lie in an ignored area, and nested if more than half of it
also lies in a labelled face.  The roll test turns London's and LFW's pictures (not those of the
test pairs) by multiples of 45 degrees and compares the landmarks with the turned upright ones.

    python -m benchmarks detection --figure detection.png
    python -m benchmarks detection --all       # with the pictures that compact was trained on
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks._measuring import DATA, arguments, machine, write_json
from benchmarks._pictures import lfw, london
from facecore import Face, FaceEngine, images
from facecore.errors import NoFaceDetected

sys.path.insert(0, str(Path(__file__).parents[1] / "weights" / "training"))
from data import tested_pictures
from labelled import Scene, blanks, scenes

Array = np.ndarray[Any, Any]
SAME = 0.4
WIDTHS = (20, 40, 80, 160, 10_000)
ANIMALS = ("dogcat", "raccoon", "kangaroo", "hires_mel")


def shared(boxes: Array, others: Array) -> Array:
    """Return the intersections (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.maximum(high - low, 0).prod(axis=2))


def area(boxes: Array) -> Array:
    return np.asarray(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def matched(found: Array, wanted: Array) -> Array:
    """Match each box, best first, to the free face that it overlaps most; -1 for none."""
    both = shared(found, wanted)
    overlaps = both / (area(found)[:, None] + area(wanted)[None] - both + 1e-9)
    answer = np.full(len(found), -1)
    for i in range(len(found)):
        if len(wanted) and overlaps[i].max() >= SAME:
            answer[i] = overlaps[i].argmax()
            overlaps[:, answer[i]] = 0
    return answer


class Count:
    """Counts of one detector's hits and errors on the scenes."""

    def __init__(self) -> None:
        self.pictures = self.false = self.nested = 0
        self.largest_wrong = self.largest_none = self.with_largest = 0
        self.faces: Counter[int] = Counter()
        self.found: Counter[int] = Counter()
        self.ranked: list[tuple[float, bool]] = []  # confidence, and whether it is a face

    def add(self, scene: Scene, faces: Sequence[Face], largest: Face | None) -> None:
        self.pictures += 1
        faces = sorted(faces, key=lambda face: -face.confidence)
        boxes = np.array([face.box for face in faces]).reshape(-1, 4)
        meets = matched(boxes, scene.faces)
        ignored = self.ignored(scene, boxes)
        in_face = shared(boxes, scene.faces) / np.maximum(area(boxes), 1e-9)[:, None]
        wide = scene.faces[:, 2] - scene.faces[:, 0]
        for i, face in enumerate(faces):
            if meets[i] < 0 and not ignored[i]:
                self.false += 1
                self.nested += bool(in_face[i].max(initial=0) > 0.5)
                self.ranked.append((face.confidence, False))
            elif meets[i] >= 0 and wide[meets[i]] >= WIDTHS[0]:
                self.ranked.append((face.confidence, True))
        for k, width in enumerate(wide):
            band = int(np.searchsorted(WIDTHS, width, side="right")) - 1
            self.faces[band] += 1
            self.found[band] += bool((meets == k).any())
        if (wide >= WIDTHS[0]).any() and not len(scene.ignored):
            self.with_largest += 1
            if largest is None:
                self.largest_none += 1
            else:
                self.largest_wrong += bool(matched(largest.box[None], scene.faces)[0] < 0)

    @staticmethod
    def ignored(scene: Scene, boxes: Array) -> Array:
        if not len(scene.ignored):
            return np.zeros(len(boxes), bool)
        inside = shared(boxes, scene.ignored) / np.maximum(area(boxes), 1e-9)[:, None]
        return np.asarray(inside.max(axis=1) > 0.4)

    def rows(self) -> dict[str, Any]:
        """Return the figures by name."""
        bands = range(len(WIDTHS) - 1)
        counted = sum(self.faces[k] for k in bands)
        recall = sum(self.found[k] for k in bands) / max(1, counted)
        names = [f"{a}-{b}" for a, b in pairwise(WIDTHS[:-1])] + [">160"]
        return {
            "scenes": self.pictures,
            "faces of 20 pixels or more": counted,
            "recall": round(recall, 3),
            **{
                f"recall, {name} px wide ({self.faces[k]})": round(
                    self.found[k] / max(1, self.faces[k]), 3
                )
                for k, name in zip(bands, names, strict=True)
            },
            "false faces a picture": round(self.false / max(1, self.pictures), 3),
            "nested, in all": self.nested,
            "largest face false or none": round(
                (self.largest_wrong + self.largest_none) / max(1, self.with_largest), 3
            ),
        }


def on_scenes(engine: FaceEngine, pictures: Iterable[Scene]) -> Count:
    count = Count()
    for scene in pictures:
        largest = None
        with contextlib.suppress(NoFaceDetected):
            largest = engine.largest_face(scene.pixels)
        count.add(scene, engine.detect(scene.pixels), largest)
    return count


def on_blanks(engine: FaceEngine, pictures: Iterable[Scene]) -> dict[str, Any]:
    """Return the share of pictures without faces that have a detection, by kind of picture."""
    all_: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for scene in pictures:
        for kind in (scene.kind, "animals" if scene.kind in ANIMALS else "no animals"):
            all_[kind] += 1
            wrong[kind] += bool(engine.detect(scene.pixels))
    return {
        f"blank, {kind} ({all_[kind]})": round(wrong[kind] / all_[kind], 3)
        for kind in ("no animals", "animals", *sorted(set(all_) - {"no animals", "animals"}))
    }


def turned(pixels: Array, degrees: float) -> tuple[Array, Array]:
    """Turn a picture about its centre on a larger canvas; return it and the matrix (2, 3)."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    outer = np.abs(matrix[:, :2]) @ (width, height)
    matrix[:, 2] += outer / 2 - (width / 2, height / 2)
    size = tuple(round(side) for side in outer)
    return np.asarray(cv2.warpAffine(pixels, matrix, size)), np.asarray(matrix)


def on_rolls(engine: FaceEngine, paths: Sequence[Path]) -> dict[str, Any]:
    """Return, by roll, the share found and the landmark errors in eye distances."""
    missed: Counter[int] = Counter()
    errors: dict[int, list[float]] = {}
    for path in paths:
        picture = np.asarray(images.load(path))
        upright = engine.sample(picture, face="central").face
        eyes = np.linalg.norm(upright.landmarks[0] - upright.landmarks[1])
        for degrees in range(0, 360, 45):
            pixels, matrix = turned(picture, degrees)
            wanted = upright.landmarks @ matrix[:, :2].T + matrix[:, 2]
            near = [
                float(np.linalg.norm(face.landmarks - wanted, axis=1).mean() / eyes)
                for face in engine.detect(pixels)
                if np.linalg.norm(face.landmarks.mean(0) - wanted.mean(0)) < 0.8 * eyes
            ]
            missed[degrees] += not near
            errors.setdefault(degrees, []).extend(near[:1])
    return {
        f"roll {degrees}": {
            "found": round(1 - missed[degrees] / len(paths), 3),
            "error, median": round(float(np.median(found)), 4) if found else None,
            "error, 90 %": round(float(np.quantile(found, 0.9)), 4) if found else None,
        }
        for degrees, found in errors.items()
    }


def draw(counts: dict[str, Count], path: Path) -> None:
    """Plot precision over recall, for the confidences above the packs' thresholds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    for name, count in counts.items():
        ranked = sorted(count.ranked, reverse=True)
        true = np.cumsum([is_face for _, is_face in ranked])
        faces = sum(n for band, n in count.faces.items() if band >= 0)
        axes.plot(true / faces, true / np.arange(1, len(true) + 1), label=name)
    axes.set(xlabel="recall, faces of 20 pixels or more", ylabel="precision", ylim=(0.5, 1.01))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--packs", nargs="+", default=["compact", "mobilefacenet"])
    parser.add_argument("--all", action="store_true", help="also pictures that were trained on")
    parser.add_argument("--rolls", type=int, default=60, help="pictures of each set to turn")
    parser.add_argument("--figure", type=Path, help="write precision over recall there")
    args = parser.parse_args()
    if not (DATA / "scenes").is_dir():
        raise SystemExit(f"{DATA / 'scenes'} is not there; set FACECORE_DATA")
    held = None if args.all else True
    tested = tested_pictures(DATA)
    free = [path for path in lfw() if f"{path.parent.name}/{path.name}" not in tested]
    sets = {"London": london(), "LFW": free}
    counts, results = {}, {}
    for name in args.packs:
        engine = FaceEngine(name)
        counts[name] = on_scenes(engine, scenes(DATA, held=held))
        rows = counts[name].rows() | on_blanks(engine, blanks(DATA, held=held))
        for title, paths in sets.items():
            some = paths[:: max(1, len(paths) // max(1, args.rolls))][: args.rolls]
            rows |= {f"{title}, {k}": v for k, v in on_rolls(engine, some).items()}
        results[name] = rows
    print(f"| | {' | '.join(args.packs)} |\n|{'---|' * (len(args.packs) + 1)}")
    for row in results[args.packs[0]]:
        values = (results[name][row] for name in args.packs)
        cells = [" / ".join(map(str, v.values())) if isinstance(v, dict) else v for v in values]
        print(f"| {row} | {' | '.join(map(str, cells))} |")
    if args.figure:
        draw(counts, args.figure)
    write_json(args.json, machine(), results=results)


if __name__ == "__main__":
    main()
