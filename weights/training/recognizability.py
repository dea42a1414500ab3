"""Fit or copy the gate that refuses faces an embedder cannot read, and write it into packs.

Run it after the calibration (`calibrate.py`), on the crops of `spoiled.py`:

    python weights/training/recognizability.py RUN/spoiled weights/compact weights/mobilefacenet

A variant, whose vectors have the contract of another pack, takes that pack's gate:

    python weights/training/recognizability.py RUN/spoiled weights/compact-int8 \\
        --gate-of weights/compact
"""

from __future__ import annotations

import argparse
from hashlib import sha256
from pathlib import Path

import numpy as np

from facecore.evaluation.recognizability import measure, write_section
from facecore.evaluation.spoiled_crops import SpoiledCrops
from facecore.models.manifest import MANIFEST_NAME, contract_id, read_manifest

DATASET = (
    "LFW pictures that no test pair uses and crops of 13 more sets, as they are and spoiled at "
    "random; the limit on people whom nothing was trained on"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spoiled", type=Path, help="folder of spoiled.py")
    parser.add_argument("packs", type=Path, nargs="+", help="folders of the packs' manifests")
    parser.add_argument(
        "--gate-of", type=Path, metavar="PACK", help="take the gate of this pack; fit none"
    )
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    with np.load(args.spoiled / "labels.npz") as labels:
        crops = np.load(args.spoiled / "crops.npy", mmap_mode="r")
        columns = {name: labels[name] for name in labels.files}
    # The rows of the table show people whom no embedder has learnt: half of these people serve
    # the fit, the others the limit and the printed shares.
    columns["held_out"] &= [
        int(sha256(p.encode()).hexdigest(), 16) % 2 == 0 for p in columns["person"]
    ]
    columns["group"] = 2 * columns["group"] + columns["held_out"]
    spoiled = SpoiledCrops(crops, **columns)
    gate = None
    if args.gate_of:
        giver = read_manifest(args.gate_of / MANIFEST_NAME).embedder
        gate = giver.recognizability
        if gate is None:
            raise SystemExit(f"{args.gate_of} has no gate")
        for folder in args.packs:
            if contract_id(read_manifest(folder / MANIFEST_NAME).embedder) != contract_id(giver):
                raise SystemExit(f"{folder} has another contract than {args.gate_of}")
    for folder in args.packs:
        # The models of a pulled pack lie in the cache, so pass its name instead of its folder.
        pack = folder if any(folder.glob("*.onnx")) else folder.name
        made = measure(pack, spoiled, DATASET, gate)
        if not args.dry:
            write_section(folder / MANIFEST_NAME, made.spec)
        print("\n".join((folder.name, *made.lines)), flush=True)


if __name__ == "__main__":
    main()
