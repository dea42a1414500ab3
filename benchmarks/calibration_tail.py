"""Does a pack's calibration hold for other people, including its extrapolated tail?

1. False accept rates of the two tables on all pairs of the LFW pictures in the test pairs.  The
   tables were measured down to 0.01 %, on other people; below, the exponential tail extrapolates.
2. Accuracy of extrapolated knots from small folders: fits tables with three tails on random draws
   of 50 to 200 of the 1,468 people in no test pair, and compares their extrapolated thresholds
   with all 1,468.

    python -m benchmarks calibration_tail --pack mobilefacenet --json tail.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from facecore import FaceEngine
from facecore.evaluation.readers import read_lfw_pairs
from facecore.evaluation.vectors import IdPortraits, embed_all
from facecore.matching.calibration import Calibration

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "weights" / "training"))
from data import data_root, photographs

RATES = (0.01, 0.001, 0.0001, 0.00001, 0.000001)
BLOCK = 512


def embed(engine: FaceEngine, paths: list[Path], portraits: bool) -> np.ndarray[Any, Any]:
    """Return vectors (N, D); NaN rows where there is no vector."""
    if portraits:
        return embed_all(engine, IdPortraits(engine, paths, "central"), "largest").vectors
    return embed_all(engine, paths, "central").vectors


def on_other_people(engine: FaceEngine, root: Path) -> list[dict[str, Any]]:
    # Only pictures of the test pairs: compact was trained on other pictures of these people.
    pairs = read_lfw_pairs(root / "lfw" / "pairs.txt")
    names = sorted({name for pair in pairs for name in pair[2:]})
    paths = [root / "lfw" / "images" / name for name in names]
    people = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    photos = embed(engine, paths, False)
    tables = {
        "photographs": (engine.calibration, photos),
        "ID portraits": (engine.id_portrait_calibration, embed(engine, paths, True)),
    }
    rows = []
    for name, (table, first) in tables.items():
        assert table is not None
        limits = [float(table.similarity(table.threshold(far))) for far in RATES]
        passing, total = np.zeros(len(RATES), int), 0
        for start in range(0, len(first), BLOCK):
            similarity = first[start : start + BLOCK] @ photos.T
            other = people[start : start + BLOCK, None] != people[None]
            if name == "photographs":  # each pair once
                other &= np.arange(start, start + len(other))[:, None] < np.arange(len(people))
            values = similarity[other & ~np.isnan(similarity)]
            total += len(values)
            passing += [np.count_nonzero(values >= limit) for limit in limits]
        for far, count in zip(RATES, passing, strict=True):
            score = table.threshold(far)
            rows.append(
                {
                    "table": name,
                    "far": far,
                    "score": score,
                    "measured": not bool(table.is_extrapolated(score)),
                    "comparisons": total,
                    "found": int(count) / total,
                }
            )
    return rows


def on_few_people(engine: FaceEngine, root: Path, draws: int = 100) -> list[dict[str, Any]]:
    names, paths = zip(*photographs(root, calibration=True), strict=True)
    firsts = np.unique(names, return_index=True)[1]  # one picture per person
    vectors = embed(engine, [paths[i] for i in firsts], False)
    vectors = vectors[~np.isnan(vectors[:, 0])]
    similarity = (vectors @ vectors.T).astype(float)
    count = len(vectors)
    everything = np.sort(similarity[np.triu_indices(count, 1)])
    rng = np.random.default_rng(0)
    rows = []
    for people in (50, 100, 200):
        found: dict[tuple[float, str], list[float]] = {}
        for _ in range(draws):
            drawn = rng.choice(count, people, replace=False)
            values = similarity[np.ix_(drawn, drawn)][np.triu_indices(people, 1)]
            table = Calibration.fit(None, values)
            measured = [knot for knot in table.knots if knot.measured]
            before, last = measured[-2:]
            slope = (last.similarity - before.similarity) / math.log(before.far / last.far)
            descending = np.sort(values)[::-1]
            floor = descending[100]
            shape, _, scale = stats.genpareto.fit(descending[:100] - floor, floc=0)
            for knot in table.knots[len(measured) :]:
                beyond = knot.far * len(values) / 100
                places = {
                    "exponential": knot.similarity,
                    "generalised Pareto": floor + stats.genpareto.isf(beyond, shape, 0, scale),
                    "last segment": last.similarity + slope * math.log(last.far / knot.far),
                }
                for tail, place in places.items():
                    real = 1 - np.searchsorted(everything, place) / len(everything)
                    found.setdefault((knot.far, tail), []).append(real / knot.far)
        for (far, tail), ratios in sorted(found.items(), reverse=True):
            low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
            rows.append(
                {
                    "people": people,
                    "far": far,
                    "tail": tail,
                    "5 %": float(low),
                    "median": float(middle),
                    "95 %": float(high),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    engine = FaceEngine(args.pack, threads=args.threads)
    others, few = on_other_people(engine, data_root()), on_few_people(engine, data_root())
    print(f"pack {args.pack}: rates found among LFW people of the test pairs")
    for row in others:
        kind = "measured" if row["measured"] else "extrapolated"
        print(
            f"  {row['table']:<13} score {row['score']:5.1f}  stated {row['far']:.4%} {kind:<12} "
            f"found {row['found']:.5%} of {row['comparisons']:,}"
        )
    print("real rate over stated rate of extrapolated knots, of 100 draws of so many people")
    for row in few:
        print(
            f"  {row['people']:>3} people  FAR {row['far']:.2%}  {row['tail']:<18} "
            f"median {row['median']:.2f}  (5 % {row['5 %']:.2f}, 95 % {row['95 %']:.2f})"
        )
    if args.json:
        answer = {"pack": args.pack, "other_people": others, "few_people": few}
        args.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
