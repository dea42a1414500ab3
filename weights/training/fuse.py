"""Step 3 of the liveness classifier: join the network with the cues, and set the threshold.

A logistic regression over presentations that the network was not trained on; every species
weighs the same, and genuine presentations as much as all attacks.  The bias is then set so that
a score of 50 is reached by a named share of genuine pictures of people whom no step was trained
on: LFW's people who are in no test pair, pictures as they are and photographed by the simulated
camera; the share holds for the worse of the two.

    python weights/training/fuse.py --data DIR --genuine DIR      # after publish.py --liveness RUN
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from presentations import AS_IT_IS, CAMERA, read, toned
from publish import COMPACT
from recapture import GENUINE

from facecore.face.liveness import AttackClassifier
from facecore.models.packs import load_pack
from facecore.models.session import open_model
from facecore.models.specs import LIVENESS_CUES

RIDGE = 1e-3
LIMIT = 4.0

Floats = NDArray[np.float64]


def evidence(classifier: AttackClassifier, pixels: NDArray[np.uint8], box: Floats) -> list[float]:
    cues, logit = classifier.evidence(pixels, box)
    return [*cues.values(), logit]


def regression(features: Floats, labels: Floats, weights: Floats) -> Floats:
    """Weights and, last, the bias of a ridge-penalised logistic regression (Newton's method)."""
    design = np.column_stack([features, np.ones(len(features))])
    found = np.zeros(design.shape[1])
    penalty = RIDGE * weights.sum() * np.eye(len(found))
    penalty[-1, -1] = 0
    for _ in range(50):
        chance = 1 / (1 + np.exp(-design @ found))
        slope = design.T @ (weights * (labels - chance)) - penalty @ found
        curvature = (design * (weights * chance * (1 - chance))[:, None]).T @ design + penalty
        found += np.linalg.solve(curvature, slope)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="presentations of another seed")
    parser.add_argument("--bpcer", type=float, default=0.05)
    parser.add_argument("--genuine", type=Path, required=True, help="what --genuine made")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    loaded = load_pack(COMPACT)
    if loaded.pack.liveness is None or loaded.liveness is None:
        raise SystemExit("the compact pack has no liveness model yet")
    spec = loaded.pack.liveness
    classifier = AttackClassifier(open_model(spec, loaded.liveness, threads=1), spec)
    rng = np.random.default_rng(1)
    seen = [(evidence(classifier, toned(p.pixels, rng), p.box), p.species) for p in read(args.data)]
    rows, species = np.array([row for row, _ in seen]), np.array([name for _, name in seen])
    kinds, counts = np.unique(species, return_counts=True)
    attacks = len(kinds) - 1
    share = {
        k: (0.5 if k == GENUINE else 0.5 / attacks) / n for k, n in zip(kinds, counts, strict=True)
    }
    cues = rows[:, :-1]
    mean, scale = cues.mean(axis=0), np.maximum(cues.std(axis=0), 1e-3)

    def features(rows: Floats) -> Floats:
        scaled = np.clip((rows[:, :-1] - mean) / scale, -LIMIT, LIMIT)
        return np.column_stack([scaled, rows[:, -1]])

    labels = (species != GENUINE).astype(np.float64)
    found = regression(features(rows), labels, np.array([share[k] for k in species]))
    genuine: dict[str, list[list[float]]] = {AS_IT_IS: [], CAMERA: []}
    for p in read(args.genuine):
        genuine[p.species].append(evidence(classifier, p.pixels, p.box))
    plain, taken = (features(np.array(rows)) @ found[:-1] for rows in genuine.values())
    limits = [float(np.quantile(z, 1 - args.bpcer)) for z in (plain, taken)]
    bias, measured = -max(limits), max(float((z >= max(limits)).mean()) for z in (plain, taken))
    z = features(rows) @ found[:-1] + bias
    for kind in kinds:
        print(f"{kind:8} called attacks: {(z[species == kind] >= 0).mean():.1%}")
    print(
        f"genuine as they are: {(plain + bias >= 0).mean():.2%}, "
        f"photographed again: {(taken + bias >= 0).mean():.2%}"
    )
    for name, weight in zip((*LIVENESS_CUES, "network"), found, strict=False):
        print(f"{name:20} {weight:+.3f}")
    write(mean, scale, found, bias, measured)


def write(mean: Floats, scale: Floats, found: Floats, bias: float, bpcer: float) -> None:
    path = COMPACT / "pack.toml"
    text = path.read_text(encoding="utf-8")

    def array(values: Floats) -> str:
        return "[" + ", ".join(f"{float(v):.5g}" if v % 1 else f"{v:.1f}" for v in values) + "]"

    start = text.index("  [liveness.cues]")
    new = {
        "mean": array(mean), "scale": array(scale), "weight": array(found[:-2]),
        "network": f"{found[-2]:.5f}", "bias": f"{bias:.5f}",
    }  # fmt: skip
    part = text[start:]
    for field, value in new.items():
        part = re.sub(rf"(?m)^(  {field} = ).*$", rf"\g<1>{value}", part, count=1)
    text = re.sub(r"(?m)^bpcer = .*$", f"bpcer = {bpcer:.4f}", text[:start], count=1) + part
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
