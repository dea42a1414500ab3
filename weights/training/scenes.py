"""Step 1 of the detector: draw scenes with faces at many scales and rolls, and without faces.

A scene is 256x256.  It shows a photograph, an aligned crop, a labelled scene or a picture of no
face, zoomed, turned and shifted; or the inside of a face too large to be seen whole; or crops
pasted on textures, clutter and pictures of no face; or a crowd of photographs made small.  Some
faces wear a painted mask, dark glasses or a hood.

The labels are boxes and landmarks.  They turn with the picture, so landmarks stay exact at any
roll.  They come from YuNet's answers to the upright pictures.  In labelled scenes only answers that
overlap a labelled face count; the other labelled faces have no landmarks.

    python weights/training/scenes.py --out /somewhere/scenes
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from assignment import FACE, IGNORED, SIDE, SMALLEST
from data import ARCHIVES, crops, data_root, photographs
from labelled import blanks, development, scenes
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from facecore.face.detection import Detector, Face
from facecore.images.picture import Picture
from facecore.models.packs import load_pack
from facecore.models.session import create_session

MOST = 64  # faces a scene
TEXTURES = [
    *("coffee", "chelsea", "rocket", "brick", "grass", "gravel", "coins", "page"),
    *("moon", "text", "clock", "colorwheel", "immunohistochemistry", "hubble_deep_field"),
]
LARGEST, UNSEEN = 330.0, 420.0  # pixels: larger faces are ignored; from UNSEEN on, no label

Image = NDArray[np.uint8]
Labels = NDArray[np.float32]


def no_faces() -> Labels:
    return np.empty((0, 15), np.float32)


def rows_of(boxes: NDArray[np.float32], kind: int) -> Labels:
    """Return labels (N, 15): kind, box, and five landmarks that are unknown (NaN)."""
    rows = np.full((len(boxes), 15), np.nan, np.float32)
    rows[:, 0], rows[:, 1:5] = kind, boxes
    return rows


@dataclass
class Source:
    """A picture, and labels (N, 15) as in `rows_of`."""

    pixels: Image
    labels: Labels = field(default_factory=no_faces)

    @property
    def faces(self) -> Labels:
        return self.labels[self.labels[:, 0] == FACE]


class Teacher:
    """YuNet-n's answers to upright pictures."""

    def __init__(self, pack: str) -> None:
        loaded = load_pack(pack)
        session = create_session(loaded.detector, threads=1, name="detector")
        self.detector = Detector(session, loaded.pack.detector)

    def faces(self, pixels: Image) -> list[Face]:
        return self.detector.detect(Picture.of(pixels))

    def labels(self, pixels: Image, sure: float) -> Labels:
        """Return the labels of all faces; those below `sure` are `IGNORED`."""
        rows = [
            np.concatenate(
                [[FACE if face.confidence >= sure else IGNORED], face.box, face.landmarks.ravel()]
            )
            for face in self.faces(pixels)
        ]
        return np.array(rows, np.float32).reshape(-1, 15)


def turned(labels: Labels, matrix: NDArray[np.float64]) -> Labels:
    """Transform labels by a similarity (2, 3); a box becomes that of its turned ellipse."""
    rows = labels.copy()
    points = labels[:, 5:].reshape(-1, 5, 2) @ matrix[:, :2].T + matrix[:, 2]
    rows[:, 5:] = points.reshape(-1, 10)
    middle = (labels[:, 1:3] + labels[:, 3:5]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (labels[:, 3:5] - labels[:, 1:3]) / 2
    half = np.sqrt(half**2 @ (matrix[:, :2] ** 2).T)
    rows[:, 1:3], rows[:, 3:5] = middle - half, middle + half
    return rows


def judged(labels: Labels) -> Labels:
    """Return the labels of a scene; ignore faces that are too small, too large or cut off."""
    rows = labels.copy()
    sides = rows[:, 3:5] - rows[:, 1:3]
    size = np.sqrt(np.maximum(sides, 0).prod(axis=1))
    inside = np.minimum(rows[:, 3:5], SIDE) - np.maximum(rows[:, 1:3], 0)
    share = np.maximum(inside, 0).prod(axis=1) / np.maximum(size, 1e-3) ** 2
    rows = rows[(share > 0.1) & (size < UNSEEN)]
    share, size = share[(share > 0.1) & (size < UNSEEN)], size[(share > 0.1) & (size < UNSEEN)]
    rows[(share < 0.6) | (size < SMALLEST) | (size > LARGEST), 0] = IGNORED
    return rows


class Painter:
    """Draws scenes from the training pictures."""

    def __init__(self, rng: np.random.Generator, pack: str, crops_of_archive: int) -> None:
        self.rng, self.real = rng, not crops_of_archive
        root, teacher = data_root(), Teacher(pack)
        self.photographs = []
        for _, path in photographs(root) if crops_of_archive else ():
            pixels = np.asarray(cv2.imread(str(path)), np.uint8)
            self.photographs.append(Source(pixels, teacher.labels(pixels, 0.75)))
        self.crops = [
            found
            for archive in (ARCHIVES if crops_of_archive else ())
            for found in self.some_crops(teacher, archive, crops_of_archive)
        ]
        self.scenes = []
        for scene in scenes(root, held=False):
            if development(scene.name):
                continue
            labels = [
                rows_of(scene.ignored, IGNORED),
                self.taught(teacher, scene.pixels, scene.faces),
            ]
            self.scenes.append(Source(scene.pixels, np.concatenate(labels)))
        self.blanks = [
            Source(scene.pixels)
            for scene in blanks(root, held=False)
            if not development(scene.name)
        ]
        for name in TEXTURES:
            picture = getattr(skimage.data, name)()
            colour = cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR
            pixels = np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), colour), np.uint8)
            self.blanks.append(Source(pixels))

    def some_crops(self, teacher: Teacher, archive: str, most: int) -> list[Source]:
        found: list[Source] = []
        for _, crop in crops(data_root(), archives=[archive]):
            labels = teacher.labels(crop, 0.75)
            if len(labels) == 1 and labels[0, 0] == FACE:
                found.append(Source(crop, labels))
            if len(found) == most:
                break
        return found

    @staticmethod
    def taught(teacher: Teacher, pixels: Image, boxes: NDArray[np.float32]) -> Labels:
        """Label the faces in `boxes`, with the teacher's box and landmarks where it sees them."""
        rows = rows_of(boxes, FACE)
        for face in teacher.faces(pixels):
            low, high = (
                np.maximum(boxes[:, :2], face.box[:2]),
                np.minimum(boxes[:, 2:], face.box[2:]),
            )
            shared = np.maximum(high - low, 0).prod(axis=1)
            both = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + face.size**2 - shared
            if len(boxes) and (shared / both).max() > 0.45:
                at = int((shared / both).argmax())
                rows[at, 1:5], rows[at, 5:] = face.box, face.landmarks.ravel()
        return rows

    def pick(self, sources: list[Source]) -> Source:
        return sources[self.rng.integers(len(sources))]

    def roll(self) -> float:
        """Draw a roll in degrees, -45..45 or normal with a deviation of 12."""
        return float(
            self.rng.normal(0, 12) if self.rng.random() < 0.6 else self.rng.uniform(-45, 45)
        )

    def warp(
        self, source: Source, scale: float, point: NDArray[np.float32], at: NDArray[np.float64],
        border: int, angle: float,
    ) -> tuple[Image, Labels]:  # fmt: skip
        """Scale and turn the source, with its `point` at `at`."""
        pixels, labels = source.pixels, source.labels
        if scale < 0.6:  # area averaging first, against aliasing
            first = scale * 1.5
            pixels = np.asarray(
                cv2.resize(pixels, None, fx=first, fy=first, interpolation=cv2.INTER_AREA), np.uint8
            )
            ratio = np.array(pixels.shape[1::-1]) / np.array(source.pixels.shape[1::-1])
            labels = labels.copy()
            labels[:, 1:] *= np.tile(ratio, 7)
            point, scale = point * ratio, scale / first
        matrix = cv2.getRotationMatrix2D(tuple(map(float, point)), angle, scale)
        matrix[:, 2] += at - point
        colour = self.rng.uniform(0, 255, 3) if pixels.shape[2] == 3 else np.zeros(4)
        kind = cv2.INTER_LINEAR if scale < 1.5 or self.rng.random() < 0.5 else cv2.INTER_CUBIC
        drawn = cv2.warpAffine(
            pixels, matrix, (SIDE, SIDE), flags=kind, borderMode=border,
            borderValue=tuple(map(float, colour)),
        )  # fmt: skip
        return np.asarray(drawn, np.uint8), turned(labels, matrix)

    def dressed(self, source: Source) -> Source:
        """Paint masks, dark glasses or a hood on the faces of some sources."""
        chance = self.rng.random()
        if chance > 0.4 or not len(source.faces):
            return source
        pixels = source.pixels.copy()
        for row in source.faces:
            eyes, mouth = (row[5:9].reshape(2, 2), row[11:15].reshape(2, 2))
            if np.isnan(row[5:]).any():
                continue
            across, down = eyes[1] - eyes[0], mouth.mean(axis=0) - eyes.mean(axis=0)
            middle, nose = eyes.mean(axis=0), row[9:11]
            if chance < 0.22:
                self.mask(pixels, middle, nose, across, down)
            if 0.17 < chance < 0.34:
                self.glasses(pixels, eyes, across, down)
            if chance > 0.34:
                self.hood(pixels, row[1:5], across)
        return Source(pixels, source.labels)

    def paint(self, pixels: Image, shape: Image, colour: NDArray[np.float64]) -> None:
        """Blend a textured colour in where `shape` is set."""
        height, width = shape.shape
        light = cv2.resize(
            self.rng.normal(1, 0.12, (6, 6)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        if self.rng.random() < 0.3:  # a pattern
            light = light + cv2.resize(self.rng.normal(0, 0.3, (24, 24)), (width, height))
        cover = np.clip(colour * light[..., None], 0, 255)
        alpha = cv2.GaussianBlur(shape, (3, 3), 0)[..., None] / 255 * self.rng.uniform(0.85, 1)
        pixels[:] = (pixels + alpha * (cover - pixels)).astype(np.uint8)

    def mask(
        self, pixels: Image, middle: Labels, nose: Labels, across: Labels, down: Labels
    ) -> None:
        wide, top, chin = self.rng.uniform((0.75, 0.3, 1.45), (1.0, 0.6, 1.9))
        bridge = middle + (nose - middle) * self.rng.uniform(0.35, 0.9)
        corners = [
            middle + top * down - wide * across, bridge, middle + top * down + wide * across,
            middle + 1.2 * down + 0.8 * wide * across, middle + chin * down + 0.35 * across,
            middle + chin * down - 0.35 * across, middle + 1.2 * down - 0.8 * wide * across,
        ]  # fmt: skip
        shape = np.zeros(pixels.shape[:2], np.uint8)
        cv2.fillPoly(shape, [np.round(corners).astype(np.int32)], 255, cv2.LINE_AA)
        usual = np.array([(230, 225, 215), (215, 190, 140), (40, 40, 40), (180, 200, 160)], float)
        colour = (
            usual[self.rng.integers(4)] if self.rng.random() < 0.7 else self.rng.uniform(0, 255, 3)
        )
        self.paint(pixels, shape, colour)

    def glasses(self, pixels: Image, eyes: Labels, across: Labels, down: Labels) -> None:
        far = float(np.hypot(*across))
        angle = float(np.degrees(np.arctan2(across[1], across[0])))
        shape = np.zeros(pixels.shape[:2], np.uint8)
        wide, high = self.rng.uniform((0.3, 0.22), (0.46, 0.4)) * far
        for eye in eyes + 0.08 * down:
            place, axes = (
                tuple(map(round, map(float, eye))),
                (max(1, round(wide)), max(1, round(high))),
            )
            cv2.ellipse(shape, place, axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
        ends = [
            tuple(map(round, map(float, p)))
            for p in (eyes[0] - 0.5 * across, eyes[1] + 0.5 * across)
        ]
        cv2.line(shape, ends[0], ends[1], 255, max(1, round(0.06 * far)), cv2.LINE_AA)
        self.paint(pixels, shape, self.rng.uniform(0, 70, 3))

    def hood(self, pixels: Image, box: Labels, across: Labels) -> None:
        """Paint cloth around the face."""
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        angle = float(np.degrees(np.arctan2(across[1], across[0])))
        shape = np.zeros(pixels.shape[:2], np.uint8)
        for grow, value in ((self.rng.uniform(1.4, 1.9), 255), (self.rng.uniform(0.92, 1.1), 0)):
            axes = tuple(max(1, round(float(side * grow))) for side in half)
            place = tuple(map(round, map(float, middle)))
            cv2.ellipse(shape, place, axes, angle, 0, 360, value, -1, cv2.LINE_AA)
        self.paint(pixels, shape, self.rng.uniform(0, 255, 3))

    def zoomed(self) -> tuple[Image, Labels]:
        """Draw one picture, with one of its faces at 14 to 330 pixels."""
        of = 2 if self.real else self.rng.choice(3, p=[0.4, 0.2, 0.4])
        source = self.pick([self.photographs, self.crops, self.scenes][of])
        faces = source.faces
        if not len(faces):
            return self.blank(source)
        if of < 2 or self.rng.random() < 0.15:
            source = self.dressed(source)
        row = faces[self.rng.integers(len(faces))]
        own = float(np.sqrt((row[3:5] - row[1:3]).prod()))
        largest = min(LARGEST, 4 * own) if of else LARGEST
        size = np.exp(self.rng.uniform(np.log(14), np.log(largest)))
        wander = max(20.0, SIDE / 2 - 0.3 * size)
        at = SIDE / 2 + self.rng.uniform(-1, 1, 2) * wander
        border = int(self.rng.choice((cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)))
        return self.warp(source, size / own, (row[1:3] + row[3:5]) / 2, at, border, self.roll())

    def whole(self) -> tuple[Image, Labels]:
        """Draw a labelled scene, from a window to the whole with a margin, as the passes see it."""
        source = self.pick(self.scenes)
        sides = np.array(source.pixels.shape[1::-1])
        scale = np.exp(self.rng.uniform(np.log(0.6), np.log(3))) * SIDE / float(sides.max())
        point = self.rng.uniform(0.2, 0.8, 2) * sides
        border, angle = cv2.BORDER_CONSTANT, float(self.rng.normal(0, 5))
        return self.warp(source, scale, point, np.full(2, SIDE / 2), border, angle)

    def inside(self) -> tuple[Image, Labels]:
        """Draw a part of a face of 350 to 1,000 pixels."""
        source = self.pick(self.photographs if self.rng.random() < 0.6 else self.crops)
        if not len(source.faces):
            return self.blank()
        row = source.faces[0]
        own = float(np.sqrt((row[3:5] - row[1:3]).prod()))
        size = np.exp(self.rng.uniform(np.log(350), np.log(1000)))
        point = row[1:3] + self.rng.uniform(-0.1, 1.1, 2) * (row[3:5] - row[1:3])
        middle = np.full(2, SIDE / 2)
        source = self.dressed(source)
        return self.warp(source, size / own, point, middle, cv2.BORDER_REPLICATE, self.roll())

    def blank(self, source: Source | None = None) -> tuple[Image, Labels]:
        """Draw a picture of no face, from a part of it to all of it, or clutter."""
        if source is None:
            if self.rng.random() < 0.12:
                return self.clutter(), no_faces()
            source = self.pick(self.blanks)
        sides = np.array(source.pixels.shape[1::-1])
        scale = np.exp(self.rng.uniform(np.log(0.5), np.log(4))) * SIDE / float(sides.max())
        point = self.rng.uniform(0.2, 0.8, 2) * sides
        border = cv2.BORDER_REPLICATE if len(source.labels) else cv2.BORDER_REFLECT_101
        return self.warp(source, scale, point, np.full(2, SIDE / 2), border, self.roll())

    def clutter(self) -> Image:
        """Draw random lines, discs and polygons in random colours."""
        scene = np.full((SIDE, SIDE, 3), self.rng.integers(0, 256, 3), np.uint8)
        for _ in range(self.rng.integers(5, 60)):
            colour = tuple(map(int, self.rng.integers(0, 256, 3)))
            points = self.rng.integers(0, SIDE, (self.rng.integers(2, 6), 1, 2)).astype(np.int32)
            kind = self.rng.random()
            if kind < 0.4:
                cv2.polylines(scene, [points], kind < 0.2, colour, int(self.rng.integers(1, 8)))
            elif kind < 0.7:
                radius = int(self.rng.integers(2, 40))
                cv2.circle(scene, tuple(map(int, points[0, 0])), radius, colour, -1, cv2.LINE_AA)
            else:
                cv2.fillPoly(scene, [points], colour, cv2.LINE_AA)
        return np.asarray(cv2.GaussianBlur(scene, (0, 0), self.rng.uniform(0.3, 3)), np.uint8)

    def background(self) -> Image:
        if self.rng.random() < 0.7:
            return self.blank()[0]
        ends = self.rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        return np.asarray(cv2.resize(ends, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)

    def free(self, labels: list[Labels], at: NDArray[np.float64], size: float) -> bool:
        """Whether no face drawn before is near."""
        return all(
            (np.abs((row[1:3] + row[3:5]) / 2 - at) > (size + row[3:5] - row[1:3]) * 0.6).any()
            for rows in labels
            for row in rows
        )

    def pasted(self) -> tuple[Image, Labels]:
        """Paste up to eight crops on a background, some of them feathered, each with a roll."""
        scene, labels = self.background(), [no_faces()]
        for _ in range(self.rng.integers(1, 9)):
            source = self.dressed(self.pick(self.crops))
            row = source.faces[0]
            own = float(np.sqrt((row[3:5] - row[1:3]).prod()))
            size = np.exp(self.rng.uniform(np.log(14), np.log(150)))
            at = self.rng.uniform(0, SIDE, 2)
            if not self.free(labels, at, 1.4 * size):
                continue
            cover = np.full((128, 128, 1), 255, np.uint8)
            if self.rng.random() < 0.5:
                cover[:] = 0
                cv2.ellipse(cover, (64, 64), (58, 64), 0, 0, 360, 255, -1)
            layered = Source(np.dstack([source.pixels, cover]), source.labels)
            middle = (row[1:3] + row[3:5]) / 2
            layer, rows = self.warp(
                layered, size / own, middle, at, cv2.BORDER_CONSTANT, self.roll()
            )
            alpha = layer[..., 3:].astype(np.float32) / 255
            scene = (scene + alpha * (layer[..., :3].astype(np.float32) - scene)).astype(np.uint8)
            labels.append(rows)
        return scene, np.concatenate(labels)

    def crowd(self) -> tuple[Image, Labels]:
        """Draw small whole photographs: faces of 10 to 60 pixels with their surroundings."""
        scene, labels = self.background(), [no_faces()]
        taken = np.zeros((SIDE, SIDE), bool)
        for _ in range(self.rng.integers(3, 16)):
            source = self.dressed(self.pick(self.photographs))
            side = int(np.exp(self.rng.uniform(np.log(28), np.log(130))))
            x, y = self.rng.integers(0, SIDE - side, 2)
            if taken[y : y + side, x : x + side].any():
                continue
            taken[y : y + side, x : x + side] = True
            scale = side / source.pixels.shape[0]
            small = cv2.resize(source.pixels, (side, side), interpolation=cv2.INTER_AREA)
            scene[y : y + side, x : x + side] = small
            labels.append(turned(source.labels, np.array([[scale, 0.0, x], [0.0, scale, y]])))
        return scene, np.concatenate(labels)

    def scene(self) -> tuple[Image, Labels]:
        """Draw a picture (256, 256, 3) with its labels (N, 15)."""
        kinds = [self.zoomed, self.whole, self.blank, self.pasted, self.crowd, self.inside]
        shares = [0.35, 0.35, 0.3, 0, 0, 0] if self.real else [0.4, 0.15, 0.2, 0.08, 0.1, 0.07]
        picture, labels = kinds[self.rng.choice(6, p=shares)]()
        labels = judged(labels)
        order = np.argsort(-(labels[:, 3:5] - labels[:, 1:3]).prod(axis=1))
        return picture, labels[order[:MOST]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", default="mobilefacenet", help="the pack with YuNet-n")
    parser.add_argument("--count", type=int, default=16_000)
    parser.add_argument(
        "--crops", type=int, default=500, help="of each archive; 0: only labelled scenes and blanks"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    painter = Painter(np.random.default_rng(args.seed), args.teacher, args.crops)
    images = open_memmap(args.out / "images.npy", "w+", np.uint8, (args.count, SIDE, SIDE, 3))
    labels = open_memmap(args.out / "labels.npy", "w+", np.float32, (args.count, MOST, 15))
    for i in tqdm(range(args.count), desc="scenes", disable=not sys.stderr.isatty()):
        images[i], rows = painter.scene()
        labels[i, : len(rows)] = rows
        if i % 500 == 499:
            (args.out / "done").write_text(str(i + 1))  # a training may start on these
    (args.out / "done").write_text(str(args.count))


if __name__ == "__main__":
    main()
