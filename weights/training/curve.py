"""Plot training logs of the embedder, one panel per run.

python weights/training/curve.py --embedder RUN [RUN ...] --out curve2.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes


def read(run: Path) -> dict[int, dict[str, float]]:
    """Return the records by step; in a resumed run the later record of a step counts."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return {record["step"]: record for record in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedder", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    count = len(args.embedder)
    figure, all_axes = plt.subplots(
        1, count, figsize=(5.5 * count, 4), layout="constrained", squeeze=False
    )
    for axes, run in zip(all_axes[0], args.embedder, strict=True):
        plot_embedder(axes, run)
    figure.savefig(args.out, dpi=110)


def plot_embedder(axes: Axes, run: Path) -> None:
    records = [record for _, record in sorted(read(run).items())]
    seen = [record["images"] / 1e6 for record in records]
    axes.plot(seen, [record["angle"] for record in records], "C0", label="to the target, a batch")
    axes.set(title=f"Embedder: {run.name}", xlabel="million images seen", ylabel="1 - cosine")
    checks = [record for record in records if "tar_dev" in record]
    other = axes.twinx()
    other.plot(
        [record["images"] / 1e6 for record in checks],
        [record["tar_dev"] for record in checks],
        "C2o-",
        label="TAR at FAR 0.1 %, held-out people",
    )
    other.axhline(checks[-1]["tar_dev_teacher"], color="C2", ls=":", label="the same, teacher")
    if "cosine_dev" in checks[-1]:
        axes.plot(
            [record["images"] / 1e6 for record in checks],
            [1 - record["cosine_dev"] for record in checks],
            "C0o--",
            label="to the teacher, held-out people",
        )
    other.set(ylim=(min(0.8, *(record["tar_dev"] for record in checks)), 1), ylabel="TAR")
    lines = axes.get_lines() + other.get_lines()
    axes.legend(
        lines, [line.get_label() for line in lines], loc="upper center", ncols=2, fontsize="small",
        bbox_to_anchor=(0.5, -0.14),
    )  # fmt: skip


if __name__ == "__main__":
    main()
