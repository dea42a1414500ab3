"""Train the network that estimates the roll of a face; the library runs it in NumPy.

The faces come from the training crops, the training photographs of LFW and the genuine pictures of
``liveness/``.  Each is turned by any angle, covered, blurred, darkened, coarsened or made a
negative, and cut out by a box as inexact as a detector's.  Held-out people serve the evaluation.

    python weights/training/orientation.py --prepared RUN.npz --out facecore/face/orientation.npz
"""

from __future__ import annotations

import argparse
import math
import tarfile
from pathlib import Path

import cv2
import numpy as np
import torch
from data import crops, data_root, photographs
from numpy.typing import NDArray
from occlusion import shape_mask
from torch import nn
from torch.nn import functional

from facecore import FaceEngine, images
from facecore.face.alignment import TEMPLATE, estimate, warp
from facecore.face.orientation import BINS, REACH, SIDE, normalise

BATCH = 256
FACE = 94.6  # size of the detector's box in pixels of the 112x112 template, and its centre
CENTRE = (56.1, 64.4)
SOURCE = 96  # pixels of a stored face, which cover this many box sizes
COVERS = 1.7
SCALE = SOURCE / (COVERS * FACE)  # from the template to a stored face
SHIFT = np.array([SOURCE / 2 - SCALE * c for c in CENTRE])


def upright(image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cut the stored face (96, 96) from a picture that `matrix` maps to the template."""
    to_source = SCALE * matrix
    to_source[:, 2] += SHIFT
    shrink = max(1, round(1 / math.hypot(to_source[0, 0], to_source[1, 0])))
    if shrink > 1:
        return cv2.cvtColor(warp(image, to_source, (SOURCE, SOURCE)), cv2.COLOR_BGR2GRAY)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    size = (SOURCE, SOURCE)
    return np.asarray(cv2.warpAffine(grey, to_source, size, borderMode=cv2.BORDER_REPLICATE))


def faces(held_out: bool, most: int) -> NDArray[np.uint8]:
    """Return upright grey faces (N, 96, 96)."""
    root, out = data_root(), []
    place = np.array([[1.0, 0, -8], [0, 1.0, -8]])
    every = 1 if held_out else max(1, 50_000 // most)
    for i, (_, crop) in enumerate(crops(root, development=held_out)):
        if i % every == 0:
            out.append(upright(crop, place.copy()))
    engine = FaceEngine(threads=1)
    pictures = [images.load(path) for _, path in photographs(root, calibration=held_out)]
    if not held_out:
        for path in sorted((root / "liveness").glob("*.tar.gz")):
            with tarfile.open(path) as tar:
                for member in tar:
                    if Path(member.name).name.startswith("live_"):
                        data = np.frombuffer(tar.extractfile(member).read(), np.uint8)
                        pictures.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    for picture in pictures:
        found = engine.detect(picture)
        if found and (fit := estimate(found[0].landmarks, TEMPLATE)):
            out.append(upright(picture, fit.matrix.copy()))
    return np.stack(out)


def covered(
    face: NDArray[np.uint8], other: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cover a face by glasses, a mask, a hat, a hand or a polygon: flat, or cut from `other`."""
    mask = cv2.warpAffine(
        shape_mask(rng), np.column_stack([np.eye(2) * SCALE, SHIFT]), (SOURCE, SOURCE)
    )
    if rng.random() < 0.6:
        return np.where(mask > 127, rng.integers(256), face).astype(np.uint8)
    y, x = rng.integers(0, SOURCE // 2, 2)
    piece = other[y : y + SOURCE // 2, x : x + SOURCE // 2]
    return np.where(mask > 127, cv2.resize(piece, (SOURCE, SOURCE)), face).astype(np.uint8)


def example(pool: NDArray[np.uint8], rng: np.random.Generator, hard: float = 1.0):
    """Return the features of one turned face, and its roll in degrees."""
    face = pool[rng.integers(len(pool))]
    if rng.random() < 0.5:
        face = face[:, ::-1]
    if rng.random() < 0.3 * hard:
        face = covered(face, pool[rng.integers(len(pool))], rng)
    roll = rng.uniform(-180, 180)
    wide = SIDE * 2
    zoom = wide / (SOURCE * REACH / COVERS) * math.exp(rng.normal(0, 0.15))
    matrix = cv2.getRotationMatrix2D(((SOURCE - 1) / 2, (SOURCE - 1) / 2), -roll, zoom)
    matrix[:, 2] += (wide - SOURCE) / 2 + rng.normal(0, 0.09 * wide, 2)
    border = cv2.BORDER_CONSTANT if rng.random() < 0.2 else cv2.BORDER_REPLICATE
    patch = cv2.warpAffine(face, matrix, (wide, wide), borderMode=border)
    if rng.random() < 0.15 * hard:
        side = int(rng.integers(10, 40))
        patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
        patch = cv2.resize(patch, (wide, wide), interpolation=int(rng.choice([0, 1, 2])))
    kind = rng.random()
    if kind < 0.12 * hard:
        patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.5, 4))
    elif kind < 0.24 * hard:
        length = int(rng.integers(3, 13)) | 1
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        turn = cv2.getRotationMatrix2D((length // 2, length // 2), rng.uniform(0, 180), 1)
        kernel = cv2.warpAffine(kernel, turn, (length, length))
        patch = cv2.filter2D(patch, -1, kernel / kernel.sum())
    light = patch.astype(np.float32)
    if rng.random() < 0.3:
        ramp = np.linspace(-1, 1, wide, dtype=np.float32)
        angle = rng.uniform(0, 2 * math.pi)
        along = math.cos(angle) * ramp[None] + math.sin(angle) * ramp[:, None]
        light = light * np.exp(rng.uniform(0.1, 0.9) * along)
    if rng.random() < 0.5:
        light = 255 * (light.clip(0, 255) / 255) ** math.exp(rng.normal(0, 0.4))
        light = light * math.exp(rng.normal(0, 0.3)) + rng.normal(0, 15)
    if rng.random() < 0.08 * hard:
        light = light * rng.uniform(0.04, 0.3)
    if rng.random() < 0.05 * hard:
        light = 255 - light
    light = light + rng.normal(0, rng.choice([1, 3, 8, 16]), light.shape)
    small = cv2.resize(light.clip(0, 255).astype(np.uint8), (SIDE, SIDE),
                       interpolation=cv2.INTER_AREA).astype(np.float32)  # fmt: skip
    return normalise(small), roll


def batch(pool: NDArray[np.uint8], size: int, rng: np.random.Generator, hard: float = 1.0):
    pairs = [example(pool, rng, hard) for _ in range(size)]
    x = torch.from_numpy(np.stack([p for p, _ in pairs]).astype(np.float32))
    return x[:, None], torch.tensor([r for _, r in pairs])


def mean_vector(logits: torch.Tensor) -> torch.Tensor:
    directions = torch.exp(2j * math.pi * torch.arange(BINS) / BINS)
    return (logits.softmax(1) * directions).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True, help="upright faces, made once")
    parser.add_argument("--images", type=int, default=250_000)
    parser.add_argument("--faces", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--warm", type=float, default=0.3, help="share of rising rate")
    parser.add_argument("--begin-with", type=Path, help="network of an earlier run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    if not args.prepared.exists():
        np.savez(args.prepared, pool=faces(False, args.faces), unseen=faces(True, 0))
    prepared = np.load(args.prepared)
    pool, unseen = prepared["pool"], prepared["unseen"]
    print(f"{len(pool)} faces, {len(unseen)} of held-out people", flush=True)
    tests = {name: batch(unseen, 4000, np.random.default_rng(99), hard)
             for name, hard in (("clear", 0.0), ("poor", 1.0))}  # fmt: skip
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, BINS),
    )  # fmt: skip
    if args.begin_with:
        load(model, args.begin_with)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = args.images // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, steps, pct_start=args.warm)
    places = torch.arange(BINS) * 360 / BINS
    for step in range(1, steps + 1):
        x, roll = batch(pool, BATCH, rng)
        away = (roll[:, None] - places + 180) % 360 - 180
        target = torch.relu(1 - away.abs() / (360 / BINS))  # shared by two neighbours
        loss = functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            shown = f"{step * BATCH} images, loss {loss:.3f}"
            for name, (faces_in, truth) in tests.items():
                with torch.inference_mode():
                    mean = mean_vector(model(faces_in))
                off = (torch.rad2deg(mean.angle()) - truth + 180) % 360 - 180
                sure = mean.abs() > 0.8
                shown += (
                    f"; {name}: median {off.abs().median():.1f}°, beyond 30° "
                    f"{(off.abs() > 30).float().mean():.2%}, of the {sure.float().mean():.1%} "
                    f"certain {(off.abs() > 30)[sure].float().mean():.2%}"
                )
            print(shown, flush=True)
            save(model, args.out)


def save(model: nn.Sequential, path: Path) -> None:
    arrays = {}
    for number, index in enumerate((0, 2, 4), 1):
        weight = model[index].weight.detach().numpy()  # (K, C, 3, 3)
        arrays[f"w{number}"] = weight.reshape(len(weight), -1).T
        arrays[f"b{number}"] = model[index].bias.detach().numpy()
    last = model[7].weight.detach().numpy().reshape(BINS, 64, 4, 4)
    arrays["w4"] = last.transpose(2, 3, 1, 0).reshape(1024, BINS)
    arrays["b4"] = model[7].bias.detach().numpy()
    np.savez_compressed(path, **{name: a.astype(np.float16) for name, a in arrays.items()})


def load(model: nn.Sequential, path: Path) -> None:
    with np.load(path) as stored, torch.no_grad():
        for number, index in enumerate((0, 2, 4), 1):
            weight = model[index].weight
            weight.copy_(torch.from_numpy(stored[f"w{number}"].T.reshape(weight.shape)))
            model[index].bias.copy_(torch.from_numpy(stored[f"b{number}"]))
        last = stored["w4"].reshape(4, 4, 64, BINS).transpose(3, 2, 0, 1)
        model[7].weight.copy_(torch.from_numpy(last.reshape(BINS, 1024)))
        model[7].bias.copy_(torch.from_numpy(stored["b4"]))


if __name__ == "__main__":
    main()
