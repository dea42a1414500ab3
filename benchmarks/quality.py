"""Quality measures: predictive value, response to degradations, and cost.

Three tables: the error-versus-discard curve on LFW's 6,000 pairs, with a fifth of the pictures
degraded; each measure under its degradation, on 24 of these pictures and 8 of London; and the time
of `quality`, next to detecting, aligning and embedding a face.

    python -m benchmarks quality [--pack NAME] [--only discard|measures|cost]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from facecore import FaceEngine, images
from facecore.errors import FacecoreError
from facecore.evaluation.all_pairs import compare_all
from facecore.evaluation.degradations import DEGRADATIONS, Degradation
from facecore.evaluation.quality import error_versus_discard
from facecore.evaluation.readers import read_lfw_pairs
from facecore.face.measures import MEASURES
from facecore.face.quality import HIGH_FROM, LOW_BELOW, unified_score
from facecore.face.sample import FaceSample

FMR = 0.001
DISCARDED = 0.2
DEGRADED = 0.2  # of the pictures, by a degree of the more severe half
# Without layout changes and without rendered poses, whose folds no camera produces.
HARMFUL = [
    kind
    for name, kind in DEGRADATIONS.items()
    if not name.startswith(("cut", "wider", "yaw", "pitch", "roll"))
]


def data() -> Path:
    root = Path(os.environ.get("FACECORE_DATA", Path(__file__).parents[2] / "shared"))
    if not (root / "lfw").is_dir():
        raise SystemExit(f"{root / 'lfw'} is not there; set FACECORE_DATA")
    return root


def degraded(sample: FaceSample, rng: np.random.Generator) -> NDArray[np.uint8]:
    kind = HARMFUL[rng.integers(len(HARMFUL))]
    severe = kind.degrees[len(kind.degrees) // 2 :]
    return kind.apply(sample.pixels, sample.face, float(rng.choice(severe)))


def observe(
    engine: FaceEngine, names: list[str]
) -> tuple[NDArray[np.float32], list[dict[str, float] | None]]:
    """Return vectors and measures of LFW's pictures, some degraded; None without a vector."""
    folder = data() / "lfw" / "images"
    vectors = np.zeros((len(names), engine.pack.embedder.output.dimension), np.float32)
    measures: list[dict[str, float] | None] = [None] * len(names)
    for at, name in enumerate(names):
        rng = np.random.default_rng([7, at])
        try:
            sample = engine.sample(folder / name, face="central")
            if rng.random() < DEGRADED:
                sample = engine.sample(degraded(sample, rng), face="central")
            vectors[at] = engine.embed(sample)
            measures[at] = dict(engine.quality(sample).measures)
        except FacecoreError:
            continue
    return vectors, measures


def discard(engine: FaceEngine) -> dict[str, Any]:
    """FNMR at FMR 0.1 % by the share of comparisons discarded by score."""
    pairs = read_lfw_pairs(data() / "lfw" / "pairs.txt")
    names = sorted({name for pair in pairs for name in pair[2:]})
    vectors, seen = observe(engine, names)
    # Pictures without a detected face are discarded first.
    scores = np.array([-1.0 if m is None else unified_score(m) for m in seen])
    found = scores >= 0
    people = np.unique([name.partition("/")[0] for name in names], return_inverse=True)[1]
    counted = compare_all(vectors[found], people[found], [0.0], resamples=0)
    impostor = np.cumsum(counted.histograms.impostor[::-1])[::-1] / counted.impostor_pairs
    threshold = float(counted.histograms.edges()[np.argmax(impostor <= FMR)])
    index = {name: at for at, name in enumerate(names)}
    first, second = np.array(
        [[index[name] for name in pair[2:]] for pair in pairs if pair[1]], np.intp
    ).T
    genuine = (vectors[first] * vectors[second]).sum(1)
    genuine[~(found[first] & found[second])] = np.nan
    curve = error_versus_discard(genuine, scores[first], scores[second], threshold)
    at = {
        share: float(curve.fnmr[np.searchsorted(curve.discarded, share)])
        for share in (0.0, 0.05, 0.1, 0.15, DISCARDED, 0.3, 0.5)
    }
    print(
        f"\nLFW, {len(genuine)} genuine pairs, {DEGRADED:.0%} of {len(names)} pictures degraded, "
        f"{(~found).sum()} without a vector (no face, or refused); {engine.pack.name}, "
        f"threshold {threshold:.3f}"
    )
    print("discarded " + "".join(f"{share:8.0%}" for share in at))
    print("FNMR      " + "".join(f"{rate:8.2%}" for rate in at.values()))
    print(f"at {DISCARDED:.0%}: {at[DISCARDED] / at[0.0]:.2f} x that of no discard (goal 0.5)")
    kept = scores > np.quantile(scores, DISCARDED)
    both = kept[first] & kept[second]
    left = float((~(genuine[both] >= threshold)).mean())
    print(
        f"without the worst {DISCARDED:.0%} of the pictures, {1 - both.mean():.0%} of the "
        f"comparisons: FNMR {left:.2%}, {left / at[0.0]:.2f} x"
    )
    areas = curve.partial_area(DISCARDED), curve.best_area(DISCARDED)
    print(f"mean FNMR up to {DISCARDED:.0%} discarded: {areas[0]:.4f}, at best {areas[1]:.4f}")
    worse = np.minimum(scores[first], scores[second])
    cuts = (("LOW", -1, LOW_BELOW), ("MEDIUM", LOW_BELOW, HIGH_FROM), ("HIGH", HIGH_FROM, 101))
    for level, low, high in cuts:
        inside = (worse >= low) & (worse < high)
        rate = float((~(genuine[inside] >= threshold)).mean()) if inside.any() else float("nan")
        print(f"the worse one is {level:6}: {inside.mean():6.1%} of the pairs, FNMR {rate:.2%}")
    return {"fnmr": {str(share): rate for share, rate in at.items()}, "threshold": threshold}


def spearman(values: NDArray[np.float64]) -> float:
    """Rank correlation of increasing degrees with the measured values."""
    ranks = rankdata(values)
    return 0.0 if np.ptp(ranks) == 0 else float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1])


def respond(engine: FaceEngine, kind: Degradation, pixels: NDArray[np.uint8]) -> Any:
    """Return the measures (degrees, measures) of a picture; None if a degree hides the face."""
    rows = []
    try:
        sample = engine.sample(pixels, face="central")
        for degree in kind.degrees:
            changed = kind.apply(pixels, sample.face, degree)
            seen = engine.quality(changed, face="central").measures
            rows.append([seen[name] for name in MEASURES])
    except FacecoreError:
        return None
    return np.array(rows)


def measures(engine: FaceEngine) -> dict[str, Any]:
    """Print each measure's Spearman correlation with the degree, and the others that moved."""
    root = data()
    pairs = read_lfw_pairs(root / "lfw" / "pairs.txt")
    names = sorted({name for pair in pairs for name in pair[2:]})[::320][:24]
    paths = [root / "lfw" / "images" / name for name in names]
    paths += sorted((root / "faces" / "london").glob("*neutral.jpg"))[::13][:8]
    # Enlarge slightly, to remove the files' compression blocks.
    pictures = [
        np.asarray(cv2.resize(images.load(path), None, fx=1.1, fy=1.1), np.uint8) for path in paths
    ]
    order = list(MEASURES)
    answer = {}
    print("\nmedian over pictures of the Spearman correlation with the degree; mean change of")
    print("the score from the first degree to the last; the largest of an unrelated measure; and,")
    print("where some are excused (`Degradation.related`), the largest of those")
    for kind in DEGRADATIONS.values():
        series = [rows for p in pictures if (rows := respond(engine, kind, p)) is not None]
        stack = np.stack(series)
        change = np.abs((stack[:, -1] - stack[:, 0]).mean(0))
        moved = dict(zip(order, change.tolist(), strict=True))
        others = [n for n in order if n not in kind.measures + kind.related]
        most = max(others, key=moved.__getitem__)
        excused = max(kind.related, key=moved.__getitem__, default="")
        also = f"   excused: {excused} {moved[excused]:.1f}" if excused else ""
        for name in kind.measures:
            column = order.index(name)
            rho = float(np.median([spearman(rows[:, column]) for rows in series]))
            answer[f"{kind.name}: {name}"] = {"spearman": rho, "change": moved[name]}
            print(
                f"{kind.name:18} {name:24} {rho:6.2f} {moved[name]:6.1f}   "
                f"{most} {moved[most]:.1f}   ({len(series)} pictures){also}"
            )
    return answer


def cost(engine: FaceEngine) -> dict[str, Any]:
    """Print median times on one thread, taking turns."""
    root = data()
    sets = {
        "LFW 250x250": sorted((root / "lfw" / "images").glob("*/*.jpg"))[::900],
        "London 960x720": sorted((root / "faces" / "london").glob("*.jpg"))[::25],
    }
    answer = {}
    for title, paths in sets.items():
        pictures = [images.load(path) for path in paths]
        times: dict[str, list[float]] = {"embed": [], "quality": []}
        for _ in range(25):
            for pixels in pictures:
                start = time.perf_counter()
                sample = engine.sample(pixels)
                engine.embed(sample)
                middle = time.perf_counter()
                engine.quality(sample)
                times["embed"].append(middle - start)
                times["quality"].append(time.perf_counter() - middle)
        embed, quality = (float(np.median(times[name])) for name in ("embed", "quality"))
        answer[title] = {"embed_ms": embed * 1e3, "quality_ms": quality * 1e3}
        print(
            f"\n{title}: find, align and embed {embed * 1e3:.2f} ms, quality "
            f"{quality * 1e3:.2f} ms: {quality / embed:.1%} (goal 15 %)"
        )
    return answer


PARTS: dict[str, Callable[[FaceEngine], dict[str, Any]]] = {
    "discard": discard,
    "measures": measures,
    "cost": cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    engine = FaceEngine(args.pack, threads=1)
    chosen = [args.only] if args.only else list(PARTS)
    answers = {name: PARTS[name](engine) for name in chosen}
    if args.json:
        args.json.write_text(json.dumps({"pack": args.pack, **answers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
