"""Step 1 of the liveness classifier: genuine presentations and simulated attacks.

Scenes are LFW pictures that no test pair uses, StyleGAN2 faces and, so that sharp large
pictures are genuine too, textures and photographs of scikit-image without faces.  Of the genuine
presentations a quarter are such pictures as they are, resized or turned, and two fifths were
enlarged with fine structure and reduced again; the rest went through the simulated camera, as
all attacks did.

    python weights/training/presentations.py --out DIR --count 4000 --seed 1
    python weights/training/presentations.py --out DIR --count 500 --seed 6 --genuine
"""

from __future__ import annotations

import argparse
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from camera import Image, jpeg, to_srgb
from data import data_root, photographs
from media import SPECIES
from numpy.typing import NDArray
from recapture import GENUINE, detailed, photograph, recapture

from facecore import FaceEngine, NoFaceDetected

WINDOW = 208
AS_IT_IS, CAMERA = "as it is", "camera"  # genuine presentations of `Genuine`
TEXTURES = ("coffee", "chelsea", "brick", "grass", "gravel", "camera", "retina")
# Where a face is in LFW's deep-funneled pictures and in the 128x128 crops: x1, y1, x2, y2.
LFW_BOX = np.array([80.0, 70.0, 170.0, 190.0])
CROP_BOX = np.array([24.0, 20.0, 104.0, 122.0])


@dataclass(frozen=True, slots=True)
class Presentation:
    """A picture or a part of one, with the face's box in its pixels."""

    pixels: Image
    box: NDArray[np.float64]
    species: str


class Scenes:
    """Pictures to photograph, each with the box of its face or of what stands for it."""

    def __init__(self, root: Path) -> None:
        self.faces = [str(path) for _, path in photographs(root)]
        self.crops: list[Image] = []
        with tarfile.open(root / "train/synthetic.tar") as tar:
            for member in tar:
                handle = None if "edited" in member.name else tar.extractfile(member)
                if handle is not None:
                    coded = np.frombuffer(handle.read(), np.uint8)
                    self.crops.append(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8))
        self.textures = []
        for name in TEXTURES:
            picture = getattr(skimage.data, name)()
            code = cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR
            self.textures.append(np.asarray(cv2.cvtColor(picture, code), np.uint8))

    def draw(self, rng: np.random.Generator) -> tuple[Image, NDArray[np.float64]]:
        kind = rng.random()
        if kind < 0.68:
            picture = cv2.imread(self.faces[rng.integers(len(self.faces))])
            return np.asarray(picture, np.uint8), LFW_BOX.copy()
        if kind < 0.9:
            return self.crops[rng.integers(len(self.crops))], CROP_BOX.copy()
        picture = self.textures[rng.integers(len(self.textures))]
        height, width = picture.shape[:2]
        side = rng.uniform(60, 0.6 * min(height, width))
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        return picture, np.array([x, y, x + side, y + side])

    def presentation(self, rng: np.random.Generator) -> Presentation:
        """One of the training range."""
        picture, box = self.draw(rng)
        species = GENUINE if rng.random() < 0.45 else str(rng.choice(SPECIES))
        if species == GENUINE and rng.random() < 0.65:
            return (_plain if rng.random() < 0.4 else _crisp)(picture, box, rng)
        seed = int(rng.integers(2**31))
        face = np.exp(rng.uniform(np.log(56), np.log(520)))  # pixels across
        scale = float(face / (box[2] - box[0]))
        framed = species != GENUINE and rng.random() < 0.25
        window = _window(picture, box, scale, None if framed else rng)
        if species == GENUINE:
            taken = photograph(picture, seed, held_out=False, scale=scale, window=window)
        else:
            taken = recapture(
                picture, species, seed, held_out=False, scale=scale, window=window, framed=framed
            )
        return Presentation(taken, box * scale - np.tile(window[:2], 2), species)


def _window(
    picture: Image, box: NDArray[np.float64], scale: float, rng: np.random.Generator | None
) -> tuple[int, int, int, int]:
    """A part of the enlarged picture about a point of its face; all of it for a small one."""
    height, width = (round(side * scale) for side in picture.shape[:2])
    if rng is None and max(height, width) <= 2 * WINDOW:
        return 0, 0, width, height  # framed: the medium's edge has to be in it
    w, h = min(WINDOW, width), min(WINDOW, height)
    share = np.full(2, 0.5) if rng is None else rng.uniform(0.25, 0.75, 2)
    centre = scale * (box[:2] + share * (box[2:] - box[:2]))
    x = int(np.clip(centre[0] - w / 2, 0, width - w))
    y = int(np.clip(centre[1] - h / 2, 0, height - h))
    return x, y, w, h


def _plain(picture: Image, box: NDArray[np.float64], rng: np.random.Generator) -> Presentation:
    """The picture as somebody's camera and software left it, at most resized and turned."""
    scale = 1.0
    if rng.random() < 0.5:
        scale = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
        kind = cv2.INTER_AREA if scale < 1 else int(rng.choice([1, 2, 4]))
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=kind))
        if rng.random() < 0.5:
            middle = picture.shape[1] / 2, picture.shape[0] / 2
            matrix = cv2.getRotationMatrix2D(middle, rng.uniform(-15, 15), 1)
            size = picture.shape[1::-1]
            picture = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REFLECT)
        picture = jpeg(np.asarray(picture, np.uint8), int(rng.integers(60, 99)))
    x, y, w, h = _window(picture, box * scale, 1.0, rng)
    part = np.ascontiguousarray(picture[y : y + h, x : x + w], np.uint8)
    return Presentation(part, box * scale - np.tile((x, y), 2), GENUINE)


def _crisp(picture: Image, box: NDArray[np.float64], rng: np.random.Generator) -> Presentation:
    """A large sharp picture that was reduced on a computer, which no mosaic or noise survives."""
    face = np.exp(rng.uniform(np.log(90), np.log(520)))
    scale = float(face / (box[2] - box[0]))
    x, y, w, h = _window(picture, box, scale, rng)
    x1, y1 = int(x / scale), int(y / scale)
    part = picture[y1 : int((y + h) / scale) + 1, x1 : int((x + w) / scale) + 1]
    over = rng.uniform(1.0, 2.5)  # how much larger it was
    light = detailed(part, scale * over, rng)
    kind = cv2.INTER_AREA if rng.random() < 0.6 else int(rng.choice([1, 2, 4]))
    size = round(light.shape[1] / over), round(light.shape[0] / over)
    small = cv2.resize(to_srgb(light), size, interpolation=kind)
    if rng.random() < 0.5:
        small = small + rng.uniform(0.1, 1.0) * (small - cv2.GaussianBlur(small, (0, 0), 0.8))
    taken = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
    for _ in range(int(rng.integers(1, 3))):
        taken = jpeg(taken, int(rng.integers(70, 99)), bool(rng.random() < 0.5))
    return Presentation(taken, box * scale - np.tile((x1 * scale, y1 * scale), 2), GENUINE)


class Genuine:
    """Whole pictures of LFW's people who are in no test pair, whom no step is trained on.

    In turn as they are, and photographed again by the simulated camera.
    """

    def __init__(self, root: Path) -> None:
        self.paths = [str(path) for _, path in photographs(root, calibration=True)]
        self.engine = FaceEngine("compact", threads=1)

    def presentation(self, rng: np.random.Generator) -> Presentation:
        while True:
            picture = np.asarray(cv2.imread(self.paths[rng.integers(len(self.paths))]), np.uint8)
            kind = AS_IT_IS
            if rng.random() < 0.5:
                scale = float(np.exp(rng.uniform(np.log(0.7), np.log(3.0))))
                seed, kind = int(rng.integers(2**31)), CAMERA
                picture = photograph(picture, seed, held_out=False, scale=scale)
            try:
                face = self.engine.sample(picture, face="central").face
            except NoFaceDetected:
                continue
            return Presentation(picture, face.box.astype(np.float64), kind)


def toned(pixels: Image, rng: np.random.Generator) -> Image:
    """Another contrast, brightness, colour balance and saturation.

    All of them are the photographer's choice.  Where only attacks are flat, flat studio light
    becomes an attack.
    """
    picture = pixels.astype(np.float32)
    contrast, saturation = np.exp(rng.normal(0, (0.3, 0.25))).astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + saturation * (picture - grey)
    picture *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    middle = float(grey.mean())
    picture = middle + contrast * (picture - middle) + np.float32(rng.normal(0, 16))
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def read(folder: Path) -> Iterator[Presentation]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            for i, species in enumerate(stored["species"]):
                yield Presentation(stored[f"pixels{i}"], stored["boxes"][i], str(species))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--genuine", action="store_true", help="pictures for the threshold")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    make: Callable[[np.random.Generator], Presentation] = (
        Genuine(data_root()).presentation if args.genuine else Scenes(data_root()).presentation
    )
    for part in range(-(-args.count // 250)):
        path = args.out / f"{args.seed}_{part:03}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([args.seed, part])
        made = [make(rng) for _ in range(min(250, args.count - 250 * part))]
        arrays = {f"pixels{i}": p.pixels for i, p in enumerate(made)}
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                boxes=np.stack([p.box for p in made]),
                species=np.array([p.species for p in made]),
                **arrays,
            )
        os.replace(temporary, path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
