"""Errors of apparent age and gender by group, on UTKFace crops not used in training.

Compares with SSR-Net, a public network, on the same crops, if h5py is installed (the extra
`bench`) and its weights are in the reference data.  Also prints, by group, the quality measures
that could depend on skin colour: their means on these crops, and how often a measure that limits
the score is low, on all crops of UTKFace.

    python -m benchmarks attributes [--pack NAME] [--only quality]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._ssrnet import SSRNet
from facecore.face.alignment import TEMPLATE
from facecore.face.attributes import AttributeEstimator
from facecore.face.detection import Face
from facecore.face.measures.visibility import LIMITING, limits
from facecore.face.quality import HIGH_FROM, LOW_BELOW, assess
from facecore.face.sample import FaceSample
from facecore.images.picture import Picture
from facecore.models.packs import load_pack
from facecore.models.session import open_model

sys.path.insert(0, str(Path(__file__).parents[1] / "weights" / "training"))

from data import data_root, utkface

RACES = ("White", "Black", "Asian", "Indian", "others")  # as UTKFace names them
BANDS = ((0, 4), (5, 15), (16, 29), (30, 44), (45, 59), (60, 74), (75, 120))
WATCHED = ("score", "under_exposure", "luminance_mean", "occlusion", "key_occlusion")

# Pixels per side added to the 128-pixel crop for SSR-Net; -8 leaves the 112-pixel template.
# SSR-Net was trained with a margin of two fifths of the face box, more than a crop has, so the
# crop's border is replicated.
MARGINS = (-8, 0, 16, 32)


def framed(images: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    """Return the crops (N, 128, 128, 3) extended (or cut) by `margin` pixels on every side."""
    if margin < 0:
        return images[:, -margin:margin, -margin:margin]
    around = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    return np.pad(images, around, mode="edge")


def reference(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
    """Return SSR-Net's ages and genders (True: woman), at its best margin.

    The margin with the lowest age error on a third of the development part is used.  Without h5py
    or the weights, prints the reason and returns None.
    """
    folder = data_root() / "weights" / "ssrnet"
    try:
        ages = SSRNet(folder / "age_imdb.h5", span=101)
        genders = SSRNet(folder / "gender_imdb.h5", span=1)
    except ImportError:
        print("SSR-Net is left out: h5py is not installed (pip install 'facecore[bench]')")
        return None
    except FileNotFoundError:
        print(f"SSR-Net is left out: age_imdb.h5 or gender_imdb.h5 is not in {folder}")
        return None
    others, labels = utkface(data_root(), "development")
    others, age = others[::3], labels[::3, 0]
    errors = {m: float(np.abs(ages(framed(others, m)) - age).mean()) for m in MARGINS}
    best = min(errors, key=lambda margin: errors[margin])
    tried = ", ".join(f"{128 + 2 * m} pixels {error:.1f}" for m, error in errors.items())
    print(f"SSR-Net on {len(age)} development crops, error in years by the crop's side: {tried}")
    seen = framed(images, best)
    years = ages(seen)
    print(f"its answers on the held-out crops lie between {years.min():.0f} and {years.max():.0f}")
    return years, genders(seen) < 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--only", choices=("quality",), help="leave age and gender out")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    images, labels = utkface(data_root(), "test")
    if not args.only:
        age_and_gender(args.pack, images, labels)
    quality_by_group(images, labels)
    limits_by_group()


def age_and_gender(pack: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    loaded = load_pack(pack)
    spec, data = loaded.pack.attributes, loaded.attributes
    if spec is None or data is None:
        raise SystemExit(f"the pack {pack} has no network for age and gender")
    estimator = AttributeEstimator(open_model(spec, data, threads=1), spec)
    crops = np.ascontiguousarray(images[:, 8:120, 8:120])
    answers = [a for i in range(0, len(crops), 64) for a in estimator.estimate(crops[i : i + 64])]
    age, female, race = labels.T
    off = np.array([a.age for a in answers]) - age
    right = np.array([a.gender == "F" for a in answers]) == (female == 1)
    adult = age > 15
    print(f"{len(age)} held-out crops, {adult.sum()} of people above the age of 15")
    rows = [(pack, off, right)]
    if (answered := reference(images)) is not None:
        years, woman = answered
        rows.append(("SSR-Net", years - age, woman == (female == 1)))
    print("\n| network | mean absolute error | above 15 | mean error above 15 | gender above 15 |")
    print("|---|---|---|---|---|")
    for name, wrong, hit in rows:
        print(
            f"| {name} | {np.abs(wrong).mean():.1f} | {np.abs(wrong[adult]).mean():.1f} | "
            f"{wrong[adult].mean():+.1f} | {hit[adult].mean():.1%} |"
        )

    def row(name: str, inside: NDArray[np.bool_]) -> None:
        if inside.sum() < 10:
            return
        grown = right[inside & adult]
        gender = f"{grown.mean():.1%}" if len(grown) else "-"
        print(
            f"| {name} | {inside.sum()} | {np.abs(off[inside]).mean():.1f} | "
            f"{off[inside].mean():+.1f} | {gender} |"
        )

    print(f"\nby group, {pack}")
    print("| group | crops | mean absolute error | mean error | gender right above 15 |")
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


def quality_by_group(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    face = Face(np.array([28, 32, 100, 124], np.float32), (TEMPLATE + 8).astype(np.float32), 1.0)
    age, _, race = labels.T
    seen = []
    for image in images:
        crop = np.ascontiguousarray(image[8:120, 8:120])
        quality = assess(FaceSample(Picture.of(image), face, crop))
        seen.append([quality.score] + [quality.measures[name] for name in WATCHED[1:]])
    values = np.array(seen)
    print("\nmean quality of the held-out crops, people above 15")
    print("| group | crops | " + " | ".join(WATCHED) + " | HIGH | LOW |")
    print("|---" * (len(WATCHED) + 4) + "|")
    for number, name in enumerate(RACES):
        inside = values[(race == number) & (age > 15)]
        numbers = " | ".join(f"{value:.0f}" for value in inside.mean(0))
        score = inside[:, 0]
        print(
            f"| {name} | {len(inside)} | {numbers} | {(score >= HIGH_FROM).mean():.1%} | "
            f"{(score < LOW_BELOW).mean():.1%} |"
        )


def limits_by_group() -> None:
    parts = [utkface(data_root(), part) for part in ("train", "development", "test")]
    values = np.array(
        [
            list(limits(np.ascontiguousarray(image[8:120, 8:120])).values())
            for images, _ in parts
            for image in images
        ]
    )
    age, _, race = np.concatenate([labels for _, labels in parts]).T
    print(f"\nbelow {HIGH_FROM:g}, all crops of people above 15")
    print("| group | crops | " + " | ".join(LIMITING) + " | least of them below 1 |")
    print("|---" * (len(LIMITING) + 3) + "|")
    for number, name in enumerate(RACES):
        inside = values[(race == number) & (age > 15)]
        shares = " | ".join(f"{share:.1%}" for share in (inside < HIGH_FROM).mean(0))
        refused = (inside.min(1) < 1).sum()
        print(f"| {name} | {len(inside)} | {shares} | {refused} |")


if __name__ == "__main__":
    main()
