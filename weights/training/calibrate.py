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
import tomllib
from pathlib import Path

from data import data_root, photographs

from facecore import FaceEngine
from facecore.evaluation.calibrate import measure
from facecore.models.calibration_file import calibration_lines
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
    print("\n".join(calibrate(parser.parse_args().folder)))


def calibrate(folder: Path) -> list[str]:
    """Measure a pack's tables, put them into its manifest, and return them for people."""
    manifest = folder / "pack.toml"
    # The tables of another embedder, whose weights these replaced, are refused: they go first.
    embedder = tomllib.loads(manifest.read_text("utf-8"))["embedder"]
    digest = embedder["sha256"]
    if embedder.get("calibration", {}).get("embedder", digest) != digest:
        replace_tables(manifest, [])
    # A pack that was pulled has its models in the cache: it is named, not pointed at.
    shipped = any(folder.glob("*.onnx"))
    engine = FaceEngine(folder if shipped else folder.name)

    pictures = list(photographs(data_root(), calibration=True))
    result = measure(engine, pictures, dataset=DATASET, face="central", progress=True)
    portrait = result.id_portrait_calibration
    assert portrait is not None
    if not all(knot.measured for table in (result.calibration, portrait) for knot in table.knots):
        raise SystemExit("a pack's table must be measured down to its rarest rate")
    tables = [
        COMMENT,
        *calibration_lines("embedder.calibration", result.calibration.to_spec(digest)),
        "",
        *calibration_lines("embedder.id_portrait_calibration", portrait.to_spec(digest)),
    ]
    replace_tables(manifest, [f"  {line}".rstrip() for line in tables])
    return result.lines()


def replace_tables(manifest: Path, tables: list[str]) -> None:
    """Put the lines of both tables where the old ones are, or last in the embedder's section.

    All other sections stay.
    """
    lines = manifest.read_text(encoding="utf-8").splitlines()
    first = lines.index("[embedder]") + 1
    # The next model's section, or the comment above it, begins in the first column.
    end = next((i for i in range(first, len(lines)) if lines[i][:1] in ("[", "#")), len(lines))
    places = (i for i in range(first, end) if lines[i].strip() == "[embedder.calibration]")
    start = next(places, end)
    if lines[start - 1].lstrip().startswith("#"):
        start -= 1  # the comment before the first table goes with them
    while not lines[start - 1]:
        start -= 1
    tables = ["", *tables] if tables else []
    rest = ["", *lines[end:]] if end < len(lines) else []
    partial = manifest.with_suffix(".new")
    partial.write_text("\n".join([*lines[:start], *tables, *rest]) + "\n", encoding="utf-8")
    read_manifest(partial)
    os.replace(partial, manifest)


if __name__ == "__main__":
    main()
