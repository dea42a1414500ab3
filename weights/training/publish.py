"""Export the trained networks into the compact pack and record their sizes and hashes.

python weights/training/publish.py --detector RUN --embedder RUN --attributes RUN
python weights/training/calibrate.py weights/compact
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import attributes
import detector
import embedder

COMPACT = Path(__file__).parents[1] / "compact"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", type=Path, help="folder of detector.py's run")
    parser.add_argument("--embedder", type=Path, help="folder of embedder.py's run")
    parser.add_argument("--attributes", type=Path, help="folder of attributes.py's run")
    args = parser.parse_args()
    manifest = (COMPACT / "pack.toml").read_text(encoding="utf-8")
    for role, module, run in (
        ("detector", detector, args.detector),
        ("embedder", embedder, args.embedder),
        ("attributes", attributes, args.attributes),
    ):
        path = COMPACT / f"{role}.onnx"
        if run is not None:
            module.export(run, path)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        manifest = re.sub(
            rf'(file = "{path.name}"\nsize = )\d+(\nsha256 = ")[0-9a-f]+',
            rf"\g<1>{len(data)}\g<2>{digest}",
            manifest,
        )
        print(f"{path.name}: {len(data):,} bytes, {digest}")
    (COMPACT / "pack.toml").write_text(manifest, encoding="utf-8")


if __name__ == "__main__":
    main()
