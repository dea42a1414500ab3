"""Last step of a pack: measure its false accept rates and write them into its manifest.

The people are the 1,468 of LFW who occur in no test pair: no test has seen them, and
neither has the training of the compact pack.  All pairs of pictures of different people
are compared; the intervals come from a bootstrap of people.  The second table compares
the same pictures, made to look like the portrait of an identity card's chip, with the
photographs of all the others.

    python weights/training/calibrate.py weights/compact
    python weights/training/calibrate.py weights/mobilefacenet
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from data import data_root, photographs

from facecore import FaceEngine
from facecore.calibrating import measure
from facecore.models.calibrations import calibration_lines
from facecore.models.manifest import read_manifest

DATASET = (
    "LFW deep-funneled, the pictures of people who occur in none of the 6,000 test pairs, "
    "the face nearest to the centre"
)
COMMENT = "# low and high: 95 % interval of the false accept rate; fnmr: of genuine pairs, rejected"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the pack's manifest")
    folder = parser.parse_args().folder
    # A pack that was pulled has its models in the cache: it is named, not pointed at.
    shipped = any(folder.glob("*.onnx"))
    engine = FaceEngine(folder if shipped else folder.name)

    pictures = list(photographs(data_root(), calibration=True))
    result = measure(engine, pictures, dataset=DATASET, face="central", progress=True)
    portrait = result.id_portrait_calibration
    assert portrait is not None
    if not all(knot.measured for table in (result.calibration, portrait) for knot in table.knots):
        raise SystemExit("a pack's table must be measured down to its rarest rate")
    lines = [
        COMMENT,
        *calibration_lines("embedder.calibration", result.calibration.to_spec()),
        "",
        *calibration_lines("embedder.id_portrait_calibration", portrait.to_spec()),
    ]
    tables = "".join(f"  {line}".rstrip() + "\n" for line in lines)
    manifest = folder / "pack.toml"
    # These are the last sections; the comment before the first goes with them.
    kept = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        if line.strip() == "[embedder.calibration]":
            break
        kept.append(line)
    if kept and kept[-1].lstrip().startswith("#"):
        kept.pop()
    partial = manifest.with_suffix(".new")
    partial.write_text("\n".join(kept) + "\n" + tables, encoding="utf-8")
    read_manifest(partial)
    os.replace(partial, manifest)
    print("\n".join(result.lines()))


if __name__ == "__main__":
    main()
