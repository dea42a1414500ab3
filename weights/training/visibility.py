"""Train two small networks: are eyes or mouth covered, and is the picture a negative?

They learn from the training crops of ``data.py``: some are covered as in ``occlusion.py``, some are
turned into negatives, and all are shifted and turned, because a detector places a hidden face
badly.  The held-out people of ``data.py`` judge them.  The network for negatives sees the inner
face alone: dark skin before a bright wall is no negative.

    python weights/training/visibility.py --out facecore/face/measures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from data import crops, data_root
from numpy.typing import NDArray
from occlusion import batch, fill, light, shape_mask
from torch import nn
from torch.nn import functional

from facecore.face.measures.occlusion import features, key_areas
from facecore.face.measures.visibility import LIMITING, inner_luma

BATCH = 256
UNKNOWN = np.float32(-1)  # target of an area between covered and free


def moved(
    face: NDArray[np.uint8], rng: np.random.Generator, most: float = 1.0
) -> NDArray[np.uint8]:
    """Cut the aligned part of a training crop, a little turned, scaled, shifted and mirrored."""
    turn = cv2.getRotationMatrix2D(
        (63.5, 63.5), rng.normal(0, 4 * most), np.exp(rng.normal(0, 0.05 * most))
    )
    turn[:, 2] += rng.normal(0, 2 * most, 2) - 8
    image = cv2.warpAffine(face, turn, (112, 112), borderMode=cv2.BORDER_REPLICATE)
    return image[:, ::-1] if rng.random() < 0.5 else image


def example(
    pool: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the features of one crop; eyes covered, mouth covered (1, 0, `UNKNOWN`), negative."""
    image, kind = pool[rng.integers(len(pool))], rng.random()
    image, mask = moved(image, rng, 1.5 if kind > 0.35 else 1.0), np.zeros((112, 112), np.uint8)
    if 0.35 < kind < 0.8:
        mask = shape_mask(rng)
        soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.3, 2))[..., None] / 255
        surface = fill((112, 112), pool, rng)
        if rng.random() < 0.4:  # dark glasses, black masks
            surface *= rng.uniform(0, 0.4)
            soft = soft * rng.uniform(0.75, 1)
        image = (image * (1 - soft) + surface * soft).astype(np.uint8)
    image = light(np.ascontiguousarray(image), rng)
    if kind >= 0.8:
        image = np.asarray(255 - image, np.uint8)
    shares = key_areas() @ (mask.reshape(7, 16, 7, 16).mean((1, 3)) / 255).ravel()
    covered = np.array([shares[:2].max(), shares[3]])
    target = np.where(covered > 0.6, 1, np.where(covered < 0.2, 0, UNKNOWN))
    return features(image), np.array([*target, kind >= 0.8], np.float32)


class Both(nn.Module):
    """Networks for covered eyes and mouth, and for negatives."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        inside = self.inside(x[:1]).shape[1]
        self.visibility = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 2))
        self.tone = nn.Sequential(nn.Linear(inside, 16), nn.ReLU(), nn.Linear(16, 1))

    @staticmethod
    def inside(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([inner_luma(one) for one in x.numpy()]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.hstack([self.visibility(x), self.tone(self.inside(x))])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--images", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(args.seed)
    pool = np.stack([image for _, image in crops(data_root()) if rng.random() < 0.4])
    held_out = np.stack([image for _, image in crops(data_root(), development=True)])
    test_x, test_y = batch(held_out, 4000, np.random.default_rng(99), example)
    model = Both(test_x)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=3e-2)
    steps = args.images // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        x, y = batch(pool, BATCH, rng, example)
        known = y != UNKNOWN
        loss = functional.binary_cross_entropy_with_logits(model(x)[known], y[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            with torch.inference_mode():
                z = model(test_x)
            found = []
            for k, name in enumerate(LIMITING[1:]):
                least = z[test_y[:, k] == 0, k].quantile(0.99)
                found.append(f"{name} {(z[test_y[:, k] == 1, k] > least).float().mean():.1%}")
            print(
                f"{step * BATCH} images, loss {loss:.4f}; held out, found where 1 % of the others "
                f"count as such: {', '.join(found)}",
                flush=True,
            )
    for name, part in (("visibility", model.visibility), ("tone", model.tone)):
        first, second = part[0], part[2]
        np.savez_compressed(
            args.out / f"{name}.npz",
            w1=first.weight.detach().numpy().T.astype(np.float16),
            b1=first.bias.detach().numpy().astype(np.float16),
            w2=second.weight.detach().numpy().T.astype(np.float16),
            b2=second.bias.detach().numpy().astype(np.float16),
        )


if __name__ == "__main__":
    main()
