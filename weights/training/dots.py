"""Step 2 of the liveness classifier: train the dots network on resized and compressed pictures.

It detects dots of prints and displays in 112x112 pixels at native resolution.  Simulated recaptures
show dots.  All other pictures are labelled "no dots": genuine ones, the simulated camera without a
medium, and all real pictures of the sources, attacks included, so none of their labels is learnt.
Real pictures were resized and compressed again, which leaves patterns that are not dots.

    python weights/training/dots.py collect --out dots.npz
    python weights/training/dots.py train --data dots.npz --out RUN     # RUN/dots.onnx

Training continues from ``dots.onnx`` next to this file, or from ``--begin-with``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnx
import skimage.data
import torch
from camera import Image, jpeg, to_srgb
from data import data_root, photographs
from media import SPECIES
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxfile import load_widened, save_half
from presentations import half, real, scene_faces
from recapture import GENUINE, detailed, photograph, recapture
from torch import Tensor, nn
from torch.nn import functional
from views import LFW_BOX, held_out

from facecore.face.pad_features import PATCH

HERE = Path(__file__).parent
WINDOW = 192  # side of the stored part of a picture, from which patches are drawn
CLASSES = (GENUINE, *SPECIES)
TEXTURES = ("coffee", "chelsea", "brick", "grass", "gravel", "camera", "rocket", "retina")
# Shares of a batch.  "source" is every real picture of the sources, genuine or attack.
SHARES = {
    "attack": 0.39, "camera": 0.13, "crisp": 0.13, "source": 0.2, "lfw": 0.07, "scenes": 0.02,
    "texture": 0.06,
}  # fmt: skip


class Picture(NamedTuple):
    """A picture with the face's box in its pixels; `kind` is a key of `SHARES`."""

    pixels: Image
    box: NDArray[np.float64]
    kind: str
    source: str
    species: str


def for_dots(person: str) -> bool:
    """Whether this network is trained on an LFW person; the other people serve choices."""
    return half(person) and hashlib.sha256(f"dots {person}".encode()).digest()[0] % 2 == 0


def as_they_are(root: Path) -> Iterator[Picture]:
    """Yield real pictures, without the fifth of the sources that `views.py` holds out too."""
    for p in real(root):
        if not held_out(p.source, 0, p.kind):
            yield Picture(p.pixels, p.box, "source", p.source, GENUINE)
    for person, path in photographs(root, calibration=True):
        if for_dots(person):
            picture = np.asarray(cv2.imread(str(path)), np.uint8)
            yield Picture(picture, LFW_BOX.copy(), "lfw", "lfw", GENUINE)
    for picture, box in scene_faces(root):
        yield Picture(picture, box, "scenes", "scenes", GENUINE)
    for name in TEXTURES:  # sharp large photographs, of no face
        picture = getattr(skimage.data, name)()
        code = cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR
        picture = np.asarray(cv2.cvtColor(picture, code), np.uint8)
        height, width = picture.shape[:2]
        for y in range(WINDOW // 2, height - WINDOW // 2 + 1, WINDOW // 2):
            for x in range(WINDOW // 2, width - WINDOW // 2 + 1, WINDOW // 2):
                yield Picture(picture, np.array([x, y, x, y], float), "texture", name, GENUINE)


def simulated(known: list[Picture], count: int, rng: np.random.Generator) -> Iterator[Picture]:
    """Yield pictures of LFW and the sources: recaptures, a fifth photographs, a fifth `crisp`."""
    groups = {kind: [p for p in known if p.kind == kind] for kind in ("lfw", "source")}
    for number in range(count):
        group = groups["source" if number % 3 == 0 else "lfw"]
        p = group[rng.integers(len(group))]
        face = float(np.exp(rng.uniform(np.log(56), np.log(600))))  # pixels across, as taken
        scale = min(face / max(float((p.box[2:] - p.box[:2]).mean()), 1.0), 6.0)
        width, height = (max(24, round(side * scale)) for side in p.pixels.shape[1::-1])
        w, h = min(width, WINDOW), min(height, WINDOW)
        x, y = (p.box[:2] + p.box[2:]) / 2 * scale - (w / 2, h / 2)
        window = int(np.clip(x, 0, width - w)), int(np.clip(y, 0, height - h)), w, h
        seed, steady, box = int(rng.integers(2**31)), bool(rng.random() < 0.5), _whole(w, h)
        if number % 5 == 0:
            yield Picture(crisp(p.pixels, scale, window, rng), box, "crisp", p.source, GENUINE)
            continue
        if number % 5 == 1:
            taken = photograph(
                p.pixels, seed, held_out=False, scale=scale, window=window, steady=steady
            )
            yield Picture(taken, box, "camera", p.source, GENUINE)
            continue
        species = str(rng.choice(SPECIES))
        taken = recapture(
            p.pixels, species, seed, held_out=False, scale=scale, window=window,
            framed=bool(rng.random() < 0.15), steady=steady,
        )  # fmt: skip
        yield Picture(taken, box, "attack", p.source, species)


def _whole(width: int, height: int) -> NDArray[np.float64]:
    return np.array([0.0, 0.0, width, height])


def crisp(
    picture: Image, scale: float, window: tuple[int, int, int, int], rng: np.random.Generator
) -> Image:
    """Return a large sharp picture reduced by software, which leaves no mosaic or noise."""
    x, y, w, h = window
    x1, y1 = int(x / scale), int(y / scale)
    part = picture[y1 : int((y + h) / scale) + 1, x1 : int((x + w) / scale) + 1]
    over = rng.uniform(1.0, 2.5)  # how much larger it was
    light = detailed(part, scale * over, rng)
    kind = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_CUBIC
    small = cv2.resize(to_srgb(light), (w, h), interpolation=kind)
    if rng.random() < 0.5:
        small = small + rng.uniform(0.1, 1.0) * (small - cv2.GaussianBlur(small, (0, 0), 0.8))
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)


def cut(pixels: Image, box: NDArray[np.float64]) -> tuple[Image, tuple[int, int]]:
    """Cut `WINDOW` pixels around the box's centre, zero-padded; also return the sides in use."""
    height, width = pixels.shape[:2]
    x, y = np.rint((box[:2] + box[2:] - WINDOW) / 2)
    x, y = int(np.clip(x, 0, max(width - WINDOW, 0))), int(np.clip(y, 0, max(height - WINDOW, 0)))
    part = pixels[y : y + WINDOW, x : x + WINDOW]
    whole = np.zeros((WINDOW, WINDOW, 3), np.uint8)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole, (part.shape[0], part.shape[1])


def collect(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    root, rng = data_root(), np.random.default_rng(args.seed)
    known = list(as_they_are(root))
    print(len(known), "real pictures", flush=True)
    pixels, sides, kinds, labels = [], [], [], []
    for made in (known, simulated(known, args.count, rng)):
        for p in made:
            whole, used = cut(p.pixels, p.box)
            pixels.append(whole)
            sides.append(used)
            kinds.append(p.kind)
            labels.append(CLASSES.index(p.species))
            if len(kinds) % 500 == 0:
                print(len(kinds), round(time.process_time()), "s", flush=True)
    np.savez(
        args.out, pixels=np.stack(pixels), sides=np.array(sides), kind=np.array(kinds),
        label=np.array(labels),
    )  # fmt: skip


def toned(pixels: Image, rng: np.random.Generator) -> Image:
    """Change contrast, brightness and colour, which say nothing about dots."""
    picture = pixels.astype(np.float32)
    contrast, saturation = np.exp(rng.normal(0, (0.25, 0.2))).astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + saturation * (picture - grey)
    picture *= np.exp(rng.normal(0, 0.06, 3)).astype(np.float32)
    middle = np.float32(grey.mean())
    picture = middle + contrast * (picture - middle) + np.float32(rng.normal(0, 12))
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def stored(pixels: Image, rng: np.random.Generator, attack: bool) -> Image:
    """Resize, soften and compress again, as sharing does to pictures; recaptures less strongly."""
    if rng.random() < (0.25 if attack else 0.5):
        low = 0.75 if attack else 0.45
        ratio = float(np.exp(rng.uniform(np.log(low), np.log(1.0 if attack else 2.0))))
        kind = cv2.INTER_AREA if ratio < 1 and rng.random() < 0.5 else cv2.INTER_CUBIC
        size = [max(16, round(side * ratio)) for side in pixels.shape[1::-1]]
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=kind), np.uint8)
    if not attack and rng.random() < 0.2:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.5))))
    if rng.random() < (0.25 if attack else 0.5):
        quality = int(rng.integers(75 if attack else 40, 98))
        pixels = jpeg(pixels, quality, bool(rng.random() < 0.35))
    return pixels


def patch(pixels: Image, attack: bool, rng: np.random.Generator) -> Image:
    pixels = stored(pixels, rng, attack)
    y, x = (rng.integers(0, max(side - PATCH, 0) + 1) for side in pixels.shape[:2])
    part = pixels[y : y + PATCH, x : x + PATCH]
    missing = PATCH - part.shape[0], PATCH - part.shape[1]
    if any(missing):  # as `facecore.face.pad_features` does
        part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    part = np.rot90(part, int(rng.integers(4)))
    return toned(part[:, ::-1] if rng.random() < 0.5 else part, rng)


def unit(inner: int, outer: int, stride: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, kernel, stride, kernel // 2), nn.ReLU())


class Network(nn.Module):
    """BGR 0..255 -> four logits.  It averages over the map, because texture has no position.

    The network also sees the pixels minus their 5x5 mean, clipped at 12 grey levels.  So a grid of
    two levels is not lost next to an edge of a hundred (truncated residuals of steganalysis:
    Fridrich & Kodovský 2012, doi:10.1109/TIFS.2012.2190402).
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            unit(6, 16, 2, 5), unit(16, 32, 2), unit(32, 32, 1), unit(32, 64, 2), unit(64, 64, 1),
        )  # fmt: skip
        kernel = torch.full((3, 1, 5, 5), -1 / 25)
        kernel[:, :, 2, 2] += 1
        self.register_buffer("kernel", kernel)
        self.head = nn.Linear(64, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        fine = functional.conv2d(x, self.kernel, padding=2, groups=3).clamp(-12, 12)
        return self.head(self.body(torch.cat([(x - 127.5) / 64, fine / 4], 1)).mean((2, 3)))

    def begin_with(self, path: Path) -> None:
        """Load the weights that `export` wrote."""
        model = load_widened(path)
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        convolutions = [node.input for node in model.graph.node if node.op_type == "Conv"][1:]
        layers = [*(block[0] for block in self.body), self.head]
        (gemm,) = (node.input for node in model.graph.node if node.op_type == "Gemm")
        with torch.no_grad():
            for layer, (_, weight, bias) in zip(layers, [*convolutions, gemm], strict=True):
                layer.weight.copy_(torch.from_numpy(stored[weight].astype(np.float32)))
                layer.bias.copy_(torch.from_numpy(stored[bias].astype(np.float32)))


class Deployed(nn.Module):
    """Log odds that a patch shows the dots of any medium."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return logits[:, 1:].logsumexp(1, keepdim=True) - logits[:, :1]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    files = [np.load(path, allow_pickle=False) for path in args.data]
    pixels, sides, kind, label = (
        np.concatenate([file[name] for file in files])
        for name in ("pixels", "sides", "kind", "label")
    )
    rows = {name: np.flatnonzero(kind == name) for name in SHARES}
    network = Network()
    network.begin_with(args.begin_with)
    network = network.to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.02)
    steps, told, losses = args.images // args.batch, time.monotonic(), []
    for step in range(steps):
        rng = np.random.default_rng([args.seed, step])
        rate = min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 1e-3)
        drawn = np.concatenate([
            rng.choice(rows[name], round(args.batch * share)) for name, share in SHARES.items()
        ])  # fmt: skip
        made = [
            patch(pixels[i, : sides[i, 0], : sides[i, 1]], bool(label[i] > 0), rng) for i in drawn
        ]
        x = torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float()
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            answer = network(x)
        target = torch.from_numpy(label[drawn])
        loss = functional.cross_entropy(answer.float(), target, label_smoothing=0.02)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        losses.append(loss.item())
        if time.monotonic() - told > 45 or step + 1 == steps:
            told = time.monotonic()
            record = {"step": step + 1, "loss": round(float(np.mean(losses)), 4),
                      "processor_s": round(time.process_time())}  # fmt: skip
            losses.clear()
            export(average.module, args.out / "dots.onnx")
            print(json.dumps(record), flush=True)


def export(network: nn.Module, path: Path) -> None:
    """Write the network with a free batch size and float16 weights."""
    temporary = path.with_suffix(".float32.onnx")
    training = network.training
    torch.onnx.export(
        Deployed(network).eval(), (torch.zeros(1, 3, PATCH, PATCH),), str(temporary),
        input_names=["input"], output_names=["attack"], opset_version=17, dynamo=False,
        dynamic_axes={"input": {0: "N"}, "attack": {0: "N"}},
    )  # fmt: skip
    network.train(training)
    save_half(onnx.load(temporary), path)
    temporary.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("collect", "train"))
    parser.add_argument("--out", type=Path, required=True, help="file, or folder of the run")
    parser.add_argument("--count", type=int, default=4000, help="simulated pictures")
    parser.add_argument("--data", type=Path, nargs="+", help="what `collect` wrote")
    parser.add_argument("--begin-with", type=Path, default=HERE / "dots.onnx")
    parser.add_argument("--images", type=int, default=80_000, help="patches seen in all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    args = parser.parse_args()
    (collect if args.what == "collect" else train)(args)


if __name__ == "__main__":
    main()
