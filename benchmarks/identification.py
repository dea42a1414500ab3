"""Do strangers match at the rate that `search(..., far=)` promises?

    python -m benchmarks identification --pack mobilefacenet [--people 2000] [--json FILE]

Uses one picture per person of Labeled Faces in the Wild: some form the gallery, the others search
it.  Each row is a gallery size and a rate, with the resulting threshold and the share of strangers
with a match, with a 95 % interval (Wilson; strangers are distinct people, so the trials are
independent given the gallery).

    python -m benchmarks identification --verify 1 3 5

Does `Gallery.verify` keep the threshold's rate for users with that many enrolled pictures?  Each
user's next picture is a genuine probe; 1,500 people with a single picture are the strangers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from templates import TemplateEngine

from benchmarks._measuring import machine, write_json
from facecore import FacecoreError, FaceEngine, Gallery
from facecore.evaluation.vectors import embed_all
from facecore.gallery.thresholds import per_comparison, score_threshold
from facecore.matching.intervals import wilson_interval

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "weights" / "training"))


def strangers_who_find(
    gallery_of: np.ndarray[Any, Any], strangers: np.ndarray[Any, Any], fars: list[float], pack: str
) -> list[dict[str, float]]:
    """Return, for each rate, the share of strangers who match a gallery of these templates."""
    engine: Any = TemplateEngine(pack)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, Gallery(Path(folder) / "g", engine) as gallery:
        gallery.create_group("g")
        users = [str(i) for i in range(len(gallery_of))]
        gallery.add_templates("g", gallery_of, users, contract=engine.contract_id)
        for far in fars:
            try:
                found = sum(bool(gallery.search(s, far=far, limit=1)) for s in strangers)
            except FacecoreError as error:
                rows.append({"faces": len(gallery_of), "far": far, "error": str(error)})  # type: ignore[dict-item]
                continue
            score = score_threshold(engine.calibration, far, len(gallery_of))
            low, high = wilson_interval(found, len(strangers))
            rows.append(
                {
                    "faces": len(gallery_of),
                    "far": far,
                    "per_comparison": per_comparison(far, len(gallery_of)),
                    "score": score,
                    "extrapolated": bool(engine.calibration.is_extrapolated(score)),
                    "strangers": len(strangers),
                    "measured": found / len(strangers),
                    "low": low,
                    "high": high,
                }
            )
    return rows


def verification(engine: FaceEngine, people: list[list[Path]], enrolled: list[int]) -> list[Any]:
    """Measure the rates of strangers and users at the engine's threshold, by enrolled pictures."""
    rng = np.random.default_rng(0)
    alone = [some[0] for some in people if len(some) == 1]
    strangers = [alone[i] for i in rng.permutation(len(alone))[:1500]]
    needed = max(enrolled) + 1
    paths = strangers + [
        path for some in people if len(some) > min(enrolled) for path in some[:needed]
    ]
    embedded = embed_all(engine, paths, "central")
    vectors = dict(zip(paths, embedded.vectors, strict=True))
    read = {path for path, found in zip(paths, embedded.found, strict=True) if found}
    probes = np.stack([vectors[path] for path in strangers if path in read])
    table, rows = engine.calibration, []
    rate = float(table.far(engine.threshold))
    print("  n  users  strangers, best at the threshold  strangers, verify  users missed")
    for n in enrolled:
        users = [
            some[: n + 1] for some in people if len(some) > n and read.issuperset(some[: n + 1])
        ]
        one = float(table.similarity(engine.threshold))
        several = float(table.similarity(score_threshold(table, rate, n)))  # as `best_of` counts
        best, missed = [], 0
        for *templates, probe in users:
            matrix = np.stack([vectors[path] for path in templates])
            best.append((probes @ matrix.T).max(axis=1))
            missed += bool((matrix @ vectors[probe]).max() < several)
        row = [
            np.mean(np.stack(best) >= one),
            np.mean(np.stack(best) >= several),
            missed / len(users),
        ]
        rows.append({"n": n, "users": len(users), "rates": [float(value) for value in row]})
        print(f"{n:3} {len(users):6,}  {row[0]:32.3%}  {row[1]:17.3%}  {row[2]:12.2%}")
    return rows


def main() -> int:
    from data import data_root

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--people", type=int, default=5749)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 3000])
    parser.add_argument("--far", type=float, nargs="+", default=[0.3, 0.1, 0.01, 0.001])
    parser.add_argument("--verify", metavar="N", type=int, nargs="+", help="enrolled pictures")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folders = sorted(path for path in (data_root() / "lfw/images").iterdir() if path.is_dir())
    if args.verify:
        people = [sorted(folder.iterdir()) for folder in folders]
        print(f"{args.pack}:")
        measured = verification(FaceEngine(args.pack), people, args.verify)
        write_json(args.json, machine(), pack=args.pack, rows=measured)
        return 0
    paths = [sorted(folder.iterdir())[0] for folder in folders]
    order = np.random.default_rng(0).permutation(len(paths))[: args.people]
    embedded = embed_all(FaceEngine(args.pack), [paths[i] for i in order], "central")
    vectors = embedded.vectors[embedded.found]
    rows = []
    print(f"{args.pack}: {len(vectors):,} people")
    print("  faces    far  per comparison   score  strangers who find anybody")
    for size in args.sizes:
        if size < len(vectors):
            for row in strangers_who_find(vectors[:size], vectors[size:], args.far, args.pack):
                rows.append(row)
                if "error" in row:
                    print(f"{size:7,} {row['far']:6g}  {row['error']}")
                    continue
                mark = "extrapolated" if row["extrapolated"] else ""
                print(
                    f"{size:7,} {row['far']:6g}  {row['per_comparison']:14.2g} {row['score']:7.2f}"
                    f"  {row['measured']:.4f} ({row['low']:.4f}..{row['high']:.4f}) {mark}"
                )
    write_json(args.json, machine(), pack=args.pack, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
