"""Train the occlusion network, which finds covers that were painted on faces.

The covers are painted on the training crops of ``data.py``.  The network is evaluated on the
held-out tenth of every archive, with the same kinds of covers.

    python weights/training/occlusion.py --out facecore/face/measures/occlusion.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from data import crops, data_root
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from facecore.face.alignment import TEMPLATE
from facecore.face.measures.occlusion import CELLS, features

HIDDEN = 64
BATCH = 256
Example = Callable[
    [NDArray[np.uint8], np.random.Generator], tuple[NDArray[np.float32], NDArray[np.float32]]
]


def fill(shape: tuple[int, int], pool: NDArray[np.uint8], rng: np.random.Generator) -> NDArray:
    """Draw a noisy surface: one colour, a blend of two, stripes, or a piece of another crop."""
    height, width = shape
    kind = rng.integers(5)
    first, second = rng.integers(0, 256, (2, 3)).astype(np.float32)
    if kind == 0:
        surface = np.broadcast_to(first, (height, width, 3)).copy()
    elif kind == 1:
        ramp = np.linspace(0, 1, width if rng.random() < 0.5 else height, dtype=np.float32)
        ramp = ramp[None, :, None] if len(ramp) == width else ramp[:, None, None]
        surface = np.broadcast_to(first * ramp + second * (1 - ramp), (height, width, 3)).copy()
    elif kind == 2:
        period = rng.uniform(3, 20)
        wave = (
            np.arange(height)[:, None] * rng.normal() + np.arange(width) * rng.normal()
        ) / period
        surface = np.where(np.sin(wave)[..., None] > 0, first, second)
    else:
        # Hands have the face's colour, hair and cloth any colour.
        other = pool[rng.integers(len(pool))]
        y, x = rng.integers(0, 64, 2)
        piece = other[y : y + rng.integers(16, 64), x : x + rng.integers(16, 64)]
        surface = cv2.resize(piece, (width, height)).astype(np.float32)
        if rng.random() < 0.5:
            surface = cv2.GaussianBlur(surface, (0, 0), rng.uniform(1, 8))
    surface = surface * np.exp(rng.normal(0, 0.25)) + rng.normal(
        0, rng.uniform(0, 6), surface.shape
    )
    return np.clip(surface, 0, 255)


def shape_mask(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the mask of a cover, (112, 112), 0 or 255."""
    mask = np.zeros((112, 112), np.uint8)
    kind = rng.integers(7)
    shift = rng.normal(0, 2, 2)
    eyes, mouth = TEMPLATE[:2] + shift, TEMPLATE[3:].mean(0) + shift
    if kind == 0:  # dark glasses
        axes = (int(rng.integers(9, 16)), int(rng.integers(6, 13)))
        for x, y in eyes:
            cv2.ellipse(mask, (round(x), round(y + 1)), axes, 0, 0, 360, 255, -1)
        y = round(eyes[:, 1].mean() - 1)
        cv2.line(mask, (5, y), (107, y), 255, int(rng.integers(1, 5)))
    elif kind == 1:  # a mask or a scarf
        top = round(rng.uniform(60, 86))
        points = [(0, top + rng.integers(-4, 12)), (56, top - rng.integers(0, 8)),
                  (111, top + rng.integers(-4, 12)), (111, 111), (0, 111)]  # fmt: skip
        cv2.fillPoly(mask, [np.array(points, np.int32)], 255)
    elif kind == 2:  # a hat, or hair that hangs down
        bottom = round(rng.uniform(18, 60))
        points = [(0, 0), (111, 0), (111, bottom + rng.integers(-15, 15)),
                  (rng.integers(30, 80), bottom), (0, bottom + rng.integers(-15, 15))]  # fmt: skip
        cv2.fillPoly(mask, [np.array(points, np.int32)], 255)
    elif kind == 3:  # from a side
        edge = round(rng.uniform(15, 70))
        points = [(0, 0), (edge + rng.integers(-12, 12), 0),
                  (edge + rng.integers(-12, 12), 111), (0, 111)]  # fmt: skip
        cv2.fillPoly(mask, [np.array(points, np.int32)], 255)
        if rng.random() < 0.5:
            mask = mask[:, ::-1].copy()
    elif kind == 4:  # a hand or a microphone at the mouth
        axes = (int(rng.integers(8, 28)), int(rng.integers(8, 28)))
        centre = mouth + rng.normal(0, 12, 2)
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(mask, tuple(map(round, centre)), axes, angle, 0, 360, 255, -1)
    else:  # anything anywhere
        count = int(rng.integers(3, 8))
        centre = rng.uniform(10, 102, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        radius = rng.uniform(8, 45) * rng.uniform(0.6, 1.2, count)
        points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]
        cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    return mask


def light(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Vary blur, gamma, tint and shade, which cover nothing."""
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 4))
    if rng.random() < 0.6:
        shade = np.linspace(np.exp(rng.normal(0, 0.4)), np.exp(rng.normal(0, 0.4)), 112)
        ramp = np.exp(rng.normal(0, 0.3)) * shade
        ramp = ramp[None, :, None] if rng.random() < 0.7 else ramp[:, None, None]
        image = np.clip(image * ramp * np.exp(rng.normal(0, 0.1, 3)), 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return image


def example(
    pool: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the features of one crop, covered or not, and the covered share of each cell."""
    face = pool[rng.integers(len(pool))]
    turn = cv2.getRotationMatrix2D((63.5, 63.5), rng.normal(0, 4), np.exp(rng.normal(0, 0.05)))
    turn[:, 2] += rng.normal(0, 2, 2) - 8
    image = cv2.warpAffine(face, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    mask = np.zeros((112, 112), np.uint8)
    for _ in range(rng.choice(3, p=[0.4, 0.5, 0.1])):
        cover = shape_mask(rng)
        soft = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.5, 2))[..., None] / 255
        image = (image * (1 - soft) + fill((112, 112), pool, rng) * soft).astype(np.uint8)
        mask = np.maximum(mask, cover)
    image = light(np.ascontiguousarray(image), rng)
    share = mask.reshape(CELLS, 16, CELLS, 16).mean((1, 3)) / 255
    return features(image), share.ravel().astype(np.float32)


def batch(
    pool: NDArray[np.uint8], size: int, rng: np.random.Generator, make: Example = example
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features and targets of `size` examples from `make`."""
    pairs = [make(pool, rng) for _ in range(size)]
    x, y = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    pool = np.stack([image for _, image in crops(data_root())])
    held_out = np.stack([image for _, image in crops(data_root(), development=True)])
    test_x, test_y = batch(held_out, 4000, np.random.default_rng(99))

    sample = features(pool[0, 8:120, 8:120])
    model = nn.Sequential(nn.Linear(len(sample), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CELLS**2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = args.images // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        x, y = batch(pool, BATCH, rng)
        loss = functional.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            with torch.inference_mode():
                guess = torch.sigmoid(model(test_x))
            error = (guess.mean(1) - test_y.mean(1)).abs().mean()
            agreement = np.corrcoef(guess.mean(1), test_y.mean(1))[0, 1]
            print(
                f"{step * BATCH} images, loss {loss:.4f}; held out: covered share off by "
                f"{error:.3f}, correlation {agreement:.3f}",
                flush=True,
            )
    first, second = model[0], model[2]
    np.savez_compressed(
        args.out,
        w1=first.weight.detach().numpy().T.astype(np.float16),
        b1=first.bias.detach().numpy().astype(np.float16),
        w2=second.weight.detach().numpy().T.astype(np.float16),
        b2=second.bias.detach().numpy().astype(np.float16),
    )
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
