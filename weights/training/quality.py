"""Fit the unified quality score: predict from the measures whether a genuine comparison fails.

Probes are LFW pictures outside the test pairs, of people whom the calibration does not use: each
unchanged and in copies degraded by one and by two random kinds and degrees (not by rendered
poses, whose folds no camera makes), and some very small ones.  Each probe is compared with clean
pictures of the same person, which are outside the test pairs too.  A logistic regression with up
to four hinges per measure predicts whether the comparison passes at FMR 0.1 %.  It has no negative
weight, so a better measure never lowers the score.

    python weights/training/quality.py --out RUN --packs compact mobilefacenet   # prints HINGES

It prints the table of facecore/face/quality.py.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from data import crops, data_root, photographs
from numpy.typing import NDArray
from scipy.optimize import minimize

from facecore import FaceEngine, images
from facecore.errors import FacecoreError
from facecore.evaluation.degradations import DEGRADATIONS
from facecore.face.measures import MEASURES
from facecore.face.measures.visibility import LIMITING
from facecore.face.quality import assess

# Left out: the portrait's layout, which does not affect a comparison; mean luminance and colour,
# by which a score would judge the skin; and the measures that limit the score anyway.
USED = tuple(
    name
    for name in MEASURES
    if not name.startswith("margin")
    and name not in ("head_size", "eye_distance", "luminance_mean", "natural_colour", *LIMITING)
)
CUTS = (30.0, 60.0, 90.0, 98.0)
KINDS = tuple(
    kind
    for name, kind in DEGRADATIONS.items()
    if not name.startswith(("cut", "wider", "yaw", "pitch", "roll"))
)
COPIES = 3
MATES = 3


def pictures() -> Iterator[tuple[str, NDArray[np.uint8], bool]]:
    """Yield person, picture, and whether it is a probe; the others are only references."""
    root = data_root()
    for person, path in photographs(root):
        yield person, images.load(path), True
    for name, crop in crops(root):
        archive, _, picture = name.partition("/")
        if archive == "lfw_rest":
            yield picture.rsplit("_", 1)[0], crop, False


def collect(packs: list[str], tiny: bool) -> dict[str, NDArray[np.float64]]:
    """Return the measures of every probe, and whether it passes against the person's pictures.

    With `tiny`, the probes are copies 6 to 10 times smaller, of a seventh of the people.
    """
    cv2.setNumThreads(1)
    engines = [FaceEngine(pack, threads=1, min_recognizability=0) for pack in packs]
    rng = np.random.default_rng(2 if tiny else 1)
    clean: dict[str, list[tuple[int, list[NDArray[np.float32]]]]] = defaultdict(list)
    probes: list[tuple[str, int, NDArray[np.float64], list[NDArray[np.float32]]]] = []
    for number, (person, pixels, is_probe) in enumerate(pictures()):
        if tiny and zlib.crc32(person.encode()) % 7:
            continue
        try:
            sample = engines[0].sample(pixels, face="central")
        except FacecoreError:
            continue
        clean[person].append((number, [engine.embed(sample) for engine in engines]))
        for copy in range(COPIES if is_probe else 0):
            changed = pixels
            if tiny:
                shrink = DEGRADATIONS["low resolution"]
                changed = shrink.apply(pixels, sample.face, float(rng.uniform(6, 10)))
            # One unchanged, one changed once, one changed twice.
            for _ in range(0 if tiny else copy):
                kind = KINDS[rng.integers(len(KINDS))]
                degree = float(rng.choice(kind.degrees))
                changed = kind.apply(changed, sample.face, degree)
                if changed.shape != pixels.shape:
                    break  # the landmarks fit only the old size
            try:
                seen = engines[0].sample(changed, face="central")
            except FacecoreError:
                continue
            values = assess(seen).measures
            row = np.array([values[name] for name in MEASURES])
            probes.append((person, number, row, [engine.embed(seen) for engine in engines]))
    rows, similarities, people = [], [], []
    for person, number, row, vectors in probes:
        mates = [mate for other, mate in clean[person] if other != number]
        for at in rng.permutation(len(mates))[:MATES]:
            rows.append(row)
            pairs = zip(vectors, mates[at], strict=True)
            similarities.append([float(mine @ theirs) for mine, theirs in pairs])
            people.append(zlib.crc32(person.encode()))
    thresholds = [engine.calibration.similarity(80.0) for engine in engines]
    return {
        "measures": np.array(rows),
        "passed": np.array(similarities) >= np.array(thresholds, np.float64),
        "people": np.array(people),
    }


def penalties(measures: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[tuple[str, float]]]:
    """``max(0, 1 - measure / cut)``, a column for each measure and cut."""
    columns, names = [], []
    order = list(MEASURES)
    for name in USED:
        for cut in CUTS:
            columns.append(np.maximum(0, 1 - measures[:, order.index(name)] / cut))
            names.append((name, cut))
    return np.stack(columns, 1), names


def fit(
    X: NDArray[np.float64], y: NDArray[np.float64], strength: float
) -> tuple[float, NDArray[np.float64]]:
    """Fit offset and weights of the logistic regression; no weight below 0, with an L1 penalty."""

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = w[0] - X @ w[1:]
        value = np.logaddexp(0, -z) * y + np.logaddexp(0, z) * (1 - y)
        slope = 1 / (1 + np.exp(-z)) - y
        gradient = np.concatenate([[slope.mean()], -(slope @ X) / len(y) + strength])
        return float(value.mean() + strength * w[1:].sum()), gradient

    bounds = [(None, None)] + [(0.0, None)] * X.shape[1]
    start = np.concatenate([[1.0], np.full(X.shape[1], 0.1)])
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return float(found.x[0]), found.x[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of what was measured")
    parser.add_argument("--packs", nargs="+", default=["compact"])
    parser.add_argument("--strength", type=float, default=2e-4)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = []
    for tiny in (False, True):
        stored = args.out / ("tiny.npz" if tiny else "quality.npz")
        if not stored.exists():
            np.savez_compressed(stored.with_suffix(".tmp.npz"), **collect(args.packs, tiny))
            os.replace(stored.with_suffix(".tmp.npz"), stored)
        parts.append(np.load(stored))
    data = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    X, names = penalties(data["measures"])
    y = data["passed"].mean(1)  # over the packs
    held = data["people"] % 5 == 0
    offset, weights = fit(X[~held], y[~held], args.strength)
    z = offset - X[held] @ weights
    order = np.argsort(z)
    kept = y[held][order][len(order) // 5 :]
    print(
        f"{len(y)} comparisons, {held.sum()} held out: FNMR {1 - y[held].mean():.4f}, "
        f"{1 - kept.mean():.4f} without the worst fifth"
    )
    score = 100 / (1 + np.exp(-z))
    for low in range(0, 100, 10):
        inside = (score >= low) & (score < low + 10)
        if inside.any():
            passing = y[held][inside].mean()
            print(f"  score {low:3}..{low + 10:3}: {inside.sum():6} pass {passing:.3f}")
    offset, weights = fit(X, y, args.strength)
    print(f"OFFSET = {offset:.3f}\nHINGES = (")
    for (name, cut), weight in zip(names, weights, strict=True):
        if weight > 0.02:
            print(f'    ("{name}", {cut}, {weight:.3f}),')
    print(")")


if __name__ == "__main__":
    main()
