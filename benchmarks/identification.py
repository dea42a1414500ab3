"""Do strangers match at the rate that `search(..., far=)` promises?

    python -m benchmarks identification --pack mobilefacenet [--people 2000] [--json FILE]

Uses one picture per person of Labeled Faces in the Wild: some form the gallery, the others search
it.  Each row is a gallery size and a rate, with the resulting threshold and the share of strangers
with a match, with a 95 % interval (Wilson; strangers are distinct people, so the trials are
independent given the gallery).
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


def main() -> int:
    from data import data_root

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument("--people", type=int, default=5749)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 3000])
    parser.add_argument("--far", type=float, nargs="+", default=[0.3, 0.1, 0.01, 0.001])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folders = sorted(path for path in (data_root() / "lfw/images").iterdir() if path.is_dir())
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
