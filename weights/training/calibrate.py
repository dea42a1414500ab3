"""Last step of a pack: measure its false accept rates and write them into its manifest.

The people are the 1,468 of LFW who occur in no test pair: no test has seen them, and
neither has the training of the compact pack.  All pairs of pictures of different people
are compared; the intervals come from a bootstrap of people.

    python weights/training/calibrate.py weights/compact
    python weights/training/calibrate.py weights/mobilefacenet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from data import data_root, photographs

from facecore import FaceEngine
from facecore.evaluation.metrics import fmr_interval
from facecore.evaluation.protocols import embed_all
from facecore.matching.calibration import Calibration

DATASET = (
    "LFW deep-funneled, the pictures of people who occur in none of the 6,000 test pairs, "
    "the face nearest to the centre"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the pack's manifest")
    folder = parser.parse_args().folder
    # A pack that was pulled has its models in the cache: it is named, not pointed at.
    shipped = any(folder.glob("*.onnx"))
    engine = FaceEngine(folder if shipped else folder.name)

    names, paths = zip(*photographs(data_root(), calibration=True), strict=True)
    vectors, found = embed_all(engine, paths, "central", progress=True)
    vectors, people = vectors[found], np.unique(names, return_inverse=True)[1][found]
    row, column = np.triu_indices(len(people), 1)
    similarity = (vectors @ vectors.T)[row, column]
    same = people[row] == people[column]

    fitted = Calibration.fit(similarity[~same], dataset=DATASET)
    thresholds = [knot.similarity for knot in fitted.knots]
    intervals = fmr_interval(vectors, people, thresholds)
    method = "quantiles of all impostor pairs; 95 % intervals by bootstrap of people"
    lines = [
        "  [embedder.calibration]",
        f'  dataset = "{DATASET}"',
        f'  method = "{method}"',
        f"  identities = {len(np.unique(people))}",
        f"  genuine = {same.sum()}",
        f"  impostor = {(~same).sum()}",
        "  knots = [",
        *(
            f"    {{ score = {knot.score}, far = {knot.far}, similarity = {knot.similarity:.6f}, "
            f"low = {low:.3g}, high = {high:.3g} }},"
            for knot, (low, high) in zip(fitted.knots, intervals, strict=True)
        ),
        "  ]",
    ]
    manifest = folder / "pack.toml"
    head = manifest.read_text(encoding="utf-8").split("  [embedder.calibration]")[0]
    manifest.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
