"""Plot the logs of the two trainings, one panel each.

python weights/training/curve.py --detector RUN [RUN ...] --embedder RUN --out curve.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def read(run: Path) -> dict[int, dict[str, float]]:
    """Records by step; where a run was resumed, the later record of a step counts."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return {record["step"]: record for record in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", type=Path, nargs="+", required=True)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")

    before = 0.0
    for run in args.detector:
        records = [record for _, record in sorted(read(run).items())]
        seen = [(before + record["images"]) / 1000 for record in records]
        for name, colour in (("held_box", "C0"), ("held_points", "C1")):
            label = {"held_box": "boxes", "held_points": "landmarks"}[name] if not before else None
            left.plot(seen, [record[name] for record in records], colour, label=label)
        before += records[-1]["images"]
    left.set(
        title="Detector", xlabel="thousand scenes seen", ylabel="smooth L1, held-out scenes",
        yscale="log",
    )  # fmt: skip
    left.legend()

    records = [record for _, record in sorted(read(args.embedder).items())]
    seen = [record["images"] / 1e6 for record in records]
    right.plot(seen, [record["angle"] for record in records], "C0", label="1 - cosine to teacher")
    right.set(title="Embedder", xlabel="million images seen", ylabel="loss of a batch")
    checks = [record for record in records if "tar_dev" in record]
    other = right.twinx()
    other.plot(
        [record["images"] / 1e6 for record in checks],
        [record["tar_dev"] for record in checks],
        "C2o-",
        label="TAR at FAR 1 %, held-out people",
    )
    other.axhline(checks[-1]["tar_dev_teacher"], color="C2", ls=":", label="the same, teacher")
    other.set(ylim=(0, 1))
    lines = right.get_lines() + other.get_lines()
    right.legend(lines, [line.get_label() for line in lines], loc="center right")
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
