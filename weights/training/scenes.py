"""Step 1 of the detector: scenes with faces at many scales, labelled by YuNet.

A scene is 256x256: a photograph zoomed, turned and shifted (faces up to ones that the
frame cuts off; now and then upside down, or with its face covered, so that what surrounds
faces is learnt not to be one), or aligned crops of 16 to 220 pixels pasted on textures,
clutter and blurred photographs, or a crowd of whole photographs made small.  YuNet's
twelve raw head tensors are kept as the targets, one row of 16 numbers (cls, obj, box,
landmarks) per cell.

    python weights/training/scenes.py --out /somewhere/scenes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import skimage.data
from data import crops, data_root, photographs
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

SIDE = 256
OUTPUTS = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
CELLS = sum((SIDE // stride) ** 2 for stride in (8, 16, 32))
TEXTURES = [
    *("coffee", "chelsea", "rocket", "brick", "grass", "gravel", "coins", "page"),
    *("moon", "text", "clock", "colorwheel", "immunohistochemistry", "hubble_deep_field"),
]
BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)

Image = NDArray[np.uint8]


class Painter:
    """Draws scenes from the training photographs and crops."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        root = data_root()
        self.photographs = [cv2.imread(str(path)) for _, path in photographs(root)]
        self.crops = [crop for _, crop in crops(root)]
        self.textures = []
        for name in TEXTURES:
            picture = getattr(skimage.data, name)()
            colour = cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR
            self.textures.append(cv2.cvtColor(np.ascontiguousarray(picture), colour))

    def warp(self, picture: Image, width: float, centre: tuple[float, float], border: int) -> Image:
        """`picture`, `width` pixels wide, turned a little and centred at `centre`."""
        if (shrink := width / picture.shape[1]) < 0.6:  # area averaging first, or it aliases
            picture = cv2.resize(
                picture, None, fx=shrink * 1.5, fy=shrink * 1.5, interpolation=cv2.INTER_AREA
            )
        height_in, width_in = picture.shape[:2]
        angle = self.rng.normal(0, 12) if self.rng.random() < 0.85 else self.rng.uniform(-60, 60)
        matrix = cv2.getRotationMatrix2D((width_in / 2, height_in / 2), angle, width / width_in)
        matrix[:, 2] += np.array(centre) - (width_in / 2, height_in / 2)
        colour = self.rng.uniform(0, 255, 3) if picture.shape[2] == 3 else np.zeros(4)
        fill = tuple(map(float, colour))
        return cv2.warpAffine(picture, matrix, (SIDE, SIDE), borderMode=border, borderValue=fill)

    def zoomed(self) -> Image:
        """One photograph; its face, about 0.4 of its width, spans 12 to 330 pixels."""
        if self.rng.random() < 0.6:
            picture = self.photographs[self.rng.integers(len(self.photographs))]
            width = np.exp(self.rng.uniform(np.log(60), np.log(800)))
            if self.rng.random() < 0.35:
                picture = self.covered(picture)
            if self.rng.random() < 0.1:
                picture = np.ascontiguousarray(picture[::-1])
        else:
            picture = self.crops[self.rng.integers(len(self.crops))]
            width = np.exp(self.rng.uniform(np.log(60), np.log(500)))
        wander = max(30.0, SIDE / 2 - 0.1 * width)
        centre = tuple(SIDE / 2 + self.rng.uniform(-1, 1, 2) * wander)
        return self.warp(picture, width, centre, int(self.rng.choice(BORDERS)))

    def covered(self, picture: Image) -> Image:
        """The photograph with something else where its face is: LFW centres faces."""
        height, width = picture.shape[:2]
        y1, y2 = round(0.22 * height), round(0.78 * height)
        x1, x2 = round(0.25 * width), round(0.75 * width)
        patch = cv2.resize(self.background(), (x2 - x1, y2 - y1))
        picture = picture.copy()
        picture[y1:y2, x1:x2] = patch
        return picture

    def clutter(self) -> Image:
        """Random lines, discs and polygons in random colours."""
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
        return cv2.GaussianBlur(scene, (0, 0), self.rng.uniform(0.3, 3))

    def background(self) -> Image:
        kind = self.rng.random()
        if kind < 0.2:
            return self.clutter()
        if kind < 0.6:
            picture = self.textures[self.rng.integers(len(self.textures))]
            width = self.rng.uniform(1, 4) * SIDE
            centre = tuple(self.rng.uniform(0, SIDE, 2))
            return self.warp(picture, width, centre, cv2.BORDER_REFLECT_101)
        if kind < 0.8:
            picture = self.photographs[self.rng.integers(len(self.photographs))]
            picture = cv2.resize(picture, (SIDE, SIDE))
            return cv2.GaussianBlur(picture, (0, 0), self.rng.uniform(8, 20))
        ends = self.rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        return cv2.resize(ends, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    def pasted(self) -> Image:
        """Up to eight crops on a background, some of them feathered."""
        scene = self.background()
        for _ in range(self.rng.integers(0, 9)):
            crop = self.crops[self.rng.integers(len(self.crops))]
            width = np.exp(self.rng.uniform(np.log(16), np.log(220)))
            centre = tuple(self.rng.uniform(-10, SIDE + 10, 2))
            mask = np.full((*crop.shape[:2], 1), 255, np.uint8)
            if self.rng.random() < 0.5:
                mask[:] = 0
                cv2.ellipse(mask, (64, 64), (58, 64), 0, 0, 360, 255, -1)
            layer = self.warp(np.dstack([crop, mask]), width, centre, cv2.BORDER_CONSTANT)
            alpha = layer[..., 3:].astype(np.float32) / 255
            scene = (scene + alpha * (layer[..., :3].astype(np.float32) - scene)).astype(np.uint8)
        return scene

    def crowd(self) -> Image:
        """Whole photographs, small: faces of 10 to 45 pixels with what belongs around them."""
        scene = self.background()
        for _ in range(self.rng.integers(2, 10)):
            picture = self.photographs[self.rng.integers(len(self.photographs))]
            side = int(np.exp(self.rng.uniform(np.log(25), np.log(110))))
            small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
            x, y = self.rng.integers(0, SIDE - side, 2)
            scene[y : y + side, x : x + side] = small
        return scene

    def scene(self) -> Image:
        paint = self.rng.choice([self.crowd, self.pasted, self.zoomed], p=[0.3, 0.25, 0.45])
        picture = paint()
        return np.ascontiguousarray(picture[:, ::-1]) if self.rng.random() < 0.5 else picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    yunet = data_root() / "weights/yunet/yunet_n_dynamic.onnx"
    parser.add_argument("--teacher", type=Path, default=yunet)
    parser.add_argument("--count", type=int, default=28_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    painter = Painter(np.random.default_rng(args.seed))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    teacher = ort.InferenceSession(args.teacher, options, providers=["CPUExecutionProvider"])
    images = open_memmap(args.out / "images.npy", "w+", np.uint8, (args.count, SIDE, SIDE, 3))
    targets = open_memmap(args.out / "targets.npy", "w+", np.float16, (args.count, CELLS, 16))
    for i in tqdm(range(args.count), desc="scenes"):
        images[i] = painter.scene()
        tensor = images[i].transpose(2, 0, 1)[None].astype(np.float32)
        heads = teacher.run(OUTPUTS, {"input": tensor})
        kinds = [np.concatenate([h[0] for h in heads[3 * k : 3 * k + 3]]) for k in range(4)]
        targets[i] = np.concatenate(kinds, axis=1)


if __name__ == "__main__":
    main()
