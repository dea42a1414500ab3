"""Scaling: comparison time by pixels, search time by gallery size.

    python -m benchmarks growth --plot growth.png
    python -m benchmarks growth --sizes 1000 10000 100000 1000000 --hnsw 1000 10000 100000 \\
        --plot growth.png

Compares two portraits enlarged to each size, as arrays (no decoding) and as JPEG files, and times
full decoding of the two files alone.  Searches for one probe exactly and through the HNSW index
(`--hnsw`; building takes minutes from 100,000 templates on), with the vectors of
`benchmarks/_faces.py`.  Measurements of one size take turns; all figures are medians.  The exponent
is the slope between the outer points on logarithmic scales: 1 is linear, 0 is constant.  For HNSW,
a logarithm is also fitted.  The plot needs matplotlib.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import _faces
from benchmarks._measuring import arguments, describe, interleaved, machine, write_json
from benchmarks._pictures import pair
from facecore import FaceEngine
from facecore._utils.cpus import usable_cpus
from facecore.gallery.index import HnswIndex

DIMENSION = 128
NEIGHBOURS = 5
ARRAYS, FILES, DECODING = "compare, arrays", "compare, JPEG files", "decoding the files fully"
EXACT, HNSW = "exact search", "HNSW search"

Curves = dict[str, dict[int, float]]
"""By name: size -> milliseconds."""


def comparing(engine: FaceEngine, folder: Path, heights: Sequence[int], rounds: int) -> Curves:
    """Time comparisons by the number of pixels of one picture."""
    sources = [np.asarray(cv2.imread(str(path))) for path in pair(folder)]
    curves: Curves = {ARRAYS: {}, FILES: {}, DECODING: {}}
    for height in heights:
        size = (height * 3 // 4, height)
        a, b = (cv2.resize(source, size, interpolation=cv2.INTER_AREA) for source in sources)
        files = [folder / f"{name}-{height}.jpg" for name in "ab"]
        for path, pixels in zip(files, (a, b), strict=True):
            cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        data = [np.frombuffer(path.read_bytes(), np.uint8) for path in files]
        runs = {
            ARRAYS: lambda turn, a=a, b=b: engine.compare(a, b),
            FILES: lambda turn, files=files: engine.compare(*files),
            DECODING: lambda turn, data=data: [cv2.imdecode(d, cv2.IMREAD_COLOR) for d in data],
        }
        for name, seconds in interleaved(runs, rounds).items():
            curves[name][size[0] * size[1]] = seconds * 1e3
    return curves


def searching(sizes: Sequence[int], graphs: Sequence[int], rounds: int) -> Curves:
    """Time searches by the number of templates."""
    curves: Curves = {EXACT: {}, HNSW: {}}
    for size in sorted({*sizes, *graphs}):
        gallery, probes = _faces.faces(size, 1000, DIMENSION)
        runs = {}
        if size in sizes:
            exact = _faces.facecore_exact(gallery, usable_cpus())
            runs[EXACT] = lambda turn, p=probes, s=exact: s(p[turn % 1000][None], NEIGHBOURS)
        if size in graphs:
            index = HnswIndex(DIMENSION)
            index.add(np.arange(size), gallery)
            runs[HNSW] = lambda turn, p=probes, i=index: i.search(p[turn % 1000], NEIGHBOURS)
        for name, seconds in interleaved(runs, rounds, warm=20).items():
            curves[name][size] = seconds * 1e3
    return {name: curve for name, curve in curves.items() if curve}


def exponent(curve: Mapping[int, float]) -> float:
    """Return the slope between the outer points on logarithmic scales."""
    if len(curve) < 2:
        return float("nan")
    first, last = min(curve), max(curve)
    return float(np.log(curve[last] / curve[first]) / np.log(last / first))


def table(title: str, curves: Curves) -> None:
    sizes = sorted({size for curve in curves.values() for size in curve})
    print(f"\n{title:28}" + "".join(f"{size:>12,}" for size in sizes) + "  exponent")
    for name, curve in curves.items():
        cells = (f"{curve[size]:9.3f} ms" if size in curve else "" for size in sizes)
        print(f"  {name:26}" + "".join(f"{cell:>12}" for cell in cells), end="")
        print(f"  {exponent(curve):8.2f}")


def logarithm(curve: Mapping[int, float]) -> str:
    """Fit a + b·log2(n); return the fit and the explained share of the variance."""
    if len(curve) < 3:
        return "at least three sizes are needed to fit a logarithm"
    doublings, times = np.log2(list(curve)), np.array(list(curve.values()))
    slope, start = np.polyfit(doublings, times, 1)
    left = times - (start + slope * doublings)
    explained = 1 - left.var() / times.var()
    return f"HNSW: {slope * 1e3:.1f} microseconds for each doubling (R² {explained:.2f})"


def plot(path: Path, compared: Curves, searched: Curves) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, curves, label in zip(
        figure.subplots(1, 2),
        (compared, searched),
        ("pixels of a picture", "templates in the gallery"),
        strict=True,
    ):
        for name, curve in curves.items():
            axes.loglog([*curve], [*curve.values()], "o-", label=f"{name} ({exponent(curve):.2f})")
        axes.set(xlabel=label, ylabel="ms")
        axes.grid(alpha=0.3)
        axes.legend(title="exponent in brackets")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pack", default="compact")
    parser.add_argument(
        "--heights", type=int, nargs="+", default=[320, 480, 640, 960, 1440, 2160, 3200, 4000]
    )
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000], help="exact"
    )
    parser.add_argument("--hnsw", type=int, nargs="*", default=[1000, 3000, 10_000, 30_000])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--plot", type=Path, help="write the curves there")
    args = parser.parse_args()
    facts = machine(("onnxruntime", "opencv-python-headless", "hnswlib", "numba"))
    print(describe(facts))
    with tempfile.TemporaryDirectory() as folder:
        compared = comparing(FaceEngine(args.pack), Path(folder), args.heights, args.rounds)
    table("pixels of a picture", compared)
    searched = searching(args.sizes, args.hnsw, args.rounds)
    if searched:
        table("templates in the gallery", searched)
    if HNSW in searched:
        print(logarithm(searched[HNSW]))
    if args.plot:
        plot(args.plot, compared, searched)
    results: dict[str, Any] = {"milliseconds": {**compared, **searched}}
    results["exponents"] = {n: exponent(c) for n, c in (compared | searched).items()}
    write_json(args.json, facts, pack=args.pack, **results)


if __name__ == "__main__":
    main()
