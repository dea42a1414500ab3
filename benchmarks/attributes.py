"""Errors of the apparent age and gender on crops of UTKFace that were not trained on, by group.

Also by group: how the quality measures that could judge the skin come out, on the same crops.

    python -m benchmarks attributes [--pack NAME]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facecore.face.alignment import TEMPLATE
from facecore.face.attributes import AttributeEstimator
from facecore.face.detection import Face
from facecore.face.quality import assess
from facecore.face.sample import FaceSample
from facecore.models import load_pack
from facecore.models.runtime import open_model

sys.path.insert(0, str(Path(__file__).parents[1] / "weights" / "training"))

from data import data_root, utkface

RACES = ("White", "Black", "Asian", "Indian", "others")  # as UTKFace names them
BANDS = ((0, 4), (5, 15), (16, 29), (30, 44), (45, 59), (60, 74), (75, 120))
WATCHED = ("score", "under_exposure", "luminance_mean", "occlusion", "key_occlusion")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="compact")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    loaded = load_pack(args.pack)
    spec, data = loaded.pack.attributes, loaded.attributes
    if spec is None or data is None:
        raise SystemExit(f"the pack {args.pack} has no network for age and gender")
    estimator = AttributeEstimator(open_model(spec, data, threads=1), spec)

    images, labels = utkface(data_root(), "test")
    crops = np.ascontiguousarray(images[:, 8:120, 8:120])
    answers = [a for i in range(0, len(crops), 64) for a in estimator.estimate(crops[i : i + 64])]
    age, female, race = labels.T
    off = np.array([a.age for a in answers]) - age
    right = np.array([a.gender == "F" for a in answers]) == (female == 1)
    adult = age > 15
    print(f"{len(age)} held-out crops: mean absolute error {np.abs(off).mean():.2f} years, ")
    print(f"gender right {right[adult].mean():.1%} above the age of 15 ({adult.sum()} crops)")

    def row(name: str, inside: NDArray[np.bool_]) -> None:
        if inside.sum() < 10:
            return
        grown = right[inside & adult]
        gender = f"{grown.mean():.1%}" if len(grown) else "-"
        print(
            f"| {name} | {inside.sum()} | {np.abs(off[inside]).mean():.1f} | "
            f"{off[inside].mean():+.1f} | {gender} |"
        )

    print("\n| group | crops | mean absolute error | mean error | gender right above 15 |")
    print("|---|---|---|---|---|")
    everyone = np.ones(len(age), bool)
    row("all", everyone)
    row("male", female == 0)
    row("female", female == 1)
    for number, name in enumerate(RACES):
        row(name, race == number)
    for number, name in enumerate(RACES):
        for sex, word in enumerate(("male", "female")):
            row(f"{name}, {word}", (race == number) & (female == sex))
    for low, high in BANDS:
        row(f"{low}-{high} years", (age >= low) & (age <= high))

    face = Face(np.array([28, 32, 100, 124], np.float32), (TEMPLATE + 8).astype(np.float32), 1.0)
    seen = []
    for image, crop in zip(images, crops, strict=True):
        quality = assess(FaceSample(image, face, crop))
        seen.append([quality.score] + [quality.measures[name] for name in WATCHED[1:]])
    values = np.array(seen)
    print("\nmean quality of the same crops, people above 15")
    print("| group | " + " | ".join(WATCHED) + " | LOW |")
    print("|---" * (len(WATCHED) + 2) + "|")
    for number, name in enumerate(RACES):
        inside = values[(race == number) & adult]
        numbers = " | ".join(f"{value:.0f}" for value in inside.mean(0))
        print(f"| {name} | {numbers} | {(inside[:, 0] < 50).mean():.1%} |")


if __name__ == "__main__":
    main()
